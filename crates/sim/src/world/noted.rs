//! What durable events say of rare branches, and what people do about some of them at a bad moment.

use hotswap_core::command::Command;
use hotswap_core::event::Event;
use hotswap_core::ids::DeploymentId;
use hotswap_core::rollout::{BackReason, Exclusion, Excuse, HoldReason, Rollout, StepPass};
use hotswap_core::stage::StageStatus;
use hotswap_core::time::WallTime;

use super::{Happening, World};
use crate::marks::Mark;

/// How far from an approval's timeout somebody may decide it, in ms.
const RACE: u64 = 80;

impl World {
    pub(super) fn mark_event(&mut self, event: &Event) {
        if let Some(mark) = mark_of(event) {
            self.mark(mark);
        }
        match event {
            Event::RolloutStarted { plan } if !plan.reverse => {
                let state = &self.servers[self.leader].state;
                let here = state.env_module(&plan.environment, &plan.module);
                let stable = here.and_then(|here| here.stable.as_ref());
                if stable.is_some_and(|stable| Some(&stable.release) == plan.candidate.as_ref()) {
                    self.mark(Mark::Mends);
                }
            }
            Event::StableSet { release: None, .. } => self.mark(Mark::Unloaded),
            Event::RolloutEnded { missing, .. } if !missing.is_empty() => self.mark(Mark::EndedWithMissing),
            Event::EvidenceRecorded { late, .. } if !late.is_empty() => self.mark(Mark::EvidenceLate),
            Event::DeploymentRequested {
                request,
                approval: true,
                ..
            } => self.races(request.id),
            Event::BackStarted { key, .. } if self.operators.meddles() => {
                let state = &self.servers[self.leader].state;
                let here = state.env_module(&key.environment, &key.module);
                if let Some(rollout) = here.and_then(|here| here.rollout.as_deref()) {
                    let (id, delay) = (rollout.plan.deployment, self.operators.soon());
                    self.queue(delay, Happening::Meddles(id));
                }
            }
            _ => {}
        }
    }

    /// Somebody may decide an approval just when it times out.
    fn races(&mut self, id: DeploymentId) {
        let server = &self.servers[self.leader];
        let until = server
            .state
            .deployments
            .get(&id)
            .and_then(|deployment| deployment.approval_until);
        let Some(until) = until.filter(|_| self.operators.meddles()) else {
            return;
        };
        let left = until.since(server.now(self.now).wall).0;
        let delay = (left + self.operators.soon() % (2 * RACE)).saturating_sub(RACE);
        self.queue(delay, Happening::Decides(id, until));
    }

    pub(super) fn decides(&mut self, deployment: DeploymentId, until: WallTime) {
        let wall = self.servers[self.leader].now(self.now).wall;
        if !self.wild || wall.0.abs_diff(until.0) > RACE {
            return;
        }
        self.mark(Mark::ApprovalRaced);
        self.ask(Command::Decide {
            deployment,
            approve: true,
            by: "boss".to_owned(),
            email: String::new(),
            reason: None,
        });
    }

    /// Somebody wants something of a deployment that is on its way back.
    pub(super) fn meddles(&mut self, deployment: DeploymentId) {
        if !self.wild {
            return;
        }
        let by = "op".to_owned();
        let state = &self.servers[self.leader].state;
        let known = state.deployments.get(&deployment);
        let back = known
            .and_then(|known| state.rollout_of(known))
            .is_some_and(Rollout::is_back);
        let command = match self.operators.soon() % 6 {
            0 => Command::Pause { deployment, by },
            1 => Command::Promote { deployment, by },
            2 => Command::SkipStep { deployment, by },
            _ => {
                if back {
                    self.mark(Mark::AbortInRollback);
                }
                Command::Abort { deployment, by }
            }
        };
        self.ask(command);
    }
}

fn mark_of(event: &Event) -> Option<Mark> {
    Some(match event {
        Event::NodeExcluded { reason, .. } => match reason {
            Exclusion::Silent { .. } => Mark::SilentExcluded,
            Exclusion::NotReady { .. } => Mark::LateExcluded,
            Exclusion::Smoke { .. } => Mark::SmokeExcluded,
            Exclusion::Veto { .. } => Mark::VetoExcluded,
        },
        Event::NodeExcused { reason, .. } => match reason {
            Excuse::UnavailableBefore => Mark::NodeExcused,
            Excuse::Moved => Mark::MovedExcused,
            Excuse::Drained => Mark::DrainedExcused,
            Excuse::Removed => Mark::RemovedExcused,
        },
        Event::NodeEntered { .. } => Mark::NodeEntered,
        Event::NodeMoved { .. } => Mark::NodeMoved,
        Event::NodeDrained { .. } => Mark::NodeDrained,
        Event::NodeUndrained { .. } => Mark::NodeUndrained,
        Event::NodeRemoved { .. } => Mark::NodeRemoved,
        Event::FleetAdopted { .. } => Mark::FleetAdopted,
        Event::ExceptionRecorded { .. } => Mark::VetoBecameException,
        Event::RolloutHeld { reason, .. } => match reason {
            HoldReason::TooFewHealthy { .. } => Mark::RolloutHeldForHealth,
            HoldReason::Inconclusive { .. } => Mark::RolloutHeldInconclusive,
        },
        Event::RolloutReleased { .. } => Mark::HoldEndedByItself,
        Event::RolloutPaused { .. } => Mark::RolloutPaused,
        Event::RolloutPromoted { .. } => Mark::RolloutPromoted,
        Event::StepCompleted { pass, .. } => match pass {
            StepPass::Override { .. } => Mark::StepSkipped,
            StepPass::Inconclusive { .. } => Mark::StepPassedInconclusive,
            StepPass::Empty => Mark::StepEmpty,
            StepPass::Gate { .. } => return None,
        },
        Event::ValidationStarted { .. } => Mark::ValidationStarted,
        Event::BackStarted { reason, .. } => match reason {
            BackReason::Verdict { .. } => Mark::BackByVerdict,
            BackReason::Excluded { .. } => Mark::BackByExclusions,
            BackReason::Validation { .. } => Mark::BackByValidation,
            BackReason::Expired { .. } => Mark::BackByExpiry,
            BackReason::Inconclusive { .. } => Mark::BackInconclusive,
            BackReason::Aborted { .. } => Mark::BackByAbort,
            BackReason::Superseded { .. } => Mark::BackBySupersede,
            _ => return None,
        },
        Event::StableSet { release: Some(_), .. } => Mark::StableSet,
        Event::DeploymentRolledBack { .. } => Mark::RolledBack,
        Event::ApprovalDecided { approved: true, .. } => Mark::ApprovalGiven,
        Event::ApprovalDecided { .. } => Mark::ApprovalRefused,
        Event::ApprovalGiven { .. } => Mark::ApprovalNeedsMore,
        Event::DeploymentFrozen { .. } => Mark::FreezeMet,
        Event::ReleaseRevoked { .. } => Mark::ReleaseRevoked,
        Event::ApprovalExpired { .. } => Mark::ApprovalExpired,
        Event::StageFinished {
            status: StageStatus::Skipped,
            message,
            ..
        } if message.starts_with("already there") => Mark::StageSkipped,
        Event::StageFinished { message, .. } if message == "no node is left here to run it" => {
            Mark::EndedEmpty
        }
        Event::DeploymentFinished { message, .. } if message.contains(" failed: ") => Mark::CheckFailed,
        _ => return None,
    })
}
