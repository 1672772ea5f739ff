//! Packages by digest, on disk.
//!
//! A file here is whole and is what its name says, or it is not here: bytes are received aside, synced, and moved in.
//! Whether a digest belongs to a release is the log's to say; a file without one is harmless.

mod blobs;
mod collect;
mod receive;

pub(crate) use blobs::INCOMING_DIR;
pub use blobs::{Registry, RegistryError};
pub use collect::{Collectable, Collector, Unneeded, needed};
pub use receive::{ReceiveError, Received};
