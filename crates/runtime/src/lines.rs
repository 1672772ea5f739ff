//! A module's output as lines, a bounded number a second.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// Longest line, in bytes; a longer one is broken.
const LINE_BYTES_MAX: usize = 4 << 10;

/// Lets so many lines a second pass and counts the others.
#[derive(Debug)]
pub(crate) struct LineLimit {
    per_second_max: u32,
    base: Instant,
    /// The second, counted from `base`, in the upper half; lines in it in the lower.
    window: AtomicU64,
    dropped: AtomicU64,
}

impl LineLimit {
    pub(crate) fn new(per_second_max: u32) -> Self {
        Self {
            per_second_max,
            base: Instant::now(),
            window: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
        }
    }

    /// How many may pass in a second.
    pub(crate) fn per_second_max(&self) -> u32 {
        self.per_second_max
    }

    /// Whether a line may pass, with the number of lines that were dropped before it.
    pub(crate) fn pass(&self) -> Option<u64> {
        let second = self.base.elapsed().as_secs() & u64::from(u32::MAX);
        let passes = self
            .window
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |window| {
                let lines = if window >> 32 == second {
                    window & u64::from(u32::MAX)
                } else {
                    0
                };
                (lines < u64::from(self.per_second_max)).then_some((second << 32) | (lines + 1))
            })
            .is_ok();
        if passes {
            return Some(self.dropped.swap(0, Ordering::Relaxed));
        }
        self.dropped.fetch_add(1, Ordering::Relaxed);
        None
    }
}

/// Which of a module's outputs.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Output {
    Stdout,
    Stderr,
}

/// Output on its way to lines.
#[derive(Clone, Debug, Default)]
pub(crate) struct Lines {
    begun: Vec<u8>,
}

impl Lines {
    /// Tells every line that ends in these bytes.
    pub(crate) fn take(&mut self, bytes: &[u8], mut tell: impl FnMut(&str)) {
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            let (text, ends) = match part.strip_suffix(b"\n") {
                Some(text) => (text, true),
                None => (part, false),
            };
            for chunk in text.chunks(LINE_BYTES_MAX) {
                if self.begun.len() + chunk.len() > LINE_BYTES_MAX {
                    self.finish(&mut tell);
                }
                self.begun.extend_from_slice(chunk);
            }
            if ends {
                self.finish(&mut tell);
            }
        }
    }

    /// Tells what was begun, unless there is nothing in it.
    pub(crate) fn finish(&mut self, mut tell: impl FnMut(&str)) {
        let line = std::mem::take(&mut self.begun);
        let line = String::from_utf8_lossy(&line);
        let line = line.trim_end();
        if !line.is_empty() {
            tell(line);
        }
    }
}
