//! What the kernel says of its modules.

use std::fs::{self, File};
use std::io::{self, Read as _};

use hotswap_package::{FileCheck, Kernel};

use super::system::System;

/// Most of a file that is looked at, in characters.
const LINE_LEN_MAX: usize = 200;
/// Most of a file that is read, in bytes: one that never ends is a module's own doing.
const FILE_BYTES_MAX: u64 = 4096;
/// The bit of the kernel's taint that says that it oopsed.
const DIED: u64 = 1 << 7;
/// Why a kernel is tainted, by bit: what concerns modules.
const TAINTS: [(u64, &str); 9] = [
    (1, "proprietary module"),
    (1 << 1, "forced module load"),
    (1 << 3, "forced module unload"),
    (DIED, "oops"),
    (1 << 9, "warning"),
    (1 << 12, "out-of-tree module"),
    (1 << 13, "unsigned module"),
    (1 << 14, "soft lockup"),
    (1 << 15, "livepatch"),
];

/// The kernel's files.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sysfs<'a>(pub(super) &'a dyn System);

impl Sysfs<'_> {
    /// A file's first line.
    pub(super) fn line(self, path: &str) -> io::Result<String> {
        let mut text = Vec::new();
        File::open(self.0.path(path))?
            .take(FILE_BYTES_MAX)
            .read_to_end(&mut text)?;
        let text = String::from_utf8_lossy(&text);
        let line = text.lines().next().unwrap_or_default().trim_end();
        Ok(line.chars().take(LINE_LEN_MAX).collect())
    }

    /// The number that a file is.
    pub(super) fn number(self, path: &str) -> Result<i64, String> {
        let line = self
            .line(path)
            .map_err(|error| format!("{path} can't be read: {error}"))?;
        line.parse()
            .map_err(|_| format!("{path} says {line:?}, which is no number"))
    }

    pub(super) fn write(self, path: &str, text: &str) -> Result<(), String> {
        fs::write(self.0.path(path), text)
            .map_err(|error| format!("{text:?} can't be written to {path}: {error}"))
    }

    /// The running kernel's release.
    pub(super) fn release(self) -> Result<String, String> {
        self.line("/proc/sys/kernel/osrelease")
            .map_err(|error| format!("the kernel's release can't be read: {error}"))
    }

    /// What tells this boot from all others.
    pub(super) fn boot(self) -> Result<String, String> {
        self.line("/proc/sys/kernel/random/boot_id")
            .map_err(|error| format!("the boot's number can't be read: {error}"))
    }

    pub(super) fn is_loaded(self, module: &str) -> bool {
        // Built-in modules with parameters have a folder too, but no state.
        self.0.path(&format!("/sys/module/{module}")).is_dir()
    }

    /// How many use a module; none where the kernel doesn't say.
    pub(super) fn users(self, module: &str) -> i64 {
        self.number(&format!("/sys/module/{module}/refcnt")).unwrap_or(0)
    }

    /// Who uses a module, as a sentence's part; `None` for nobody.
    pub(super) fn used_by(self, module: &str) -> Option<String> {
        let users = self.users(module);
        if users == 0 {
            return None;
        }
        let holders = fs::read_dir(self.0.path(&format!("/sys/module/{module}/holders")));
        let mut holders: Vec<String> = holders
            .into_iter()
            .flatten()
            .flatten()
            .map(|holder| holder.file_name().to_string_lossy().into_owned())
            .collect();
        holders.sort();
        Some(if holders.is_empty() {
            format!("{users} use(s) that no module has, such as an open file")
        } else {
            format!("{users} use(s), of modules {}", holders.join(", "))
        })
    }

    /// The kernel's taint; none where it doesn't say.
    pub(super) fn taint(self) -> u64 {
        let taint = self.number("/proc/sys/kernel/tainted").unwrap_or(0);
        u64::try_from(taint).unwrap_or(0)
    }

    /// How often the kernel has oopsed.
    pub(super) fn oopses(self) -> Oopses {
        Oopses {
            count: self.number("/sys/kernel/oops_count").ok(),
            has_died: self.taint() & DIED != 0,
        }
    }

    /// Whether a livepatch is on, if it is loaded.
    pub(super) fn patches(self, module: &str) -> Option<bool> {
        let enabled = self.line(&format!("/sys/kernel/livepatch/{module}/enabled"));
        enabled.ok().map(|enabled| enabled == "1")
    }

    /// Whether a livepatch is still going on or off.
    pub(super) fn is_in_transition(self, module: &str) -> bool {
        let transition = self.line(&format!("/sys/kernel/livepatch/{module}/transition"));
        transition.is_ok_and(|transition| transition == "1")
    }

    /// Whether a gate's calls go to a module.
    pub(super) fn gate_has(self, gate: &str, module: &str) -> bool {
        let active = self.line(&format!("/sys/module/{gate}/parameters/active"));
        active.is_ok_and(|active| active == module)
    }

    /// Whether all checks of a version hold.
    pub(super) fn checks(self, kernel: &Kernel) -> Result<(), String> {
        for check in &kernel.checks {
            self.check(check, &kernel.path_of(&check.file))?;
        }
        Ok(())
    }

    /// Whether a check holds, of a file at this path.
    fn check(self, check: &FileCheck, path: &str) -> Result<(), String> {
        if let Some(wanted) = &check.equals {
            let is = self
                .line(path)
                .map_err(|error| format!("{path} can't be read: {error}"))?;
            return if is == *wanted {
                Ok(())
            } else {
                Err(format!("{path} says {is:?}; it should say {wanted:?}"))
            };
        }
        let is = self.number(path)?;
        match (check.at_least, check.at_most) {
            (Some(least), _) if is < least => Err(format!("{path} says {is}; it should be at least {least}")),
            (_, Some(most)) if is > most => Err(format!("{path} says {is}; it should be at most {most}")),
            _ => Ok(()),
        }
    }
}

/// What a taint has that an earlier one had not, as a sentence's part.
pub(super) fn tainted_since(before: u64, now: u64) -> String {
    let new = now & !before;
    let named: Vec<&str> = TAINTS
        .iter()
        .filter(|(bit, _)| new & bit != 0)
        .map(|(_, name)| *name)
        .collect();
    if new == 0 {
        return "no new taint".to_owned();
    }
    if named.is_empty() {
        return format!("the kernel's taint is {now} now");
    }
    format!("the kernel is tainted by {} now", named.join(", "))
}

/// How often the kernel has oopsed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Oopses {
    /// Kernels before 6.2 don't count.
    count: Option<i64>,
    has_died: bool,
}

impl Oopses {
    /// Whether there were some after an earlier moment; without a count only the first one of a boot is seen.
    pub(super) fn are_more_than(self, before: Self) -> bool {
        match (self.count, before.count) {
            (Some(now), Some(before)) => now > before,
            _ => self.has_died && !before.has_died,
        }
    }
}
