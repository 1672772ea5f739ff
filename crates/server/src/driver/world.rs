//! What everybody else may see: State as it was last committed, and what nodes say.

use std::sync::atomic::{AtomicBool, Ordering};

use hotswap_core::apply::apply;
use hotswap_core::event::Logged;
use hotswap_core::observe::Observations;
use hotswap_core::state::State;
use hotswap_core::time::{Millis, Now};
use parking_lot::{RwLock, RwLockReadGuard};

use crate::clock::Clock;

/// A twin of the driver's State that is folded after each commit, so that reads neither wait for a commit nor see
/// what isn't durable; and the Observations, which are in no log.
///
/// Whoever takes both locks takes State's first. The driver takes one at a time.
pub struct World {
    state: RwLock<State>,
    observations: RwLock<Observations>,
    clock: Clock,
    read_only: AtomicBool,
}

impl World {
    pub(super) fn new(state: State, clock: Clock, heartbeat_timeout: Millis) -> Self {
        let observations = Observations::new(clock.now()).with_heartbeat_timeout(heartbeat_timeout);
        Self {
            state: RwLock::new(state),
            observations: RwLock::new(observations),
            clock,
            read_only: AtomicBool::new(false),
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
        for event in events {
            apply(&mut state, event);
        }
    }

    pub(super) fn observe<T>(&self, change: impl FnOnce(&mut Observations) -> T) -> T {
        change(&mut self.observations.write())
    }
}
