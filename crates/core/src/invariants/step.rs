//! What an event must hold against the State that it is about to change.

use crate::analysis::Outcome;
use crate::decide::spare;
use crate::desired::desired_of_cohort;
use crate::event::{Event, Logged, RolloutKey};
use crate::observe::{Observations, Presence};
use crate::report::ReleaseStatus;
use crate::rollout::{BackReason, Phase, Rollout, StepPass};
use crate::stage::{StageKind, StageStatus};
use crate::state::State;
use crate::time::Now;

use super::{Check, Invariant, Violation};

fn find<'a>(state: &'a State, key: &RolloutKey) -> Option<&'a Rollout> {
    let rollout = state
        .env_module(&key.environment, &key.module)?
        .rollout
        .as_deref()?;
    (rollout.plan.id == key.rollout).then_some(rollout)
}

/// **S2** A rollout begins only with a release that was pushed, passed every check that its deployment has, is
/// approved by a person where that was asked for, and isn't on hold.
pub fn s2_artifact(before: &State, event: &Event) -> Check {
    let Event::RolloutStarted { plan } = event else {
        return Ok(());
    };
    let Some(candidate) = plan.candidate.as_ref().filter(|_| !plan.reverse) else {
        return Ok(());
    };
    let fail = |what: &str| {
        let what = format!(
            "{} begins with {} {candidate}, which {what}",
            plan.id, plan.module
        );
        Err(Violation::new(Invariant::S2Artifact, what))
    };
    let pushed = before.release(&plan.module, &candidate.version);
    if pushed.is_err() || pushed.is_ok_and(|release| release.digest != candidate.digest) {
        return fail("was never pushed");
    }
    let hold = before.hold(&plan.module, &candidate.digest);
    if hold.is_some_and(|hold| hold.bars(candidate)) {
        return fail("is on hold");
    }
    let Some(deployment) = before.deployments.get(&plan.deployment) else {
        return fail("no unfinished deployment asked for");
    };
    let passed = |stage: &crate::stage::Stage| stage.status == StageStatus::Succeeded;
    if !deployment
        .stages
        .iter()
        .filter(|stage| stage.kind.is_check())
        .all(passed)
    {
        return fail("did not pass every check");
    }
    let asks = deployment
        .stages
        .iter()
        .any(|stage| stage.kind == StageKind::Approval);
    if asks
        && deployment
            .approval
            .as_ref()
            .is_none_or(|approval| !approval.approved)
    {
        return fail("nobody approved");
    }
    Ok(())
}

/// **S3** (when one begins) No rollout begins where another one is unfinished.
pub fn s3_start(before: &State, event: &Event) -> Check {
    let Event::RolloutStarted { plan } = event else {
        return Ok(());
    };
    let running = before.env_module(&plan.environment, &plan.module);
    match running.and_then(|here| here.rollout.as_deref()) {
        Some(other) => {
            let what = format!("{} begins while {} is unfinished", plan.id, other.plan.id);
            Err(Violation::new(Invariant::S3OneRollout, what))
        }
        None => Ok(()),
    }
}

/// **S1** No step starts while more of its rollout's nodes are known to be unavailable than may be, and no node is
/// drained before its environment can spare it, unless its operator's deadline has passed.
pub fn s1_budget(before: &State, obs: &Observations, event: &Event, now: Now) -> Check {
    if let Event::NodeDrained { node } = event {
        let waits = before.nodes.get(node).and_then(|record| record.drain.as_ref());
        let due = waits.is_some_and(|drain| now.wall >= drain.until);
        return match spare(before, obs, node, now) {
            Err(unspared) if !due => {
                let what = format!("{node} is drained too early: {unspared}");
                Err(Violation::new(Invariant::S1Budget, what))
            }
            _ => Ok(()),
        };
    }
    let Event::StepStarted { key, step, .. } = event else {
        return Ok(());
    };
    let Some(rollout) = find(before, key) else {
        return Ok(());
    };
    let policy = &rollout.plan.policy;
    let counts = |node: &&crate::ids::NodeId| {
        !rollout.excluded.contains_key(*node) && rollout.excused.get(*node).is_none_or(|why| !why.is_gone())
    };
    let away = rollout.plan.order.iter().filter(counts).filter(|node| {
        matches!(obs.presence(node, now.core), Presence::Silent { silent_for } if silent_for >= policy.silence_max)
    });
    let away = away.count();
    if away > policy.max_unavailable as usize {
        let what = format!(
            "step {step} of {} starts with {away} nodes away, {} may be",
            key.rollout, policy.max_unavailable
        );
        return Err(Violation::new(Invariant::S1Budget, what));
    }
    Ok(())
}

