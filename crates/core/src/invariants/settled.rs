//! What must be so once faults stop.

use crate::decide::{self, Input};
use crate::desired::desired;
use crate::event::Event;
use crate::explain::{Wait, waits};
use crate::ids::{Digest, ModuleName, NodeId};
use crate::observe::Observations;
use crate::rollout::{BackReason, Excuse};
use crate::state::State;
use crate::time::Now;

use super::{Check, Invariant, Violation};

/// **S13** Every unfinished deployment that doesn't move has a typed reason. Called when a tick brought nothing more.
pub fn s13_explained(state: &State, obs: &Observations, now: Now) -> Check {
    for id in state.deployments.keys() {
        if waits(state, obs, id, now).is_empty() {
            let what = format!("deployment {id} doesn't move and nothing says why");
            return Err(Violation::new(Invariant::S13Explained, what));
        }
    }
    Ok(())
}

/// **L1** Every deployment ends, and with it every rollout. Called when the stated bound has passed.
pub fn l1_ends(state: &State, obs: &Observations, now: Now) -> Check {
    let Some(deployment) = state.deployments.values().next() else {
        return Ok(());
    };
    let waits: Vec<String> = waits(state, obs, &deployment.id, now)
        .iter()
        .map(ToString::to_string)
        .collect();
    let stage = deployment
        .current()
        .map_or_else(String::new, |(_, stage)| stage.kind.name());
    let what = format!(
        "deployment {} is still in {stage}: {}",
        deployment.id,
        waits.join(", ")
    );
    Err(Violation::new(Invariant::L1Ends, what))
}

/// **L2** A reachable node ends on what `desired` says: `routes` tells who really gets a module's requests on it.
pub fn l2_converges(
    state: &State,
    node: &NodeId,
    routes: impl Fn(&ModuleName) -> Vec<(Digest, u8)>,
) -> Check {
    let Some(spec) = desired(state, node) else {
        return Ok(());
    };
    for (name, module) in &spec.modules {
        let mut real = routes(name);
        let mut told = module.routes.clone();
        real.sort_unstable();
        told.sort_unstable();
        if real != told {
            let what = format!("{node} serves {real:?} of {name} and is told {told:?}");
            return Err(Violation::new(Invariant::L2Converges, what));
        }
    }
    Ok(())
}

/// **A6** A jump of the wall clock alone lets nothing happen but what goes by it: a hold, a pause or an approval
/// expires, a drain's deadline is reached. `before` and `after` differ in their wall time only.
pub fn a6_clock(state: &State, obs: &Observations, before: Now, after: Now) -> Check {
    let due = decide::decide(state, obs, Input::Tick, before).events;
    let expires = |event: &Event| {
        matches!(
            event,
            Event::BackStarted {
                reason: BackReason::Expired { .. },
                ..
            } | Event::ApprovalExpired { .. }
                | Event::DeploymentFinished { .. }
                | Event::NodeDrained { .. }
                | Event::NodeExcused {
                    reason: Excuse::Drained,
                    ..
                }
        )
    };
    let events = decide::decide(state, obs, Input::Tick, after).events;
    match events
        .iter()
        .find(|event| !expires(event) && !due.contains(event))
    {
        Some(Event::RolloutHeld { .. }) | None => Ok(()),
        Some(event) => Err(Violation::new(
            Invariant::A6Clock,
            format!("the wall clock jumps, and there is {event:?}"),
        )),
    }
}

/// **L3** Quiet: with nothing to do, a tick brings no event.
pub fn l3_quiet(state: &State, obs: &Observations, now: Now) -> Check {
    match decide::decide(state, obs, Input::Tick, now).events.first() {
        Some(event) => Err(Violation::new(
            Invariant::L3Quiet,
            format!("with nothing to do there is {event:?}"),
        )),
        None => Ok(()),
    }
}

/// **L4** Nobody queues behind another environment or module.
pub fn l4_apart(state: &State, obs: &Observations, now: Now) -> Check {
    for deployment in state.deployments.values() {
        for wait in waits(state, obs, &deployment.id, now) {
            let Wait::Queue { behind, environment } = wait else {
                continue;
            };
            let Some(other) = state.deployments.get(&behind) else {
                let what = format!("deployment {} waits for {behind}, which has ended", deployment.id);
                return Err(Violation::new(Invariant::L4Apart, what));
            };
            if other.module != deployment.module {
                let what = format!(
                    "{} waits in {environment} for {}",
                    deployment.module, other.module
                );
                return Err(Violation::new(Invariant::L4Apart, what));
            }
        }
    }
    Ok(())
}
