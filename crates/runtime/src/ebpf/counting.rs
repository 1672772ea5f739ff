//! What a version's programs count, for as long as they are at their hooks.

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hotswap_package::{Counter, Counts, Ebpf, Invariants};

use crate::kind::Tally;

/// Most looks that are kept for the invariants: the longest window, looked at five times a second.
const LOOKS_MAX: usize = 400;

/// A counter and the map that it is in.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) counter: Counter,
    pub(super) map: OwnedFd,
    /// Numbers in a value.
    pub(super) fields: usize,
    /// Values to an index: one, or one for each processor.
    pub(super) values: usize,
    /// Where the map is pinned that the former version may have too, and have counted in.
    pub(super) carried: Option<PathBuf>,
}

impl Source {
    /// Whether both are one number.
    fn is_shared_with(&self, other: &Self) -> bool {
        let place = |source: &Self| (source.carried.clone(), source.counter.index, source.counter.field);
        self.carried.is_some() && place(self) == place(other)
    }

    fn read(&self) -> io::Result<u64> {
        let mut numbers = vec![0u64; self.fields * self.values];
        super::sys::lookup(&self.map, self.counter.index, &mut numbers)?;
        let of_each = numbers.chunks(self.fields);
        Ok(of_each.map(|value| value[self.counter.field as usize]).sum())
    }
}

/// How often programs ran, and how long.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Runs {
    pub(super) count: u64,
    pub(super) time: Duration,
}

/// All numbers at one moment.
#[derive(Clone, Debug, Default)]
pub(super) struct Reading {
    numbers: Vec<u64>,
    runs: Runs,
}

/// What was counted while a version was at its hooks.
#[derive(Debug)]
pub(super) struct Counting {
    sources: Vec<Source>,
    invariants: Invariants,
    times: Mutex<Times>,
}

#[derive(Debug, Default)]
struct Times {
    /// Where the numbers stood when it came to its hooks, while it is there.
    from: Option<Reading>,
    /// What it counted the times before.
    before: Tally,
    looks: VecDeque<(Instant, Tally)>,
}

impl Counting {
    pub(super) fn new(ebpf: &Ebpf, sources: Vec<Source>) -> Self {
        Self {
            sources,
            invariants: ebpf.invariants,
            times: Mutex::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Times> {
        self.times.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All numbers now.
    pub(super) fn read(&self, runs: Runs) -> io::Result<Reading> {
        let numbers = self.sources.iter().map(Source::read).collect::<io::Result<_>>()?;
        Ok(Reading { numbers, runs })
    }

    /// It is at its hooks since this reading.
    pub(super) fn begin(&self, from: Reading) {
        let mut times = self.lock();
        times.from = Some(from);
        times.looks.clear();
    }

    /// It is at its hooks no more. In maps that its successor has too, what was counted beyond `from`, the
    /// successor's first reading, is the successor's.
    pub(super) fn end(&self, successor: &Self, from: &Reading, mut last: Reading) {
        for (source, number) in self.sources.iter().zip(&mut last.numbers) {
            let same = successor
                .sources
                .iter()
                .position(|other| source.is_shared_with(other));
            if let Some(at) = same {
                *number = from.numbers[at];
            }
        }
        let mut times = self.lock();
        if let Some(begun) = times.from.take() {
            times.before = times.before.plus(self.tally(&begun, &last));
        }
    }

    /// What it counted in all, kept for the invariants.
    pub(super) fn look(&self, now: &Reading) -> Tally {
        let mut times = self.lock();
        let Some(from) = &times.from else {
            return times.before;
        };
        let tally = times.before.plus(self.tally(from, now));
        times.looks.push_back((Instant::now(), tally));
        let window = self.invariants.window.get();
        // The newest of those that are older than the window stays: the window begins there.
        while times.looks.len() > LOOKS_MAX
            || times.looks.get(1).is_some_and(|(at, _)| at.elapsed() >= window)
        {
            times.looks.pop_front();
        }
        tally
    }

    /// Which invariants don't hold, and how.
    pub(super) fn broken(&self) -> Vec<(Counts, String)> {
        self.broken_of(&self.invariants)
    }

    /// Which of its invariants its predecessor broke too, in its last window.
    pub(super) fn excused(&self, predecessor: &Self) -> Vec<Counts> {
        let broken = predecessor.broken_of(&self.invariants);
        broken.into_iter().map(|(what, _)| what).collect()
    }

    fn broken_of(&self, invariants: &Invariants) -> Vec<(Counts, String)> {
        let times = self.lock();
        let (Some((_, first)), Some((_, last))) = (times.looks.front(), times.looks.back()) else {
            return Vec::new();
        };
        let requests = last.requests.saturating_sub(first.requests);
        if requests < u64::from(invariants.requests_min) {
            return Vec::new();
        }
        let (drops, errors) = (invariants.drops_share_max, invariants.errors_share_max);
        let bounds = [
            (Counts::Drops, drops, last.drops.saturating_sub(first.drops)),
            (Counts::Errors, errors, last.errors.saturating_sub(first.errors)),
        ];
        let broken = bounds.into_iter().filter_map(|(what, most, count)| {
            let most = most?;
            let share = count as f64 / requests as f64;
            let told = || {
                format!(
                    "{} were {count} of {requests} within {}, {:.1} %; the manifest allows {:.1} %",
                    what.as_str(),
                    self.invariants.window,
                    share * 100.0,
                    most * 100.0
                )
            };
            (share > most).then(|| (what, told()))
        });
        broken.collect()
    }

    fn tally(&self, from: &Reading, to: &Reading) -> Tally {
        let runs = to.runs.count.saturating_sub(from.runs.count);
        let mut tally = Tally {
            busy: to.runs.time.saturating_sub(from.runs.time),
            ..Tally::default()
        };
        let mut is_counted = false;
        for ((source, from), to) in self.sources.iter().zip(&from.numbers).zip(&to.numbers) {
            let count = to.saturating_sub(*from);
            match source.counter.counts {
                Counts::Requests => {
                    is_counted = true;
                    tally.requests += count;
                }
                Counts::Errors => tally.errors += count,
                Counts::Drops => tally.drops += count,
            }
        }
        if !is_counted {
            tally.requests = runs;
        }
        tally
    }
}
