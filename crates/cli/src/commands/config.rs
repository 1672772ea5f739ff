//! Look at the configuration before a server or an agent does.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Write as _};
use std::path::Path;

use anyhow::Context as _;
use hotswap_config::{Effective, Origin};
use serde_json::{Value, json};

use super::settings;
use crate::args::{Config, Layers};
use crate::exit::Exit;
use crate::output::{Cell, Output, Table};
use crate::problem::Problem;

/// Does what `hotswap config` is asked for.
pub(super) fn run(what: &Config, output: &Output) -> anyhow::Result<Exit> {
    match what {
        Config::Check { file } => check(file.as_deref(), output),
        Config::Show { layers, changed } => show(layers, *changed, output),
        Config::Get(_) | Config::Set(_) => unreachable!("these ask a server"),
        Config::Schema => {
            output.json(&hotswap_config::schema())?;
            Ok(Exit::Done)
        }
    }
}

fn check(file: Option<&Path>, output: &Output) -> anyhow::Result<Exit> {
    let layers = Layers {
        config: file.map(Path::to_owned),
        set: Vec::new(),
    };
    let loaded = settings::load(&settings::sources(&layers))?;
    // One file may be for both; an agent's is whole only where it names its node.
    if loaded.config.agent.node.is_some() {
        settings::agent_config(&loaded)?;
    }
    let given = loaded
        .effective()
        .iter()
        .filter(|value| value.origin != Origin::Default)
        .count();
    let file = loaded.file.as_ref().map(|path| path.display().to_string());
    if output.is_json() {
        output.json(&json!({ "file": file, "valuesGiven": given, "faults": [] }))?;
    } else {
        let file = file.unwrap_or_else(|| "no file: the environment and the defaults".to_owned());
        output.line(format!("{file}: no faults, {given} values given"))?;
    }
    Ok(Exit::Done)
}

fn show(layers: &Layers, changed: bool, output: &Output) -> anyhow::Result<Exit> {
    let loaded = settings::load(&settings::sources(layers))?;
    let mut values = loaded.effective();
    values.retain(|value| !changed || value.origin != Origin::Default);
    if output.is_json() {
        let values = values.iter().map(|Effective { key, value, origin }| {
            json!({ "key": key, "value": value, "origin": origin.to_string() })
        });
        output.json(&values.collect::<Vec<Value>>())?;
        return Ok(Exit::Done);
    }
    let mut table = Table::new(["KEY", "VALUE", "FROM"]);
    for Effective { key, value, origin } in &values {
        table.row([
            Cell::new(key),
            Cell::new(shown(value)),
            Cell::new(origin.to_string()),
        ]);
    }
    output.table(&table)?;
    Ok(Exit::Done)
}

fn shown(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// Writes a commented configuration.
pub(super) fn init(file: &Path, output: &Output) -> anyhow::Result<Exit> {
    let shown = file.display();
    // Never over one that is there: it is somebody's work.
    let created = OpenOptions::new().write(true).create_new(true).open(file);
    let mut writer = created.map_err(|error| match error.kind() {
        ErrorKind::AlreadyExists => {
            anyhow::Error::from(Problem::usage(format!("{shown} is there already")).next(format!(
                "`hotswap config check {shown}` checks it; `hotswap init OTHER` writes another"
            )))
        }
        _ => anyhow::Error::from(error).context(format!("failed to create {shown}")),
    })?;
    writer
        .write_all(hotswap_config::template().as_bytes())
        .with_context(|| format!("failed to write {shown}"))?;
    if output.is_json() {
        output.json(&json!({ "file": shown.to_string() }))?;
    } else {
        output.line(format!(
            "wrote {shown}: every key with its default, commented out"
        ))?;
        output.line(format!(
            "next: `hotswap config check {shown}` after you changed it"
        ))?;
        output.line(format!(
            "next: `hotswap server --config {shown}` starts a server with it"
        ))?;
    }
    Ok(Exit::Done)
}
