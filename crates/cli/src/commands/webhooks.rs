//! Who is told what happens to deployments, and what was given up on.

use serde_json::{Value, json};

use super::Remote;
use super::resolve::text;
use crate::exit::Exit;
use crate::output::{Cell, Colour, Table, ago};

/// Lists endpoints, then dead letters. Exits 0 whatever they say.
pub(super) async fn list(remote: &Remote<'_>) -> anyhow::Result<Exit> {
    let endpoints = remote.client.list(&["webhooks"], &[], usize::MAX).await?;
    let dead = dead_letters(remote).await?;
    if remote.output.is_json() {
        remote
            .output
            .json(&json!({ "webhooks": endpoints, "deadLetters": dead }))?;
        return Ok(Exit::Done);
    }
    if endpoints.is_empty() && dead.is_empty() {
        remote
            .output
            .line("no webhooks; `hotswap server --webhook URL` adds one")?;
        return Ok(Exit::Done);
    }
    let mut table = Table::new(["ENDPOINT", "FORMAT", "DELIVERED", "BEHIND", "DEAD", "LAST ERROR"]);
    for endpoint in &endpoints {
        let number = |field: &str| endpoint.get(field).and_then(Value::as_u64).unwrap_or_default();
        let behind = number("logEndsAt").saturating_sub(number("deliveredUpTo"));
        let failing = number("attempts") > 0;
        let error = Cell::new(text(endpoint, "lastError"));
        table.row([
            Cell::new(text(endpoint, "name")),
            Cell::new(text(endpoint, "format")),
            Cell::number(number("delivered")),
            Cell::number(behind),
            Cell::number(number("deadLetters")),
            if failing { error.colour(Colour::Red) } else { error },
        ]);
    }
    remote.output.table(&table)?;
    if !dead.is_empty() {
        remote.output.line("")?;
        let mut table = Table::new(["GIVEN UP", "ENDPOINT", "TYPE", "ATTEMPTS", "ERROR", "ID"]);
        for letter in &dead {
            let attempts = letter.get("attempts").and_then(Value::as_u64).unwrap_or_default();
            table.row([
                Cell::new(ago(text(letter, "time"))),
                Cell::new(text(letter, "endpoint")),
                Cell::new(text(letter, "type")),
                Cell::number(attempts),
                Cell::new(text(letter, "error")),
                Cell::new(text(letter, "id")),
            ]);
        }
        remote.output.table(&table)?;
        remote
            .output
            .line("\nsend them once more: hotswap webhooks resend ID, or --all")?;
    }
    Ok(Exit::Done)
}

/// Sends dead letters once more, oldest first. Exits 1 where one was not taken.
pub(super) async fn resend(remote: &Remote<'_>, ids: Vec<String>, all: bool) -> anyhow::Result<Exit> {
    let ids = if all { kept(remote).await? } else { ids };
    if ids.is_empty() && !remote.output.is_json() {
        remote.output.line("no dead letters")?;
        return Ok(Exit::Done);
    }
    let mut table = Table::new(["ID", "ENDPOINT", "DELIVERED", "ERROR"]);
    let mut resent = Vec::new();
    for id in &ids {
        let path = ["webhooks", "dead-letters", id, "resend"];
        let answer = remote.client.post(&path, None::<&Value>).await?;
        for one in answer.as_array().into_iter().flatten() {
            let delivered = one["delivered"].as_bool().unwrap_or_default();
            table.row([
                Cell::new(id),
                Cell::new(text(one, "endpoint")),
                Cell::new(if delivered { "yes" } else { "no" }),
                Cell::new(text(one, "error")).colour(Colour::Red),
            ]);
            resent.push(json!({
                "id": id, "endpoint": one["endpoint"], "delivered": delivered, "error": one["error"],
            }));
        }
    }
    let failed = resent.iter().any(|one| one["delivered"] == false);
    if remote.output.is_json() {
        remote.output.json(&Value::Array(resent))?;
    } else {
        remote.output.table(&table)?;
    }
    Ok(if failed { Exit::Failed } else { Exit::Done })
}

/// All that the server lists, newest first.
async fn dead_letters(remote: &Remote<'_>) -> anyhow::Result<Vec<Value>> {
    let path = ["webhooks", "dead-letters"];
    Ok(remote.client.list(&path, &[], usize::MAX).await?)
}

/// The events of all dead letters that are listed, each once, oldest first.
async fn kept(remote: &Remote<'_>) -> anyhow::Result<Vec<String>> {
    let mut ids: Vec<String> = Vec::new();
    for letter in dead_letters(remote).await?.iter().rev() {
        let id = text(letter, "id");
        if !ids.iter().any(|known| known == id) {
            ids.push(id.to_owned());
        }
    }
    Ok(ids)
}
