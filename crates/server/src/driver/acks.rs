//! What a node need not send again.

use hotswap_core::ids::{Incarnation, ModuleName, NodeId, RolloutId};
use hotswap_core::observe::veto_known;
use hotswap_core::report::{NodeReport, Veto};
use hotswap_core::state::State;
use hotswap_wire::{Ack, AckedInterval, AckedVeto};

/// What a report wants acknowledged once what came of it is durable.
pub(super) struct Receipt {
    pub(super) node: NodeId,
    incarnation: Incarnation,
    seq: u64,
    vetoes: Vec<Veto>,
    /// The last one of each rollout.
    intervals: Vec<(ModuleName, RolloutId, u32)>,
}

impl Receipt {
    /// `None` for a report that leaves a node nothing to send again, as heartbeats do: to answer each of them would
    /// cost more than to take it in.
    pub(super) fn of(report: &NodeReport) -> Option<Self> {
        if report.vetoes.is_empty() && report.intervals.is_empty() {
            return None;
        }
        let mut intervals: Vec<(ModuleName, RolloutId, u32)> = Vec::new();
        for interval in &report.intervals {
            let known = intervals
                .iter_mut()
                .find(|(module, rollout, _)| *module == interval.module && *rollout == interval.rollout);
            match known {
                Some((_, _, last)) => *last = (*last).max(interval.number),
                None => intervals.push((interval.module.clone(), interval.rollout, interval.number)),
            }
        }
        Some(Self {
            node: report.node.clone(),
            incarnation: report.incarnation,
            seq: report.seq,
            vetoes: report.vetoes.clone(),
            intervals,
        })
    }

    /// What committed State says to it: vetoes that it knows, intervals that it folded or that nobody waits for.
    pub(super) fn ack(&self, state: &State) -> Ack {
        let vetoes = self
            .vetoes
            .iter()
            .filter(|veto| veto_known(state, &self.node, veto))
            .map(|veto| AckedVeto {
                module: veto.module.clone(),
                rollout: veto.rollout,
                release: veto.release.clone(),
            });
        let intervals = self.intervals.iter().filter_map(|(module, rollout, last)| {
            let number = self.folded(state, module, *rollout, *last)?;
            Some(AckedInterval {
                module: module.clone(),
                rollout: *rollout,
                number,
            })
        });
        Ack {
            seq: self.seq,
            vetoes: vetoes.collect(),
            intervals: intervals.collect(),
        }
    }

    fn folded(&self, state: &State, module: &ModuleName, rollout: RolloutId, last: u32) -> Option<u32> {
        let environment = &state.nodes.get(&self.node)?.environment;
        let waiting = state
            .env_module(environment, module)
            .and_then(|module| module.rollout.as_deref())
            .filter(|waiting| waiting.plan.id == rollout)
            .filter(|waiting| !waiting.excluded.contains_key(&self.node))
            .filter(|waiting| !waiting.excused.contains_key(&self.node));
        let Some(waiting) = waiting else { return Some(last) };
        let (incarnation, number) = waiting.last_folded(waiting.place(&self.node)?);
        (incarnation == self.incarnation && number > 0).then_some(number)
    }
}
