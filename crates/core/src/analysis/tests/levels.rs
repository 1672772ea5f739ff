//! Processor time and memory, dry runs, and the weights of signals.

use super::rng::Rng;
use crate::analysis::{ArmCounts, Block, Judge, JudgePolicy, Outcome, Reason, Signal, Verdict};

/// One interval of some nodes, of 50 + 50 requests each, at (candidate, control) µs of a request and KiB of an instance.
fn block(nodes: u32, cpu_us: (u64, u64), memory_kib: (u64, u64)) -> Block {
    let arm = |cpu_us: u64, memory_kib: u64| ArmCounts {
        requests: 50,
        cpu_us: 50 * cpu_us,
        memory_kib,
        memory_readings: u64::from(memory_kib > 0),
        ..ArmCounts::default()
    };
    let mut block = Block::default();
    for place in 0..nodes {
        let node = Block {
            candidate: arm(cpu_us.0, memory_kib.0),
            control: arm(cpu_us.1, memory_kib.1),
            ..Block::default()
        };
        block.merge_node(place, &node);
    }
    block
}

fn policy() -> JudgePolicy {
    JudgePolicy {
        judge_latency: false,
        ..JudgePolicy::default()
    }
}

/// After how many intervals an outcome comes, within 60.
fn after(policy: JudgePolicy, outcome: Outcome, block: &Block) -> (Option<u32>, Verdict) {
    let mut judge = Judge::new(policy);
    let found = (1..=60).find(|_| {
        judge.fold(block);
        judge.outcome() == outcome
    });
    (found, judge.verdict())
}

#[test]
fn twice_the_processor_time_fails() {
    let (found, verdict) = after(policy(), Outcome::Fail, &block(2, (400, 200), (0, 0)));
    let text = verdict.to_string();
    assert!(
        text.starts_with("fail: cpu of a request 400 µs against 200 µs, beyond what is tolerated in "),
        "{text}"
    );
    assert!((9..=16).contains(&found.unwrap()), "{found:?}");
}

#[test]
fn what_is_tolerated_does_not_fail_and_harm_does_not_pass() {
    // +14 %, and +20 µs of 100, are within the tolerance of 15 % and 25 µs; +40 % and +60 µs are beyond the margin.
    for cpu in [(228, 200), (120, 100)] {
        assert_eq!(after(policy(), Outcome::Fail, &block(2, cpu, (0, 0))).0, None);
    }
    for cpu in [(280, 200), (160, 100)] {
        let block = block(4, cpu, (0, 0));
        assert_eq!(after(policy(), Outcome::Pass, &block).0, None, "{cpu:?}");
    }
}

#[test]
fn a_pass_waits_for_processor_time_where_it_is_metered() {
    let mut judge = Judge::new(policy());
    let many = |cpu_us| {
        let mut block = block(2, (cpu_us, cpu_us), (0, 0));
        (block.candidate.requests, block.control.requests) = (5_000, 5_000);
        block
    };
    judge.fold(&many(200));
    let verdict = judge.verdict();
    let Reason::NeedsIntervals { signal, about } = verdict.reason else {
        panic!("{verdict}")
    };
    assert_eq!(signal, Signal::Cpu);
    for i in 0..about {
        assert_eq!(judge.outcome(), Outcome::Inconclusive, "{i}");
        judge.fold(&many(200));
    }
    assert_eq!(judge.outcome(), Outcome::Pass);
    let mut judge = Judge::new(policy());
    judge.fold(&many(0));
    assert_eq!(
        judge.outcome(),
        Outcome::Pass,
        "what no node meters isn't waited for"
    );
}

#[test]
fn one_bad_interval_on_all_nodes_counts_once() {
    let mut judge = Judge::new(policy());
    for _ in 0..3 {
        judge.fold(&block(64, (2_000, 200), (0, 0)));
    }
    assert_ne!(judge.outcome(), Outcome::Fail, "cold caches after a switch");
}

#[test]
fn probes_in_unequal_shares_are_not_compared() {
    let mut block = block(2, (400, 200), (0, 0));
    for node in &mut block.nodes {
        (node.candidate.probes, node.control.probes) = (50, 5);
    }
    assert_eq!(after(policy(), Outcome::Fail, &block).0, None);
}

#[test]
fn memory_is_judged_by_the_number_of_nodes_not_by_waiting() {
    let twice = (40_960, 20_480);
    assert_eq!(after(policy(), Outcome::Fail, &block(6, (0, 0), twice)).0, None);
    let (found, verdict) = after(policy(), Outcome::Fail, &block(20, (0, 0), twice));
    assert_eq!(found, Some(3), "once each node has given three readings");
    assert_eq!(
        verdict.to_string(),
        "fail: memory of an instance 40 MiB against 20 MiB, beyond what is tolerated on 20 of 20 nodes"
    );
}

#[test]
fn a_dry_run_is_shown_and_never_acted_on() {
    let dry = JudgePolicy {
        dry_run: [Signal::Cpu].into(),
        ..policy()
    };
    let (found, verdict) = after(dry.clone(), Outcome::Fail, &block(2, (400, 200), (0, 0)));
    assert_eq!(found, None, "{verdict}");
    let finding = verdict
        .findings
        .iter()
        .find(|finding| finding.signal == Signal::Cpu);
    assert!(finding.is_some_and(|finding| finding.dry_run && finding.outcome == Outcome::Fail));
    // Nor does a pass wait for it.
    let mut judge = Judge::new(dry);
    let mut block = block(2, (400, 200), (0, 0));
    (block.candidate.requests, block.control.requests) = (5_000, 5_000);
    judge.fold(&block);
    assert_eq!(judge.outcome(), Outcome::Pass);
}

#[test]
fn the_weights_of_acting_signals_share_one_alpha() {
    let weights = |policy: &JudgePolicy| -> f64 {
        [Signal::Errors, Signal::Latency, Signal::Cpu, Signal::Memory]
            .into_iter()
            .filter(|signal| policy.acts(*signal))
            .map(|signal| policy.weight(signal))
            .sum()
    };
    for policy in [
        JudgePolicy::default(),
        policy(),
        JudgePolicy {
            dry_run: [Signal::Errors, Signal::Memory].into(),
            ..JudgePolicy::default()
        },
    ] {
        assert!((weights(&policy) - 1.0).abs() < 1e-12);
    }
    assert!((JudgePolicy::default().fail_at(Signal::Errors) - 200.0).abs() < 1e-9);
}

/// Weak evidence of two signals adds up, though neither would fail alone.
#[test]
fn evidence_of_several_signals_adds_up() {
    let mut rng = Rng(5);
    let mut both = Judge::new(JudgePolicy::default());
    let mut at = 0;
    while both.outcome() != Outcome::Fail && at < 400 {
        let shape = super::rng::Shape::lognormal(20_000.0, 0.6);
        let mut block = super::rng::block(&mut rng, (20, 20), (0.06, 0.01));
        block.candidate.latency = shape.draw(&mut rng, 20, 12, 0.0, 0);
        block.control.latency = shape.draw(&mut rng, 20, 0, 0.0, 0);
        both.fold(&block);
        at += 1;
    }
    let verdict = both.verdict();
    assert_eq!(verdict.outcome, Outcome::Fail);
    let parts: f64 = verdict
        .findings
        .iter()
        .map(|finding| 10_f64.powf(finding.fail_log10 - finding.fail_at_log10))
        .sum();
    assert!(parts >= 0.99, "the sum of the parts reached 1: {parts}");
}
