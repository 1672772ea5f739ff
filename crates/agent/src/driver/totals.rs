//! What a node served since it started, over all releases, also those that it holds no more.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hotswap_core::ids::{Digest, ModuleName};

use crate::meter::{Counters, Meter, Reading, Series};

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
    former: Arc<Mutex<Former>>,
}

/// What releases counted whose series the meter has forgotten.
#[derive(Debug, Default)]
struct Former {
    /// Of those that nothing counts into any more.
    sum: Stats,
    /// Of those that are held yet. A request leaves its instance a moment before it is counted, so that a release may
    /// be closed, and forgotten, in between.
    held: Vec<Arc<Series>>,
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
        let mut former = self.lock();
        let sum = former.settle();
        self.meter.snapshot().values().fold(sum, Stats::plus)
    }

    /// The series that are there.
    pub(super) fn readings(&self) -> Vec<Reading> {
        self.meter.readings()
    }

    /// Forgets a release's series but not what it counted, nor what it has yet to count.
    pub(super) fn forget(&self, module: &ModuleName, digest: Digest) {
        let mut former = self.lock();
        former.held.extend(self.meter.forget(module, digest));
        former.settle();
    }

    fn lock(&self) -> MutexGuard<'_, Former> {
        // The sums are sound after every step, so a panic elsewhere doesn't spoil them.
        self.former.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Former {
    /// Takes the last numbers of those that nobody holds any more. Returns what all came to until now.
    fn settle(&mut self) -> Stats {
        for series in std::mem::take(&mut self.held) {
            match Arc::try_unwrap(series) {
                Ok(series) => self.sum = self.sum.plus(&series.snapshot()),
                Err(held) => self.held.push(held),
            }
        }
        let held = self.held.iter().map(|series| series.snapshot());
        held.fold(self.sum, |sum, counters| sum.plus(&counters))
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::meter::Ended;

    #[test]
    fn a_request_that_ends_after_its_release_was_forgotten_is_counted() {
        let (meter, module, digest) = (Meter::new(), "shop".parse().expect("a name"), Digest([1; 32]));
        let totals = Totals::new(meter.clone());
        let series = meter.series(&module, &"1.0.0", digest, 10);
        series.record(Ended::Well, Duration::from_micros(30));
        totals.forget(&module, digest);
        assert!(totals.readings().is_empty());
        assert_eq!(totals.stats().requests, 1);

        series.record(Ended::Badly, Duration::from_micros(12));
        let expected = Stats {
            requests: 2,
            errors: 1,
            latency_us: 42,
            ..Stats::default()
        };
        assert_eq!(totals.stats(), expected);
        drop(series);
        assert_eq!(totals.stats(), expected);
        assert!(totals.lock().held.is_empty(), "what nobody holds is not kept");

        let again = meter.series(&module, &"1.0.0", digest, 10);
        again.record(Ended::Well, Duration::ZERO);
        assert_eq!(totals.stats().requests, 3, "a release that came back begins anew");
    }
}
