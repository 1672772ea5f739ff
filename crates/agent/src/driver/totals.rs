//! What a node served since it started, over all releases, also those that it holds no more.

use std::sync::{Arc, Mutex, PoisonError};

use hotswap_core::ids::{Digest, ModuleName};

use crate::meter::{Counters, Meter, Reading};

/// What a node served since its process started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Users' requests that ended.
    pub requests: u64,
    /// Those of them that ended badly: an answer of 500 or above, refused, cut, or none.
    pub errors: u64,
    /// Those of them that were cut by a drain's deadline.
    pub cut: u64,
    /// Users' requests whose client went away before the answer; in no other number.
    pub abandoned: u64,
    /// Sum of users' latencies, in µs.
    pub latency_us: u64,
}

/// The sums. Cheap to clone; the clones are one.
#[derive(Clone, Debug)]
pub(crate) struct Totals {
    meter: Meter,
    /// Of the series that were forgotten.
    former: Arc<Mutex<Stats>>,
}

impl Totals {
    pub(crate) fn new(meter: Meter) -> Self {
        Self {
            meter,
            former: Arc::default(),
        }
    }

    pub(crate) fn stats(&self) -> Stats {
        // Locked while the series are read, so that none is counted twice or not at all while it is forgotten.
        let former = self.former.lock().unwrap_or_else(PoisonError::into_inner);
        self.meter
            .snapshot()
            .values()
            .fold(*former, |sum, counters| sum.plus(counters))
    }

    /// The series that are there.
    pub(super) fn readings(&self) -> Vec<Reading> {
        self.meter.readings()
    }

    /// Forgets a release's series but not what it counted. Its last request must have ended.
    pub(super) fn forget(&self, module: &ModuleName, digest: Digest) {
        let mut former = self.former.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(counters) = self.meter.snapshot().get(&(module.clone(), digest)) {
            *former = former.plus(counters);
            self.meter.forget(module, digest);
        }
    }
}

impl Stats {
    fn plus(self, counters: &Counters) -> Self {
        Self {
            requests: self.requests + counters.requests(),
            errors: self.errors + counters.errors,
            cut: self.cut + counters.cut,
            abandoned: self.abandoned + counters.abandoned,
            latency_us: self.latency_us + counters.latency_us,
        }
    }
}
