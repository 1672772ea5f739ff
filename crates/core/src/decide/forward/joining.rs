//! Who joins a step, who is late, who comes back.

use super::{Engine, go_back};
use crate::decide::nodes::{is_unavailable, is_unknown};
use crate::event::Event;
use crate::explain::Wait;
use crate::ids::NodeId;
use crate::mutants::{Mutant, is_on};
use crate::observe::Presence;
use crate::rollout::{BackReason, Excuse, Step, StepPass};

impl Engine<'_> {
    /// Starts a step with those of its cohort that can be counted on.
    pub(super) fn start(&self, step: u32) -> Result<Vec<Event>, Wait> {
        let rollout = self.rollout;
        let policy = &rollout.plan.policy;
        let Some(planned) = rollout.plan.steps.get(step as usize) else {
            return Ok(self.steps_done());
        };
        let mut events = Vec::new();
        let mut joins = Vec::new();
        let mut unknown = Vec::new();
        for node in self.candidates_of(step, planned) {
            let presence = self.obs.presence(node, self.now.core);
            if is_unknown(presence, policy.silence_max) {
                unknown.push((node, "not heard of yet"));
            } else if is_unavailable(presence, policy.silence_max) {
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
            return Err(Wait::nodes(&unknown));
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
    pub(super) fn all_away(&self, excused_now: &[Event]) -> Option<BackReason> {
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
    pub(super) fn late(&self) -> Vec<&NodeId> {
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
        rollout
            .places_of(&env.nodes)
            .filter(|(_, place)| place.is_none())
            .map(|(node, _)| node)
            .filter(|node| self.may_join(node))
            .filter(|node| matches!(self.obs.presence(node, self.now.core), Presence::Known { .. }))
            .collect()
    }

    /// Nodes that were excused for being away or drained, and are back.
    pub(super) fn returners(&self) -> Vec<&NodeId> {
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
}
