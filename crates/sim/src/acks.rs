//! A node's session with a server, and what it need not send again.

use std::collections::BTreeMap;

use hotswap_core::event::RolloutKey;
use hotswap_core::ids::{Incarnation, ModuleName, NodeId, RolloutId};
use hotswap_core::observe::{Observations, folded_up_to, veto_known};
use hotswap_core::spec::NodeSpec;
use hotswap_core::state::State;

use crate::server::Outbound;

/// One node's session.
#[derive(Clone, Debug, Default)]
pub(crate) struct Session {
    /// Its number.
    pub(crate) id: u64,
    /// The newest spec that it was sent.
    pub(crate) sent: Option<NodeSpec>,
    /// What its intervals are of, and the newest of each that came.
    pub(crate) intervals: BTreeMap<(ModuleName, RolloutId), (Incarnation, u32)>,
}

/// What a node need not send again, by what is durable.
pub(crate) fn acks(
    state: &State,
    obs: &Observations,
    (node, id): (usize, &NodeId),
    session: &mut Session,
    out: &mut Vec<Outbound>,
) {
    let said = obs.node(id);
    for veto in said
        .iter()
        .flat_map(|said| &said.vetoes)
        .filter(|veto| veto_known(state, id, veto))
    {
        let (module, release) = (veto.module.clone(), veto.release.clone());
        out.push(Outbound::AckVeto(node, session.id, module, veto.rollout, release));
    }
    if session.intervals.is_empty() {
        return;
    }
    let environment = state.nodes.get(id).map(|record| &record.environment);
    session
        .intervals
        .retain(|(module, rollout), (incarnation, newest)| {
            let key = environment.map(|environment| RolloutKey {
                environment: environment.clone(),
                module: module.clone(),
                rollout: *rollout,
            });
            let folded = match key.and_then(|key| folded_up_to(state, &key, id)) {
                Some((folded, number)) if folded == *incarnation => number,
                Some(_) => 0,
                // Nobody waits for them any more.
                None => *newest,
            };
            if folded > 0 {
                out.push(Outbound::AckIntervals(
                    node,
                    session.id,
                    module.clone(),
                    *rollout,
                    folded,
                ));
            }
            folded < *newest
        });
}
