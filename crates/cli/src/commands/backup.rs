//! Back a server's data up, and restore it.

use anyhow::Context as _;
use hotswap_server::backup::{BackupError, Contents};
use serde_json::json;

use super::settings;
use crate::args::{Backup, Restore};
use crate::exit::Exit;
use crate::output::{Output, grouped};
use crate::problem::Problem;

/// Makes a backup.
pub(super) fn make(args: &Backup, output: &Output) -> anyhow::Result<Exit> {
    let data = settings::data_dir(&args.layers, args.data.as_ref())?;
    let (file, contents) = hotswap_server::backup::backup(&data, &args.to).map_err(told)?;
    tell(output, "backed up", &file.display().to_string(), &contents)?;
    if !output.is_json() {
        output.line(format!(
            "next: `hotswap restore {} --data DIR` brings it back",
            file.display()
        ))?;
    }
    Ok(Exit::Done)
}

/// Restores one.
pub(super) fn restore(args: &Restore, output: &Output) -> anyhow::Result<Exit> {
    let data = settings::data_dir(&args.layers, args.data.as_ref())?;
    let contents = hotswap_server::backup::restore(&args.file, &data)
        .map_err(told)
        .with_context(|| format!("{} was not restored", args.file.display()))?;
    tell(output, "restored", &data.display().to_string(), &contents)?;
    if !output.is_json() {
        output.line(format!(
            "next: `hotswap server --data {}` starts it",
            data.display()
        ))?;
        output.line("next: `hotswap adopt`, if its nodes know newer specs: it tells them nothing before")?;
    }
    Ok(Exit::Done)
}

fn told(error: BackupError) -> anyhow::Error {
    match error {
        BackupError::NoData { .. } | BackupError::NotEmpty { .. } | BackupError::NotWhole { .. } => {
            Problem::usage(error.to_string()).into()
        }
        error => error.into(),
    }
}

fn tell(output: &Output, what: &str, place: &str, contents: &Contents) -> anyhow::Result<()> {
    let Contents {
        created,
        epoch,
        events,
        deployments,
        files,
        ..
    } = contents;
    if output.is_json() {
        output.json(&json!({
            "path": place, "created": created, "epoch": epoch, "events": events, "deployments": deployments,
            "files": files.len(), "bytes": contents.bytes(),
        }))?;
    } else {
        output.line(format!(
            "{what}: {place}: {} events, {} deployments, {} files of {} bytes, as of {created}",
            grouped(*events),
            grouped(*deployments),
            grouped(files.len() as u64),
            grouped(contents.bytes()),
        ))?;
    }
    Ok(())
}
