//! Breaks real servers and agents under traffic, and checks what is promised.
//!
//! A run starts the binary's server and nine agents, each a process of its own, in a folder of its own, on loopback
//! addresses of its own. Operators keep deploying through every strategy, customers keep asking every node, and
//! faults, chosen by a seed, keep breaking things; `docs/faults.md` has the table. What must hold is checked at any
//! time, eventually, and finally.

mod acks;
mod certificates;
mod disk;
mod faults;
mod fleet;
mod http;
mod operator;
mod policy;
mod process;
mod proxy;
mod report;
mod rng;
mod run;
mod settle;
mod traffic;
mod watch;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use clap::Parser;

use faults::{Fault, Lane, Needs};
use fleet::Fleet;
use operator::{MODULES, Operator};
use report::Settled;
use run::Run;
use traffic::Customer;

/// Where Debian and others install libfaketime; of threads' own kind.
const FAKETIME: [&str; 4] = [
    "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib/aarch64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib64/faketime/libfaketimeMT.so.1",
    "/usr/lib/faketime/libfaketimeMT.so.1",
];
/// How long nodes' certificates hold: they are renewed several times a minute, and end while a node is away for longer.
const LIFETIME_SHORT: &str = "20s";
/// Where clocks step: longer than any step. One that was given while the clock was ahead by more than it holds keeps its
/// node's name until that time.
const LIFETIME_LONG: &str = "12h";
/// Longest wait for the first deployments, without any fault.
const NODES_MAX: Duration = Duration::from_secs(60);

/// Breaks real servers and agents under traffic, and checks what is promised.
#[derive(Debug, Parser)]
#[command(
    name = "hotswap-chaos",
    after_help = "The seed decides which faults happen to whom, in which order and for how long; what the processes make \
                  of it depends on the machine. A failing run prints its seed and keeps its folder."
)]
struct Args {
    /// How long faults go on, in minutes
    #[arg(long, default_value_t = 5.0, conflicts_with = "seconds")]
    minutes: f64,
    /// How long faults go on, in seconds
    #[arg(long)]
    seconds: Option<f64>,
    /// What is drawn [default: the time of day]
    #[arg(long)]
    seed: Option<u64>,
    /// Only faults whose names contain this; may be repeated
    #[arg(long, value_name = "WORD")]
    only: Vec<String>,
    /// Show what happens as it happens; it is in the folder's timeline.log in any case
    #[arg(long)]
    trace: bool,
    /// Let agents speak without TLS and without certificates, as a server with --plain-agents does
    #[arg(long)]
    plain_agents: bool,
    /// Keep the folder, also of a run in which everything held
    #[arg(long)]
    keep: bool,
    /// The binary [default: the one beside this program]
    #[arg(long, value_name = "FILE")]
    binary: Option<PathBuf>,
}

