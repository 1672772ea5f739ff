//! The demo as somebody sees it: the fleet by version, the deployment, candidate against control.

use std::collections::BTreeMap;
use std::time::Duration;

use super::director::Scene;
use super::policy::FLEET;
use crate::client::{Arm, Judged, Node};
use crate::output::{Cell, Colour, Style, Table, fit, grouped};

/// The module that the story is about.
pub(crate) const MODULE: &str = "payment-processor";
/// Happenings that stay in sight.
const LOG_LINES: usize = 6;

/// The frame of a live view, cut to the terminal.
pub(crate) fn frame(scene: &Scene, style: Style, columns: usize, rows: usize) -> Vec<String> {
    let mut lines = vec![title(scene, style), String::new()];
    lines.extend(fleet(scene, style));
    lines.push(String::new());
    lines.extend(deployment(scene, style, columns));
    lines.push(String::new());
    let log = scene.log.len().saturating_sub(LOG_LINES);
    lines.extend(
        scene
            .log
            .iter()
            .skip(log)
            .map(|line| style.paint(fit(line, columns), Colour::Grey)),
    );
    lines.truncate(rows.saturating_sub(1).max(4));
    lines
}

fn title(scene: &Scene, style: Style) -> String {
    let dropped = scene.counters.dropped_total();
    let dropped = style.paint(
        format!("{dropped} dropped"),
        if dropped == 0 { Colour::Green } else { Colour::Red },
    );
    format!(
        "{}  {}  {}  {} requests answered, {dropped}",
        style.paint("hotswap demo", Colour::Bold),
        scene.url,
        clock(scene.elapsed),
        grouped(scene.counters.answers()),
    )
}

/// Minutes and seconds.
pub(crate) fn clock(elapsed: Duration) -> String {
    let seconds = elapsed.as_secs();
    format!("{}:{:02}", seconds / 60, seconds % 60)
}

/// How many nodes of an environment run what: by version, heaviest share first; two versions count as `a + b`.
pub(crate) fn by_version<'a>(nodes: impl IntoIterator<Item = &'a Node>) -> BTreeMap<String, u32> {
    let mut counts = BTreeMap::new();
    for node in nodes {
        *counts.entry(runs(node)).or_default() += 1;
    }
    counts
}

/// What a node runs of the story's module, by its own report.
fn runs(node: &Node) -> String {
    let versions: Vec<&str> = node
        .running()
        .filter(|(module, _)| *module == MODULE)
        .map(|(_, version)| version)
        .collect();
    if versions.is_empty() {
        "nothing".to_owned()
    } else {
        versions.join(" + ")
    }
}

/// A row for each environment: one block a node.
fn fleet(scene: &Scene, style: Style) -> Vec<String> {
    let mut table = Table::new(["ENVIRONMENT", "NODES", "REQUESTS/S", "RUNS"]);
    let mut bars = Vec::new();
    for (environment, count, _) in FLEET {
        let nodes = || scene.nodes.iter().filter(|node| node.environment == environment);
        let mut blocks: Vec<Block> = nodes()
            .map(|node| Block::of(&runs(node), scene.candidate.as_deref()))
            .collect();
        blocks.sort_unstable();
        let text: String = blocks.iter().map(|block| block.glyph()).collect();
        bars.push((text.clone(), blocks));
        let counts: Vec<String> = by_version(nodes())
            .iter()
            .map(|(version, count)| format!("{count} × {version}"))
            .collect();
        let rate = scene.rates.get(environment).copied().unwrap_or_default();
        table.row([
            Cell::new(environment),
            Cell::new(format!("{text:<20}")),
            Cell::number(format!("{rate:.0}")),
            Cell::new(if counts.is_empty() {
                format!("{count} × starting")
            } else {
                counts.join(", ")
            }),
        ]);
    }
    let mut lines = table.lines(style, None);
    // Each block gets its colour after the columns have their widths.
    for (line, (text, blocks)) in lines.iter_mut().skip(1).zip(bars) {
        if !text.is_empty() {
            let painted: String = blocks
                .iter()
                .map(|block| style.paint(block.glyph(), block.colour()))
                .collect();
            *line = line.replacen(&text, &painted, 1);
        }
    }
    lines
}

