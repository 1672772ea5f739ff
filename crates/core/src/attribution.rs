//! Where harm is: on every node, or on those of one zone, or on a single one. A release that is bad everywhere and one
//! that is bad only together with some machines call for different work.
//!
//! The verdict doesn't depend on this, so its error bound stays what it is. It rests on the nodes that evidence keeps
//! apart. Whether harm is *shown* for the named part is tested with the same α: each node's evidence about errors is an
//! e-process; those of a label's nodes multiply, with Bonferroni's correction over all labels; single nodes are named by
//! e-BH (Wang, Ramdas, J. R. Stat. Soc. B 84(3) 2022), which bounds the expected share of wrong names by α whatever the
//! nodes have to do with each other.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::analysis::{Judge, NodeArm, NodeEvidence, Rate, Signal};
use crate::ids::NodeId;
use crate::rollout::Rollout;
use crate::state::State;

/// A part of the cohort that has this share of the harm has all of it, but for chance.
const HARM_SHARE_MIN: f64 = 0.9;
/// And it is a part only if it has at most this share of the candidate's requests.
const REQUESTS_SHARE_MAX: f64 = 0.5;
/// Requests that weigh a node's own control against the whole cohort's.
const SHRINK_REQUESTS: f64 = 50.0;
/// Most nodes that are named.
const NODES_NAMED_MAX: usize = 8;

/// The part of the cohort that has the harm.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Attribution {
    /// What the harm is in.
    pub signal: Signal,
    /// Which part it is.
    pub part: Part,
    /// How many nodes that part has, of those that were looked at.
    pub nodes: u32,
    /// How many were looked at.
    pub nodes_seen: u32,
    /// The part's share of the harm, in %.
    pub harm_percent: u8,
    /// Whether harm is shown for the part with the judge's α; known for errors only.
    pub shown: bool,
    /// Error rates within the part: candidate, control.
    pub here: (Rate, Rate),
    /// And on all other nodes.
    pub elsewhere: (Rate, Rate),
}

/// Which part of a cohort.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "camelCase")]
pub enum Part {
    /// All of it: the release is bad wherever it runs.
    Everywhere,
    /// The nodes with a label.
    Label {
        /// The label's name.
        key: String,
        /// Its value.
        value: String,
    },
    /// Some nodes that no label tells from the others.
    Nodes {
        /// The first few of them.
        names: Vec<NodeId>,
    },
}

/// Where the harm of a rollout is; `None` where none is shown, or fewer than two nodes were seen.
pub fn attribution(state: &State, rollout: &Rollout) -> Option<Attribution> {
    let nothing = BTreeMap::new();
    attribute(&rollout.judge, &rollout.plan.order, |node| {
        state.nodes.get(node).map_or(&nothing, |record| &record.labels)
    })
}

/// The same from a judge, the drawn order and the nodes' labels.
pub fn attribute<'a>(
    judge: &Judge,
    order: &'a [NodeId],
    labels: impl Fn(&NodeId) -> &'a BTreeMap<String, String>,
) -> Option<Attribution> {
    let signal = judge.blamed()?;
    let evidence: Vec<NodeEvidence> = judge.nodes().collect();
    let nodes: Vec<Seen<'a>> = seen(signal, &evidence, order, labels);
    let harm: f64 = nodes.iter().map(|node| node.excess).sum();
    if nodes.len() < 2 || harm <= 0.0 {
        return None;
    }
    let cohort = Cohort {
        signal,
        harm,
        requests: nodes.iter().map(|node| node.requests).sum(),
        alpha: judge.policy().alpha,
        nodes,
    };
    let by_label = cohort.by_label();
    let by_node = cohort.by_node();
    Some(match (by_label, by_node) {
        // A label whose nodes are mostly fine explains nothing.
        (Some(label), Some(some)) if 2 * some.nodes < label.nodes => some,
        (Some(label), _) => label,
        (None, Some(some)) => some,
        (None, None) => cohort.told(
            Part::Everywhere,
            &(0..cohort.nodes.len()).collect::<Vec<_>>(),
            false,
        ),
    })
}

/// A node that was looked at.
struct Seen<'a> {
    name: &'a NodeId,
    labels: &'a BTreeMap<String, String>,
    /// What the candidate did beyond the control on the same node, at least 0: errors, µs or KiB.
    excess: f64,
    requests: f64,
    log_e: f64,
    candidate: Rate,
    control: Rate,
}

