//! The protocol between agents and the server: `hotswap.agent.v1` over gRPC.
//!
//! [`pb`] is what travels, generated from `proto/`; everything else in Hotswap speaks the core's types. The
//! conversions here are the only place where the two meet: outwards they can't fail, inwards a message is checked
//! against the same limits that the core names, and a malformed one is refused with the path of its field
//! ([`Malformed`]). Fields that this version doesn't know are ignored.
//!
//! Transport security is the caller's: a channel or a listener is handed in. What a refusal says for programs is
//! [`REFUSAL_KEY`]'s.

mod convert;
mod malformed;
mod message;

pub use malformed::{Fault, Malformed};
pub use message::{Ack, AckedInterval, AckedVeto, FetchRequest, ServerMessage, Settings};

/// The protocol that this version speaks. A node with a newer major change says a higher one and is refused.
pub const PROTOCOL: u32 = 1;
/// Largest message of a session either way, encoded, in bytes: a full report of a node at every limit stays below.
pub const MESSAGE_BYTES_MAX: usize = 4 << 20;
/// Most bytes of a package in one chunk.
pub const CHUNK_BYTES: usize = 128 << 10;
/// Largest chunk message that a client accepts, encoded, in bytes.
pub const CHUNK_MESSAGE_BYTES_MAX: usize = CHUNK_BYTES + 1024;

/// The metadata under which a refusal has its code, such as `certificate_revoked`.
pub const REFUSAL_KEY: &str = "hotswap-code";

/// What travels, generated from `proto/`.
pub mod pb {
    #![expect(missing_docs, reason = "generated; documented in the .proto")]
    #![expect(clippy::all, clippy::allow_attributes, reason = "generated")]
    tonic::include_proto!("hotswap.agent.v1");
}
