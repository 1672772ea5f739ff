//! Latency: shift, tail, variance.

use hotswap_core::analysis::{
    ArmCounts, BINS, Block, Histogram, Judge, JudgePolicy, Outcome, Signal, bin_of,
};

use crate::errors::ALPHA;
use crate::lab::{Checks, Effort, number, quantile, runs, share, shown, table};
use crate::rivals::MannWhitney;
use crate::rng::Rng;

const LOOKS_MAX: u64 = 50;
const MEDIAN_US: f64 = 20_000.0;

/// Chances by bin.
pub(crate) struct Shape(Vec<(usize, f64)>);

impl Shape {
    /// Lognormal around 20 ms times `slower`, and a share of requests half a second slower on top.
    pub(crate) fn new(sigma: f64, slower: f64, tail: f64) -> Self {
        const DRAWS: u64 = 200_000;
        let (mut rng, mut bins) = (Rng::new(11), [0_u64; BINS]);
        for _ in 0..DRAWS {
            let mut us = MEDIAN_US * slower * (sigma * rng.normal()).exp();
            if rng.unit() <= tail {
                us += 500_000.0;
            }
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "microseconds of minutes at most"
            )]
            let bin = bin_of(us as u64);
            bins[bin] += 1;
        }
        let chances = bins.iter().enumerate().filter(|(_, count)| **count > 0);
        Self(
            chances
                .map(|(bin, count)| (bin, *count as f64 / DRAWS as f64))
                .collect(),
        )
    }

    /// The same, every bin so many edges slower.
    fn shifted(&self, edges: usize) -> Self {
        Self(
            self.0
                .iter()
                .map(|(bin, chance)| ((bin + edges).min(BINS - 1), *chance))
                .collect(),
        )
    }

    fn draw(&self, rng: &mut Rng, n: u64) -> Histogram {
        let (mut bins, mut left, mut chance_left) = ([0_u64; BINS], n, 1.0_f64);
        for (bin, chance) in &self.0 {
            let drawn = rng.binomial(left, (chance / chance_left).min(1.0));
            bins[*bin] += drawn;
            left -= drawn;
            chance_left -= chance;
            if left == 0 {
                break;
            }
        }
        if let Some((last, _)) = self.0.last() {
            bins[*last] += left;
        }
        Histogram::from_bins(&bins)
    }
}

/// A judge of latency alone, as far as a verdict goes.
fn latency_alone(alpha: f64) -> JudgePolicy {
    JudgePolicy {
        judge_cpu: false,
        judge_memory: false,
        dry_run: [Signal::Errors].into(),
        min_candidate_requests: 1,
        alpha,
        ..JudgePolicy::default()
    }
}

pub(crate) fn arm(rng: &mut Rng, shape: &Shape, requests: u64) -> ArmCounts {
    ArmCounts {
        requests,
        latency: shape.draw(rng, requests),
        ..ArmCounts::default()
    }
}

fn interval(rng: &mut Rng, n: (u64, u64), shapes: (&Shape, &Shape)) -> Block {
    Block {
        candidate: arm(rng, shapes.0, n.0),
        control: arm(rng, shapes.1, n.1),
        ..Block::default()
    }
}

fn cell(requests: u64, arms: u64) -> (u64, u64, u64) {
    let candidate = (requests / (1 + arms)).max(1);
    let looks = candidate.min(LOOKS_MAX);
    let each = candidate / looks;
    (looks, each, each * arms)
}

fn ever(seed: u64, outcome: Outcome, cell: (u64, u64, u64), shapes: (&Shape, &Shape)) -> bool {
    let (mut rng, mut judge) = (Rng::new(seed), Judge::new(latency_alone(ALPHA)));
    (0..cell.0).any(|_| {
        judge.fold(&interval(&mut rng, (cell.1, cell.2), shapes));
        judge.outcome() == outcome
    })
}

