//! Connections to a release's process: where they lead, and those that wait for their next request.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use hotswap_package::SocketKind;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

use crate::body::Body;

/// Connections that wait to be accepted; the system may allow fewer.
const BACKLOG: i32 = 4_096;
/// How long a connection may wait for its next request. Servers close theirs after a few seconds; one that is closed
/// while a request is on its way costs that request.
const IDLE_TIME_MAX: Duration = Duration::from_secs(1);
/// Pause before another try where too many connections wait already.
const FULL_PAUSE: Duration = Duration::from_millis(1);
/// Most bytes of an answer's head.
const HEAD_BYTES_MAX: usize = 64 << 10;

/// A connection that takes a request.
pub(super) type Sender = SendRequest<Body>;

/// A release's listening socket. It outlives the processes that it is handed to, so that connections wait while one
/// is restarted.
#[derive(Debug)]
pub(super) struct Door {
    address: Address,
    socket: OwnedFd,
}

#[derive(Debug)]
enum Address {
    Unix(PathBuf),
    Tcp(SocketAddr),
}

impl Door {
    /// Listens: at a path, or at a free port of the loopback.
    pub(super) fn open(kind: SocketKind, path: &Path) -> io::Result<Self> {
        let (address, socket) = match kind {
            SocketKind::Unix => {
                let listener = std::os::unix::net::UnixListener::bind(path)?;
                (Address::Unix(path.to_owned()), OwnedFd::from(listener))
            }
            SocketKind::Tcp => {
                let listener = std::net::TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, 0))?;
                (Address::Tcp(listener.local_addr()?), OwnedFd::from(listener))
            }
        };
        rustix::net::listen(&socket, BACKLOG)?;
        Ok(Self { address, socket })
    }

    /// The socket once more, for a process.
    pub(super) fn socket(&self) -> io::Result<OwnedFd> {
        self.socket.try_clone()
    }

    async fn connect(&self) -> io::Result<Sender> {
        loop {
            let connected = match &self.address {
                Address::Unix(path) => match UnixStream::connect(path).await {
                    Ok(stream) => shake_hands(stream).await,
                    Err(error) => Err(error),
                },
                Address::Tcp(address) => match TcpStream::connect(address).await {
                    Ok(stream) => {
                        // Requests are written whole; a connection that refuses is ending.
                        let _ = stream.set_nodelay(true);
                        shake_hands(stream).await
                    }
                    Err(error) => Err(error),
                },
            };
            match connected {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    tokio::time::sleep(FULL_PAUSE).await;
                }
                connected => return connected,
            }
        }
    }
}

async fn shake_hands<S>(stream: S) -> io::Result<Sender>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let shaken = http1::Builder::new()
        .max_buf_size(HEAD_BYTES_MAX)
        .handshake(TokioIo::new(stream))
        .await;
    let (sender, connection) = shaken.map_err(io::Error::other)?;
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "a connection to a process ended early");
        }
    });
    Ok(sender)
}

/// Connections to one release's process.
#[derive(Debug)]
pub(super) struct Pool {
    pub(super) door: Door,
    idle: Mutex<Vec<(Sender, Instant)>>,
    idle_max: usize,
}

impl Pool {
    /// Keeps at most so many connections that wait.
    pub(super) fn new(door: Door, idle_max: usize) -> Self {
        Self {
            door,
            idle: Mutex::default(),
            idle_max,
        }
    }

    /// The connection that has waited least, if one may still be used.
    pub(super) fn take(&self) -> Option<Sender> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some((sender, since)) = idle.pop() {
            if since.elapsed() > IDLE_TIME_MAX {
                // Those below have waited longer.
                idle.clear();
                return None;
            }
            if !sender.is_closed() {
                return Some(sender);
            }
        }
        None
    }

    pub(super) fn put(&self, sender: Sender) {
        if sender.is_closed() {
            return;
        }
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < self.idle_max {
            idle.push((sender, Instant::now()));
        }
    }

    /// Ends the connections that wait.
    pub(super) fn clear(&self) {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// A new connection, accepted or waiting to be.
    pub(super) async fn connect(&self) -> io::Result<Sender> {
        self.door.connect().await
    }
}
