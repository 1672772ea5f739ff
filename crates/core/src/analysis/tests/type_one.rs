//! The false alarms: at the nulls' very edge, where every block is as misleading as the null allows, a wrong verdict
//! at any time of a run comes in at most a share α of the runs. Each test allows three standard errors.

use super::power::latency_block;
use super::rng::{Rng, Shape, block};
use crate::analysis::{Block, Judge, JudgePolicy, Outcome};

const BLOCKS: u64 = 240;

/// The highest share of `runs` that a true share `alpha` is believed to give.
fn allowed(alpha: f64, runs: u64) -> f64 {
    alpha + 3.0 * (alpha * (1.0 - alpha) / runs as f64).sqrt()
}

/// How the control's rate moves: drifting by 90 % either way, in phases across the kink of the bound, or still.
#[derive(Clone, Copy, Debug)]
enum Course {
    Still(f64),
    Drift(f64),
    Phases(f64, f64),
    Incident(f64),
}

impl Course {
    fn at(self, i: u64) -> f64 {
        match self {
            Self::Still(rate) => rate,
            Self::Drift(rate) => rate * (1.0 + 0.9 * (i as f64 / 12.0).sin()),
            Self::Phases(low, high) => {
                if (i / 30).is_multiple_of(2) {
                    low
                } else {
                    high
                }
            }
            Self::Incident(rate) => {
                if (100..110).contains(&i) {
                    0.4
                } else {
                    rate
                }
            }
        }
    }
}

const COURSES: [Course; 7] = [
    Course::Still(0.0),
    Course::Still(0.01),
    Course::Drift(0.01),
    Course::Drift(0.05),
    Course::Phases(0.008, 0.013),
    Course::Phases(0.001, 0.05),
    Course::Incident(0.01),
];

/// The share of runs with an outcome, where the candidate's rate is at the given edge above the control's.
fn share(
    outcome: Outcome,
    alpha: f64,
    course: Course,
    size: impl Fn(u64) -> (u64, u64),
    edge: impl Fn(f64) -> f64,
    runs: u64,
) -> f64 {
    let wrong = |seed: &u64| {
        let mut rng = Rng(seed * 1_000 + 17);
        let policy = JudgePolicy {
            judge_latency: false,
            judge_cpu: false,
            judge_memory: false,
            alpha,
            ..JudgePolicy::default()
        };
        let mut judge = Judge::new(policy);
        judge.begin_step(1);
        (0..BLOCKS).any(|i| {
            let rate = course.at(i);
            judge.fold(&block(&mut rng, size(i), (edge(rate), rate)));
            judge.outcome() == outcome
        })
    };
    (0..runs).filter(wrong).count() as f64 / runs as f64
}

fn weights(i: u64) -> (u64, u64) {
    let candidate = [50, 250, 500, 800][(i / 60) as usize];
    (candidate, 1_000 - candidate)
}

/// The worst share over all courses, at α .05 by arms of equal size and at α .01 with weights that change.
fn worst(outcome: Outcome, edge: impl Fn(f64) -> f64 + Copy) -> f64 {
    const RUNS: u64 = 200;
    let mut most: f64 = 0.0;
    for course in COURSES {
        let steady = share(outcome, 0.05, course, |_| (500, 500), edge, RUNS);
        let moving = share(outcome, 0.01, course, weights, edge, RUNS);
        println!("{outcome:?}, {course:?}: {steady} at α .05; with changing weights {moving} at α .01");
        assert!(steady <= allowed(0.05, RUNS), "{course:?}: {steady}");
        assert!(
            moving <= allowed(0.01, RUNS),
            "{course:?}, changing weights: {moving}"
        );
        most = most.max(steady);
    }
    most
}

#[test]
fn a_candidate_at_the_tolerance_fails_no_more_often_than_alpha() {
    worst(Outcome::Fail, |rate| (rate + 0.0025).max(1.25 * rate));
}