/// A node in a bar.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Block {
    Candidate,
    Both,
    Stable,
    Nothing,
}

impl Block {
    fn of(runs: &str, candidate: Option<&str>) -> Self {
        match candidate {
            _ if runs == "nothing" => Self::Nothing,
            Some(candidate) if runs == candidate => Self::Candidate,
            Some(candidate) if runs.contains(candidate) => Self::Both,
            _ => Self::Stable,
        }
    }

    fn glyph(self) -> &'static str {
        match self {
            Self::Candidate => "█",
            Self::Both => "▓",
            Self::Stable => "▒",
            Self::Nothing => "·",
        }
    }

    fn colour(self) -> Colour {
        match self {
            Self::Candidate => Colour::Green,
            Self::Both => Colour::Yellow,
            Self::Stable => Colour::Cyan,
            Self::Nothing => Colour::Grey,
        }
    }
}

fn deployment(scene: &Scene, style: Style, columns: usize) -> Vec<String> {
    let Some(deployment) = &scene.deployment else {
        return vec![style.paint(fit(&scene.headline, columns), Colour::Bold)];
    };
    let mut lines = vec![format!(
        "{}  {}",
        style.paint(fit(&scene.headline, columns.saturating_sub(12)), Colour::Bold),
        style.status(&deployment.status)
    )];
    let stages: Vec<String> = deployment
        .stages
        .iter()
        .map(|stage| {
            let name = stage.name.strip_prefix("Deploy to ").unwrap_or(&stage.name);
            let (mark, colour) = match stage.status.as_str() {
                "Succeeded" => ("✓", Colour::Green),
                "Failed" => ("✗", Colour::Red),
                "Running" => ("●", Colour::Cyan),
                _ => ("·", Colour::Grey),
            };
            style.paint(format!("{mark} {name}"), colour)
        })
        .collect();
    lines.push(format!("  {}", stages.join("  ")));
    let current = deployment.stages.iter().find(|stage| stage.status == "Running");
    let message = current
        .and_then(|stage| stage.message.as_deref())
        .unwrap_or_default();
    lines.push(fit(&format!("  {message}"), columns));
    match &scene.judged {
        Some(judged) if current.is_some() => lines.extend(comparison(judged, style, columns)),
        _ => {}
    }
    lines
}

/// Candidate against control at the running step, and what the judge says.
fn comparison(judged: &Judged, style: Style, columns: usize) -> Vec<String> {
    let Some(step) = judged.current() else {
        return Vec::new();
    };
    let mut table = Table::new(["", "REQUESTS", "ERRORS", "P99", "PROBES"]);
    let candidate = judged.candidate.as_deref().unwrap_or_default();
    let control = judged.control.as_deref().unwrap_or("none");
    for (name, arm) in [
        (format!("  candidate {candidate}"), &step.candidate),
        (format!("  control   {control}"), &step.control),
    ] {
        table.row([
            Cell::new(name),
            Cell::number(grouped(arm.requests)),
            Cell::number(errors(arm)),
            Cell::number(p99(arm)),
            Cell::number(grouped(arm.probes)),
        ]);
    }
    let mut lines = vec![fit(&format!("  step {}: {}", step.step, step.plan), columns)];
    lines.extend(table.lines(style, None));
    let text = fit(&format!("  judge: {}", judged.verdict), columns);
    lines.push(match Colour::of_status(&judged.outcome) {
        Some(colour) => style.paint(&text, colour),
        None => text,
    });
    lines
}

/// What an arm's users got, in words.
pub(crate) fn arm(arm: &Arm) -> String {
    match arm.requests {
        0 => format!("{} probes, no requests", arm.probes),
        requests => format!(
            "{} requests, {} errors, p99 {}",
            grouped(requests),
            errors(arm),
            p99(arm)
        ),
    }
}

/// Errors of an arm, with their share.
fn errors(arm: &Arm) -> String {
    format!("{} ({:.1} %)", arm.errors, arm.error_rate)
}

/// An arm's slow end.
fn p99(arm: &Arm) -> String {
    arm.latency_p99
        .map(|ms| format!("{ms:.1} ms"))
        .unwrap_or_default()
}
