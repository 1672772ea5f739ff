//! Modules: pack, push, list.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use hotswap_package::{PACKAGE_BYTES_MAX, PackError, Package, PackageError, PackageLimits};
use serde_json::json;

use super::resolve::text;
use super::{Remote, signing};
use crate::args::{Global, OutputArg, Push};
use crate::client::{ApiError, Module, Release, typed};
use crate::exit::Exit;
use crate::output::{Cell, Colour, Output, Progress, Table, ago};
use crate::problem::Problem;

/// Packs a folder into a file.
pub(super) fn pack(dir: &Path, global: &Global, output: &Output) -> anyhow::Result<Exit> {
    let package = pack_folder(dir)?;
    let file = match &global.output {
        OutputArg::File(file) => file.clone(),
        OutputArg::Format(_) => PathBuf::from(package.manifest.package_file_name()),
    };
    std::fs::write(&file, &package.file).with_context(|| format!("failed to write {}", file.display()))?;
    if output.is_json() {
        let manifest = &package.manifest;
        output.json(&json!({
            "file": file, "moduleName": manifest.name, "version": manifest.version,
            "digest": package.digest, "size": package.file.len(), "kind": manifest.kind,
        }))?;
    } else {
        output.line(format!(
            "packed {} {} into {} ({})",
            package.manifest.name,
            package.manifest.version,
            file.display(),
            size(package.file.len() as u64)
        ))?;
        output.line(package.digest.to_string())?;
    }
    Ok(Exit::Done)
}

fn pack_folder(dir: &Path) -> Result<Package, Problem> {
    hotswap_package::pack(dir).map_err(|error| {
        let problem = Problem::usage(format!("{} can't be packed", dir.display())).details(causes(&error));
        match error {
            PackError::Read { ref path, .. } if path.ends_with(hotswap_package::MANIFEST_FILE) => {
                problem.next("name the folder that has module.toml in it")
            }
            PackError::WrongKind { .. } => {
                problem.next("build a component: `cargo build --target wasm32-wasip2`")
            }
            _ => problem,
        }
    })
}

/// An error with its causes, each once.
fn causes(error: &dyn std::error::Error) -> Vec<String> {
    let mut told: Vec<String> = Vec::new();
    let mut cause = Some(error);
    while let Some(error) = cause {
        let text = error.to_string();
        if !told.iter().any(|said| said.contains(&text)) {
            told.push(text);
        }
        cause = error.source();
    }
    told.iter()
        .flat_map(|text| text.lines())
        .map(|line| line.trim().to_owned())
        .collect()
}

/// Pushes a package file, or a folder that is packed on the way, with its signature.
pub(super) async fn push(remote: &Remote<'_>, args: &Push) -> anyhow::Result<Exit> {
    let path = &args.path;
    let package = if path.is_dir() {
        pack_folder(path)?
    } else {
        read_file(path)?
    };
    let signature = match (&args.signature, signing::identity(&args.identity)?) {
        (_, Some(identity)) => Some(signing::make(&identity, &package.digest)?),
        (Some(file), None) => Some(signing::read(file)?),
        (None, None) if path.is_dir() => None,
        (None, None) => {
            let beside = signing::beside(path);
            beside.exists().then(|| signing::read(&beside)).transpose()?
        }
    };
    let quiet = remote.output.is_json();
    let progress = Arc::new(Progress::new("pushing", package.file.len() as u64, quiet));
    let sent = Arc::clone(&progress);
    let answer = remote
        .client
        .push(
            package.file.clone(),
            signature.map(Into::into),
            Arc::new(move |bytes| sent.at(bytes)),
        )
        .await;
    drop(progress);
    let answer = answer?;
    if remote.output.is_json() {
        remote.output.json(&answer)?;
    } else {
        let manifest = &package.manifest;
        remote.output.line(format!(
            "pushed {} {} ({}, {})",
            manifest.name,
            manifest.version,
            manifest.kind,
            size(package.file.len() as u64)
        ))?;
        remote.output.line(package.digest.to_string())?;
        if let Some(signer) = answer.get("signedBy").and_then(serde_json::Value::as_str) {
            remote.output.line(format!("signed by {signer}"))?;
        }
    }
    Ok(Exit::Done)
}

/// Revokes a version.
pub(super) async fn revoke(
    remote: &Remote<'_>,
    name: &str,
    version: &str,
    reason: &str,
) -> anyhow::Result<Exit> {
    let path = ["modules", name, "versions", version, "revoke"];
    let answer = remote
        .client
        .post(&path, Some(&json!({ "reason": reason })))
        .await?;
    if remote.output.is_json() {
        remote.output.json(&answer)?;
    } else {
        remote.output.line(format!(
            "{name} {version} is revoked: nothing takes it any more; where it runs it stays until something else is \
             rolled out"
        ))?;
    }
    Ok(Exit::Done)
}

