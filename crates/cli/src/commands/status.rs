//! Show one deployment.

use std::time::SystemTime;

use super::{Remote, resolve, watch};
use crate::args::Watched;
use crate::client::{Deployment, Stage, typed};
use crate::exit::Exit;
use crate::output::{Cell, Colour, Style, Table, ago, duration, iso_duration, parse_time};

/// Shows it once, or until it has ended.
pub(super) async fn run(remote: &Remote<'_>, args: &Watched) -> anyhow::Result<Exit> {
    let id = resolve::deployment(remote, &args.id).await?;
    if args.watch {
        return watch::until_ended(remote, &id, watch::Goal::Succeeded).await;
    }
    let answer = remote.client.get(&["deployments", &id], &[]).await?;
    let deployment: Deployment = typed(answer.clone())?;
    if remote.output.is_json() {
        remote.output.json(&answer)?;
    } else {
        for line in page(&deployment, remote.output.style(), remote.output.columns()) {
            remote.output.line(line)?;
        }
    }
    Ok(match deployment.status.as_str() {
        "Failed" | "Cancelled" | "RolledBack" => Exit::Failed,
        _ => Exit::Done,
    })
}

/// A deployment as lines.
pub(super) fn page(deployment: &Deployment, style: Style, columns: Option<usize>) -> Vec<String> {
    let title = deployment.title();
    let mut lines = vec![
        format!(
            "{}  {}",
            style.paint(title, Colour::Bold),
            style.status(&deployment.status)
        ),
        style.paint(
            format!(
                "{}, began {}{}",
                deployment.execution_id,
                ago(&deployment.start_time),
                took(deployment)
            ),
            Colour::Grey,
        ),
    ];
    if let Some(message) = deployment
        .message
        .as_deref()
        .filter(|message| !message.is_empty())
    {
        lines.push(message.to_owned());
    }
    let mut table = Table::new(["STAGE", "STATUS", "STRATEGY", "NODES", "TOOK", "MESSAGE"]);
    for stage in &deployment.stages {
        table.row([
            Cell::new(&stage.name),
            Cell::status(&stage.status),
            Cell::new(stage.strategy.as_deref().unwrap_or_default()),
            Cell::number(nodes(stage)),
            Cell::number(stage_time(stage)),
            Cell::new(stage.message.as_deref().unwrap_or_default()),
        ]);
    }
    lines.extend(table.lines(style, columns));
    lines
}

fn took(deployment: &Deployment) -> String {
    let taken = deployment.duration.as_deref().and_then(iso_duration);
    match (taken, deployment.is_finished()) {
        (Some(taken), true) => format!(", took {}", duration(taken)),
        _ => String::new(),
    }
}

/// Nodes that run the release, and those that failed.
fn nodes(stage: &Stage) -> String {
    match (stage.nodes_deployed, stage.nodes_failed) {
        (Some(deployed), Some(failed)) if failed > 0 => format!("{deployed} ({failed} failed)"),
        (Some(deployed), _) if stage.strategy.is_some() || deployed > 0 => deployed.to_string(),
        _ => String::new(),
    }
}

/// How long a stage took, or has taken so far.
pub(super) fn stage_time(stage: &Stage) -> String {
    if matches!(stage.status.as_str(), "Pending" | "Skipped") {
        return String::new();
    }
    let running = || {
        SystemTime::now()
            .duration_since(parse_time(stage.start_time.as_deref()?)?)
            .ok()
    };
    let taken = match stage.status.as_str() {
        "Running" | "WaitingForApproval" => running(),
        _ => stage.duration.as_deref().and_then(iso_duration),
    };
    taken.map(duration).unwrap_or_default()
}
