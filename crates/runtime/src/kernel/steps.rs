//! The steps of a swap: a version comes, is looked at, and goes, in the order of its style.

use std::io;
use std::time::{Duration, Instant};

use hotswap_package::Style;

use super::answers::told;
use super::record::Active;
use super::swap::{Came, Place, Version};
use super::wait::wait;

impl Place<'_> {
    /// The former version goes, then the new one comes.
    pub(super) fn instead(&self, next: &Version, former: &Active) -> Result<Came, String> {
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
    pub(super) fn beside(&self, next: &Version, former: &Active) -> Result<Came, String> {
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
    pub(super) fn bring(&self, next: &Version) -> Result<(), String> {
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

    pub(super) fn gate_has(&self, gate: Option<&str>, module: &str) -> bool {
        gate.is_some_and(|gate| {
            let active = self
                .sysfs()
                .line(&format!("/sys/module/{gate}/parameters/active"));
            active.is_ok_and(|active| active == module)
        })
    }

    /// Has a gate let go of a version, after which its callers are told that nobody is there.
    pub(super) fn vacate(&self, active: &Active) -> Result<(), String> {
        match &active.gate {
            Some(gate) if self.gate_has(Some(gate), &active.module) => self
                .sysfs()
                .write(&format!("/sys/module/{gate}/parameters/vacate"), &active.module),
            _ => Ok(()),
        }
    }

    /// Unloads a version; a livepatch is disabled first.
    pub(super) fn unload(&self, active: &Active) -> Result<(), String> {
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
