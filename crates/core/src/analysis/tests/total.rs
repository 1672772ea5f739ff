//! Folding is total, deterministic and survives storage: the judge lives in the core's state.

use proptest::prelude::*;

use crate::analysis::{
    ArmCounts, BINS, Block, Control, Histogram, Judge, JudgePolicy, Outcome, Signal, Verdict, edge_us,
};

fn count() -> impl Strategy<Value = u64> {
    prop_oneof![Just(0), 0_u64..20, 0_u64..5_000, Just(u64::MAX), any::<u64>()]
}

fn counts() -> impl Strategy<Value = ArmCounts> {
    let latency = prop::collection::vec((0..BINS, count()), 0..8);
    let used = (count(), count(), count());
    (count(), count(), latency, count(), count(), count(), used).prop_map(
        |(requests, errors, latency, probes, probe_errors, probe_streak, used)| {
            let mut histogram = Histogram::default();
            for (bin, count) in latency {
                histogram.record_many(edge_us(bin), count);
            }
            ArmCounts {
                requests,
                errors,
                latency: histogram,
                probes,
                probe_errors,
                probe_streak,
                cpu_us: used.0,
                memory_kib: used.1,
                memory_readings: used.2,
            }
        },
    )
}

fn any_block() -> impl Strategy<Value = Block> {
    prop::collection::vec((0..200_u32, counts(), counts()), 0..4).prop_map(|nodes| {
        let mut block = Block::default();
        for (place, candidate, control) in nodes {
            let interval = Block {
                candidate,
                control,
                ..Block::default()
            };
            block.merge_node(place, &interval);
        }
        block
    })
}

#[derive(Clone, Debug)]
enum Input {
    Step(u32),
    Fold(Block),
    Late(u32, Block),
}

fn inputs() -> impl Strategy<Value = Vec<Input>> {
    let input = prop_oneof![
        1 => (0_u32..6).prop_map(Input::Step),
        6 => any_block().prop_map(Input::Fold),
        2 => (0_u32..6, any_block()).prop_map(|(step, block)| Input::Late(step, block)),
    ];
    prop::collection::vec(input, 0..25)
}

fn feed(judge: &mut Judge, input: &Input) {
    match input {
        Input::Step(step) => judge.begin_step(*step),
        Input::Fold(block) => judge.fold(block),
        Input::Late(step, block) => judge.fold_late(*step, block),
    }
}

fn number() -> impl Strategy<Value = f64> {
    prop_oneof![any::<f64>(), 0.0..1.0, Just(f64::NAN), Just(0.0), Just(-1.0)]
}

fn policy() -> impl Strategy<Value = JudgePolicy> {
    let numbers = [
        number(),
        number(),
        number(),
        number(),
        number(),
        number(),
        number(),
    ];
    let control = prop_oneof![
        Just(Control::SideBySide),
        Just(Control::Absent),
        Just(Control::BeforeAfter)
    ];
    let signals = [Signal::Errors, Signal::Latency, Signal::Cpu, Signal::Memory];
    let dry_run = prop::collection::btree_set(prop::sample::select(signals.to_vec()), 0..4);
    (control, any::<bool>(), numbers, count(), dry_run).prop_map(
        |(control, judge_latency, n, floor, dry_run)| JudgePolicy {
            control,
            dry_run,
            judge_latency,
            error_margin_points: n[0],
            error_margin_relative: n[1],
            latency_margin_relative: n[2],
            latency_margin_points: n[3],
            tolerance_share: n[4],
            alpha: n[5],
            probe_margin_points: n[6],
            latency_floor_us: floor,
            ..JudgePolicy::default()
        },
    )
}

