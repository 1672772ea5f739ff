//! One loaded version: at its hooks, on standby, or only tried.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hotswap_core::ids::Digest;
use hotswap_package::{Counts, Manifest};
use tokio::task::spawn_blocking;

use super::counting::{Counting, Reading, Runs};
use super::hook::{Hooked, Swap, Swapped};
use super::migrate::{Move, Moving};
use super::pins::{Module, Users};
use crate::kind::{BoxFuture, Closed, Instance, Readiness, Tally, Usage};

/// How often probes are sent through a version on trial.
const PROBE_EVERY: Duration = Duration::from_secs(1);

/// A loaded version. Dropping it leaves everything as it is at the hooks.
#[derive(Debug)]
pub(super) struct EbpfInstance {
    pub(super) loaded: Arc<Loaded>,
}

/// What a version is loaded as.
#[derive(Debug)]
pub(super) struct Loaded {
    pub(super) digest: Digest,
    pub(super) label: String,
    pub(super) manifest: Arc<Manifest>,
    /// None where it was only tried.
    pub(super) pinned: Option<Pinned>,
    pub(super) state: Mutex<State>,
}

/// A version that can be at its hooks.
#[derive(Debug)]
pub(super) struct Pinned {
    pub(super) module: Arc<Module>,
    /// Its folder among the module's.
    pub(super) release: String,
    pub(super) hooks: Vec<Hooked>,
    /// What it takes over from maps of other layouts.
    pub(super) moves: Vec<Move>,
    pub(super) counting: Counting,
}

#[derive(Debug, Default)]
pub(super) struct State {
    /// Whether it is to be at its hooks.
    wanted: bool,
    /// Why it isn't.
    trouble: Option<String>,
    /// What its predecessor broke of its invariants, too: that is not held against it.
    excused: Vec<Counts>,
    dismissed: bool,
    closed: bool,
    /// When the probes were sent last, since it is at its hooks, and what came of it.
    probed: Option<(Instant, Result<(), String>)>,
    /// How often a hook had to be taken again that was lost.
    retaken: u64,
}

impl Loaded {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From here on it is to be at its hooks, and no other version of the module: one that couldn't get there tries no more.
    fn want(self: &Arc<Self>) {
        if let Some(pinned) = &self.pinned {
            let former = pinned.module.lock().wanted.replace(Arc::downgrade(self));
            let former = former.and_then(|former| former.upgrade());
            if let Some(former) = former.filter(|former| !Arc::ptr_eq(former, self)) {
                let mut former = former.state();
                former.wanted = false;
                former.trouble = None;
            }
        }
        self.state().wanted = true;
    }

    /// Puts the version at its hooks, if it isn't, and notes how that went.
    fn see_to(self: &Arc<Self>) {
        let Some(pinned) = &self.pinned else { return };
        let mut users = pinned.module.lock();
        if self.state().closed {
            return;
        }
        let trouble = self.take_place(pinned, &mut users).err();
        let mut state = self.state();
        if state.trouble != trouble {
            let (module, version) = (&self.manifest.name, &self.label);
            match &trouble {
                Some(trouble) => tracing::error!(%module, version, trouble, "a program is not at its hook"),
                None => tracing::info!(%module, version, "a program is at its hook again"),
            }
            state.trouble = trouble;
        }
    }

