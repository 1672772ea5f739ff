//! The judge's error rates and power by simulation, beside other judges'. Prints tables in Markdown, and a verdict in its
//! last line; exits with 1 where a bound was broken.

mod cost;
mod errors;
mod lab;
mod latency;
mod nodes;
mod rivals;
mod rng;

use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use lab::{Checks, Effort};

/// Simulates the judge's error rates and power.
#[derive(Debug, Parser)]
#[command(name = "hotswap-judgelab")]
struct Args {
    /// Fewer runs and cells: under a minute
    #[arg(long)]
    quick: bool,
}

fn main() -> ExitCode {
    let effort = Effort {
        quick: Args::parse().quick,
    };
    let (mut checks, began) = (Checks::default(), Instant::now());
    errors::false_alarms(effort, &mut checks);
    errors::rivals(effort, &mut checks);
    errors::power(effort);
    errors::found(effort, &mut checks);
    latency::false_alarms(effort, &mut checks);
    latency::power(effort);
    nodes::heterogeneity(effort, &mut checks);
    nodes::levels(effort, &mut checks);
    nodes::together(effort, &mut checks);
    cost::cost();
    println!();
    for broken in &checks.broken {
        println!("broken: {broken}");
    }
    let seconds = began.elapsed().as_secs();
    if checks.broken.is_empty() {
        println!("judge: holds in all {} checks ({seconds} s)", checks.held);
        ExitCode::SUCCESS
    } else {
        println!(
            "judge: broken in {} of {} checks ({seconds} s)",
            checks.broken.len(),
            checks.broken.len() + checks.held as usize
        );
        ExitCode::FAILURE
    }
}
