//! Taking in agents' connections: the handshake, who is there, and limits on whoever isn't known yet.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use futures::Stream;
use hotswap_transport::{
    Authority, AuthorityError, Clients, FLEET_ALPN, FLEET_SERVER_NAME, Identity, server_config,
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::{Sleep, sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::server::Connected;

use crate::api::Listening;
use crate::enrolment::{Enrolment, NodePeer, Peer};
use crate::places::{Place, Places};
use crate::server::StartError;

/// Handshakes at once; more connections wait in the listener.
const HANDSHAKES_MAX: usize = 1_024;
/// Handshakes at once with one address; more are refused. A whole fleet may be behind one.
const HANDSHAKES_PER_ADDRESS_MAX: u32 = 128;
/// How long a handshake may take.
const HANDSHAKE_TIME_MAX: Duration = Duration::from_secs(10);
/// Connections without a certificate at once: they may join, and nothing else.
const ANONYMOUS_MAX: usize = 512;
/// The same, of one address.
const ANONYMOUS_PER_ADDRESS_MAX: u32 = 64;
/// How long one may last.
const ANONYMOUS_TIME_MAX: Duration = Duration::from_secs(30);
/// Connections that wait to be served.
const ACCEPTED_WAITING_MAX: usize = 64;
/// How long accepting rests where the system refuses it (no file descriptors left).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long the server's certificate for agents holds; its key is in memory alone, and is made anew with each.
const SERVER_CERTIFICATE_LIFETIME: Duration = Duration::from_secs(30 * 86_400);
/// How often it is exchanged: long before its end.
const SERVER_CERTIFICATE_RENEWED: Duration = Duration::from_secs(10 * 86_400);

/// How agents' connections are secured.
pub enum Door {
    /// Not at all: anybody who reaches the port is believed.
    Plain,
    /// By the fleet's authority.
    Tls {
        /// What handshakes are done by.
        acceptor: TlsAcceptor,
        /// The server's own certificate.
        identity: Arc<Identity>,
    },
}

impl Door {
    /// With a certificate of the fleet's authority.
    ///
    /// # Errors
    /// None could be issued.
    pub fn tls(enrolment: &Enrolment) -> Result<Self, StartError> {
        let authority = enrolment.authority();
        let (chain, key) = issue(authority)?;
        let identity = Identity::from_pem(&chain, &key)?;
        let identity = Arc::new(identity);
        let clients = Clients::Fleet {
            authority: authority.certificate().clone(),
            required: false,
            revoked: enrolment.revoked(),
        };
        let config = server_config(Arc::clone(&identity), clients, FLEET_ALPN)?;
        Ok(Self::Tls {
            acceptor: TlsAcceptor::from(Arc::new(config)),
            identity,
        })
    }
}

fn issue(authority: &Authority) -> Result<(String, String), AuthorityError> {
    let names = [FLEET_SERVER_NAME.to_owned()];
    let issued = authority.issue_server(&names, SERVER_CERTIFICATE_LIFETIME, SystemTime::now())?;
    let key = issued
        .key_pem
        .map(|key| key.as_str().to_owned())
        .unwrap_or_default();
    Ok((issued.chain_pem, key))
}

/// Exchanges the server's certificate for agents before it ends; connections go on.
pub async fn keep_certificate(
    identity: Arc<Identity>,
    authority: Arc<Authority>,
    shutdown: CancellationToken,
) {
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = sleep(SERVER_CERTIFICATE_RENEWED) => {}
        }
        let renewed = issue(&authority).map_err(|error| error.to_string());
        let renewed = renewed.and_then(|(chain, key)| {
            let replaced = identity.replace(&chain, &key);
            replaced.map_err(|error| error.to_string())
        });
        match renewed {
            Ok(()) => tracing::info!("the server's certificate for agents is a new one"),
            Err(error) => tracing::error!(error, "the server's certificate for agents could not be renewed"),
        }
    }
}

/// Agents' connections, as they are ready to be served, until the shutdown.
pub fn incoming(
    listening: Listening,
    door: Door,
    refused: impl Fn(SocketAddr, &io::Error) + Send + Sync + 'static,
    shutdown: CancellationToken,
) -> impl Stream<Item = io::Result<AgentStream>> {
    let (accepted, ready) = mpsc::channel(ACCEPTED_WAITING_MAX);
    tokio::spawn(accept(listening, door, Arc::new(refused), accepted, shutdown));
    tokio_stream::wrappers::ReceiverStream::new(ready)
}

type Refused = Arc<dyn Fn(SocketAddr, &io::Error) + Send + Sync>;