pub(crate) fn false_alarms(effort: Effort, checks: &mut Checks) {
    let base = Shape::new(0.6, 1.0, 0.0);
    // ×1.498 is tolerated; ×2.12 is the first whole edge beyond what a pass rules out.
    let (tolerated, harmful) = (base.shifted(7), base.shifted(13));
    let sizes: &[u64] = if effort.quick {
        &[1_000, 100_000]
    } else {
        &[100, 1_000, 10_000, 100_000, 1_000_000]
    };
    let mut head = vec!["candidate".to_owned(), "verdict".to_owned(), "arms".to_owned()];
    head.extend(sizes.iter().map(|size| number(Some(*size))));
    let head: Vec<&str> = head.iter().map(String::as_str).collect();
    let mut rows = Vec::new();
    for (name, shape, outcome) in [
        ("equal", &base, Outcome::Fail),
        ("as slow as tolerated", &tolerated, Outcome::Fail),
        ("slower than a pass allows", &harmful, Outcome::Pass),
    ] {
        for arms in [1, 9, 99] {
            let mut row = vec![
                name.to_owned(),
                format!("{outcome:?}").to_lowercase(),
                format!("1:{arms}"),
            ];
            for size in sizes {
                let count = effort
                    .runs(*size)
                    .min(if *size >= 10_000 { 1_000 } else { 4_000 });
                let wrong = share(&runs(count, |seed| {
                    ever(seed, outcome, cell(*size, arms), (shape, &base))
                }));
                let what = || format!("latency, {name}, 1:{arms}, {size} requests");
                checks.false_alarms(what, wrong, ALPHA, count);
                row.push(shown(wrong));
            }
            rows.push(row);
        }
    }
    table(
        &format!("Latency: share of wrong verdicts by requests, looked at after every interval, α = {ALPHA}"),
        &head,
        &rows,
    );
}

pub(crate) fn power(effort: Effort) {
    let base = Shape::new(0.6, 1.0, 0.0);
    let count = if effort.quick { 40 } else { 400 };
    let mut rows = Vec::new();
    for (name, shape, outcome) in [
        ("equal: pass", Shape::new(0.6, 1.0, 0.0), Outcome::Pass),
        ("shift ×2", Shape::new(0.6, 2.0, 0.0), Outcome::Fail),
        ("shift ×3", Shape::new(0.6, 3.0, 0.0), Outcome::Fail),
        (
            "tail only: 2 % of requests +500 ms",
            Shape::new(0.6, 1.0, 0.02),
            Outcome::Fail,
        ),
        (
            "tail only: 1 % of requests +500 ms",
            Shape::new(0.6, 1.0, 0.01),
            Outcome::Fail,
        ),
        (
            "variance only: σ .6 → 1.2, same mean",
            // A lognormal's mean is its median times e^(σ²/2).
            Shape::new(1.2, (-0.54_f64).exp(), 0.0),
            Outcome::Fail,
        ),
    ] {
        let mut row = vec![name.to_owned()];
        for n in [(100, 100), (100, 900)] {
            let took = runs(count, |seed| until(seed, outcome, n, (&shape, &base)));
            row.push(format!(
                "{} ({})",
                number(quantile(&took, 0.5)),
                number(quantile(&took, 0.8))
            ));
        }
        let theirs = runs(count, |seed| mann_whitney(seed, &shape, &base));
        row.push(shown(share(&theirs)));
        rows.push(row);
    }
    table(
        &format!(
            "Latency: candidate requests to a verdict at α = .01, median (and of 80 % of {count} runs); — is more than 30,000. Last: how often Mann-Whitney on each interval's mean fails it within 50 intervals of 100 + 100"
        ),
        &["candidate", "100 + 100", "100 + 900", "Mann-Whitney fails it"],
        &rows,
    );
}

fn until(seed: u64, outcome: Outcome, n: (u64, u64), shapes: (&Shape, &Shape)) -> Option<u64> {
    let (mut rng, mut judge) = (
        Rng::new(seed),
        Judge::new(latency_alone(JudgePolicy::default().alpha)),
    );
    (1..=30_000 / n.0).find_map(|i| {
        judge.fold(&interval(&mut rng, n, shapes));
        (judge.outcome() == outcome).then_some(i * n.0)
    })
}

fn mann_whitney(seed: u64, candidate: &Shape, control: &Shape) -> bool {
    let (mut rng, mut judge) = (Rng::new(seed), MannWhitney::default());
    (0..50).any(|_| {
        let (a, b) = (candidate.draw(&mut rng, 100), control.draw(&mut rng, 100));
        judge.look(mean_us(&a), mean_us(&b))
    })
}

fn mean_us(latency: &Histogram) -> f64 {
    use hotswap_core::analysis::edge_us;
    let sum: f64 = latency
        .iter()
        .map(|(bin, count)| edge_us(bin) as f64 * count as f64)
        .sum();
    sum / latency.count() as f64
}