fn seen<'a>(
    signal: Signal,
    evidence: &[NodeEvidence],
    order: &'a [NodeId],
    labels: impl Fn(&NodeId) -> &'a BTreeMap<String, String>,
) -> Vec<Seen<'a>> {
    let all = evidence.iter().fold(Rate::default(), |mut all, node| {
        let control = rate(&node.counts.control);
        all.of = all.of.saturating_add(control.of);
        all.bad = all.bad.saturating_add(control.bad);
        all
    });
    let both = evidence
        .iter()
        .filter(|node| node.counts.candidate.requests > 0 && node.counts.control.requests > 0);
    both.filter_map(|node| {
        let name = order.get(node.counts.place as usize)?;
        let (a, b) = (&node.counts.candidate, &node.counts.control);
        let excess = match signal {
            Signal::Errors | Signal::Probes => {
                let expected =
                    (b.errors as f64 + SHRINK_REQUESTS * all.share()) / (b.requests as f64 + SHRINK_REQUESTS);
                a.errors as f64 - a.requests as f64 * expected
            }
            Signal::Latency => {
                let mean = |arm: &NodeArm| arm.latency_us as f64 / arm.requests as f64;
                (mean(a) - mean(b)) * a.requests as f64
            }
            Signal::Cpu => {
                let served = a.requests.saturating_add(a.probes) as f64;
                (a.cpu_per_request_us()? - b.cpu_per_request_us()?) * served
            }
            Signal::Memory => a.memory_per_instance_kib()? - b.memory_per_instance_kib()?,
        };
        Some(Seen {
            name,
            labels: labels(name),
            excess: excess.max(0.0),
            requests: a.requests as f64,
            log_e: node.errors_log_e,
            candidate: rate(a),
            control: rate(b),
        })
    })
    .collect()
}

fn rate(arm: &NodeArm) -> Rate {
    Rate {
        of: arm.requests,
        bad: arm.errors,
    }
}

struct Cohort<'a> {
    signal: Signal,
    nodes: Vec<Seen<'a>>,
    harm: f64,
    requests: f64,
    alpha: f64,
}

impl Cohort<'_> {
    /// Whether some nodes have the harm though they are a part only.
    fn has_it(&self, part: &[usize]) -> bool {
        let sum = |of: fn(&Seen<'_>) -> f64| part.iter().map(|at| of(&self.nodes[*at])).sum::<f64>();
        sum(|node| node.excess) >= HARM_SHARE_MIN * self.harm
            && sum(|node| node.requests) <= REQUESTS_SHARE_MAX * self.requests
    }

    /// The smallest label that has the harm.
    fn by_label(&self) -> Option<Attribution> {
        let keys: BTreeSet<&String> = self.nodes.iter().flat_map(|node| node.labels.keys()).collect();
        let mut parts: Vec<(&String, &String, Vec<usize>)> = Vec::new();
        for key in keys {
            let mut values: BTreeMap<&String, Vec<usize>> = BTreeMap::new();
            for (at, node) in self.nodes.iter().enumerate() {
                if let Some(value) = node.labels.get(key) {
                    values.entry(value).or_default().push(at);
                }
            }
            // A label that is another on every node is a name, and no group.
            if values.len() < self.nodes.len() {
                parts.extend(values.into_iter().map(|(value, nodes)| (key, value, nodes)));
            }
        }
        let tested = parts.len() as f64;
        let (key, value, part) = parts
            .into_iter()
            .filter(|(_, _, part)| self.has_it(part))
            .min_by_key(|(_, _, part)| part.len())?;
        let log_e: f64 = part.iter().map(|at| self.nodes[*at].log_e).sum();
        let shown = self.is_about_errors() && log_e >= (tested / self.alpha).ln();
        let part_of = Part::Label {
            key: key.clone(),
            value: value.clone(),
        };
        Some(self.told(part_of, &part, shown))
    }

    /// The fewest nodes that have the harm.
    fn by_node(&self) -> Option<Attribution> {
        let mut order: Vec<usize> = (0..self.nodes.len()).collect();
        order.sort_by(|a, b| self.nodes[*b].excess.total_cmp(&self.nodes[*a].excess));
        let count = (1..=order.len()).find(|count| {
            let sum: f64 = order[..*count].iter().map(|at| self.nodes[*at].excess).sum();
            sum >= HARM_SHARE_MIN * self.harm
        })?;
        let part = &order[..count];
        if !self.has_it(part) {
            return None;
        }
        let named = self.named();
        let shown = self.is_about_errors() && part.iter().all(|at| named.contains(at));
        let names = part.iter().take(NODES_NAMED_MAX);
        let part_of = Part::Nodes {
            names: names.map(|at| self.nodes[*at].name.clone()).collect(),
        };
        Some(self.told(part_of, part, shown))
    }

    /// e-BH: the k nodes of the strongest evidence, for the largest k at which the k-th has at least n / (k α).
    fn named(&self) -> BTreeSet<usize> {
        let mut order: Vec<usize> = (0..self.nodes.len()).collect();
        order.sort_by(|a, b| self.nodes[*b].log_e.total_cmp(&self.nodes[*a].log_e));
        let enough = |k: usize| {
            let threshold = self.nodes.len() as f64 / (k as f64 * self.alpha);
            self.nodes[order[k - 1]].log_e >= threshold.ln()
        };
        let count = (1..=order.len()).rev().find(|k| enough(*k)).unwrap_or(0);
        order.into_iter().take(count).collect()
    }

    fn is_about_errors(&self) -> bool {
        matches!(self.signal, Signal::Errors | Signal::Probes)
    }

    fn told(&self, part: Part, nodes: &[usize], shown: bool) -> Attribution {
        let add = |sum: Rate, rate: Rate| Rate {
            of: sum.of.saturating_add(rate.of),
            bad: sum.bad.saturating_add(rate.bad),
        };
        let (mut here, mut elsewhere) = (<(Rate, Rate)>::default(), <(Rate, Rate)>::default());
        let mut harm = 0.0;
        for (at, node) in self.nodes.iter().enumerate() {
            let side = if nodes.contains(&at) {
                harm += node.excess;
                &mut here
            } else {
                &mut elsewhere
            };
            *side = (add(side.0, node.candidate), add(side.1, node.control));
        }
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a share in %"
        )]
        let harm_percent = (100.0 * harm / self.harm).round() as u8;
        Attribution {
            signal: self.signal,
            part,
            nodes: count(nodes.len()),
            nodes_seen: count(self.nodes.len()),
            harm_percent,
            shown,
            here,
            elsewhere,
        }
    }
}

