//! What users of other judges reported, each as a scenario.

use super::rng::{Rng, Shape, arm, block};
use crate::analysis::{Block, Histogram, Judge, JudgePolicy, Outcome, Reason, Verdict};

fn judge() -> Judge {
    Judge::new(JudgePolicy {
        judge_latency: false,
        judge_cpu: false,
        judge_memory: false,
        ..JudgePolicy::default()
    })
}

fn errors(candidate: (u64, u64), control: (u64, u64)) -> Block {
    Block {
        candidate: arm(candidate.0, candidate.1),
        control: arm(control.0, control.1),
        ..Block::default()
    }
}

/// kayenta#780, spinnaker#6278: a change of variance or shape passes, the mean being the same.
#[test]
fn a_change_of_shape_with_the_same_mean_does_not_pass() {
    // Control: all at 100 ms. Candidate: 9 in 10 at 60 ms, 1 in 10 at 460 ms; the same mean.
    let mut judge = Judge::new(JudgePolicy::default());
    let latency = |parts: &[(u64, u64)]| {
        let mut histogram = Histogram::default();
        for (us, times) in parts {
            histogram.record_many(*us, *times);
        }
        histogram
    };
    for _ in 0..10 {
        let mut block = errors((100, 0), (100, 0));
        block.candidate.latency = latency(&[(60_000, 90), (460_000, 10)]);
        block.control.latency = latency(&[(100_000, 100)]);
        judge.fold(&block);
    }
    let verdict = judge.verdict();
    assert_eq!(verdict.outcome, Outcome::Fail);
    assert!(matches!(verdict.reason, Reason::Slower { .. }), "{verdict}");
}

/// spinnaker#6278: seven intervals at 100 % and one at 3 % against ten at 1 % pass there.
#[test]
fn a_few_intervals_of_harm_do_not_drown() {
    let mut judge = judge();
    for i in 0..10 {
        // Errors of 100 requests: none in nine intervals and 10 in one have the control's mean of 1.
        judge.fold(&errors((100, if i < 7 { 100 } else { 3 }), (100, 1)));
    }
    assert_eq!(judge.outcome(), Outcome::Fail);
}

/// kayenta#426: errors [0, 1, 2, 1, 0, 0] against zeros pass there.
#[test]
fn a_handful_of_errors_against_none_does_not_pass() {
    for requests in [10, 100, 1_000] {
        let mut judge = judge();
        let mut passed = false;
        for bad in [0, 1, 2, 1, 0, 0] {
            judge.fold(&errors((requests, bad), (requests, 0)));
            passed |= judge.outcome() == Outcome::Pass;
        }
        // 4 of 6,000 are within half a point; 4 of 600 and 4 of 60 are not.
        assert_eq!(passed, requests == 1_000, "{requests}: {}", judge.verdict());
    }
}

/// spinnaker#5622, kayenta#377: a control without errors against an erring candidate passed, and reached production.
#[test]
fn a_flawless_control_makes_an_erring_candidate_fail() {
    for percent in [2, 5, 20] {
        let mut judge = judge();
        for _ in 0..20 {
            judge.fold(&errors((100, percent), (100, 0)));
        }
        assert_eq!(judge.outcome(), Outcome::Fail, "{percent} %");
    }
}

/// kayenta#633: +650 % passes with few points.
#[test]
fn few_requests_of_a_much_worse_candidate_do_not_pass() {
    for blocks in 1..=5 {
        let mut judge = judge();
        for _ in 0..blocks {
            judge.fold(&errors((20, 3), (50, 1)));
        }
        assert_ne!(judge.outcome(), Outcome::Pass, "{}", judge.verdict());
    }
}

