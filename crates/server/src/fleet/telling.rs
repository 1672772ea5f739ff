//! Refusals in the log: whoever comes again and again without a certificate fills no disk.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// Refusals that are told in a minute; the audit log and the metrics count the others.
const TOLD_MAX: u32 = 60;
/// The minute.
const WINDOW: Duration = Duration::from_secs(60);

/// How much is still told.
#[derive(Debug)]
pub(super) struct Telling(Mutex<Window>);

#[derive(Debug)]
struct Window {
    began: Instant,
    told: u32,
}

/// What to tell of a refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tell {
    /// All of it.
    It,
    /// It, and that others follow of which nothing is told.
    ItAsTheLast,
    /// Nothing.
    Nothing,
}

impl Telling {
    pub(super) fn new(now: Instant) -> Self {
        Self(Mutex::new(Window { began: now, told: 0 }))
    }

    /// What to tell of the next one.
    pub(super) fn next(&self, now: Instant) -> Tell {
        let mut window = self.0.lock();
        if now.duration_since(window.began) >= WINDOW {
            *window = Window { began: now, told: 0 };
        }
        window.told = window.told.saturating_add(1);
        match window.told {
            ..TOLD_MAX => Tell::It,
            TOLD_MAX => Tell::ItAsTheLast,
            _ => Tell::Nothing,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_told_of_once_and_the_next_minute_anew() {
        let began = Instant::now();
        let telling = Telling::new(began);
        let mut told: Vec<Tell> = (0..1_000).map(|_| telling.next(began)).collect();
        let silent = told.split_off(TOLD_MAX as usize);
        assert_eq!(told.pop(), Some(Tell::ItAsTheLast));
        assert!(told.iter().all(|tell| *tell == Tell::It));
        assert!(silent.iter().all(|tell| *tell == Tell::Nothing));
        assert_eq!(telling.next(began + WINDOW), Tell::It);
    }
}