impl Attribution {
    /// Whether only a part of the cohort has the harm.
    pub fn is_confined(&self) -> bool {
        self.part != Part::Everywhere
    }
}

impl fmt::Display for Attribution {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.part {
            Part::Everywhere => return write!(f, "on all {} nodes looked at alike", self.nodes_seen),
            Part::Label { key, value } => write!(f, "on {key}={value} alone")?,
            Part::Nodes { names } => {
                let names: Vec<&str> = names.iter().map(NodeId::as_str).collect();
                write!(f, "on {}", names.join(", "))?;
                if self.nodes as usize > names.len() {
                    write!(f, " and {} more", self.nodes as usize - names.len())?;
                }
                f.write_str(" alone")?;
            }
        }
        write!(
            f,
            " ({} of {} nodes with {} % of the harm",
            self.nodes, self.nodes_seen, self.harm_percent
        )?;
        if self.signal == Signal::Errors {
            let (candidate, control) = self.elsewhere;
            write!(f, "; elsewhere {candidate} against {control}")?;
        }
        f.write_str(")")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analysis::{ArmCounts, Block, JudgePolicy, Outcome};

    const NODES: u32 = 9;

    fn order() -> Vec<NodeId> {
        (0..NODES)
            .map(|place| format!("n{place}").parse().expect("a valid name"))
            .collect()
    }

    /// Zones a, b, c in turn; a label that is another on every node.
    fn labels() -> BTreeMap<NodeId, BTreeMap<String, String>> {
        let zones = ["a", "b", "c"];
        order()
            .into_iter()
            .enumerate()
            .map(|(place, node)| {
                let labels = [
                    ("zone".to_owned(), zones[place % 3].to_owned()),
                    ("name".to_owned(), node.to_string()),
                ];
                (node, labels.into())
            })
            .collect()
    }

    /// Where harm is found if the candidate has so many errors in 100 requests on each node, the control one.
    fn found(errors: impl Fn(u32) -> u64) -> Attribution {
        let mut judge = Judge::new(JudgePolicy {
            judge_latency: false,
            ..JudgePolicy::default()
        });
        let arm = |errors| ArmCounts {
            requests: 100,
            errors,
            ..ArmCounts::default()
        };
        for _ in 0..40 {
            let mut block = Block::default();
            for place in 0..NODES {
                let node = Block {
                    candidate: arm(errors(place)),
                    control: arm(1),
                    ..Block::default()
                };
                block.merge_node(place, &node);
            }
            judge.fold(&block);
            if judge.outcome() == Outcome::Fail {
                break;
            }
        }
        let (order, labels) = (order(), labels());
        attribute(&judge, &order, |node| &labels[node]).expect("harm is shown")
    }

    #[test]
    fn a_release_that_is_bad_everywhere_is_told_so() {
        let found = found(|_| 6);
        assert_eq!(found.part, Part::Everywhere);
        assert!(!found.is_confined());
    }

    #[test]
    fn harm_in_one_zone_is_told_by_its_label() {
        let found = found(|place| if place % 3 == 1 { 12 } else { 1 });
        let zone = Part::Label {
            key: "zone".to_owned(),
            value: "b".to_owned(),
        };
        assert_eq!((&found.part, found.nodes, found.nodes_seen), (&zone, 3, 9));
        assert!(found.shown, "{found:?}");
        assert_eq!(
            found.to_string(),
            "on zone=b alone (3 of 9 nodes with 100 % of the harm; elsewhere 1.0 % against 1.0 %)"
        );
    }

    #[test]
    fn harm_on_one_node_is_told_by_its_name() {
        let found = found(|place| if place == 4 { 40 } else { 1 });
        let names = vec!["n4".parse().expect("a valid name")];
        assert_eq!((&found.part, found.shown), (&Part::Nodes { names }, true));
        assert!(
            found.to_string().starts_with("on n4 alone (1 of 9 nodes"),
            "{found}"
        );
    }

    #[test]
    fn without_a_fail_nothing_is_told() {
        let judge = Judge::new(JudgePolicy::default());
        let (order, labels) = (order(), labels());
        assert_eq!(attribute(&judge, &order, |node| &labels[node]), None);
    }
}
