//! Agents' sessions, as gRPC.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures::{Stream, StreamExt as _, stream};
use hotswap_core::ids::NodeId;
use hotswap_core::report::NodeReport;
use hotswap_core::state::NODES_MAX;
use hotswap_core::time::Millis;
use hotswap_wire::pb::agent_service_server::{AgentService, AgentServiceServer};
use hotswap_wire::{MESSAGE_BYTES_MAX, ServerMessage, Settings, pb};
use tokio::time::timeout;
use tonic::{Request, Response, Status, Streaming};

use super::admission::speaks_for;
use super::artifacts;
use super::telling::Telling;
use super::{Caller, Outbox};
use crate::access::Access;
use crate::clock::millis;
use crate::driver::{Driver, FleetInput};
use crate::enrolment::{Enrolment, Grant, NodePeer, Peer, Refusal};
use crate::registry::Registry;

/// How long a session may take to say its first word.
const HELLO_TIMEOUT: Duration = Duration::from_secs(10);

/// Names a session among all of this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub u64);

/// What agents talk to.
pub struct Fleet {
    pub(super) driver: Driver,
    registry: Arc<Registry>,
    pub(super) enrolment: Arc<Enrolment>,
    pub(super) access: Arc<Access>,
    heartbeat: Millis,
    sessions: AtomicU64,
    pub(super) telling: Telling,
}

type Messages = Pin<Box<dyn Stream<Item = Result<pb::ServerMessage, Status>> + Send>>;

impl Fleet {
    /// Serves the driver's fleet.
    pub fn new(
        driver: Driver,
        registry: Arc<Registry>,
        enrolment: Arc<Enrolment>,
        access: Arc<Access>,
        heartbeat: Duration,
    ) -> Self {
        Self {
            driver,
            registry,
            enrolment,
            access,
            heartbeat: millis(heartbeat),
            sessions: AtomicU64::new(0),
            telling: Telling::new(Instant::now()),
        }
    }

    /// As a gRPC service, with the protocol's limits.
    pub fn into_service(self: Arc<Self>) -> AgentServiceServer<Self> {
        AgentServiceServer::from_arc(self).max_decoding_message_size(MESSAGE_BYTES_MAX)
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
            renew_in: None,
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
        let caller = caller(&request)?;
        let peer = self
            .node_of(&caller)
            .map_err(|refusal| self.refuse("session", &caller, refusal))?;
        let mut reports = request.into_inner();
        let first = timeout(HELLO_TIMEOUT, next_report(&mut reports)).await;
        let first = first.map_err(|_| Status::deadline_exceeded("no report came"))??;
        let first =
            first.ok_or_else(|| Status::failed_precondition("the session ended before its first report"))?;
        if let Some(peer) = &peer {
            speaks_for(self.driver.world(), peer, &first)
                .map_err(|refusal| self.refuse("session", &caller, refusal))?;
        }
        let mut settings = self.admit(&first)?;
        if let Some(peer) = &peer {
            settings.renew_in = Some(self.enrolment.seen(peer).await?);
        }
        let session = SessionId(self.sessions.fetch_add(1, Ordering::Relaxed));
        let outbox = Arc::new(Outbox::default());
        let receiver = Receiver {
            driver: self.driver.clone(),
            node: first.node.clone(),
            session,
            outbox: Arc::clone(&outbox),
            certified: peer.map(|peer| (Arc::clone(&self.enrolment), peer)),
        };
        // Before the node hears of it: sessions of one node take their places in the order that it opened them in.
        if !receiver.connect().await {
            return Err(Status::unavailable("the server is shutting down"));
        }
        tokio::spawn(receiver.run(first, reports));
        let first = pb::ServerMessage::from(&ServerMessage::Settings(settings));
        let rest = stream::unfold(Some(HangUp(outbox)), |outbox| async {
            let outbox = outbox?;
            Some(match outbox.0.next().await {
                Ok(message) => (Ok(pb::ServerMessage::from(&message)), Some(outbox)),
                Err(why) => {
                    let refused = Refusal::of_ending(why).map(Status::from);
                    (Err(refused.unwrap_or_else(|| Status::aborted(why))), None)
                }
            })
        });
        Ok(Response::new(Box::pin(stream::iter([Ok(first)]).chain(rest))))
    }

    async fn fetch_artifact(
        &self,
        request: Request<pb::FetchRequest>,
    ) -> Result<Response<artifacts::Chunks>, Status> {
        let caller = caller(&request)?;
        let peer = self
            .node_of(&caller)
            .map_err(|refusal| self.refuse("fetchArtifact", &caller, refusal))?;
        let request = hotswap_wire::FetchRequest::try_from(request.into_inner())
            .map_err(|malformed| Status::invalid_argument(malformed.to_string()))?;
        let digest = request.digest;
        if let Some(node) = peer.as_ref().map(|peer| peer.node().clone())
            && !artifacts::is_named(self.driver.world(), &node, &digest)
        {
            let refusal = Refusal::NotNamed { node, digest };
            return Err(self.refuse("fetchArtifact", &caller, refusal));
        }
        let chunks = artifacts::fetch(self.driver.world(), &self.registry, request).await?;
        let Some(peer) = peer else {
            return Ok(Response::new(chunks));
        };
        let enrolment = Arc::clone(&self.enrolment);
        Ok(Response::new(Box::pin(chunks.map(move |chunk| {
            enrolment.check(&peer)?;
            chunk
        }))))
    }