/// **S5** Steps come in order, each after the one before met its gate: readiness of all that count, and the soak;
/// or by a person's recorded word.
pub fn s5_steps(before: &State, event: &Event) -> Check {
    let fail = |what: String| Err(Violation::new(Invariant::S5Steps, what));
    match event {
        Event::StepStarted { key, step, joins } => {
            let Some(rollout) = find(before, key) else {
                return fail(format!("a step of {} starts, which doesn't run", key.rollout));
            };
            match rollout.phase {
                Phase::Forward {
                    step: next,
                    began: None,
                    ..
                } if next == *step => {}
                _ => return fail(format!("step {step} of {} starts out of turn", key.rollout)),
            }
            let Some(planned) = rollout.plan.steps.get(*step as usize) else {
                return fail(format!("step {step} of {} is not planned", key.rollout));
            };
            let last = *step == rollout.last_step();
            let early =
                |node: &&crate::ids::NodeId| rollout.place(node).is_none_or(|place| place >= planned.upto);
            if let Some(node) = joins.iter().find(|node| !last && early(node)) {
                return fail(format!(
                    "{node} joins step {step} of {} before its own",
                    key.rollout
                ));
            }
            Ok(())
        }
        Event::StepCompleted { key, step, pass } => {
            let Some(rollout) = find(before, key) else {
                return fail(format!("a step of {} completes, which doesn't run", key.rollout));
            };
            let Phase::Forward {
                step: running,
                began: Some(_),
                soak,
                ..
            } = rollout.phase
            else {
                // A step that nobody is left for completes in the batch that starts it.
                return match (&rollout.phase, pass) {
                    (Phase::Forward { .. }, StepPass::Empty) => Ok(()),
                    _ => fail(format!(
                        "step {step} of {} completes and has not begun",
                        key.rollout
                    )),
                };
            };
            let gate = rollout.plan.steps[running as usize].gate;
            if running != *step {
                return fail(format!(
                    "step {step} of {} completes while {running} runs",
                    key.rollout
                ));
            }
            if matches!(pass, StepPass::Gate { .. }) && gate.soaks() && soak < rollout.plan.policy.soak_min {
                return fail(format!(
                    "step {step} of {} passes after a soak of {soak}",
                    key.rollout
                ));
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

/// **S6** The flip of a blue-green rollout is issued only when every node that counts is ready, or by a person's word.
pub fn s6_flip(before: &State, obs: &Observations, event: &Event, now: Now) -> Check {
    let Event::StepCompleted {
        key,
        step: 0,
        pass: StepPass::Gate { .. },
    } = event
    else {
        return Ok(());
    };
    let Some(rollout) = find(before, key) else {
        return Ok(());
    };
    if rollout.plan.strategy != "BlueGreen" {
        return Ok(());
    }
    let Some(candidate) = &rollout.plan.candidate else {
        return Ok(());
    };
    let ready = |node: &&crate::ids::NodeId| {
        let module = obs.module(node, &key.module, now.core);
        module.is_some_and(|module| {
            matches!(
                module.status.releases.get(&candidate.id()),
                Some(ReleaseStatus::Ready { .. })
            )
        })
    };
    match rollout.counting().find(|node| !ready(node)) {
        Some(node) => {
            let what = format!(
                "{} flips while {node} doesn't hold {candidate} ready",
                key.rollout
            );
            Err(Violation::new(Invariant::S6OneColour, what))
        }
        None => Ok(()),
    }
}

/// **S7** A paused, held or returning rollout issues no forward command, and a way back never turns.
pub fn s7_stop_means_stop(before: &State, event: &Event) -> Check {
    let fail = |what: String| Err(Violation::new(Invariant::S7StopMeansStop, what));
    let (key, forced) = match event {
        Event::StepStarted { key, .. }
        | Event::NodeEntered { key, .. }
        | Event::ValidationStarted { key } => (key, false),
        Event::StepCompleted { key, pass, .. } => (key, matches!(pass, StepPass::Override { .. })),
        Event::StableSet { key, .. } => (key, find(before, key).is_some_and(|rollout| rollout.plan.reverse)),
        Event::BackStarted { key, reason } => {
            return match find(before, key) {
                Some(rollout) if rollout.is_back() => {
                    fail(format!("{} turns back twice: {reason}", key.rollout))
                }
                Some(_) => Ok(()),
                None => fail(format!("{} turns back and doesn't run", key.rollout)),
            };
        }
        _ => return Ok(()),
    };
    let Some(rollout) = find(before, key) else {
        return Ok(());
    };
    let reverse = rollout.plan.reverse && matches!(event, Event::StableSet { .. });
    if rollout.is_back() && !reverse {
        return fail(format!("{} moves forward on its way back", key.rollout));
    }
    if rollout.judge.outcome() == Outcome::Fail && !rollout.is_back() && !forced {
        return fail(format!("{} moves forward and its judge says fail", key.rollout));
    }
    let deployment = before.deployments.get(&rollout.plan.deployment);
    if deployment.is_some_and(|deployment| deployment.paused.is_some()) && !forced {
        return fail(format!("{} moves forward while it is paused", key.rollout));
    }
    if rollout.held.is_some() && !forced {
        return fail(format!("{} moves forward while it is held", key.rollout));
    }
    Ok(())
}

/// **S8** A rollback goes to a release that succeeded there, and a release becomes stable only by a rollout that
/// rolled it out.
pub fn s8_target(before: &State, event: &Event) -> Check {
    let Event::StableSet { key, release, .. } = event else {
        return Ok(());
    };
    let fail = |what: String| Err(Violation::new(Invariant::S8Target, what));
    let Some(rollout) = find(before, key) else {
        return fail(format!("{} sets what is stable and doesn't run", key.rollout));
    };
    if rollout.plan.reverse {
        let here = before.env_module(&key.environment, &key.module);
        let succeeded = here.is_some_and(|here| {
            here.successes
                .iter()
                .any(|s| Some(&s.release) == release.as_ref())
        });
        if release.is_some() && !succeeded {
            return fail(format!("{} goes back to what never succeeded here", key.rollout));
        }
        return Ok(());
    }
    let candidate = desired_of_cohort(rollout).and_then(|spec| spec.primary().cloned());
    if *release != candidate {
        return fail(format!("{} makes stable what it doesn't roll out", key.rollout));
    }
    if rollout.excluded.len() > rollout.plan.policy.max_failed as usize {
        return fail(format!(
            "{} ends well with {} failed nodes",
            key.rollout,
            rollout.excluded.len()
        ));
    }
    Ok(())
}

/// **S9** Sequence without gaps; epochs never fall; nor does core time.
pub fn s9_log(before: &State, event: &Logged) -> Check {
    let fail = |what: String| Err(Violation::new(Invariant::S9Log, what));
    if event.seq != before.seq + 1 {
        return fail(format!("event {} follows {}", event.seq, before.seq));
    }
    if event.at < before.at {
        return fail(format!("core time falls from {} to {}", before.at.0, event.at.0));
    }
    Ok(())
}

/// **S11** Once epoch e+1 exists, nothing with epoch e is appended; an epoch starts only above the last one.
pub fn s11_fencing(before: &State, event: &Logged) -> Check {
    let fail = |what: String| Err(Violation::new(Invariant::S11Fencing, what));
    if event.epoch < before.epoch {
        return fail(format!(
            "epoch {} appends after epoch {}",
            event.epoch, before.epoch
        ));
    }
    match event.event {
        Event::EpochStarted { epoch } | Event::FleetAdopted { epoch, .. } if epoch <= before.epoch => {
            fail(format!("epoch {epoch} starts after epoch {}", before.epoch))
        }
        _ => Ok(()),
    }
}

/// Whether a person asked for a way back, not the numbers.
pub fn is_asked(reason: &BackReason) -> bool {
    matches!(
        reason,
        BackReason::Aborted { .. } | BackReason::Requested { .. } | BackReason::Superseded { .. }
    )
}
