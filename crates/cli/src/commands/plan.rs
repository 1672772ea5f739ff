//! What a deployment would do.

use serde_json::Value;

use super::deploy::own_email;
use super::resolve::text;
use super::{Remote, suggest};
use crate::args::Plan;
use crate::client::NewDeployment;
use crate::exit::Exit;
use crate::output::{Cell, Colour, Output, Style, Table, counted, duration, grouped, iso_duration};

/// Most nodes that a line names.
const NODES_NAMED_MAX: usize = 6;

/// Shows it.
pub(super) async fn run(remote: &Remote<'_>, args: &Plan) -> anyhow::Result<Exit> {
    let wanted = NewDeployment {
        module_name: args.name.clone(),
        version: args.version.clone(),
        target_environment: args.to.clone(),
        requester_email: own_email(),
        require_approval: args.require_approval,
        description: String::new(),
        metadata: std::collections::BTreeMap::new(),
        allow_downgrade: args.allow_downgrade,
        supersede: false,
        seed: args.seed,
    };
    let answer = match remote.client.post(&["deployments", "plan"], Some(&wanted)).await {
        Ok(answer) => answer,
        Err(refusal) => return Err(suggest::release(remote, &args.name, &args.to, refusal).await),
    };
    if remote.output.is_json() {
        remote.output.json(&answer)?;
    } else {
        show(&answer, args, remote.output)?;
    }
    let environments = items(&answer["environments"]);
    let fails = environments
        .iter()
        .any(|environment| text(environment, "action") == "Fail");
    Ok(if fails { Exit::Failed } else { Exit::Done })
}

fn items(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

fn show(plan: &Value, args: &Plan, output: &Output) -> anyhow::Result<()> {
    let style = output.style();
    let title = format!(
        "{} {} to {}",
        text(plan, "moduleName"),
        text(plan, "version"),
        text(plan, "targetEnvironment")
    );
    output.line(style.paint(title, Colour::Bold))?;
    if plan["approvalRequired"].as_bool() == Some(true) {
        output.line("A person must approve it first.")?;
    }
    output.line("Build, Test and Security Scan come before anything reaches a node.")?;
    for environment in items(&plan["environments"]) {
        for line in of_environment(environment, style, output.columns()) {
            output.line(line)?;
        }
    }
    let seed = &plan["seed"];
    output.line(style.paint(
        format!(
            "Drawn with seed {seed}: `hotswap deploy {} {} --to {} --seed {seed}` draws the same, as long as nothing \
             else begins before it.",
            args.name, args.version, args.to
        ),
        Colour::Grey,
    ))?;
    Ok(())
}

fn of_environment(environment: &Value, style: Style, columns: Option<usize>) -> Vec<String> {
    let name = style.paint(text(environment, "environment"), Colour::Bold);
    let reason = text(environment, "reason");
    let mut lines = vec![String::new()];
    match text(environment, "action") {
        "Skip" => lines.push(format!("{name}: skipped, {reason}")),
        "Fail" => lines.push(format!(
            "{name}: {}, {reason}",
            style.paint("would fail", Colour::Red)
        )),
        _ => {
            let base = environment["baseVersion"].as_str();
            let over = base.map_or_else(|| "nothing there yet".to_owned(), |base| format!("over {base}"));
            lines.push(format!("{name}: {}, {over}", text(environment, "strategy")));
        }
    }
    for wait in items(&environment["waits"]).iter().filter_map(Value::as_str) {
        lines.push(style.paint(format!("  now: {wait}"), Colour::Yellow));
    }
    for (key, what) in [("unable", "can't run it"), ("leftOut", "left out")] {
        for node in items(&environment[key]) {
            let (node, reason) = (text(node, "nodeId"), text(node, "reason"));
            lines.push(style.paint(format!("  {what}: {node} {reason}"), Colour::Yellow));
        }
    }
    let steps = items(&environment["steps"]);
    if steps.is_empty() {
        return lines;
    }
    let mut table = Table::new(["  STEP", "WHAT", "GATE", "AT LEAST", "JUDGE NEEDS", "JOINS"]);
    for step in steps {
        let least = iso_duration(text(step, "atLeast")).map(duration);
        table.row([
            Cell::number(&step["step"]),
            Cell::new(text(step, "message")),
            Cell::new(text(step, "gate")),
            Cell::number(least.unwrap_or_default()),
            Cell::new(judge(&step["judge"])),
            Cell::new(joins(&step["joins"])),
        ]);
    }
    lines.extend(table.lines(style, columns));
    let others = environment["prefetchingNodes"].as_u64().unwrap_or_default();
    if others > 0 {
        let words = format!(
            "  fetched, verified and compiled meanwhile, here and in the next environment, by {}",
            counted(others, "node")
        );
        lines.push(style.paint(words, Colour::Grey));
    }
    lines
}

fn judge(need: &Value) -> String {
    if need.is_null() {
        return String::new();
    }
    let what = if need["probes"].as_bool() == Some(true) {
        "probes"
    } else {
        "requests"
    };
    let Some(requests) = need["requests"].as_u64() else {
        return "no number of requests would do".to_owned();
    };
    let takes = match need["takes"].as_str().and_then(iso_duration) {
        Some(takes) => format!("{} at {}/s", duration(takes), need["requestsPerSecond"]),
        None => "no traffic now".to_owned(),
    };
    format!("{} {what}: {takes}", grouped(requests))
}

fn joins(nodes: &Value) -> String {
    let nodes: Vec<&str> = items(nodes).iter().filter_map(Value::as_str).collect();
    let first = nodes
        .iter()
        .take(NODES_NAMED_MAX)
        .copied()
        .collect::<Vec<_>>()
        .join(", ");
    match nodes.len().saturating_sub(NODES_NAMED_MAX) {
        0 => first,
        more => format!("{first} and {more} more"),
    }
}
