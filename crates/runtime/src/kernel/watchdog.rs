//! The device that restarts a machine which hangs: spoken to while something new is loaded or watched, and by nobody
//! else then.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::sysfs::Sysfs;

/// How often it is spoken to; devices wait for a minute, the least of them for some seconds.
const SPEAK_EVERY: Duration = Duration::from_secs(1);
/// What a device is told so that it stops when it is closed.
const STOP: &[u8] = b"V";
/// The device that `/dev/watchdog` is.
const FIRST: &str = "watchdog0";

/// A machine's watchdog. Without a device all of this does nothing.
#[derive(Debug)]
pub(super) struct Watchdog {
    device: Option<PathBuf>,
    /// Whether it can't be told to stop (`nowayout`): once it was opened it is spoken to for good.
    is_for_good: bool,
    shared: Arc<Shared>,
    /// The thread that speaks to the device. Held while one begins or ends: the device takes one at a time.
    speaker: Mutex<Option<JoinHandle<()>>>,
}

type Shared = (Mutex<State>, Condvar);

#[derive(Debug, Default)]
struct State {
    /// What is being watched.
    watched: u32,
    /// When each load that is under way must be over; after it nobody speaks to the device any more.
    loads: BTreeMap<u64, Instant>,
    begun: u64,
    /// Whether whoever speaks is to have the device stop.
    stops: bool,
}

impl State {
    fn is_late(&self, now: Instant) -> bool {
        self.loads.values().any(|by| *by < now)
    }
}

