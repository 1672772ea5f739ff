//! Many seeds, on several threads, and what they came to.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use hotswap_core::invariants::{Invariant, Violation};

use crate::faults::{Fault, Injected};
use crate::marks::{Mark, Marks};
use crate::shape::Shape;
use crate::world::{Outcome, World};

/// Runs from which on a mark that was never hit fails them.
pub const MARKS_NEED_RUNS: u64 = 20_000;
/// Runs between two lines that say how it goes.
const TELLS_EVERY: u64 = 2_000;

/// What all runs came to.
#[derive(Debug, Default)]
pub struct Total {
    /// How many there were.
    pub runs: u64,
    /// The inputs of each.
    pub inputs: Vec<u64>,
    /// Simulated time in all, in ms.
    pub simulated_ms: u64,
    /// Rare branches.
    pub marks: Marks,
    /// Faults.
    pub injected: Injected,
    /// What didn't hold, by seed.
    pub violations: BTreeMap<u64, Violation>,
}

/// Which seeds, and how.
#[derive(Clone, Debug)]
pub struct Many {
    /// The first.
    pub start: u64,
    /// How many.
    pub seeds: u64,
    /// On how many threads.
    pub threads: usize,
    /// What is left out of each.
    pub shape: Shape,
    /// Whether to stop at the first that fails.
    pub until_first: bool,
    /// Whether to say how it goes.
    pub tells: bool,
}

/// One run. A panic is a violation: the log's fold asserts what it needs.
pub fn one(seed: u64, shape: &Shape, tells: bool) -> Outcome {
    let run = || World::new(seed, shape, tells).run();
    std::panic::catch_unwind(run).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        Outcome {
            violation: Some(Violation {
                invariant: Invariant::S9Log,
                what: format!("it panicked: {}", text.unwrap_or_default()),
            }),
            ..Outcome::default()
        }
    })
}

impl Many {
    /// Runs them all.
    pub fn run(&self) -> Total {
        let began = Instant::now();
        let next = AtomicU64::new(self.start);
        let total = Mutex::new(Total::default());
        std::thread::scope(|scope| {
            for _ in 0..self.threads.max(1) {
                scope.spawn(|| self.work(&next, &total, began));
            }
        });
        total
            .into_inner()
            .expect("no thread panics while it holds the lock")
    }

    fn work(&self, next: &AtomicU64, total: &Mutex<Total>, began: Instant) {
        let end = self.start.saturating_add(self.seeds);
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= end {
                return;
            }
            let outcome = one(seed, &self.shape, false);
            let mut total = total.lock().expect("no thread panics while it holds the lock");
            total.runs += 1;
            total.inputs.push(outcome.inputs);
            total.simulated_ms += outcome.lasted;
            total.marks.add(&outcome.marks);
            total.injected.add(&outcome.injected);
            if let Some(violation) = outcome.violation {
                total.violations.insert(seed, violation);
                if self.until_first {
                    next.store(end, Ordering::Relaxed);
                    return;
                }
            }
            if self.tells && total.runs.is_multiple_of(TELLS_EVERY) {
                let rate = total.runs as f64 / began.elapsed().as_secs_f64() * 60.0;
                let failed = total.violations.len();
                println!("{} runs, {rate:.0} a minute, {failed} failed", total.runs);
            }
        }
    }
}

impl Total {
    /// The median of the runs' inputs.
    pub fn median(&self) -> u64 {
        let mut inputs = self.inputs.clone();
        inputs.sort_unstable();
        inputs.get(inputs.len() / 2).copied().unwrap_or(0)
    }

    /// Faults by component: how often, and what is promised.
    pub fn print_faults(&self) {
        println!("faults injected, and what is promised under each:");
        for &fault in Fault::ALL {
            println!(
                "  {:>8} × {:<8} {:<14} {}",
                self.injected.times(fault),
                fault.component(),
                fault.word(),
                fault.promise()
            );
        }
    }

    /// The marks, rarest first.
    pub fn print_marks(&self) {
        println!("rare branches taken:");
        let mut marks: Vec<Mark> = Mark::ALL.to_vec();
        marks.sort_by_key(|mark| self.marks.times(*mark));
        for mark in marks {
            println!("  {:>8} × {}", self.marks.times(mark), mark.text());
        }
    }
}
