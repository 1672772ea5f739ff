//! What everybody else may see: State as it was last committed, and what nodes say.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use hotswap_core::apply::apply;
use hotswap_core::event::{Event, Logged};
use hotswap_core::observe::Observations;
use hotswap_core::state::State;
use hotswap_core::time::{Millis, Now};
use parking_lot::{RwLock, RwLockReadGuard};
use tokio::sync::watch;

use crate::clock::Clock;
use crate::enrolment::Credentials;
use crate::sight::{Alarms, Counts};

/// A twin of the driver's State that is folded after each commit, so that reads neither wait for a commit nor see
/// what isn't durable; and the Observations, which are in no log.
///
/// Whoever takes both locks takes State's first.
pub struct World {
    state: RwLock<State>,
    observations: RwLock<Observations>,
    clock: Clock,
    read_only: AtomicBool,
    leads: AtomicBool,
    accepts_agents: AtomicBool,
    counts: Counts,
    alarms: Alarms,
    committed: watch::Sender<u64>,
    credentials: Arc<Credentials>,
}

impl World {
    pub(super) fn new(
        state: State,
        clock: Clock,
        heartbeat_timeout: Millis,
        credentials: Arc<Credentials>,
    ) -> Self {
        let seq = state.seq;
        let observations = Observations::new(clock.now()).with_heartbeat_timeout(heartbeat_timeout);
        Self {
            state: RwLock::new(state),
            observations: RwLock::new(observations),
            clock,
            read_only: AtomicBool::new(false),
            leads: AtomicBool::new(false),
            accepts_agents: AtomicBool::new(false),
            counts: Counts::default(),
            alarms: Alarms::default(),
            committed: watch::Sender::new(seq),
            credentials,
        }
    }

    /// What time it is.
    pub fn now(&self) -> Now {
        self.clock.now()
    }

    /// State as it was last committed. Hold it briefly: commits wait for it.
    pub fn state(&self) -> RwLockReadGuard<'_, State> {
        self.state.read()
    }

    /// What nodes say. Hold it briefly: reports wait for it.
    pub fn observations(&self) -> RwLockReadGuard<'_, Observations> {
        self.observations.read()
    }

    /// Whether the disk is full, so that nothing can be changed for now.
    pub fn is_read_only(&self) -> bool {
        self.read_only.load(Ordering::Relaxed)
    }

    /// What must hold and doesn't.
    pub fn alarms(&self) -> &Alarms {
        &self.alarms
    }

    /// The newest committed event, and each that comes.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.committed.subscribe()
    }

    /// Whether the driver runs under the log's lead.
    pub fn leads(&self) -> bool {
        self.leads.load(Ordering::Relaxed)
    }

    pub(super) fn set_leads(&self, leads: bool) {
        self.leads.store(leads, Ordering::Relaxed);
    }

    /// Whether agents can connect.
    pub fn accepts_agents(&self) -> bool {
        self.accepts_agents.load(Ordering::Relaxed)
    }

    /// Says whether agents can connect.
    pub fn set_accepts_agents(&self, accepts: bool) {
        self.accepts_agents.store(accepts, Ordering::Relaxed);
    }

    /// Nodes' certificates.
    pub fn credentials(&self) -> &Credentials {
        &self.credentials
    }

    /// What was decided since this process started.
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    pub(super) fn set_read_only(&self, read_only: bool) {
        if self.read_only.swap(read_only, Ordering::Relaxed) != read_only {
            if read_only {
                tracing::error!(
                    "the disk is full: nothing can be stored until there is room; reads and nodes go on"
                );
            } else {
                tracing::info!("there is room on the disk again: commands are taken");
            }
        }
    }

    pub(super) fn committed<'a>(&self, events: impl Iterator<Item = &'a Logged>) {
        let mut state = self.state.write();
        {
            let obs = self.observations.read();
            for event in events {
                self.alarms.step(&state, &obs, event);
                apply(&mut state, event);
                self.counts.note(&state, event);
                if let Event::NodeRemoved { node, .. } = &event.event {
                    self.credentials.revoke(node, event.wall);
                }
            }
        }
        let seq = state.seq;
        drop(state);
        self.committed.send_replace(seq);
    }

    pub(super) fn observe<T>(&self, change: impl FnOnce(&mut Observations) -> T) -> T {
        change(&mut self.observations.write())
    }
}
