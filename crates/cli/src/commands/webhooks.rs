//! Who is told what happens to deployments, and what was given up on.

use serde_json::{Value, json};

use super::Remote;
use super::resolve::text;
use crate::exit::Exit;
use crate::output::{Cell, Colour, Table, ago};

/// Lists endpoints, then dead letters. Exits 0 whatever they say.
pub(super) async fn run(remote: &Remote<'_>) -> anyhow::Result<Exit> {
    let endpoints = remote.client.list(&["webhooks"], &[], usize::MAX).await?;
    let dead = remote
        .client
        .list(&["webhooks", "dead-letters"], &[], usize::MAX)
        .await?;
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
        let mut table = Table::new(["GIVEN UP", "ENDPOINT", "TYPE", "ATTEMPTS", "ERROR"]);
        for letter in &dead {
            let attempts = letter.get("attempts").and_then(Value::as_u64).unwrap_or_default();
            table.row([
                Cell::new(ago(text(letter, "time"))),
                Cell::new(text(letter, "endpoint")),
                Cell::new(text(letter, "type")),
                Cell::number(attempts),
                Cell::new(text(letter, "error")),
            ]);
        }
        remote.output.table(&table)?;
    }
    Ok(Exit::Done)
}
