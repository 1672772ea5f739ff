//! What loads and runs modules on a node: the runtime traits, the WebAssembly host, and the hosts of native processes,
//! of eBPF programs and of kernel modules.
//!
//! A [`Runtime`] prepares a verified artifact (compiles it, loads it for a check), a [`Prepared`] artifact starts
//! [`Instance`]s, and an instance is one loaded release: ready to serve, metered, limited, drained when it goes.
//! Nodes serve from instances; the server uses the same code for admission and for smoke checks in a sandbox.

mod body;
pub mod ebpf;
mod failure;
mod grants;
pub mod kernel;
mod kind;
mod lines;
mod places;
pub mod process;
mod runtimes;
mod shared;
#[cfg(feature = "testing")]
pub mod testing;
pub mod wasm;

pub use body::{Body, BodyError, Overflow};
pub use ebpf::{EbpfHost, EbpfHostConfig};
pub use failure::Failure;
pub use grants::{Grants, Ungranted};
pub use kernel::{KernelHost, KernelHostConfig};
pub use kind::{
    Artifact, BoxFuture, Closed, Instance, Launch, PrepareError, Prepared, Readiness, ResponseFuture,
    Runtime, StartError, Tally, Usage,
};
pub use process::{ProcessHost, ProcessHostConfig};
pub use runtimes::Runtimes;
pub use wasm::{WasmHost, WasmHostConfig};
