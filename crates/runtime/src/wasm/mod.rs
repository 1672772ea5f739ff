//! The WebAssembly host: components that export `wasi:http/incoming-handler` 0.2, in wasmtime.
//!
//! A request's guest code runs inside the task that serves its connection: no other task, channel or wake-up stands
//! between the ingress and the guest. Instances are kept in a [`pool`] and used again; a guest that runs over an
//! epoch yields, so that it never keeps a thread from other requests; a guest that traps, or takes more time or
//! memory than it may, takes its own instance with it and nothing else.

mod cache;
mod call;
mod check;
mod config;
mod guest;
mod host;
mod instance;
mod logs;
mod outbound;
mod pool;
mod release;

pub use config::WasmHostConfig;
pub use host::{HostError, WasmHost};
pub use instance::WasmInstance;
