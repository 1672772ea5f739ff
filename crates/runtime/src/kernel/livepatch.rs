//! Transitions: every task changes to what a livepatch puts in place, or to what was there, when it is not amid it.

use std::time::{Duration, Instant};

use super::swap::Place;
use super::wait::wait;

/// Most tasks that are named where a transition stalls.
const TASKS_NAMED_MAX: usize = 5;

impl Place<'_> {
    /// Waits until all tasks run what a livepatch puts in place; reverses it if that takes too long.
    pub(super) fn wait_for_patch(&self, module: &str, deadline: Duration) -> Result<(), String> {
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
        let begun = Instant::now();
        let reverses = self.sysfs().write(&format!("{}/enabled", dir(module)), "0");
        let how = match reverses {
            Err(problem) => format!("it can't be reversed: {problem}"),
            Ok(()) if wait(deadline, || !self.sysfs().is_in_transition(module)) => {
                format!("it was reversed within {} ms", begun.elapsed().as_millis())
            }
            Ok(()) => format!(
                "its reversal stalls too, after {} ms",
                begun.elapsed().as_millis()
            ),
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

    /// Disables a livepatch; it stays enabled where that takes too long.
    pub(super) fn disable(&self, module: &str, deadline: Duration) -> Result<(), String> {
        let enabled = format!("{}/enabled", dir(module));
        self.sysfs().write(&enabled, "0")?;
        if wait(deadline, || !self.sysfs().is_in_transition(module)) {
            return Ok(());
        }
        let holding = self.holding(1);
        let back = self.sysfs().write(&enabled, "1");
        let back = back.map_or_else(|error| error, |()| "it stays enabled".to_owned());
        Err(format!(
            "could not be disabled within {} ms{holding}; {back}",
            deadline.as_millis()
        ))
    }
}

fn dir(module: &str) -> String {
    format!("/sys/kernel/livepatch/{module}")
}
