//! The `hotswap` command: the control plane, the node, the command line and the demo in one file.

mod args;
mod client;
mod commands;
mod credentials;
mod demo;
mod exit;
mod output;
mod problem;

use std::process::ExitCode;

use args::Cli;
use exit::Exit;
use output::Output;

fn main() -> ExitCode {
    let cli = Cli::from_process();
    let output = Output::new(&cli.global);
    let exit = match commands::run(cli, &output) {
        Ok(exit) => exit,
        Err(error) if problem::is_broken_pipe(&error) => Exit::Done,
        Err(error) => problem::show(&error, &output),
    };
    exit.into()
}
