//! A module's values in an environment.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::resolve::text;
use super::{Remote, suggest};
use crate::args::{GetValues, SetValues};
use crate::exit::Exit;
use crate::output::{Cell, Table};
use crate::problem::Problem;

/// Shows them.
pub(super) async fn get(remote: &Remote<'_>, args: &GetValues) -> anyhow::Result<Exit> {
    let answer = read(remote, &args.name, &args.env).await?;
    show(remote, &answer)
}

/// Sets some of them; the others stay. Somebody else's change in between is not undone.
pub(super) async fn set(remote: &Remote<'_>, args: &SetValues) -> anyhow::Result<Exit> {
    let answer = read(remote, &args.name, &args.env).await?;
    let mut values: BTreeMap<String, Value> = answer["values"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    for (key, value) in &args.values {
        match value {
            Some(value) => drop(values.insert(key.clone(), value.as_str().into())),
            None if values.remove(key).is_none() => {
                return Err(
                    Problem::usage(format!("{} has no value {key} in {}", args.name, args.env)).into(),
                );
            }
            None => {}
        }
    }
    let body = json!({ "values": values, "expected": answer["number"] });
    let path = ["modules", &args.name, "config", &args.env];
    let set = remote.client.put(&path, &body).await?;
    if remote.output.is_json() {
        remote.output.json(&set)?;
        return Ok(Exit::Done);
    }
    show(remote, &set)
}

async fn read(remote: &Remote<'_>, name: &str, env: &str) -> anyhow::Result<Value> {
    match remote.client.get(&["modules", name, "config", env], &[]).await {
        Ok(answer) => Ok(answer),
        Err(refusal) => Err(suggest::release(remote, name, env, refusal).await),
    }
}

fn show(remote: &Remote<'_>, answer: &Value) -> anyhow::Result<Exit> {
    let output = remote.output;
    if output.is_json() {
        output.json(answer)?;
        return Ok(Exit::Done);
    }
    let (module, environment) = (text(answer, "moduleName"), text(answer, "environment"));
    let number = answer["number"].as_u64().unwrap_or_default();
    if number == 0 {
        output.line(format!("{module} was given no values in {environment}"))?;
        output.line(format!(
            "next: `hotswap config set {module} KEY=VALUE --env {environment}`"
        ))?;
        return Ok(Exit::Done);
    }
    let mut table = Table::new(["KEY", "VALUE"]);
    for (key, value) in answer["values"].as_object().into_iter().flatten() {
        table.row([Cell::new(key), Cell::new(value.as_str().unwrap_or_default())]);
    }
    output.table(&table)?;
    let (runs, version) = (
        answer["runningNumber"].as_u64(),
        answer["runningVersion"].as_str(),
    );
    match (runs, version) {
        (Some(runs), Some(version)) if runs != number => {
            output.line(format!(
                "values {number} of {module} in {environment}; {version} runs there with {}",
                if runs == 0 {
                    "none".to_owned()
                } else {
                    format!("values {runs}")
                }
            ))?;
            output.line(format!(
                "next: `hotswap deploy {module} {version} --to {environment} --watch` rolls them out"
            ))?;
        }
        (Some(_), Some(version)) => {
            output.line(format!(
                "values {number} of {module} in {environment}, with which {version} runs"
            ))?;
        }
        _ => output.line(format!(
            "values {number} of {module} in {environment}; a deployment to it takes them up"
        ))?,
    }
    Ok(Exit::Done)
}
