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

type AllSeries = BTreeMap<(ModuleName, Digest), Arc<Series>>;

impl Meter {
    /// A meter without series.
    pub fn new() -> Self {
        Self::default()
    }

    /// The series of a release; the same one for as long as the process lives, so that a release that comes back
    /// goes on counting. `recent_window` is how many last requests [`Series::recent`] looks at, and counts where the
    /// series is new.
    pub fn series(&self, module: &ModuleName, digest: Digest, recent_window: u32) -> Arc<Series> {
        let mut all = self.lock();
        let series = all
            .entry((module.clone(), digest))
            .or_insert_with(|| Arc::new(Series::new(recent_window)));
        Arc::clone(series)
    }

    /// Forgets a release that the node no longer holds and whose last interval is closed: what keeps memory bounded
    /// over many releases.
    pub fn forget(&self, module: &ModuleName, digest: Digest) {
        self.lock().remove(&(module.clone(), digest));
    }

    /// The counters of all series.
    pub fn snapshot(&self) -> BTreeMap<(ModuleName, Digest), Counters> {
        let all: Vec<_> = self
            .lock()
            .iter()
            .map(|(key, series)| (key.clone(), Arc::clone(series)))
            .collect();
        all.into_iter()
            .map(|(key, series)| (key, series.snapshot()))
            .collect()
    }

    fn lock(&self) -> MutexGuard<'_, AllSeries> {
        // The map is sound after every step, so a panic elsewhere doesn't spoil it.
        self.series.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
