//! What a change must pass, step by step, with the time of each.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use crate::run::{self, cargo};
use crate::vm::{Machine, Missing};
use crate::{modules, purity};

/// Simulated runs of a full test.
pub(crate) const SIM_SEEDS: u64 = 2_000;

/// The real binaries under fault, briefly: a few faults of each lane. `--minutes 5` is a whole run.
const CHAOS: [&str; 4] = ["--seconds", "30", "--seed", "1"];

/// A tool that a machine may lack, and what is left out without it.
struct Tool {
    program: &'static str,
    args: &'static [&'static str],
    without: &'static str,
}

const NEXTEST: Tool = Tool {
    program: "cargo",
    args: &["nextest", "--version"],
    without: "cargo-nextest is not installed: cargo test runs the tests, without ending those that hang",
};
const DENY: Tool = Tool {
    program: "cargo",
    args: &["deny", "--version"],
    without: "cargo-deny is not installed: licences, sources, known vulnerabilities and duplicate dependencies are not checked",
};
/// Asking for it fetches it.
const ADVISORIES: Tool = Tool {
    program: "cargo",
    args: &["deny", "fetch", "db"],
    without: "RustSec's database can't be fetched: dependencies are not checked for known vulnerabilities",
};

const OPENSSL: Tool = Tool {
    program: "openssl",
    args: &["version"],
    without: "the tests of signatures need openssl 3 beside them: install it (`apt-get install openssl`)",
};

impl Tool {
    fn is_there(&self) -> bool {
        run::there_is(self.program, self.args)
    }
}

/// Steps done so far, and what could not be.
#[derive(Default)]
struct Steps {
    done: Vec<(&'static str, Duration)>,
    left_out: Vec<String>,
}

impl Steps {
    fn step(&mut self, name: &'static str, work: impl FnOnce() -> Result<()>) -> Result<()> {
        let start = Instant::now();
        work().with_context(|| format!("{name} failed"))?;
        self.done.push((name, start.elapsed()));
        Ok(())
    }

    /// Whether a tool is there; if not, that is said at the end.
    fn has(&mut self, tool: &Tool) -> bool {
        let there = tool.is_there();
        if !there {
            self.left_out.push(tool.without.to_owned());
        }
        there
    }

