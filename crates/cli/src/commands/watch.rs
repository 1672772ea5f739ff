//! Stay with a deployment until it has ended.

use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime};

use serde_json::Value;

use super::{Remote, status};
use crate::client::{ApiError, ClusterRow, Deployment, Stage, typed};
use crate::exit::Exit;
use crate::output::{Cell, Colour, Live, Output, Style, Table, counted};

/// How often it is looked at.
const POLL: Duration = Duration::from_millis(500);
/// How long a server may be out of reach: long enough for a restart.
const OUT_OF_REACH_MAX: Duration = Duration::from_secs(120);
/// Columns of a bar of nodes.
const BAR: usize = 20;

/// What a watcher hopes for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Goal {
    /// The release is stable in its target.
    Succeeded,
    /// It was taken back because somebody asked for it.
    Cancelled,
}

impl Goal {
    fn exit(self, status: &str) -> Exit {
        let reached = match self {
            Self::Succeeded => status == "Succeeded",
            Self::Cancelled => status == "Cancelled",
        };
        if reached { Exit::Done } else { Exit::Failed }
    }
}

/// Shows a deployment until it has ended, and tells its outcome by the exit code.
pub(super) async fn until_ended(remote: &Remote<'_>, id: &str, goal: Goal) -> anyhow::Result<Exit> {
    let mut screen = Screen::new(remote).await?;
    tokio::select! {
        exit = follow(remote, id, goal, &mut screen) => exit,
        pressed = tokio::signal::ctrl_c() => {
            pressed?;
            drop(screen);
            eprintln!("no longer watching; deployment {id} goes on (hotswap status {id} --watch)");
            Ok(Exit::Interrupted)
        }
    }
}

async fn follow(remote: &Remote<'_>, id: &str, goal: Goal, screen: &mut Screen<'_>) -> anyhow::Result<Exit> {
    let mut lost: Option<Instant> = None;
    loop {
        match remote.client.get(&["deployments", id], &[]).await {
            Ok(answer) => {
                if lost.take().is_some() {
                    screen.note("the server is back")?;
                }
                let deployment: Deployment = typed(answer.clone())?;
                screen.show(&deployment, &answer)?;
                if deployment.is_finished() {
                    return Ok(goal.exit(&deployment.status));
                }
            }
            Err(error)
                if error.is_out_of_reach() && lost.is_none_or(|since| since.elapsed() < OUT_OF_REACH_MAX) =>
            {
                if lost.is_none() {
                    lost = Some(Instant::now());
                    screen.note(&format!(
                        "{error}; trying again for {} s",
                        OUT_OF_REACH_MAX.as_secs()
                    ))?;
                }
            }
            Err(error) => return Err(error.into()),
        }
        tokio::time::sleep(POLL).await;
    }
}

/// Where it is shown.
enum Screen<'a> {
    /// Lines written over in place.
    Live {
        output: &'a Output,
        live: Live,
        nodes: BTreeMap<String, u32>,
    },
    /// A line for each change.
    Lines {
        output: &'a Output,
        seen: BTreeMap<String, Stage>,
    },
    /// The last answer alone.
    Json(&'a Output),
}

impl<'a> Screen<'a> {
    async fn new(remote: &Remote<'a>) -> anyhow::Result<Self> {
        let output = remote.output;
        if output.is_json() {
            return Ok(Self::Json(output));
        }
        if !output.is_terminal() {
            return Ok(Self::Lines {
                output,
                seen: BTreeMap::new(),
            });
        }
        let clusters: Result<Vec<ClusterRow>, ApiError> = remote.client.fetch(&["clusters"], &[]).await;
        let nodes = clusters.unwrap_or_default();
        let nodes = nodes
            .into_iter()
            .map(|row| (format!("Deploy to {}", row.environment), row.total_nodes))
            .collect();
        Ok(Self::Live {
            output,
            live: Live::new()?,
            nodes,
        })
    }

    fn note(&mut self, text: &str) -> anyhow::Result<()> {
        match self {
            Self::Live { output, live, .. } => {
                live.draw(&[output.style().paint(text, Colour::Yellow)])?;
                live.keep();
            }
            Self::Lines { output, .. } => output.line(format!("{}  {text}", stamp()))?,
            Self::Json(_) => {}
        }
        Ok(())
    }

