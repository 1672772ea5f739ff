//! One module on a node: what is loaded, who gets requests, and the next things to do about it.

use std::collections::BTreeMap;

use crate::ids::{Digest, ModuleName, ReleaseRef, RolloutId};
use crate::mutants::{Mutant, is_on};
use crate::report::{ModuleStatus, ReleaseStatus, SmokeOutcome};
use crate::spec::{ModuleSpec, Observe, SmokeRun, SmokeVia, WEIGHT_ALL};
use crate::time::{CoreTime, Millis};
use crate::values::Values;

use super::Action;
use super::ledger::{Entry, KeptVeto, Trial};
use super::target::{Target, Vetoes, push_unique};

/// Wait after a first failed fetch or load; it doubles with each further one.
const BACKOFF_FIRST: Millis = Millis::from_secs(1);
/// Longest wait: an artifact that is back is found within a minute.
const BACKOFF_MAX: Millis = Millis::from_secs(60);

/// A release that the node holds or is getting.
#[derive(Debug)]
struct Held {
    at: Progress,
    /// Failed attempts in a row.
    failures: u32,
}

#[derive(Debug, PartialEq, Eq)]
enum Progress {
    Preparing,
    Prepared,
    Loading,
    Loaded {
        /// Since when it is healthy at what it is used for now, or what is wrong.
        healthy: Result<CoreTime, String>,
    },
    /// Loaded, and on its way to where it acts.
    Entering,
    Failed {
        reason: String,
        retry_at: CoreTime,
    },
}

/// One module, as far as a crash may forget it.
#[derive(Debug, Default)]
pub(super) struct Slot {
    held: BTreeMap<Digest, Held>,
    routes: Vec<(Digest, u8)>,
    preview: Option<Digest>,
    observe: Option<Observe>,
    smoke_asked: Option<SmokeRun>,
    smoke: Option<SmokeOutcome>,
    rollout: RolloutId,
    /// The ledger's version when the entry changed last.
    pub entry_version: u64,
    /// When to look again.
    pub wake_at: Option<CoreTime>,
}

/// What one look at a module may read and change.
pub(super) struct Look<'a> {
    pub module: &'a ModuleName,
    pub spec: Option<&'a ModuleSpec>,
    pub entry: &'a mut Entry,
    pub vetoes: &'a [KeptVeto],
    /// The ledger's version; grows with each change of the entry.
    pub version: &'a mut u64,
    /// The version that is durable.
    pub durable: u64,
    pub now: CoreTime,
    pub out: &'a mut Vec<Action>,
}

impl Look<'_> {
    fn settle(&self) -> Millis {
        self.spec.map_or(Millis(0), |spec| spec.settle)
    }
}

impl Slot {
    /// Does what can be done now towards the spec; asked again with nothing changed, it does nothing.
    pub(super) fn reconcile(&mut self, mut look: Look<'_>) {
        let look = &mut look;
        let vetoes = Vetoes {
            all: look.vetoes,
            module: look.module,
        };
        let target = Target::of(look.spec, look.entry, &vetoes);
        self.adopt(&target, &vetoes, look);
        self.route(look);
        self.settle(look);
        let preview = target.preview.filter(|digest| self.is_loaded(digest));
        if self.preview != preview {
            self.preview = preview;
            look.out.push(Action::Preview {
                module: look.module.clone(),
                digest: preview,
            });
        }
        let stands = look.entry.serving == target.serving
            && self.routes == look.entry.routes()
            && self.preview == target.preview;
        if let (true, Some(spec)) = (stands, look.spec) {
            self.rollout = spec.rollout;
        }
        self.observe(stands, look);
        self.smoke(stands, look);
        let keep = self.keep(&target, look.entry);
        self.fetch_and_load(&keep, look);
        self.drop_unwanted(&keep, look);
        self.wake_at = self.next_look(look);
    }

    /// Makes the target the ledger's intention once nothing stands in its way.
    fn adopt(&mut self, target: &Target, vetoes: &Vetoes<'_>, look: &mut Look<'_>) {
        let entry = &mut *look.entry;
        let rollout = look.spec.map_or(RolloutId(0), |spec| spec.rollout);
        let trial = target.trial.as_ref().map(|release| Trial {
            rollout,
            release: release.clone(),
            boots: entry
                .trial
                .as_ref()
                .filter(|trial| trial.release == *release)
                .map_or(0, |trial| trial.boots),
        });
        if entry.serving == target.serving && entry.trial == trial {
            return;
        }
        let complete = target
            .serving
            .iter()
            .all(|share| self.is_loaded(&share.release.id()))
            && trial
                .as_ref()
                .is_none_or(|trial| self.is_healthy(&trial.release.id()));
        let serves_vetoed = look.spec.is_some_and(|spec| {
            vetoes.active(spec).any(|kept| {
                entry
                    .serving
                    .iter()
                    .any(|share| share.release == kept.veto.release)
            })
        });
        if complete || serves_vetoed {
            entry.serving.clone_from(&target.serving);
            entry.trial = trial;
            self.touch(look);
        }
    }

