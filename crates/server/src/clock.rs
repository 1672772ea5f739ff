//! The two clocks, for the core.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use hotswap_core::time::{CoreTime, Millis, Now, WallTime};

/// Most core time that passes over a restart, whatever the wall clock says: a soak or a deadline never jumps.
pub const RESTART_GAP_MAX: Millis = Millis::from_secs(30);

/// Core time goes on from the last logged value by the monotonic clock.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    core: CoreTime,
    started: Instant,
}

impl Clock {
    /// Goes on from the last event of the log.
    pub fn resume(last_core: CoreTime, last_wall: WallTime) -> Self {
        let passed = wall_now().since(last_wall).min(RESTART_GAP_MAX);
        // An empty log has no last event to go on from.
        let passed = if last_wall == WallTime(0) {
            Millis(0)
        } else {
            passed
        };
        Self {
            core: last_core + passed,
            started: Instant::now(),
        }
    }

    /// What time it is.
    pub fn now(&self) -> Now {
        Now {
            core: self.core + millis(self.started.elapsed()),
            wall: wall_now(),
        }
    }
}

/// Wall time.
pub fn wall_now() -> WallTime {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    WallTime(millis(since_epoch).0)
}

/// A duration in the core's unit.
pub fn millis(duration: Duration) -> Millis {
    Millis(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_restart_costs_at_most_thirty_seconds_of_core_time() {
        let wall = wall_now();
        let at = |ago: u64| Clock::resume(CoreTime(5_000), wall - Millis(ago)).core;
        assert!((7_000..8_000).contains(&at(2_000).0));
        assert_eq!(at(3_600_000), CoreTime(35_000));
        assert_eq!(
            Clock::resume(CoreTime(5_000), wall + Millis(60_000)).core,
            CoreTime(5_000),
            "a clock set back"
        );
        assert_eq!(
            Clock::resume(CoreTime(0), WallTime(0)).core,
            CoreTime(0),
            "an empty log"
        );
    }
}
