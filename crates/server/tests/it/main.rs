//! The server by real sockets, real files and real modules.

mod access;
mod agent;
mod api;
mod approvals;
mod audit;
mod bodies;
mod contract;
mod deployments;
mod disk;
mod events;
mod fleet;
mod guard;
mod harness;
mod kept;
mod limits;
mod modules;
mod nodes;
mod plan;
mod secrets;
mod sight;
mod start;
mod store;
mod tls;
mod trust;
mod webhooks;
