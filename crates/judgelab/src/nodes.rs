//! Nodes that differ, processor time and memory, and all signals at once.

use hotswap_core::analysis::{ArmCounts, Block, Judge, JudgePolicy, Outcome, Signal};

use crate::errors::{ALPHA, errors_alone, interval};
use crate::lab::{Checks, Effort, number, quantile, runs, share, shown, table};
use crate::latency::{Shape, arm};
use crate::rng::Rng;

const NODES: u32 = 10;
const LOOKS: u64 = 50;

/// Error rates differ between nodes by a lognormal factor: the design (each node keeps its control) against cohorts
/// of their own.
pub(crate) fn heterogeneity(effort: Effort, checks: &mut Checks) {
    let count = effort.runs(1_000);
    let mut rows = Vec::new();
    for sigma in [0.0, 0.2, 0.5, 1.0] {
        let same = |edge: fn(f64) -> f64, outcome| {
            share(&runs(count, |seed| on_same_nodes(seed, sigma, edge, outcome)))
        };
        let shares = [
            same(|rate| rate, Outcome::Fail),
            same(|rate| (rate + 0.0025).max(1.25 * rate), Outcome::Fail),
            same(|rate| (rate + 0.005).max(1.5 * rate), Outcome::Pass),
        ];
        for (name, share) in ["equal", "tolerated", "harmful"].iter().zip(shares) {
            checks.false_alarms(|| format!("nodes of σ {sigma}, {name}"), share, ALPHA, count);
        }
        let apart = share(&runs(count, |seed| on_own_nodes(seed, sigma)));
        let mut row = vec![format!("{sigma}")];
        row.extend(shares.map(shown));
        row.push(shown(apart));
        rows.push(row);
    }
    table(
        &format!(
            "Nodes that differ: errors around 2 %, 10 nodes of rates lognormal σ, 50 intervals of some 500 + 500 requests, α = {ALPHA}. Last: the same judge where 3 nodes run the candidate and 27 others are the control, which is why ours isn't built so"
        ),
        &[
            "σ",
            "equal fails",
            "as bad as tolerated fails",
            "as bad as a pass rules out passes",
            "equal fails, own nodes",
        ],
        &rows,
    );
}

fn on_same_nodes(seed: u64, sigma: f64, edge: fn(f64) -> f64, outcome: Outcome) -> bool {
    let (mut rng, mut judge) = (Rng::new(seed), Judge::new(errors_alone(ALPHA)));
    let rates: Vec<f64> = (0..NODES).map(|_| node_rate(&mut rng, sigma)).collect();
    (0..LOOKS).any(|_| {
        let mut block = Block::default();
        for (place, rate) in (0..).zip(&rates) {
            let requests = 30 + rng.binomial(40, 0.5);
            let node = interval(&mut rng, (requests, requests), (edge(*rate).min(1.0), *rate));
            block.merge_node(place, &node);
        }
        judge.fold(&block);
        judge.outcome() == outcome
    })
}

fn node_rate(rng: &mut Rng, sigma: f64) -> f64 {
    (0.02 * (sigma * rng.normal()).exp()).min(0.5)
}

fn on_own_nodes(seed: u64, sigma: f64) -> bool {
    let (mut rng, mut judge) = (Rng::new(seed), Judge::new(errors_alone(ALPHA)));
    let rates: Vec<f64> = (0..30).map(|_| node_rate(&mut rng, sigma)).collect();
    (0..LOOKS).any(|_| {
        let mut block = Block::default();
        for (at, rate) in rates.iter().enumerate() {
            let errors = rng.binomial(50, *rate);
            let arm = if at < 3 {
                &mut block.candidate
            } else {
                &mut block.control
            };
            arm.requests += 50;
            arm.errors += errors;
        }
        judge.fold(&block);
        judge.outcome() == Outcome::Fail
    })
}

/// How one arm's processor time and memory scatter.
#[derive(Clone, Copy)]
struct Scatter {
    /// σ of an interval's mean on a node.
    cpu: f64,
    /// σ of a node's memory, for as long as the rollout lasts.
    memory: f64,
    /// Chance that all nodes' candidates are slow for an interval, such as after a switch.
    cold: f64,
}

