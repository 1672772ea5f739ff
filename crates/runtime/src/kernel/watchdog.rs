//! The device that restarts a machine which hangs: spoken to while something new is loaded or watched, and by nobody
//! else then.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// How often it is spoken to; devices wait for a minute, the least of them for some seconds.
const SPEAK_EVERY: Duration = Duration::from_secs(1);
/// What a device is told so that it stops when it is closed.
const STOP: &[u8] = b"V";

/// A machine's watchdog. Without a device all of this does nothing.
#[derive(Debug)]
pub(super) struct Watchdog {
    device: Option<PathBuf>,
    shared: Arc<(Mutex<State>, Condvar)>,
}

#[derive(Debug, Default)]
struct State {
    /// What is being watched.
    watched: u32,
    /// When each load that is under way must be over; after it nobody speaks to the device any more.
    loads: BTreeMap<u64, Instant>,
    begun: u64,
    running: bool,
}

impl State {
    fn is_late(&self, now: Instant) -> bool {
        self.loads.values().any(|by| *by < now)
    }
}

impl Watchdog {
    pub(super) fn new(device: Option<&Path>) -> Self {
        Self {
            device: device.map(Path::to_owned),
            shared: Arc::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.shared.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something is watched from now on.
    pub(super) fn watch(&self) {
        let Some(device) = &self.device else { return };
        let mut state = self.lock();
        state.watched += 1;
        if state.running {
            return;
        }
        match OpenOptions::new().write(true).open(device) {
            Ok(file) => {
                state.running = true;
                let shared = Arc::clone(&self.shared);
                thread::spawn(move || speak(&file, &shared));
            }
            Err(error) => {
                let device = device.display();
                tracing::warn!(%device, %error, "there is no watchdog: a load that hangs this node is ended by its operator");
            }
        }
    }

    /// A load begins that must be over by then; what it returns ends it. One that hangs is not ended by others.
    pub(super) fn begin(&self, by: Instant) -> u64 {
        let mut state = self.lock();
        state.begun += 1;
        let load = state.begun;
        state.loads.insert(load, by);
        load
    }

    /// A load is over.
    pub(super) fn over(&self, load: u64) {
        self.lock().loads.remove(&load);
    }

    /// Something is watched no more.
    pub(super) fn end(&self) {
        let mut state = self.lock();
        state.watched = state.watched.saturating_sub(1);
        if state.watched == 0 {
            self.shared.1.notify_all();
        }
    }
}

/// Speaks to the device until nothing is watched any more.
fn speak(mut device: &File, shared: &(Mutex<State>, Condvar)) {
    let say = |mut device: &File, word: &[u8]| -> io::Result<()> { device.write_all(word) };
    let mut state = shared.0.lock().unwrap_or_else(PoisonError::into_inner);
    loop {
        if state.watched == 0 {
            state.running = false;
            drop(state);
            if let Err(error) = device.write_all(STOP) {
                tracing::warn!(%error, "the watchdog can't be told to stop");
            }
            return;
        }
        if !state.is_late(Instant::now())
            && let Err(error) = say(device, b"\0")
        {
            tracing::warn!(%error, "the watchdog can't be spoken to");
        }
        let waited = shared.1.wait_timeout(state, SPEAK_EVERY);
        state = waited.unwrap_or_else(PoisonError::into_inner).0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_load_that_hangs_is_late_whatever_else_is_loaded_meanwhile() {
        let watchdog = Watchdog::new(None);
        let now = Instant::now();
        let hangs = watchdog.begin(now);
        let other = watchdog.begin(now + Duration::from_secs(60));
        let later = now + Duration::from_secs(1);
        assert!(watchdog.lock().is_late(later));
        watchdog.over(other);
        assert!(watchdog.lock().is_late(later));
        watchdog.over(hangs);
        assert!(!watchdog.lock().is_late(later));
    }
}
