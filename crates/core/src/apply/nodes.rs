//! Nodes: known, labelled, drained, moved, removed.

use std::collections::BTreeMap;

use crate::event::Event;
use crate::ids::{EnvName, NodeId};
use crate::state::{Drain, Exception, Node, State};
use crate::time::Now;

pub(super) fn nodes(state: &mut State, event: &Event, now: Now) {
    let seq = state.seq;
    match event {
        Event::NodeRegistered {
            node,
            environment,
            hostname,
            labels,
        } => {
            enter_environment(state, node, environment);
            let record = Node {
                environment: environment.clone(),
                hostname: hostname.clone(),
                labels: labels.clone(),
                overrides: BTreeMap::new(),
                drain: None,
                touched: seq,
                registered: now.wall,
            };
            state.nodes.insert(node.clone(), record);
        }
        Event::NodeDescribed {
            node,
            hostname,
            labels,
        } => {
            if let Some(record) = state.nodes.get_mut(node) {
                record.hostname.clone_from(hostname);
                record.labels.clone_from(labels);
            }
        }
        Event::NodeMoved {
            node, environment, ..
        } => {
            leave_environment(state, node);
            enter_environment(state, node, environment);
            if let Some(record) = state.nodes.get_mut(node) {
                record.environment = environment.clone();
                record.touched = seq;
            }
        }
        Event::NodeRemoved { node, .. } => {
            leave_environment(state, node);
            state.nodes.remove(node);
            state.draining.remove(node);
        }
        Event::NodeLabelsSet { node, overrides, .. } => {
            if let Some(record) = state.nodes.get_mut(node) {
                record.overrides.clone_from(overrides);
            }
        }
        Event::NodeDrainRequested { .. } | Event::NodeDrained { .. } | Event::NodeUndrained { .. } => {
            drains(state, event, now);
        }
        Event::ExceptionRecorded {
            environment,
            module,
            node,
            rollout,
            release,
            base,
            reason,
        } => {
            let exception = Exception {
                rollout: *rollout,
                release: release.clone(),
                base: base.clone(),
                reason: reason.clone(),
            };
            let env = state.envs.entry(environment.clone()).or_default();
            env.modules
                .entry(module.clone())
                .or_default()
                .exceptions
                .insert(node.clone(), exception);
            if let Some(record) = state.nodes.get_mut(node) {
                record.touched = seq;
            }
        }
        _ => unreachable!("only node events come here"),
    }
}

fn drains(state: &mut State, event: &Event, now: Now) {
    let seq = state.seq;
    match event {
        Event::NodeDrainRequested {
            node,
            until,
            reason,
            by,
        } => {
            if let Some(record) = state.nodes.get_mut(node) {
                record.drain = Some(Drain {
                    by: by.clone(),
                    reason: reason.clone(),
                    since: now.wall,
                    until: *until,
                    taken: false,
                });
                state.draining.insert(node.clone());
            }
        }
        Event::NodeDrained { node } => {
            state.draining.remove(node);
            if let Some(record) = state.nodes.get_mut(node) {
                record.touched = seq;
                if let Some(drain) = &mut record.drain {
                    drain.taken = true;
                }
            }
        }
        Event::NodeUndrained { node, .. } => {
            state.draining.remove(node);
            if let Some(record) = state.nodes.get_mut(node) {
                record.drain = None;
                record.touched = seq;
            }
        }
        _ => unreachable!("only drains come here"),
    }
}

fn enter_environment(state: &mut State, node: &NodeId, environment: &EnvName) {
    let env = state.envs.entry(environment.clone()).or_default();
    env.nodes.insert(node.clone());
}

fn leave_environment(state: &mut State, node: &NodeId) {
    let Some(record) = state.nodes.get(node) else {
        return;
    };
    if let Some(env) = state.envs.get_mut(&record.environment) {
        env.nodes.remove(node);
        for module in env.modules.values_mut() {
            module.exceptions.remove(node);
        }
    }
}
