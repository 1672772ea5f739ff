//! The control plane: driver, event log, registry, agent sessions and REST API.
//!
//! Inputs (commands by HTTP, reports of agents, results of checks) go to the [`driver`], which lets the pure core
//! decide, makes the outcome durable in the [`store`], and then lets its effects out. Everything else here is a door
//! to it: [`api`] for people and programs, [`fleet`] for agents; or work on its behalf: [`checks`], [`registry`].
//! A [`backup`] holds all of it.

pub mod access;
pub mod api;
pub mod audit;
pub mod backup;
pub mod checks;
pub mod clock;
pub mod config;
pub mod driver;
pub mod enrolment;
pub mod feed;
pub mod fleet;
pub mod notify;
mod places;
pub mod registry;
pub mod server;
pub mod sight;
pub mod store;
pub mod tls;
mod trust;
pub mod views;

pub use access::{AccessConfig, DEMO_ACCOUNTS, FirstAdmin, Role};
pub use api::RateLimits;
pub use config::{Grant, ServerConfig};
pub use server::{RunningServer, Server, Sockets, StartError};
pub use tls::{TlsConfig, TlsMode};
