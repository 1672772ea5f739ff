//! What reports alone bring about: nodes that join or describe themselves anew, and vetoes.

use super::node_commands;
use crate::event::Event;
use crate::ids::{NodeId, ReleaseRef};
use crate::observe::{Observations, veto_known};
use crate::report::Veto;
use crate::rollout::{Exclusion, Rollout};
use crate::state::{EnvModule, NODES_MAX, State};
use crate::time::Now;

pub(super) fn tick(state: &State, obs: &Observations, now: Now) -> Vec<Event> {
    let mut events = Vec::new();
    for (node, hello) in obs.undescribed() {
        match state.nodes.get(node) {
            Some(_) => events.push(Event::NodeDescribed {
                node: node.clone(),
                hostname: hello.hostname.clone(),
                labels: hello.labels.clone(),
            }),
            None if state.nodes.len() + events.len() < NODES_MAX => {
                // A node that wants an environment that isn't there stays unregistered, and is shown as such.
                if let Ok(environment) = state.environment(&hello.environment) {
                    events.push(Event::NodeRegistered {
                        node: node.clone(),
                        environment: environment.name.clone(),
                        hostname: hello.hostname.clone(),
                        labels: hello.labels.clone(),
                    });
                }
            }
            None => {}
        }
    }
    for (node, veto) in obs.vetoing() {
        if !veto_known(state, node, veto) {
            events.extend(vetoed(state, node, veto));
        }
    }
    if events.is_empty() {
        events = node_commands::drain_due(state, obs, now);
    }
    events
}

/// A veto that says something becomes an exception, and under its rollout an exclusion.
fn vetoed(state: &State, node: &NodeId, veto: &Veto) -> Vec<Event> {
    let Some(record) = state.nodes.get(node) else {
        return Vec::new();
    };
    let Some(module) = state.env_module(&record.environment, &veto.module) else {
        return Vec::new();
    };
    let mut events = Vec::new();
    let rollout = module
        .rollout
        .as_deref()
        .filter(|rollout| rollout.plan.id == veto.rollout);
    if let Some(rollout) = rollout
        && !rollout.excluded.contains_key(node)
        && !rollout.excused.contains_key(node)
    {
        events.push(Event::NodeExcluded {
            key: rollout.key(),
            node: node.clone(),
            reason: Exclusion::Veto {
                reason: veto.reason.clone(),
            },
        });
    }
    events.push(Event::ExceptionRecorded {
        environment: record.environment.clone(),
        module: veto.module.clone(),
        node: node.clone(),
        rollout: veto.rollout,
        release: veto.release.clone(),
        base: match rollout.filter(|rollout| !rollout.plan.reverse) {
            Some(rollout) if rollout.plan.base.as_ref() != Some(&veto.release) => {
                before_it(module, rollout, node)
            }
            // It left what is stable itself: it alone knows what it still has.
            _ => veto.base.clone(),
        },
        reason: veto.reason.clone(),
    });
    events
}

/// What a node had before a rollout: what everyone had, unless it left that by itself.
fn before_it(module: &EnvModule, rollout: &Rollout, node: &NodeId) -> Option<ReleaseRef> {
    let earlier = module.exceptions.get(node);
    match earlier.filter(|earlier| earlier.rollout != rollout.plan.id) {
        Some(earlier) => earlier.base.clone(),
        None => rollout.plan.base.clone(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::apply::apply;
    use crate::event::Logged;
    use crate::ids::{Digest, Incarnation, RolloutId};
    use crate::policy::Environment;
    use crate::report::{Hello, NodeReport};
    use crate::spec::Generation;
    use crate::time::{CoreTime, WallTime};

    fn release(n: u8) -> ReleaseRef {
        ReleaseRef {
            version: semver::Version::new(u64::from(n), 0, 0),
            digest: Digest([n; 32]),
            config: 0,
        }
    }

    fn veto(left: u8, base: u8) -> Veto {
        Veto {
            module: "shop".parse().unwrap(),
            rollout: RolloutId(7),
            release: release(left),
            base: Some(release(base)),
            reason: "it is ill".to_owned(),
        }
    }

    fn fold(state: &mut State, events: Vec<Event>) {
        for event in events {
            let (seq, epoch) = (state.seq + 1, state.epoch);
            let (at, wall) = (CoreTime(0), WallTime(0));
            apply(
                state,
                &Logged {
                    seq,
                    epoch,
                    at,
                    wall,
                    event,
                },
            );
        }
    }

    /// A node whose exception for 5 has the base 3 says these vetoes: what it is given in the end.
    fn given(vetoes: Vec<Veto>) -> Option<ReleaseRef> {
        let node: NodeId = "n1".parse().unwrap();
        let environments = Environment::defaults();
        let environment = environments[0].name.clone();
        let first = veto(5, 3);
        let mut state = State::default();
        let recorded = Event::ExceptionRecorded {
            environment: environment.clone(),
            module: first.module.clone(),
            node: node.clone(),
            rollout: first.rollout,
            release: first.release,
            base: first.base,
            reason: first.reason,
        };
        let registered = Event::NodeRegistered {
            node: node.clone(),
            environment: environment.clone(),
            hostname: "n1".to_owned(),
            labels: BTreeMap::new(),
        };
        let configured = Event::EnvironmentsConfigured { environments };
        fold(&mut state, vec![configured, registered, recorded]);
        let mut obs = Observations::new(Now::default());
        let hello = Hello {
            hostname: "n1".to_owned(),
            environment: environment.clone(),
            ingress: String::new(),
            labels: BTreeMap::new(),
            agent_version: String::new(),
            capabilities: Vec::new(),
        };
        let report = NodeReport {
            node: node.clone(),
            incarnation: Incarnation(1),
            seq: 1,
            hello: Some(hello),
            highest: Generation::default(),
            modules: BTreeMap::new(),
            vetoes,
            intervals: Vec::new(),
            health: None,
            loads: Vec::new(),
        };
        obs.absorb(&state, report, Now::default());
        for _ in 0..3 {
            let events = tick(&state, &obs, Now::default());
            fold(&mut state, events);
            obs.after_apply(&state);
        }
        assert!(tick(&state, &obs, Now::default()).is_empty(), "it comes to rest");
        let module = state.env_module(&environment, &"shop".parse().unwrap()).unwrap();
        module.exceptions[&node].base.clone()
    }

    #[test]
    fn a_node_that_leaves_its_base_too_is_not_given_it_any_more() {
        assert_eq!(given(vec![veto(5, 3)]), Some(release(3)));
        assert_eq!(given(vec![veto(3, 1)]), Some(release(1)));
        assert_eq!(given(vec![veto(5, 3), veto(3, 1)]), Some(release(1)));
    }
}
