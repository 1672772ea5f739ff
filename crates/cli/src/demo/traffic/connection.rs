//! Keep-alive connections to one node. Nothing is sent twice: what fails is counted, not retried.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// Longest wait for a whole answer; later it counts as dropped.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(5);
/// Most requests on their way to one node; beyond it a request counts as dropped unsent.
const IN_FLIGHT_MAX: u32 = 512;
/// Idle connections kept to one node.
const IDLE_MAX: usize = 64;
/// Largest answer.
const ANSWER_BYTES_MAX: usize = 64 << 10;

/// Where the node says which release answered, or should have: `NAME/VERSION`.
const RELEASE_HEADER: &str = "x-hotswap-release";

/// An answer, whoever gave it.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    /// The version that answered, or trapped or ran out of time over it.
    pub(super) version: Option<String>,
    pub(super) body: Bytes,
}

/// The connections to one node.
pub(super) struct Connections {
    address: SocketAddr,
    host: String,
    idle: RefCell<Vec<SendRequest<Full<Bytes>>>>,
    in_flight: Cell<u32>,
}

/// Counts a request while it is on its way.
struct InFlight<'a>(&'a Cell<u32>);

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

impl Connections {
    pub(super) fn new(address: SocketAddr) -> Self {
        Self {
            address,
            host: address.to_string(),
            idle: RefCell::default(),
            in_flight: Cell::new(0),
        }
    }

    /// Sends a payment and reads the whole answer.
    ///
    /// # Errors
    /// Why there is none.
    pub(super) async fn post(&self, path: &str, body: Bytes) -> Result<Answer, String> {
        if self.in_flight.get() >= IN_FLIGHT_MAX {
            return Err(format!("{IN_FLIGHT_MAX} requests were on their way to the node"));
        }
        self.in_flight.set(self.in_flight.get() + 1);
        let _in_flight = InFlight(&self.in_flight);
        match tokio::time::timeout(TIMEOUT, self.exchange(path, body)).await {
            Ok(result) => result,
            Err(_) => Err(format!("no answer within {} s", TIMEOUT.as_secs())),
        }
    }

    async fn exchange(&self, path: &str, body: Bytes) -> Result<Answer, String> {
        let mut sender = self.sender().await.map_err(|error| format!("connect: {error}"))?;
        let request = Request::post(path)
            .header("host", &self.host)
            .header("content-type", "application/json")
            .body(Full::new(body))
            .expect("the demo's requests are well-formed");
        let response = sender
            .send_request(request)
            .await
            .map_err(|error| format!("send: {error}"))?;
        let (head, body) = response.into_parts();
        let version = head
            .headers
            .get(RELEASE_HEADER)
            .and_then(|value| value.to_str().ok());
        let version = version
            .and_then(|release| release.rsplit_once('/'))
            .map(|(_, version)| version.to_owned());
        let body = Limited::new(body, ANSWER_BYTES_MAX)
            .collect()
            .await
            .map_err(|error| format!("receive: {error}"))?;
        self.put_back(sender);
        Ok(Answer {
            status: head.status,
            version,
            body: body.to_bytes(),
        })
    }

    /// An idle connection that is still open, else a new one.
    async fn sender(&self) -> Result<SendRequest<Full<Bytes>>, Box<dyn std::error::Error>> {
        loop {
            let Some(mut idle) = self.idle.borrow_mut().pop() else {
                break;
            };
            if idle.ready().await.is_ok() {
                return Ok(idle);
            }
        }
        let stream = TcpStream::connect(self.address).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await?;
        // What breaks a connection fails the request on it, which is counted there.
        tokio::task::spawn_local(async move { drop(connection.await) });
        Ok(sender)
    }

    fn put_back(&self, sender: SendRequest<Full<Bytes>>) {
        let mut idle = self.idle.borrow_mut();
        if idle.len() < IDLE_MAX {
            idle.push(sender);
        }
    }
}
