//! What shells and readers of manuals want: completions and man pages, made of the same words as `--help`.

use std::io;
use std::path::Path;

use anyhow::Context as _;
use clap::CommandFactory as _;
use clap_complete::Shell;

use crate::args::Cli;
use crate::exit::Exit;
use crate::output::Output;

/// Writes a shell's completions to stdout.
pub(super) fn completions(shell: Shell) -> anyhow::Result<Exit> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "hotswap", &mut script);
    io::Write::write_all(&mut io::stdout().lock(), &script)?;
    Ok(Exit::Done)
}

/// Writes a manual page for each command into a folder.
pub(super) fn manual(dir: &Path, output: &Output) -> anyhow::Result<Exit> {
    let failed = || format!("failed to write manual pages into {}", dir.display());
    std::fs::create_dir_all(dir).with_context(failed)?;
    clap_mangen::generate_to(Cli::command(), dir).with_context(failed)?;
    output.line(format!(
        "wrote manual pages into {}; `man hotswap` is the first",
        dir.display()
    ))?;
    Ok(Exit::Done)
}
