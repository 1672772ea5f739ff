//! What is said to people, and the rules for steps, probes and late evidence.

use super::rng::{Rng, Shape, arm, block};
use crate::analysis::{Basis, Block, Control, Judge, JudgePolicy, Outcome, Reason};

fn judge() -> Judge {
    Judge::new(JudgePolicy {
        judge_latency: false,
        judge_cpu: false,
        judge_memory: false,
        ..JudgePolicy::default()
    })
}

fn probes(candidate: (u64, u64), control: (u64, u64)) -> Block {
    let mut block = Block::default();
    (block.candidate.probes, block.candidate.probe_errors) = candidate;
    (block.control.probes, block.control.probe_errors) = control;
    block
}

#[test]
fn verdicts_read_well() {
    let mut judge = judge();
    assert_eq!(
        judge.verdict().to_string(),
        "inconclusive: no candidate requests or probes at this step yet"
    );
    judge.fold(&Block {
        candidate: arm(100, 1),
        control: arm(900, 9),
        ..Block::default()
    });
    let text = judge.verdict().to_string();
    assert!(
        text.starts_with("inconclusive: about ")
            && text.ends_with(" more candidate requests needed (errors)")
    );
    for _ in 0..60 {
        judge.fold(&Block {
            candidate: arm(100, 1),
            control: arm(900, 9),
            ..Block::default()
        });
    }
    let text = judge.verdict().to_string();
    assert!(
        text.starts_with("pass: harm beyond +0.5 points ruled out after "),
        "{text}"
    );
    judge.begin_step(1);
    for _ in 0..60 {
        judge.fold(&Block {
            candidate: arm(500, 24),
            control: arm(500, 5),
            ..Block::default()
        });
    }
    let text = judge.verdict().to_string();
    assert!(
        text.starts_with("fail: error rate 4.8 % against 1.0 %, at least +"),
        "{text}"
    );
    assert!(text.ends_with(" points with 99 % confidence"), "{text}");
}

#[test]
fn a_slow_candidate_is_told_by_how_much() {
    let (shape, mut rng, mut judge) = (
        Shape::lognormal(20_000.0, 0.3),
        Rng(1),
        Judge::new(JudgePolicy::default()),
    );
    for _ in 0..10 {
        let mut block = Block {
            candidate: arm(100, 0),
            control: arm(100, 0),
            ..Block::default()
        };
        block.candidate.latency = shape.draw(&mut rng, 100, 15, 0.0, 0);
        block.control.latency = shape.draw(&mut rng, 100, 0, 0.0, 0);
        judge.fold(&block);
    }
    let verdict = judge.verdict();
    let Reason::Slower {
        candidate,
        candidate_above_us,
        control,
        control_above_us,
    } = verdict.reason
    else {
        panic!("{verdict}")
    };
    assert!(candidate.share() > 3.0 * control.share(), "{verdict}");
    assert!((candidate_above_us as f64 / control_above_us as f64 - 1.498).abs() < 0.001);
    let latency = |summary: Option<crate::analysis::LatencySummary>| summary.unwrap().p50_us;
    let ratio = latency(verdict.findings[1].candidate_latency) as f64
        / latency(verdict.findings[1].control_latency) as f64;
    assert!((2.2..2.6).contains(&ratio), "{ratio}");
}

/// The estimate of what is missing is the median of what it takes, within a factor of two.
#[test]
fn the_requests_still_needed_are_about_right() {
    for rate in [0.0, 0.01] {
        let mut ratios = Vec::new();
        for seed in 0..41 {
            let (mut rng, mut judge) = (Rng(seed), judge().with_history(50_000, (rate * 50_000.0) as u64));
            judge.fold(&block(&mut rng, (200, 200), (rate, rate)));
            let Reason::NeedsRequests {
                about: Some(about), ..
            } = judge.verdict().reason
            else {
                panic!()
            };
            let took = (1..).find(|_| {
                judge.fold(&block(&mut rng, (200, 200), (rate, rate)));
                judge.outcome() == Outcome::Pass
            });
            ratios.push(took.unwrap() as f64 * 200.0 / about as f64);
        }
        ratios.sort_by(f64::total_cmp);
        println!("took / about: {:?}", ratios[20]);
        assert!((0.5..2.0).contains(&ratios[20]), "{rate}: {}", ratios[20]);
    }
}

