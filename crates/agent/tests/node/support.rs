//! A control plane for tests: real sockets and the real protocol, told by the test what to say.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use hotswap_agent::{Agent, AgentConfig, AgentError, RunningAgent};
use hotswap_core::ids::{Digest, FleetId, ModuleName, ReleaseRef, RolloutId};
use hotswap_core::report::{Hello, Interval, ModuleStatus, NodeReport, Veto};
use hotswap_core::spec::{Generation, ModuleSpec, NodeSpec};
use hotswap_core::time::Millis;
use hotswap_package::Package;
use hotswap_runtime::testing;
use hotswap_runtime::{WasmHost, WasmHostConfig};
use hotswap_trust::Gate;
use hotswap_wire::pb::agent_service_server::{AgentService, AgentServiceServer};
use hotswap_wire::{Ack, AckedInterval, AckedVeto, CHUNK_BYTES, FetchRequest, ServerMessage, Settings, pb};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, oneshot};
use tokio_stream::Stream;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::{Request, Response, Status, Streaming};

/// Longest wait for anything in these tests.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);
pub(crate) const MODULE: &str = "greeter";

pub(crate) fn module() -> ModuleName {
    MODULE.parse().unwrap()
}

/// What a release does with `/ok`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Does {
    Answers,
    Traps,
    Errs,
}

/// A release of the module whose `/ok` answers with its version.
pub(crate) fn package(version: &str, does: Does) -> Package {
    let mut component = testing::component(version);
    // The component compares a path's first letter: `i32.const LETTER; i32.eq`.
    let letter = |letter: u8| [0x41, letter | 0x80, 0x00, 0x46];
    let from = match does {
        Does::Answers => None,
        Does::Traps => Some(letter(b't')),
        Does::Errs => Some(letter(b'e')),
    };
    if let Some(from) = from {
        let at = component
            .windows(4)
            .position(|bytes| bytes == from)
            .expect("the component compares letters so");
        component[at..at + 4].copy_from_slice(&letter(b'o'));
    }
    package_of(MODULE, version, &component)
}

pub(crate) fn package_of(name: &str, version: &str, component: &[u8]) -> Package {
    let manifest = format!(
        r#"
        name = "{name}"
        version = "{version}"
        entry = "module.wasm"
        drain-deadline = "5s"
        [[routes]]
        prefix = "/"
        [[smoke]]
        name = "says its version"
        path = "/ok"
        expect-body-contains = "{version}"
        "#
    );
    Package::assemble(manifest.as_bytes(), component).unwrap()
}

pub(crate) fn release(package: &Package) -> ReleaseRef {
    ReleaseRef {
        version: package.manifest.version.clone(),
        digest: package.digest,
        config: 0,
    }
}

/// A module's spec with these releases and weights, at rest.
pub(crate) fn serves(rollout: u64, shares: &[(&Package, u8)]) -> ModuleSpec {
    ModuleSpec {
        rollout: RolloutId(rollout),
        trial: false,
        releases: shares.iter().map(|(package, _)| release(package)).collect(),
        values: BTreeMap::new(),
        prefetch: Vec::new(),
        routes: shares
            .iter()
            .filter(|(_, weight)| *weight > 0)
            .map(|(package, weight)| (package.digest, *weight))
            .collect(),
        preview: None,
        settle: Millis(50),
        smoke: None,
        observe: None,
    }
}

/// A server that says what the test wants.
pub(crate) struct Server {
    pub(crate) addr: SocketAddr,
    pub(crate) plane: Arc<Plane>,
    /// Its own, so that it goes away with every line that it has.
    runtime: Option<Runtime>,
}