/// kayenta#521: the statistic is not shown.
#[test]
fn every_verdict_shows_its_evidence() {
    let mut judge = judge();
    let shown = |verdict: &Verdict| {
        let finding = &verdict.findings[0];
        (
            finding.fail_log10,
            finding.fail_at_log10,
            finding.pass_log10,
            finding.pass_at_log10,
        )
    };
    judge.fold(&errors((100, 5), (100, 1)));
    let (fail, fail_at, pass, pass_at) = shown(&judge.verdict());
    assert!(
        (fail_at, pass_at) == (2.0, 2.0) && fail != 0.0 && fail < 2.0 && pass < 0.0,
        "{fail} {pass}"
    );
    for _ in 0..9 {
        judge.fold(&errors((100, 5), (100, 1)));
    }
    let verdict = judge.verdict();
    assert!(shown(&verdict).0 >= 2.0);
    assert!(
        verdict.to_string().starts_with("fail: error rate 5."),
        "{verdict}"
    );
}

/// argo-rollouts PR#2027: low traffic ends inconclusive, for good. Here it says what it needs, never passes by
/// itself, and probes fill in.
#[test]
fn low_traffic_says_what_it_needs_and_probes_fill_in() {
    let mut judge = judge();
    for _ in 0..20 {
        judge.fold(&errors((5, 0), (5, 0)));
    }
    let verdict = judge.verdict();
    assert_eq!(verdict.outcome, Outcome::Inconclusive);
    let Reason::NeedsRequests {
        about: Some(about), ..
    } = verdict.reason
    else {
        panic!("{verdict}")
    };
    assert!((700..3_000).contains(&about), "{about}");
    let mut block = errors((5, 0), (5, 0));
    (block.candidate.probes, block.control.probes) = (20, 20);
    for _ in 0..100 {
        judge.fold(&block);
    }
    assert_eq!(judge.outcome(), Outcome::Pass);
    assert!(
        judge.verdict().to_string().starts_with("pass (with probes)"),
        "{}",
        judge.verdict()
    );
}

/// argo-rollouts#1700: a metric that probes the wrong arm. Swapped arms must not look alike.
#[test]
fn swapped_arms_give_the_opposite_answer() {
    let mut rng = Rng(3);
    let (mut judge, mut swapped) = (judge(), self::judge());
    for _ in 0..30 {
        let block = block(&mut rng, (300, 300), (0.05, 0.01));
        judge.fold(&block);
        swapped.fold(&Block {
            candidate: block.control,
            control: block.candidate,
            ..Block::default()
        });
    }
    assert_eq!(
        (judge.outcome(), swapped.outcome()),
        (Outcome::Fail, Outcome::Pass)
    );
    let (a, b) = (judge.confidence(), swapped.confidence());
    assert_eq!(a.at_least_points, b.at_most_points.map(|points| -points));
    assert_eq!(a.at_most_points, b.at_least_points.map(|points| -points));
}

/// No data, no pass: not from one arm, not from none.
#[test]
fn missing_data_does_not_pass() {
    let shape = Shape::lognormal(5_000.0, 0.3);
    let mut rng = Rng(9);
    for (candidate, control) in [(0, 0), (1_000, 0), (0, 1_000)] {
        let mut judge = Judge::new(JudgePolicy::default());
        for _ in 0..100 {
            let mut block = errors((candidate, 0), (control, 0));
            block.candidate.latency = shape.draw(&mut rng, candidate, 0, 0.0, 0);
            block.control.latency = shape.draw(&mut rng, control, 0, 0.0, 0);
            judge.fold(&block);
        }
        let verdict = judge.verdict();
        assert_eq!(verdict.outcome, Outcome::Inconclusive);
        let named = match verdict.reason {
            Reason::NoCandidateTraffic => candidate == 0,
            Reason::NoControlTraffic => control == 0,
            _ => false,
        };
        assert!(named, "{verdict}");
    }
    // Latency asked for and missing: the errors alone don't pass.
    let mut judge = Judge::new(JudgePolicy::default());
    for _ in 0..100 {
        judge.fold(&errors((500, 0), (500, 0)));
    }
    assert_eq!(judge.verdict().reason, Reason::NoLatencyCounts);
}