    fn take_place(self: &Arc<Self>, pinned: &Pinned, users: &mut Users) -> Result<(), String> {
        let is_active = users
            .active
            .as_ref()
            .is_some_and(|active| Arc::ptr_eq(active, self));
        if is_active {
            return self.stay_in_place(pinned);
        }
        let former = users.active.clone();
        let former = former
            .as_deref()
            .and_then(|former| Some((former, former.pinned.as_ref()?)));
        // A place that isn't there is found before anything is changed.
        pinned.hooks.iter().try_for_each(|hook| hook.place.exists())?;
        let begun = Instant::now();
        let moving = pinned.begin_moves()?;
        let from = pinned.read()?;
        let excused = former.map(|(_, former)| pinned.counting.excused(&former.counting));
        let swaps = pinned.swap()?;
        let took = begun.elapsed();
        for moving in &moving {
            self.finish_move(moving);
        }
        if let Some((former, at)) = former {
            former.state().wanted = false;
            match at.read() {
                Ok(last) => at.counting.end(&pinned.counting, &from, last),
                Err(problem) => {
                    tracing::warn!(module = %self.manifest.name, problem, "a version's last counts are lost");
                }
            }
        }
        pinned.counting.begin(from);
        {
            let mut state = self.state();
            state.excused = excused.unwrap_or_default();
            state.probed = None;
        }
        users.active = Some(Arc::clone(self));
        // Who finds its programs at the hooks after a restart has others beside it that are not loaded again yet.
        if swaps.iter().any(|swap| *swap != Swap::Was) {
            pinned.module.sweep(users);
        }
        for hook in &pinned.hooks {
            let info = hook.info().ok();
            tracing::info!(
                module = %self.manifest.name, version = self.label, program = hook.attached.name, id = hook.id,
                tag = info.map(|info| format!("{:016x}", info.tag())), hook = %hook.attached.attach, place = %hook.place,
                ?swaps, took_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX),
                "a program is at its hook"
            );
        }
        Ok(())
    }

    /// The version is at its hooks: what the former one noted since the move began is not lost.
    fn finish_move(&self, moving: &Moving<'_>) {
        let (module, version, map, moved) = (&self.manifest.name, &self.label, moving.name(), moving.moved());
        match moving.finish() {
            Ok(again) => tracing::info!(%module, version, map, moved, again, "a map's entries were moved"),
            Err(problem) => tracing::error!(
                %module, version, map, moved, problem,
                "what the former version noted while a map's entries were moved is lost"
            ),
        }
    }

    /// What the probes say now, sent again after a while.
    fn probed(&self) -> Result<(), String> {
        let (Some(pinned), Some(ebpf)) = (&self.pinned, &self.manifest.ebpf) else {
            return Ok(());
        };
        if ebpf.probes.is_empty() || !self.state().wanted {
            return Ok(());
        }
        if let Some((at, said)) = &self.state().probed
            && at.elapsed() < PROBE_EVERY
        {
            return said.clone();
        }
        let said = pinned.hooks.iter().try_for_each(|hook| hook.probe(ebpf));
        self.state().probed = Some((Instant::now(), said.clone()));
        said
    }

    /// Takes hooks again that were lost: their interface came back, somebody removed the link.
    fn stay_in_place(&self, pinned: &Pinned) -> Result<(), String> {
        // One that can't be taken keeps none of the others from being taken.
        let mut kept = Ok(());
        for hook in &pinned.hooks {
            if let Err(problem) = self.stay_at(hook, pinned) {
                kept = kept.and(Err(problem));
            }
        }
        kept
    }

    fn stay_at(&self, hook: &Hooked, Pinned { module, hooks, .. }: &Pinned) -> Result<(), String> {
        if !hook.is_in_place(module)? && hook.swap(module, hooks)?.how != Swap::Was {
            self.state().retaken += 1;
            tracing::warn!(
                module = %self.manifest.name, version = self.label, program = hook.attached.name,
                hook = %hook.attached.attach, place = %hook.place, "a hook was lost, and was taken again"
            );
        }
        Ok(())
    }

    /// Ends an instance: what it has pinned goes if it was dismissed, else it stays for whoever comes next.
    fn end(self: &Arc<Self>) {
        let mut state = self.state();
        if std::mem::replace(&mut state.closed, true) {
            return;
        }
        let dismissed = state.dismissed;
        drop(state);
        let Some(Pinned { module, release, .. }) = &self.pinned else {
            return;
        };
        let mut users = module.lock();
        let is_active = users
            .active
            .as_ref()
            .is_some_and(|active| Arc::ptr_eq(active, self));
        if is_active {
            users.active = None;
        }
        if !users.leave(release) || !dismissed {
            return;
        }
        if users.loaded.is_empty() {
            module.clear();
        } else {
            if is_active {
                for link in module.links() {
                    // What can't be removed now goes with the module.
                    let _ = std::fs::remove_file(module.link(&link));
                }
            }
            module.forget(release);
            module.forget_layouts(&users);
        }
    }
}

