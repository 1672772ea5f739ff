//! What is loaded on the node, and what is ready to be: the releases behind the slots, and their own health.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use hotswap_core::ids::{Digest, ModuleName, ReleaseRef};
use hotswap_core::time::{CoreTime, Millis};
use hotswap_package::Route;
use hotswap_runtime::{BoxFuture, Instance, Prepared, Readiness};

use crate::ingress::{Ingress, Release};
use crate::meter::Meter;

/// Traps within [`TRAP_WINDOW`] that turn a release's health, where they are a share of at least
/// [`TRAP_SHARE_PERCENT`] of its requests: a request may trap a release once by bad luck, not again and again.
const TRAPS_MAX: u64 = 3;
const TRAP_SHARE_PERCENT: u64 = 10;
const TRAP_WINDOW: Millis = Millis::from_secs(10);

/// The releases of a node.
pub(super) struct Loaded {
    ingress: Ingress,
    meter: Meter,
    prepared: BTreeMap<Digest, Arc<dyn Prepared>>,
    releases: BTreeMap<(ModuleName, Digest), Held>,
}

/// A loaded release.
struct Held {
    release: Arc<Release>,
    /// What was last said of it.
    said: Result<(), String>,
    traps: TrapWatch,
}

/// Traps and requests at the beginning of a window.
#[derive(Clone, Copy, Default)]
struct TrapWatch {
    since: CoreTime,
    traps: u64,
    requests: u64,
}

impl Loaded {
    pub(super) fn new(ingress: Ingress, meter: Meter) -> Self {
        Self {
            ingress,
            meter,
            prepared: BTreeMap::new(),
            releases: BTreeMap::new(),
        }
    }

    pub(super) fn prepared(&self, digest: &Digest) -> Option<&Arc<dyn Prepared>> {
        self.prepared.get(digest)
    }

    pub(super) fn keep_prepared(&mut self, prepared: Arc<dyn Prepared>) {
        self.prepared.insert(prepared.digest(), prepared);
    }

    /// Forgets what is ready and not needed any more.
    pub(super) fn collect(&mut self, keep: &BTreeSet<Digest>) {
        self.prepared.retain(|digest, _| keep.contains(digest));
    }

    pub(super) fn get(&self, module: &ModuleName, digest: &Digest) -> Option<&Arc<Release>> {
        self.releases
            .get(&(module.clone(), *digest))
            .map(|held| &held.release)
    }

    /// All loaded releases.
    pub(super) fn all(&self) -> impl Iterator<Item = &Arc<Release>> {
        self.releases.values().map(|held| &held.release)
    }

    pub(super) fn add(&mut self, module: ModuleName, instance: Arc<dyn Instance>) {
        let digest = instance.digest();
        let release = Release::new(instance, &self.meter);
        release.series().recent().clear();
        self.releases.insert(
            (module, digest),
            Held {
                release,
                said: Ok(()),
                traps: TrapWatch::default(),
            },
        );
    }

    /// Shares a module's requests out in one store. Who is new to them is judged from here on. Returns who is on the way
    /// to where it acts.
    pub(super) fn route(
        &mut self,
        module: &ModuleName,
        routes: &[(Digest, u8)],
        now: CoreTime,
    ) -> Vec<(Digest, BoxFuture<'static, ()>)> {
        let slot = self.ingress.slot(module);
        let before = slot.routes();
        let mut active = Vec::new();
        let mut paths: Vec<Route> = Vec::new();
        for (digest, weight) in routes {
            let Some(held) = self.releases.get_mut(&(module.clone(), *digest)) else {
                // The machine routes to what it was told is loaded; without it, its share goes to the others.
                tracing::error!(%module, release = %digest, "told to route to a release that is not loaded");
                continue;
            };
            if before.iter().all(|(other, _)| other != digest) {
                held.release.series().recent().clear();
                held.traps = TrapWatch::begun(&held.release, now);
            }
            for route in &held.release.instance().manifest().routes {
                if !paths.contains(route) {
                    paths.push(route.clone());
                }
            }
            active.push((Arc::clone(&held.release), *weight));
        }
        let acting: Vec<_> = active
            .iter()
            .filter(|(release, weight)| *weight > 0 && !release.is_routed())
            .map(|(release, _)| Arc::clone(release))
            .collect();
        slot.set_active(active);
        self.ingress.set_routes(module, paths);
        let instances = acting.iter().map(|release| release.instance());
        instances
            .filter_map(|instance| Some((instance.digest(), instance.engage()?)))
            .collect()
    }