    /// Routes as the ledger intends, once that is durable if somebody is on trial by it.
    fn route(&mut self, look: &mut Look<'_>) {
        let routes = look.entry.routes();
        // Whoever is entering can't be stopped on the way, and is left afterwards.
        if self.routes == routes || self.is_somebody_entering() {
            return;
        }
        let on_trial = look.entry.trial.as_ref().map(|trial| trial.release.id());
        // Who serves already does no new harm: leaving another one never waits for the disk.
        let enters = on_trial.is_some_and(|digest| !self.serves(&digest));
        let durable = !enters || look.durable >= self.entry_version || is_on(Mutant::SwitchBeforeLedger);
        let fit = |digest: &Digest| {
            if Some(*digest) == on_trial {
                self.is_healthy(digest)
            } else {
                self.is_loaded(digest)
            }
        };
        let next = if durable && routes.iter().all(|(digest, _)| fit(digest)) {
            routes
        } else if self.routes.is_empty() {
            self.stand_in(look.entry)
        } else {
            return;
        };
        if self.routes == next {
            return;
        }
        for (digest, _) in &next {
            let had = self.routes.iter().any(|(other, _)| other == digest);
            if let (
                false,
                Some(Held {
                    at: Progress::Loaded { healthy: Ok(since) },
                    ..
                }),
            ) = (had, self.held.get_mut(digest))
            {
                *since = look.now;
            }
        }
        self.routes.clone_from(&next);
        look.out.push(Action::Route {
            module: look.module.clone(),
            routes: next,
        });
    }

    /// Who serves while nobody does, until the intended ones can: somebody who is not on trial.
    fn stand_in(&self, entry: &Entry) -> Vec<(Digest, u8)> {
        let Some(trial) = &entry.trial else {
            return Vec::new();
        };
        let base = entry.base(&trial.release.id());
        let base = base.filter(|base| self.is_loaded(&base.id()));
        base.map(|base| (base.id(), WEIGHT_ALL)).into_iter().collect()
    }

    /// A trial ends well: healthy for the settle time, under a rollout that is not on trial itself any more.
    fn settle(&mut self, look: &mut Look<'_>) {
        let Some(spec) = look.spec else {
            if self.routes.is_empty() && look.entry.committed.take().is_some() {
                self.touch(look);
            }
            return;
        };
        let Some(trial) = &mut look.entry.trial else {
            return;
        };
        let served = self
            .routes
            .iter()
            .any(|(digest, _)| *digest == trial.release.id());
        let healthy_for = self.healthy_for(&trial.release.id(), look.now);
        // On its way out it is not committed, however healthy it is until the other one has loaded.
        let leaving = spec
            .routes
            .iter()
            .all(|(digest, _)| *digest != trial.release.id());
        if !served || leaving || healthy_for.is_none_or(|healthy_for| healthy_for < spec.settle) {
            return;
        }
        if !spec.trial || spec.primary() != Some(&trial.release) {
            look.entry.committed = look.entry.trial.take().map(|trial| trial.release);
            self.touch(look);
        } else if trial.boots > 0 {
            trial.boots = 0;
            self.touch(look);
        }
    }

    fn touch(&mut self, look: &mut Look<'_>) {
        look.entry.keep_values(look.spec);
        *look.version += 1;
        self.entry_version = *look.version;
    }

    fn observe(&mut self, stands: bool, look: &mut Look<'_>) {
        let asked = look.spec.and_then(|spec| spec.observe);
        let as_asked = stands && look.spec.is_some_and(|spec| spec.routes == self.routes);
        let next = match (asked, self.observe) {
            (Some(asked), _) if as_asked => Some(asked),
            // The last step's counts go on until the next step's routes stand.
            (Some(asked), Some(running))
                if asked.rollout == running.rollout && self.serves(&running.candidate) =>
            {
                Some(running)
            }
            _ => None,
        };
        if self.observe != next {
            self.observe = next;
            look.out.push(Action::Observe {
                module: look.module.clone(),
                observe: next,
            });
        }
    }

