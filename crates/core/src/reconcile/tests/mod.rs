//! A node that does what its machine says, with a disk and a power switch.

mod properties;
mod stories;

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::ids::{Digest, FleetId, ModuleName, NodeId, ReleaseRef, RolloutId};
use crate::report::ReleaseStatus;
use crate::spec::{Generation, ModuleSpec, NodeSpec, SmokeRun};
use crate::time::{CoreTime, Millis};
use crate::values::Values;

pub(super) const SETTLE: Millis = Millis(1_000);

pub(super) fn release(n: u8) -> ReleaseRef {
    ReleaseRef {
        version: semver::Version::new(u64::from(n), 0, 0),
        digest: digest(n),
        config: 0,
    }
}

pub(super) fn digest(n: u8) -> Digest {
    Digest([n; 32])
}

pub(super) fn module() -> ModuleName {
    "shop".parse().unwrap()
}

/// At rest: the first serves, the others are standby.
pub(super) fn at_rest(rollout: u64, releases: &[u8]) -> ModuleSpec {
    ModuleSpec {
        rollout: RolloutId(rollout),
        trial: false,
        releases: releases.iter().map(|&n| release(n)).collect(),
        values: BTreeMap::new(),
        prefetch: Vec::new(),
        routes: releases.first().map(|&n| (digest(n), 100)).into_iter().collect(),
        preview: None,
        settle: SETTLE,
        smoke: None,
        observe: None,
    }
}

/// On trial: a candidate with a share of the requests, the base with the rest.
pub(super) fn on_trial(rollout: u64, candidate: u8, base: Option<u8>, weight: u8) -> ModuleSpec {
    let weight = if base.is_some() { weight } else { 100 };
    let releases: Vec<u8> = [Some(candidate), base].into_iter().flatten().collect();
    let mut routes = vec![(digest(candidate), weight)];
    routes.extend(base.map(|base| (digest(base), 100 - weight)));
    routes.retain(|&(_, weight)| weight > 0);
    ModuleSpec {
        trial: true,
        routes,
        ..at_rest(rollout, &releases)
    }
}

pub(super) fn spec(seq: u64, module_spec: Option<ModuleSpec>) -> NodeSpec {
    NodeSpec {
        fleet: FleetId(uuid::Uuid::from_u128(7)),
        generation: Generation { epoch: 1, seq },
        modules: module_spec.into_iter().map(|spec| (module(), spec)).collect(),
        traces: BTreeMap::new(),
    }
}

/// The machine and everything around it on one node. Its methods check what must hold at every step.
pub(super) struct Rig {
    pub(super) machine: Reconciler,
    pub(super) now: CoreTime,
    pub(super) disk: Ledger,
    pub(super) writing: Option<Ledger>,
    pub(super) preparing: BTreeSet<Digest>,
    pub(super) loading: BTreeSet<Digest>,
    pub(super) loaded: BTreeSet<Digest>,
    pub(super) routes: Vec<(Digest, u8)>,
    pub(super) preview: Option<Digest>,
    pub(super) smoke: Vec<SmokeRun>,
    pub(super) alarms: Vec<Alarm>,
    /// What each loaded release was given.
    pub(super) values: Vec<Option<Values>>,
    /// What was carried out, for people and stories.
    pub(super) done: Vec<String>,
}

impl Rig {
    pub(super) fn new() -> Self {
        Self::boot(Ledger::default(), CoreTime(0))
    }

    pub(super) fn boot(disk: Ledger, now: CoreTime) -> Self {
        let node: NodeId = "n1".parse().unwrap();
        // What a crash leaves is bytes.
        let bytes = serde_json::to_vec(&disk).unwrap();
        let read: Ledger = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(read, disk);
        let (machine, actions) = Reconciler::boot(node, read, now);
        let mut rig = Self {
            machine,
            now,
            disk,
            writing: None,
            preparing: BTreeSet::new(),
            loading: BTreeSet::new(),
            loaded: BTreeSet::new(),
            routes: Vec::new(),
            preview: None,
            smoke: Vec::new(),
            alarms: Vec::new(),
            values: Vec::new(),
            done: Vec::new(),
        };
        rig.carry_out(actions);
        rig
    }

    /// Loses all that is not on the disk.
    pub(super) fn crash(&mut self) {
        *self = Self {
            done: std::mem::take(&mut self.done),
            ..Self::boot(self.disk.clone(), self.now)
        };
        self.done.push("crash".to_owned());
    }

    pub(super) fn input(&mut self, input: NodeInput) {
        let actions = self.machine.step(input, self.now);
        self.carry_out(actions);
    }

