//! The ingress's limits.

use std::time::Duration;

use crate::spans::RequestSpans;

/// What clients may do to an ingress, and what it tells them.
#[derive(Clone, Debug)]
pub struct IngressConfig {
    /// Most connections at once; more wait in the system's queue.
    pub connections_max: usize,
    /// Most bytes of a request's head, at least 8,192.
    pub header_bytes_max: usize,
    /// Most headers of a request.
    pub headers_max: usize,
    /// Most bytes of a request's body; a module's own limit counts where it is lower.
    pub body_bytes_max: u64,
    /// How long a request's head may take, the first on a connection from its start; a connection that is kept alive
    /// without a request ends after this too (HTTP/1.1).
    pub header_read_timeout: Duration,
    /// Whether a connection serves more than one request (HTTP/1.1).
    pub keep_alive: bool,
    /// Most requests at once on a connection (HTTP/2).
    pub streams_per_connection_max: u32,
    /// How often a silent client is asked whether it is there, and how long it may take to answer (HTTP/2).
    pub ping_interval: Duration,
    /// Whether answers say which release gave them, in `x-hotswap-release: NAME/VERSION`.
    pub release_header: bool,
    /// Which requests are recorded as spans; none unless it is set.
    pub spans: Option<RequestSpans>,
}

impl Default for IngressConfig {
    fn default() -> Self {
        Self {
            connections_max: 10_000,
            header_bytes_max: 32 << 10,
            headers_max: 100,
            body_bytes_max: 64 << 20,
            header_read_timeout: Duration::from_secs(30),
            keep_alive: true,
            streams_per_connection_max: 200,
            ping_interval: Duration::from_secs(20),
            release_header: true,
            spans: None,
        }
    }
}