#[test]
fn a_candidate_at_the_margin_passes_no_more_often_than_alpha() {
    let most = worst(Outcome::Pass, |rate| (rate + 0.005).max(1.5 * rate));
    assert!(most > 0.01, "a bound that nothing comes near tests nothing");
}

#[test]
fn an_equal_candidate_never_fails_by_peeking() {
    const RUNS: u64 = 100;
    for course in COURSES {
        let failed = share(Outcome::Fail, 0.05, course, weights, |rate| rate, RUNS);
        assert!(failed <= 0.01, "{course:?}: {failed}");
    }
}

/// The same on latency: shifted by exactly the tolerance in every block, while the common latency rises and falls
/// and the weights change.
#[test]
fn a_candidate_as_slow_as_tolerated_fails_no_more_often_than_alpha() {
    const RUNS: u64 = 120;
    let shape = Shape::lognormal(20_000.0, 0.6);
    let outcomes = |alpha, slower: isize, outcome| {
        let wrong = |seed: &u64| {
            let mut rng = Rng(seed * 1_000 + 3);
            let policy = JudgePolicy {
                alpha,
                ..JudgePolicy::default()
            };
            let mut judge = Judge::new(policy);
            (0..80).any(|i: u64| {
                let common = (12.0 * (i as f64 / 9.0).sin()) as isize;
                let n = if i < 40 { (50, 450) } else { (250, 250) };
                let mut block = Block::default();
                block.candidate.latency = shape.draw(&mut rng, n.0, common + slower, 0.0, 0);
                block.control.latency = shape.draw(&mut rng, n.1, common, 0.0, 0);
                judge.fold(&block);
                judge.verdict().findings[1].outcome == outcome
            })
        };
        (0..RUNS).filter(wrong).count() as f64 / RUNS as f64
    };
    for alpha in [0.05, 0.01] {
        let (failed, passed) = (
            outcomes(alpha, 7, Outcome::Fail),
            outcomes(alpha, 13, Outcome::Pass),
        );
        println!("latency α {alpha}: failed at the tolerance {failed}, passed beyond the margin {passed}");
        assert!(
            failed <= allowed(alpha, RUNS) && passed <= allowed(alpha, RUNS),
            "{failed} {passed}"
        );
    }
}

/// The confidence sequence holds the true difference at all times, except in a share α of runs.
#[test]
fn the_confidence_sequence_covers_the_truth() {
    const RUNS: u64 = 300;
    for (p, points) in [((0.03, 0.01), 2.0), ((0.01, 0.01), 0.0), ((0.005, 0.01), -0.5)] {
        let missed = |seed: &u64| {
            let mut rng = Rng(seed * 1_000 + 29);
            let mut judge = Judge::new(JudgePolicy {
                judge_latency: false,
                judge_cpu: false,
                judge_memory: false,
                alpha: 0.05,
                ..JudgePolicy::default()
            });
            (0..100).any(|_| {
                judge.fold(&block(&mut rng, (300, 300), p));
                let confidence = judge.confidence();
                confidence.at_least_points.is_some_and(|low| low >= points)
                    || confidence.at_most_points.is_some_and(|high| high <= points)
            })
        };
        let missed = (0..RUNS).filter(missed).count() as f64 / RUNS as f64;
        println!("difference {points} points missed in {missed}");
        assert!(missed <= allowed(0.05, RUNS), "{points}: {missed}");
    }
    let (mut rng, mut judge) = (
        Rng(1),
        Judge::new(JudgePolicy {
            judge_latency: false,
            judge_cpu: false,
            judge_memory: false,
            ..JudgePolicy::default()
        }),
    );
    for _ in 0..60 {
        judge.fold(&latency_block(
            &mut rng,
            &Shape::lognormal(1e3, 0.1),
            (1, 1),
            0,
            0.0,
        ));
        judge.fold(&block(&mut rng, (500, 500), (0.05, 0.01)));
    }
    let confidence = judge.confidence();
    assert!(
        confidence.at_least_points >= Some(2.0) && confidence.at_most_points <= Some(7.5),
        "{confidence:?}"
    );
}
