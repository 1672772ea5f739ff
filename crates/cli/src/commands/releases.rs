//! Versions of a module: show, download, hold, withdraw.

use std::path::PathBuf;

use anyhow::Context as _;
use serde_json::{Value, json};

use super::module::{place, size};
use super::resolve::text;
use super::{Remote, suggest};
use crate::args::OneVersion;
use crate::client::{ApiError, Module, Release, typed};
use crate::exit::Exit;
use crate::output::{Cell, Colour, Progress, Table, ago};
use crate::problem::Problem;

/// A word of an operator about one version.
pub(super) struct Word {
    /// The API's verb.
    verb: &'static str,
    /// What is said once the server took it.
    said: &'static str,
}

pub(super) const HOLD: Word = Word {
    verb: "hold",
    said: "is on hold: no promotion takes it",
};
pub(super) const UNHOLD: Word = Word {
    verb: "unhold",
    said: "is no longer on hold",
};
pub(super) const YANK: Word = Word {
    verb: "yank",
    said: "is withdrawn: it can't be deployed, and what runs it keeps it",
};
pub(super) const UNYANK: Word = Word {
    verb: "unyank",
    said: "is offered again",
};

impl Word {
    /// Says it.
    pub(super) async fn run(
        &self,
        remote: &Remote<'_>,
        args: &OneVersion,
        reason: &str,
    ) -> anyhow::Result<Exit> {
        let OneVersion { name, version } = args;
        let path = ["modules", name, "versions", version, self.verb];
        let body = (!reason.is_empty()).then(|| json!({ "reason": reason }));
        let answer = match remote.client.post(&path, body.as_ref()).await {
            Ok(answer) => answer,
            Err(refusal) => return Err(explain(remote, name, refusal).await),
        };
        if remote.output.is_json() {
            remote.output.json(&answer)?;
        } else {
            remote.output.line(format!("{name} {version} {}", self.said))?;
        }
        Ok(Exit::Done)
    }
}

async fn explain(remote: &Remote<'_>, name: &str, refusal: ApiError) -> anyhow::Error {
    match refusal.status() {
        Some(404) => suggest::module(remote, name, refusal).await,
        _ => refusal.into(),
    }
}

/// Shows a module.
pub(super) async fn show(remote: &Remote<'_>, name: &str) -> anyhow::Result<Exit> {
    let answer = match remote.client.get(&["modules", name], &[]).await {
        Ok(answer) => answer,
        Err(refusal) => return Err(explain(remote, name, refusal).await),
    };
    let output = remote.output;
    if output.is_json() {
        output.json(&answer)?;
        return Ok(Exit::Done);
    }
    let module: Module = typed(answer)?;
    output.line(output.style().paint(&module.module_name, Colour::Bold))?;
    for stable in &module.environments {
        output.line(format!(
            "  {} is stable in {}",
            stable.version, stable.environment
        ))?;
    }
    let stable_in = |version: &str| -> Vec<&str> {
        let here = module
            .environments
            .iter()
            .filter(|stable| stable.version == version);
        here.map(|stable| stable.environment.as_str()).collect()
    };
    output.table(&table(&module.versions, stable_in))?;
    Ok(Exit::Done)
}

fn table<'a>(releases: &[Release], stable_in: impl Fn(&str) -> Vec<&'a str>) -> Table {
    let mut table = Table::new(["VERSION", "KIND", "SIZE", "PUSHED", "DIGEST", "STABLE IN"]);
    for release in releases {
        let digest = release.digest.strip_prefix("sha256:").unwrap_or(&release.digest);
        table.row([
            Cell::new(&release.version),
            Cell::new(&release.kind),
            Cell::number(size(release.size)),
            Cell::new(ago(&release.pushed_at)),
            Cell::new(digest.get(..12).unwrap_or(digest)),
            place(release, &stable_in(&release.version)),
        ]);
    }
    table
}

/// Lists a module's versions.
pub(super) async fn versions(remote: &Remote<'_>, name: &str, limit: u32) -> anyhow::Result<Exit> {
    let page = limit.to_string();
    let path = ["modules", name, "versions"];
    let values = match remote
        .client
        .list(&path, &[("limit", &page)], limit as usize)
        .await
    {
        Ok(values) => values,
        Err(refusal) => return Err(explain(remote, name, refusal).await),
    };
    if remote.output.is_json() {
        remote.output.json(&values)?;
        return Ok(Exit::Done);
    }
    let module: Module = remote.client.fetch(&["modules", name], &[]).await?;
    let releases = values
        .into_iter()
        .map(typed)
        .collect::<Result<Vec<Release>, ApiError>>()?;
    let stable_in = |version: &str| -> Vec<&str> {
        let here = module
            .environments
            .iter()
            .filter(|stable| stable.version == version);
        here.map(|stable| stable.environment.as_str()).collect()
    };
    remote.output.table(&table(&releases, stable_in))?;
    Ok(Exit::Done)
}

/// Downloads a version's package, beside its place first, so that a broken one is never taken for whole.
pub(super) async fn download(
    remote: &Remote<'_>,
    args: &OneVersion,
    file: Option<PathBuf>,
) -> anyhow::Result<Exit> {
    let OneVersion { name, version } = args;
    let release = match remote
        .client
        .get(&["modules", name, "versions", version], &[])
        .await
    {
        Ok(release) => release,
        Err(refusal) => return Err(explain(remote, name, refusal).await),
    };
    let release = &release["release"];
    let digest = text(release, "digest");
    let whole = release["size"].as_u64().unwrap_or_default();
    let file = file.unwrap_or_else(|| PathBuf::from(format!("{name}-{version}.hsm")));
    let dir = file.parent().filter(|dir| !dir.as_os_str().is_empty());
    let failed = || format!("failed to write {}", file.display());
    let mut part =
        tempfile::NamedTempFile::new_in(dir.unwrap_or_else(|| ".".as_ref())).with_context(failed)?;
    let progress = Progress::new("downloading", whole, remote.output.is_json());
    let received = remote
        .client
        .download(digest, &mut part, |bytes| progress.at(bytes))
        .await?;
    drop(progress);
    let bytes = std::fs::read(part.path()).with_context(failed)?;
    let found = hotswap_package::digest_of(&bytes).to_string();
    if found != digest {
        return Err(
            Problem::failed(format!("the package's bytes are {found}, not {digest}"))
                .next("download it again; if it happens again, the server's copy is damaged: push it again")
                .into(),
        );
    }
    part.persist(&file).with_context(failed)?;
    if remote.output.is_json() {
        let file: Value = file.to_string_lossy().into();
        remote
            .output
            .json(&json!({ "file": file, "digest": digest, "size": received }))?;
    } else {
        let what = format!(
            "downloaded {name} {version} into {} ({})",
            file.display(),
            size(received)
        );
        remote.output.line(what)?;
        remote.output.line(digest)?;
    }
    Ok(Exit::Done)
}
