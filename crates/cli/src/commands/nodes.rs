//! The nodes and what they run.

use serde_json::Value;

use super::clusters::node_status;
use super::resolve::text;
use super::{Remote, suggest};
use crate::args::Nodes;
use crate::client::Node;
use crate::client::{ApiError, ClusterRow, typed};
use crate::exit::Exit;
use crate::output::{Cell, Colour, Table, ago};
use crate::problem::Problem;

/// Lists them, by environment.
pub(super) async fn run(remote: &Remote<'_>, args: &Nodes) -> anyhow::Result<Exit> {
    let mut values = remote.client.list(&["nodes"], &[], usize::MAX).await?;
    if let Some(wanted) = &args.env {
        check_environment(remote, wanted).await?;
        values.retain(|node: &Value| text(node, "environment").eq_ignore_ascii_case(wanted));
    }
    if remote.output.is_json() {
        remote.output.json(&values)?;
        return Ok(Exit::Done);
    }
    let nodes = values
        .into_iter()
        .map(typed)
        .collect::<Result<Vec<Node>, ApiError>>()?;
    if nodes.is_empty() {
        remote
            .output
            .line("no nodes; `hotswap node token create --env ENV` lets one join")?;
        return Ok(Exit::Done);
    }
    let mut table = Table::new([
        "NODE",
        "ENVIRONMENT",
        "STATUS",
        "HEARTBEAT",
        "CERTIFICATE",
        "INGRESS",
        "RUNS",
    ]);
    for node in &nodes {
        let runs: Vec<String> = node
            .running()
            .map(|(module, version)| format!("{module} {version}"))
            .collect();
        table.row([
            Cell::new(&node.node_id),
            Cell::new(&node.environment),
            node_status(&node.status),
            Cell::new(node.last_heartbeat.as_deref().map(ago).unwrap_or_default()),
            certificate(node.certificate.as_ref()),
            Cell::new(node.ingress.as_deref().unwrap_or_default()),
            Cell::new(runs.join(", ")),
        ]);
    }
    remote.output.table(&table)?;
    Ok(Exit::Done)
}

/// Until when a node is let in.
fn certificate(of: Option<&Value>) -> Cell {
    let Some(of) = of else {
        return Cell::new("none");
    };
    match text(of, "state") {
        "Valid" => Cell::new(format!("until {}", text(of, "expiresAt"))),
        state => Cell::new(state.to_lowercase()).colour(Colour::Red),
    }
}

async fn check_environment(remote: &Remote<'_>, wanted: &str) -> anyhow::Result<()> {
    let clusters: Vec<ClusterRow> = remote.client.fetch(&["clusters"], &[]).await?;
    if clusters
        .iter()
        .any(|cluster| cluster.environment.eq_ignore_ascii_case(wanted))
    {
        return Ok(());
    }
    let names: Vec<&str> = clusters
        .iter()
        .map(|cluster| cluster.environment.as_str())
        .collect();
    let problem = Problem::usage(format!("environment {wanted} is not configured"));
    Err(suggest::among(problem, wanted, &names))
}
