//! A rollout on its way forward: one engine for every strategy.

mod ending;
mod evidence;
mod gates;
mod joining;

use super::nodes::{Standing, is_unavailable, standing};
use crate::analysis::Outcome;
use crate::attribution::attribution;
use crate::desired::desired_of_cohort;
use crate::event::Event;
use crate::explain::Wait;
use crate::ids::NodeId;
use crate::mutants::{Mutant, is_on};
use crate::observe::{Observations, Presence};
use crate::rollout::{BackReason, Exclusion, HoldReason, Phase, Rollout};
use crate::spec::ModuleSpec;
use crate::state::State;
use crate::time::{CoreTime, Now};
use ending::exclusions_told;

/// One move, or what it waits for. Harm is looked for first: neither a pause nor a hold hides it.
pub(super) fn forward(
    state: &State,
    obs: &Observations,
    rollout: &Rollout,
    now: Now,
) -> Result<Vec<Event>, Wait> {
    let Some(spec) = desired_of_cohort(rollout) else {
        unreachable!("only a way back has no release to roll out")
    };
    let standings: Vec<_> = obs
        .seen_in_order(rollout.counting(), now.core)
        .map(|(node, seen)| (node, seen.presence, standing(&seen, rollout, &spec, now.core)))
        .collect();
    let at = Engine {
        state,
        obs,
        rollout,
        standings: &standings,
        spec: &spec,
        now,
    };
    if let Some(reason) = at.harm() {
        return Ok(go_back(rollout, reason));
    }
    let excluded = at.exclusions();
    if !excluded.is_empty() {
        return Ok(excluded);
    }
    if let Some(evidence) = at.evidence() {
        return Ok(vec![evidence]);
    }
    if let Some(reason) = at.expired() {
        return Ok(go_back(rollout, reason));
    }
    at.paused()?;
    if let Some(held) = at.hold_for_health()? {
        return Ok(vec![held]);
    }
    match rollout.phase {
        Phase::Forward {
            step, began: None, ..
        } => at.start(step),
        Phase::Forward {
            step,
            began: Some(_),
            soak,
            ..
        } => at.advance(step, soak),
        Phase::Validating { .. } => at.validate(),
        Phase::Back { .. } => unreachable!("a rollout on its way back is not moved forward"),
    }
}

/// The turn: everyone is told the stable release at once, and a release that did harm is held.
pub(super) fn go_back(rollout: &Rollout, reason: BackReason) -> Vec<Event> {
    let held = rollout
        .plan
        .candidate
        .as_ref()
        .filter(|_| reason.holds_release())
        .map(|release| Event::ReleaseHeld {
            module: rollout.plan.module.clone(),
            release: release.clone(),
            reason: reason.to_string(),
        });
    let back = Event::BackStarted {
        key: rollout.key(),
        reason,
    };
    [Some(back), held].into_iter().flatten().collect()
}

struct Engine<'a> {
    state: &'a State,
    obs: &'a Observations,
    rollout: &'a Rollout,
    /// How each node that counts stands to what the cohort is told.
    standings: &'a [(&'a NodeId, Presence, Standing<'a>)],
    /// What the cohort is told.
    spec: &'a ModuleSpec,
    now: Now,
}

