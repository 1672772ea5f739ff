//! Runs many seeds, or replays one.

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::str::FromStr;
use std::time::Instant;

use clap::Parser;
use hotswap_sim::Shape;
use hotswap_sim::faults::{Fault, FaultSet};
use hotswap_sim::many::{MARKS_NEED_RUNS, Many, Total, one};
use hotswap_sim::shrink;

/// Failing seeds that are made smaller and told; of the others only the number is.
const SHRUNK_MAX: usize = 3;
/// Failing seeds that are named.
const NAMED_MAX: usize = 20;

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
    /// Tell everything that happens in it.
    #[arg(long, requires = "seed")]
    trace: bool,
    /// Make it as small as it can be and still fail, and tell that.
    #[arg(long, requires = "seed")]
    shrink: bool,
    /// Threads; by default as many as there are cores.
    #[arg(long)]
    threads: Option<usize>,
    /// Leave these kinds of fault out.
    #[arg(long, value_delimiter = ',')]
    without: Vec<Fault>,
    /// Only these of the faults that have their moment, by place; `none`: no one of them.
    #[arg(long)]
    planned: Option<Places>,
    /// At most so many nodes.
    #[arg(long)]
    nodes: Option<usize>,
    /// At most so many deployments.
    #[arg(long)]
    deployments: Option<u64>,
    /// No faults and commands after so many ms.
    #[arg(long)]
    until: Option<u64>,
    /// Operators only deploy.
    #[arg(long)]
    no_commands: bool,
    /// All releases behave well.
    #[arg(long)]
    good: bool,
    /// Find every deliberate bug.
    #[cfg(feature = "mutants")]
    #[arg(long)]
    mutants: bool,
    /// With this deliberate bug.
    #[cfg(feature = "mutants")]
    #[arg(long)]
    mutant: Option<String>,
}

/// Places among the faults that have their moment.
#[derive(Clone, Debug)]
struct Places(BTreeSet<usize>);

impl FromStr for Places {
    type Err = String;

    fn from_str(words: &str) -> Result<Self, String> {
        if words == "none" {
            return Ok(Self(BTreeSet::new()));
        }
        let place = |word: &str| {
            word.parse()
                .map_err(|_| format!("{word} is neither a place nor none"))
        };
        words.split(',').map(place).collect::<Result<_, _>>().map(Self)
    }
}

impl Options {
    fn shape(&self) -> Shape {
        Shape {
            without: self.without.iter().copied().collect::<FaultSet>(),
            planned: self.planned.as_ref().map(|places| places.0.clone()),
            nodes: self.nodes,
            deployments: self.deployments,
            until: self.until,
            no_commands: self.no_commands,
            good: self.good,
        }
    }

    fn threads(&self) -> usize {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        self.threads.unwrap_or(cores)
    }
}

fn main() -> ExitCode {
    let options = Options::parse();
    #[cfg(feature = "mutants")]
    {
        if options.mutants {
            std::panic::set_hook(Box::new(|_| {}));
            return hotswap_sim::mutants::find_all(options.threads());
        }
        if let Some(word) = &options.mutant
            && let Err(error) = hotswap_sim::mutants::activate(word)
        {
            eprintln!("error: {error}");
            return ExitCode::FAILURE;
        }
    }
    match options.seed {
        Some(seed) => replay(seed, &options),
        None => many(&options),
    }
}

fn replay(seed: u64, options: &Options) -> ExitCode {
    let mut shape = options.shape();
    if options.shrink {
        shape = shrink::smallest(seed, shape);
    }
    let outcome = one(seed, &shape, options.trace || options.shrink);
    print!("{}", outcome.story);
    println!(
        "seed {seed}: {} inputs, {} simulated ms",
        outcome.inputs, outcome.lasted
    );
    match outcome.violation {
        Some(violation) => {
            println!("replay: cargo xtask sim --seed {seed}{shape} --trace");
            println!("FAILED: {violation}");
            ExitCode::FAILURE
        }
        None => {
            println!("OK");
            ExitCode::SUCCESS
        }
    }
}

fn many(options: &Options) -> ExitCode {
    std::panic::set_hook(Box::new(|_| {}));
    let began = Instant::now();
    let shape = options.shape();
    let total = Many {
        start: options.start,
        seeds: options.seeds,
        threads: options.threads(),
        shape: shape.clone(),
        until_first: false,
        tells: true,
    }
    .run();
    let seconds = began.elapsed().as_secs_f64();
    total.print_faults();
    total.print_marks();
    for (seed, violation) in total.violations.iter().take(NAMED_MAX) {
        println!("seed {seed}: {violation}");
    }
    for seed in total.violations.keys().take(SHRUNK_MAX) {
        let small = shrink::smallest(*seed, shape.clone());
        let outcome = one(*seed, &small, true);
        println!("seed {seed}, made small:");
        print!("{}", outcome.story);
        println!("replay: cargo xtask sim --seed {seed}{small} --trace");
    }
    verdict(&total, seconds)
}

/// The last line is the verdict, with its figures.
fn verdict(total: &Total, seconds: f64) -> ExitCode {
    let never: Vec<&str> = total.marks.never().map(hotswap_sim::marks::Mark::text).collect();
    for mark in &never {
        println!("never: {mark}");
    }
    let marks_fail = !never.is_empty() && total.runs >= MARKS_NEED_RUNS;
    let failed = total.violations.len();
    let word = if failed > 0 || marks_fail { "FAILED" } else { "OK" };
    println!(
        "{word}: {} runs in {seconds:.1} s ({:.0} a minute), median {} inputs of {} in all, {:.0} simulated hours, {} \
         faults, {failed} violations, {} of {} rare branches never taken",
        total.runs,
        total.runs as f64 / seconds * 60.0,
        total.median(),
        total.inputs.iter().sum::<u64>(),
        total.simulated_ms as f64 / 3_600_000.0,
        Fault::ALL
            .iter()
            .map(|fault| total.injected.times(*fault))
            .sum::<u64>(),
        never.len(),
        hotswap_sim::marks::Mark::ALL.len(),
    );
    if failed > 0 || marks_fail {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    }
}
