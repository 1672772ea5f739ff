//! The beginning of a connection over TLS.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hotswap_transport::{Clients, ConfigError, Identity, server_config};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::listen::STALL_MAX;
use super::stall::Unstalled;

/// The protocols that are spoken, the preferred one first.
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];
/// Bytes of a plain request that are read to answer it; its answer comes through as long as nothing is left unread.
const PLAIN_BYTES_MAX: u64 = 32 << 10;

/// Makes connections of what clients say first.
#[derive(Clone)]
pub struct Handshakes {
    acceptor: TlsAcceptor,
    timeout: Duration,
}

impl std::fmt::Debug for Handshakes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Handshakes")
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}

impl Handshakes {
    /// With this certificate, and so much time for each.
    ///
    /// # Errors
    /// TLS can't be set up.
    pub(crate) fn new(identity: Arc<Identity>, timeout: Duration) -> Result<Self, ConfigError> {
        let config = server_config(identity, Clients::Nobody, &PROTOCOLS)?;
        Ok(Self {
            acceptor: TlsAcceptor::from(Arc::new(config)),
            timeout,
        })
    }

    /// The connection, or `None` where none came about.
    pub(super) async fn accept(
        &self,
        stream: TcpStream,
        peer: SocketAddr,
    ) -> Option<TlsStream<Unstalled<TcpStream>>> {
        match tokio::time::timeout(self.timeout, self.greet(stream)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => {
                tracing::debug!(%peer, %error, "a handshake failed");
                None
            }
            Err(_) => {
                tracing::debug!(%peer, "a handshake took too long");
                None
            }
        }
    }

    async fn greet(&self, stream: TcpStream) -> std::io::Result<Option<TlsStream<Unstalled<TcpStream>>>> {
        let mut first = [0];
        // Records of TLS begin with numbers below those of letters, requests with a method.
        if stream.peek(&mut first).await? == 1 && first[0].is_ascii_alphabetic() {
            answer_plain(stream).await?;
            return Ok(None);
        }
        self.acceptor
            .accept(Unstalled::new(stream, STALL_MAX))
            .await
            .map(Some)
    }
}

/// Tells who speaks plain HTTP what is spoken here.
async fn answer_plain(mut stream: TcpStream) -> std::io::Result<()> {
    let body = json!({
        "error": "this port speaks HTTPS: begin the address with https://",
        "traceId": uuid::Uuid::new_v4().simple().to_string(),
        "code": "https_required",
    });
    let body = body.to_string();
    let answer = format!(
        "HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(answer.as_bytes()).await?;
    stream.shutdown().await?;
    // Until the client has read it and closes; what it still sends is thrown away.
    let mut rest = stream.take(PLAIN_BYTES_MAX);
    tokio::io::copy(&mut rest, &mut tokio::io::sink()).await?;
    Ok(())
}