impl Pinned {
    /// Moves entries out of maps of other layouts that are at work, before the switch.
    fn begin_moves(&self) -> Result<Vec<Moving<'_>>, String> {
        let moving = self.moves.iter().map(|one| one.begin(&self.module));
        moving.filter_map(Result::transpose).collect()
    }

    /// All numbers now.
    fn read(&self) -> Result<Reading, String> {
        let read = self.counting.read(self.runs());
        read.map_err(|error| format!("the counters can't be read: {error}"))
    }

    fn runs(&self) -> Runs {
        let infos = self.hooks.iter().filter_map(|hook| hook.info().ok());
        infos.fold(Runs::default(), |runs, info| Runs {
            count: runs.count + info.run_count(),
            time: runs.time + info.run_time(),
        })
    }

    /// Swaps all programs, or none. A hook that the former version had and this one hasn't is let go.
    fn swap(&self) -> Result<Vec<Swap>, String> {
        let mut swaps = Vec::new();
        for hook in &self.hooks {
            match hook.swap(&self.module, &self.hooks) {
                Ok(swap) => swaps.push(swap),
                Err(problem) => {
                    self.swap_back(swaps);
                    return Err(problem);
                }
            }
        }
        for link in self.module.links() {
            if self.hooks.iter().all(|hook| hook.attached.name != link) {
                std::fs::remove_file(self.module.link(&link))
                    .map_err(|error| format!("the hook of {link} can't be let go: {error}"))?;
            }
        }
        Ok(swaps.into_iter().map(|swap| swap.how).collect())
    }

    /// Takes back what was changed; what had been in place before stays there, whoever's process put it there.
    fn swap_back(&self, swaps: Vec<Swapped>) {
        for (hook, swap) in self.hooks.iter().zip(swaps) {
            if let Err(problem) = hook.undo(&self.module, swap) {
                tracing::error!(
                    program = hook.attached.name,
                    problem,
                    "a swap that failed half-way could not be undone"
                );
            }
        }
    }
}

impl Instance for EbpfInstance {
    fn digest(&self) -> Digest {
        self.loaded.digest
    }

    fn label(&self) -> &str {
        &self.loaded.label
    }

    fn manifest(&self) -> &Manifest {
        &self.loaded.manifest
    }

    fn engage(&self) -> Option<BoxFuture<'static, ()>> {
        self.loaded.want();
        self.loaded.see_to();
        None
    }

    fn dismiss(&self) {
        self.loaded.state().dismissed = true;
    }

    fn readiness(&self) -> Readiness {
        let state = self.loaded.state();
        match &state.trouble {
            _ if state.closed => Readiness::Closed,
            Some(trouble) => Readiness::Failing(trouble.clone()),
            None => Readiness::Ready,
        }
    }

    fn tally(&self) -> Option<Tally> {
        let pinned = self.loaded.pinned.as_ref()?;
        if self.loaded.state().wanted {
            self.loaded.see_to();
        }
        let reading = pinned.read().ok()?;
        Some(pinned.counting.look(&reading))
    }

    fn complaint(&self) -> Option<String> {
        if let Err(failed) = self.loaded.probed() {
            return Some(failed);
        }
        let broken = self.loaded.pinned.as_ref()?.counting.broken();
        let state = self.loaded.state();
        let mut held_against = broken
            .into_iter()
            .filter(|(what, _)| !state.excused.contains(what));
        held_against.next().map(|(_, why)| why)
    }

    fn usage(&self) -> Usage {
        let state = self.loaded.state();
        let (wanted, retaken) = (state.wanted && !state.closed, state.retaken);
        drop(state);
        let runs = self.loaded.pinned.as_ref().map(Pinned::runs).unwrap_or_default();
        Usage {
            guest_time: runs.time,
            instances: u64::from(wanted),
            instances_started: 1 + retaken,
            ..Usage::default()
        }
    }

    fn close(&self, _deadline: Duration) -> BoxFuture<'static, Closed> {
        let loaded = Arc::clone(&self.loaded);
        Box::pin(async move {
            // Removing a link waits for the programs that run.
            let ended = spawn_blocking(move || loaded.end()).await;
            if let Err(panic) = ended {
                tracing::error!(%panic, "a version's end failed");
            }
            Closed::default()
        })
    }
}
