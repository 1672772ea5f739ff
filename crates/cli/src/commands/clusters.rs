//! The environments.

use super::{Remote, suggest};
use crate::args::Clusters;
use crate::client::{Cluster, ClusterRow, typed};
use crate::exit::Exit;
use crate::output::{Cell, Colour, Table, ago};

/// Shows all of them, or one with its nodes.
pub(super) async fn run(remote: &Remote<'_>, args: &Clusters) -> anyhow::Result<Exit> {
    match &args.env {
        Some(environment) => one(remote, environment).await,
        None => all(remote).await,
    }
}

async fn all(remote: &Remote<'_>) -> anyhow::Result<Exit> {
    let answer = remote.client.get(&["clusters"], &[]).await?;
    if remote.output.is_json() {
        remote.output.json(&answer)?;
        return Ok(Exit::Done);
    }
    let rows: Vec<ClusterRow> = typed(answer)?;
    let mut table = Table::new(["ENVIRONMENT", "NODES", "HEALTHY", "STATUS"]);
    for row in &rows {
        let status = match (row.total_nodes, row.is_healthy) {
            (0, _) => Cell::new("no nodes").colour(Colour::Grey),
            (_, true) => Cell::status("Healthy"),
            (_, false) => Cell::new("Unhealthy").colour(Colour::Red),
        };
        table.row([
            Cell::new(&row.environment),
            Cell::number(row.total_nodes),
            Cell::number(row.healthy_nodes),
            status,
        ]);
    }
    remote.output.table(&table)?;
    Ok(Exit::Done)
}

async fn one(remote: &Remote<'_>, environment: &str) -> anyhow::Result<Exit> {
    let answer = match remote.client.get(&["clusters", environment], &[]).await {
        Ok(answer) => answer,
        Err(refusal) if refusal.status() == Some(404) => {
            return Err(suggest::environment(remote, environment, refusal).await);
        }
        Err(error) => return Err(error.into()),
    };
    if remote.output.is_json() {
        remote.output.json(&answer)?;
        return Ok(Exit::Done);
    }
    let cluster: Cluster = typed(answer)?;
    let output = remote.output;
    output.line(format!(
        "{}  {} of {} nodes healthy, {} not",
        output.style().paint(&cluster.environment, Colour::Bold),
        cluster.healthy_nodes,
        cluster.total_nodes,
        cluster.unhealthy_nodes
    ))?;
    let metrics = &cluster.metrics;
    output.line(format!(
        "{:.1} requests/s, {:.2} % errors, {:.2} ms; CPU {:.0} %, memory {:.0} %",
        metrics.requests_per_second,
        metrics.error_rate,
        metrics.avg_latency,
        metrics.avg_cpu_usage,
        metrics.avg_memory_usage
    ))?;
    let mut table = Table::new(["NODE", "HOST", "STATUS", "HEARTBEAT"]);
    for node in &cluster.nodes {
        table.row([
            Cell::new(&node.node_id),
            Cell::new(&node.hostname),
            node_status(&node.status),
            Cell::new(node.last_heartbeat.as_deref().map(ago).unwrap_or_default()),
        ]);
    }
    output.table(&table)?;
    Ok(Exit::Done)
}

/// A node's status: running is how it should be, unlike a deployment's.
pub(super) fn node_status(status: &str) -> Cell {
    match status {
        "Running" => Cell::new(status).colour(Colour::Green),
        other => Cell::status(other),
    }
}
