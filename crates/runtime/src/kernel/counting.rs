//! What a version counts in files while it is in its place.

use std::sync::Arc;

use hotswap_package::{Counts, Kernel};

use super::sysfs::Sysfs;
use crate::kind::Tally;

/// A version's counters.
#[derive(Debug)]
pub(super) struct Counting {
    files: Arc<[(Counts, String)]>,
    /// Where the numbers stood when it came to its place, while it is there.
    from: Option<Vec<u64>>,
    last: Vec<u64>,
    /// What it counted the times before.
    before: Tally,
}

impl Counting {
    pub(super) fn new(kernel: &Kernel) -> Self {
        let files = kernel.counters.iter();
        let files: Arc<[_]> = files
            .map(|counter| (counter.counts, kernel.path_of(&counter.file)))
            .collect();
        Self {
            last: vec![0; files.len()],
            files,
            from: None,
            before: Tally::default(),
        }
    }

    /// What is counted in which file, to be read without holding on to the counters.
    pub(super) fn files(&self) -> Arc<[(Counts, String)]> {
        Arc::clone(&self.files)
    }

    /// It is in its place since the files said this.
    pub(super) fn begin(&mut self, from: Vec<u64>) {
        self.last.clone_from(&from);
        self.from = Some(from);
    }

    /// It is in its place no more.
    pub(super) fn end(&mut self) {
        if let Some(from) = self.from.take() {
            self.before = self.before.plus(self.since(&from));
        }
    }

    /// The files say this now.
    pub(super) fn saw(&mut self, now: Vec<u64>) {
        if self.from.is_some() {
            // A number that shrank is another module's, or not there: what was counted before stays.
            for (last, now) in self.last.iter_mut().zip(now) {
                *last = now.max(*last);
            }
        }
    }

    /// What it counted in all, when the files were read last.
    pub(super) fn tally(&self) -> Tally {
        match &self.from {
            Some(from) => self.before.plus(self.since(from)),
            None => self.before,
        }
    }

    fn since(&self, from: &[u64]) -> Tally {
        let mut tally = Tally::default();
        for (((counts, _), from), to) in self.files.iter().zip(from).zip(&self.last) {
            let count = to.saturating_sub(*from);
            match counts {
                Counts::Requests => tally.requests += count,
                Counts::Errors => tally.errors += count,
                Counts::Drops => tally.drops += count,
            }
        }
        tally
    }
}

/// What files say; 0 for those that aren't there, as those of a module that isn't loaded.
pub(super) fn read(files: &[(Counts, String)], sysfs: Sysfs<'_>) -> Vec<u64> {
    let numbers = files.iter().map(|(_, file)| sysfs.number(file).unwrap_or(0));
    numbers.map(|number| u64::try_from(number).unwrap_or(0)).collect()
}
