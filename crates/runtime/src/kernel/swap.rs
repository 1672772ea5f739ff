//! How a version comes to its place, and what is done where it can't: whatever was there before is there again.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hotswap_package::{Kernel, Style};

use super::record::{Active, Attempt, Record};
use super::sysfs::{Sysfs, tainted_since};
use super::system::System;

/// How many of its deadlines a version may take that is put in its place: its load, its transition, the reversal or its
/// checks, and, where it fails, being disabled and unloaded.
const OWN_TERMS: u32 = 5;
/// And one that is there before: being disabled, unloaded, and, where the other one fails, loaded again.
const OTHER_TERMS: u32 = 3;
const TAKEN_OVER: &str = "another agent has taken this node over";
/// How much longer than that it may take before it counts as one that hangs.
pub(super) const HANGS_AFTER: Duration = Duration::from_secs(2);

/// A version as it is loaded.
#[derive(Clone, Debug)]
pub(super) struct Version {
    pub(super) release: String,
    pub(super) label: String,
    pub(super) kernel: Kernel,
    pub(super) file: PathBuf,
    pub(super) depends: Vec<String>,
}

impl Version {
    pub(super) fn as_active(&self, boot: &str, kernel: &str) -> Active {
        let parameters = self.kernel.parameters.iter();
        let parameters: Vec<String> = parameters
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        Active {
            boot: boot.to_owned(),
            kernel: kernel.to_owned(),
            release: self.release.clone(),
            label: self.label.clone(),
            module: self.kernel.module.clone(),
            gate: self.kernel.gate.clone(),
            is_livepatch: self.kernel.style == Style::Livepatch,
            file: self.file.clone(),
            parameters: parameters.join(" "),
            deadline_ms: u64::try_from(self.kernel.deadline.get().as_millis()).unwrap_or(u64::MAX),
        }
    }
}

/// How a version came to its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Came {
    /// It was there: this agent's predecessor had loaded it.
    WasThere,
    /// Nothing was there before.
    First,
    /// In a former version's place, which was gone for as long before it was there.
    AfterGap(Duration),
    /// In a former version's place, without a gap.
    Switched,
}

/// Why a version isn't in its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum NotPut {
    /// Something else must be there first; nothing was touched.
    Waits(String),
    /// It was refused, or tried and taken back. Who is in the place then, the record says.
    Failed(String),
}

/// A swap that failed and was taken back as far as that was possible.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Undone {
    pub(super) problem: String,
    /// Who is in the place now.
    pub(super) stays: Option<Active>,
}

/// A module's place in the kernel.
pub(super) struct Place<'a> {
    pub(super) system: &'a dyn System,
    pub(super) record: &'a mut Record,
    pub(super) path: &'a Path,
    pub(super) boot: &'a str,
    pub(super) release: &'a str,
    /// Whether another process has the node by now.
    pub(super) is_released: &'a AtomicBool,
    /// Counts the node's loads, over all its modules.
    pub(super) next_number: &'a dyn Fn() -> u64,
}

