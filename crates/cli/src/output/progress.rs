//! How far a transfer is, for somebody who looks on.

use std::io::{self, IsTerminal as _, Write as _};
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Time between two drawings.
const PAUSE: Duration = Duration::from_millis(100);
/// Columns of the bar.
const BAR: usize = 24;

/// A line on stderr that is written over in place, where that is a terminal; else nothing.
pub(crate) struct Progress {
    what: String,
    total: u64,
    began: Instant,
    drawn: Mutex<Option<Instant>>,
    shown: bool,
}

impl Progress {
    /// Of a transfer of so many bytes.
    pub(crate) fn new(what: impl Into<String>, total: u64, quiet: bool) -> Self {
        Self {
            what: what.into(),
            total,
            began: Instant::now(),
            drawn: Mutex::new(None),
            shown: !quiet && io::stderr().is_terminal(),
        }
    }

    /// So many bytes are through.
    pub(crate) fn at(&self, bytes: u64) {
        if !self.shown {
            return;
        }
        let mut drawn = self.drawn.lock().expect("nobody panics while drawing");
        if drawn.is_some_and(|last| last.elapsed() < PAUSE) && bytes < self.total {
            return;
        }
        *drawn = Some(Instant::now());
        let text = line(&self.what, bytes, self.total, self.began.elapsed());
        // With stderr gone there is nobody who looks on.
        drop(write!(io::stderr(), "\r\x1b[K{text}"));
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.shown {
            drop(write!(io::stderr(), "\r\x1b[K"));
        }
    }
}

fn line(what: &str, bytes: u64, total: u64, elapsed: Duration) -> String {
    const MB: f64 = 1_048_576.0;
    let share = bytes as f64 / total.max(1) as f64;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "between 0 and BAR"
    )]
    let filled = (share.clamp(0.0, 1.0) * BAR as f64) as usize;
    let bar = format!("{}{}", "█".repeat(filled), "░".repeat(BAR - filled));
    let rate = bytes as f64 / elapsed.as_secs_f64().max(1e-3) / MB;
    format!(
        "{what} {bar} {:.1} of {:.1} MB, {rate:.1} MB/s",
        bytes as f64 / MB,
        total as f64 / MB
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_tells_share_and_rate() {
        let half = line("pushing", 1 << 20, 2 << 20, Duration::from_secs(2));
        assert_eq!(half, "pushing ████████████░░░░░░░░░░░░ 1.0 of 2.0 MB, 0.5 MB/s");
        assert!(line("pushing", 0, 0, Duration::ZERO).contains("0.0 of 0.0 MB"));
    }
}