    fn smoke(&mut self, stands: bool, look: &mut Look<'_>) {
        let Some(run) = look.spec.and_then(|spec| spec.smoke) else {
            return;
        };
        let reachable = match run.via {
            SmokeVia::Preview => self.preview == Some(run.digest),
            SmokeVia::Ingress => self.serves(&run.digest),
        };
        if stands && reachable && self.is_healthy(&run.digest) && self.smoke_asked != Some(run) {
            self.smoke_asked = Some(run);
            look.out.push(Action::RunSmoke {
                module: look.module.clone(),
                run,
            });
        }
    }

    /// Every release that must be or stay loaded.
    fn keep(&self, target: &Target, entry: &Entry) -> Vec<ReleaseRef> {
        let mut keep = target.hold.clone();
        for share in &entry.serving {
            push_unique(&mut keep, &share.release);
        }
        if entry.trial.is_some() {
            entry
                .committed
                .iter()
                .for_each(|committed| push_unique(&mut keep, committed));
        }
        keep
    }

    fn fetch_and_load(&mut self, keep: &[ReleaseRef], look: &mut Look<'_>) {
        let unrecorded = look
            .entry
            .trial
            .as_ref()
            .filter(|_| look.durable < self.entry_version);
        let unrecorded = unrecorded.map(|trial| trial.release.id());
        for release in keep {
            // After a boot on trial: that there was one is durable before the release can do harm again.
            if unrecorded == Some(release.id()) && !self.is_loaded(&release.id()) {
                continue;
            }
            self.prepare(release.id(), release.digest, look);
            if let Some(held) = self.held.get_mut(&release.id())
                && held.at == Progress::Prepared
            {
                held.at = Progress::Loading;
                look.out.push(Action::Load {
                    module: look.module.clone(),
                    release: release.clone(),
                    values: values_of(release, look),
                });
            }
        }
        let spec = look.spec;
        for &digest in spec.iter().flat_map(|spec| &spec.prefetch) {
            self.prepare(digest, digest, look);
        }
    }

    fn prepare(&mut self, digest: Digest, package: Digest, look: &mut Look<'_>) {
        let failures = match self.held.get(&digest) {
            None => 0,
            Some(Held {
                at: Progress::Failed { retry_at, .. },
                failures,
            }) if *retry_at <= look.now => *failures,
            Some(_) => return,
        };
        self.held.insert(
            digest,
            Held {
                at: Progress::Preparing,
                failures,
            },
        );
        look.out.push(Action::Prepare {
            module: look.module.clone(),
            digest,
            package,
        });
    }

    fn drop_unwanted(&mut self, keep: &[ReleaseRef], look: &mut Look<'_>) {
        let routes = &self.routes;
        self.held.retain(|digest, held| {
            let wanted = keep.iter().any(|release| release.id() == *digest)
                || routes.iter().any(|(other, _)| other == digest);
            let prefetched = look.spec.is_some_and(|spec| spec.prefetch.contains(digest));
            if wanted {
                return true;
            }
            match held.at {
                // Their answers are still to come.
                Progress::Preparing | Progress::Loading => return true,
                Progress::Prepared | Progress::Failed { .. } => return prefetched,
                Progress::Loaded { .. } | Progress::Entering => {}
            }
            look.out.push(Action::Unload {
                module: look.module.clone(),
                digest: *digest,
            });
            held.at = Progress::Prepared;
            prefetched
        });
    }

    fn next_look(&self, look: &Look<'_>) -> Option<CoreTime> {
        let settle = look.settle();
        let times = self.held.values().filter_map(|held| match &held.at {
            // One that is due and was not tried waits for the ledger, whose writing wakes it.
            Progress::Failed { retry_at, .. } => Some(*retry_at).filter(|&at| at > look.now),
            Progress::Loaded { healthy: Ok(since) } => Some(*since + settle).filter(|&at| at > look.now),
            _ => None,
        });
        times.min()
    }

    /// What the server is told.
    pub(super) fn status(&self, entry: &Entry, now: CoreTime) -> ModuleStatus {
        let releases = self.held.iter().map(|(digest, held)| {
            let status = match &held.at {
                Progress::Preparing => ReleaseStatus::Fetching,
                Progress::Prepared => ReleaseStatus::Prefetched,
                Progress::Loading | Progress::Entering => ReleaseStatus::Loading,
                Progress::Loaded { healthy: Ok(since) } => ReleaseStatus::Ready {
                    healthy_for: now.since(*since),
                },
                Progress::Loaded { healthy: Err(reason) } => ReleaseStatus::Unhealthy {
                    reason: reason.clone(),
                },
                Progress::Failed { reason, .. } => ReleaseStatus::Failed {
                    reason: reason.clone(),
                },
            };
            (*digest, status)
        });
        ModuleStatus {
            rollout: self.rollout,
            releases: releases.collect(),
            routes: self.routes.clone(),
            preview: self.preview,
            trial: entry.trial.as_ref().map(|trial| trial.release.id()),
            committed: entry.committed.as_ref().map(|release| release.id()),
            smoke: self.smoke.clone(),
        }
    }