#[test]
fn a_pass_starts_anew_at_each_step() {
    let (shape, mut rng) = (Shape::lognormal(20_000.0, 0.5), Rng(2));
    let mut judge = Judge::new(JudgePolicy::default());
    let mut interval = || {
        let mut block = Block {
            candidate: arm(200, 0),
            control: arm(200, 0),
            ..Block::default()
        };
        block.candidate.latency = shape.draw(&mut rng, 200, 0, 0.0, 0);
        block.control.latency = shape.draw(&mut rng, 200, 0, 0.0, 0);
        block
    };
    judge.begin_step(1);
    for _ in 0..15 {
        judge.fold(&interval());
    }
    let verdict = judge.verdict();
    assert_eq!(
        (verdict.outcome, verdict.basis),
        (Outcome::Pass, Some(Basis::Users))
    );
    judge.begin_step(1);
    assert_eq!(
        judge.outcome(),
        Outcome::Pass,
        "the same step once more changes nothing"
    );
    judge.begin_step(2);
    assert_eq!(judge.outcome(), Outcome::Inconclusive);
    for finding in judge.verdict().findings {
        assert_eq!((finding.candidate.of, finding.pass_log10), (0, 0.0));
    }
    judge.fold(&interval());
    assert_eq!(judge.outcome(), Outcome::Inconclusive);
}

#[test]
fn evidence_that_arrives_late_counts_towards_a_fail() {
    let mut judge = judge();
    judge.begin_step(1);
    judge.begin_step(2);
    for _ in 0..10 {
        judge.fold_late(
            1,
            &Block {
                candidate: arm(100, 20),
                control: arm(100, 1),
                ..Block::default()
            },
        );
    }
    assert_eq!(judge.outcome(), Outcome::Fail);
}

#[test]
fn without_a_control_probes_in_a_row_pass_a_step() {
    let mut judge = Judge::new(JudgePolicy {
        control: Control::Absent,
        ..JudgePolicy::default()
    });
    judge.fold(&probes((80, 1), (0, 0)));
    judge.fold(&probes((89, 0), (0, 0)));
    assert_eq!(
        judge.verdict().to_string(),
        "inconclusive: no control; 89 of 90 candidate probes in a row"
    );
    judge.fold(&probes((1, 0), (0, 0)));
    assert_eq!(
        judge.verdict().to_string(),
        "pass (no control): no control; 90 candidate probes in a row succeeded"
    );
    judge.begin_step(1);
    assert_eq!(judge.outcome(), Outcome::Inconclusive);
}

#[test]
fn with_a_control_probes_in_a_row_of_the_candidate_alone_pass_nothing() {
    let mut judge = judge();
    for _ in 0..50 {
        judge.fold(&probes((90, 0), (0, 0)));
    }
    assert_eq!(judge.verdict().reason, Reason::NoControlTraffic);
}

#[test]
fn probes_alone_pass_with_their_wider_margin_and_are_marked() {
    let mut judge = Judge::new(JudgePolicy::default());
    let mut sent = 0;
    while judge.outcome() == Outcome::Inconclusive {
        judge.fold(&probes((10, 0), (10, 0)));
        sent += 10;
    }
    assert!((90..=300).contains(&sent), "{sent}");
    let text = format!(
        "pass (probes alone): harm beyond +5 points ruled out after {sent} candidate probes, no users"
    );
    assert_eq!(judge.verdict().to_string(), text);
    // One user's request at the next step, and the wide margin is not enough any more.
    judge.begin_step(1);
    judge.fold(&Block {
        candidate: arm(1, 0),
        control: arm(1, 0),
        ..Block::default()
    });
    for _ in 0..sent / 10 {
        judge.fold(&probes((10, 0), (10, 0)));
    }
    assert_eq!(judge.outcome(), Outcome::Inconclusive);
}

#[test]
fn failing_probes_fail() {
    let mut judge = judge();
    for _ in 0..10 {
        judge.fold(&probes((10, 5), (10, 0)));
    }
    assert_eq!(
        judge.verdict().to_string(),
        "fail: failed probes 50.0 % against 0.0 %"
    );
}