fn through_json<T: serde::Serialize + serde::de::DeserializeOwned>(value: &T) -> T {
    serde_json::from_str(&serde_json::to_string(value).unwrap()).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn any_input_folds_under_any_policy(policy in policy(), inputs in inputs()) {
        let mut judge = Judge::new(policy).with_history(u64::MAX, 5);
        prop_assert!(judge.policy().validate().is_ok());
        for input in &inputs {
            feed(&mut judge, input);
            let verdict = judge.verdict();
            prop_assert!(!verdict.to_string().is_empty());
            for finding in &verdict.findings {
                prop_assert!(finding.fail_log10.is_finite() && finding.pass_log10.is_finite());
            }
        }
    }

    #[test]
    fn a_restored_judge_equals_the_one_saved_and_goes_on_like_it(inputs in inputs(), cut in 0_usize..25) {
        let mut judge = Judge::new(JudgePolicy::default());
        let mut restored = judge.clone();
        for (i, input) in inputs.iter().enumerate() {
            if i == cut {
                restored = through_json(&judge);
                prop_assert_eq!(&restored, &judge);
            }
            feed(&mut judge, input);
            feed(&mut restored, input);
            let verdict: Verdict = through_json(&judge.verdict());
            prop_assert_eq!(verdict, restored.verdict());
        }
        prop_assert_eq!(&restored, &judge);
    }

    #[test]
    fn a_fail_is_final_and_a_pass_lasts_its_step(inputs in inputs()) {
        let mut judge = Judge::new(JudgePolicy { judge_latency: false, ..JudgePolicy::default() });
        for input in &inputs {
            let before = judge.verdict();
            feed(&mut judge, input);
            let after = judge.verdict();
            if before.outcome == Outcome::Fail {
                prop_assert_eq!(&after.reason, &before.reason);
            }
            if before.outcome == Outcome::Pass && after.step == before.step {
                prop_assert_ne!(after.outcome, Outcome::Inconclusive);
            }
        }
    }

    #[test]
    fn late_evidence_never_helps_a_pass(blocks in prop::collection::vec(any_block(), 1..10)) {
        let mut judge = Judge::new(JudgePolicy { judge_latency: false, ..JudgePolicy::default() });
        judge.begin_step(1);
        judge.begin_step(2);
        for block in &blocks {
            judge.fold_late(1, block);
            prop_assert_ne!(judge.outcome(), Outcome::Pass);
            prop_assert_eq!(judge.verdict().findings[0].pass_log10, 0.0);
        }
    }

    #[test]
    fn merging_blocks_is_associative(
        a in any_block(), b in any_block(), c in any_block(), probes in prop::collection::vec(0_u64..9, 9),
    ) {
        // Streaks, with counts that don't saturate.
        let mut arms = [a, b, c];
        for (block, n) in arms.iter_mut().zip(probes.chunks(3)) {
            let arm = &mut block.candidate;
            (arm.probes, arm.probe_errors, arm.probe_streak) = (n[0], n[1] / 3, n[2]);
        }
        let [a, b, c] = arms;
        let merged = |x: &Block, y: &Block| {
            let mut sum = x.clone();
            sum.merge(y);
            sum
        };
        let (left, right) = (merged(&merged(&a, &b), &c), merged(&a, &merged(&b, &c)));
        for before in [0, 7] {
            prop_assert_eq!(left.candidate.streak_after(before), right.candidate.streak_after(before));
        }
        prop_assert_eq!(left.control.requests, right.control.requests);
        prop_assert_eq!(left.candidate.latency, right.candidate.latency);
        prop_assert_eq!(left.candidate.probe_errors, right.candidate.probe_errors);
    }

    #[test]
    fn more_candidate_errors_are_more_evidence_of_harm(errors in 0_u64..99, of in 100_u64..900) {
        let evidence = |candidate_errors| {
            let mut judge = Judge::new(JudgePolicy { judge_latency: false, ..JudgePolicy::default() });
            let mut block = Block::default();
            (block.candidate.requests, block.candidate.errors) = (100, candidate_errors);
            (block.control.requests, block.control.errors) = (of, 1);
            judge.fold(&block);
            let verdict = judge.verdict();
            (verdict.findings[0].fail_log10, verdict.findings[0].pass_log10)
        };
        let (fewer, more) = (evidence(errors), evidence(errors + 1));
        prop_assert!(more.0 >= fewer.0 && more.1 <= fewer.1, "{fewer:?} {more:?}");
    }
}

#[test]
fn unknown_fields_are_ignored_and_missing_ones_take_their_default() {
    let policy: JudgePolicy = serde_json::from_str(r#"{"alpha":0.05,"cpu_margin":0.3}"#).unwrap();
    assert_eq!(
        policy,
        JudgePolicy {
            alpha: 0.05,
            ..JudgePolicy::default()
        }
    );
    let block: Block = serde_json::from_str(r#"{"candidate":{"requests":3,"cpu":[1]},"memory":{}}"#).unwrap();
    assert_eq!(block.candidate.requests, 3);
}

#[test]
fn a_policy_is_refused_with_all_its_faults() {
    assert_eq!(JudgePolicy::default().validate(), Ok(()));
    let policy = JudgePolicy {
        alpha: f64::NAN,
        tolerance_share: 0.0,
        latency_floor_us: 0,
        no_control_probes: 0,
        ..JudgePolicy::default()
    };
    let faults = policy.validate().unwrap_err();
    assert_eq!(
        faults.to_string(),
        "tolerance_share is 0, must be 0.05 to 0.95; alpha is NaN, must be 0.000001 to 0.1; \
         latency_floor_us is 0, must be 1 to 10000000; no_control_probes is 0, must be at least 1"
    );
    let back: JudgePolicy =
        serde_json::from_str(&serde_json::to_string(&JudgePolicy::default()).unwrap()).unwrap();
    assert_eq!(back, JudgePolicy::default());
}