const CPU_US: f64 = 400.0;
const MEMORY_KIB: f64 = 40_960.0;

/// What the tolerances and margins are of these.
const CPU_TOLERATED: f64 = 1.15;
const CPU_HARMFUL: f64 = 1.3;

struct Levels {
    scatter: Scatter,
    /// The candidate's processor time, times the control's.
    cpu: f64,
    /// Each node's memory: candidate, control.
    fixed: Vec<(f64, f64)>,
}

impl Levels {
    fn new(rng: &mut Rng, nodes: u32, scatter: Scatter, cpu: f64, memory: f64) -> Self {
        let level = |rng: &mut Rng| MEMORY_KIB * (scatter.memory * rng.normal()).exp();
        let fixed = (0..nodes).map(|_| (memory * level(rng), level(rng))).collect();
        Self { scatter, cpu, fixed }
    }

    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "levels are positive and small"
    )]
    fn meter(&self, rng: &mut Rng, block: &mut Block, arms: &[(ArmCounts, ArmCounts)]) {
        let cold = if rng.unit() <= self.scatter.cold { 3.0 } else { 1.0 };
        for (place, (fixed, (candidate, control))) in (0..).zip(self.fixed.iter().zip(arms)) {
            let used = |rng: &mut Rng, arm: &ArmCounts, cpu: f64, kib: f64| ArmCounts {
                cpu_us: (arm.requests as f64 * CPU_US * cpu * (self.scatter.cpu * rng.normal()).exp()) as u64,
                memory_kib: kib as u64,
                memory_readings: 1,
                ..arm.clone()
            };
            let node = Block {
                candidate: used(rng, candidate, self.cpu * cold, fixed.0),
                control: used(rng, control, 1.0, fixed.1),
                ..Block::default()
            };
            block.merge_node(place, &node);
        }
    }
}

fn levels_alone(signal: Signal) -> JudgePolicy {
    // One of errors and latency always acts; without errors among the requests it adds nothing.
    JudgePolicy {
        judge_cpu: signal == Signal::Cpu,
        judge_memory: signal == Signal::Memory,
        min_candidate_requests: 1,
        ..errors_alone(ALPHA)
    }
}

/// Intervals until a finding has an outcome.
fn finds(
    seed: u64,
    signal: Signal,
    outcome: Outcome,
    nodes: u32,
    scatter: Scatter,
    cpu: f64,
    memory: f64,
) -> Option<u64> {
    let mut rng = Rng::new(seed);
    let policy = levels_alone(signal);
    let alone = policy.weight(signal);
    let mut judge = Judge::new(policy);
    let levels = Levels::new(&mut rng, nodes, scatter, cpu, memory);
    let plain = ArmCounts {
        requests: 20,
        ..ArmCounts::default()
    };
    let arms = vec![(plain.clone(), plain); nodes as usize];
    (1..=LOOKS).find(|_| {
        let mut block = Block::default();
        levels.meter(&mut rng, &mut block, &arms);
        judge.fold(&block);
        let found = judge
            .verdict()
            .findings
            .into_iter()
            .find(|finding| finding.signal == signal);
        // With α for itself: a weight's part of it would hide false alarms.
        found.is_some_and(|finding| match outcome {
            Outcome::Fail => finding.fail_log10 >= finding.fail_at_log10 + alone.log10(),
            other => finding.outcome == other,
        })
    })
}