    fn carry_out(&mut self, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::WriteLedger(ledger) => {
                    assert!(self.writing.is_none(), "one writing at a time");
                    assert!(ledger.version > self.disk.version, "versions grow");
                    self.writing = Some(ledger);
                }
                Action::Prepare { digest, .. } => {
                    assert!(self.preparing.insert(digest), "one preparation at a time");
                    self.done.push(format!("prepare {}", digest.0[0]));
                }
                Action::Load { release, values, .. } => {
                    self.values.push(values);
                    assert!(!self.loaded.contains(&release.id()), "loaded twice");
                    assert!(self.loading.insert(release.id()), "one load at a time");
                    self.done.push(format!("load {}", release.id().0[0]));
                }
                Action::Route { routes, .. } => self.route(routes),
                Action::Preview { digest, .. } => {
                    assert!(
                        digest.is_none_or(|digest| self.loaded.contains(&digest)),
                        "previews what is loaded"
                    );
                    self.preview = digest;
                    self.done
                        .push(format!("preview {:?}", digest.map(|digest| digest.0[0])));
                }
                Action::Unload { digest, .. } => {
                    assert!(
                        self.routes.iter().all(|(served, _)| *served != digest),
                        "unloads what serves"
                    );
                    assert_ne!(self.preview, Some(digest), "unloads the preview");
                    assert!(self.loaded.remove(&digest), "unloads what is not loaded");
                    self.done.push(format!("unload {}", digest.0[0]));
                }
                Action::RunSmoke { run, .. } => {
                    assert!(!self.smoke.contains(&run), "a smoke run is run once");
                    assert!(self.loaded.contains(&run.digest));
                    self.smoke.push(run);
                    self.done.push(format!("smoke {}", run.digest.0[0]));
                }
                Action::Observe { observe, .. } => {
                    self.done
                        .push(format!("observe {:?}", observe.map(|observe| observe.step)));
                }
                Action::Alarm(alarm) => self.alarms.push(alarm),
            }
        }
    }

    fn route(&mut self, routes: Vec<(Digest, u8)>) {
        assert_ne!(routes, self.routes, "routes anew only what changed");
        let sum: u32 = routes.iter().map(|&(_, weight)| u32::from(weight)).sum();
        assert!(routes.is_empty() || sum == 100, "weights sum to 100: {routes:?}");
        let durable = self.disk.modules.get(&module()).cloned().unwrap_or_default();
        for (digest, _) in &routes {
            assert!(self.loaded.contains(digest), "routes to what is not loaded");
            let served_before = self.routes.iter().any(|(other, _)| other == digest);
            let committed = durable
                .committed
                .as_ref()
                .is_some_and(|release| release.id() == *digest);
            let base =
                self.base().contains(digest) || durable.routes().iter().any(|(other, _)| other == digest);
            let on_trial = durable
                .trial
                .as_ref()
                .is_some_and(|trial| trial.release.id() == *digest);
            assert!(
                served_before || committed || base || on_trial,
                "{digest:?} gets requests, but the disk doesn't say that it is on trial: {durable:?}"
            );
        }
        self.done.push(format!(
            "route {}",
            routes
                .iter()
                .map(|(digest, weight)| format!("{}:{weight}", digest.0[0]))
                .collect::<Vec<_>>()
                .join(" ")
        ));
        self.routes = routes;
    }

    /// Releases that the accepted spec takes for the base of another, or that a veto returned to. (Those that the
    /// disk says are served beside a trial are bases too.)
    fn base(&self) -> BTreeSet<Digest> {
        let ledger = self.machine.ledger();
        let spec = ledger.spec.as_ref().and_then(|spec| spec.modules.get(&module()));
        let standby = spec.into_iter().flat_map(|spec| spec.releases.iter().skip(1));
        let vetoes = ledger.vetoes.iter().filter_map(|kept| kept.veto.base.as_ref());
        standby.chain(vetoes).map(|release| release.id()).collect()
    }

    pub(super) fn finish_write(&mut self) {
        if let Some(ledger) = self.writing.take() {
            let version = ledger.version;
            self.disk = ledger;
            self.input(NodeInput::LedgerWritten { version });
        }
    }

    pub(super) fn finish_prepare(&mut self, digest: Digest, result: Result<(), String>) {
        if self.preparing.remove(&digest) {
            self.input(NodeInput::Prepared {
                module: module(),
                digest,
                result,
            });
        }
    }

    pub(super) fn finish_load(&mut self, digest: Digest, result: Result<(), String>) {
        if self.loading.remove(&digest) {
            if result.is_ok() {
                self.loaded.insert(digest);
            }
            self.input(NodeInput::Loaded {
                module: module(),
                digest,
                result,
            });
        }
    }

    pub(super) fn entering(&mut self, n: u8) {
        self.input(NodeInput::Entering {
            module: module(),
            digest: digest(n),
        });
    }

    pub(super) fn health(&mut self, n: u8, result: Result<(), &str>) {
        let result = result.map_err(str::to_owned);
        self.input(NodeInput::Health {
            module: module(),
            digest: digest(n),
            result,
        });
    }

    pub(super) fn spec(&mut self, seq: u64, module_spec: ModuleSpec) {
        self.input(NodeInput::Spec(spec(seq, Some(module_spec))));
    }

    /// Everything under way succeeds, and time passes, until nothing is left to do.
    pub(super) fn run(&mut self) {
        for _ in 0..1_000 {
            if self.writing.is_some() {
                self.finish_write();
            } else if let Some(&digest) = self.preparing.first() {
                self.finish_prepare(digest, Ok(()));
            } else if let Some(&digest) = self.loading.first() {
                self.finish_load(digest, Ok(()));
            } else if let Some(at) = self.machine.wake_at() {
                self.now = self.now.max(at);
                self.input(NodeInput::Tick);
            } else {
                return;
            }
        }
        panic!("it never rests: {:?}", self.done);
    }

    pub(super) fn serves(&self) -> Vec<(u8, u8)> {
        self.routes
            .iter()
            .map(|(digest, weight)| (digest.0[0], *weight))
            .collect()
    }

    pub(super) fn status(&self) -> BTreeMap<u8, ReleaseStatus> {
        let status = self.machine.statuses().get(&module());
        status
            .iter()
            .flat_map(|status| &status.releases)
            .map(|(d, s)| (d.0[0], s.clone()))
            .collect()
    }

    pub(super) fn entry(&self) -> Entry {
        self.disk.modules.get(&module()).cloned().unwrap_or_default()
    }
}
