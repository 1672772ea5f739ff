//! A rollout on its way forward: one engine for every strategy.

use super::nodes::{Standing, is_unavailable, is_unknown, standing};
use crate::analysis::Outcome;
use crate::attribution::attribution;
use crate::desired::desired_of_cohort;
use crate::event::Event;
use crate::explain::{Wait, nodes};
use crate::ids::NodeId;
use crate::mutants::{Mutant, is_on};
use crate::observe::{Observations, Pending, Presence};
use crate::policy::OnInconclusive;
use crate::rollout::{BackReason, Exclusion, Excuse, Gate, HoldReason, Phase, Rollout, Step, StepPass};
use crate::spec::ModuleSpec;
use crate::stage::{DeploymentStatus, StageKind, StageStatus};
use crate::state::State;
use crate::time::{CoreTime, Millis, Now};

/// Most exclusions that a reason tells.
const EXCLUSIONS_TOLD_MAX: usize = 3;

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
    let at = Engine {
        state,
        obs,
        rollout,
        spec,
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
    /// What the cohort is told.
    spec: ModuleSpec,
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
        for node in self.rollout.counting() {
            let presence = self.obs.presence(node, now);
            let reason = match (presence, standing(self.obs, self.rollout, &self.spec, node, now)) {
                (Presence::Silent { silent_for }, _) => {
                    let silent_for = silent_for.min(now.since(self.told_at(node)));
                    (silent_for >= policy.silence_max).then_some(Exclusion::Silent { silent_for })
                }
                (_, Standing::SmokeFailed(failures)) => Some(Exclusion::Smoke { failures }),
                (Presence::Known { since }, Standing::Lacking(detail)) => {
                    // The deadline stands still while a node is unknown.
                    let late = now.since(since.max(self.told_at(node))) >= policy.step_deadline;
                    late.then_some(Exclusion::NotReady { detail })
                }
                (Presence::Known { .. }, Standing::Settled) => None,
            };
            if let Some(reason) = reason {
                events.push(Event::NodeExcluded {
                    key: self.rollout.key(),
                    node: node.clone(),
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

    /// Evidence or soak that is due to be recorded.
    fn evidence(&self) -> Option<Event> {
        let Phase::Forward {
            step,
            began: Some(_),
            soaked_at,
            ..
        } = self.rollout.phase
        else {
            return None;
        };
        let pending = self.obs.pending(self.rollout.plan.id);
        let interval = self.rollout.plan.policy.interval;
        // As soon as everyone's interval is there; for those whose is late, a little longer than an interval lasts.
        let patience = match pending {
            Some(pending) if self.is_complete(pending) => Millis(0),
            Some(_) => interval + Millis(interval.0 / 4),
            None => interval,
        };
        if !self.gate(step).soaks() || self.now.core.since(soaked_at) < patience {
            return None;
        }
        let (block, late) = pending.map_or((None, Vec::new()), |pending| pending.split(step));
        let folded = pending
            .map(|pending| pending.folded(self.rollout))
            .unwrap_or_default();
        let soak = self.soak_since(soaked_at);
        if pending.is_none() && soak == Millis(0) {
            return None;
        }
        Some(Event::EvidenceRecorded {
            key: self.rollout.key(),
            step,
            soak,
            block,
            late,
            folded,
        })
    }

    /// Whether every node that counts has an interval in it.
    fn is_complete(&self, pending: &Pending) -> bool {
        let mut counting = self.rollout.counting().peekable();
        let has = |node: &NodeId| {
            let place = self.rollout.place(node);
            place.is_some_and(|place| pending.last.contains_key(&place))
        };
        counting.peek().is_some() && counting.all(has)
    }

    /// Soak counts only time in which everyone who counts reported and did what the step wants.
    fn soak_since(&self, soaked_at: CoreTime) -> Millis {
        let mut from = soaked_at;
        let mut anyone = false;
        for node in self.rollout.counting() {
            let Presence::Known { since } = self.obs.presence(node, self.now.core) else {
                return Millis(0);
            };
            let Some(module) = self.obs.module(node, &self.rollout.plan.module, self.now.core) else {
                return Millis(0);
            };
            if module.status.rollout != self.rollout.plan.id {
                return Millis(0);
            }
            from = from.max(since).max(module.content_since);
            anyone = true;
        }
        if anyone {
            self.now.core.since(from)
        } else {
            Millis(0)
        }
    }

    fn gate(&self, step: u32) -> Gate {
        self.rollout.plan.steps[step as usize].gate
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
        let unavailable = rollout
            .plan
            .order
            .iter()
            .filter(|node| !rollout.excluded.contains_key(*node))
            .filter(|node| rollout.excused.get(*node).is_none_or(|why| !why.is_gone()))
            .filter(|node| is_unavailable(self.obs, node, policy.silence_max, self.now.core))
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

    /// Starts a step with those of its cohort that can be counted on.
    fn start(&self, step: u32) -> Result<Vec<Event>, Wait> {
        let rollout = self.rollout;
        let policy = &rollout.plan.policy;
        let Some(planned) = rollout.plan.steps.get(step as usize) else {
            return Ok(self.steps_done());
        };
        let mut events = Vec::new();
        let mut joins = Vec::new();
        let mut unknown = Vec::new();
        for node in self.candidates_of(step, planned) {
            if is_unknown(self.obs, node, policy.silence_max, self.now.core) {
                unknown.push((node.clone(), "not heard of yet".to_owned()));
            } else if is_unavailable(self.obs, node, policy.silence_max, self.now.core) {
                // Below max_unavailable, or the rollout would be held.
                let reason = Excuse::UnavailableBefore;
                events.push(Event::NodeExcused {
                    key: rollout.key(),
                    node: node.clone(),
                    reason,
                });
            } else {
                joins.push(node.clone());
            }
        }
        if !unknown.is_empty() {
            return Err(Wait::nodes(unknown));
        }
        let empty = joins.is_empty() && rollout.counting().next().is_none();
        if empty && let Some(reason) = self.all_away(&events) {
            events.extend(go_back(rollout, reason));
            return Ok(events);
        }
        events.push(Event::StepStarted {
            key: rollout.key(),
            step,
            joins,
        });
        if empty {
            events.push(self.completed(step, StepPass::Empty));
        }
        Ok(events)
    }

    /// Why a cohort without a node fails, unless all of it moved away or was removed.
    fn all_away(&self, excused_now: &[Event]) -> Option<BackReason> {
        let excused = self.rollout.excused.iter();
        let mut away: Vec<&str> = excused
            .filter(|(_, why)| **why == Excuse::UnavailableBefore)
            .map(|(node, _)| node.as_str())
            .collect();
        away.extend(excused_now.iter().filter_map(|event| match event {
            Event::NodeExcused { node, .. } => Some(node.as_str()),
            _ => None,
        }));
        let detail = format!("nobody of the cohort could be reached: {}", away.join(", "));
        (!away.is_empty()).then_some(BackReason::Excluded {
            detail,
            blames_release: false,
        })
    }

    /// Who joins with a step: its prefix of the order; with the last step also who came late.
    fn candidates_of<'a>(&'a self, step: u32, planned: &Step) -> Vec<&'a NodeId> {
        let rollout = self.rollout;
        let upto = planned.upto as usize + usize::from(is_on(Mutant::CohortBound));
        let prefix = rollout.plan.order.iter().take(upto);
        let mut candidates: Vec<&NodeId> = prefix.filter(|node| self.may_join(node)).collect();
        if step == rollout.last_step() {
            candidates.extend(self.late());
        }
        candidates
    }

    fn may_join(&self, node: &NodeId) -> bool {
        let rollout = self.rollout;
        !rollout.cohort.contains(node)
            && !rollout.excluded.contains_key(node)
            && !rollout.excused.contains_key(node)
            && self
                .state
                .nodes
                .get(node)
                .is_some_and(|record| record.environment == rollout.plan.environment && !record.is_drained())
    }

    /// Nodes that came to the environment late, and can be counted on. A rollout for exceptions only
    /// leaves others alone: they run the release already.
    fn late(&self) -> Vec<&NodeId> {
        let rollout = self.rollout;
        let module = self
            .state
            .env_module(&rollout.plan.environment, &rollout.plan.module);
        let mends = module
            .and_then(|module| module.stable.as_ref())
            .is_some_and(|stable| Some(&stable.release) == rollout.plan.candidate.as_ref());
        let Some(env) = self.state.envs.get(&rollout.plan.environment).filter(|_| !mends) else {
            return Vec::new();
        };
        env.nodes
            .iter()
            .filter(|node| rollout.place(node).is_none() && self.may_join(node))
            .filter(|node| matches!(self.obs.presence(node, self.now.core), Presence::Known { .. }))
            .collect()
    }

    /// Moves a running step on, once its gate is met.
    fn advance(&self, step: u32, soak: Millis) -> Result<Vec<Event>, Wait> {
        let rollout = self.rollout;
        if step == rollout.last_step() {
            let mut entered: Vec<&NodeId> = self.late();
            entered.extend(self.returners());
            if !entered.is_empty() {
                let entered = entered.into_iter().cloned();
                return Ok(entered
                    .map(|node| Event::NodeEntered {
                        key: rollout.key(),
                        node,
                    })
                    .collect());
            }
        }
        if rollout.counting().next().is_none() {
            return Ok(match self.all_away(&[]) {
                Some(reason) => go_back(rollout, reason),
                None => vec![self.completed(step, StepPass::Empty)],
            });
        }
        let settled = self.settled()?;
        if let Some(who) = &rollout.promoted {
            return Ok(vec![
                self.completed(step, StepPass::Override { who: who.clone() }),
            ]);
        }
        let pass = self.gate_met(self.gate(step), soak, settled)?;
        Ok(match pass {
            GateMove::Pass(pass) => vec![self.completed(step, pass)],
            GateMove::Hold(reason) => vec![Event::RolloutHeld {
                key: rollout.key(),
                reason,
                until: self.now.wall + rollout.plan.policy.hold_expiry,
            }],
            GateMove::Back(reason) => go_back(rollout, reason),
        })
    }

    /// Nodes that were excused for being away or drained, and are back.
    fn returners(&self) -> Vec<&NodeId> {
        let excused = self.rollout.excused.iter();
        excused
            .filter(|(_, why)| matches!(why, Excuse::UnavailableBefore | Excuse::Drained))
            .map(|(node, _)| node)
            .filter(|node| {
                let record = self.state.nodes.get(*node);
                record.is_some_and(|record| {
                    record.environment == self.rollout.plan.environment && !record.is_drained()
                })
            })
            .filter(|node| matches!(self.obs.presence(node, self.now.core), Presence::Known { .. }))
            .collect()
    }

    /// Everyone who counts does what the step wants, and settled; how many.
    fn settled(&self) -> Result<u32, Wait> {
        let mut lacking = Vec::new();
        let mut settled = 0;
        for node in self.rollout.counting() {
            match standing(self.obs, self.rollout, &self.spec, node, self.now.core) {
                Standing::Settled => settled += 1,
                Standing::Lacking(lack) => lacking.push((node.clone(), lack)),
                Standing::SmokeFailed(_) => lacking.push((node.clone(), "smoke checks failed".to_owned())),
            }
        }
        if lacking.is_empty() || (is_on(Mutant::FlipUnready) && self.spec.preview.is_some()) {
            Ok(settled)
        } else {
            Err(Wait::nodes(lacking))
        }
    }

    fn gate_met(&self, gate: Gate, soak: Millis, settled: u32) -> Result<GateMove, Wait> {
        let policy = &self.rollout.plan.policy;
        let nodes = nodes(settled);
        let pass = |detail| Ok(GateMove::Pass(StepPass::Gate { detail }));
        let soaked = soak >= policy.soak_min || is_on(Mutant::SoakSkipped);
        let soak_wait = || Wait::Soak {
            soaked: soak,
            needed: policy.soak_min,
        };
        match gate {
            Gate::Settled => pass(format!("{nodes} healthy and settled")),
            Gate::Smoke => pass(format!("smoke checks passed on {nodes}")),
            Gate::Soak | Gate::JudgedSoak if soaked => {
                pass(format!("{nodes} healthy through a soak of {soak}"))
            }
            Gate::Soak | Gate::JudgedSoak => Err(soak_wait()),
            Gate::Judge => {
                let verdict = self.rollout.judge.verdict();
                if verdict.outcome == Outcome::Pass && soaked {
                    return pass(verdict.to_string());
                }
                if verdict.outcome == Outcome::Pass {
                    return Err(soak_wait());
                }
                let detail = verdict.to_string();
                if soak < policy.soak_max {
                    return Err(Wait::Verdict { detail });
                }
                Ok(match policy.on_inconclusive {
                    OnInconclusive::Hold => GateMove::Hold(HoldReason::Inconclusive { detail }),
                    OnInconclusive::Promote => GateMove::Pass(StepPass::Inconclusive { detail }),
                    OnInconclusive::RollBack => GateMove::Back(BackReason::Inconclusive { detail }),
                })
            }
        }
    }

    fn completed(&self, step: u32, pass: StepPass) -> Event {
        Event::StepCompleted {
            key: self.rollout.key(),
            step,
            pass,
        }
    }

    /// The last step is done: Validation where this is the target, else the end.
    fn steps_done(&self) -> Vec<Event> {
        let rollout = self.rollout;
        if rollout.counting().next().is_none() {
            // Everyone moved away while it ran.
            return self.ended_empty();
        }
        let mut events = self.stage_finished(
            &StageKind::Deploy(rollout.plan.environment.clone()),
            StageStatus::Succeeded,
        );
        if rollout.plan.validates {
            events.push(Event::ValidationStarted { key: rollout.key() });
            if let Some(stage) = self.stage(&StageKind::Validation) {
                events.push(Event::StageStarted {
                    deployment: rollout.plan.deployment,
                    stage,
                    attempt: 1,
                });
            }
        } else {
            events.extend(self.kept());
        }
        events
    }

    fn ended_empty(&self) -> Vec<Event> {
        let rollout = self.rollout;
        let kind = StageKind::Deploy(rollout.plan.environment.clone());
        let status = if rollout.plan.validates {
            StageStatus::Failed
        } else {
            StageStatus::Skipped
        };
        let mut events: Vec<Event> = self
            .stage(&kind)
            .into_iter()
            .map(|stage| Event::StageFinished {
                deployment: rollout.plan.deployment,
                stage,
                status,
                message: "no node is left here to run it".to_owned(),
                nodes_deployed: 0,
                nodes_failed: 0,
            })
            .collect();
        events.push(Event::RolloutEnded {
            key: rollout.key(),
            kept: false,
            missing: Vec::new(),
        });
        if rollout.plan.validates {
            events.push(Event::DeploymentFinished {
                deployment: rollout.plan.deployment,
                status: DeploymentStatus::Failed,
                message: format!("no node is left in {}", rollout.plan.environment),
            });
        }
        events
    }

    /// Every node that is not excused reports the release active and healthy, and its ingress answers.
    fn validate(&self) -> Result<Vec<Event>, Wait> {
        self.settled()?;
        let mut events = self.stage_finished(&StageKind::Validation, StageStatus::Succeeded);
        events.extend(self.kept());
        let release = self.rollout.plan.candidate.as_ref();
        events.push(Event::DeploymentFinished {
            deployment: self.rollout.plan.deployment,
            status: DeploymentStatus::Succeeded,
            message: release.map_or_else(String::new, |release| {
                format!(
                    "{} {release} is stable in {}",
                    self.rollout.plan.module, self.rollout.plan.environment
                )
            }),
        });
        Ok(events)
    }

    fn kept(&self) -> Vec<Event> {
        let key = self.rollout.key();
        let missing = self
            .rollout
            .excused
            .iter()
            .filter(|(_, why)| **why == Excuse::UnavailableBefore);
        vec![
            Event::StableSet {
                key: key.clone(),
                deployment: self.rollout.plan.deployment,
                release: self.rollout.plan.candidate.clone(),
            },
            Event::RolloutEnded {
                key,
                kept: true,
                missing: missing.map(|(node, _)| node.clone()).collect(),
            },
        ]
    }

    fn stage(&self, kind: &StageKind) -> Option<u32> {
        self.state
            .deployments
            .get(&self.rollout.plan.deployment)?
            .stage_index(kind)
    }

    fn stage_finished(&self, kind: &StageKind, status: StageStatus) -> Vec<Event> {
        let rollout = self.rollout;
        let Some(stage) = self.stage(kind) else {
            return Vec::new();
        };
        let count = |n: usize| u32::try_from(n).expect("nodes are bounded by NODES_MAX");
        let (deployed, failed) = (count(rollout.counting().count()), count(rollout.excluded.len()));
        let nodes = nodes(deployed);
        let run = if deployed == 1 { "runs" } else { "run" };
        let message = match (kind, rollout.excluded.is_empty()) {
            (StageKind::Validation, true) => format!("smoke checks passed through the ingress of {nodes}"),
            (_, true) => format!("{nodes} {run} the release"),
            (_, false) => format!("{nodes} {run} the release; {}", exclusions_told(rollout)),
        };
        vec![Event::StageFinished {
            deployment: rollout.plan.deployment,
            stage,
            status,
            message,
            nodes_deployed: deployed,
            nodes_failed: failed,
        }]
    }
}

enum GateMove {
    Pass(StepPass),
    Hold(HoldReason),
    Back(BackReason),
}

/// The first few nodes that failed, and why.
fn exclusions_told(rollout: &Rollout) -> String {
    let told: Vec<String> = rollout
        .excluded
        .iter()
        .take(EXCLUSIONS_TOLD_MAX)
        .map(|(node, why)| format!("{node} {why}"))
        .collect();
    let more = rollout.excluded.len().saturating_sub(EXCLUSIONS_TOLD_MAX);
    if more > 0 {
        format!("{}; and {more} more", told.join("; "))
    } else {
        told.join("; ")
    }
}
