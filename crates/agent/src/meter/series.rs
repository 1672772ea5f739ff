//! The counters of one release on one node.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hotswap_core::analysis::{ArmCounts, BINS, Histogram, bin_of};

use super::recent::RecentErrors;
use super::shards::Shards;

/// What a release's requests came to. Recording takes no lock and shares no cache line between cores, but for the
/// ring of last requests.
#[derive(Debug)]
pub struct Series {
    users: Shards<Users>,
    drops: AtomicU64,
    probes: AtomicU64,
    probe_errors: AtomicU64,
    probe_streak: AtomicU64,
    recent: RecentErrors,
}

#[derive(Debug)]
struct Users {
    errors: AtomicU64,
    overloaded: AtomicU64,
    cut: AtomicU64,
    abandoned: AtomicU64,
    latency_us: AtomicU64,
    /// Requests by latency; their sum is the number of requests.
    bins: [AtomicU64; BINS],
}

impl Default for Users {
    fn default() -> Self {
        Self {
            errors: AtomicU64::new(0),
            overloaded: AtomicU64::new(0),
            cut: AtomicU64::new(0),
            abandoned: AtomicU64::new(0),
            latency_us: AtomicU64::new(0),
            bins: [const { AtomicU64::new(0) }; BINS],
        }
    }
}

/// How a user's request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// With an answer below 500.
    Well,
    /// With an answer of 500 or above, or none because the module failed.
    Badly,
    /// Refused: too many at once. Counts as an error too.
    Overloaded,
    /// Cut by the deadline of a drain. Counts as an error too.
    Cut,
}

impl Series {
    /// A series of zeros.
    pub(super) fn new(recent_window: u32) -> Self {
        Self {
            users: Shards::new(),
            drops: AtomicU64::new(0),
            probes: AtomicU64::new(0),
            probe_errors: AtomicU64::new(0),
            probe_streak: AtomicU64::new(0),
            recent: RecentErrors::new(recent_window),
        }
    }

    /// Counts a user's request, with the time from its head to its answer's.
    pub fn record(&self, ended: Ended, latency: Duration) {
        let users = self.users.own();
        let us = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        let add = |counter: &AtomicU64, n| {
            counter.fetch_add(n, Ordering::Relaxed);
        };
        add(&users.bins[bin_of(us)], 1);
        add(&users.latency_us, us);
        if ended != Ended::Well {
            add(&users.errors, 1);
            match ended {
                Ended::Overloaded => add(&users.overloaded, 1),
                Ended::Cut => add(&users.cut, 1),
                Ended::Well | Ended::Badly => {}
            }
        }
        self.recent.record(ended != Ended::Well);
    }

    /// Counts what a release counted by itself since it was last asked: `errors` of `requests`, and the time that all
    /// took. Their mean stands for each one's latency.
    pub fn record_many(&self, requests: u64, errors: u64, busy: Duration) {
        if requests == 0 {
            return;
        }
        let users = self.users.own();
        let add = |counter: &AtomicU64, n| {
            counter.fetch_add(n, Ordering::Relaxed);
        };
        let errors = errors.min(requests);
        let us = u64::try_from(busy.as_micros()).unwrap_or(u64::MAX);
        add(&users.bins[bin_of(us / requests)], requests);
        add(&users.latency_us, us);
        add(&users.errors, errors);
        // As many as the ring holds, with its share of errors.
        let shown = requests.min(self.recent.window());
        let bad = u128::from(errors) * u128::from(shown) / u128::from(requests);
        (0..u128::from(shown)).for_each(|n| self.recent.record(n < bad));
    }

    /// Counts what a release dropped on purpose since it was last asked.
    pub fn record_drops(&self, drops: u64) {
        self.drops.fetch_add(drops, Ordering::Relaxed);
    }