/// What it knows and was told.
pub(crate) struct Plane {
    pub(crate) fleet: FleetId,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    packages: BTreeMap<Digest, Bytes>,
    signatures: BTreeMap<Digest, Bytes>,
    /// Sends so many bytes of a package, then breaks off; once.
    break_after: Option<usize>,
    fetches: Vec<(Digest, u64)>,
    spec: Option<NodeSpec>,
    line: Option<mpsc::Sender<Result<pb::ServerMessage, Status>>>,
    sessions: u32,
    reports: Vec<NodeReport>,
    hello: Option<Hello>,
    modules: BTreeMap<ModuleName, ModuleStatus>,
    vetoes: Vec<Veto>,
    intervals: Vec<Interval>,
    acks: bool,
}

impl Server {
    pub(crate) async fn start() -> Self {
        Self::with(
            Arc::new(Plane {
                fleet: FleetId(uuid::Uuid::new_v4()),
                state: Mutex::default(),
            }),
            None,
        )
        .await
    }

    /// The same plane on the same address again.
    pub(crate) async fn again(plane: Arc<Plane>, addr: SocketAddr) -> Self {
        Self::with(plane, Some(addr)).await
    }

    async fn with(plane: Arc<Plane>, addr: Option<SocketAddr>) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let service = AgentServiceServer::new(Service(Arc::clone(&plane)));
        let (bound, addr_bound) = oneshot::channel();
        runtime.spawn(async move {
            let listener = TcpListener::bind(addr.unwrap_or(([127, 0, 0, 1], 0).into()))
                .await
                .unwrap();
            bound.send(listener.local_addr().unwrap()).unwrap();
            let serving = tonic::transport::Server::builder().add_service(service);
            serving
                .serve_with_incoming(TcpListenerStream::new(listener))
                .await
                .unwrap();
        });
        Self {
            addr: addr_bound.await.unwrap(),
            plane,
            runtime: Some(runtime),
        }
    }

    /// Goes away, with every line that it has.
    pub(crate) async fn stop(mut self) -> Arc<Plane> {
        let runtime = self.runtime.take().unwrap();
        tokio::task::spawn_blocking(move || runtime.shutdown_timeout(DEADLINE))
            .await
            .unwrap();
        self.plane.state.lock().unwrap().line = None;
        Arc::clone(&self.plane)
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.addr)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Plane {
    pub(crate) fn add(&self, package: &Package) {
        self.add_as(package.digest, package.file.clone());
    }

    /// Sends these bytes to whoever asks for the digest.
    pub(crate) fn add_as(&self, digest: Digest, bytes: Bytes) {
        self.state.lock().unwrap().packages.insert(digest, bytes);
    }

    /// Sends this signature to whoever asks for the package's.
    pub(crate) fn sign(&self, digest: Digest, signature: Bytes) {
        self.state.lock().unwrap().signatures.insert(digest, signature);
    }

    pub(crate) fn break_after(&self, bytes: usize) {
        self.state.lock().unwrap().break_after = Some(bytes);
    }

    pub(crate) fn fetches(&self) -> Vec<(Digest, u64)> {
        self.state.lock().unwrap().fetches.clone()
    }

    pub(crate) fn acks(&self, acks: bool) {
        self.state.lock().unwrap().acks = acks;
    }

    pub(crate) fn sessions(&self) -> u32 {
        self.state.lock().unwrap().sessions
    }

    pub(crate) fn reports(&self) -> Vec<NodeReport> {
        self.state.lock().unwrap().reports.clone()
    }

    pub(crate) fn intervals(&self) -> Vec<Interval> {
        self.state.lock().unwrap().intervals.clone()
    }

    pub(crate) fn vetoes(&self) -> Vec<Veto> {
        self.state.lock().unwrap().vetoes.clone()
    }

    pub(crate) fn status(&self) -> Option<ModuleStatus> {
        self.status_of(&module())
    }

    pub(crate) fn status_of(&self, module: &ModuleName) -> Option<ModuleStatus> {
        self.state.lock().unwrap().modules.get(module).cloned()
    }

    pub(crate) fn spec(&self, seq: u64, modules: &[ModuleSpec]) -> NodeSpec {
        NodeSpec {
            fleet: self.fleet,
            generation: Generation { epoch: 1, seq },
            modules: modules.iter().map(|spec| (module(), spec.clone())).collect(),
            traces: BTreeMap::new(),
        }
    }

    /// Says this now, and again whenever a node connects.
    pub(crate) fn say(&self, spec: NodeSpec) {
        let mut state = self.state.lock().unwrap();
        state.spec = Some(spec.clone());
        if let Some(line) = &state.line {
            let _ = line.try_send(Ok((&ServerMessage::Spec(spec)).into()));
        }
    }

    /// Waits until what nodes said satisfies the test.
    pub(crate) async fn until<T>(&self, what: &str, mut look: impl FnMut(&Self) -> Option<T>) -> T {
        until(what, || look(self), || format!("{:?}", self.status())).await
    }

    /// Waits until the module is routed so.
    pub(crate) async fn until_routed(&self, routes: &[(&Package, u8)]) {
        let mut wanted: Vec<_> = routes
            .iter()
            .map(|(package, weight)| (package.digest, *weight))
            .collect();
        wanted.sort_unstable();
        self.until("the routes", |plane| {
            let mut routes = plane.status()?.routes;
            routes.sort_unstable();
            (routes == wanted).then_some(())
        })
        .await;
    }

    fn take(&self, report: NodeReport) -> Ack {
        let mut state = self.state.lock().unwrap();
        if let Some(hello) = &report.hello {
            state.hello = Some(hello.clone());
            state.modules.clear();
        }
        for (module, status) in report.modules.clone() {
            match status {
                Some(status) => state.modules.insert(module, status),
                None => state.modules.remove(&module),
            };
        }
        state.vetoes = report.vetoes.clone();
        let mut ack = Ack {
            seq: report.seq,
            ..Ack::default()
        };
        let known: BTreeSet<_> = state
            .intervals
            .iter()
            .map(|known| (known.rollout, known.number))
            .collect();
        for interval in &report.intervals {
            if !known.contains(&(interval.rollout, interval.number)) {
                state.intervals.push(interval.clone());
            }
            let (module, rollout, number) = (interval.module.clone(), interval.rollout, interval.number);
            ack.intervals.push(AckedInterval {
                module,
                rollout,
                number,
            });
        }
        for veto in &report.vetoes {
            let (module, rollout, release) = (veto.module.clone(), veto.rollout, veto.release.clone());
            ack.vetoes.push(AckedVeto {
                module,
                rollout,
                release,
            });
        }
        state.reports.push(report);
        if state.acks { ack } else { Ack::default() }
    }
}