impl Place<'_> {
    pub(super) fn sysfs(&self) -> Sysfs<'_> {
        Sysfs(self.system)
    }

    /// What is in the place, by what is remembered and what the kernel has.
    pub(super) fn active(&self) -> Option<Active> {
        self.record
            .active
            .clone()
            .filter(|active| self.sysfs().is_loaded(&active.module))
    }

    /// What is noted of a version.
    pub(super) fn note(&self, version: &Version) -> Active {
        version.as_active(self.boot, self.release)
    }

    /// How long it may take to put a version in the place.
    pub(super) fn patience(&self, next: &Version) -> Duration {
        next.kernel.deadline.get() * OWN_TERMS + self.patience_to_clear()
    }

    /// How long it may take to take away whatever is there, and to bring it back.
    pub(super) fn patience_to_clear(&self) -> Duration {
        let there = self.record.active.iter().chain(self.record.unheard());
        let terms = there
            .chain(self.record.leftovers())
            .map(|version| Duration::from_millis(version.deadline_ms) * OTHER_TERMS);
        terms.sum::<Duration>() + HANGS_AFTER
    }

    /// Puts a version in the place, and says how it came there with what the kernel's taint is since.
    pub(super) fn put(&mut self, next: &Version) -> Result<(Came, String), NotPut> {
        if self.is_released.load(Ordering::SeqCst) {
            return Err(NotPut::Failed(TAKEN_OVER.to_owned()));
        }
        self.recover();
        self.clear_leftovers();
        let former = self.active();
        let is_there = |former: &Active| former.release == next.release && self.is_in_place(former);
        if former.as_ref().is_some_and(is_there) {
            self.resume(next);
            return Ok((Came::WasThere, "nothing was loaded".to_owned()));
        }
        let beside = self.look(next, former.as_ref())?;
        let (taint, oopses) = (self.sysfs().taint(), self.sysfs().oopses());
        let open = self.record.attempt();
        let number = (self.next_number)();
        self.record.begin(self.note(next), former.clone(), number);
        if let Err(problem) = self.write() {
            self.record.reopen(open);
            return Err(NotPut::Failed(problem));
        }
        let came = match (&former, beside) {
            (None, _) => self.first(next),
            (Some(former), true) => self.beside(next, former),
            (Some(former), false) => self.instead(next, former),
        };
        let since = self.sysfs().taint();
        match came {
            Ok(came) => {
                self.record.active = Some(self.note(next));
                self.write().map_err(NotPut::Failed)?;
                Ok((came, tainted_since(taint, since)))
            }
            Err(undone) => {
                let oopsed = if self.sysfs().oopses().are_more_than(oopses) {
                    "; the kernel oopsed, see its log"
                } else {
                    ""
                };
                let problem = undone.problem.clone();
                let unwritten = self
                    .take_back(next, undone, open)
                    .err()
                    .map_or(String::new(), |error| format!("; {error}"));
                Err(NotPut::Failed(format!("{problem}{oopsed}{unwritten}")))
            }
        }
    }

    /// Notes who is in the place after a swap that failed; the former version is watched as it was before.
    fn take_back(&mut self, next: &Version, undone: Undone, open: Option<Attempt>) -> Result<(), String> {
        match &undone.stays {
            Some(stays) if stays.release == next.release => {}
            Some(_) => self.record.reopen(open),
            None => self.record.end(),
        }
        self.record.active = undone.stays;
        self.write()
    }

    /// Notes that a version is there, and is watched until it has stood: an agent that was started again goes on with
    /// what the one before had begun.
    fn resume(&mut self, next: &Version) {
        if !self.record.has_stood(&next.release, self.release) && !self.record.is_watching() {
            let (active, number) = (self.note(next), (self.next_number)());
            self.record.begin(active.clone(), Some(active), number);
            self.try_to_write();
        }
    }

    /// Takes a release away if it is in the place. Where that fails, it is watched no more all the same: the node is in
    /// order.
    pub(super) fn clear(&mut self, release: &str) -> Result<(), String> {
        self.recover();
        let gone = match self.active().filter(|active| active.release == release) {
            Some(active) => {
                let gone = self.take_away(&active);
                self.record.active = match gone {
                    Ok(()) => None,
                    Err(_) => self.who_stays(&[&active]),
                };
                gone
            }
            None => Ok(()),
        };
        // Also where somebody else had unloaded it.
        if self.record.watches(release) {
            self.record.end();
        }
        self.clear_leftovers();
        let written = self.write();
        gone.and(written)
    }

    pub(super) fn write(&mut self) -> Result<(), String> {
        if self.is_released.load(Ordering::SeqCst) {
            return Err(TAKEN_OVER.to_owned());
        }
        let written = self.record.write(self.path);
        self.record.is_unwritten = written.is_err();
        written.map_err(|error| format!("{} can't be written: {error}", self.path.display()))
    }

    /// Writes what may also be written later.
    fn try_to_write(&mut self) {
        if let Err(problem) = self.write() {
            tracing::warn!(problem, "what is in a module's place can't be noted yet");
        }
    }

    /// Makes sure what is in the place where a load was interrupted: the agent was killed meanwhile. What the load had
    /// put there is watched on; else the load is over.
    fn recover(&mut self) {
        let Some(begun) = self.record.unheard().cloned() else {
            return;
        };
        let former = self.active();
        let has_come = self.sysfs().is_loaded(&begun.module);
        let (stays, is_watched) = match former {
            former if !has_come => (former, false),
            // Either may be loaded, and none of them is sure enough to be kept.
            Some(former) if former.module == begun.module => {
                let unsure = Active {
                    release: String::new(),
                    ..begun
                };
                (Some(unsure), false)
            }
            Some(former) => {
                let has_switched = self.is_in_place(&begun);
                let (stays, goes) = if has_switched {
                    (begun, former)
                } else {
                    (former, begun)
                };
                self.leave(&goes);
                (Some(stays), has_switched)
            }
            None => (Some(begun), true),
        };
        self.record.active = stays;
        if !is_watched {
            self.record.end();
        }
        self.try_to_write();
    }

    /// Unloads what could not be unloaded before, as far as that goes now.
    fn clear_leftovers(&mut self) {
        let active = self.active().map(|active| active.module);
        for leftover in self.record.leftovers().to_vec() {
            let is_active = active.as_ref() == Some(&leftover.module);
            if is_active || !self.sysfs().is_loaded(&leftover.module) || self.take_away(&leftover).is_ok() {
                self.record.forget_leftover(&leftover.module);
            }
        }
    }

    /// Whether a version may be put in the place, and whether that is done beside the former one.
    fn look(&self, next: &Version, former: Option<&Active>) -> Result<bool, NotPut> {
        let failed = |text: String| Err(NotPut::Failed(text));
        let (module, style) = (&next.kernel.module, next.kernel.style);
        if let Some(refusal) = self.record.refusal(&next.release, &next.label, self.release) {
            return failed(refusal);
        }
        let wanted = next.depends.iter().chain(&next.kernel.gate);
        let missing: BTreeSet<&str> = wanted
            .filter(|name| !self.sysfs().is_loaded(name))
            .map(String::as_str)
            .collect();
        if !missing.is_empty() {
            let missing = Vec::from_iter(missing).join(", ");
            return Err(NotPut::Waits(format!(
                "{module} needs modules that are not loaded: {missing}; deploy or load them first"
            )));
        }
        let same = former.is_some_and(|former| former.module == *module);
        if !same && self.sysfs().is_loaded(module) {
            return failed(self.in_the_way(module));
        }
        let again = former.is_some_and(|former| former.release == next.release);
        if same && !again && style == Style::Gated {
            return failed(format!(
                "{module} is the former version's name in the kernel too; versions behind a gate are loaded side by side, \
                 so each needs a name of its own, such as {module}_2"
            ));
        }
        let beside = !same && style != Style::Plain;
        if let Some(former) = former.filter(|former| !beside && former.gate.is_none())
            && self.sysfs().patches(&former.module).is_none()
            && let Some(users) = self.sysfs().used_by(&former.module)
        {
            return failed(format!(
                "{} {} is in use and can't be unloaded: it has {users}",
                former.module, former.label
            ));
        }
        Ok(beside)
    }

    /// Why a module's name is taken.
    fn in_the_way(&self, module: &str) -> String {
        let mut leftovers = self.record.leftovers().iter();
        let Some(leftover) = leftovers.find(|leftover| leftover.module == module) else {
            return format!(
                "a module called {module} is loaded already, and not by Hotswap; unload it first: rmmod {module}"
            );
        };
        let why = self.sysfs().used_by(module).map_or_else(
            || "the kernel doesn't let go of it".to_owned(),
            |users| format!("it has {users}"),
        );
        format!(
            "{module} {} is still loaded from an earlier swap and could not be unloaded: {why}; it is tried again with \
             each swap",
            leftover.label
        )
    }
}
