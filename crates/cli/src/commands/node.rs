//! One node: show, label, drain, undrain, move, revoke, remove.

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::resolve::text;
use super::{Remote, suggest};
use crate::args::NodeCommand;
use crate::exit::Exit;
use crate::output::{Cell, Colour, Table, ago};

/// How often a drain is looked at.
const POLL: Duration = Duration::from_millis(300);

/// Does what was asked of it.
pub(super) async fn run(remote: &Remote<'_>, command: &NodeCommand) -> anyhow::Result<Exit> {
    match command {
        NodeCommand::Show { node } => show(remote, node).await,
        NodeCommand::Label { node, labels } => {
            let value = |value: &Option<String>| value.clone().map_or(Value::Null, Value::String);
            let labels: Map<String, Value> = labels
                .iter()
                .map(|(key, set)| (key.clone(), value(set)))
                .collect();
            let answer = post(remote, node, "labels", Some(json!({ "labels": labels }))).await?;
            let all = answer["labels"].as_object().into_iter().flatten();
            let all: Vec<String> = all
                .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()))
                .collect();
            say(
                remote,
                &answer,
                format!("{node} has the labels {}", all.join(" ")),
            )
        }
        NodeCommand::Drain {
            node,
            deadline,
            reason,
            wait,
        } => {
            let body = json!({
                "deadline": format!("PT{}S", deadline.as_secs_f64()), "reason": reason,
            });
            let answer = post(remote, node, "drain", Some(body)).await?;
            if *wait {
                return until_drained(remote, node).await;
            }
            let next = format!("{node} is being drained; `hotswap nodes show {node}` tells how far it is");
            say(remote, &answer, next)
        }
        NodeCommand::Undrain { node } => {
            let answer = post(remote, node, "undrain", None).await?;
            say(remote, &answer, format!("{node} serves again"))
        }
        NodeCommand::Move { node, to } => {
            let body = json!({ "environment": to });
            let path = ["nodes", node, "move"];
            let answer = match remote.client.post(&path, Some(&body)).await {
                Ok(answer) => answer,
                Err(refusal) if refusal.status() == Some(400) => {
                    return Err(suggest::environment(remote, to, refusal).await);
                }
                Err(refusal) => return Err(suggest::node(remote, node, refusal).await),
            };
            let environment = text(&answer, "environment").to_owned();
            say(remote, &answer, format!("{node} belongs to {environment} now"))
        }
        NodeCommand::Remove { node } => {
            let answer = match remote.client.delete(&["nodes", node]).await {
                Ok(answer) => answer,
                Err(refusal) => return Err(suggest::node(remote, node, refusal).await),
            };
            say(
                remote,
                &answer,
                format!("{node} is removed from the fleet, and its certificates are revoked"),
            )
        }
        NodeCommand::Revoke { node } => {
            let answer = post(remote, node, "revoke", None).await?;
            let held = answer["revoked"].as_array().map_or(0, Vec::len);
            say(
                remote,
                &answer,
                format!("{node} is let in no more: {held} certificates that held are revoked"),
            )
        }
        NodeCommand::Token(command) => super::join_tokens::run(remote, command).await,
    }
}

async fn post(remote: &Remote<'_>, node: &str, verb: &str, body: Option<Value>) -> anyhow::Result<Value> {
    match remote.client.post(&["nodes", node, verb], body.as_ref()).await {
        Ok(answer) => Ok(answer),
        Err(refusal) => Err(suggest::node(remote, node, refusal).await),
    }
}

fn say(remote: &Remote<'_>, answer: &Value, words: String) -> anyhow::Result<Exit> {
    if remote.output.is_json() {
        remote.output.json(answer)?;
    } else {
        remote.output.line(words)?;
    }
    Ok(Exit::Done)
}

/// Stays until the node itself says that it serves nothing.
async fn until_drained(remote: &Remote<'_>, node: &str) -> anyhow::Result<Exit> {
    let mut told = String::new();
    loop {
        let answer = remote.client.get(&["nodes", node], &[]).await?;
        let drained = text(&answer["drain"], "state") == "Drained";
        let modules = answer["modules"]
            .as_array()
            .map(Vec::as_slice)
            .unwrap_or_default();
        let serves = |module: &&Value| {
            module["routes"]
                .as_array()
                .is_some_and(|routes| !routes.is_empty())
        };
        let serving = modules.iter().filter(serves).count();
        if drained && serving == 0 {
            return say(remote, &answer, format!("{node} is drained: it serves nothing"));
        }
        if answer["drain"].is_null() {
            say(remote, &answer, format!("{node} was undrained meanwhile"))?;
            return Ok(Exit::Failed);
        }
        let waits = text(&answer["drain"], "waitsFor");
        let news = match (drained, waits) {
            (false, "") => "waits to be drained".to_owned(),
            (false, waits) => format!("waits for {waits}"),
            (true, _) => format!("{serving} modules still serve"),
        };
        if told != news && !remote.output.is_json() {
            remote.output.line(format!("{node} {news}"))?;
        }
        told = news;
        tokio::select! {
            () = tokio::time::sleep(POLL) => {}
            pressed = tokio::signal::ctrl_c() => {
                pressed?;
                eprintln!("no longer waiting; the drain of {node} goes on (hotswap nodes undrain {node} ends it)");
                return Ok(Exit::Interrupted);
            }
        }
    }
}

