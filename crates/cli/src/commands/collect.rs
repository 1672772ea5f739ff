//! Packages that nothing needs: shown, or removed from the server.

use serde_json::Value;

use super::Remote;
use super::module::size;
use super::resolve::text;
use crate::exit::Exit;
use crate::output::{Cell, Table};

/// Removes them, or only lists them.
pub(super) async fn run(remote: &Remote<'_>, dry_run: bool) -> anyhow::Result<Exit> {
    let found = if dry_run {
        let path = ["artifacts", "collectable"];
        Value::Array(remote.client.list(&path, &[], usize::MAX).await?)
    } else {
        remote
            .client
            .post(&["artifacts", "collect"], None::<&Value>)
            .await?
    };
    if remote.output.is_json() {
        remote.output.json(&found)?;
        return Ok(Exit::Done);
    }
    let packages = found.as_array().map_or(&[][..], Vec::as_slice);
    if packages.is_empty() {
        remote.output.line("there is no package that nothing needs")?;
        return Ok(Exit::Done);
    }
    let bytes = |package: &Value| package["size"].as_u64().unwrap_or_default();
    let mut table = Table::new(["MODULE", "VERSION", "SIZE", "DIGEST"]);
    for package in packages {
        table.row([
            Cell::new(text(package, "moduleName")),
            Cell::new(text(package, "version")),
            Cell::new(size(bytes(package))),
            Cell::new(text(package, "digest")),
        ]);
    }
    remote.output.table(&table)?;
    let whole = size(packages.iter().map(bytes).sum());
    remote.output.line(if dry_run {
        format!("{whole} would go; `hotswap module collect` removes it")
    } else {
        format!("{whole} removed")
    })?;
    Ok(Exit::Done)
}
