//! A node as the server sees it: it speaks the real protocol and fetches real packages, and reports that it does
//! what its specs say, at once. How it fares is the test's to choose.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use hotswap_core::analysis::{ArmCounts, Block};
use hotswap_core::ids::{Digest, Incarnation, ModuleName, NodeId, RolloutId};
use hotswap_core::report::{
    Hello, Interval, ModuleStatus, NodeHealth, NodeReport, ReleaseLoad, ReleaseStatus, SmokeOutcome,
};
use hotswap_core::spec::{Generation, ModuleSpec, NodeSpec, Observe};
use hotswap_core::time::Millis;
use hotswap_package::digest_of;
use hotswap_server::RunningServer;
use hotswap_wire::pb::agent_service_client::AgentServiceClient;
use hotswap_wire::{Ack, FetchRequest, ServerMessage, pb};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};

use crate::certified::Certificate;

/// How a node fares with candidates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fares {
    /// All is well.
    Well,
    /// Users' requests to candidates fail half of the time.
    WithErrors,
    /// Smoke checks fail.
    SmokeFails,
}

/// A node that runs until it is dropped.
pub(crate) struct FakeNode(JoinHandle<()>);

impl Drop for FakeNode {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl FakeNode {
    pub(crate) async fn join(server: SocketAddr, name: &str, environment: &str, fares: Fares) -> Self {
        let channel = Endpoint::from_shared(format!("http://{server}"))
            .unwrap()
            .connect()
            .await
            .unwrap();
        let client = AgentServiceClient::new(channel);
        let mut node = Node::new(client, name, fares);
        let hello = hello(environment);
        Self(tokio::spawn(async move { node.run(hello).await }))
    }
}

impl FakeNode {
    /// One with a certificate.
    pub(crate) async fn join_as(
        server: &RunningServer,
        certificate: &Certificate,
        name: &str,
        environment: &str,
        fares: Fares,
    ) -> Self {
        let client = certificate.line(server).await.unwrap();
        let mut node = Node::new(client, name, fares);
        let hello = hello(environment);
        Self(tokio::spawn(async move { node.run(hello).await }))
    }
}

pub(crate) fn hello(environment: &str) -> Hello {
    Hello {
        hostname: "host".to_owned(),
        environment: environment.parse().unwrap(),
        ingress: "127.0.0.1:1".to_owned(),
        labels: BTreeMap::new(),
        agent_version: "0".to_owned(),
        capabilities: vec!["wasm".to_owned()],
    }
}

struct Node {
    client: AgentServiceClient<Channel>,
    id: NodeId,
    fares: Fares,
    seq: u64,
    highest: Generation,
    modules: BTreeMap<ModuleName, ModuleSpec>,
    /// What it held once and doesn't any more.
    gone: BTreeSet<ModuleName>,
    fetched: Vec<Digest>,
    numbers: BTreeMap<RolloutId, u32>,
    unacknowledged: Vec<Interval>,
}

impl Node {
    fn new(client: AgentServiceClient<Channel>, name: &str, fares: Fares) -> Self {
        Self {
            client,
            id: name.parse().unwrap(),
            fares,
            seq: 0,
            highest: Generation::default(),
            modules: BTreeMap::new(),
            gone: BTreeSet::new(),
            fetched: Vec::new(),
            numbers: BTreeMap::new(),
            unacknowledged: Vec::new(),
        }
    }

    async fn run(&mut self, hello: Hello) {
        let (reports, outgoing) = mpsc::channel(16);
        let first = self.report(Some(hello));
        reports.send(first).await.unwrap();
        let session = self.client.session(ReceiverStream::new(outgoing)).await.unwrap();
        let mut messages = session.into_inner();
        let mut ticks = tokio::time::interval(Duration::from_millis(50));
        loop {
            tokio::select! {
                message = messages.message() => match message {
                    Ok(Some(message)) => self.hear(message.read().unwrap().unwrap()).await,
                    _ => return,
                },
                _ = ticks.tick() => self.observe(),
            }
            if reports.send(self.report(None)).await.is_err() {
                return;
            }
        }
    }

    async fn hear(&mut self, message: ServerMessage) {
        match message {
            ServerMessage::Spec(spec) => self.adopt(spec).await,
            ServerMessage::Ack(Ack { intervals, .. }) => self.unacknowledged.retain(|kept| {
                !intervals
                    .iter()
                    .any(|acked| acked.rollout == kept.rollout && acked.number >= kept.number)
            }),
            ServerMessage::Settings(_) => {}
        }
    }

