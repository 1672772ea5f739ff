//! Steps' gates.

use super::{Engine, go_back};
use crate::analysis::Outcome;
use crate::decide::nodes::{Lack, Standing};
use crate::event::Event;
use crate::explain::{Wait, nodes};
use crate::ids::NodeId;
use crate::mutants::{Mutant, is_on};
use crate::policy::OnInconclusive;
use crate::rollout::{BackReason, Gate, HoldReason, StepPass};
use crate::stage::{StageKind, StageStatus};
use crate::time::Millis;

impl Engine<'_> {
    pub(super) fn gate(&self, step: u32) -> Gate {
        self.rollout.plan.steps[step as usize].gate
    }

    /// Moves a running step on, once its gate is met.
    pub(super) fn advance(&self, step: u32, soak: Millis) -> Result<Vec<Event>, Wait> {
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

    /// Everyone who counts does what the step wants, and settled; how many.
    pub(super) fn settled(&self) -> Result<u32, Wait> {
        let mut lacking = Vec::new();
        let mut settled = 0;
        for (node, _, standing) in self.standings {
            match standing {
                Standing::Settled => settled += 1,
                Standing::Lacking(lack) => lacking.push((*node, *lack)),
                Standing::SmokeFailed(_) => lacking.push((*node, Lack::SmokeFailed)),
            }
        }
        if lacking.is_empty() || (is_on(Mutant::FlipUnready) && self.spec.preview.is_some()) {
            Ok(settled)
        } else {
            Err(Wait::nodes(&lacking))
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

    pub(super) fn completed(&self, step: u32, pass: StepPass) -> Event {
        Event::StepCompleted {
            key: self.rollout.key(),
            step,
            pass,
        }
    }

    /// The last step is done: Validation where this is the target, else the end.
    pub(super) fn steps_done(&self) -> Vec<Event> {
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
}

enum GateMove {
    Pass(StepPass),
    Hold(HoldReason),
    Back(BackReason),
}
