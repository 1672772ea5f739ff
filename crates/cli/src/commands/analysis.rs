//! What the judge saw: candidate against control over time, the evidence, and the verdict on each step.

use std::time::Duration;

use super::{Remote, resolve};
use crate::args::{One, Replay};
use crate::client::{Analysis, Arm, Judged, JudgedPoint, typed};
use crate::exit::Exit;
use crate::output::{Cell, Colour, Line, Output, Table, chart, duration, parse_time};

/// Shows the evidence of a deployment.
pub(super) async fn run(remote: &Remote<'_>, args: &One) -> anyhow::Result<Exit> {
    let id = resolve::deployment(remote, &args.id).await?;
    let answer = remote.client.get(&["deployments", &id, "analysis"], &[]).await?;
    let output = remote.output;
    if output.is_json() {
        output.json(&answer)?;
        return Ok(Exit::Done);
    }
    let analysis: Analysis = typed(answer)?;
    if analysis.rollouts.is_empty() {
        output.line("no rollout of this deployment was judged")?;
    }
    for (place, rollout) in analysis.rollouts.iter().enumerate() {
        if place > 0 {
            output.line("")?;
        }
        show(rollout, output)?;
    }
    Ok(Exit::Done)
}

/// Shows when it would have stopped under another policy.
pub(super) async fn replay(remote: &Remote<'_>, args: &Replay) -> anyhow::Result<Exit> {
    let id = resolve::deployment(remote, &args.id).await?;
    let set = args.set.join(",");
    let path = ["deployments", id.as_str(), "replay"];
    let answer = remote.client.get(&path, &[("set", set.as_str())]).await?;
    let output = remote.output;
    if output.is_json() {
        output.json(&answer)?;
        return Ok(Exit::Done);
    }
    let replayed: Analysis = typed(answer)?;
    let style = output.style();
    let policy = if set.is_empty() {
        "the policy that it had".to_owned()
    } else {
        args.set.join(", ")
    };
    output.line(format!("under {}", style.paint(policy, Colour::Bold)))?;
    if replayed.rollouts.is_empty() {
        output.line("no rollout of this deployment was judged")?;
    }
    for rollout in &replayed.rollouts {
        for line in answers(rollout) {
            output.line(format!("  {}: {line}", rollout.environment))?;
        }
    }
    Ok(Exit::Done)
}

/// What the judge would have done, and what was done.
fn answers(rollout: &Judged) -> Vec<String> {
    let mut lines: Vec<String> = rollout
        .steps
        .iter()
        .filter_map(|step| {
            let after = |at: &Option<String>| since(step.began.as_deref()?, at.as_deref()?);
            let done = after(&step.completed_at).map_or_else(String::new, |done| {
                format!("; the step was done after {}", duration(done))
            });
            Some(format!(
                "step {} would have been passed after {}{done}",
                step.step,
                duration(after(&step.passed_at)?)
            ))
        })
        .collect();
    let step = rollout.steps.last();
    let began = step.and_then(|step| step.began.as_deref());
    match (&rollout.failed_at, &rollout.failed_verdict) {
        (Some(at), Some(verdict)) => {
            let ran = rollout.steps.iter().rev().find(|step| {
                let began = step.began.as_deref();
                began.is_some_and(|began| since(began, at).is_some())
            });
            let step = ran.map_or(1, |step| step.step);
            let after = ran
                .and_then(|step| since(step.began.as_deref()?, at))
                .map_or_else(|| at.clone(), duration);
            lines.push(format!(
                "it would have stopped after {after} of step {step}: {verdict}"
            ));
        }
        _ => lines.push(format!(
            "it would not have stopped on what was recorded: {}",
            rollout.verdict
        )),
    }
    match (&rollout.went_back_at, &rollout.went_back) {
        (Some(at), Some(why)) => {
            let after = began.and_then(|began| since(began, at));
            let after = after.map_or_else(
                || at.clone(),
                |after| format!("after {} of step {}", duration(after), rollout.step),
            );
            lines.push(format!("it went back {after}: {why}"));
        }
        _ => lines.push("it did not go back".to_owned()),
    }
    lines
}

fn since(from: &str, to: &str) -> Option<Duration> {
    parse_time(to)?.duration_since(parse_time(from)?).ok()
}

