//! Whether what is in its place is as it should be. The kernel's files are read on a thread of their own: a module's
//! parameters are its own code, which may never return.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use hotswap_package::Style;

use super::counting::read;
use super::instance::{Loaded, Standing};
use super::module::{Module, Users};
use super::swap::{HANGS_AFTER, Version};
use super::sysfs::Sysfs;

/// How long a version must have been in its place without harm until its load counts as over.
const STOOD_AFTER: Duration = Duration::from_secs(10);

/// Says that a version is looked at, for as long as it is.
struct Look(Arc<Loaded>);

impl Drop for Look {
    fn drop(&mut self) {
        self.0.state().looking = None;
    }
}

impl Loaded {
    /// What the version's counters say.
    pub(super) fn count(&self, sysfs: Sysfs<'_>) -> Vec<u64> {
        let files = self.counting().files();
        read(&files, sysfs)
    }

    /// Has the version looked at, one look at a time. One that doesn't come back is told of.
    pub(super) fn look_after(self: &Arc<Self>) {
        let Some((_, version)) = &self.at else { return };
        let mut state = self.state();
        if state.standing.is_none() || state.closed {
            return;
        }
        if let Some(begun) = state.looking {
            let patience = version.kernel.deadline.get() + HANGS_AFTER;
            if begun.elapsed() > patience && state.trouble.is_none() {
                let trouble = format!(
                    "its files don't answer: they have been read for more than {:.1} s",
                    patience.as_secs_f64()
                );
                tracing::error!(module = %self.manifest.name, version = self.label, trouble, "a look at a kernel module hangs");
                state.trouble = Some(trouble);
            }
            return;
        }
        state.looking = Some(Instant::now());
        drop(state);
        let look = Look(Arc::clone(self));
        let spawned = thread::Builder::new().spawn(move || look.0.look());
        if let Err(error) = spawned {
            tracing::warn!(%error, "there is no thread to look at a kernel module");
        }
    }

    fn look(self: &Arc<Self>) {
        let Some((module, version)) = &self.at else { return };
        let Some(standing) = self.state().standing else {
            return;
        };
        let counted = self.count(module.sysfs());
        let problem = Self::problem(module, version).err();
        let oopses = module.sysfs().oopses();
        // Somebody is being loaded: it is looked at afterwards.
        let Some(mut users) = module.try_lock() else {
            return;
        };
        // Whatever was seen of another load of it says nothing of this one.
        if !self.is_active(&users) || self.state().standing != Some(standing) {
            return;
        }
        self.counting().saw(counted);
        if oopses.are_more_than(standing.oopses) {
            if let Some(standing) = &mut self.state().standing {
                standing.oopses = oopses;
            }
            self.has_oopsed(module, standing);
        }
        let is_well = self.publish(problem);
        self.see_to_record(
            module,
            &mut users,
            is_well && standing.since.elapsed() >= STOOD_AFTER,
        );
    }

    /// Says what was seen, and whether all is well.
    fn publish(&self, problem: Option<String>) -> bool {
        let mut state = self.state();
        let trouble = problem.or_else(|| state.oops.map(ToOwned::to_owned));
        let is_well = trouble.is_none();
        if state.trouble != trouble {
            let (name, label) = (&self.manifest.name, &self.label);
            match &trouble {
                Some(trouble) => {
                    tracing::error!(module = %name, version = label, trouble, "a kernel module is not as it should be");
                }
                None => {
                    tracing::info!(module = %name, version = label, "a kernel module is as it should be again");
                }
            }
            state.trouble = trouble;
        }
        is_well
    }

    /// Notes that the version has stood, and what could not be written before.
    fn see_to_record(&self, module: &Module, users: &mut Users, has_stood: bool) {
        let Some((_, version)) = &self.at else { return };
        let ends = has_stood && users.record.is_watching();
        if ends {
            users.record.stood(&version.release, &module.node.release);
        }
        if (ends || users.record.is_unwritten)
            && let Err(problem) = module.at(&mut users.record, |place| place.write())
            && ends
        {
            tracing::warn!(module = %self.manifest.name, problem, "that a version stood can't be noted yet");
        }
        module.note_watched(users);
    }

    /// The kernel oopsed since the version came. It doesn't say whose doing that was: the newest load that is watched is
    /// left, a release on trial answers for it where nothing newer is watched, and for all others it is a line of the log.
    fn has_oopsed(&self, module: &Module, standing: Standing) {
        const OOPSED: &str = "the kernel oopsed since it is loaded; see the kernel's log";
        let newest = module.newest_watched();
        let is_newer = newest.is_some_and(|newest| standing.number.is_none_or(|number| number < newest));
        let mut state = self.state();
        if newest.is_some() && newest == standing.number {
            state.oops = Some(OOPSED);
        } else if !is_newer {
            state.complaint = Some(OOPSED);
        }
        let held_against_it = state.oops.is_some();
        tracing::warn!(module = %self.manifest.name, version = self.label, held_against_it, "the kernel oopsed");
    }

    fn problem(module: &Module, version: &Version) -> Result<(), String> {
        let (sysfs, kernel) = (module.sysfs(), &version.kernel);
        if !sysfs.is_loaded(&kernel.module) {
            return Err(format!(
                "{} is not loaded any more: somebody unloaded it",
                kernel.module
            ));
        }
        if kernel.style == Style::Livepatch && sysfs.patches(&kernel.module) != Some(true) {
            return Err(format!(
                "{} is not enabled any more: somebody disabled it",
                kernel.module
            ));
        }
        if let Some(gate) = &kernel.gate
            && !sysfs.gate_has(gate, &kernel.module)
        {
            return Err(format!(
                "{} is not at the gate {gate} any more: somebody had it vacated, or entered in its place",
                kernel.module
            ));
        }
        sysfs.checks(kernel)
    }
}
