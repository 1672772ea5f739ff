//! Build, test and maintenance commands of the Hotswap repository.

mod api_fuzz;
mod check;
mod modules;
mod purity;
mod run;
mod vm;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Build, test and maintenance commands of the Hotswap repository.
#[derive(Parser)]
#[command(bin_name = "cargo xtask")]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run every test: unit, integration and documentation tests, the core's purity, 2000 simulated runs,
    /// half a minute of faults on real processes.
    Test {
        /// Simulated runs.
        #[arg(long, default_value_t = check::SIM_SEEDS)]
        seeds: u64,
        /// Only the modules that `hotswap module init` begins, built by toolchains from npm, PyPI and rustup or Debian.
        #[arg(long)]
        authoring: bool,
        /// Only kernel modules, in a virtual machine that is booted from Debian's packages.
        #[arg(long)]
        vm: bool,
    },
    /// Everything a change must pass: format, lints, examples up to date, licences, then the tests.
    Ci,
    /// Rebuild the example modules, or say which are out of date.
    Modules(modules::Args),
    /// Run the simulator: arguments go to it as they are.
    Sim {
        /// Arguments of hotswap-sim, such as `--seeds 2000`, `--seed 7 --trace` or `--mutants`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Ask a running server what its own document makes possible, with schemathesis; left out where that isn't there.
    ApiFuzz(api_fuzz::Args),
    /// Simulate the judge's error rates and power beside other judges; the last line is the verdict.
    Judge {
        /// Fewer runs and cells: under a minute.
        #[arg(long)]
        quick: bool,
    },
    /// Break real servers and agents under traffic: arguments go to hotswap-chaos as they are.
    Chaos {
        /// Arguments of hotswap-chaos, such as `--minutes 5` or `--seconds 40 --seed 7 --trace`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Feed every parser of what comes from outside with bytes that are nearly right: arguments go to hotswap-fuzz.
    Fuzz {
        /// Arguments of hotswap-fuzz, such as `manifest --seconds 600 --seed 7`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Measure Hotswap beside its peers, against its targets: arguments go to hotswap-bench as they are.
    Bench {
        /// Arguments of hotswap-bench, such as `--quick`, `ingress swap` or `--record`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Fail where the core could reach a clock, a file, a network or a random source.
    Purity,
}

fn main() -> ExitCode {
    let result = match Args::parse().command {
        Command::Test { authoring: true, .. } => check::authoring(),
        Command::Test { vm: true, .. } => vm::test(),
        Command::Test { seeds, .. } => check::test(seeds),
        Command::Ci => check::ci(),
        Command::Modules(args) => modules::run(&args),
        Command::Sim { args } => check::sim(&args),
        Command::ApiFuzz(args) => api_fuzz::run(&args),
        Command::Judge { quick } => check::judge(quick),
        Command::Chaos { args } => check::chaos(&args),
        Command::Fuzz { args } => check::fuzz(&args),
        Command::Bench { args } => check::bench(&args),
        Command::Purity => purity::check(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
