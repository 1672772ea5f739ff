//! The fleet's authority, and TLS with what it issues, over a duplex in memory.

mod authority;
mod exchange;
mod handshakes;
mod support;