    async fn join(
        &self,
        request: Request<pb::JoinRequest>,
    ) -> Result<Response<pb::CertificateGrant>, Status> {
        let caller = caller(&request)?;
        let pb::JoinRequest { token, node, request } = request.into_inner();
        let from = Some(caller.address.ip());
        let granted = match &caller.peer {
            // A token's secret is for the fleet's own server alone.
            Peer::Plain => Err(Refusal::PlainAgents),
            Peer::Anonymous | Peer::Node(_) => self.enrolment.join(&token, &node, &request, from).await,
        };
        let granted = granted.map_err(|refusal| self.refuse("join", &caller, refusal))?;
        tracing::info!(node, address = %caller.address, "a node joined");
        Ok(Response::new(self.granted(granted)))
    }

    async fn renew(
        &self,
        request: Request<pb::RenewRequest>,
    ) -> Result<Response<pb::CertificateGrant>, Status> {
        let caller = caller(&request)?;
        let renewed = match self.node_of(&caller) {
            Ok(Some(peer)) => {
                let from = Some(caller.address.ip());
                self.enrolment
                    .renew(&peer, &request.into_inner().request, from)
                    .await
            }
            Ok(None) => Err(Refusal::PlainAgents),
            Err(refusal) => Err(refusal),
        };
        let renewed = renewed.map_err(|refusal| self.refuse("renew", &caller, refusal))?;
        Ok(Response::new(self.granted(renewed)))
    }
}

impl Fleet {
    fn granted(&self, grant: Grant) -> pb::CertificateGrant {
        pb::CertificateGrant {
            chain: grant.chain,
            authority: self.enrolment.authority().certificate_pem().to_owned(),
            renew_in_ms: grant.renew_in.0,
        }
    }
}

/// Who calls, as the connection's handshake found out.
fn caller<T>(request: &Request<T>) -> Result<Caller, Status> {
    let caller = request.extensions().get::<Caller>().cloned();
    caller.ok_or_else(|| Status::internal("the connection says nothing of its other end"))
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

/// Returns once the certificate that a session stands on holds no longer.
async fn holds(certified: Option<&(Arc<Enrolment>, Arc<NodePeer>)>) -> &'static str {
    match certified {
        Some((enrolment, peer)) => enrolment.ended(peer).await,
        None => std::future::pending().await,
    }
}

/// Takes one session's reports to the driver.
struct Receiver {
    driver: Driver,
    node: NodeId,
    session: SessionId,
    outbox: Arc<Outbox>,
    /// Whose certificate the session stands on, and who knows whether it holds.
    certified: Option<(Arc<Enrolment>, Arc<NodePeer>)>,
}

impl Receiver {
    /// `false`: the driver has ended.
    async fn connect(&self) -> bool {
        let connected = FleetInput::Connected {
            node: self.node.clone(),
            session: self.session,
            outbox: Arc::clone(&self.outbox),
        };
        self.driver.tell(connected).await
    }

    async fn run(self, first: NodeReport, reports: Streaming<pb::AgentMessage>) {
        let Self {
            driver,
            node,
            session,
            outbox,
            certified,
        } = &self;
        let (node, session) = (node.clone(), *session);
        tracing::info!(%node, "connected");
        tokio::select! {
            () = self.take_in(first, reports) => {}
            () = outbox.closed() => {}
            why = holds(certified.as_ref()) => {
                tracing::warn!(%node, "{why}");
                outbox.close(why);
            }
        }
        driver
            .tell(FleetInput::Disconnected {
                node: node.clone(),
                session,
            })
            .await;
        tracing::info!(%node, "disconnected");
        outbox.close("the session ended");
    }

    async fn take_in(&self, first: NodeReport, mut reports: Streaming<pb::AgentMessage>) {
        let mut report = first;
        loop {
            if report.node != self.node {
                tracing::warn!(node = %self.node, claimed = %report.node, "a session reported for another node; it is ended");
                return self.outbox.close("a session reports for one node");
            }
            // Not the first hello alone: which environment a new node is of is read from the newest.
            if let Some((_, peer)) = &self.certified
                && let Err(refusal) = speaks_for(self.driver.world(), peer, &report)
            {
                tracing::warn!(node = %self.node, "{refusal}; the session is ended");
                return self.outbox.close("a session's environment is its certificate's");
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
