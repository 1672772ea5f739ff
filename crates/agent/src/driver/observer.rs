//! Evidence: what the two arms of a rollout were counted at, cut into numbered intervals that are kept until the
//! server has them.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use hotswap_core::analysis::{ArmCounts, Block};
use hotswap_core::ids::{ModuleName, RolloutId};
use hotswap_core::report::{INTERVALS_KEPT_MAX, Interval};
use hotswap_core::spec::Observe;
use hotswap_core::time::{CoreTime, Millis};
use hotswap_wire::AckedInterval;
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;

use crate::ingress::Release;
use crate::meter::Counters;
use crate::smoke::{self, Door};

/// Least time between two probes of an arm.
const PROBE_PAUSE_MIN: Duration = Duration::from_millis(10);

/// The intervals of a node, by module.
#[derive(Default)]
pub(super) struct Observer {
    running: BTreeMap<ModuleName, Running>,
    kept: BTreeMap<ModuleName, VecDeque<Kept>>,
    /// The last number given, of each module's newest rollout.
    numbers: BTreeMap<ModuleName, (RolloutId, u32)>,
}

/// What is being counted of a module.
struct Running {
    observe: Observe,
    candidate: Arm,
    control: Option<Arm>,
    closes_at: CoreTime,
    probing: Option<JoinHandle<()>>,
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(probing) = &self.probing {
            probing.abort();
        }
    }
}

/// One release's counters, and where they stood when the interval began.
struct Arm {
    release: Arc<Release>,
    from: Counters,
    cpu_from: Duration,
}

/// A closed interval that the server may not have.
struct Kept {
    interval: Interval,
    sent: Option<CoreTime>,
}

impl Observer {
    /// Counts these arms from now on, or none; what was counted for others is closed first.
    pub(super) fn observe(
        &mut self,
        module: &ModuleName,
        next: Option<(Observe, Arc<Release>, Option<Arc<Release>>)>,
        now: CoreTime,
    ) {
        self.close(module);
        self.running.remove(module);
        let Some((observe, candidate, control)) = next else {
            return;
        };
        let begins = self
            .numbers
            .get(module)
            .is_none_or(|(rollout, _)| *rollout != observe.rollout);
        if begins {
            self.numbers.insert(module.clone(), (observe.rollout, 0));
            // Another rollout of the module runs: nobody waits for the former one's intervals any more.
            self.kept.remove(module);
        }
        let running = Running {
            observe,
            candidate: Arm::from_now(&candidate),
            control: control.as_ref().map(|control| {
                // Where the control counts no more since the candidate does, it is what it counted before.
                if begins && !control.is_routed() {
                    Arm::from_past(control)
                } else {
                    Arm::from_now(control)
                }
            }),
            closes_at: now + observe.interval,
            probing: probing(&observe, candidate, control),
        };
        self.running.insert(module.clone(), running);
    }

    /// Closes the intervals that are due. With too many kept, the running one grows until the server took some: no
    /// number is ever missing.
    pub(super) fn close_due(&mut self, now: CoreTime) {
        let due = self
            .running
            .iter()
            .filter(|(_, running)| running.closes_at <= now);
        for module in due.map(|(module, _)| module.clone()).collect::<Vec<_>>() {
            if self
                .kept
                .get(&module)
                .is_none_or(|kept| kept.len() < INTERVALS_KEPT_MAX)
            {
                self.close(&module);
            }
            if let Some(running) = self.running.get_mut(&module) {
                running.closes_at = now + running.observe.interval;
            }
        }
    }

    /// Closes a module's interval. One in which nothing was counted says nothing and is not made.
    fn close(&mut self, module: &ModuleName) {
        let Some(running) = self.running.get_mut(module) else {
            return;
        };
        // Both arms at once: their requests come from the same stretch of time.
        let candidate = running.candidate.release.series().snapshot();
        let control = running
            .control
            .as_ref()
            .map(|arm| arm.release.series().snapshot());
        let block = Block {
            candidate: running.candidate.cut(candidate),
            control: running
                .control
                .as_mut()
                .zip(control)
                .map_or_else(ArmCounts::default, |(arm, to)| arm.cut(to)),
            ..Block::default()
        };
        if is_empty(&block.candidate) && is_empty(&block.control) {
            return;
        }
        let (rollout, number) = self
            .numbers
            .entry(module.clone())
            .or_insert((running.observe.rollout, 0));
        *number += 1;
        let interval = Interval {
            module: module.clone(),
            rollout: *rollout,
            step: running.observe.step,
            number: *number,
            block,
        };
        self.kept
            .entry(module.clone())
            .or_default()
            .push_back(Kept { interval, sent: None });
    }

