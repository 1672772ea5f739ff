//! The server by real sockets, real files and real modules.

mod agent;
mod api;
mod deployments;
mod disk;
mod fleet;
mod harness;
mod modules;
mod start;
mod store;
