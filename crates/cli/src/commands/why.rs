//! Why a deployment stands as it does.

use super::{Remote, resolve};
use crate::args::One;
use crate::client::{Why, typed};
use crate::exit::Exit;
use crate::output::{Cell, Colour, Table};

/// Tells its decisions, and what it waits for.
pub(super) async fn run(remote: &Remote<'_>, args: &One) -> anyhow::Result<Exit> {
    let id = resolve::deployment(remote, &args.id).await?;
    let answer = remote.client.get(&["deployments", &id, "why"], &[]).await?;
    let output = remote.output;
    if output.is_json() {
        output.json(&answer)?;
        return Ok(Exit::Done);
    }
    let why: Why = typed(answer)?;
    let style = output.style();
    output.line(format!(
        "{}  {}",
        style.paint(&id, Colour::Bold),
        style.status(&why.status)
    ))?;
    if !why.decisions.is_empty() {
        let mut table = Table::new(["WHEN", "STAGE", "DECISION"]);
        for decision in &why.decisions {
            table.row([
                Cell::new(decision.time.get(11..19).unwrap_or(&decision.time)),
                Cell::new(&decision.stage),
                Cell::new(&decision.message),
            ]);
        }
        // Reasons are what was asked for: never cut.
        for line in table.lines(style, None) {
            output.line(line)?;
        }
    }
    if !why.waits.is_empty() {
        output.line(style.paint("It waits for:", Colour::Bold))?;
    }
    for wait in &why.waits {
        output.line(format!("  {}", wait.message))?;
    }
    Ok(Exit::Done)
}
