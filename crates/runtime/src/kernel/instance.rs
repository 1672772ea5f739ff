//! One version: in its place in the kernel, on standby as a file, or only looked at.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hotswap_core::ids::Digest;
use hotswap_package::Manifest;

use super::counting::Counting;
use super::entering::OnTheWay;
use super::module::{Module, Users};
use super::swap::Version;
use super::sysfs::Oopses;
use crate::kind::{BoxFuture, Closed, Instance, Readiness, Tally, Usage};

/// A version. Dropping it leaves everything as it is in the kernel.
#[derive(Debug)]
pub(super) struct KernelInstance {
    pub(super) loaded: Arc<Loaded>,
}

/// What a version is.
#[derive(Debug)]
pub(super) struct Loaded {
    pub(super) digest: Digest,
    pub(super) label: String,
    pub(super) manifest: Arc<Manifest>,
    /// None where it is only looked at.
    pub(super) at: Option<(Arc<Module>, Version)>,
    /// Since which time that the module came back to this process.
    pub(super) turn: u32,
    pub(super) counting: Mutex<Counting>,
    pub(super) state: Mutex<State>,
}

#[derive(Debug, Default)]
pub(super) struct State {
    /// Why it isn't as it should be.
    pub(super) trouble: Option<String>,
    /// Whether it waits for something else to be there.
    pub(super) waits: bool,
    /// How often it is being put in its place now.
    pub(super) engaging: u32,
    /// Since when it is being looked at.
    pub(super) looking: Option<Instant>,
    pub(super) dismissed: bool,
    pub(super) closed: bool,
    /// Whether its end has come to the module.
    pub(super) has_let_go: bool,
    /// While it is in its place.
    pub(super) standing: Option<Standing>,
    /// That the kernel oopsed, where that is held against it, and where it is while it is on trial.
    pub(super) oops: Option<&'static str>,
    pub(super) complaint: Option<&'static str>,
    pub(super) loads: u64,
}

/// How a version came to its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Standing {
    pub(super) since: Instant,
    /// Which of the node's loads it is, if it had not stood before.
    pub(super) number: Option<u64>,
    /// How often the kernel had oopsed before.
    pub(super) oopses: Oopses,
}

impl State {
    /// Nothing is wrong with it that is known.
    pub(super) fn is_well(&mut self) {
        (self.trouble, self.oops, self.complaint) = (None, None, None);
        self.waits = false;
    }
}

impl Loaded {
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn counting(&self) -> MutexGuard<'_, Counting> {
        self.counting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it is being put in its place, or waits for its turn.
    pub(super) fn is_on_its_way(&self) -> bool {
        self.state().engaging > 0
    }

    /// Whether it is in its place already, as it should be.
    fn is_there(&self) -> bool {
        let Some((module, _)) = &self.at else { return true };
        // Somebody is being put in the place, who may be it.
        let Some(users) = module.try_lock() else {
            return false;
        };
        self.is_active(&users) && self.state().trouble.is_none()
    }

    /// Whether it is known to be in the place.
    pub(super) fn is_active(&self, users: &Users) -> bool {
        let active = users.active.as_ref();
        active.is_some_and(|active| std::ptr::eq(&raw const **active, self))
    }
}

impl Instance for KernelInstance {
    fn digest(&self) -> Digest {
        self.loaded.digest
    }

    fn label(&self) -> &str {
        &self.loaded.label
    }

    fn manifest(&self) -> &Manifest {
        &self.loaded.manifest
    }

    fn engage(&self) -> Option<BoxFuture<'static, ()>> {
        let (module, _) = self.loaded.at.as_ref()?;
        // At once: whoever ends meanwhile leaves the place to it.
        module.want(&self.loaded);
        if self.loaded.is_there() {
            return None;
        }
        let way = OnTheWay::begin(&self.loaded);
        Some(Box::pin(Arc::clone(&self.loaded).engage(way)))
    }

    fn dismiss(&self) {
        self.loaded.state().dismissed = true;
    }

    fn readiness(&self) -> Readiness {
        let state = self.loaded.state();
        match &state.trouble {
            _ if state.closed => Readiness::Closed,
            Some(trouble) => Readiness::Failing(trouble.clone()),
            None => Readiness::Ready,
        }
    }

    fn complaint(&self) -> Option<String> {
        self.loaded.state().complaint.map(ToOwned::to_owned)
    }

    fn tally(&self) -> Option<Tally> {
        let (module, _) = self.loaded.at.as_ref()?;
        let waits = {
            let state = self.loaded.state();
            state.waits && !state.closed && state.engaging == 0
        };
        let waits = waits && module.wants(&self.loaded);
        if let Some(engaged) = waits.then(|| self.engage()).flatten() {
            tokio::spawn(engaged);
        }
        self.loaded.look_after();
        Some(self.loaded.counting().tally())
    }

    fn usage(&self) -> Usage {
        let state = self.loaded.state();
        Usage {
            instances: u64::from(state.standing.is_some() && !state.closed),
            instances_started: state.loads,
            ..Usage::default()
        }
    }

    fn close(&self, _deadline: Duration) -> BoxFuture<'static, Closed> {
        let loaded = Arc::clone(&self.loaded);
        Box::pin(async move {
            loaded.close().await;
            Closed::default()
        })
    }
}