    /// The next moment at which an interval is due.
    pub(super) fn wake_at(&self) -> Option<CoreTime> {
        self.running.values().map(|running| running.closes_at).min()
    }

    /// Whether some intervals were never sent in this session.
    pub(super) fn has_unsent(&self) -> bool {
        self.kept.values().flatten().any(|kept| kept.sent.is_none())
    }

    /// The intervals to send now, in order: those not sent yet, and those sent so long ago that they are missed.
    pub(super) fn take_due(&mut self, now: CoreTime, missed_after: Millis) -> Vec<Interval> {
        let mut intervals = Vec::new();
        for kept in self.kept.values_mut().flatten() {
            if kept.sent.is_none_or(|sent| now.since(sent) >= missed_after) {
                kept.sent = Some(now);
                intervals.push(kept.interval.clone());
            }
        }
        intervals
    }

    /// A new session: whatever the server did not confirm may be lost.
    pub(super) fn resend_all(&mut self) {
        self.kept.values_mut().flatten().for_each(|kept| kept.sent = None);
    }

    /// The server has these.
    pub(super) fn acked(&mut self, acked: &AckedInterval) {
        let Some(kept) = self.kept.get_mut(&acked.module) else {
            return;
        };
        kept.retain(|kept| kept.interval.rollout != acked.rollout || kept.interval.number > acked.number);
        if kept.is_empty() {
            self.kept.remove(&acked.module);
        }
    }
}

impl Arm {
    fn from_now(release: &Arc<Release>) -> Self {
        Self {
            release: Arc::clone(release),
            from: release.series().snapshot(),
            cpu_from: release.instance().usage().guest_time,
        }
    }

    fn from_past(release: &Arc<Release>) -> Self {
        Self {
            from: release.past(),
            ..Self::from_now(release)
        }
    }

    /// What was counted and used since the last cut. Memory is read now, and told of one instance: how many there
    /// are is a matter of the arm's share of requests.
    fn cut(&mut self, to: Counters) -> ArmCounts {
        let usage = self.release.instance().usage();
        let cpu = usage.guest_time.saturating_sub(self.cpu_from);
        let memory_kib = (usage.memory_bytes >> 10).checked_div(usage.instances);
        let counts = ArmCounts {
            cpu_us: u64::try_from(cpu.as_micros()).unwrap_or(u64::MAX),
            memory_kib: memory_kib.unwrap_or(0),
            memory_readings: memory_kib.map_or(0, |kib| u64::from(kib > 0)),
            ..to.since(&self.from)
        };
        self.from = to;
        self.cpu_from = usage.guest_time;
        counts
    }
}

fn is_empty(arm: &ArmCounts) -> bool {
    arm.requests == 0 && arm.probes == 0
}

/// Probes both arms in turn, spread over the interval, for as long as they are observed.
fn probing(
    observe: &Observe,
    candidate: Arc<Release>,
    control: Option<Arc<Release>>,
) -> Option<JoinHandle<()>> {
    if observe.probes == 0 || candidate.instance().manifest().smoke.is_empty() {
        return None;
    }
    let pause = (Duration::from_millis(observe.interval.0) / observe.probes).max(PROBE_PAUSE_MIN);
    Some(tokio::spawn(async move {
        let mut pace = tokio::time::interval(pause);
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut turn = 0;
        loop {
            pace.tick().await;
            tokio::join!(probe(&candidate, turn), async {
                if let Some(control) = &control {
                    probe(control, turn).await;
                }
            });
            turn = turn.wrapping_add(1);
        }
    }))
}

async fn probe(release: &Release, turn: usize) {
    let manifest = release.instance().manifest();
    if let Some(check) = manifest.smoke.get(turn % manifest.smoke.len().max(1)) {
        let result = smoke::run(&Door::Instance(&**release.instance()), manifest, check).await;
        release.series().record_probe(result.is_ok());
    }
}
