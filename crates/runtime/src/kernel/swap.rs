//! How a version comes to its place, and what is done where it can't: whatever was there before is there again.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hotswap_package::{Kernel, Style};

use super::record::{Active, Record};
use super::sysfs::{Sysfs, has_died, tainted_since};
use super::system::System;

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
    pub(super) fn as_active(&self, boot: &str) -> Active {
        let parameters = self.kernel.parameters.iter();
        let parameters: Vec<String> = parameters
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        Active {
            boot: boot.to_owned(),
            release: self.release.clone(),
            label: self.label.clone(),
            module: self.kernel.module.clone(),
            gate: self.kernel.gate.clone(),
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
    /// It was refused, or tried and taken back.
    Failed(String),
}

/// A module's place in the kernel.
pub(super) struct Place<'a> {
    pub(super) system: &'a dyn System,
    pub(super) record: &'a mut Record,
    pub(super) path: &'a Path,
    pub(super) boot: &'a str,
    pub(super) release: &'a str,
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

    /// Puts a version in the place, and says how it came there with what the kernel's taint is since.
    pub(super) fn put(&mut self, next: &Version) -> Result<(Came, String), NotPut> {
        let failed = NotPut::Failed;
        self.recover();
        let former = self.active();
        if former
            .as_ref()
            .is_some_and(|former| former.release == next.release)
        {
            return Ok((Came::WasThere, "nothing was loaded".to_owned()));
        }
        let beside = self.look(next, former.as_ref())?;
        let taint = self.sysfs().taint();
        let number = (self.next_number)();
        self.record
            .begin(next.as_active(self.boot), former.clone(), number);
        self.write().map_err(failed)?;
        let came = match (&former, beside) {
            (None, _) => self.bring(next).map(|()| Came::First),
            (Some(former), true) => self.beside(next, former),
            (Some(former), false) => self.instead(next, former),
        };
        let since = self.sysfs().taint();
        match came {
            Ok(came) => {
                self.record.active = Some(next.as_active(self.boot));
                self.write().map_err(failed)?;
                Ok((came, tainted_since(taint, since)))
            }
            Err(problem) => {
                self.record.end();
                self.record.active = former.filter(|former| self.sysfs().is_loaded(&former.module));
                let oopsed = if has_died(taint, since) {
                    "; the kernel oopsed, see its log"
                } else {
                    ""
                };
                let unwritten = self
                    .write()
                    .err()
                    .map_or(String::new(), |error| format!("; {error}"));
                Err(failed(format!("{problem}{oopsed}{unwritten}")))
            }
        }
    }

    /// Takes away what is in the place.
    pub(super) fn clear(&mut self) -> Result<(), String> {
        if let Some(active) = self.active() {
            self.vacate(&active)?;
            self.unload(&active)?;
        }
        self.record.active = None;
        self.record.end();
        self.write()
    }

    pub(super) fn write(&self) -> Result<(), String> {
        self.record
            .write(self.path)
            .map_err(|error| format!("{} can't be written: {error}", self.path.display()))
    }

    /// Makes sure what is in the place where a load was interrupted: the agent was killed meanwhile.
    fn recover(&mut self) {
        let Some(begun) = self.record.unheard().cloned() else {
            return;
        };
        let former = self.active();
        self.record.end();
        if !self.sysfs().is_loaded(&begun.module) {
            self.record.active = former;
            return;
        }
        match former {
            // Either may be loaded, and none of them is sure enough to be kept.
            Some(former) if former.module == begun.module => {
                self.record.active = Some(Active {
                    release: String::new(),
                    ..begun
                });
            }
            Some(former) => {
                let has_patched = self.sysfs().patches(&begun.module) == Some(true)
                    && !self.sysfs().is_in_transition(&begun.module);
                let has_come = has_patched || self.gate_has(begun.gate.as_deref(), &begun.module);
                let (stays, goes) = if has_come {
                    (begun, former)
                } else {
                    (former, begun)
                };
                if let Err(problem) = self.unload(&goes) {
                    let (module, version) = (goes.module, goes.label);
                    tracing::warn!(
                        module,
                        version,
                        problem,
                        "what an interrupted load left can't be unloaded"
                    );
                }
                self.record.active = Some(stays);
            }
            None => self.record.active = Some(begun),
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
            return failed(format!(
                "a module called {module} is loaded already, and not by Hotswap; unload it first: rmmod {module}"
            ));
        }
        if same && style == Style::Gated {
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
}
