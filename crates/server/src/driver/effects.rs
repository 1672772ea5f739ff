//! What leaves the driver after a commit: specs and acknowledgements to sessions, and checks to run. All of it is
//! derived from State, so that a restart needs no memory of what was sent.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use hotswap_core::checks::{CheckRequest, outstanding};
use hotswap_core::decide::CheckResult;
use hotswap_core::desired::{desired, generation, knows_more};
use hotswap_core::ids::{DeploymentId, EnvName, NodeId};
use hotswap_core::observe::Observations;
use hotswap_core::spec::Generation;
use hotswap_core::state::State;

use super::acks::Receipt;
use crate::checks::Checks;
use crate::fleet::{Outbox, SessionId};

/// One node's session.
struct Session {
    id: SessionId,
    outbox: Arc<Outbox>,
    /// Whether its full report came: before it nothing is sent.
    reported: bool,
    /// The newest spec sent in this session.
    sent: Option<Generation>,
    /// It knows newer specs than this log: it gets none until the fleet is adopted.
    ahead: bool,
}

/// Every node's session, and what it was sent.
#[derive(Default)]
pub(super) struct Sessions {
    by_node: HashMap<NodeId, Session>,
    /// Nodes to look at, whatever changed.
    due: BTreeSet<NodeId>,
    epoch: u64,
    /// The newest change of each environment that was sent on.
    touched: BTreeMap<EnvName, u64>,
}

impl Sessions {
    /// A session stands; an older one of the same node is told to end.
    pub(super) fn connect(&mut self, node: NodeId, id: SessionId, outbox: Arc<Outbox>) {
        let session = Session {
            id,
            outbox,
            reported: false,
            sent: None,
            ahead: false,
        };
        if let Some(older) = self.by_node.insert(node, session) {
            older.outbox.close("a newer session of this node took its place");
        }
    }

    /// Whether a session is its node's current one.
    pub(super) fn is_current(&self, node: &NodeId, id: SessionId) -> bool {
        self.by_node.get(node).is_some_and(|session| session.id == id)
    }

    /// A full report came.
    pub(super) fn reported(&mut self, node: &NodeId) {
        if let Some(session) = self.by_node.get_mut(node) {
            session.reported = true;
            self.due.insert(node.clone());
        }
    }

    /// A session fell. `false`: it had been replaced before.
    pub(super) fn disconnect(&mut self, node: &NodeId, id: SessionId) -> bool {
        let current = self.is_current(node, id);
        if current {
            self.by_node.remove(node);
        }
        current
    }

    /// Ends a removed node's session; it may come back as a new node.
    pub(super) fn remove(&mut self, node: &NodeId) {
        if let Some(session) = self.by_node.remove(node) {
            session.outbox.close("this node was removed from the fleet");
        }
    }

    pub(super) fn close_all(&mut self, why: &'static str) {
        for session in self.by_node.values() {
            session.outbox.close(why);
        }
    }

    /// Sends each connected node whose spec is newer than what it was sent that spec. Costs as much as changed.
    pub(super) fn send_specs(&mut self, state: &State, obs: &Observations, changed: &[NodeId]) {
        self.due.extend(changed.iter().cloned());
        let all = std::mem::replace(&mut self.epoch, state.epoch) != state.epoch;
        if all {
            self.due.extend(self.by_node.keys().cloned());
        }
        for (name, environment) in &state.envs {
            if self.touched.get(name) != Some(&environment.touched) {
                self.touched.insert(name.clone(), environment.touched);
                self.due.extend(environment.nodes.iter().cloned());
            }
        }
        for node in std::mem::take(&mut self.due) {
            if let Some(session) = self.by_node.get_mut(&node) {
                session.send_spec(&node, state, obs);
            }
        }
    }

    /// Acknowledges what is durable.
    pub(super) fn acknowledge(&self, state: &State, receipts: impl Iterator<Item = Receipt>) {
        for receipt in receipts {
            if let Some(session) = self.by_node.get(&receipt.node) {
                session.outbox.ack(receipt.ack(state));
            }
        }
    }
}

impl Session {
    fn send_spec(&mut self, node: &NodeId, state: &State, obs: &Observations) {
        let Some(newest) = generation(state, node) else {
            return;
        };
        if !self.reported || self.sent.is_some_and(|sent| sent >= newest) {
            return;
        }
        let highest = obs.node(node).map_or_else(Generation::default, |obs| obs.highest);
        if knows_more(state, highest) {
            if !std::mem::replace(&mut self.ahead, true) {
                tracing::error!(
                    %node,
                    node_epoch = highest.epoch,
                    node_seq = highest.seq,
                    epoch = state.epoch,
                    seq = state.seq,
                    "this node knows specs that this log doesn't: was a backup restored? It gets none until the fleet is \
                     adopted: `hotswap adopt`"
                );
            }
            return;
        }
        self.ahead = false;
        if let Some(spec) = desired(state, node) {
            self.sent = Some(newest);
            self.outbox.spec(spec);
        }
    }
}

/// Checks that are under way, so that each attempt is run once.
pub(super) struct Outstanding {
    checks: Checks,
    running: BTreeSet<(DeploymentId, u32, u32)>,
}

impl Outstanding {
    pub(super) fn new(checks: Checks) -> Self {
        Self {
            checks,
            running: BTreeSet::new(),
        }
    }

    /// A result came; if it isn't recorded, the check is outstanding again.
    pub(super) fn ended(&mut self, result: &CheckResult) {
        self.running
            .remove(&(result.deployment, result.stage, result.attempt));
    }

    /// Starts what State asks for and isn't under way.
    pub(super) fn start(&mut self, state: &State) {
        for request in outstanding(state) {
            if self.running.insert(key(&request)) {
                self.checks.start(request);
            }
        }
    }
}

fn key(request: &CheckRequest) -> (DeploymentId, u32, u32) {
    (request.deployment, request.stage, request.attempt)
}
