//! What releases need of nodes, and what nodes have.
//!
//! Both are words: a kind (`process`), or a key with a value (`arch:x86_64`). A node can run a release if it names every
//! word that the release needs; `kernel>=6.6` is needed of the release that it names as `kernel:6.18.4`, and of
//! `kernel:A|kernel:B` one is enough. What a node has not said is not known, and never counts against it.

use crate::ids::{EnvName, NodeId};
use crate::observe::Observations;
use crate::release::Release;
use crate::state::State;

/// Most words that a release needs.
pub const NEEDS_MAX: usize = 32;

impl Release {
    /// Every word that a node must name: at least the kind.
    pub fn needs(&self) -> impl Iterator<Item = &str> {
        let kind = self.kind.name();
        let has_kind = self.needs.iter().any(|need| need == kind);
        let kind = (!has_kind).then_some(kind);
        kind.into_iter().chain(self.needs.iter().map(String::as_str))
    }
}

/// What a node lacks for a release, as a sentence about it. `None`: nothing, or it has not said what it has.
pub fn lack(obs: &Observations, node: &NodeId, release: &Release) -> Option<String> {
    let has = &obs.node(node)?.hello.as_ref()?.capabilities;
    let lacks: Vec<&str> = release
        .needs()
        .filter(|need| has.iter().all(|word| !meets(word, need)))
        .collect();
    if lacks.is_empty() {
        return None;
    }
    let has = if has.is_empty() {
        "nothing".to_owned()
    } else {
        has.join(", ")
    };
    let lacks = lacks.join(" and ").replace('|', " or ");
    Some(format!("lacks {lacks} (it has {has})"))
}

/// Whether a word that a node has is what a release needs.
fn meets(word: &str, need: &str) -> bool {
    need.split('|').any(|one| meets_one(word, one))
}

fn meets_one(word: &str, need: &str) -> bool {
    let Some((key, least)) = need.split_once(">=") else {
        return word == need;
    };
    let value = word.strip_prefix(key).and_then(|rest| rest.strip_prefix(':'));
    value.is_some_and(|value| numbers(value) >= numbers(least))
}

/// The first two numbers of a release such as `6.18.4-cloud`.
fn numbers(release: &str) -> [u64; 2] {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    [(); 2].map(|()| numbers.next().and_then(Result::ok).unwrap_or(0))
}