    /// Whether nothing is left of the module on this node.
    pub(super) fn is_empty(&self) -> bool {
        self.held.is_empty() && self.routes.is_empty() && self.preview.is_none() && self.observe.is_none()
    }

    /// Takes in that a preparation ended. `false`: it says nothing.
    pub(super) fn prepared(&mut self, digest: &Digest, result: Result<(), String>, now: CoreTime) -> bool {
        let Some(held) = self
            .held
            .get_mut(digest)
            .filter(|held| held.at == Progress::Preparing)
        else {
            return false;
        };
        match result {
            Ok(()) => held.at = Progress::Prepared,
            Err(reason) => held.fail(reason, now),
        }
        true
    }

    /// Takes in that a load ended. `false`: it says nothing.
    pub(super) fn loaded(&mut self, digest: &Digest, result: Result<(), String>, now: CoreTime) -> bool {
        let Some(held) = self
            .held
            .get_mut(digest)
            .filter(|held| held.at == Progress::Loading)
        else {
            return false;
        };
        match result {
            Ok(()) => {
                *held = Held {
                    at: Progress::Loaded { healthy: Ok(now) },
                    failures: 0,
                }
            }
            Err(reason) => held.fail(reason, now),
        }
        true
    }

    /// Takes in that a release is on its way to where it acts. `false`: it isn't one that was routed to.
    pub(super) fn entering(&mut self, digest: &Digest) -> bool {
        let serves = self.serves(digest);
        match self.held.get_mut(digest) {
            Some(held) if serves && matches!(held.at, Progress::Loaded { .. }) => {
                held.at = Progress::Entering;
                true
            }
            _ => false,
        }
    }

    /// Takes in a loaded release's health. `false`: it says nothing new.
    pub(super) fn health(&mut self, digest: &Digest, result: Result<(), String>, now: CoreTime) -> bool {
        let Some(held) = self.held.get_mut(digest) else {
            return false;
        };
        match (&result, &held.at) {
            (Ok(()), Progress::Loaded { healthy: Ok(_) }) => return false,
            (Err(new), Progress::Loaded { healthy: Err(known) }) if new == known => return false,
            (_, Progress::Loaded { .. } | Progress::Entering) => {}
            _ => return false,
        }
        held.at = Progress::Loaded {
            healthy: result.map(|()| now),
        };
        true
    }

    /// Takes in how a smoke run ended. `false`: it is not the one asked for last.
    pub(super) fn smoked(&mut self, outcome: SmokeOutcome) -> bool {
        if self.smoke_asked != Some(outcome.run) || self.smoke.as_ref() == Some(&outcome) {
            return false;
        }
        self.smoke = Some(outcome);
        true
    }

    fn serves(&self, digest: &Digest) -> bool {
        self.routes.iter().any(|(other, _)| other == digest)
    }

    fn is_somebody_entering(&self) -> bool {
        self.held.values().any(|held| held.at == Progress::Entering)
    }

    fn is_loaded(&self, digest: &Digest) -> bool {
        matches!(
            self.held.get(digest),
            Some(Held {
                at: Progress::Loaded { .. } | Progress::Entering,
                ..
            })
        )
    }

    fn is_healthy(&self, digest: &Digest) -> bool {
        matches!(
            self.held.get(digest),
            Some(Held {
                at: Progress::Loaded { healthy: Ok(_) } | Progress::Entering,
                ..
            })
        )
    }

    fn healthy_for(&self, digest: &Digest, now: CoreTime) -> Option<Millis> {
        match &self.held.get(digest)?.at {
            Progress::Loaded { healthy: Ok(since) } => Some(now.since(*since)),
            _ => None,
        }
    }
}

impl Held {
    fn fail(&mut self, reason: String, now: CoreTime) {
        let doubled = BACKOFF_FIRST
            .0
            .checked_shl(self.failures.min(16))
            .unwrap_or(BACKOFF_MAX.0);
        self.failures = self.failures.saturating_add(1);
        self.at = Progress::Failed {
            reason,
            retry_at: now + Millis(doubled).min(BACKOFF_MAX),
        };
    }
}

/// What a release is given: nothing where it has no configuration, and `None` where nobody says what.
fn values_of(release: &ReleaseRef, look: &Look<'_>) -> Option<Values> {
    if release.config == 0 {
        return Some(Values::new());
    }
    let spec = look.spec.and_then(|spec| spec.values.get(&release.config));
    spec.or_else(|| look.entry.values.get(&release.config)).cloned()
}