    fn close(&self, what: &str) {
        for without in &self.left_out {
            println!("left out: {without}");
        }
        let times = self
            .done
            .iter()
            .map(|(name, time)| format!("{name} {:.0} s", time.as_secs_f64()));
        let total: Duration = self.done.iter().map(|(_, time)| *time).sum();
        println!(
            "{what}: passed in {:.0} s ({})",
            total.as_secs_f64(),
            times.collect::<Vec<_>>().join(", ")
        );
    }
}

pub(crate) fn test(seeds: u64) -> Result<()> {
    let mut steps = Steps::default();
    test_steps(&mut steps, seeds, Missing::Tell)?;
    steps.close("test");
    Ok(())
}

/// Needs the network, so it is not among the tests that everybody runs.
pub(crate) fn authoring() -> Result<()> {
    run::run(cargo().args([
        "test",
        "--release",
        "--locked",
        "--workspace",
        "--features",
        "hotswap/authoring",
        "--test",
        "authoring",
        "--",
        "--nocapture",
        "--test-threads=1",
    ]))
}

pub(crate) fn ci() -> Result<()> {
    let mut steps = Steps::default();
    steps.step("format", || {
        run::run(cargo().args(["fmt", "--all", "--check"]))?;
        run::run(cargo().args(["fmt", "--all", "--check", "--manifest-path", "modules/Cargo.toml"]))
    })?;
    steps.step("modules", || modules::run(&modules::Args::check()))?;
    steps.step("clippy", || {
        run::run(cargo().args([
            "clippy",
            "--release",
            "--workspace",
            "--all-targets",
            "--locked",
            "--",
            "-D",
            "warnings",
        ]))
    })?;
    if steps.has(&DENY) {
        steps.step("deny", || {
            run::run(cargo().args(["deny", "check", "licenses", "bans", "sources"]))
        })?;
        if steps.has(&ADVISORIES) {
            steps.step("advisories", || {
                run::run(cargo().args(["deny", "check", "--disable-fetch", "advisories"]))
            })?;
        }
    }
    test_steps(&mut steps, SIM_SEEDS, Missing::Install)?;
    steps.close("ci");
    Ok(())
}

fn test_steps(steps: &mut Steps, seeds: u64, missing: Missing) -> Result<()> {
    anyhow::ensure!(OPENSSL.is_there(), OPENSSL.without);
    if steps.has(&NEXTEST) {
        steps.step("tests", || {
            run::run(cargo().args(["nextest", "run", "--release", "--workspace", "--locked"]))
        })?;
        // The one kind that nextest doesn't run.
        steps.step("doctests", || {
            run::run(cargo().args(["test", "--release", "--workspace", "--locked", "--doc"]))
        })?;
    } else {
        steps.step("tests", || {
            run::run(cargo().args(["test", "--release", "--workspace", "--locked"]))
        })?;
    }
    steps.step("purity", purity::check)?;
    // As the tests have them: other features would build the WebAssembly engine's users once more.
    steps.step("programs", || {
        run::run(cargo().args([
            "build",
            "--release",
            "--workspace",
            "--locked",
            "--bins",
            "--tests",
        ]))
    })?;
    steps.step("sim", || {
        run::run(built("hotswap-sim").args(["--seeds", &seeds.to_string()]))
    })?;
    steps.step("chaos", || run::run(built("hotswap-chaos").args(CHAOS)))?;
    kernel_modules(steps, missing)
}

/// Kernel modules in a virtual machine, where that can be had.
fn kernel_modules(steps: &mut Steps, missing: Missing) -> Result<()> {
    let machine = match Machine::get(missing) {
        Ok(machine) => machine,
        Err(why) => {
            steps
                .left_out
                .push(format!("kernel modules in a virtual machine: {why}"));
            return Ok(());
        }
    };
    if let Err(why) = &machine.virt_fw_vars {
        let why = format!("kernel modules that are signed by a key of the machine's: {why}");
        steps.left_out.push(why);
    }
    steps.step("kernel modules", || machine.test())
}

/// A program of the workspace, which was built before.
fn built(name: &str) -> Command {
    Command::new(run::root().join("target/release").join(name))
}

/// Runs the simulator; a failing run prints its seed.
pub(crate) fn sim(args: &[String]) -> Result<()> {
    let mut simulator = cargo();
    simulator.args(["run", "--release", "--quiet", "-p", "hotswap-sim"]);
    // Deliberate bugs are built in only where they are asked for.
    if args.iter().any(|arg| arg.starts_with("--mutant")) {
        simulator.args(["--features", "mutants"]);
    }
    run::run(simulator.arg("--").args(args))
}

/// Runs the judge's simulation; fails where it breaks its bounds.
pub(crate) fn judge(quick: bool) -> Result<()> {
    let mut command = cargo();
    command.args([
        "run",
        "--release",
        "--quiet",
        "--locked",
        "-p",
        "hotswap-judgelab",
        "--",
    ]);
    if quick {
        command.arg("--quick");
    }
    run::run(&mut command)
}

/// Fuzzes; a failing input is kept in the repository.
pub(crate) fn fuzz(args: &[String]) -> Result<()> {
    let mut fuzz = cargo();
    fuzz.args(["run", "--release", "--quiet", "-p", "hotswap-fuzz", "--"]);
    run::run(fuzz.args(args))
}

/// Breaks real processes; a failing run prints its seed and keeps its folder.
pub(crate) fn chaos(args: &[String]) -> Result<()> {
    programs(&["hotswap", "hotswap-chaos"])?;
    run::run(built("hotswap-chaos").args(args))
}

/// Builds programs with the workspace's features: what its tests were built with is built already.
pub(crate) fn programs(names: &[&str]) -> Result<()> {
    let mut build = cargo();
    build.args(["build", "--release", "--quiet", "--locked", "--workspace"]);
    for name in names {
        build.args(["--bin", name]);
    }
    run::run(&mut build)
}

/// Measures; what is measured are the product's own programs.
pub(crate) fn bench(args: &[String]) -> Result<()> {
    programs(&["hotswap", "hotswap-sim", "hotswap-bench"])?;
    run::run(built("hotswap-bench").arg("--root").arg(run::root()).args(args))
}
