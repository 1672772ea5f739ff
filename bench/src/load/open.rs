//! A load that doesn't wait for its answers: requests are due at a rate, whatever the server does.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::time::{Instant, sleep_until};

use super::closed::told;
use super::{Connection, Measured, Target};

/// Asks so many times a second, over at most so many connections, for so long. A request that is due while every
/// connection waits counts from when it was due: waiting is latency. One that a free connection sends a little late,
/// because timers are coarse, counts from when it was sent: that is this program's lateness, not the server's.
pub(crate) async fn open(
    target: &Target,
    connections: usize,
    per_second: f64,
    time: Duration,
) -> Result<Measured> {
    let mut idle = Vec::new();
    for _ in 0..connections {
        idle.push(
            Connection::open(&target.endpoint)
                .await
                .context("failed to connect")?,
        );
    }
    let schedule = Arc::new(Schedule {
        began: Instant::now(),
        per_second,
        time,
        next: AtomicU64::new(0),
    });
    let began = schedule.began;
    let asking: Vec<_> = idle
        .into_iter()
        .map(|connection| tokio::spawn(ask(connection, target.clone(), Arc::clone(&schedule))))
        .collect();
    let mut sum = Measured::default();
    for one in asking {
        sum.merge(one.await.context("a connection's task panicked")?);
    }
    Ok(sum.over(began.elapsed()))
}

struct Schedule {
    began: Instant,
    per_second: f64,
    time: Duration,
    next: AtomicU64,
}

impl Schedule {
    /// When the next request is due; none after the end.
    fn next(&self) -> Option<Instant> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let after = Duration::from_secs_f64(number as f64 / self.per_second);
        (after < self.time).then(|| self.began + after)
    }
}

async fn ask(mut connection: Connection, target: Target, schedule: Arc<Schedule>) -> Measured {
    let mut measured = Measured::default();
    while let Some(due) = schedule.next() {
        let from = if Instant::now() < due {
            sleep_until(due).await;
            Instant::now()
        } else {
            due
        };
        match connection.ask(&target.request).await {
            Ok(answer) if answer.status == target.status => measured.record(from.elapsed()),
            Ok(answer) => measured.fail(told(&connection, &answer)),
            Err(error) => {
                measured.fail(error.to_string());
                match Connection::open(&target.endpoint).await {
                    Ok(again) => connection = again,
                    Err(_) => break,
                }
            }
        }
    }
    measured
}
