//! The steps of a swap: a version comes, is looked at, and goes, in the order of its style.

use std::io;
use std::time::{Duration, Instant};

use hotswap_package::Style;

use super::answers::told;
use super::record::Active;
use super::swap::{Came, Place, Undone, Version};
use super::wait::wait;

impl Place<'_> {
    /// The new version comes where nobody is.
    pub(super) fn first(&mut self, next: &Version) -> Result<Came, Undone> {
        let problem = match self.bring(next) {
            Ok(()) => return Ok(Came::First),
            Err(problem) => problem,
        };
        let stays = self.who_stays(&[&self.note(next)]);
        Err(Undone { problem, stays })
    }

    /// The former version goes, then the new one comes.
    pub(super) fn instead(&mut self, next: &Version, former: &Active) -> Result<Came, Undone> {
        let begun = Instant::now();
        if let Err(problem) = self.take_away(former) {
            let stays = self.who_stays(&[former]);
            return Err(Undone { problem, stays });
        }
        let brought = self.bring(next);
        let gap = begun.elapsed();
        let problem = match brought {
            Ok(()) => return Ok(Came::AfterGap(gap)),
            Err(problem) => problem,
        };
        let active = self.note(next);
        let label = &former.label;
        if former.module == active.module && self.sysfs().is_loaded(&active.module) {
            let problem = format!(
                "{problem}; it could not be unloaded, so that {label} is not loaded again: {label} is missing"
            );
            let stays = self.who_stays(&[&active]);
            return Err(Undone { problem, stays });
        }
        let restored = self.restore(former);
        let gap_ms = begun.elapsed().as_secs_f64() * 1e3;
        let problem = match restored {
            Ok(()) => format!("{problem}; {label} is loaded again, and was gone for {gap_ms:.1} ms"),
            Err(why) => format!("{problem}; and {why}"),
        };
        let stays = self.who_stays(&[former, &active]);
        Err(Undone { problem, stays })
    }

    /// The new version comes, then the former one goes.
    pub(super) fn beside(&mut self, next: &Version, former: &Active) -> Result<Came, Undone> {
        let Err(problem) = self.arrive(next) else {
            self.leave(former);
            return Ok(Came::Switched);
        };
        // The former one takes the calls again before the new one goes.
        let problem = match self.restore(former) {
            Ok(()) => problem,
            Err(why) => format!("{problem}; and {why}"),
        };
        let active = self.note(next);
        self.leave(&active);
        let stays = self.who_stays(&[former, &active]);
        Err(Undone { problem, stays })
    }

    /// Loads a version, waits until it is as it should be, and takes it away again where it isn't.
    fn bring(&mut self, next: &Version) -> Result<(), String> {
        let arrived = self.arrive(next);
        if arrived.is_err() {
            self.leave(&self.note(next));
        }
        arrived
    }

    /// Makes sure that a version which was in the place is there.
    fn restore(&self, former: &Active) -> Result<(), String> {
        if self.is_in_place(former) {
            return Ok(());
        }
        if self.sysfs().is_loaded(&former.module) {
            self.unload(former)?;
        }
        let label = &former.label;
        self.system
            .load(&former.file, &former.parameters)
            .map_err(|error| format!("{label} could not be loaded again: {}", told(&error)))?;
        let deadline = Duration::from_millis(former.deadline_ms);
        if wait(deadline, || self.is_in_place(former)) {
            Ok(())
        } else {
            Err(format!("{label} was loaded again and did not take its place"))
        }
    }

    /// Takes a version away that is wanted no more. What can't be unloaded is tried again with the next swap.
    pub(super) fn leave(&mut self, version: &Active) {
        if !self.sysfs().is_loaded(&version.module) {
            return;
        }
        if let Err(problem) = self.take_away(version) {
            let (module, label) = (&version.module, &version.label);
            tracing::error!(
                module,
                version = label,
                problem,
                "a version stays loaded without being wanted"
            );
            self.record.leave_over(version.clone());
        }
    }

    /// The first of these versions that is in the place; what else of them is loaded is left over.
    pub(super) fn who_stays(&mut self, versions: &[&Active]) -> Option<Active> {
        let stays = versions.iter().find(|version| self.is_in_place(version)).copied();
        for version in versions {
            if stays.is_some_and(|stays| stays.module == version.module) {
                self.record.forget_leftover(&version.module);
            } else if self.sysfs().is_loaded(&version.module) {
                self.record.leave_over((*version).clone());
            }
        }
        stays.cloned()
    }

    /// Whether a version is loaded and does its work: behind its gate, or as a livepatch that is on.
    pub(super) fn is_in_place(&self, version: &Active) -> bool {
        let (sysfs, module) = (self.sysfs(), &version.module);
        sysfs.is_loaded(module)
            && version
                .gate
                .as_deref()
                .is_none_or(|gate| sysfs.gate_has(gate, module))
            && (!version.is_livepatch
                || sysfs.patches(module) == Some(true) && !sysfs.is_in_transition(module))
    }

    /// Has a version's gate let go of it, and unloads it.
    pub(super) fn take_away(&self, version: &Active) -> Result<(), String> {
        self.vacate(version)?;
        self.unload(version)
    }

    fn arrive(&self, next: &Version) -> Result<(), String> {
        let (module, deadline) = (&next.kernel.module, next.kernel.deadline.get());
        let active = self.note(next);
        self.system
            .load(&active.file, &active.parameters)
            .map_err(|error| format!("{module} {} could not be loaded: {}", next.label, told(&error)))?;
        match next.kernel.style {
            Style::Plain => {}
            Style::Gated => {
                let gate = next.kernel.gate.as_deref().unwrap_or_default();
                if !wait(deadline, || self.sysfs().gate_has(gate, module)) {
                    return Err(format!(
                        "{module} was loaded and did not take its place at the gate {gate}"
                    ));
                }
            }
            Style::Livepatch => self.wait_for_patch(module, deadline)?,
        }
        // One deadline for all of them, however many there are.
        let mut held = Ok(());
        wait(deadline, || {
            held = self.sysfs().checks(&next.kernel);
            held.is_ok()
        });
        held.map_err(|problem| format!("{module} {} was loaded, and {problem}", next.label))
    }

    /// Has a gate let go of a version, after which its callers are told that nobody is there.
    fn vacate(&self, active: &Active) -> Result<(), String> {
        match &active.gate {
            Some(gate) if self.sysfs().gate_has(gate, &active.module) => self
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
            self.disable(module, deadline)
                .map_err(|problem| format!("{module} {label} {problem}"))?;
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
