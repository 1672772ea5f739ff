//! What all instances of one loaded release share: its limits, its counters, its places.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use hotswap_core::ids::Digest;
use hotswap_package::Manifest;
use tokio::sync::{Notify, Semaphore};
use tokio_util::sync::CancellationToken;

use super::config::{GuestLimits, WasmHostConfig};
use super::logs::LineLimit;
use super::outbound::Outbound;
use crate::failure::Failure;
use crate::grants::Ungranted;
use crate::kind::{Launch, StartError, Usage};

/// Longest wait for a place before a request is refused.
const QUEUE_TIME_MAX: Duration = Duration::from_secs(1);
/// What a refused client is told to wait.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// The state of one loaded release on one node.
pub(super) struct ReleaseState {
    pub(super) digest: Digest,
    /// Its version, with its configuration.
    pub(super) label: String,
    /// Where it runs; empty in a sandbox.
    pub(super) node: String,
    pub(super) manifest: Arc<Manifest>,
    pub(super) limits: GuestLimits,
    pub(super) log_lines: LineLimit,
    /// Requests that its guests may send.
    pub(super) outbound: Outbound,
    /// Environment variables that its guests find: values of its environment, or granted by the node.
    pub(super) variables: Vec<(String, String)>,
    /// Ends calls that a drain's deadline has overtaken.
    pub(super) cut: CancellationToken,
    places: Semaphore,
    waiting: AtomicU64,
    closed: AtomicBool,
    ended: Notify,
    guest_ns: AtomicU64,
    memory_bytes: AtomicU64,
    memory_bytes_peak: AtomicU64,
    instances: AtomicU64,
    instances_started: AtomicU64,
    traps: AtomicU64,
    overloads: AtomicU64,
    cuts: AtomicU64,
}

impl ReleaseState {
    /// # Errors
    /// The manifest asks for a variable that is given nowhere, where that matters.
    pub(super) fn new(
        digest: Digest,
        manifest: Arc<Manifest>,
        launch: Launch,
        config: &WasmHostConfig,
    ) -> Result<Self, StartError> {
        let limits = GuestLimits::from(&*manifest);
        let (asked, grants) = (&manifest.capabilities, &config.grants);
        let Launch {
            config: number,
            mut values,
            node,
        } = launch;
        let label = match number {
            0 => manifest.version.to_string(),
            number => format!("{}@{number}", manifest.version),
        };
        let missing = grants.missing_variables(asked, &values);
        if !missing.is_empty() && config.ungranted == Ungranted::Refuse {
            return Err(StartError::NotGiven(missing));
        }
        let granted = missing.is_empty() && grants.missing_hosts(asked).is_empty();
        // All of what it asks for, or nothing: half of it is what nobody has tried.
        let hosts = if granted {
            asked.outbound_hosts.clone()
        } else {
            Vec::new()
        };
        let variables = asked.environment.iter().filter(|_| granted);
        let variables = variables
            .filter_map(|name| {
                let value = values
                    .remove(name)
                    .or_else(|| grants.variables.get(name).cloned());
                Some((name.clone(), value?))
            })
            .collect();
        Ok(Self {
            digest: digest.under(number),
            label,
            node: node.unwrap_or_default(),
            manifest,
            limits,
            log_lines: LineLimit::new(config.log_lines_per_second_max),
            outbound: Outbound::new(hosts),
            variables,
            cut: CancellationToken::new(),
            places: Semaphore::new(limits.concurrency_max as usize),
            waiting: AtomicU64::new(0),
            closed: AtomicBool::new(false),
            ended: Notify::new(),
            guest_ns: AtomicU64::new(0),
            memory_bytes: AtomicU64::new(0),
            memory_bytes_peak: AtomicU64::new(0),
            instances: AtomicU64::new(0),
            instances_started: AtomicU64::new(0),
            traps: AtomicU64::new(0),
            overloads: AtomicU64::new(0),
            cuts: AtomicU64::new(0),
        })
    }

    /// A place for one request, now or after a short wait; `None` if the release is closed.
    pub(super) async fn enter(self: &Arc<Self>) -> Result<Option<Place>, Failure> {
        let permit = match self.places.try_acquire() {
            Ok(permit) => permit,
            Err(_) => self.wait_for_place().await?,
        };
        permit.forget();
        // Taken before the look at `closed`, so that a drain either counts this request or turns it away.
        let place = Place(Arc::clone(self));
        Ok((!self.is_closed()).then_some(place))
    }

    async fn wait_for_place(&self) -> Result<tokio::sync::SemaphorePermit<'_>, Failure> {
        struct Waiting<'a>(&'a AtomicU64);
        impl Drop for Waiting<'_> {
            fn drop(&mut self) {
                self.0.fetch_sub(1, Ordering::Relaxed);
            }
        }
        let before = self.waiting.fetch_add(1, Ordering::Relaxed);
        let _waiting = Waiting(&self.waiting);
        if before < u64::from(self.limits.queue_max)
            && let Ok(Ok(permit)) = tokio::time::timeout(QUEUE_TIME_MAX, self.places.acquire()).await
        {
            return Ok(permit);
        }
        self.overloads.fetch_add(1, Ordering::Relaxed);
        Err(Failure::Overloaded {
            retry_after: RETRY_AFTER,
        })
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::SeqCst)
    }

    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
    }

    fn in_flight(&self) -> u64 {
        (self.limits.concurrency_max as usize).saturating_sub(self.places.available_permits()) as u64
    }

    /// Returns when no request is in flight. Only for a closed release.
    pub(super) async fn drained(&self) {
        loop {
            let ended = self.ended.notified();
            tokio::pin!(ended);
            ended.as_mut().enable();
            if self.in_flight() == 0 {
                return;
            }
            ended.await;
        }
    }

    pub(super) fn cuts(&self) -> u64 {
        self.cuts.load(Ordering::Relaxed)
    }

    pub(super) fn request_cut(&self) {
        self.cuts.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn trapped(&self) {
        self.traps.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn guest_ran(&self, ns: u64) {
        self.guest_ns.fetch_add(ns, Ordering::Relaxed);
    }

    pub(super) fn memory_grew(&self, bytes: u64) {
        let now = self.memory_bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        self.memory_bytes_peak.fetch_max(now, Ordering::Relaxed);
    }

    pub(super) fn memory_freed(&self, bytes: u64) {
        self.memory_bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    pub(super) fn instance_started(&self) {
        self.instances.fetch_add(1, Ordering::Relaxed);
        self.instances_started.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn instance_ended(&self) {
        self.instances.fetch_sub(1, Ordering::Relaxed);
    }

    pub(super) fn usage(&self) -> Usage {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Usage {
            guest_time: Duration::from_nanos(read(&self.guest_ns)),
            memory_bytes: read(&self.memory_bytes),
            memory_bytes_peak: read(&self.memory_bytes_peak),
            instances: read(&self.instances),
            instances_started: read(&self.instances_started),
            in_flight: self.in_flight(),
            traps: read(&self.traps),
            overloads: read(&self.overloads),
            cut: read(&self.cuts),
        }
    }
}

/// A request's right to be served, given back when it is dropped.
pub(super) struct Place(Arc<ReleaseState>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.places.add_permits(1);
        if self.0.is_closed() {
            self.0.ended.notify_waiters();
        }
    }
}
