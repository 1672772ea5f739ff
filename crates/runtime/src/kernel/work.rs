//! Work in the kernel, which may hang: on a thread of its own, since whoever hangs there can't be got out of it.

use std::future::pending;
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::{oneshot, watch};
use tokio::time::sleep_until;

/// How work ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// It is done.
    Done,
    /// It could not be begun, or panicked.
    Failed,
    /// It has been going on for longer than it said it would.
    Hangs(Duration),
}

/// By when work is to be over: it says so itself once it knows.
#[derive(Debug)]
pub(super) struct Until(watch::Sender<Option<(Instant, Duration)>>);

impl Until {
    /// From now on it takes so long at most.
    pub(super) fn within(&self, patience: Duration) {
        self.0.send_replace(Some((Instant::now() + patience, patience)));
    }
}

/// Works on a thread of its own and waits for the end, or until the work is late.
pub(super) async fn work(work: impl FnOnce(&Until) + Send + 'static) -> Ended {
    let (until, mut told) = watch::channel(None);
    let (done, mut is_done) = oneshot::channel();
    let until = Until(until);
    let spawned = thread::Builder::new().spawn(move || {
        work(&until);
        // Nobody may wait any more.
        let _ = done.send(());
    });
    if let Err(error) = spawned {
        tracing::error!(%error, "there is no thread for work in the kernel");
        return Ended::Failed;
    }
    loop {
        let by = *told.borrow_and_update();
        let late = async {
            match by {
                Some((by, patience)) => {
                    sleep_until(by.into()).await;
                    patience
                }
                None => pending().await,
            }
        };
        tokio::select! {
            biased;
            done = &mut is_done => return if done.is_ok() { Ended::Done } else { Ended::Failed },
            Ok(()) = told.changed() => {}
            patience = late => return Ended::Hangs(patience),
        }
    }
}
