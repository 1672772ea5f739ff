//! Where a server is reached, and how: plainly, or by TLS.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use anyhow::Result;
use hotswap_transport::rustls::client::Resumption;
use hotswap_transport::{ClientConfig, Roots, client_config};
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWriteExt as _, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// What is spoken.
const HTTP_1: &[&[u8]] = &[b"http/1.1"];

/// Where a server is reached, and how.
#[derive(Clone, Debug)]
pub(crate) struct Endpoint {
    pub(crate) address: SocketAddr,
    tls: Option<Arc<ClientConfig>>,
}

impl Endpoint {
    pub(crate) fn plain(address: SocketAddr) -> Self {
        Self { address, tls: None }
    }

    /// By TLS, trusting an authority's certificate in PEM. A later connection goes on with an earlier one's session, as
    /// most clients' do.
    pub(crate) fn secure(address: SocketAddr, authority: &str) -> Result<Self> {
        let config = client_config(Roots::Pem(authority.to_owned()), None, HTTP_1)?;
        Ok(Self {
            address,
            tls: Some(Arc::new(config)),
        })
    }

    /// The same, where every connection begins with a whole handshake.
    pub(crate) fn without_resumption(&self) -> Self {
        let mut again = self.clone();
        if let Some(config) = &mut again.tls {
            Arc::make_mut(config).resumption = Resumption::disabled();
        }
        again
    }

    pub(super) async fn connect(&self) -> io::Result<Stream> {
        let stream = TcpStream::connect(self.address).await?;
        stream.set_nodelay(true)?;
        let Some(config) = &self.tls else {
            return Ok(Stream::Plain(stream));
        };
        let name = ServerName::from(self.address.ip());
        let stream = TlsConnector::from(Arc::clone(config))
            .connect(name, stream)
            .await?;
        Ok(Stream::Secure(Box::new(stream)))
    }
}

/// A connection's bytes.
pub(super) enum Stream {
    Plain(TcpStream),
    Secure(Box<TlsStream<TcpStream>>),
}

impl Stream {
    /// Sends it all.
    pub(super) async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Plain(stream) => stream.write_all(bytes).await,
            Self::Secure(stream) => {
                stream.write_all(bytes).await?;
                // What is written may wait in the record layer.
                stream.flush().await
            }
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Secure(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}
