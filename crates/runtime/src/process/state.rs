//! What all that serves one loaded release shares: its places and connections, its meters, how it fares.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hotswap_core::ids::Digest;
use hotswap_package::Manifest;

use super::output::Log;
use super::pool::Pool;
use super::usage::Used;
use crate::failure::Failure;
use crate::kind::{Readiness, Usage};
use crate::places::Places;

/// Ends of its process within [`ENDS_WINDOW`] that turn a release's health: one may be bad luck.
const ENDS_MAX: usize = 3;
const ENDS_WINDOW: Duration = Duration::from_secs(60);
/// How long a release may be without a process that is ready.
const DOWN_TIME_MAX: Duration = Duration::from_secs(5);

/// One loaded release.
#[derive(Debug)]
pub(super) struct Serving {
    pub(super) digest: Digest,
    pub(super) manifest: Arc<Manifest>,
    pub(super) places: Arc<Places>,
    pub(super) pool: Pool,
    pub(super) log: Arc<Log>,
    pub(super) life: Life,
    pub(super) meters: Meters,
    lost: AtomicU64,
}

impl Serving {
    pub(super) fn new(digest: Digest, manifest: Arc<Manifest>, pool: Pool, log: Arc<Log>) -> Arc<Self> {
        Arc::new(Self {
            digest,
            places: Places::new(manifest.limits.concurrency),
            manifest,
            pool,
            log,
            life: Life::default(),
            meters: Meters::default(),
            lost: AtomicU64::new(0),
        })
    }

    /// Counts a request that got no answer by the process's fault.
    pub(super) fn lost(&self, failure: &Failure) {
        self.lost.fetch_add(1, Ordering::Relaxed);
        tracing::debug!(module = %self.manifest.name, version = %self.manifest.version, "a request failed: {failure}");
    }

    pub(super) fn readiness(&self) -> Readiness {
        if self.places.is_closed() {
            return Readiness::Closed;
        }
        self.life.trouble().map_or(Readiness::Ready, Readiness::Failing)
    }

    pub(super) fn usage(&self) -> Usage {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let meters = &self.meters;
        Usage {
            guest_time: Duration::from_nanos(read(&meters.cpu_ns)),
            memory_bytes: read(&meters.memory_bytes),
            memory_bytes_peak: read(&meters.memory_bytes_peak),
            instances: read(&meters.alive),
            instances_started: read(&meters.started),
            in_flight: self.places.in_flight(),
            traps: read(&self.lost),
            overloads: self.places.overloads(),
            cut: self.places.cuts(),
        }
    }
}

/// Whether a release has a process that is ready, and how often it lost one.
#[derive(Debug, Default)]
pub(super) struct Life(Mutex<Times>);

#[derive(Debug, Default)]
struct Times {
    down_since: Option<Instant>,
    ends: VecDeque<Instant>,
    why: String,
}

impl Life {
    fn lock(&self) -> MutexGuard<'_, Times> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Its process ended or could not be started; says how often that happened lately.
    pub(super) fn ended(&self, why: &str) -> usize {
        let mut times = self.lock();
        let now = Instant::now();
        times.down_since.get_or_insert(now);
        times.ends.push_back(now);
        why.clone_into(&mut times.why);
        times.lately()
    }

    pub(super) fn is_up(&self) {
        self.lock().down_since = None;
    }

    fn trouble(&self) -> Option<String> {
        let mut times = self.lock();
        let ends = times.lately();
        if ends >= ENDS_MAX {
            return Some(format!(
                "its process ended {ends} times within {ENDS_WINDOW:?}; the last time it {}",
                times.why
            ));
        }
        let down = times.down_since?.elapsed();
        (down > DOWN_TIME_MAX).then(|| format!("no process is ready for {down:.1?}: it {}", times.why))
    }
}

impl Times {
    fn lately(&mut self) -> usize {
        while self.ends.front().is_some_and(|end| end.elapsed() > ENDS_WINDOW) {
            self.ends.pop_front();
        }
        self.ends.len()
    }
}

/// What a release's processes used.
#[derive(Debug, Default)]
pub(super) struct Meters {
    cpu_ns: AtomicU64,
    /// Of processes that have ended.
    cpu_before_ns: AtomicU64,
    memory_bytes: AtomicU64,
    memory_bytes_peak: AtomicU64,
    alive: AtomicU64,
    started: AtomicU64,
}

impl Meters {
    pub(super) fn started(&self) {
        self.started.fetch_add(1, Ordering::Relaxed);
        self.alive.store(1, Ordering::Relaxed);
    }

    pub(super) fn read(&self, used: Used) {
        let before = self.cpu_before_ns.load(Ordering::Relaxed);
        self.cpu_ns
            .fetch_max(before.saturating_add(nanos(used.cpu)), Ordering::Relaxed);
        self.memory_bytes.store(used.memory_bytes, Ordering::Relaxed);
        self.memory_bytes_peak
            .fetch_max(used.memory_bytes, Ordering::Relaxed);
        self.alive.store(used.processes.max(1), Ordering::Relaxed);
    }

    /// A process ended after this much processor time.
    pub(super) fn ended(&self, cpu: Duration) {
        let before = self.cpu_before_ns.load(Ordering::Relaxed);
        let sum = before
            .saturating_add(nanos(cpu))
            .max(self.cpu_ns.load(Ordering::Relaxed));
        self.cpu_ns.store(sum, Ordering::Relaxed);
        self.cpu_before_ns.store(sum, Ordering::Relaxed);
        self.memory_bytes.store(0, Ordering::Relaxed);
        self.alive.store(0, Ordering::Relaxed);
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