/// Every node of an environment with what it lacks for a release, if none of them can run it. `None` where one can,
/// where one has not said, and where there is none.
pub fn none_able(
    state: &State,
    obs: &Observations,
    environment: &EnvName,
    release: &Release,
) -> Option<Vec<(NodeId, String)>> {
    let nodes = &state.envs.get(environment)?.nodes;
    let lacks: Option<Vec<_>> = nodes
        .iter()
        .map(|node| Some((node.clone(), lack(obs, node, release)?)))
        .collect();
    lacks.filter(|lacks| !lacks.is_empty())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::apply::apply;
    use crate::event::{Event, Logged};
    use crate::ids::{Digest, Incarnation};
    use crate::policy::Environment;
    use crate::release::Kind;
    use crate::report::{Hello, NodeReport};
    use crate::spec::Generation;
    use crate::time::{CoreTime, Now, WallTime};

    fn native(needs: &[&str]) -> Release {
        Release {
            digest: Digest([1; 32]),
            kind: Kind::Process,
            size: 1,
            pushed_at: WallTime(0),
            pushed_by: "ada".to_owned(),
            signed_by: None,
            needs: needs.iter().map(|&need| need.to_owned()).collect(),
        }
    }

    /// Nodes of one environment, each with what it says that it has, or nothing said.
    fn none_of(nodes: &[(&str, Option<&[&str]>)], release: &Release) -> Option<Vec<String>> {
        let environments = Environment::defaults();
        let environment = environments[0].name.clone();
        let mut events = vec![Event::EnvironmentsConfigured { environments }];
        events.extend(nodes.iter().map(|(node, _)| Event::NodeRegistered {
            node: node.parse().unwrap(),
            environment: environment.clone(),
            hostname: (*node).to_owned(),
            labels: BTreeMap::new(),
        }));
        let mut state = State::default();
        for event in events {
            let logged = Logged {
                seq: state.seq + 1,
                epoch: state.epoch,
                at: CoreTime(0),
                wall: WallTime(0),
                event,
            };
            apply(&mut state, &logged);
        }
        let mut obs = Observations::new(Now::default());
        for (node, has) in nodes {
            let Some(has) = has else { continue };
            let report = NodeReport {
                node: node.parse().unwrap(),
                incarnation: Incarnation(1),
                seq: 1,
                hello: Some(Hello {
                    hostname: (*node).to_owned(),
                    environment: environment.clone(),
                    ingress: String::new(),
                    labels: BTreeMap::new(),
                    agent_version: String::new(),
                    capabilities: has.iter().map(|&word| word.to_owned()).collect(),
                }),
                highest: Generation::default(),
                modules: BTreeMap::new(),
                vetoes: Vec::new(),
                intervals: Vec::new(),
                health: None,
                loads: Vec::new(),
            };
            obs.absorb(&state, report, Now::default());
        }
        let lacks = none_able(&state, &obs, &environment, release)?;
        Some(
            lacks
                .into_iter()
                .map(|(node, lack)| format!("{node} {lack}"))
                .collect(),
        )
    }

    #[test]
    fn an_environment_is_unable_only_if_every_node_said_so() {
        let release = native(&["process", "arch:x86_64"]);
        let wasm: Option<&[&str]> = Some(&["wasm", "arch:x86_64"]);
        let other: Option<&[&str]> = Some(&["process", "arch:aarch64"]);
        let able: Option<&[&str]> = Some(&["wasm", "process", "arch:x86_64"]);
        assert_eq!(
            none_of(&[("a", wasm), ("b", other), ("c", Some(&[]))], &release).unwrap(),
            [
                "a lacks process (it has wasm, arch:x86_64)",
                "b lacks arch:x86_64 (it has process, arch:aarch64)",
                "c lacks process and arch:x86_64 (it has nothing)",
            ]
        );
        for nodes in [
            vec![],
            vec![("a", wasm), ("b", able)],
            vec![("a", wasm), ("b", None)],
        ] {
            assert_eq!(none_of(&nodes, &release), None);
        }
    }

    #[test]
    fn a_kernel_is_new_enough_by_its_numbers() {
        for (word, need, met) in [
            ("kernel:6.18.4-cloud", "kernel>=6.6", true),
            ("kernel:6.6.0", "kernel>=6.6", true),
            ("kernel:6.5.99", "kernel>=6.6", false),
            ("kernel:5.15", "kernel>=6.6", false),
            ("kernel:7.0", "kernel>=6.6", true),
            ("kernel:", "kernel>=6.6", false),
            ("arch:9.9", "kernel>=6.6", false),
            ("btf", "btf", true),
            ("kernel:6.1.0-40", "kernel:6.1.0-39|kernel:6.1.0-40", true),
            ("kernel:6.1.0-4", "kernel:6.1.0-39|kernel:6.1.0-40", false),
        ] {
            assert_eq!(meets(word, need), met, "{word} for {need}");
        }
        let release = native(&["process", "kernel>=6.6"]);
        let old: Option<&[&str]> = Some(&["process", "kernel:5.15.0"]);
        assert_eq!(
            none_of(&[("a", old)], &release).unwrap(),
            ["a lacks kernel>=6.6 (it has process, kernel:5.15.0)"]
        );
        let built = native(&["process", "kernel:6.1.0-39|kernel:6.1.0-40"]);
        assert_eq!(
            none_of(&[("a", old)], &built).unwrap(),
            ["a lacks kernel:6.1.0-39 or kernel:6.1.0-40 (it has process, kernel:5.15.0)"]
        );
    }

    #[test]
    fn a_release_needs_at_least_its_kind() {
        assert_eq!(native(&[]).needs().collect::<Vec<_>>(), ["process"]);
        assert_eq!(
            native(&["process", "btf"]).needs().collect::<Vec<_>>(),
            ["process", "btf"]
        );
        assert!(none_of(&[("a", Some(&["wasm"]))], &native(&[])).is_some());
    }
}
