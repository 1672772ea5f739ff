//! What a node says.

use std::collections::BTreeMap;
use std::time::Duration;

use hotswap_core::ids::{Digest, Incarnation, ModuleName, NodeId};
use hotswap_core::report::{
    Hello, ModuleStatus, NodeHealth, NodeReport, ReleaseLoad, ReleaseStatus, SmokeOutcome,
};
use hotswap_core::spec::{Generation, ModuleSpec, NodeSpec};
use hotswap_wire::pb;
use prost::Message as _;
use tokio::time::Instant;

/// A node that has no work to do: what it is told it has done at once.
pub(super) struct Node {
    id: NodeId,
    /// Its place among its likes, 0 to 1, so that they don't all speak at once.
    phase: f64,
    incarnation: Incarnation,
    seq: u64,
    highest: Generation,
    modules: BTreeMap<ModuleName, ModuleStatus>,
    /// The last question that it was counted in; see [`super::swarm::Shared::told`].
    pub(super) counted: u64,
}

impl Node {
    pub(super) fn new(id: NodeId, phase: f64) -> Self {
        Self {
            id,
            phase,
            incarnation: Incarnation(1),
            seq: 0,
            highest: Generation::default(),
            modules: BTreeMap::new(),
            counted: 0,
        }
    }

    /// When it first beats at this pace.
    pub(super) fn first_beat(&self, pace: Option<Duration>) -> Option<Instant> {
        pace.map(|pace| Instant::now() + pace.mul_f64(self.phase))
    }

    fn report(&mut self) -> NodeReport {
        self.seq += 1;
        NodeReport {
            highest: self.highest,
            ..report_of(&self.id, self.incarnation, self.seq)
        }
    }

    /// All of it, once a session.
    pub(super) fn hello(&mut self) -> pb::AgentMessage {
        let mut report = self.report();
        report.hello = Some(hello_of(&self.id));
        report.modules = self
            .modules
            .iter()
            .map(|(name, status)| (name.clone(), Some(status.clone())))
            .collect();
        pb::AgentMessage::from(&report)
    }

    /// A heartbeat: how it fares, and what its releases' requests came to.
    pub(super) fn beat(&mut self) -> pb::AgentMessage {
        let mut report = self.report();
        let active = self.modules.iter().filter_map(|(name, status)| {
            let (digest, _) = status.routes.first()?;
            Some((name.clone(), *digest))
        });
        report.loads = active.map(|(name, digest)| load_of(name, digest)).collect();
        report.health = Some(HEALTH);
        pb::AgentMessage::from(&report)
    }

    /// Takes a spec over, and says so: what changed.
    pub(super) fn take_over(&mut self, spec: &NodeSpec) -> pb::AgentMessage {
        self.highest = self.highest.max(spec.generation);
        let next: BTreeMap<ModuleName, ModuleStatus> = spec
            .modules
            .iter()
            .map(|(name, module)| (name.clone(), status_of(module)))
            .collect();
        let gone = self.modules.keys().filter(|name| !next.contains_key(*name));
        let mut changed: BTreeMap<_, _> = gone.map(|name| (name.clone(), None)).collect();
        for (name, status) in &next {
            if self.modules.get(name) != Some(status) {
                changed.insert(name.clone(), Some(status.clone()));
            }
        }
        self.modules = next;
        let mut report = self.report();
        report.modules = changed;
        pb::AgentMessage::from(&report)
    }
}

const HEALTH: NodeHealth = NodeHealth {
    cpu_percent: 41.7,
    memory_percent: 23.1,
    requests_per_second: 1_234.5,
    error_percent: 0.12,
    samples: 37_035,
    latency_ms: 1.7,
};

/// A report that says nothing yet.
fn report_of(id: &NodeId, incarnation: Incarnation, seq: u64) -> NodeReport {
    NodeReport {
        node: id.clone(),
        incarnation,
        seq,
        hello: None,
        highest: Generation {
            epoch: 1,
            seq: 10_000,
        },
        modules: BTreeMap::new(),
        vetoes: Vec::new(),
        intervals: Vec::new(),
        health: None,
        loads: Vec::new(),
    }
}

fn hello_of(id: &NodeId) -> Hello {
    Hello {
        hostname: id.to_string(),
        environment: "Development".parse().expect("a literal name is valid"),
        ingress: "10.0.0.1:8080".to_owned(),
        labels: BTreeMap::new(),
        agent_version: "0.1.0".to_owned(),
        capabilities: vec!["wasm".to_owned()],
    }
}

fn load_of(module: ModuleName, digest: Digest) -> ReleaseLoad {
    ReleaseLoad {
        module,
        digest,
        requests_per_second: 123.4,
        error_percent: 0.12,
        latency_ms: 1.7,
    }
}

/// What a spec asks of a module, done.
fn status_of(spec: &ModuleSpec) -> ModuleStatus {
    let ready = ReleaseStatus::Ready {
        healthy_for: spec.settle,
    };
    let primary = spec.primary().map(hotswap_core::ids::ReleaseRef::id);
    let fetched = spec
        .prefetch
        .iter()
        .map(|digest| (*digest, ReleaseStatus::Prefetched));
    let loaded = spec.releases.iter().map(|release| (release.id(), ready.clone()));
    ModuleStatus {
        rollout: spec.rollout,
        releases: fetched.chain(loaded).collect(),
        routes: spec.routes.clone(),
        preview: spec.preview,
        trial: primary.filter(|_| spec.trial),
        committed: primary.filter(|_| !spec.trial),
        smoke: spec.smoke.map(|run| SmokeOutcome {
            run,
            passed: 1,
            failures: Vec::new(),
        }),
    }
}

/// A full report and a heartbeat of a node with so many modules, encoded.
pub(crate) fn heartbeat_bytes(id: &NodeId, modules: &[ModuleName]) -> [Vec<u8>; 2] {
    let digest = |n: usize| Digest([u8::try_from(n % 251).unwrap_or(0); 32]);
    let mut node = Node::new(id.clone(), 0.0);
    for (n, module) in modules.iter().enumerate() {
        let status = ModuleStatus {
            releases: [digest(n), digest(n + 100)]
                .map(|digest| {
                    let healthy_for = hotswap_core::time::Millis(60_000);
                    (digest, ReleaseStatus::Ready { healthy_for })
                })
                .into(),
            routes: vec![(digest(n), 100)],
            committed: Some(digest(n)),
            ..ModuleStatus::default()
        };
        node.modules.insert(module.clone(), status);
    }
    [node.hello().encode_to_vec(), node.beat().encode_to_vec()]
}
