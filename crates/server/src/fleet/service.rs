//! Agents' sessions, as gRPC.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::{Stream, StreamExt as _, stream};
use hotswap_core::ids::NodeId;
use hotswap_core::report::NodeReport;
use hotswap_core::state::NODES_MAX;
use hotswap_core::time::Millis;
use hotswap_wire::pb::agent_service_server::{AgentService, AgentServiceServer};
use hotswap_wire::{MESSAGE_BYTES_MAX, ServerMessage, Settings, pb};
use tokio::time::timeout;
use tonic::{Request, Response, Status, Streaming};

use super::Outbox;
use super::artifacts;
use crate::clock::millis;
use crate::driver::{Driver, FleetInput};
use crate::registry::Registry;

/// How long a session may take to say its first word.
const HELLO_TIMEOUT: Duration = Duration::from_secs(10);

/// Names a session among all of this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub u64);

/// What agents talk to.
pub struct Fleet {
    driver: Driver,
    registry: Arc<Registry>,
    heartbeat: Millis,
    sessions: AtomicU64,
}

type Messages = Pin<Box<dyn Stream<Item = Result<pb::ServerMessage, Status>> + Send>>;

impl Fleet {
    /// Serves the driver's fleet.
    pub fn new(driver: Driver, registry: Arc<Registry>, heartbeat: Duration) -> Self {
        Self {
            driver,
            registry,
            heartbeat: millis(heartbeat),
            sessions: AtomicU64::new(0),
        }
    }

    /// As a gRPC service, with the protocol's limits.
    pub fn into_service(self) -> AgentServiceServer<Self> {
        AgentServiceServer::new(self).max_decoding_message_size(MESSAGE_BYTES_MAX)
    }

    /// Checks what a node says of itself before it gets a session.
    fn admit(&self, report: &NodeReport) -> Result<Settings, Status> {
        let Some(hello) = &report.hello else {
            return Err(Status::failed_precondition(
                "a session begins with a full report: its hello is missing",
            ));
        };
        let state = self.driver.world().state();
        let known = state.nodes.contains_key(&report.node);
        if !known && state.nodes.len() >= NODES_MAX {
            return Err(Status::resource_exhausted(format!(
                "the fleet has {NODES_MAX} nodes, the most there may be"
            )));
        }
        if !known {
            state
                .environment(&hello.environment)
                .map_err(|refusal| Status::failed_precondition(refusal.to_string()))?;
        }
        let fleet = state
            .fleet
            .ok_or_else(|| Status::unavailable("the server is starting"))?;
        Ok(Settings {
            fleet,
            heartbeat: self.heartbeat,
        })
    }
}

#[tonic::async_trait]
impl AgentService for Fleet {
    type SessionStream = Messages;
    type FetchArtifactStream = artifacts::Chunks;

    async fn session(
        &self,
        request: Request<Streaming<pb::AgentMessage>>,
    ) -> Result<Response<Messages>, Status> {
        let mut reports = request.into_inner();
        let first = timeout(HELLO_TIMEOUT, next_report(&mut reports)).await;
        let first = first.map_err(|_| Status::deadline_exceeded("no report came"))??;
        let first =
            first.ok_or_else(|| Status::failed_precondition("the session ended before its first report"))?;
        let settings = self.admit(&first)?;
        let session = SessionId(self.sessions.fetch_add(1, Ordering::Relaxed));
        let outbox = Arc::new(Outbox::default());
        let receiver = Receiver {
            driver: self.driver.clone(),
            node: first.node.clone(),
            session,
            outbox: Arc::clone(&outbox),
        };
        tokio::spawn(receiver.run(first, reports));
        let first = pb::ServerMessage::from(&ServerMessage::Settings(settings));
        let rest = stream::unfold(Some(HangUp(outbox)), |outbox| async {
            let outbox = outbox?;
            Some(match outbox.0.next().await {
                Ok(message) => (Ok(pb::ServerMessage::from(&message)), Some(outbox)),
                Err(why) => (Err(Status::aborted(why)), None),
            })
        });
        Ok(Response::new(Box::pin(stream::iter([Ok(first)]).chain(rest))))
    }

    async fn fetch_artifact(
        &self,
        request: Request<pb::FetchRequest>,
    ) -> Result<Response<artifacts::Chunks>, Status> {
        let request = hotswap_wire::FetchRequest::try_from(request.into_inner())
            .map_err(|malformed| Status::invalid_argument(malformed.to_string()))?;
        artifacts::fetch(self.driver.world(), &self.registry, request)
            .await
            .map(Response::new)
    }
}

/// Ends the session when the node no longer listens.
struct HangUp(Arc<Outbox>);

impl Drop for HangUp {
    fn drop(&mut self) {
        self.0.close("the connection fell");
    }
}

/// The next report of a stream; messages of newer agents are passed over. `None`: it ended.
async fn next_report(reports: &mut Streaming<pb::AgentMessage>) -> Result<Option<NodeReport>, Status> {
    while let Some(message) = reports.message().await? {
        let report = message
            .read()
            .map_err(|malformed| Status::invalid_argument(malformed.to_string()))?;
        if report.is_some() {
            return Ok(report);
        }
    }
    Ok(None)
}

/// Takes one session's reports to the driver.
struct Receiver {
    driver: Driver,
    node: NodeId,
    session: SessionId,
    outbox: Arc<Outbox>,
}

impl Receiver {
    async fn run(self, first: NodeReport, reports: Streaming<pb::AgentMessage>) {
        let Self {
            driver,
            node,
            session,
            outbox,
        } = &self;
        let (node, session) = (node.clone(), *session);
        let connected = FleetInput::Connected {
            node: node.clone(),
            session,
            outbox: Arc::clone(outbox),
        };
        if driver.tell(connected).await {
            tracing::info!(%node, "connected");
            tokio::select! {
                () = self.take_in(first, reports) => {}
                () = outbox.closed() => {}
            }
            driver
                .tell(FleetInput::Disconnected {
                    node: node.clone(),
                    session,
                })
                .await;
            tracing::info!(%node, "disconnected");
        }
        outbox.close("the session ended");
    }

    async fn take_in(&self, first: NodeReport, mut reports: Streaming<pb::AgentMessage>) {
        let mut report = first;
        loop {
            if report.node != self.node {
                tracing::warn!(node = %self.node, claimed = %report.node, "a session reported for another node; it is ended");
                return self.outbox.close("a session reports for one node");
            }
            let input = FleetInput::Report {
                session: self.session,
                report: Box::new(report),
            };
            if !self.driver.tell(input).await {
                return self.outbox.close("the server is shutting down");
            }
            report = match next_report(&mut reports).await {
                Ok(Some(report)) => report,
                Ok(None) => return,
                Err(status) => {
                    if status.code() == tonic::Code::InvalidArgument {
                        tracing::warn!(node = %self.node, error = status.message(), "a malformed report; the session is ended");
                        self.outbox.close("a report was malformed; see the server's log");
                    }
                    return;
                }
            };
        }
    }
}
