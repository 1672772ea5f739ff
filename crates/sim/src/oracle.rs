//! What only somebody who knows how releases really behave can say.

use std::collections::{BTreeMap, BTreeSet};

use hotswap_core::event::{Event, Logged};
use hotswap_core::ids::{DeploymentId, EnvName, ModuleName, RolloutId};
use hotswap_core::invariants::{Check, Invariant, Violation};
use hotswap_core::rollout::{Gate, RolloutPlan, StepPass};
use hotswap_core::stage::{DeploymentStatus, StageStatus};
use hotswap_core::state::State;

use crate::scenario::{Behaviour, Profile, Scenario};

/// Notes of a run.
#[derive(Debug, Default)]
pub struct Oracle {
    plans: BTreeMap<RolloutId, RolloutPlan>,
    /// Rollouts that a person's word or a policy's passed somewhere without the judge.
    waved_through: BTreeSet<RolloutId>,
    ended: Vec<(DeploymentId, DeploymentStatus, String)>,
    targets: BTreeMap<DeploymentId, (EnvName, ModuleName)>,
    /// What each wish made: one effect at most.
    made: BTreeMap<String, DeploymentId>,
    /// Requests in the evidence of each rollout.
    evidence: BTreeMap<RolloutId, u64>,
    /// Those whose evidence grew since it was looked at.
    grew: BTreeSet<RolloutId>,
}

impl Oracle {
    /// Takes a durable event in.
    ///
    /// # Errors
    /// What may not be.
    pub fn note(&mut self, scenario: &Scenario, logged: &Logged) -> Check {
        self.note_wish(&logged.event)?;
        match &logged.event {
            Event::EvidenceRecorded { key, block, late, .. } => {
                let blocks = block
                    .iter()
                    .map(|block| &**block)
                    .chain(late.iter().map(|(_, block)| block));
                let requests = blocks.map(|block| block.candidate.requests + block.control.requests);
                *self.evidence.entry(key.rollout).or_insert(0) += requests.sum::<u64>();
                self.grew.insert(key.rollout);
            }
            Event::RolloutStarted { plan } => {
                self.plans.insert(plan.id, (**plan).clone());
            }
            Event::RolloutPromoted { key, .. } => {
                self.waved_through.insert(key.rollout);
            }
            Event::StepCompleted { key, pass, .. } if !matches!(pass, StepPass::Gate { .. }) => {
                self.waved_through.insert(key.rollout);
            }
            Event::DeploymentRequested { request, .. } => {
                self.targets
                    .insert(request.id, (request.target.clone(), request.module.clone()));
            }
            Event::DeploymentFinished {
                deployment,
                status,
                message,
            } => {
                self.ended.push((*deployment, *status, message.clone()));
            }
            Event::StableSet { key, .. } => return self.judged(scenario, key.rollout),
            _ => {}
        }
        Ok(())
    }

    /// A command that was asked again has one effect at most.
    fn note_wish(&mut self, event: &Event) -> Check {
        let (wish, id) = match event {
            Event::DeploymentRequested { request, .. } => (&request.trace_id, request.id),
            Event::ReversalRequested {
                trace_id, deployment, ..
            } => (trace_id, *deployment),
            _ => return Ok(()),
        };
        match self.made.insert(wish.clone(), id) {
            Some(first) => Err(Violation {
                invariant: Invariant::S10Durable,
                what: format!("one command made two deployments, {first} and {id}"),
            }),
            None => Ok(()),
        }
    }

    /// Each interval counts once: no rollout has more requests in its evidence than its nodes counted.
    ///
    /// # Errors
    /// One has.
    pub fn evidence_is_counted(&mut self, counted: impl Fn(RolloutId) -> u64) -> Check {
        for rollout in std::mem::take(&mut self.grew) {
            let (evidence, counted) = (self.evidence[&rollout], counted(rollout));
            if evidence > counted {
                return Err(Violation {
                    invariant: Invariant::S5Steps,
                    what: format!(
                        "{rollout} has {evidence} requests in evidence, and nodes counted {counted}"
                    ),
                });
            }
        }
        Ok(())
    }

    /// A backup was restored: only what its log says happened.
    pub fn begins_anew(&mut self, scenario: &Scenario, events: &[Logged]) {
        *self = Self::default();
        for logged in events {
            // It was looked at when it happened first.
            drop(self.note(scenario, logged));
        }
    }

    /// Harm that is far beyond the margin never gets past the judge where there is traffic to see it by.
    fn judged(&self, scenario: &Scenario, id: RolloutId) -> Check {
        let Some(plan) = self.plans.get(&id) else {
            return Ok(());
        };
        let (Some(candidate), Some(base)) = (&plan.candidate, &plan.base) else {
            return Ok(());
        };
        let harm = |release: &hotswap_core::ids::ReleaseRef| {
            let behaviour = scenario.release(&release.digest).map(|plan| plan.behaviour);
            matches!(behaviour, Some(Behaviour::Errs(_) | Behaviour::Slow(_)))
        };
        let judged = plan.steps.iter().any(|step| step.gate == Gate::Judge);
        let rates = scenario
            .nodes
            .iter()
            .filter(|node| plan.order.contains(&node.id))
            .map(|node| node.rate);
        let seen = rates.min().is_some_and(|rate| rate >= 400);
        let escapes =
            judged && seen && plan.kind.routes() && !plan.reverse && !self.waved_through.contains(&id);
        if harm(candidate) && !harm(base) && escapes {
            let what = format!(
                "the judge let {} {candidate} through in {}",
                plan.module, plan.environment
            );
            return Err(Violation {
                invariant: Invariant::S5Steps,
                what,
            });
        }
        Ok(())
    }

    /// At the end of a calm run all that could succeed did.
    pub fn end(&self, scenario: &Scenario, state: &State) -> Check {
        if scenario.profile != Profile::Calm {
            return Ok(());
        }
        for (id, status, message) in &self.ended {
            let Some((target, module)) = self.targets.get(id) else {
                continue;
            };
            let has_nodes = scenario.nodes.iter().any(|node| node.environment == *target);
            let downgrade = message.contains("newer than");
            if has_nodes && *status != DeploymentStatus::Succeeded && !downgrade {
                let stages = state.finished.get(id).map(|deployment| {
                    let failed = deployment
                        .stages
                        .iter()
                        .find(|stage| stage.status == StageStatus::Failed);
                    failed.map_or_else(String::new, |stage| {
                        format!("{}: {}", stage.kind.name(), stage.message)
                    })
                });
                let what = format!(
                    "nothing was wrong with {module}, and its deployment {id} to {target} ended {status:?}: {message} [{}]",
                    stages.unwrap_or_default()
                );
                return Err(Violation {
                    invariant: Invariant::L1Ends,
                    what,
                });
            }
        }
        Ok(())
    }
}
