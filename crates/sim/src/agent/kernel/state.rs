//! What is in a node's kernel, who is on the way there, and what the node remembers of it over boots.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use hotswap_core::ids::{Digest, ModuleName};
use hotswap_core::mutants::{Mutant, is_on};

/// Boots in a row that a version gets that has stood before.
const DOWNS_MAX: u32 = 3;

/// What a node knows of its kernel.
#[derive(Debug, Default)]
pub(crate) struct Kernel {
    /// What is in it: it goes with the machine, not with the agent.
    pub(super) places: BTreeMap<ModuleName, Place>,
    /// What the node remembers: on disk.
    pub(super) records: BTreeMap<ModuleName, Record>,
    /// The number of the node's newest load.
    pub(super) newest: u64,
    /// Who waits to be put in its place, one after the other.
    pub(super) waiting: VecDeque<Turn>,
    /// Whose turn it is.
    pub(super) turn: Option<Turn>,
    /// Whose load hangs and is waited for no more.
    pub(super) hung: Vec<Turn>,
    /// Of whom the machine is not told yet that they are on their way.
    pub(super) untold: Vec<(ModuleName, Digest)>,
    /// Releases that it went down with and that never stood on it, and those that did: ground truth.
    pub(super) went_down: BTreeSet<Digest>,
    pub(super) stood: BTreeSet<Digest>,
}

/// An instance that is on its way to its place.
#[derive(Clone, Debug)]
pub(super) struct Turn {
    pub(super) module: ModuleName,
    pub(super) release: Digest,
    /// Which instance of the release.
    pub(super) load: u64,
}

#[derive(Debug, Default)]
pub(super) struct Place {
    /// Who is called.
    pub(super) active: Option<Digest>,
    /// The instance of this agent that put or found it there.
    pub(super) by: Option<u64>,
    /// Who could be neither put there nor unloaded.
    pub(super) stuck: BTreeSet<Digest>,
    /// Who is to be taken away once a load is over.
    pub(super) dismissed: Vec<(Digest, u64)>,
}

/// What a node remembers of a module's loads; durable before anything is loaded.
#[derive(Debug, Default)]
pub(super) struct Record {
    /// What is being loaded or watched.
    pub(super) attempt: Option<Attempt>,
    known: BTreeMap<Digest, Known>,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Attempt {
    pub(super) release: Digest,
    pub(super) number: u64,
    pub(super) is_loaded: bool,
}

#[derive(Debug, Default)]
struct Known {
    stood: bool,
    downs: u32,
}

impl Record {
    pub(super) fn refuses(&self, release: &Digest) -> Option<String> {
        let known = self.known.get(release)?;
        let most = if known.stood { DOWNS_MAX } else { 1 };
        (known.downs >= most)
            .then(|| "the node went down while it was being loaded or had just been".to_owned())
    }

    fn has_stood(&self, release: &Digest) -> bool {
        self.known.get(release).is_some_and(|known| known.stood)
    }

    fn stood(&mut self, release: Digest) {
        self.attempt = None;
        let known = Known {
            stood: true,
            downs: 0,
        };
        self.known.insert(release, known);
    }
}

impl Kernel {
    /// Whether a module's release is on its way to its place.
    pub(super) fn is_entering(&self, module: &ModuleName, release: &Digest) -> bool {
        self.entering()
            .any(|turn| turn.module == *module && turn.release == *release)
    }

    pub(super) fn entering(&self) -> impl Iterator<Item = &Turn> {
        self.waiting.iter().chain(&self.turn).chain(&self.hung)
    }

    /// Whether the kernel is at work on a module now.
    pub(super) fn is_at_work(&self, module: &ModuleName) -> bool {
        let mut working = self.turn.iter().chain(&self.hung);
        working.any(|turn| turn.module == *module)
    }

    /// Who is blamed if the machine goes down now: whose load is not over, else the newest one of those that never stood,
    /// else the newest one.
    fn guilty(&self) -> Vec<(ModuleName, Digest)> {
        let attempts = || {
            let records = self.records.iter();
            records.filter_map(|(module, record)| Some((module, record.attempt?)))
        };
        let is_loading = attempts().any(|(_, attempt)| !attempt.is_loaded);
        let is_new = |(module, attempt): &(&ModuleName, Attempt)| {
            let record = self.records.get(*module);
            record.is_some_and(|record| !record.has_stood(&attempt.release))
        };
        let any_is_new = attempts().any(|attempt| is_new(&attempt));
        let suspects = || attempts().filter(|attempt| !any_is_new || is_new(attempt));
        let newest = suspects().map(|(_, attempt)| attempt.number).max();
        let told = |(module, attempt): (&ModuleName, Attempt)| (module.clone(), attempt.release);
        if is_loading {
            let loading = attempts().filter(|(_, attempt)| !attempt.is_loaded);
            return loading.map(told).collect();
        }
        let guilty = suspects().filter(|(_, attempt)| Some(attempt.number) == newest);
        guilty.map(told).collect()
    }

    /// What is being watched is so no more: it was taken away, or its agent stops in order.
    pub(super) fn forgets_attempts(&mut self, of: Option<&ModuleName>) {
        for (module, record) in &mut self.records {
            if of.is_none_or(|of| of == module) {
                record.attempt = None;
            }
        }
    }

    /// The agent's process ends; what is in the kernel stays.
    pub(crate) fn agent_ends(&mut self) {
        self.waiting.clear();
        self.turn = None;
        self.hung.clear();
        self.untold.clear();
        for place in self.places.values_mut() {
            place.by = None;
            place.dismissed.clear();
        }
    }

    /// A release is taken away. While somebody is being loaded that waits.
    pub(crate) fn dismisses(&mut self, module: &ModuleName, release: Digest, load: u64) {
        let is_at_work = self.is_at_work(module);
        let Some(place) = self.places.get_mut(module) else {
            return;
        };
        if is_at_work {
            place.dismissed.push((release, load));
        } else if place.active == Some(release) && place.by == Some(load) {
            (place.active, place.by) = (None, None);
            self.forgets_attempts(Some(module));
        }
    }

    /// A release has been in its place for a while, if it is still there.
    pub(crate) fn stands(&mut self, module: &ModuleName, release: Digest) {
        if self.is_at_work(module) {
            return;
        }
        let place = self.places.get(module);
        let is_there = place.is_some_and(|place| place.active == Some(release));
        let watched = |attempt: Attempt| attempt.release == release && attempt.is_loaded;
        if let Some(record) = self.records.get_mut(module).filter(|_| is_there)
            && record.attempt.is_some_and(watched)
        {
            record.stood(release);
            self.stood.insert(release);
        }
    }

    /// The machine goes down with all that is in its kernel; the next boot judges whose doing that was.
    pub(super) fn goes_down(&mut self) {
        self.places.clear();
        let guilty = self.guilty();
        self.forgets_attempts(None);
        for (module, release) in guilty {
            if !self.stood.contains(&release) {
                self.went_down.insert(release);
            }
            let record = self.records.entry(module).or_default();
            record.known.entry(release).or_default().downs += 1;
        }
        if is_on(Mutant::RecordForgotten) {
            self.records.clear();
        }
    }
}
