//! Fuzzes one target or all, for a while.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use hotswap_fuzz::run::{self, Failed, Tried, Until};
use hotswap_fuzz::targets::{TARGETS, Target, named};

/// Feeds every parser of what comes from outside with bytes that are nearly right.
#[derive(Parser, Debug)]
struct Options {
    /// Only this target; all, if none is named.
    target: Option<String>,
    /// How long for each target, in seconds.
    #[arg(long, default_value_t = 10, conflicts_with = "file")]
    seconds: u64,
    /// Draws the inputs; by default the time of day does.
    #[arg(long)]
    seed: Option<u64>,
    /// Try the bytes of this file alone.
    #[arg(long, requires = "target")]
    file: Option<PathBuf>,
}

fn main() -> ExitCode {
    let options = Options::parse();
    let targets: Vec<Target> = match &options.target {
        None => TARGETS.to_vec(),
        Some(name) => match named(name) {
            Some(target) => vec![target],
            None => {
                let known: Vec<&str> = TARGETS.iter().map(|target| target.name).collect();
                eprintln!(
                    "error: no target is called {name}; there are {}",
                    known.join(", ")
                );
                return ExitCode::FAILURE;
            }
        },
    };
    if let Some(file) = &options.file {
        return replay(&targets[0], file);
    }
    let seed = options.seed.unwrap_or_else(|| fastrand::u64(..));
    let began = Instant::now();
    let (mut inputs, mut failed) = (0, 0);
    println!("{:<16} {:>10} {:>10}", "target", "inputs", "right");
    for target in &targets {
        match run::run(target, seed, Until::Elapsed(Duration::from_secs(options.seconds))) {
            Ok(Tried { inputs: tried, right }) => {
                inputs += tried;
                println!("{:<16} {tried:>10} {right:>10}", target.name);
            }
            Err(Failed { what, file }) => {
                failed += 1;
                println!("{:<16} FAILED: {what}", target.name);
                println!(
                    "  replay: cargo xtask fuzz {} --file {}",
                    target.name,
                    file.display()
                );
            }
        }
    }
    let seconds = began.elapsed().as_secs();
    let verdict = if failed == 0 { "OK" } else { "FAILED" };
    println!(
        "{verdict}: {} targets, {inputs} inputs in {seconds} s, {failed} failures; seed {seed}",
        targets.len()
    );
    ExitCode::from(u8::from(failed > 0))
}

fn replay(target: &Target, file: &std::path::Path) -> ExitCode {
    let bytes = match std::fs::read(file) {
        Ok(bytes) => bytes,
        Err(error) => {
            eprintln!("error: {}: {error}", file.display());
            return ExitCode::FAILURE;
        }
    };
    match run::one(target, &bytes, &mut Tried::default()) {
        Ok(()) => {
            println!("OK: {} bytes", bytes.len());
            ExitCode::SUCCESS
        }
        Err(Failed { what, .. }) => {
            println!("FAILED: {what}");
            ExitCode::FAILURE
        }
    }
}