impl Engine<'_> {
    /// Harm that is shown already.
    fn harm(&self) -> Option<BackReason> {
        let rollout = self.rollout;
        if rollout.judge.outcome() == Outcome::Fail && !is_on(Mutant::VerdictIgnored) {
            let verdict = rollout.judge.verdict();
            let attribution = attribution(self.state, rollout);
            let confined = attribution.as_ref().filter(|found| found.is_confined());
            let detail = match confined {
                Some(part) => format!("{verdict}; {part}"),
                None => verdict.to_string(),
            };
            return Some(BackReason::Verdict {
                detail,
                attribution: attribution.map(Box::new),
            });
        }
        let failed = rollout.excluded.len();
        let began = rollout.effect.is_some();
        let left_nobody = began && failed > 0 && rollout.counting().next().is_none();
        if failed > rollout.plan.policy.max_failed as usize || left_nobody {
            let blames_release = rollout
                .excluded
                .values()
                .any(|why| matches!(why, Exclusion::Veto { .. } | Exclusion::Smoke { .. }));
            let detail = exclusions_told(rollout);
            return Some(match rollout.phase {
                Phase::Validating { .. } if blames_release => BackReason::Validation { detail },
                _ => BackReason::Excluded {
                    detail,
                    blames_release,
                },
            });
        }
        None
    }

    /// Nodes of the cohort that count as failed from now on.
    fn exclusions(&self) -> Vec<Event> {
        let policy = &self.rollout.plan.policy;
        let now = self.now.core;
        let mut events = Vec::new();
        for (node, presence, standing) in self.standings {
            let reason = match (presence, standing) {
                (Presence::Silent { silent_for }, _) => {
                    let silent_for = (*silent_for).min(now.since(self.told_at(node)));
                    (silent_for >= policy.silence_max).then_some(Exclusion::Silent { silent_for })
                }
                (_, Standing::SmokeFailed(failures)) => Some(Exclusion::Smoke {
                    failures: failures.to_vec(),
                }),
                (Presence::Known { since }, Standing::Lacking(lack)) => {
                    // The deadline stands still while a node is unknown.
                    let late = now.since((*since).max(self.told_at(node))) >= policy.step_deadline;
                    // The first one's account stands for all: ten thousand of them would fill the log.
                    let is_first = self.rollout.excluded.is_empty() && events.is_empty();
                    late.then(|| Exclusion::NotReady {
                        detail: if is_first {
                            lack.in_full()
                        } else {
                            lack.to_string()
                        },
                    })
                }
                (Presence::Known { .. }, Standing::Settled) => None,
            };
            if let Some(reason) = reason {
                events.push(Event::NodeExcluded {
                    key: self.rollout.key(),
                    node: (*node).clone(),
                    reason,
                });
            }
        }
        events
    }

    /// When a node of the cohort was told what it is told now.
    fn told_at(&self, node: &NodeId) -> CoreTime {
        let cohort = match self.rollout.phase {
            Phase::Forward {
                began: Some(began), ..
            }
            | Phase::Validating { began } => began,
            Phase::Forward { soaked_at, .. } => soaked_at,
            Phase::Back { began, .. } => began,
        };
        let entered = self.rollout.entered.get(node).copied();
        entered.map_or(cohort, |entered| entered.max(cohort))
    }

    /// A hold or pause that nobody ended in its time.
    fn expired(&self) -> Option<BackReason> {
        let wall = self.now.wall;
        if let Some(hold) = self.rollout.held.as_ref().filter(|hold| wall >= hold.until) {
            return Some(BackReason::Expired {
                detail: format!("a hold expired: {}", hold.reason),
            });
        }
        let deployment = self.state.deployments.get(&self.rollout.plan.deployment)?;
        let pause = deployment.paused.as_ref().filter(|pause| wall >= pause.until)?;
        Some(BackReason::Expired {
            detail: format!("the pause by {} expired", pause.by),
        })
    }

    fn paused(&self) -> Result<(), Wait> {
        let deployment = self.state.deployments.get(&self.rollout.plan.deployment);
        match deployment.and_then(|deployment| deployment.paused.as_ref()) {
            Some(pause) if !is_on(Mutant::PauseIgnored) => Err(Wait::Resume {
                paused_by: pause.by.clone(),
                until: pause.until,
            }),
            _ => Ok(()),
        }
    }

    /// Holds while too few nodes are healthy, and goes on when there are enough again.
    fn hold_for_health(&self) -> Result<Option<Event>, Wait> {
        let rollout = self.rollout;
        let policy = &rollout.plan.policy;
        let here = rollout
            .placed()
            .filter(|node| !rollout.excluded.contains_key(*node))
            .filter(|node| rollout.excused.get(*node).is_none_or(|why| !why.is_gone()));
        let unavailable = self
            .obs
            .seen_in_order(here, self.now.core)
            .filter(|(_, seen)| is_unavailable(seen.presence, policy.silence_max))
            .count();
        let unavailable = u32::try_from(unavailable).expect("nodes are bounded by NODES_MAX");
        let too_few = unavailable > policy.max_unavailable && !is_on(Mutant::BudgetIgnored);
        let key = rollout.key();
        match &rollout.held {
            None if too_few => Ok(Some(Event::RolloutHeld {
                key,
                reason: HoldReason::TooFewHealthy {
                    unavailable,
                    allowed: policy.max_unavailable,
                },
                until: self.now.wall + policy.hold_expiry,
            })),
            Some(hold) if matches!(hold.reason, HoldReason::TooFewHealthy { .. }) && !too_few => {
                Ok(Some(Event::RolloutReleased { key }))
            }
            Some(hold) => Err(Wait::Hold {
                reason: hold.reason.to_string(),
                until: hold.until,
            }),
            None => Ok(None),
        }
    }
}
