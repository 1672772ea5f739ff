//! Requests of one loaded release: how many are served at once, who waits, and how they end with it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{Notify, Semaphore, SemaphorePermit};
use tokio_util::sync::CancellationToken;

use crate::failure::Failure;
use crate::kind::Closed;

/// Requests that wait for a place, as a multiple of those that are served: enough for a burst, too few to let a
/// queue grow that nobody waits for any more.
const QUEUE_PER_PLACE: u32 = 4;
/// Longest wait for a place before a request is refused.
const QUEUE_TIME_MAX: Duration = Duration::from_secs(1);
/// What a refused client is told to wait.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// How long a request that was cut may take to notice.
const CUT_GRACE: Duration = Duration::from_secs(1);

/// The places of one loaded release.
#[derive(Debug)]
pub(crate) struct Places {
    count: u32,
    free: Semaphore,
    waiting: AtomicU64,
    closed: AtomicBool,
    ended: Notify,
    overloads: AtomicU64,
    cuts: AtomicU64,
    /// Ends requests that a drain's deadline has overtaken.
    pub(crate) cut: CancellationToken,
}

impl Places {
    /// So many requests at once.
    pub(crate) fn new(count: u32) -> Arc<Self> {
        let count = count.max(1);
        Arc::new(Self {
            count,
            free: Semaphore::new(count as usize),
            waiting: AtomicU64::new(0),
            closed: AtomicBool::new(false),
            ended: Notify::new(),
            overloads: AtomicU64::new(0),
            cuts: AtomicU64::new(0),
            cut: CancellationToken::new(),
        })
    }

    /// A place for one request, now or after a short wait; `None` if the release is closed.
    pub(crate) async fn enter(self: &Arc<Self>) -> Result<Option<Place>, Failure> {
        let permit = match self.free.try_acquire() {
            Ok(permit) => permit,
            Err(_) => self.wait().await?,
        };
        permit.forget();
        // Taken before the look at `closed`, so that a drain either counts this request or turns it away.
        let place = Place(Arc::clone(self));
        Ok((!self.is_closed()).then_some(place))
    }

    async fn wait(&self) -> Result<SemaphorePermit<'_>, Failure> {
        struct Waiting<'a>(&'a AtomicU64);
        impl Drop for Waiting<'_> {
            fn drop(&mut self) {
                self.0.fetch_sub(1, Ordering::Relaxed);
            }
        }
        let before = self.waiting.fetch_add(1, Ordering::Relaxed);
        let _waiting = Waiting(&self.waiting);
        if before < u64::from(self.count.saturating_mul(QUEUE_PER_PLACE))
            && let Ok(Ok(permit)) = tokio::time::timeout(QUEUE_TIME_MAX, self.free.acquire()).await
        {
            return Ok(permit);
        }
        self.overloads.fetch_add(1, Ordering::Relaxed);
        Err(Failure::Overloaded {
            retry_after: RETRY_AFTER,
        })
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::SeqCst)
    }

    /// From now on nobody enters.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
    }

    /// Waits for the requests of closed places; those that are left at the deadline are cut.
    pub(crate) async fn drain(&self, deadline: Duration) -> Closed {
        if tokio::time::timeout(deadline, self.drained()).await.is_err() {
            self.cut.cancel();
            // What still runs after this holds nothing that could be freed sooner.
            let _ = tokio::time::timeout(CUT_GRACE, self.drained()).await;
        }
        Closed { cut: self.cuts() }
    }

    async fn drained(&self) {
        loop {
            let ended = self.ended.notified();
            tokio::pin!(ended);
            ended.as_mut().enable();
            if self.in_flight() == 0 {
                return;
            }
            ended.await;
        }
    }

    pub(crate) fn in_flight(&self) -> u64 {
        (self.count as usize).saturating_sub(self.free.available_permits()) as u64
    }

    pub(crate) fn overloads(&self) -> u64 {
        self.overloads.load(Ordering::Relaxed)
    }

    pub(crate) fn cuts(&self) -> u64 {
        self.cuts.load(Ordering::Relaxed)
    }

    pub(crate) fn request_cut(&self) {
        self.cuts.fetch_add(1, Ordering::Relaxed);
    }
}

/// A request's right to be served, given back when it is dropped.
pub(crate) struct Place(Arc<Places>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.free.add_permits(1);
        if self.0.is_closed() {
            self.0.ended.notify_waiters();
        }
    }
}
