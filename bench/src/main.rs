//! Measures Hotswap beside its peers, against its targets.
//!
//! One process makes the load and every server has a process of its own. What is compared runs side by side, round by
//! round in turn, and the medians of the rounds' ratios are what is told: on a shared machine times vary by a third
//! from minute to minute, ratios of neighbours don't.

mod agents;
mod figures;
mod load;
mod modules;
mod processes;
mod report;
mod serve;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::{Parser, Subcommand};

use figures::{Bench, Setting};
use report::Report;

/// Measures Hotswap beside its peers, against its targets
#[derive(Debug, Parser)]
#[command(name = "cargo xtask bench", args_conflicts_with_subcommands = true)]
struct Options {
    #[command(subcommand)]
    inner: Option<Inner>,
    /// What to measure [default: all of it]
    #[arg(value_enum)]
    names: Vec<Bench>,
    /// Short rounds and small fleets: under two minutes for all of it, and noisier
    #[arg(long)]
    quick: bool,
    /// Keep this run's ratios as those that later runs are compared with
    #[arg(long)]
    record: bool,
    /// Only build what the measurements need: the peers
    #[arg(long)]
    set_up: bool,
    /// The repository
    #[arg(long, default_value = ".", hide = true)]
    root: PathBuf,
    /// Leave the peers out that have to be built
    #[arg(long)]
    no_peers: bool,
}

#[derive(Debug, Subcommand)]
enum Inner {
    /// Be one of the servers that are measured
    #[command(hide = true)]
    Serve(serve::Serve),
}

fn main() -> ExitCode {
    let mut options = Options::parse();
    let result = match options.inner.take() {
        Some(Inner::Serve(serve)) => serve.run(),
        None => run(&options),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<()> {
    let root = options.root.canonicalize();
    let root = root.with_context(|| format!("there is no repository at {}", options.root.display()))?;
    let dir = tempfile::Builder::new().prefix("hotswap-bench-").tempdir()?;
    let setting = Setting {
        peers: (!options.no_peers).then(|| root.join("target").join("bench-peers")),
        binaries: std::env::current_exe()?
            .parent()
            .context("a program lies in a folder")?
            .to_owned(),
        root,
        dir: dir.path().to_owned(),
        quick: options.quick,
    };
    if let Some(peers) = &setting.peers {
        processes::Wasmtime::build(peers)?;
    }
    if options.set_up {
        return Ok(());
    }
    println!("{}", report::machine());
    let mut report = Report::default();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    for bench in figures::chosen(&options.names) {
        runtime.block_on(bench.measure(&setting, &mut report))?;
    }
    println!(
        "\n{} figures, {} targets missed",
        report.figures.len(),
        report.missed()
    );
    let file = setting.root.join("bench").join("recorded.json");
    for warning in report::compare(&file, &report.figures)? {
        println!("warning: {warning}");
    }
    if options.record {
        report::record(&file, &report.figures)?;
        println!("recorded in {}", file.display());
    }
    Ok(())
}