/// Sets the oldest version that may be deployed.
pub(super) async fn minimum(remote: &Remote<'_>, name: &str, version: &str) -> anyhow::Result<Exit> {
    let wanted = (version != "none").then_some(version);
    let path = ["modules", name, "minimum-version"];
    let answer = remote.client.put(&path, &json!({ "version": wanted })).await?;
    if remote.output.is_json() {
        remote.output.json(&answer)?;
    } else {
        remote.output.line(match wanted {
            Some(version) => format!("no version of {name} before {version} is deployed any more"),
            None => format!("any version of {name} may be deployed"),
        })?;
    }
    Ok(Exit::Done)
}

/// Reads a package and checks it here, so that a wrong file is told without a server.
pub(super) fn read_file(path: &Path) -> anyhow::Result<Package> {
    let readable = std::fs::File::open(path);
    let file = readable.map_err(|error| {
        Problem::usage(format!("{} can't be read: {error}", path.display()))
            .next("name a package (`hotswap module pack DIR` makes one) or a folder with module.toml")
    })?;
    let limits = PackageLimits {
        package_bytes_max: PACKAGE_BYTES_MAX,
    };
    let read = Package::read_from(file, &limits);
    Ok(read.map_err(|error: PackageError| {
        Problem::usage(format!("{} is not a package that can be pushed", path.display()))
            .details(causes(&error))
    })?)
}

/// Lists modules with their versions.
pub(super) async fn list(remote: &Remote<'_>, name: Option<&str>) -> anyhow::Result<Exit> {
    let output = remote.output;
    let mut modules = remote.client.list(&["modules"], &[], usize::MAX).await?;
    if let Some(name) = name {
        let all = modules.clone();
        modules.retain(|module| text(module, "moduleName") == name);
        if modules.is_empty() {
            let names: Vec<&str> = all.iter().map(|module| text(module, "moduleName")).collect();
            let names = if names.is_empty() {
                "none".to_owned()
            } else {
                names.join(", ")
            };
            return Err(
                Problem::usage(format!("module {name} was never pushed; there are: {names}"))
                    .next("`hotswap module push DIR` adds one")
                    .into(),
            );
        }
    }
    if output.is_json() {
        output.json(&modules)?;
        return Ok(Exit::Done);
    }
    if modules.is_empty() {
        output.line("no modules yet; `hotswap module push DIR` adds one")?;
        return Ok(Exit::Done);
    }
    let modules = modules
        .into_iter()
        .map(typed)
        .collect::<Result<Vec<Module>, ApiError>>()?;
    let mut table = Table::new([
        "MODULE",
        "VERSION",
        "KIND",
        "SIZE",
        "PUSHED",
        "DIGEST",
        "STABLE IN",
    ]);
    for module in &modules {
        for release in &module.versions {
            let digest = release.digest.strip_prefix("sha256:").unwrap_or(&release.digest);
            let stable = module
                .environments
                .iter()
                .filter(|stable| stable.version == release.version);
            let stable: Vec<&str> = stable.map(|stable| stable.environment.as_str()).collect();
            let place = place(release, &stable);
            table.row([
                Cell::new(&module.module_name),
                Cell::new(&release.version),
                Cell::new(&release.kind),
                Cell::number(size(release.size)),
                Cell::new(ago(&release.pushed_at)),
                Cell::new(digest.get(..12).unwrap_or(digest)),
                place,
            ]);
        }
    }
    output.table(&table)?;
    Ok(Exit::Done)
}

/// Where a version is stable, and what keeps it from being deployed.
pub(super) fn place(release: &Release, stable: &[&str]) -> Cell {
    let stable = stable.join(", ");
    let gap = if stable.is_empty() { "" } else { "; " };
    match (&release.yank_reason, &release.hold_reason) {
        (Some(reason), _) => Cell::new(format!("{stable}{gap}withdrawn: {reason}")).colour(Colour::Yellow),
        (None, Some(reason)) => Cell::new(format!("{stable}{gap}on hold: {reason}")).colour(Colour::Yellow),
        (None, None) => Cell::new(stable),
    }
}

/// Bytes as people read them.
pub(super) fn size(bytes: u64) -> String {
    match bytes {
        0..1_024 => format!("{bytes} B"),
        1_024..1_048_576 => format!("{:.1} kB", bytes as f64 / 1_024.0),
        _ => format!("{:.1} MB", bytes as f64 / 1_048_576.0),
    }
}