fn main() -> ExitCode {
    let args = Args::parse();
    disk::enter_namespace();
    match chaos(&args) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn chaos(args: &Args) -> Result<bool> {
    let seed = args.seed.unwrap_or_else(|| {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        u64::from(now.unwrap_or_default().subsec_nanos())
    });
    let seconds = args.seconds.unwrap_or(args.minutes * 60.0);
    let time = Duration::try_from_secs_f64(seconds).context("--minutes or --seconds is no time")?;
    let binary = match &args.binary {
        Some(binary) => binary.clone(),
        None => std::env::current_exe()?.with_file_name("hotswap"),
    };
    if !binary.is_file() {
        bail!(
            "{} is not there; build it with `cargo build --release`",
            binary.display()
        );
    }
    // Processes are started in another folder.
    let binary = binary.canonicalize()?;
    let dir = tempfile::Builder::new().prefix("hotswap-chaos-").tempdir()?;
    let faketime = FAKETIME.iter().map(PathBuf::from).find(|path| path.is_file());
    println!(
        "chaos: seed {seed}, {seconds:.0} s of faults, in {}",
        dir.path().display()
    );
    let clocks_step = faketime.is_some()
        && faults::all()
            .iter()
            .any(|fault| fault.needs == Needs::Clock && faults::is_asked_for(fault, &args.only));
    let lifetime = if clocks_step {
        LIFETIME_LONG
    } else {
        LIFETIME_SHORT
    };
    let certificates = (!args.plain_agents).then_some(lifetime);
    let fleet = Fleet::prepare(dir.path(), binary, faketime.clone(), seed, certificates)?;
    let run = Run::new(dir.path(), fleet, args.trace)?;
    let faults = possible(&run, faketime.as_deref(), &args.only)?;
    let began = Instant::now();
    let settled = go(&run, &faults, time, seed);
    let settled = settled.map_err(|error| run.violation(&format!("{error:#}"))).ok();
    let held = report::tell(&run, seed, began.elapsed(), settled.as_ref());
    if !held || args.keep {
        keep(&run, dir, seed, seconds);
    } else {
        run.fleet.unmount();
    }
    Ok(held)
}

/// The faults that this machine allows, each with its place in the table.
fn possible(run: &Run, faketime: Option<&Path>, only: &[String]) -> Result<Vec<(usize, Fault)>> {
    let all = faults::all().into_iter().enumerate();
    let asked: Vec<_> = all
        .filter(|(_, fault)| faults::is_asked_for(fault, only))
        .collect();
    if asked.is_empty() {
        let names: std::collections::BTreeSet<_> = faults::all().iter().map(|fault| fault.name).collect();
        bail!(
            "no fault has such a name; there are: {}",
            names.into_iter().collect::<Vec<_>>().join(", ")
        );
    }
    if !run.fleet.has_disks {
        run.tally
            .left_out("disk full, read-only data: no mount namespace is allowed here (unshare -Urm)");
    }
    if faketime.is_none() {
        run.tally.left_out("clock step: libfaketime is not installed");
    }
    if !run.fleet.has_certificates() {
        run.tally
            .left_out("revoked certificates: agents speak without TLS");
    }
    let possible = |fault: &Fault| match fault.needs {
        Needs::Nothing => true,
        Needs::Certificates => run.fleet.has_certificates(),
        Needs::Mounts => run.fleet.has_disks,
        Needs::Clock => faketime.is_some(),
    };
    Ok(asked.into_iter().filter(|(_, fault)| possible(fault)).collect())
}

/// Sets up, breaks for a while, settles.
fn go(run: &Run, faults: &[(usize, Fault)], time: Duration, seed: u64) -> Result<Settled> {
    let start = |component| match run.fleet.start(component)? {
        Ok(()) => Ok(()),
        Err(not_ready) => bail!("{} does not start: {not_ready}", component.name),
    };
    start(&run.fleet.server)?;
    for (environment, file) in &run.fleet.join_tokens {
        certificates::give_join_token(&run.acks, environment, file)?;
    }
    run.fleet.agents.iter().try_for_each(start)?;
    let all_there = || {
        let nodes = run.acks.get("/api/v1/nodes?limit=1000");
        nodes.is_ok_and(|nodes| {
            nodes
                .as_array()
                .is_some_and(|nodes| nodes.len() == run.fleet.agents.len())
        })
    };
    if !run.wait_for(NODES_MAX, all_there) {
        bail!("the nodes are not all there after {NODES_MAX:?}");
    }
    let mut operators: Vec<Operator<'_>> = MODULES
        .iter()
        .map(|module| Operator::new(run, module, seed))
        .collect();
    std::thread::scope(|scope| {
        let first: Vec<_> = operators
            .iter_mut()
            .map(|operator| scope.spawn(|| operator.begin()))
            .collect();
        first
            .into_iter()
            .try_for_each(|thread| thread.join().unwrap_or_else(|_| bail!("an operator panicked")))
    })?;
    run.say("every node serves; faults begin");
    std::thread::scope(|scope| {
        // However this ends: everybody else ends, too.
        let ends = Ends(run);
        for (agent, place) in run.fleet.agents.iter().zip(&run.fleet.places) {
            scope.spawn(move || Customer::new(run, agent, place).buy());
        }
        scope.spawn(|| watch::Watch::default().look(run));
        scope.spawn(|| watch::supervise(run));
        let mut working = Vec::new();
        for mut operator in operators {
            working.push(scope.spawn(move || operator.work()));
        }
        for lane in [Lane::Processes, Lane::Network, Lane::Resources] {
            working.push(scope.spawn(move || faults::inject(run, lane, faults, seed)));
        }
        std::thread::sleep(time);
        run.faults_over.store(true, Ordering::Relaxed);
        run.say("faults are over");
        let last_fault = Instant::now();
        for thread in working {
            if thread.join().is_err() {
                bail!("a thread of the run panicked");
            }
        }
        settle::converge(run)?;
        let converged_in = last_fault.elapsed();
        run.say("converged");
        drop(ends);
        settle::finally(run, converged_in)
    })
}

/// Ends every thread of a run when it is dropped.
struct Ends<'a>(&'a Run);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.faults_over.store(true, Ordering::Relaxed);
        self.0.over.store(true, Ordering::Relaxed);
    }
}

/// Keeps a run's folder, also what lies on file systems that end with this process.
fn keep(run: &Run, dir: tempfile::TempDir, seed: u64, seconds: f64) {
    for component in run.fleet.all() {
        component.kill();
        if run.fleet.has_disks {
            let to = run.dir.join(format!("{}.kept", component.name));
            let copied = std::process::Command::new("cp")
                .arg("-a")
                .arg(&component.data)
                .arg(&to)
                .status();
            if !copied.is_ok_and(|status| status.success()) {
                eprintln!("the data of {} could not be kept", component.name);
            }
        }
    }
    run.fleet.unmount();
    println!(
        "kept: {}; again: cargo xtask chaos --seconds {seconds} --seed {seed}",
        dir.keep().display()
    );
}
