//! What was done, by whom, and whether the record of it still says what was written.

use std::path::Path;

use serde_json::{Value, json};

use super::Remote;
use super::resolve::text;
use crate::args::{Audit, AuditList};
use crate::client::typed;
use crate::exit::Exit;
use crate::output::{Cell, Colour, Output, Table};
use crate::problem::Problem;

/// Lists entries, or has the server verify them.
pub(super) async fn run(remote: &Remote<'_>, args: &Audit) -> anyhow::Result<Exit> {
    match args {
        Audit::List(args) => list(remote, args).await,
        Audit::Verify { .. } => {
            let report = remote.client.get(&["audit", "verify"], &[]).await?;
            verified(&report, remote.output)
        }
    }
}

async fn list(remote: &Remote<'_>, args: &AuditList) -> anyhow::Result<Exit> {
    let limit = args.limit.to_string();
    let filters = [
        ("actor", &args.actor),
        ("kind", &args.kind),
        ("action", &args.action),
        ("outcome", &args.outcome),
        ("deployment", &args.deployment),
        ("from", &args.from),
        ("to", &args.to),
    ];
    let mut query = vec![("limit", limit.as_str())];
    query.extend(
        filters
            .iter()
            .filter_map(|(name, value)| Some((*name, value.as_deref()?))),
    );
    let limit = usize::try_from(args.limit).unwrap_or(usize::MAX);
    let entries = remote.client.list(&["audit"], &query, limit).await?;
    if remote.output.is_json() {
        remote.output.json(&entries)?;
        return Ok(Exit::Done);
    }
    let mut table = Table::new(["NO", "WHEN", "WHO", "WHAT", "OUTCOME", "DETAIL"]);
    for entry in &entries {
        let who = match entry["token"].as_str() {
            Some(token) => format!("{} by {token}", text(entry, "actor")),
            None => text(entry, "actor").to_owned(),
        };
        table.row([
            Cell::number(&entry["seq"]),
            Cell::new(text(entry, "time")),
            Cell::new(who),
            Cell::new(text(entry, "action")),
            Cell::new(text(entry, "outcome")),
            Cell::new(text(entry, "detail")),
        ]);
    }
    remote.output.table(&table)?;
    Ok(Exit::Done)
}

/// Verifies a server's folder, whether the server runs or not.
pub(super) fn verify_folder(data: &Path, output: &Output) -> anyhow::Result<Exit> {
    let file = if data.is_dir() {
        data.join(hotswap_server::store::DATABASE_FILE)
    } else {
        data.to_owned()
    };
    let report = hotswap_server::audit::verify_file(&file).map_err(|error| {
        Problem::failed(format!("{} can't be verified: {error}", file.display()))
            .next("give the server's folder, or a copy of its database: --data DIR")
    })?;
    let faults: Vec<Value> = report
        .faults
        .iter()
        .map(|fault| json!({ "seq": fault.seq, "what": fault.what }))
        .collect();
    let report = json!({
        "intact": faults.is_empty(), "entries": report.entries, "events": report.events, "heads": report.heads,
        "head": report.head, "faults": faults,
    });
    verified(&report, output)
}

fn verified(report: &Value, output: &Output) -> anyhow::Result<Exit> {
    let intact = report["intact"] == true;
    let exit = if intact { Exit::Done } else { Exit::Failed };
    if output.is_json() {
        output.json(report)?;
        return Ok(exit);
    }
    let faults: Vec<Value> = typed(report["faults"].clone())?;
    for fault in &faults {
        let place = fault["seq"]
            .as_u64()
            .map_or_else(String::new, |seq| format!("entry {seq}: "));
        output.line(
            output
                .style()
                .paint(format!("{place}{}", text(fault, "what")), Colour::Red),
        )?;
    }
    let counted = format!(
        "{} entries, {} events and {} signed heads were compared",
        report["entries"], report["events"], report["heads"]
    );
    if intact {
        output.line(
            output
                .style()
                .paint(format!("nothing was changed: {counted}"), Colour::Green),
        )?;
        output.line(format!("the last entry's hash: {}", text(report, "head")))?;
    } else {
        output.line(format!("{} faults; {counted}", faults.len()))?;
    }
    Ok(exit)
}