    /// How a release that was on its way to where it acts is there.
    pub(super) fn entered(&mut self, module: &ModuleName, digest: &Digest) -> Option<Result<(), String>> {
        let held = self.releases.get_mut(&(module.clone(), *digest))?;
        held.said = readiness(&held.release);
        Some(held.said.clone())
    }

    pub(super) fn preview(&self, module: &ModuleName, digest: Option<Digest>) {
        let release = digest.and_then(|digest| self.get(module, &digest).cloned());
        self.ingress.slot(module).set_preview(release);
    }

    /// Takes a release out; the caller closes it.
    pub(super) fn remove(&mut self, module: &ModuleName, digest: &Digest) -> Option<Arc<Release>> {
        let held = self.releases.remove(&(module.clone(), *digest))?;
        if self.releases.keys().all(|(other, _)| other != module) {
            self.ingress.remove(module);
        }
        Some(held.release)
    }

    /// The releases whose health is another than was said last. A release on trial answers for its last requests,
    /// unless the stable one fares as badly; one that is not on trial is healthy while it is ready.
    pub(super) fn health_changes(
        &mut self,
        on_trial: impl Fn(&ModuleName) -> Option<Digest>,
        stable: impl Fn(&ModuleName) -> Option<ReleaseRef>,
        now: CoreTime,
    ) -> Vec<(ModuleName, Digest, Result<(), String>)> {
        for held in self.releases.values() {
            held.release.take_tally();
        }
        let bases: BTreeMap<_, _> = self
            .releases
            .iter()
            .map(|(key, held)| (key.clone(), Arc::clone(&held.release)))
            .collect();
        let mut changes = Vec::new();
        for ((module, digest), held) in &mut self.releases {
            let health = if on_trial(module) == Some(*digest) {
                let base = stable(module).and_then(|base| bases.get(&(module.clone(), base.id())));
                // Traps first: they say more than the errors that they are counted as.
                let traps = held.traps.look(&held.release, now);
                let trouble = held.release.trouble(base.map(|base| &**base));
                traps.and_then(|()| trouble.map_or(Ok(()), Err))
            } else {
                readiness(&held.release)
            };
            if health.is_ok() != held.said.is_ok() {
                held.said.clone_from(&health);
                changes.push((module.clone(), *digest, health));
            }
        }
        changes
    }
}

fn readiness(release: &Release) -> Result<(), String> {
    match release.instance().readiness() {
        Readiness::Ready => Ok(()),
        Readiness::Failing(reason) => Err(reason),
        Readiness::Closed => Err("it was closed".to_owned()),
    }
}

impl TrapWatch {
    fn begun(release: &Release, now: CoreTime) -> Self {
        Self {
            since: now,
            traps: release.instance().usage().traps,
            requests: release.series().snapshot().requests(),
        }
    }

    fn look(&mut self, release: &Release, now: CoreTime) -> Result<(), String> {
        let traps = release.instance().usage().traps.saturating_sub(self.traps);
        if traps >= TRAPS_MAX {
            let requests = release
                .series()
                .snapshot()
                .requests()
                .saturating_sub(self.requests);
            if traps * 100 >= requests * TRAP_SHARE_PERCENT {
                return Err(format!("it trapped {traps} times in {requests} requests"));
            }
        }
        if now.since(self.since) >= TRAP_WINDOW {
            *self = Self::begun(release, now);
        }
        Ok(())
    }
}