    async fn adopt(&mut self, spec: NodeSpec) {
        assert!(spec.generation > self.highest, "generations only grow");
        self.highest = spec.generation;
        for module in spec.modules.values() {
            let wanted = module
                .releases
                .iter()
                .map(|release| release.digest)
                .chain(module.prefetch.iter().copied());
            for digest in wanted {
                if !self.fetched.contains(&digest) {
                    fetch(&mut self.client, digest).await;
                    self.fetched.push(digest);
                }
            }
        }
        self.gone.extend(std::mem::take(&mut self.modules).into_keys());
        self.gone.retain(|module| !spec.modules.contains_key(module));
        self.modules = spec.modules;
    }

    /// Closes an interval of each module that is observed.
    fn observe(&mut self) {
        for (module, spec) in &self.modules {
            let Some(Observe {
                rollout,
                step,
                control,
                ..
            }) = spec.observe
            else {
                continue;
            };
            let number = self.numbers.entry(rollout).or_default();
            *number += 1;
            let errors = if self.fares == Fares::WithErrors { 500 } else { 0 };
            let arm = |errors| ArmCounts {
                requests: 1_000,
                errors,
                probes: 50,
                probe_streak: 50,
                ..ArmCounts::default()
            };
            let control = if control.is_some() {
                arm(0)
            } else {
                ArmCounts::default()
            };
            let block = Block {
                candidate: arm(errors),
                control,
                ..Block::default()
            };
            self.unacknowledged.push(Interval {
                module: module.clone(),
                rollout,
                step,
                number: *number,
                block,
            });
        }
    }

    fn report(&mut self, hello: Option<Hello>) -> pb::AgentMessage {
        self.seq += 1;
        let status = |(module, spec): (&ModuleName, &ModuleSpec)| (module.clone(), Some(self.status(spec)));
        let report = NodeReport {
            node: self.id.clone(),
            incarnation: Incarnation(1),
            seq: self.seq,
            hello,
            highest: self.highest,
            modules: self
                .modules
                .iter()
                .map(status)
                .chain(self.gone.iter().map(|module| (module.clone(), None)))
                .collect(),
            vetoes: Vec::new(),
            intervals: self.unacknowledged.clone(),
            health: Some(NodeHealth {
                cpu_percent: 12.5,
                memory_percent: 25.0,
                requests_per_second: 100.0,
                error_percent: 0.0,
                samples: 100,
                latency_ms: 2.0,
            }),
            loads: self.loads(),
        };
        pb::AgentMessage::from(&report)
    }

    fn loads(&self) -> Vec<ReleaseLoad> {
        let load = |(module, spec): (&ModuleName, &ModuleSpec)| {
            let (digest, weight) = spec.routes.first()?;
            Some(ReleaseLoad {
                module: module.clone(),
                digest: *digest,
                requests_per_second: f64::from(*weight),
                error_percent: 1.0,
                latency_ms: 2.0,
            })
        };
        self.modules.iter().filter_map(load).collect()
    }

    fn status(&self, spec: &ModuleSpec) -> ModuleStatus {
        let ready = |release: &hotswap_core::ids::ReleaseRef| {
            (
                release.digest,
                ReleaseStatus::Ready {
                    healthy_for: Millis(60_000),
                },
            )
        };
        let mut releases: BTreeMap<Digest, ReleaseStatus> = spec.releases.iter().map(ready).collect();
        for digest in &spec.prefetch {
            releases.insert(*digest, ReleaseStatus::Prefetched);
        }
        let primary = spec.primary().map(|release| release.digest);
        let failures = match self.fares {
            Fares::SmokeFails => vec!["answers: answered 500, expected 200".to_owned()],
            _ => Vec::new(),
        };
        ModuleStatus {
            rollout: spec.rollout,
            releases,
            routes: spec.routes.clone(),
            preview: spec.preview,
            trial: primary.filter(|_| spec.trial),
            committed: primary.filter(|_| !spec.trial),
            smoke: spec.smoke.map(|run| SmokeOutcome {
                run,
                passed: 1,
                failures,
            }),
        }
    }
}

/// Fetches a package in two parts and checks that it is what its digest says.
pub(crate) async fn fetch(client: &mut AgentServiceClient<Channel>, digest: Digest) -> Vec<u8> {
    let mut part = async |offset: u64| {
        let request = pb::FetchRequest::from(&FetchRequest {
            digest,
            offset,
            signature: false,
        });
        let mut chunks = client.fetch_artifact(request).await.unwrap().into_inner();
        let mut bytes = Vec::new();
        while let Some(chunk) = chunks.message().await.unwrap() {
            bytes.extend_from_slice(&chunk.data);
        }
        bytes
    };
    let whole = part(0).await;
    assert_eq!(digest_of(&whole), digest);
    let half = whole.len() / 2;
    assert_eq!(part(half as u64).await, whole[half..]);
    whole
}
