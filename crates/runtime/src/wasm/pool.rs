//! Idle instances of a release, in stacks that threads seldom share.

use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use wasmtime::Store;
use wasmtime_wasi_http::p2::bindings::Proxy;

use super::guest::Guest;
use super::release::ReleaseState;

/// One guest instance with its store. Whoever holds it runs it; nobody else can.
pub(super) struct Worker {
    pub(super) store: Store<Guest>,
    pub(super) proxy: Proxy,
    /// Requests that it has begun.
    pub(super) served: u32,
    release: Arc<ReleaseState>,
}

impl Worker {
    pub(super) fn new(store: Store<Guest>, proxy: Proxy, release: Arc<ReleaseState>) -> Self {
        release.instance_started();
        Self {
            store,
            proxy,
            served: 0,
            release,
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.release.instance_ended();
    }
}

/// The idle workers. Last in, first out, so that few stay warm and the others can be trimmed.
pub(super) struct Pool {
    release: Arc<ReleaseState>,
    stacks: Box<[Stack]>,
}

/// Aligned to cache lines, so that two threads' stacks don't share one.
#[repr(align(128))]
struct Stack(Mutex<Idle>);

#[derive(Default)]
struct Idle {
    // Boxed: a worker moves between stack and call for each request.
    #[expect(
        clippy::vec_box,
        reason = "a worker is large and moves for each request; its box is reused"
    )]
    workers: Vec<Box<Worker>>,
    /// Fewest workers since the last trim: that many were not needed.
    unneeded: usize,
}

impl Pool {
    pub(super) fn new(release: Arc<ReleaseState>) -> Self {
        let stacks = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            release,
            stacks: (0..stacks).map(|_| Stack(Mutex::default())).collect(),
        }
    }

    /// An idle worker: from this thread's stack, else from any.
    pub(super) fn take(&self) -> Option<Box<Worker>> {
        let own = own_stack() % self.stacks.len();
        if let Some(worker) = self.stacks[own].lock().pop() {
            return Some(worker);
        }
        let others = self.stacks[own + 1..].iter().chain(&self.stacks[..own]);
        others.filter_map(Stack::try_lock).find_map(|mut idle| idle.pop())
    }

    /// Keeps a worker for the next request, unless the release was closed meanwhile.
    pub(super) fn put(&self, worker: Box<Worker>) {
        let mut idle = self.stacks[own_stack() % self.stacks.len()].lock();
        // Looked at under the lock: `clear` takes each lock after the release was closed.
        if self.release.places.is_closed() {
            drop(idle);
            drop(worker);
            return;
        }
        idle.workers.push(worker);
    }

    /// Frees the workers that were idle all the time since the last trim, but one.
    pub(super) fn trim(&self) {
        let mut keep_one = true;
        for stack in &self.stacks {
            let mut idle = stack.lock();
            let keep = idle.workers.len() - idle.unneeded;
            let keep = if keep_one { keep.max(1) } else { keep };
            // Those at the bottom are the ones that were not used.
            let unneeded = idle.workers.len().saturating_sub(keep);
            let freed: Vec<_> = idle.workers.drain(..unneeded).collect();
            idle.unneeded = idle.workers.len();
            keep_one &= idle.workers.is_empty();
            drop(idle);
            drop(freed);
        }
    }

    /// Frees all idle workers.
    pub(super) fn clear(&self) {
        for stack in &self.stacks {
            let freed = std::mem::take(&mut *stack.lock());
            drop(freed);
        }
    }
}

impl Idle {
    fn pop(&mut self) -> Option<Box<Worker>> {
        let worker = self.workers.pop();
        self.unneeded = self.unneeded.min(self.workers.len());
        worker
    }
}

impl Stack {
    fn lock(&self) -> MutexGuard<'_, Idle> {
        // Nothing panics while it is held; were it otherwise, a list of workers is sound after any step.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn try_lock(&self) -> Option<MutexGuard<'_, Idle>> {
        self.0.try_lock().ok()
    }
}

/// The number of the calling thread's stack.
fn own_stack() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static OWN: Cell<usize> = Cell::new(NEXT.fetch_add(1, Ordering::Relaxed));
    }
    OWN.with(Cell::get)
}
