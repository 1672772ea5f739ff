//! Errors: false alarms, time to promote, power.

use hotswap_core::analysis::{ArmCounts, Block, Judge, JudgePolicy, Outcome, Rate};

use crate::lab::{Checks, Effort, number, percent, quantile, runs, share, shown, table};
use crate::rivals::{MannWhitney, fisher, threshold};
use crate::rng::Rng;

/// At this α false alarms are counted: at .01 too few would happen to see anything.
pub(crate) const ALPHA: f64 = 0.05;

/// Most intervals of a run.
const LOOKS_MAX: u64 = 50;

const RATES: [f64; 4] = [0.0, 0.001, 0.01, 0.1];
/// Control requests for each of the candidate's.
const ARMS: [u64; 4] = [1, 4, 19, 99];
const SIZES: [u64; 6] = [10, 100, 1_000, 10_000, 100_000, 1_000_000];
const QUICK_SIZES: [u64; 3] = [100, 10_000, 1_000_000];

/// A judge of errors alone.
pub(crate) fn errors_alone(alpha: f64) -> JudgePolicy {
    JudgePolicy {
        judge_latency: false,
        judge_cpu: false,
        judge_memory: false,
        min_candidate_requests: 1,
        alpha,
        ..JudgePolicy::default()
    }
}

/// The edge of what is tolerated, and of what a pass rules out.
fn tolerated(rate: f64) -> f64 {
    (rate + 0.0025).max(1.25 * rate)
}

fn harmful(rate: f64) -> f64 {
    (rate + 0.005).max(1.5 * rate)
}

/// How a cell's requests come: so many intervals of so many candidate and control requests. In small cells one
/// candidate request an interval: a look after every observation.
fn intervals(requests: u64, control_for_each: u64) -> (u64, u64, u64) {
    let candidate = (requests / (1 + control_for_each)).max(1);
    let looks = candidate.min(LOOKS_MAX);
    let each = candidate / looks;
    (looks, each, each * control_for_each)
}

pub(crate) fn interval(rng: &mut Rng, n: (u64, u64), p: (f64, f64)) -> Block {
    let arm = |requests: u64, errors: u64| ArmCounts {
        requests,
        errors,
        ..ArmCounts::default()
    };
    Block {
        candidate: arm(n.0, rng.binomial(n.0, p.0)),
        control: arm(n.1, rng.binomial(n.1, p.1)),
        ..Block::default()
    }
}

/// Whether an outcome ever comes in a run of a cell.
fn ever(seed: u64, outcome: Outcome, cell: (u64, u64, u64), p: (f64, f64)) -> bool {
    let (looks, candidate, control) = cell;
    let (mut rng, mut judge) = (Rng::new(seed), Judge::new(errors_alone(ALPHA)));
    (0..looks).any(|_| {
        judge.fold(&interval(&mut rng, (candidate, control), p));
        judge.outcome() == outcome
    })
}

pub(crate) fn false_alarms(effort: Effort, checks: &mut Checks) {
    let sizes: &[u64] = if effort.quick { &QUICK_SIZES } else { &SIZES };
    let head: Vec<String> = ["control's rate", "arms"]
        .map(str::to_owned)
        .into_iter()
        .chain(sizes.iter().map(|size| number(Some(*size))))
        .collect();
    let head: Vec<&str> = head.iter().map(String::as_str).collect();
    for (title, outcome, edge) in [
        (
            "fails of a candidate that is as bad as tolerated",
            Outcome::Fail,
            tolerated as fn(f64) -> f64,
        ),
        (
            "passes of a candidate that is as bad as a pass rules out",
            Outcome::Pass,
            harmful,
        ),
        ("fails of an equal candidate", Outcome::Fail, |rate| rate),
    ] {
        let mut rows = Vec::new();
        for rate in RATES {
            for arms in ARMS {
                let mut row = vec![percent(rate), format!("1:{arms}")];
                for size in sizes {
                    let (count, cell) = (effort.runs(*size), intervals(*size, arms));
                    let wrong = share(&runs(count, |seed| ever(seed, outcome, cell, (edge(rate), rate))));
                    let what = || format!("errors, {title}, {} 1:{arms}, {size} requests", percent(rate));
                    checks.false_alarms(what, wrong, ALPHA, count);
                    row.push(shown(wrong));
                }
                rows.push(row);
            }
        }
        let title =
            format!("Errors: share of {title}, by requests, looked at after every interval, α = {ALPHA}");
        table(&title, &head, &rows);
    }
}