pub(crate) async fn until<T>(
    what: &str,
    mut look: impl FnMut() -> Option<T>,
    state: impl Fn() -> String,
) -> T {
    let begun = tokio::time::Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(
            begun.elapsed() < DEADLINE,
            "{what} did not come; the state is {}",
            state()
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

struct Service(Arc<Plane>);

type Outgoing<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl AgentService for Service {
    type SessionStream = Outgoing<pb::ServerMessage>;
    type FetchArtifactStream = Outgoing<pb::ArtifactChunk>;

    async fn session(
        &self,
        request: Request<Streaming<pb::AgentMessage>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let mut incoming = request.into_inner();
        let (line, outgoing) = mpsc::channel(256);
        let settings = Settings {
            fleet: self.0.fleet,
            heartbeat: Millis(100),
            renew_in: None,
        };
        let send = |message: &ServerMessage| line.try_send(Ok(message.into())).unwrap();
        send(&ServerMessage::Settings(settings));
        {
            let mut state = self.0.state.lock().unwrap();
            state.sessions += 1;
            if let Some(spec) = state.spec.clone() {
                send(&ServerMessage::Spec(spec));
            }
            state.line = Some(line.clone());
        }
        let plane = Arc::clone(&self.0);
        tokio::spawn(async move {
            while let Ok(Some(message)) = incoming.message().await {
                let report = message.read().unwrap().unwrap();
                let ack = plane.take(report);
                if line.send(Ok((&ServerMessage::Ack(ack)).into())).await.is_err() {
                    return;
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(outgoing))))
    }

    async fn join(&self, _: Request<pb::JoinRequest>) -> Result<Response<pb::CertificateGrant>, Status> {
        Err(Status::unimplemented("nobody joins this double"))
    }

    async fn renew(&self, _: Request<pb::RenewRequest>) -> Result<Response<pb::CertificateGrant>, Status> {
        Err(Status::unimplemented("nobody renews at this double"))
    }

    async fn fetch_artifact(
        &self,
        request: Request<pb::FetchRequest>,
    ) -> Result<Response<Self::FetchArtifactStream>, Status> {
        let FetchRequest {
            digest,
            offset,
            signature,
        } = request.into_inner().try_into()?;
        let mut state = self.0.state.lock().unwrap();
        if signature {
            let chunk = state.signatures.get(&digest).map(|signature| {
                Ok(pb::ArtifactChunk {
                    total_bytes: signature.len() as u64,
                    data: signature.clone(),
                })
            });
            return Ok(Response::new(Box::pin(tokio_stream::iter(chunk))));
        }
        state.fetches.push((digest, offset));
        let package = state
            .packages
            .get(&digest)
            .cloned()
            .ok_or_else(|| Status::not_found("no such package"))?;
        let from = usize::try_from(offset).unwrap();
        if from > package.len() {
            return Err(Status::out_of_range("the package is shorter"));
        }
        let break_after = state.break_after.take();
        let total_bytes = package.len() as u64;
        let rest =
            package.slice(from..break_after.map_or(package.len(), |bytes| (from + bytes).min(package.len())));
        let chunk = if break_after.is_some() { 1_000 } else { CHUNK_BYTES };
        let chunks = rest.chunks(chunk).map(|data| {
            Ok(pb::ArtifactChunk {
                total_bytes,
                data: Bytes::copy_from_slice(data),
            })
        });
        let end = break_after.map(|_| Err(Status::unavailable("the line broke")));
        let all: Vec<_> = chunks.chain(end).collect();
        Ok(Response::new(Box::pin(tokio_stream::iter(all))))
    }
}

/// A node of tests: its folder, and its agent while it runs.
pub(crate) struct Node {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) host: Arc<WasmHost>,
}

pub(crate) fn host() -> Arc<WasmHost> {
    Arc::new(
        WasmHost::new(WasmHostConfig {
            instances_max: 100,
            ..WasmHostConfig::default()
        })
        .unwrap(),
    )
}

impl Node {
    pub(crate) fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
            host: host(),
        }
    }

    pub(crate) fn config(&self, server: &str) -> AgentConfig {
        AgentConfig {
            gate: Gate::default().allowing_unsigned(),
            ..AgentConfig::new(
                "node-1".parse().unwrap(),
                "QA".parse().unwrap(),
                server,
                self.dir.path(),
            )
        }
    }

    pub(crate) async fn start(&self, server: &str) -> RunningAgent {
        self.try_start(server).await.unwrap()
    }

    pub(crate) async fn try_start(&self, server: &str) -> Result<RunningAgent, AgentError> {
        Agent::start(self.config(server), Arc::clone(&self.host)).await
    }

    /// Drops an agent without its leave, and waits until its last write is over.
    pub(crate) async fn drop_now(&self, agent: RunningAgent) {
        drop(agent);
        let lock = self.dir.path().join("lock");
        until(
            "the folder's release",
            || {
                std::fs::File::open(&lock)
                    .unwrap()
                    .try_lock()
                    .is_ok()
                    .then_some(())
            },
            String::new,
        )
        .await;
    }
}