pub(crate) fn levels(effort: Effort, checks: &mut Checks) {
    let count = effort.runs(1_000);
    let calm = Scatter {
        cpu: 0.1,
        memory: 0.0,
        cold: 0.0,
    };
    let rough = Scatter {
        cpu: 0.6,
        memory: 0.0,
        cold: 0.0,
    };
    let cold = Scatter {
        cpu: 0.1,
        memory: 0.0,
        cold: 0.05,
    };
    let lasting = Scatter {
        cpu: 0.1,
        memory: 0.4,
        cold: 0.0,
    };
    let mut rows = Vec::new();
    for (name, signal, scatter, edge) in [
        (
            "cpu, intervals scatter by 10 %",
            Signal::Cpu,
            calm,
            (CPU_TOLERATED, CPU_HARMFUL),
        ),
        ("cpu, by 60 %", Signal::Cpu, rough, (CPU_TOLERATED, CPU_HARMFUL)),
        (
            "cpu, every 20th interval cold on all nodes",
            Signal::Cpu,
            cold,
            (1.0, CPU_HARMFUL),
        ),
        (
            "memory, nodes differ by 40 % for good",
            Signal::Memory,
            lasting,
            (CPU_TOLERATED, CPU_HARMFUL),
        ),
    ] {
        for nodes in [2, 20] {
            let wrong = |outcome, level| {
                let found = runs(count, |seed| {
                    finds(seed, signal, outcome, nodes, scatter, level, level).is_some()
                });
                share(&found)
            };
            let (equal, fails, passes) = (
                wrong(Outcome::Fail, 1.0),
                wrong(Outcome::Fail, edge.0),
                wrong(Outcome::Pass, edge.1),
            );
            for (what, share) in [("equal", equal), ("tolerated", fails), ("harmful", passes)] {
                checks.false_alarms(|| format!("{name}, {nodes} nodes, {what}"), share, ALPHA, count);
            }
            let took = |outcome, level| {
                quantile(
                    &runs(count.min(1_000), |seed| {
                        finds(seed, signal, outcome, nodes, scatter, level, level)
                    }),
                    0.5,
                )
            };
            rows.push(vec![
                name.to_owned(),
                nodes.to_string(),
                shown(equal),
                shown(fails),
                shown(passes),
                number(took(Outcome::Pass, 1.0)),
                number(took(Outcome::Fail, 1.5)),
                number(took(Outcome::Fail, 2.0)),
            ]);
        }
    }
    table(
        &format!(
            "Processor time and memory: wrong verdicts within {LOOKS} intervals at α = {ALPHA} for each, and intervals to a right one (median)"
        ),
        &[
            "signal",
            "nodes",
            "equal fails",
            "as bad as tolerated fails",
            "as bad as a pass rules out passes",
            "equal passes",
            "×1.5 fails",
            "×2 fails",
        ],
        &rows,
    );
}

/// All signals at their tolerance at once: what the shared α is for.
pub(crate) fn together(effort: Effort, checks: &mut Checks) {
    let count = effort.runs(1_000).min(2_000);
    let base = Shape::new(0.6, 1.0, 0.0);
    let slow = Shape::new(0.6, 1.498, 0.0);
    let wrong = |policy: &JudgePolicy, at_edge: bool| {
        share(&runs(count, |seed| {
            let mut rng = Rng::new(seed);
            let mut judge = Judge::new(policy.clone());
            let scatter = Scatter {
                cpu: 0.3,
                memory: 0.3,
                cold: 0.0,
            };
            let (level, shape, errors) = if at_edge {
                (CPU_TOLERATED, &slow, 0.0125)
            } else {
                (1.0, &base, 0.01)
            };
            let levels = Levels::new(&mut rng, NODES, scatter, level, level);
            (0..LOOKS).any(|_| {
                let mut block = Block::default();
                let arms: Vec<_> = (0..NODES)
                    .map(|_| {
                        let mut candidate = arm(&mut rng, shape, 30);
                        let mut control = arm(&mut rng, &base, 30);
                        candidate.errors = rng.binomial(30, errors);
                        control.errors = rng.binomial(30, 0.01);
                        (candidate, control)
                    })
                    .collect();
                levels.meter(&mut rng, &mut block, &arms);
                judge.fold(&block);
                judge.outcome() == Outcome::Fail
            })
        }))
    };
    let policy = JudgePolicy {
        alpha: ALPHA,
        ..JudgePolicy::default()
    };
    let (equal, edge) = (wrong(&policy, false), wrong(&policy, true));
    checks.false_alarms(|| "all signals, equal".to_owned(), equal, ALPHA, count);
    checks.false_alarms(
        || "all signals, as bad as tolerated".to_owned(),
        edge,
        ALPHA,
        count,
    );
    table(
        &format!(
            "All four signals together: fails within {LOOKS} intervals on {NODES} nodes, α = {ALPHA} for all of them, {count} runs"
        ),
        &["candidate", "fails"],
        &[
            vec!["equal in all".to_owned(), shown(equal)],
            vec!["as bad as tolerated in all".to_owned(), shown(edge)],
        ],
    );
}
