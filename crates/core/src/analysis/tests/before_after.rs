//! Universal inference for before against after.

use super::rng::Rng;
use crate::analysis::before_after::{log_against_harm, log_for_harm};
use crate::analysis::two_arm::Bound;
use crate::analysis::{Block, Control, Judge, JudgePolicy, Outcome, Rate};

const BOUND: Bound = Bound {
    points: 0.0025,
    relative: 0.25,
};

fn rate(of: u64, bad: u64) -> Rate {
    Rate { of, bad }
}

/// The formula without a tolerance is a closed one: the Beta integrals over the pooled maximum.
#[test]
fn it_is_the_published_formula() {
    let none = Bound {
        points: 0.0,
        relative: 0.0,
    };
    let log_beta = |bad: u32, of: u32| -> f64 {
        // B(½ + y, ½ + n − y) = π Π (k − ½) … / n!
        let rising = |y: u32| (1..=y).map(|k| f64::from(k) - 0.5).map(f64::ln).sum::<f64>();
        let factorial: f64 = (1..=of).map(|k| f64::from(k).ln()).sum();
        rising(bad) + rising(of - bad) - factorial
    };
    for (after, before) in [((40, 9), (300, 12)), ((500, 60), (400, 20)), ((7, 3), (9, 1))] {
        let (n, y) = (f64::from(after.0 + before.0), f64::from(after.1 + before.1));
        let pooled = y * (y / n).ln() + (n - y) * (1.0 - y / n).ln();
        let published = log_beta(after.1, after.0) + log_beta(before.1, before.0) - pooled;
        let counts = |(of, bad): (u32, u32)| rate(of.into(), bad.into());
        let ours = log_for_harm(counts(after), counts(before), none);
        assert!((ours - published).abs() < 1e-6, "{ours} {published}");
    }
}

#[test]
fn a_rise_is_harm_and_none_is_not() {
    assert!(log_for_harm(rate(2_000, 100), rate(2_000, 20), BOUND) > 100_f64.ln());
    assert!(log_for_harm(rate(2_000, 20), rate(2_000, 20), BOUND) <= 0.0);
    assert!(log_for_harm(rate(2_000, 2), rate(2_000, 20), BOUND) <= 0.0);
    let margin = BOUND.times(2.0);
    assert!(log_against_harm(rate(20_000, 20), rate(20_000, 20), margin) > 100_f64.ln());
    assert!(log_against_harm(rate(2_000, 100), rate(2_000, 20), margin) <= 0.0);
    assert_eq!(log_for_harm(rate(0, 0), rate(9, 1), BOUND), 0.0);
}

/// Looked at after every interval, at the edge of either null.
#[test]
fn false_alarms_stay_below_alpha_at_every_look() {
    const RUNS: u64 = 400;
    let margin = BOUND.times(2.0);
    for before in [0.001, 0.01, 0.1] {
        let wrong = |harm: bool| {
            let edge = if harm { BOUND } else { margin }.above(before);
            let ever = |seed: &u64| {
                let mut rng = Rng(seed * 77 + 5);
                let (control, mut after) = (rate(3_000, rng.binomial(3_000, before)), rate(0, 0));
                (0..60).any(|_| {
                    after.of += 100;
                    after.bad += rng.binomial(100, edge);
                    let log = if harm {
                        log_for_harm(after, control, BOUND)
                    } else {
                        log_against_harm(after, control, margin)
                    };
                    log >= 20_f64.ln()
                })
            };
            (0..RUNS).filter(ever).count() as f64 / RUNS as f64
        };
        let (fails, passes) = (wrong(true), wrong(false));
        println!("before {before}: wrong fails {fails}, wrong passes {passes} at α .05");
        assert!(fails <= 0.083 && passes <= 0.083, "{before}: {fails} {passes}");
    }
}

/// Where the policy says that the control is the time before, the judge compares with that.
#[test]
fn the_judge_compares_with_the_time_before() {
    let run = |bad: u64| {
        let mut judge = Judge::new(JudgePolicy {
            control: Control::BeforeAfter,
            ..JudgePolicy::default()
        });
        let mut before = Block::default();
        (before.control.requests, before.control.errors) = (20_000, 100);
        judge.fold(&before);
        let mut after = Block::default();
        (after.candidate.requests, after.candidate.errors) = (500, bad);
        for _ in 0..60 {
            judge.fold(&after);
        }
        judge.verdict()
    };
    assert_eq!(run(2).outcome, Outcome::Pass, "{}", run(2));
    let failed = run(25);
    assert!(
        failed
            .to_string()
            .starts_with("fail: error rate 5.0 % against 0.5 % before"),
        "{failed}"
    );
}