async fn accept(
    listening: Listening,
    door: Door,
    refused: Refused,
    accepted: mpsc::Sender<io::Result<AgentStream>>,
    shutdown: CancellationToken,
) {
    let listener = listening.into_inner();
    let handshakes = Places::new(HANDSHAKES_MAX, HANDSHAKES_PER_ADDRESS_MAX);
    let anonymous = Places::new(ANONYMOUS_MAX, ANONYMOUS_PER_ADDRESS_MAX);
    loop {
        let turn = handshakes.free().await;
        let (tcp, address) = tokio::select! {
            () = shutdown.cancelled() => return,
            taken = listener.accept() => match taken {
                Ok(taken) => taken,
                Err(error) => {
                    tracing::warn!(%error, "failed to accept an agent's connection");
                    sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            },
        };
        // Reports are small: waiting to fill a packet only delays them.
        drop(tcp.set_nodelay(true));
        let accepted = accepted.clone();
        match &door {
            Door::Plain => {
                if accepted.send(Ok(AgentStream::plain(tcp, address))).await.is_err() {
                    return;
                }
            }
            Door::Tls { acceptor, .. } => {
                let (acceptor, refused) = (acceptor.clone(), Arc::clone(&refused));
                let Some(turn) = handshakes.give(turn, address.ip()) else {
                    refused(address, &many(HANDSHAKES_PER_ADDRESS_MAX, "handshakes"));
                    continue;
                };
                let (anonymous, shutdown) = (anonymous.clone(), shutdown.clone());
                tokio::spawn(async move {
                    let shaken = shutdown
                        .run_until_cancelled(shake(acceptor, tcp, anonymous, address))
                        .await;
                    drop(turn);
                    match shaken {
                        None => {}
                        Some(Ok(stream)) => drop(accepted.send(Ok(stream)).await),
                        Some(Err(error)) => refused(address, &error),
                    }
                });
            }
        }
    }
}

async fn shake(
    acceptor: TlsAcceptor,
    tcp: TcpStream,
    anonymous: Places,
    address: SocketAddr,
) -> io::Result<AgentStream> {
    let stream = timeout(HANDSHAKE_TIME_MAX, acceptor.accept(tcp))
        .await
        .map_err(|_| {
            io::Error::new(
                io::ErrorKind::TimedOut,
                format!("no TLS handshake within {HANDSHAKE_TIME_MAX:?}"),
            )
        })??;
    let certificate = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
    let (peer, limit) = match certificate {
        Some(certificate) => {
            let peer = NodePeer::new(certificate)
                .ok_or_else(|| io::Error::other("the certificate names no node of a fleet"))?;
            (Peer::Node(Arc::new(peer)), None)
        }
        None => {
            let what = "connections without a certificate";
            let free = anonymous
                .try_free()
                .ok_or_else(|| io::Error::other(format!("{ANONYMOUS_MAX} {what} are open")))?;
            let place = anonymous.give(free, address.ip());
            let limit = Limit {
                until: Box::pin(sleep(ANONYMOUS_TIME_MAX)),
                _place: place.ok_or_else(|| many(ANONYMOUS_PER_ADDRESS_MAX, what))?,
            };
            (Peer::Anonymous, Some(limit))
        }
    };
    Ok(AgentStream {
        line: Line::Tls(Box::new(stream)),
        caller: Caller { peer, address },
        limit,
    })
}

fn many(max: u32, what: &str) -> io::Error {
    io::Error::other(format!(
        "this address has {max} {what} already, the most there may be"
    ))
}

/// Who calls on a connection, and from where.
#[derive(Clone, Debug)]
pub struct Caller {
    /// Who it is.
    pub peer: Peer,
    /// From where.
    pub address: SocketAddr,
}

/// A place among those who are not known, and its end.
struct Limit {
    until: Pin<Box<Sleep>>,
    _place: Place,
}

enum Line {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// An agent's connection.
pub struct AgentStream {
    line: Line,
    caller: Caller,
    limit: Option<Limit>,
}

impl AgentStream {
    fn plain(tcp: TcpStream, address: SocketAddr) -> Self {
        Self {
            line: Line::Plain(tcp),
            caller: Caller {
                peer: Peer::Plain,
                address,
            },
            limit: None,
        }
    }
}

impl Connected for AgentStream {
    type ConnectInfo = Caller;

    fn connect_info(&self) -> Caller {
        self.caller.clone()
    }
}

impl AsyncRead for AgentStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Some(limit) = &mut self.limit
            && limit.until.as_mut().poll(cx).is_ready()
        {
            let why = format!("a connection without a certificate lasts {ANONYMOUS_TIME_MAX:?}");
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, why)));
        }
        match &mut self.line {
            Line::Plain(line) => Pin::new(line).poll_read(cx, into),
            Line::Tls(line) => Pin::new(line).poll_read(cx, into),
        }
    }
}

impl AsyncWrite for AgentStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.line {
            Line::Plain(line) => Pin::new(line).poll_write(cx, bytes),
            Line::Tls(line) => Pin::new(line).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.line {
            Line::Plain(line) => Pin::new(line).poll_write_vectored(cx, parts),
            Line::Tls(line) => Pin::new(line).poll_write_vectored(cx, parts),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match &self.line {
            Line::Plain(line) => line.is_write_vectored(),
            Line::Tls(line) => line.is_write_vectored(),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.line {
            Line::Plain(line) => Pin::new(line).poll_flush(cx),
            Line::Tls(line) => Pin::new(line).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.line {
            Line::Plain(line) => Pin::new(line).poll_shutdown(cx),
            Line::Tls(line) => Pin::new(line).poll_shutdown(cx),
        }
    }
}