/// Equal candidates before other judges.
pub(crate) fn rivals(effort: Effort, checks: &mut Checks) {
    let mut rows = Vec::new();
    let (mut worst_ours, mut worst_theirs) = (0.0_f64, [0.0_f64; 3]);
    let (count, requests) = (effort.fewer_runs(), 20_000);
    for rate in RATES {
        for arms in [1, 19] {
            let cell = intervals(requests, arms);
            let wrong = runs(count, |seed| against(seed, cell, (rate, rate)));
            let of = |at: usize| share(&wrong.iter().map(|wrong| wrong[at]).collect::<Vec<_>>());
            let shares = [of(0), of(1), of(2), of(3)];
            worst_ours = worst_ours.max(shares[0]);
            for (worst, share) in worst_theirs.iter_mut().zip(&shares[1..]) {
                *worst = worst.max(*share);
            }
            checks.false_alarms(
                || format!("errors, equal beside others, {}", percent(rate)),
                shares[0],
                ALPHA,
                count,
            );
            let mut row = vec![percent(rate), format!("1:{arms}")];
            row.extend(shares.map(shown));
            rows.push(row);
        }
    }
    table(
        &format!(
            "Errors: share of equal candidates that ever fail within {requests} requests in up to 50 intervals, looked at after each, at α = {ALPHA}"
        ),
        &[
            "control's rate",
            "arms",
            "ours",
            "Mann-Whitney, tolerance .25 at .98",
            "Fisher at each look",
            "+50 % threshold",
        ],
        &rows,
    );
    // Mann-Whitney with a tolerance rarely cries wolf here: what it lacks is seen below.
    checks.that(worst_theirs[1..].iter().all(|worst| *worst > ALPHA), || {
        format!("Fisher and the threshold were expected to exceed α somewhere: {worst_theirs:?}")
    });
    let mut rows = Vec::new();
    for (candidate, control) in [(0.01, 0.0), (0.02, 0.001), (0.05, 0.01)] {
        // Some 20 requests an interval and arm: most intervals of either arm have no error.
        let found = runs(count, |seed| against(seed, (100, 20, 20), (candidate, control)));
        let mut row = vec![format!("{} → {}", percent(control), percent(candidate))];
        row.extend((0..4).map(|at| shown(share(&found.iter().map(|found| found[at]).collect::<Vec<_>>()))));
        rows.push(row);
    }
    table(
        &format!(
            "Sparse errors: share of worse candidates that are failed within 100 intervals of 20 + 20 requests, at α = {ALPHA}"
        ),
        &[
            "control → candidate",
            "ours",
            "Mann-Whitney, tolerance .25 at .98",
            "Fisher at each look",
            "+50 % threshold",
        ],
        &rows,
    );
}

/// Whether each judge ever fails a candidate.
fn against(seed: u64, cell: (u64, u64, u64), p: (f64, f64)) -> [bool; 4] {
    let (looks, candidate, control) = cell;
    let (mut rng, mut judge) = (Rng::new(seed), Judge::new(errors_alone(ALPHA)));
    let mut mann_whitney = MannWhitney::default();
    let mut sums = (Rate::default(), Rate::default());
    let mut failed = [false; 4];
    for _ in 0..looks {
        let block = interval(&mut rng, (candidate, control), p);
        let (a, b) = (&block.candidate, &block.control);
        judge.fold(&block);
        sums.0 = plus(sums.0, a);
        sums.1 = plus(sums.1, b);
        failed[0] |= judge.outcome() == Outcome::Fail;
        let value = |arm: &ArmCounts| arm.errors as f64 / arm.requests as f64;
        failed[1] = mann_whitney.look(value(a), value(b)) || failed[1];
        failed[2] = failed[2] || fisher(sums.0, sums.1, ALPHA);
        failed[3] |= threshold(sums.0, sums.1);
    }
    failed
}

fn plus(sum: Rate, arm: &ArmCounts) -> Rate {
    Rate {
        of: sum.of + arm.requests,
        bad: sum.bad + arm.errors,
    }
}

