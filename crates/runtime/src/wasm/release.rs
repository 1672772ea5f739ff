//! What all instances of one loaded release share: its limits, its counters, its places.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hotswap_core::ids::Digest;
use hotswap_package::Manifest;

use super::config::{GuestLimits, WasmHostConfig};
use super::outbound::Outbound;
use crate::grants::Ungranted;
use crate::kind::{Launch, StartError, Usage, label};
use crate::lines::LineLimit;
use crate::places::Places;

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
    pub(super) places: Arc<Places>,
    guest_ns: AtomicU64,
    memory_bytes: AtomicU64,
    memory_bytes_peak: AtomicU64,
    instances: AtomicU64,
    instances_started: AtomicU64,
    traps: AtomicU64,
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
        let label = label(&manifest, number);
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
            places: Places::new(limits.concurrency_max),
            guest_ns: AtomicU64::new(0),
            memory_bytes: AtomicU64::new(0),
            memory_bytes_peak: AtomicU64::new(0),
            instances: AtomicU64::new(0),
            instances_started: AtomicU64::new(0),
            traps: AtomicU64::new(0),
        })
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
            in_flight: self.places.in_flight(),
            traps: read(&self.traps),
            overloads: self.places.overloads(),
            cut: self.places.cuts(),
        }
    }
}