    /// Counts a user's request whose client went away before the answer. It is neither good nor an error.
    pub fn record_abandoned(&self) {
        self.users.own().abandoned.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a probe.
    pub fn record_probe(&self, passed: bool) {
        self.probes.fetch_add(1, Ordering::Relaxed);
        if passed {
            self.probe_streak.fetch_add(1, Ordering::Relaxed);
        } else {
            self.probe_errors.fetch_add(1, Ordering::Relaxed);
            self.probe_streak.store(0, Ordering::Relaxed);
        }
    }

    /// The last users' requests.
    pub fn recent(&self) -> &RecentErrors {
        &self.recent
    }

    /// All counters now. Requests that end meanwhile may be in some and not yet in others.
    pub fn snapshot(&self) -> Counters {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let mut counters = Counters {
            drops: read(&self.drops),
            probes: read(&self.probes),
            probe_errors: read(&self.probe_errors),
            probe_streak: read(&self.probe_streak),
            ..Counters::default()
        };
        for users in self.users.iter() {
            // Errors before requests, so that no snapshot has more errors than requests.
            counters.errors += read(&users.errors);
            counters.overloaded += read(&users.overloaded);
            counters.cut += read(&users.cut);
            counters.abandoned += read(&users.abandoned);
            counters.latency_us += read(&users.latency_us);
            for (sum, bin) in counters.bins.iter_mut().zip(&users.bins) {
                *sum += read(bin);
            }
        }
        counters
    }
}

/// A series at one moment. All numbers only grow while the process lives, but for `probe_streak`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counters {
    /// Users' requests that ended badly, in any way.
    pub errors: u64,
    /// Those of them that were refused because too many were served.
    pub overloaded: u64,
    /// Those of them that were cut by a drain's deadline.
    pub cut: u64,
    /// Users' requests whose client went away before the answer; in no other counter.
    pub abandoned: u64,
    /// Sum of users' latencies, in µs.
    pub latency_us: u64,
    /// What was dropped on purpose, as a module at a hook counts it.
    pub drops: u64,
    /// Probes sent.
    pub probes: u64,
    /// Those of them that failed.
    pub probe_errors: u64,
    /// Probes that passed since the last that failed.
    pub probe_streak: u64,
    bins: Box<[u64; BINS]>,
}

impl Default for Counters {
    fn default() -> Self {
        Self {
            errors: 0,
            overloaded: 0,
            cut: 0,
            abandoned: 0,
            latency_us: 0,
            drops: 0,
            probes: 0,
            probe_errors: 0,
            probe_streak: 0,
            bins: Box::new([0; BINS]),
        }
    }
}

impl Counters {
    /// Users' requests that ended, badly or well.
    pub fn requests(&self) -> u64 {
        self.bins.iter().sum()
    }

    /// Latencies of users' requests.
    pub fn latency(&self) -> Histogram {
        Histogram::from_bins(&*self.bins)
    }

    /// What was counted after an earlier snapshot of the same series, as the judge wants it; what it used is metered
    /// by its runtime.
    pub fn since(&self, earlier: &Self) -> ArmCounts {
        let mut bins = self.bins.clone();
        for (bin, before) in bins.iter_mut().zip(earlier.bins.iter()) {
            *bin = bin.saturating_sub(*before);
        }
        let requests = bins.iter().sum();
        let probes = self.probes.saturating_sub(earlier.probes);
        ArmCounts {
            requests,
            errors: self.errors.saturating_sub(earlier.errors).min(requests),
            latency: Histogram::from_bins(&*bins),
            probes,
            probe_errors: self.probe_errors.saturating_sub(earlier.probe_errors).min(probes),
            probe_streak: self.probe_streak.min(probes),
            ..ArmCounts::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_are_differences_of_snapshots() {
        let series = Series::new(20);
        series.record(Ended::Well, Duration::from_micros(100));
        series.record_probe(false);
        let first = series.snapshot();
        series.record(Ended::Badly, Duration::from_micros(300));
        series.record(Ended::Overloaded, Duration::ZERO);
        series.record(Ended::Cut, Duration::from_secs(10_000));
        series.record_probe(true);
        series.record_abandoned();
        let second = series.snapshot();
        assert_eq!((second.requests(), second.errors), (4, 3));
        assert_eq!((second.overloaded, second.cut, second.abandoned), (1, 1, 1));
        let counts = second.since(&first);
        assert_eq!((counts.requests, counts.errors), (3, 3));
        assert_eq!(counts.latency.count(), 3);
        assert_eq!(
            (counts.probes, counts.probe_errors, counts.probe_streak),
            (1, 0, 1)
        );
        assert_eq!(
            second.since(&second),
            ArmCounts {
                probe_streak: 0,
                ..ArmCounts::default()
            }
        );
    }

    #[test]
    fn what_a_release_counted_itself_is_counted_at_once() {
        let series = Series::new(20);
        series.record_many(1_000, 600, Duration::from_millis(3));
        series.record_many(0, 5, Duration::ZERO);
        series.record_drops(7);
        let counters = series.snapshot();
        assert_eq!((counters.requests(), counters.errors), (1_000, 600));
        assert_eq!(counters.drops, 7);
        assert_eq!((counters.latency_us, counters.latency().count()), (3_000, 1_000));
        assert_eq!(series.recent().counts(), (20, 12));
        assert!(series.recent().is_gross(0.5));
        series.record_many(1_000, 0, Duration::ZERO);
        assert_eq!(series.recent().counts(), (20, 0));
    }

    #[test]
    fn threads_lose_no_count() {
        let series = Series::new(20);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope
                    .spawn(|| (0..10_000).for_each(|n| series.record(Ended::Well, Duration::from_micros(n))));
            }
        });
        assert_eq!(series.snapshot().requests(), 40_000);
        assert_eq!(series.recent().counts(), (20, 0));
    }
}