/// Candidate requests until an outcome at the default α; `None` where it doesn't come in time.
fn until(seed: u64, outcome: Outcome, n: (u64, u64), p: (f64, f64)) -> Option<u64> {
    /// More than any rollout has.
    const REQUESTS_MAX: u64 = 200_000;
    let policy = errors_alone(JudgePolicy::default().alpha);
    let (mut rng, mut judge) = (Rng::new(seed), Judge::new(policy));
    (1..=REQUESTS_MAX / n.0).find_map(|i| {
        judge.fold(&interval(&mut rng, n, p));
        (judge.outcome() == outcome).then_some(i * n.0)
    })
}

pub(crate) fn power(effort: Effort) {
    let count = effort.fewer_runs();
    let mut rows = Vec::new();
    for n in [(100, 100), (100, 900), (50, 4_950)] {
        for rate in [0.0, 0.001, 0.01, 0.1] {
            let took = |outcome, candidate| {
                let took = runs(count, |seed| until(seed, outcome, n, (candidate, rate)));
                format!(
                    "{} ({})",
                    number(quantile(&took, 0.5)),
                    number(quantile(&took, 0.8))
                )
            };
            rows.push(vec![
                format!("{} + {}", n.0, n.1),
                percent(rate),
                took(Outcome::Pass, rate),
                took(Outcome::Fail, rate + 0.01),
                took(Outcome::Fail, rate + 0.04),
                took(Outcome::Fail, 2.0 * rate),
            ]);
        }
    }
    table(
        &format!(
            "Errors: candidate requests to a verdict at α = .01, median (and of 80 % of {count} runs); — is more than 200,000"
        ),
        &[
            "interval",
            "control's rate",
            "pass an equal one",
            "fail +1 point",
            "fail +4 points",
            "fail ×2",
        ],
        &rows,
    );
}

/// 1 % against 5 %, beside the best test of a fixed size.
pub(crate) fn found(effort: Effort, checks: &mut Checks) {
    let count = if effort.quick { 300 } else { 4_000 };
    let mut rows = Vec::new();
    for (n, arms) in [((10_u64, 10_u64), 1.0), ((50, 50), 1.0), ((20, 180), 9.0)] {
        let fixed = fixed_size(0.05, 0.01, arms);
        let took = runs(count, |seed| until(seed, Outcome::Fail, n, (0.05, 0.01)));
        let (median, most) = (quantile(&took, 0.5), quantile(&took, 0.8));
        let ratio = |took: Option<u64>| took.map_or(f64::INFINITY, |took| took as f64 / fixed as f64);
        checks.that(ratio(median) <= 2.0, || {
            format!("1 % to 5 % takes {median:?} requests, the fixed test {fixed}")
        });
        rows.push(vec![
            format!("{} + {}", n.0, n.1),
            number(Some(fixed)),
            number(median),
            format!("{:.2}", ratio(median)),
            number(most),
            format!("{:.2}", ratio(most)),
        ]);
    }
    table(
        &format!(
            "Errors 1 % → 5 %: candidate requests, {count} runs at α = .01. The fixed-sample test asks the same question with the same α, has 80 % power, and looks once, knowing when"
        ),
        &[
            "interval",
            "fixed sample",
            "ours, median",
            "ratio",
            "ours, 80 %",
            "ratio",
        ],
        &rows,
    );
}

/// Candidate requests of the score test at α = .01 with 80 % power, of "at most tolerated".
fn fixed_size(candidate: f64, control: f64, arms: f64) -> u64 {
    const Z_ALPHA: f64 = 2.326_347_874;
    const Z_POWER: f64 = 0.841_621_234;
    let variance = |a: f64, b: f64| a * (1.0 - a) + b * (1.0 - b) / arms;
    // The null's nearest point keeps the pooled number of errors.
    let edge = |b: f64| tolerated(b);
    let pooled = candidate + arms * control;
    let null_control = (0..200).fold((0.0, control + candidate), |(low, high), _| {
        let middle = f64::midpoint(low, high);
        if edge(middle) + arms * middle < pooled {
            (middle, high)
        } else {
            (low, middle)
        }
    });
    let null = variance(edge(null_control.0), null_control.0);
    let effect = candidate - tolerated(control);
    let root = (Z_ALPHA * null.sqrt() + Z_POWER * variance(candidate, control).sqrt()) / effect;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a number of requests"
    )]
    let size = (root * root).ceil() as u64;
    size
}
