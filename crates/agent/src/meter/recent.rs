//! The last requests of a release: for the gross error that makes a node leave a candidate by itself.

use std::sync::atomic::{AtomicU64, Ordering};

/// Most last requests that are kept.
const WINDOW_MAX: u32 = 10_000;

/// A ring of the last outcomes, one bit each, without a lock. Under concurrent writers two outcomes may change
/// places, and a reader may see one too many or too few: for a share of many that makes no difference.
#[derive(Debug)]
pub struct RecentErrors {
    words: Box<[AtomicU64]>,
    next: AtomicU64,
    window: u64,
}

impl RecentErrors {
    /// A ring of so many requests, 1 to 10,000.
    pub fn new(window: u32) -> Self {
        let window = u64::from(window.clamp(1, WINDOW_MAX));
        Self {
            words: (0..window.div_ceil(64)).map(|_| AtomicU64::new(0)).collect(),
            next: AtomicU64::new(0),
            window,
        }
    }

    /// How many requests it is about.
    pub fn window(&self) -> u64 {
        self.window
    }

    /// Adds an outcome.
    pub fn record(&self, is_error: bool) {
        let at = self.next.fetch_add(1, Ordering::Relaxed) % self.window;
        let word = &self.words[(at / 64) as usize];
        let bit = 1 << (at % 64);
        // Most outcomes are good and find a good one in their place: nothing to write then.
        if is_error != (word.load(Ordering::Relaxed) & bit != 0) {
            if is_error {
                word.fetch_or(bit, Ordering::Relaxed);
            } else {
                word.fetch_and(!bit, Ordering::Relaxed);
            }
        }
    }

    /// How many requests the ring holds, and how many of them were errors.
    pub fn counts(&self) -> (u64, u64) {
        let requests = self.next.load(Ordering::Relaxed).min(self.window);
        let errors: u32 = self
            .words
            .iter()
            .map(|word| word.load(Ordering::Relaxed).count_ones())
            .sum();
        (requests, u64::from(errors).min(requests))
    }

    /// Whether the ring is full and at least `share` of it are errors.
    pub fn is_gross(&self, share: f64) -> bool {
        let (requests, errors) = self.counts();
        requests == self.window && errors as f64 >= share * requests as f64
    }

    /// Forgets all outcomes: a release that comes back is judged anew.
    pub fn clear(&self) {
        for word in &self.words {
            word.store(0, Ordering::Relaxed);
        }
        self.next.store(0, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_of_the_last_twenty_is_gross_and_old_errors_are_forgotten() {
        let recent = RecentErrors::new(20);
        for n in 0..19 {
            recent.record(n % 2 == 0);
        }
        assert!(!recent.is_gross(0.5), "not full yet");
        recent.record(false);
        assert_eq!(recent.counts(), (20, 10));
        assert!(recent.is_gross(0.5));
        for _ in 0..20 {
            recent.record(false);
        }
        assert_eq!(recent.counts(), (20, 0));
        recent.record(true);
        recent.clear();
        assert_eq!(recent.counts(), (0, 0));
    }

    #[test]
    fn a_wide_window_spans_words() {
        let recent = RecentErrors::new(1_000);
        (0..10_000).for_each(|n| recent.record(n >= 9_300));
        assert_eq!(recent.counts(), (1_000, 700));
    }
}
