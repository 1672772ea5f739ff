//! How a version comes to its place, and what is done where it can't: whatever was there before is there again.

use std::io;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use hotswap_package::{Kernel, Style};

use super::record::{Active, Record};
use super::sysfs::{Sysfs, has_died, tainted_since};
use super::system::System;

/// How often the kernel's files are looked at again while something is waited for: nothing wakes whoever waits.
const LOOK_EVERY: Duration = Duration::from_millis(1);
/// Most tasks that are named where a transition stalls.
const TASKS_NAMED_MAX: usize = 5;

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
    fn as_active(&self, boot: &str) -> Active {
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
#[derive(Debug)]
pub(super) struct Place<'a> {
    pub(super) system: &'a dyn System,
    pub(super) record: &'a mut Record,
    pub(super) path: &'a Path,
    pub(super) boot: &'a str,
    pub(super) release: &'a str,
}

impl Place<'_> {
    fn sysfs(&self) -> Sysfs<'_> {
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
        self.record.begin(next.as_active(self.boot));
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
        let missing: Vec<&str> = wanted
            .filter(|name| !self.sysfs().is_loaded(name))
            .map(String::as_str)
            .collect();
        if !missing.is_empty() {
            let missing = missing.join(", ");
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

    /// The former version goes, then the new one comes.
    fn instead(&self, next: &Version, former: &Active) -> Result<Came, String> {
        self.vacate(former)?;
        let begun = Instant::now();
        self.unload(former)?;
        let brought = self.bring(next);
        let gap = begun.elapsed();
        brought.map(|()| Came::AfterGap(gap)).map_err(|problem| {
            let back = self.system.load(&former.file, &former.parameters);
            let gap = begun.elapsed();
            match back {
                Ok(()) => format!(
                    "{problem}; {} is loaded again, and was gone for {:.1} ms",
                    former.label,
                    gap.as_secs_f64() * 1e3
                ),
                Err(error) => format!(
                    "{problem}; and {} could not be loaded again: {}",
                    former.label,
                    told(&error)
                ),
            }
        })
    }

    /// The new version comes, then the former one goes.
    fn beside(&self, next: &Version, former: &Active) -> Result<Came, String> {
        if let Err(problem) = self.arrive(next) {
            // Behind a gate the former one takes the calls again before the new one can go.
            if self.gate_has(next.kernel.gate.as_deref(), &next.kernel.module) {
                self.unload(former)?;
                self.system
                    .load(&former.file, &former.parameters)
                    .map_err(|error| {
                        format!(
                            "{problem}; and {} could not be loaded again: {}",
                            former.label,
                            told(&error)
                        )
                    })?;
            }
            self.leave(next);
            return Err(problem);
        }
        if let Err(problem) = self.unload(former) {
            tracing::warn!(
                module = former.module,
                version = former.label,
                problem,
                "a former version stays loaded, without being in place"
            );
        }
        Ok(Came::Switched)
    }

    /// Loads a version, waits until it is as it should be, and takes it away again where it isn't.
    fn bring(&self, next: &Version) -> Result<(), String> {
        self.arrive(next).inspect_err(|_| {
            let active = next.as_active(self.boot);
            if let Err(problem) = self.vacate(&active) {
                tracing::warn!(module = active.module, problem, "a gate doesn't let go");
            }
            self.leave(next);
        })
    }

    fn leave(&self, next: &Version) {
        let active = next.as_active(self.boot);
        if !self.sysfs().is_loaded(&active.module) {
            return;
        }
        if let Err(problem) = self.unload(&active) {
            tracing::error!(
                module = active.module,
                version = active.label,
                problem,
                "a version that was taken back stays loaded"
            );
        }
    }

    fn arrive(&self, next: &Version) -> Result<(), String> {
        let (module, deadline) = (&next.kernel.module, next.kernel.deadline.get());
        let active = next.as_active(self.boot);
        self.system
            .load(&active.file, &active.parameters)
            .map_err(|error| format!("{module} {} could not be loaded: {}", next.label, told(&error)))?;
        match next.kernel.style {
            Style::Plain => {}
            Style::Gated => {
                let gate = next.kernel.gate.as_deref();
                let took = wait(deadline, || self.gate_has(gate, module));
                if !took {
                    return Err(format!(
                        "{module} was loaded and did not take its place at the gate {}",
                        gate.unwrap_or_default()
                    ));
                }
            }
            Style::Livepatch => self.wait_for_patch(module, deadline)?,
        }
        for check in &next.kernel.checks {
            let path = next.kernel.path_of(&check.file);
            let mut holds = Ok(());
            wait(deadline, || {
                holds = self.sysfs().check(check, &path);
                holds.is_ok()
            });
            holds.map_err(|problem| format!("{module} {} was loaded, and {problem}", next.label))?;
        }
        Ok(())
    }

    /// Waits until all tasks run what a livepatch puts in place; reverses it if that takes too long.
    fn wait_for_patch(&self, module: &str, deadline: Duration) -> Result<(), String> {
        let begun = Instant::now();
        if self.sysfs().patches(module).is_none() {
            return Err(format!(
                "{module} was loaded and patches nothing: it has no {}",
                dir(module)
            ));
        }
        if wait(deadline, || !self.sysfs().is_in_transition(module)) {
            return match self.sysfs().patches(module) {
                Some(true) => Ok(()),
                _ => Err(format!("{module} was loaded and is not enabled")),
            };
        }
        let holding = self.holding(0);
        let stalled = begun.elapsed();
        self.sysfs().write(&format!("{}/enabled", dir(module)), "0")?;
        let begun = Instant::now();
        let reversed = wait(deadline, || !self.sysfs().is_in_transition(module));
        let how = if reversed {
            format!("it was reversed within {} ms", begun.elapsed().as_millis())
        } else {
            format!(
                "its reversal stalls too, after {} ms",
                begun.elapsed().as_millis()
            )
        };
        Err(format!(
            "{module}'s transition was not over after {} ms{holding}; {how}",
            stalled.as_millis()
        ))
    }

    /// Which tasks have not changed yet from this state, as a sentence's part.
    fn holding(&self, state: i64) -> String {
        let tasks = std::fs::read_dir(self.system.path("/proc")).into_iter().flatten();
        let mut named = Vec::new();
        for task in tasks.flatten() {
            let id = task.file_name().to_string_lossy().into_owned();
            let is_task = id.bytes().all(|b| b.is_ascii_digit());
            if is_task && self.sysfs().number(&format!("/proc/{id}/patch_state")) == Ok(state) {
                let name = self.sysfs().line(&format!("/proc/{id}/comm"));
                named.push(format!("{} ({id})", name.unwrap_or_default()));
            }
            if named.len() == TASKS_NAMED_MAX {
                break;
            }
        }
        if named.is_empty() {
            return String::new();
        }
        format!(", held up by {}", named.join(", "))
    }

    fn gate_has(&self, gate: Option<&str>, module: &str) -> bool {
        gate.is_some_and(|gate| {
            let active = self
                .sysfs()
                .line(&format!("/sys/module/{gate}/parameters/active"));
            active.is_ok_and(|active| active == module)
        })
    }

    /// Has a gate let go of a version, after which its callers are told that nobody is there.
    fn vacate(&self, active: &Active) -> Result<(), String> {
        match &active.gate {
            Some(gate) if self.gate_has(Some(gate), &active.module) => self
                .sysfs()
                .write(&format!("/sys/module/{gate}/parameters/vacate"), &active.module),
            _ => Ok(()),
        }
    }

    /// Unloads a version; a livepatch is disabled first.
    fn unload(&self, active: &Active) -> Result<(), String> {
        let (module, label) = (&active.module, &active.label);
        let deadline = Duration::from_millis(active.deadline_ms);
        if self.sysfs().patches(module) == Some(true) {
            let enabled = format!("{}/enabled", dir(module));
            self.sysfs().write(&enabled, "0")?;
            if !wait(deadline, || !self.sysfs().is_in_transition(module)) {
                let holding = self.holding(1);
                let back = self.sysfs().write(&enabled, "1");
                let back = back.map_or_else(|error| error, |()| "it stays enabled".to_owned());
                return Err(format!(
                    "{module} {label} could not be disabled within {} ms{holding}; {back}",
                    active.deadline_ms
                ));
            }
        }
        let mut last = None;
        let gone = wait(deadline, || match self.system.unload(module) {
            Ok(()) => true,
            Err(error) if error.kind() == io::ErrorKind::NotFound => true,
            Err(error) => {
                // The kernel lets go of what was disabled or switched from a moment later.
                let again = matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EBUSY));
                last = Some((error, again));
                !again
            }
        });
        match last {
            Some((error, again)) if !gone || !again => Err(match self.sysfs().used_by(module) {
                Some(users) => format!("{module} {label} can't be unloaded: it has {users}"),
                None => format!("{module} {label} can't be unloaded: {}", told(&error)),
            }),
            _ => Ok(()),
        }
    }
}