impl Watchdog {
    pub(super) fn new(device: Option<&Path>, sysfs: Sysfs<'_>) -> Self {
        let name = device.and_then(|device| device.file_name()?.to_str());
        let name = name.map(|name| if name == "watchdog" { FIRST } else { name });
        let says = |file: &str| sysfs.line(&format!("/sys/class/watchdog/{}/{file}", name?)).ok();
        let watchdog = Self {
            device: device.map(Path::to_owned),
            is_for_good: says("nowayout").is_some_and(|says| says == "1"),
            shared: Arc::default(),
            speaker: Mutex::default(),
        };
        if let Some(device) = device.filter(|_| watchdog.is_for_good) {
            let device = device.display();
            tracing::warn!(%device, "this watchdog can't be told to stop (nowayout): from the first load on it is spoken to for \
                good, and it starts the machine again when the agent is gone for longer than it waits");
            // The agent before this one spoke to it.
            if says("state").is_some_and(|says| says == "active") {
                watchdog.begin_to_speak();
            }
        }
        watchdog
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.shared.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn speaker(&self) -> MutexGuard<'_, Option<JoinHandle<()>>> {
        self.speaker.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something is watched from now on.
    pub(super) fn watch(&self) {
        if self.device.is_some() {
            self.lock().watched += 1;
            self.begin_to_speak();
        }
    }

    fn begin_to_speak(&self) {
        let mut speaker = self.speaker();
        let Some(device) = self.device.clone().filter(|_| speaker.is_none()) else {
            return;
        };
        let file = match open(&device) {
            Ok(file) => Some(file),
            // An agent that hands over to this one has it still.
            Err(error) if self.is_for_good && error.kind() == io::ErrorKind::ResourceBusy => None,
            Err(error) => {
                let device = device.display();
                tracing::warn!(%device, %error, "there is no watchdog: a load that hangs this node is ended by its operator");
                return;
            }
        };
        let shared = Arc::clone(&self.shared);
        match thread::Builder::new().spawn(move || speak(&device, file, &shared)) {
            Ok(thread) => *speaker = Some(thread),
            Err(error) => tracing::warn!(%error, "there is no thread that speaks to the watchdog"),
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

    /// Something is watched no more. When nothing is, the device has stopped before this returns: this process may end
    /// then, and whoever is watched next opens it anew.
    pub(super) fn end(&self) {
        let mut speaker = self.speaker();
        {
            let mut state = self.lock();
            state.watched = state.watched.saturating_sub(1);
            if state.watched > 0 || self.is_for_good {
                return;
            }
            state.stops = true;
            self.shared.1.notify_all();
        }
        if let Some(speaker) = speaker.take()
            && speaker.join().is_err()
        {
            tracing::error!("whoever spoke to the watchdog failed; see the agent's log");
        }
        self.lock().stops = false;
    }
}

fn open(device: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).open(device)
}

/// Speaks to the device until it is to stop.
fn speak(device: &Path, mut file: Option<File>, shared: &Shared) {
    let mut state = shared.0.lock().unwrap_or_else(PoisonError::into_inner);
    loop {
        file = file.or_else(|| open(device).ok());
        if let Some(file) = &mut file
            && (state.stops || !state.is_late(Instant::now()))
        {
            let word: &[u8] = if state.stops { STOP } else { b"\0" };
            if let Err(error) = file.write_all(word) {
                tracing::warn!(%error, "the watchdog can't be spoken to");
            }
        }
        if state.stops {
            return;
        }
        let waited = shared.1.wait_timeout(state, SPEAK_EVERY);
        state = waited.unwrap_or_else(PoisonError::into_inner).0;
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::system::System;
    use super::*;

    /// A folder that is a machine's root.
    #[derive(Debug)]
    struct Machine(tempfile::TempDir);

    impl System for Machine {
        fn load(&self, _: &Path, _: &str) -> io::Result<()> {
            Ok(())
        }

        fn unload(&self, _: &str) -> io::Result<()> {
            Ok(())
        }

        fn path(&self, path: &str) -> PathBuf {
            self.0.path().join(&path[1..])
        }
    }

    impl Machine {
        fn new() -> Self {
            let machine = Self(tempfile::tempdir().unwrap());
            fs::create_dir_all(machine.path("/sys/class/watchdog/watchdog0")).unwrap();
            fs::create_dir_all(machine.path("/dev")).unwrap();
            fs::write(machine.path("/dev/watchdog"), "").unwrap();
            machine
        }

        fn says(&self, file: &str, text: &str) {
            fs::write(self.path(&format!("/sys/class/watchdog/watchdog0/{file}")), text).unwrap();
        }

        fn watchdog(&self) -> Watchdog {
            Watchdog::new(Some(&self.path("/dev/watchdog")), Sysfs(self))
        }

        fn heard(&self) -> Vec<u8> {
            fs::read(self.path("/dev/watchdog")).unwrap()
        }
    }

    #[test]
    fn the_device_has_stopped_when_the_last_one_ended_and_is_opened_anew_for_the_next() {
        let machine = Machine::new();
        let watchdog = machine.watchdog();
        for _ in 0..100 {
            fs::write(machine.path("/dev/watchdog"), "").unwrap();
            watchdog.watch();
            watchdog.watch();
            watchdog.end();
            assert!(!machine.heard().contains(&b'V'), "another one is watched");
            watchdog.end();
            assert_eq!(machine.heard().last(), Some(&b'V'));
        }
    }

    #[test]
    fn a_device_that_cannot_be_stopped_is_spoken_to_for_good_by_the_next_agent_too() {
        let machine = Machine::new();
        machine.says("nowayout", "1");
        machine.says("state", "inactive");
        let watchdog = machine.watchdog();
        assert!(watchdog.speaker().is_none(), "nobody has opened it yet");
        watchdog.watch();
        watchdog.end();
        assert!(
            watchdog
                .speaker()
                .as_ref()
                .is_some_and(|speaker| !speaker.is_finished())
        );
        assert!(!machine.heard().contains(&b'V'));
        machine.says("state", "active");
        assert!(machine.watchdog().speaker().is_some());
    }

    #[test]
    fn a_load_that_hangs_is_late_whatever_else_is_loaded_meanwhile() {
        let machine = Machine::new();
        let watchdog = Watchdog::new(None, Sysfs(&machine));
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
