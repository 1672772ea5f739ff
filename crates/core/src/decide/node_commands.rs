//! Drains and labels.
//!
//! A drain is a wish first: the node goes on serving until its environment can spare it, as far as its policy lets nodes
//! be unavailable, or until the wish's deadline has passed. Then it serves nothing, and is in no roster, until an
//! operator ends it.

use std::collections::BTreeMap;
use std::fmt;

use super::Reply;
use super::command::{Accepted, excuse_everywhere};
use super::nodes::is_unavailable;
use crate::command::Refusal;
use crate::event::Event;
use crate::ids::NodeId;
use crate::observe::Observations;
use crate::policy::Strategy;
use crate::report::LABELS_MAX;
use crate::rollout::Excuse;
use crate::state::{Node, State};
use crate::time::{Millis, Now, WallTime};

/// Longest wait for an environment to be able to spare a node: as long as a hold lasts by default.
pub const DRAIN_DEADLINE_MAX: Millis = Millis::from_secs(24 * 3_600);

/// Why an environment can't spare a node now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unspared {
    /// Other nodes of it that are away or drained.
    pub away: u32,
    /// How many may be, this one included.
    pub allowed: u32,
}

impl fmt::Display for Unspared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { away, allowed } = self;
        let are = if *away == 1 { "node is" } else { "nodes are" };
        write!(f, "{away} {are} away or drained and {allowed} may be")
    }
}

/// Whether a node's environment can spare it now. Direct takes the whole environment at once anyway; a node that is
/// away has nothing left to lose.
///
/// # Errors
/// It can't, since too many others are away or drained.
pub fn spare(state: &State, obs: &Observations, node: &NodeId, now: Now) -> Result<(), Unspared> {
    let Some(record) = state.nodes.get(node) else {
        return Ok(());
    };
    let Ok(environment) = state.environment(&record.environment) else {
        return Ok(());
    };
    let policy = &environment.policy;
    let away = |node: &NodeId| is_unavailable(obs.presence(node, now.core), policy.silence_max);
    if environment.strategy == Strategy::Direct || away(node) {
        return Ok(());
    }
    let members = state
        .envs
        .get(&record.environment)
        .into_iter()
        .flat_map(|env| &env.nodes);
    let others = members.filter(|other| *other != node);
    let lost = others.filter(|other| state.nodes.get(*other).is_some_and(Node::is_drained) || away(other));
    let away = u32::try_from(lost.count()).expect("nodes are bounded by NODES_MAX");
    let allowed = policy.max_unavailable;
    if away < allowed {
        Ok(())
    } else {
        Err(Unspared { away, allowed })
    }
}

/// The next drain that is due, if one is. One at a time: each changes what the environment can spare.
pub(super) fn drain_due(state: &State, obs: &Observations, now: Now) -> Vec<Event> {
    for node in &state.draining {
        let Some(drain) = state.nodes.get(node).and_then(|record| record.drain.as_ref()) else {
            continue;
        };
        if now.wall < drain.until && spare(state, obs, node, now).is_err() {
            continue;
        }
        let mut events = excuse_everywhere(state, node, Excuse::Drained).unwrap_or_default();
        events.push(Event::NodeDrained { node: node.clone() });
        return events;
    }
    Vec::new()
}

fn known<'a>(state: &'a State, node: &NodeId) -> Result<&'a Node, Refusal> {
    state
        .nodes
        .get(node)
        .ok_or_else(|| Refusal::UnknownNode(node.clone()))
}

fn one_node() -> Reply {
    Reply {
        nodes_affected: 1,
        ..Reply::default()
    }
}

pub(super) fn drain(
    state: &State,
    node: NodeId,
    until: WallTime,
    reason: String,
    by: String,
) -> Result<Accepted, Refusal> {
    let record = known(state, &node)?;
    if let Some(drain) = record.drain.as_ref().filter(|drain| drain.taken) {
        return Err(Refusal::NotNow(format!(
            "{node} was drained by {} already; undrain it first",
            drain.by
        )));
    }
    let event = Event::NodeDrainRequested {
        node,
        until,
        reason,
        by,
    };
    Ok((vec![event], one_node()))
}

pub(super) fn undrain(state: &State, node: NodeId, by: String) -> Result<Accepted, Refusal> {
    if known(state, &node)?.drain.is_none() {
        return Err(Refusal::NotNow(format!("{node} is not drained")));
    }
    Ok((vec![Event::NodeUndrained { node, by }], one_node()))
}

pub(super) fn set_labels(
    state: &State,
    node: NodeId,
    set: BTreeMap<String, Option<String>>,
    by: String,
) -> Result<Accepted, Refusal> {
    let record = known(state, &node)?;
    let mut overrides = record.overrides.clone();
    for (key, value) in set {
        match value {
            Some(value) => drop(overrides.insert(key, value)),
            None => drop(overrides.remove(&key)),
        }
    }
    if overrides.len() > LABELS_MAX {
        return Err(Refusal::NotNow(format!(
            "{node} would have {} labels set, and {LABELS_MAX} may be; take some back first",
            overrides.len()
        )));
    }
    let events = if overrides == record.overrides {
        Vec::new()
    } else {
        vec![Event::NodeLabelsSet { node, overrides, by }]
    };
    Ok((events, one_node()))
}
