//! The planner's estimates against what the judge then takes, and settings by name.

use super::power::latency_block;
use super::rng::{Rng, Shape, block, median};
use crate::analysis::{
    Histogram, Judge, JudgePolicy, Outcome, Rate, Setting, Signal, Traffic, parse_setting, power_plan,
};

fn traffic(rate: f64, share: f64) -> Traffic {
    Traffic {
        requests_per_second: 100.0,
        candidate_share: share,
        history: Rate {
            of: 100_000,
            bad: (100_000.0 * rate) as u64,
        },
        latency: Histogram::default(),
        interval_seconds: 10.0,
    }
}

fn errors_only() -> JudgePolicy {
    JudgePolicy {
        judge_latency: false,
        judge_cpu: false,
        judge_memory: false,
        ..JudgePolicy::default()
    }
}

#[test]
fn estimates_are_within_a_factor_of_two() {
    for (rate, n) in [
        (0.0, (100, 100)),
        (0.01, (100, 100)),
        (0.05, (100, 900)),
        (0.1, (100, 100)),
    ] {
        let planned = power_plan(&errors_only(), &traffic(rate, n.0 as f64 / (n.0 + n.1) as f64));
        let took = |outcome, p: (f64, f64)| {
            let run = |seed| {
                let history = (100_000.0 * rate) as u64;
                let (mut rng, mut judge) = (
                    Rng(seed),
                    Judge::new(errors_only()).with_history(100_000, history),
                );
                (1..=500).find_map(|i| {
                    judge.fold(&block(&mut rng, n, p));
                    (judge.outcome() == outcome).then_some(i * n.0)
                })
            };
            median((0..41).map(run).collect())
        };
        let near = |what: &str, planned: Option<u64>, took: Option<u64>| {
            println!("{what} at {rate}: planned {planned:?}, took {took:?}");
            let (Some(planned), Some(took)) = (planned, took) else {
                panic!("{what} at {rate}: planned {planned:?}, took {took:?}")
            };
            let ratio = took as f64 / planned as f64;
            assert!((0.5..=2.0).contains(&ratio), "{what} at {rate}: {ratio}");
        };
        near(
            "a pass",
            planned.pass.candidate_requests,
            took(Outcome::Pass, (rate, rate)),
        );
        if rate >= 0.05 {
            let doubled = planned.errors_doubled.candidate_requests;
            near("errors doubled", doubled, took(Outcome::Fail, (2.0 * rate, rate)));
        }
    }
}

#[test]
fn what_is_tolerated_is_planned_never_to_be_found() {
    let planned = power_plan(&errors_only(), &traffic(0.001, 0.5));
    assert_eq!(planned.errors_doubled.candidate_requests, None);
    let none = Traffic {
        requests_per_second: 0.0,
        ..traffic(0.01, 0.5)
    };
    let planned = power_plan(&errors_only(), &none);
    assert_eq!(planned.pass.seconds, None, "without traffic nothing comes");
}

#[test]
fn twice_the_latency_is_planned_as_it_is_found() {
    let shape = Shape::lognormal(20_000.0, 0.6);
    let policy = JudgePolicy {
        judge_cpu: false,
        judge_memory: false,
        ..JudgePolicy::default()
    };
    let traffic = Traffic {
        latency: shape.draw(&mut Rng(1), 50_000, 0, 0.0, 0),
        ..traffic(0.0, 0.5)
    };
    let planned = power_plan(&policy, &traffic);
    let run = |seed| {
        let (mut rng, mut judge) = (Rng(seed), Judge::new(policy.clone()));
        (1..=100).find_map(|i| {
            judge.fold(&latency_block(&mut rng, &shape, (100, 100), 12, 0.0));
            (judge.outcome() == Outcome::Fail).then_some(i * 100)
        })
    };
    let took = median((0..31).map(run).collect()).unwrap();
    let doubled = planned.latency_doubled.unwrap();
    let about = doubled.candidate_requests.unwrap();
    println!("planned {about}, took {took}");
    assert!(
        (0.4..=2.5).contains(&(took as f64 / about as f64)),
        "{about} {took}"
    );
    assert_eq!(doubled.signal, Signal::Latency);
}

#[test]
fn settings_are_set_by_name() {
    let mut policy = JudgePolicy::default();
    for text in [
        "judge.alpha=0.05",
        "latency_floor_us=500",
        "judge.judge_cpu=false",
        "judge.dry_run=latency|memory",
    ] {
        let (key, setting) = parse_setting(text).unwrap();
        policy.set(&key, &setting).unwrap();
    }
    assert_eq!(
        policy,
        JudgePolicy {
            alpha: 0.05,
            latency_floor_us: 500,
            judge_cpu: false,
            dry_run: [Signal::Latency, Signal::Memory].into(),
            ..JudgePolicy::default()
        }
    );
    let mut refused = |key: &str, setting| policy.set(key, &setting).unwrap_err().to_string();
    assert_eq!(refused("alpha", Setting::Flag(true)), "alpha: must be a number");
    assert_eq!(
        refused("no_control_probes", Setting::Number(0.5)),
        "no_control_probes: must be a whole number"
    );
    assert_eq!(
        refused("dry_run", Setting::Signals(vec!["disk".to_owned()])),
        "dry_run: must be signals among errors, latency, cpu, memory"
    );
    assert!(refused("alpa", Setting::Number(0.1)).contains("there are alpha, tolerance_share, "));
    assert!(parse_setting("alpha").is_err() && parse_setting("=1").is_err());
}
