//! Runs many seeds, or replays one.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use clap::Parser;
use hotswap_core::invariants::{Invariant, Violation};
use hotswap_sim::{Outcome, World};

/// Violations that are shown before the rest is only counted.
const SHOWN_MAX: usize = 20;

/// Simulates fleets, one a seed, and checks the invariants after every input.
#[derive(Parser, Debug)]
struct Options {
    /// How many seeds.
    #[arg(long, default_value_t = 2_000)]
    seeds: u64,
    /// The first.
    #[arg(long, default_value_t = 0)]
    start: u64,
    /// This one alone.
    #[arg(long)]
    seed: Option<u64>,
    /// Tell everything that happens.
    #[arg(long)]
    trace: bool,
    /// Threads; by default as many as there are cores.
    #[arg(long)]
    threads: Option<usize>,
}

/// What all runs came to.
#[derive(Default)]
struct Total {
    runs: u64,
    inputs: Vec<u64>,
    simulated_ms: u64,
    marks: BTreeMap<&'static str, u64>,
    violations: Vec<(u64, Violation)>,
}

fn one(seed: u64, trace: bool) -> Outcome {
    std::panic::catch_unwind(|| World::new(seed, trace).run()).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        let what = format!("it panicked: {}", text.unwrap_or_default());
        Outcome {
            violation: Some(Violation {
                invariant: Invariant::S9Log,
                what,
            }),
            ..Outcome::default()
        }
    })
}

fn main() -> ExitCode {
    let options = Options::parse();
    if let Some(seed) = options.seed {
        let outcome = one(seed, options.trace);
        println!(
            "seed {seed}: {} inputs, {} simulated ms",
            outcome.inputs, outcome.lasted
        );
        return match outcome.violation {
            Some(violation) => {
                println!("FAILED: {violation}");
                ExitCode::FAILURE
            }
            None => {
                println!("OK");
                ExitCode::SUCCESS
            }
        };
    }
    std::panic::set_hook(Box::new(|_| {}));
    many(&options)
}

fn many(options: &Options) -> ExitCode {
    let began = Instant::now();
    let next = AtomicU64::new(options.start);
    let end = options.start.saturating_add(options.seeds);
    let total = Mutex::new(Total::default());
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    std::thread::scope(|scope| {
        for _ in 0..options.threads.unwrap_or(cores).max(1) {
            scope.spawn(|| work(&next, end, &total, began));
        }
    });
    let total = total
        .into_inner()
        .expect("no thread panics while it holds the lock");
    verdict(total, began.elapsed().as_secs_f64())
}

fn work(next: &AtomicU64, end: u64, total: &Mutex<Total>, began: Instant) {
    loop {
        let seed = next.fetch_add(1, Ordering::Relaxed);
        if seed >= end {
            return;
        }
        let outcome = one(seed, false);
        let mut total = total.lock().expect("no thread panics while it holds the lock");
        total.runs += 1;
        total.inputs.push(outcome.inputs);
        total.simulated_ms += outcome.lasted;
        for (mark, times) in outcome.marks {
            *total.marks.entry(mark).or_insert(0) += times;
        }
        if let Some(violation) = outcome.violation {
            if total.violations.len() < SHOWN_MAX {
                println!(
                    "seed {seed}: {violation}\n  replay: cargo run --release -p hotswap-sim -- --seed {seed} --trace"
                );
            }
            total.violations.push((seed, violation));
        }
        if total.runs.is_multiple_of(1_000) {
            let rate = total.runs as f64 / began.elapsed().as_secs_f64() * 60.0;
            println!(
                "{} runs, {rate:.0} a minute, {} violations",
                total.runs,
                total.violations.len()
            );
        }
    }
}

fn verdict(mut total: Total, seconds: f64) -> ExitCode {
    total.inputs.sort_unstable();
    let median = total.inputs.get(total.inputs.len() / 2).copied().unwrap_or(0);
    println!("coverage over all runs:");
    for (mark, times) in &total.marks {
        println!("  {times:>9} × {mark}");
    }
    let rate = total.runs as f64 / seconds * 60.0;
    println!(
        "{} runs in {seconds:.1} s ({rate:.0} a minute), median {median} inputs, {} inputs and {:.0} simulated hours in all",
        total.runs,
        total.inputs.iter().sum::<u64>(),
        total.simulated_ms as f64 / 3_600_000.0
    );
    if total.violations.is_empty() {
        println!("OK: no violation");
        return ExitCode::SUCCESS;
    }
    let mut by_kind: BTreeMap<String, (u64, u64)> = BTreeMap::new();
    for (seed, violation) in &total.violations {
        by_kind
            .entry(violation.invariant.to_string())
            .or_insert((0, *seed))
            .0 += 1;
    }
    for (kind, (times, seed)) in by_kind {
        println!("  {times} × {kind}, first seed {seed}");
    }
    println!(
        "FAILED: {} violations in {} runs",
        total.violations.len(),
        total.runs
    );
    ExitCode::FAILURE
}
