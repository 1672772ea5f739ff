//! Load: many connections from one thread, apart from every server.

mod anew;
mod closed;
mod connection;
mod endpoint;
mod measured;
mod open;

use std::net::SocketAddr;

use bytes::Bytes;

pub(crate) use anew::anew;
pub(crate) use closed::closed;
pub(crate) use connection::{Answer, Connection, request};
pub(crate) use endpoint::Endpoint;
pub(crate) use measured::{Measured, least, median, quantile};
pub(crate) use open::open;

/// What is asked, and of whom.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) endpoint: Endpoint,
    /// A whole request, as it goes over the wire.
    pub(crate) request: Bytes,
    /// The only right status.
    pub(crate) status: u16,
}

impl Target {
    /// A plain `GET` that is answered with 200.
    pub(crate) fn get(address: SocketAddr, path: &str) -> Self {
        Self {
            endpoint: Endpoint::plain(address),
            request: request("GET", path, &[], b"").into(),
            status: 200,
        }
    }
}