async fn show(remote: &Remote<'_>, node: &str) -> anyhow::Result<Exit> {
    let answer = match remote.client.get(&["nodes", node], &[]).await {
        Ok(answer) => answer,
        Err(refusal) => return Err(suggest::node(remote, node, refusal).await),
    };
    let output = remote.output;
    if output.is_json() {
        output.json(&answer)?;
        return Ok(Exit::Done);
    }
    let style = output.style();
    output.line(format!(
        "{}  {}  {}",
        style.paint(text(&answer, "nodeId"), Colour::Bold),
        text(&answer, "environment"),
        style.status(text(&answer, "status")),
    ))?;
    let mut facts = Table::new(["", ""]);
    let mut fact = |name: &str, value: String| {
        if !value.is_empty() {
            facts.row([Cell::new(name).colour(Colour::Grey), Cell::new(value)]);
        }
    };
    fact("host", text(&answer, "hostname").to_owned());
    fact("ingress", text(&answer, "ingress").to_owned());
    fact("agent", text(&answer, "agentVersion").to_owned());
    fact(
        "last report",
        answer["lastHeartbeat"].as_str().map(ago).unwrap_or_default(),
    );
    fact("first seen", ago(text(&answer, "registered")));
    let (kinds, machine): (Vec<&str>, Vec<&str>) = strings(&answer["capabilities"])
        .into_iter()
        .partition(|word| KINDS.contains(word));
    fact("runs kinds", kinds.join(", "));
    fact("machine", machine.join(", "));
    fact("labels", labels(&answer));
    fact("drain", drain(&answer["drain"]));
    fact("certificate", certificate(&answer["certificate"]));
    if let Some(health) = answer["health"].as_object() {
        let number = |key: &str| health.get(key).and_then(Value::as_f64).unwrap_or_default();
        fact(
            "health",
            format!(
                "CPU {:.0} %, memory {:.0} %, {:.1} requests/s, {:.2} ms, {:.2} % errors",
                number("cpuUsage"),
                number("memoryUsage"),
                number("requestsPerSecond"),
                number("latency"),
                number("errorRate")
            ),
        );
    }
    let host = text(&answer, "hostname");
    fact(
        "modules' output",
        format!(
            "in the agent's log on {host}: its standard error, or `journalctl -u hotswap-agent`; target \"module\""
        ),
    );
    for line in facts.lines(style, output.columns()).iter().skip(1) {
        output.line(line)?;
    }
    let mut table = Table::new(["MODULE", "VERSION", "STATE", "REQUESTS", "DIGEST", "NOTE"]);
    for module in answer["modules"].as_array().into_iter().flatten() {
        for release in module["releases"].as_array().into_iter().flatten() {
            let version = text(release, "version");
            let mut routes = module["routes"].as_array().into_iter().flatten();
            let share = routes.find(|route| text(route, "version") == version);
            let share = share.and_then(|route| route["weight"].as_u64());
            let trial = if text(module, "trial") == version {
                "on trial"
            } else {
                ""
            };
            let notes = [trial, text(release, "reason"), text(module, "exception")];
            let notes: Vec<&str> = notes.into_iter().filter(|note| !note.is_empty()).collect();
            let digest = text(release, "digest");
            let digest = digest.strip_prefix("sha256:").unwrap_or(digest);
            table.row([
                Cell::new(text(module, "moduleName")),
                Cell::new(version),
                Cell::new(text(release, "state")),
                Cell::number(share.map(|share| format!("{share} %")).unwrap_or_default()),
                Cell::new(digest.get(..12).unwrap_or(digest)),
                Cell::new(notes.join("; ")),
            ]);
        }
    }
    output.table(&table)?;
    Ok(Exit::Done)
}

/// Capabilities that are kinds of module; the others say what the machine is.
const KINDS: [&str; 4] = ["wasm", "process", "ebpf", "kernel"];

fn strings(values: &Value) -> Vec<&str> {
    values
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect()
}

fn labels(node: &Value) -> String {
    let set = |key: &str| node["setLabels"].get(key).is_some();
    let all = node["labels"].as_object().into_iter().flatten();
    let all = all.map(|(key, value)| {
        let by = if set(key) { " (set)" } else { "" };
        format!("{key}={}{by}", value.as_str().unwrap_or_default())
    });
    all.collect::<Vec<_>>().join(", ")
}

fn certificate(of: &Value) -> String {
    match text(of, "state") {
        "" => "none".to_owned(),
        "Revoked" => format!("{}, revoked {}", text(of, "serial"), ago(text(of, "revokedAt"))),
        state => format!(
            "{}, {}, until {}",
            text(of, "serial"),
            state.to_lowercase(),
            text(of, "expiresAt")
        ),
    }
}

fn drain(drain: &Value) -> String {
    if drain.is_null() {
        return String::new();
    }
    let mut words = format!(
        "{} by {}, since {}",
        text(drain, "state"),
        text(drain, "by"),
        ago(text(drain, "since"))
    );
    for (before, key) in [(": ", "reason"), ("; waits for ", "waitsFor")] {
        if !text(drain, key).is_empty() {
            words += before;
            words += text(drain, key);
        }
    }
    words
}
