//! What a node counts: per release what users' requests and probes came to, and how its machine fares.
//!
//! Counters only grow while the process lives (one *incarnation*); intervals are differences of two snapshots.

pub mod os;
mod recent;
mod series;
mod shards;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hotswap_core::ids::{Digest, ModuleName};

pub use recent::RecentErrors;
pub use series::{Counters, Ended, Series};

/// All series of a node. Cheap to clone; the clones are one meter.
#[derive(Clone, Debug, Default)]
pub struct Meter {
    series: Arc<Mutex<AllSeries>>,
}

type AllSeries = BTreeMap<(ModuleName, Digest), (String, Arc<Series>)>;

/// A release's counters at one moment.
#[derive(Clone, Debug)]
pub struct Reading {
    /// Its module.
    pub module: ModuleName,
    /// Its version.
    pub version: String,
    /// Its digest.
    pub digest: Digest,
    /// What was counted.
    pub counters: Counters,
}

impl Meter {
    /// A meter without series.
    pub fn new() -> Self {
        Self::default()
    }

    /// The series of a release; the same one for as long as the process lives, so that a release that comes back
    /// goes on counting. `recent_window` is how many last requests [`Series::recent`] looks at, and counts where the
    /// series is new.
    pub fn series(
        &self,
        module: &ModuleName,
        version: &impl ToString,
        digest: Digest,
        recent_window: u32,
    ) -> Arc<Series> {
        let mut all = self.lock();
        let (_, series) = all
            .entry((module.clone(), digest))
            .or_insert_with(|| (version.to_string(), Arc::new(Series::new(recent_window))));
        Arc::clone(series)
    }

    /// Forgets a release that the node no longer holds and whose last interval is closed: what keeps memory bounded
    /// over many releases. Returns its series, into which requests that hold the release yet may still count.
    pub fn forget(&self, module: &ModuleName, digest: Digest) -> Option<Arc<Series>> {
        let (_, series) = self.lock().remove(&(module.clone(), digest))?;
        Some(series)
    }

    /// The counters of all series.
    pub fn snapshot(&self) -> BTreeMap<(ModuleName, Digest), Counters> {
        let readings = self.readings().into_iter();
        readings
            .map(|reading| ((reading.module, reading.digest), reading.counters))
            .collect()
    }

    /// The same with releases' versions, in the order of modules' names.
    pub fn readings(&self) -> Vec<Reading> {
        // The lock is for the list alone, so that reading holds up nobody who loads a release.
        let all = self.lock().clone();
        all.into_iter()
            .map(|((module, digest), (version, series))| Reading {
                module,
                version,
                digest,
                counters: series.snapshot(),
            })
            .collect()
    }

    fn lock(&self) -> MutexGuard<'_, AllSeries> {
        // The map is sound after every step, so a panic elsewhere doesn't spoil it.
        self.series.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