fn dir(module: &str) -> String {
    format!("/sys/kernel/livepatch/{module}")
}

/// Looks until something is, or the time is over; says whether it is.
fn wait(deadline: Duration, mut is: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + deadline;
    loop {
        if is() {
            return true;
        }
        if Instant::now() >= end {
            return false;
        }
        sleep(LOOK_EVERY);
    }
}

/// What the kernel's answer to a load means.
fn told(error: &io::Error) -> String {
    let means = match error.raw_os_error() {
        Some(libc::EKEYREJECTED | libc::ENOKEY) => {
            "this node's kernel loads only modules with a signature by a key that it trusts, and this file has none; sign it \
             with the kernel's sign-file by such a key before it is packed"
        }
        Some(libc::EBADMSG | libc::ENOPKG) => {
            "this node's kernel can't make sense of the file's signature; sign it anew with sha256 or stronger"
        }
        Some(libc::EPERM) => {
            "this kernel loads no modules: they are disabled, it is locked down, or the agent lacks CAP_SYS_MODULE"
        }
        Some(libc::EEXIST) => "a module of this name is loaded already",
        Some(libc::ENOENT) => "it uses a symbol or a parameter that this kernel hasn't; its log says which",
        Some(libc::ENOEXEC) => "the file is not built for this kernel; its log says how it differs",
        Some(libc::EAGAIN) => "it is in use",
        _ => "its own start failed",
    };
    format!("{means} ({error})")
}