fn show(rollout: &Judged, output: &Output) -> anyhow::Result<()> {
    let style = output.style();
    let name = |release: &Option<String>| release.clone().unwrap_or_else(|| "nothing".to_owned());
    output.line(format!(
        "{}  {}  {} against {}  {}",
        style.paint(&rollout.environment, Colour::Bold),
        rollout.strategy,
        name(&rollout.candidate),
        name(&rollout.control),
        style.status(&rollout.outcome),
    ))?;
    output.line(format!("  {}", rollout.verdict))?;
    for line in charts(&rollout.series, output) {
        output.line(line)?;
    }
    let mut table = Table::new(["STEP", "CANDIDATE", "CONTROL", "VERDICT"]);
    for step in &rollout.steps {
        table.row([
            Cell::new(format!("{} {}", step.step, step.plan)),
            Cell::new(sums(&step.candidate)),
            Cell::new(sums(&step.control)),
            Cell::new(step.completed.as_deref().unwrap_or(&step.verdict)),
        ]);
    }
    output.line("")?;
    for line in table.lines(style, None) {
        output.line(line)?;
    }
    if let Some(why) = &rollout.went_back {
        output.line(format!("  it went back: {why}"))?;
    }
    Ok(())
}

fn sums(arm: &Arm) -> String {
    let mut parts = vec![format!("{} requests", arm.requests)];
    if arm.requests > 0 {
        parts.push(format!("{} % errors", arm.error_rate));
    }
    parts.extend(arm.latency_p99.map(|p99| format!("p99 {p99} ms")));
    parts.extend(arm.cpu_per_request.map(|cpu| format!("cpu {cpu} ms")));
    parts.extend(
        arm.memory_per_instance
            .map(|kib| format!("memory {:.1} MiB", kib / 1_024.0)),
    );
    if arm.probes > 0 {
        parts.push(format!("{} probes", arm.probes));
    }
    parts.join(", ")
}

type Value = fn(&Arm) -> Option<f64>;

fn charts(series: &[JudgedPoint], output: &Output) -> Vec<String> {
    let (style, columns) = (output.style(), output.columns());
    let measures: [(&str, Value); 4] = [
        ("errors in %", |arm| (arm.requests > 0).then_some(arm.error_rate)),
        ("latency p99 in ms", |arm| arm.latency_p99),
        ("cpu of a request in ms", |arm| arm.cpu_per_request),
        ("memory of an instance in MiB", |arm| {
            arm.memory_per_instance.map(|kib| kib / 1_024.0)
        }),
    ];
    let mut lines = Vec::new();
    for (title, value) in measures {
        let arms = [
            Line {
                name: "control",
                mark: '○',
                colour: Colour::Grey,
                values: series.iter().map(|point| value(&point.control)).collect(),
            },
            Line {
                name: "candidate",
                mark: '●',
                colour: Colour::Cyan,
                values: series.iter().map(|point| value(&point.candidate)).collect(),
            },
        ];
        let drawn = chart(title, &arms, style, columns);
        if !drawn.is_empty() {
            lines.push(String::new());
            lines.extend(drawn);
        }
    }
    for signal in ["errors", "latency", "cpu", "memory"] {
        lines.extend(evidence(series, signal, output));
    }
    lines
}

/// A signal's evidence against its thresholds.
fn evidence(series: &[JudgedPoint], signal: &str, output: &Output) -> Vec<String> {
    let of = |value: fn(&crate::client::Evidence) -> f64| -> Vec<Option<f64>> {
        let found = |point: &JudgedPoint| {
            let evidence = point.evidence.iter().find(|evidence| evidence.signal == signal);
            // Far below nothing is nothing: the scale is for what comes near a threshold.
            evidence.map(|evidence| value(evidence).max(-2.0))
        };
        series.iter().map(found).collect()
    };
    let lines = [
        Line {
            name: "fails",
            mark: '─',
            colour: Colour::Red,
            values: of(|evidence| evidence.fail_at),
        },
        Line {
            name: "passes",
            mark: '┈',
            colour: Colour::Green,
            values: of(|evidence| evidence.pass_at),
        },
        Line {
            name: "no harm",
            mark: '△',
            colour: Colour::Green,
            values: of(|evidence| evidence.pass),
        },
        Line {
            name: "harm",
            mark: '▲',
            colour: Colour::Red,
            values: of(|evidence| evidence.fail),
        },
    ];
    let title = format!("evidence about {signal} as log10");
    let drawn = chart(&title, &lines, output.style(), output.columns());
    if drawn.is_empty() {
        return drawn;
    }
    let mut rows = vec![String::new()];
    rows.extend(drawn);
    rows
}