    fn show(&mut self, deployment: &Deployment, answer: &Value) -> anyhow::Result<()> {
        match self {
            Self::Live { output, live, nodes } => {
                let mut lines = frame(deployment, nodes, output.style(), output.columns());
                if deployment.is_finished() {
                    lines = status::page(deployment, output.style(), output.columns());
                }
                lines.truncate(output.rows().saturating_sub(1).max(4));
                live.draw(&lines)?;
            }
            Self::Lines { output, seen } => {
                for line in changes(deployment, seen) {
                    output.line(line)?;
                }
            }
            Self::Json(output) => {
                if deployment.is_finished() {
                    output.json(answer)?;
                }
            }
        }
        Ok(())
    }
}

/// The time of day, UTC, as the API writes it.
fn stamp() -> String {
    humantime::format_rfc3339_seconds(SystemTime::now()).to_string()
}

/// A line for each stage that changed, and one for the end.
fn changes(deployment: &Deployment, seen: &mut BTreeMap<String, Stage>) -> Vec<String> {
    let mut lines = Vec::new();
    for stage in deployment
        .stages
        .iter()
        .filter(|stage| stage.status != "Pending" || stage.message.is_some())
    {
        let before = seen.insert(stage.name.clone(), stage.clone());
        // Digits aside: how many milliseconds of a second a node was healthy is no news.
        let words = |stage: &Stage| {
            let message = stage.message.as_deref().unwrap_or_default();
            message
                .chars()
                .filter(|c| !c.is_ascii_digit())
                .collect::<String>()
        };
        let told = |stage: &Stage| (stage.status.clone(), words(stage), stage.nodes_deployed);
        if before.as_ref().map(told) == Some(told(stage)) || (before.is_none() && stage.status == "Pending") {
            continue;
        }
        let nodes = match stage.nodes_deployed {
            Some(nodes) if stage.strategy.is_some() => format!("{}; ", counted(nodes.into(), "node")),
            _ => String::new(),
        };
        let message = stage.message.as_deref().unwrap_or_default();
        let line = format!(
            "{}  {:<22}  {:<10}  {nodes}{message}",
            stamp(),
            stage.name,
            stage.status
        );
        lines.push(line.trim_end_matches([' ', ';']).to_owned());
    }
    if deployment.is_finished() {
        let message = deployment.message.as_deref().unwrap_or_default();
        let line = format!(
            "{}  {}: {}  {message}",
            stamp(),
            deployment.title(),
            deployment.status
        );
        lines.push(line.trim_end().to_owned());
    }
    lines
}

/// A running deployment, for a terminal.
fn frame(
    deployment: &Deployment,
    nodes: &BTreeMap<String, u32>,
    style: Style,
    columns: Option<usize>,
) -> Vec<String> {
    let title = deployment.title();
    let mut lines = vec![format!(
        "{}  {}  {}",
        style.paint(title, Colour::Bold),
        style.status(&deployment.status),
        style.paint(&deployment.execution_id, Colour::Grey)
    )];
    let mut table = Table::new(["", "STAGE", "NODES", "TOOK", "MESSAGE"]);
    for stage in &deployment.stages {
        let (mark, colour) = match stage.status.as_str() {
            "Succeeded" => ("✓", Colour::Green),
            "Failed" => ("✗", Colour::Red),
            "Running" => ("●", Colour::Cyan),
            "WaitingForApproval" => ("?", Colour::Yellow),
            _ => ("·", Colour::Grey),
        };
        let total = nodes.get(&stage.name).copied().unwrap_or_default();
        let bar = match stage.nodes_deployed {
            Some(deployed) if total > 0 && stage.status != "Pending" && stage.status != "Skipped" => {
                format!("{} {deployed}/{total}", bar(deployed, total, BAR))
            }
            _ => String::new(),
        };
        table.row([
            Cell::new(mark).colour(colour),
            Cell::new(&stage.name),
            Cell::new(bar),
            Cell::number(status::stage_time(stage)),
            Cell::new(stage.message.as_deref().unwrap_or_default()),
        ]);
    }
    lines.extend(table.lines(style, columns));
    lines
}

/// A bar of `width` columns; anything above nothing shows.
pub(crate) fn bar(part: u32, total: u32, width: usize) -> String {
    let total = total.max(1) as usize;
    let filled = ((part as usize).min(total) * width).div_ceil(total);
    format!("{}{}", "█".repeat(filled), "░".repeat(width - filled))
}
