//! Keeps a release's process running until the release is closed.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::start::{Running, Starter};

/// First and longest pause before a process is started again; each is twice the one before.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(30));
/// A process that ran for so long did not fail at its start: the next pause is the first again.
const GOOD_AFTER: Duration = Duration::from_secs(10);
/// How often its use is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// The task that supervises: told to stop by `stop`, tells `stopped` when the process is gone.
pub(super) async fn supervise(
    starter: Arc<Starter>,
    mut running: Running,
    stop: CancellationToken,
    stopped: watch::Sender<bool>,
) {
    let mut tries = 0;
    loop {
        let since = Instant::now();
        let Some(why) = stop.run_until_cancelled(watch(&starter, &mut running)).await else {
            break;
        };
        if since.elapsed() >= GOOD_AFTER {
            tries = 0;
        }
        let pid = running.child.pid();
        // What is left of it goes before the next one comes.
        drop(running);
        starter.serving.pool.clear();
        match stop
            .run_until_cancelled(again(&starter, pid, why, &mut tries))
            .await
        {
            Some(next) => running = next,
            None => {
                stopped.send_replace(true);
                return;
            }
        }
    }
    end(&starter, running).await;
    stopped.send_replace(true);
}

/// Waits for the end of a process, and brings it about where it uses too much; says how it ended.
async fn watch(starter: &Starter, running: &mut Running) -> String {
    let (meters, limit) = (&starter.serving.meters, starter.serving.manifest.limits.memory.0);
    let mut look = tokio::time::interval(LOOK_EVERY);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut too_much = None;
    let exit = loop {
        tokio::select! {
            exit = running.child.ended() => break exit,
            _ = look.tick() => {
                let used = running.used();
                meters.read(used);
                if used.memory_bytes > limit && too_much.is_none() {
                    too_much = Some(used.memory_bytes);
                    running.kill();
                }
            }
        }
    };
    meters.ended(exit.cpu);
    match too_much {
        Some(bytes) => format!(
            "was killed: it used {} KiB of memory, more than its {} KiB",
            bytes >> 10,
            limit >> 10
        ),
        None => running.why(exit, "").await,
    }
}

/// Starts another process in place of one that ended, until one is ready.
async fn again(starter: &Starter, pid: i32, mut why: String, tries: &mut u32) -> Running {
    let (life, log) = (&starter.serving.life, &starter.serving.log);
    loop {
        let ends = life.ended(&why);
        let pause = pause(*tries);
        *tries = tries.saturating_add(1);
        log.say(
            pid,
            &format!(
                "its process {why}; that is the {ends}. time lately, and another is started in {pause:?}"
            ),
        );
        tokio::time::sleep(pause).await;
        match starter.start().await {
            Ok(running) => {
                life.is_up();
                return running;
            }
            Err(error) => why = format!("could not be started again: {error}"),
        }
    }
}

fn pause(tries: u32) -> Duration {
    BACKOFF.0.saturating_mul(1 << tries.min(16)).min(BACKOFF.1)
}

async fn end(starter: &Starter, mut running: Running) {
    let deadline = starter.settings.stop_deadline.0;
    let (exit, was_made_to) = running.stop(deadline).await;
    starter.serving.meters.ended(exit.cpu);
    if was_made_to {
        let pid = running.child.pid();
        let words = format!("its process did not end within {deadline:?} after SIGTERM and was killed");
        starter.serving.log.say(pid, &words);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_their_limit() {
        assert_eq!([0, 1, 2].map(pause), [100, 200, 400].map(Duration::from_millis));
        assert_eq!(pause(u32::MAX), BACKOFF.1);
    }
}
