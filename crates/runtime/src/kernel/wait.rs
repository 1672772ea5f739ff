//! Waiting for the kernel's files to say something.

use std::thread::sleep;
use std::time::{Duration, Instant};

/// How often the kernel's files are looked at again while something is waited for: nothing wakes whoever waits.
const LOOK_EVERY: Duration = Duration::from_millis(1);

/// Looks until something is, or the time is over; says whether it is.
pub(super) fn wait(deadline: Duration, mut is: impl FnMut() -> bool) -> bool {
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
