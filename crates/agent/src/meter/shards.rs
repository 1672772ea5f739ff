//! Counters that threads don't fight over.

use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Most shards of a series: beyond this, memory and the time to sum them cost more than sharing.
const SHARDS_MAX: usize = 16;

/// One value for each of a few groups of threads, each on cache lines of its own.
#[derive(Debug)]
pub(super) struct Shards<T>(Box<[Shard<T>]>);

#[derive(Debug, Default)]
#[repr(align(128))]
struct Shard<T>(T);

impl<T: Default> Shards<T> {
    pub(super) fn new() -> Self {
        let shards = std::thread::available_parallelism().map_or(1, usize::from);
        Self((0..shards.min(SHARDS_MAX)).map(|_| Shard::default()).collect())
    }

    /// The calling thread's.
    pub(super) fn own(&self) -> &T {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        thread_local! {
            static OWN: Cell<usize> = Cell::new(NEXT.fetch_add(1, Ordering::Relaxed));
        }
        &self.0[OWN.with(Cell::get) % self.0.len()].0
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        self.0.iter().map(|shard| &shard.0)
    }
}
