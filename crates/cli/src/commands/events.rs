//! What happens, as it becomes durable.

use std::time::{Duration, Instant};

use serde_json::Value;

use super::resolve::{shortened, text};
use super::{Remote, resolve};
use crate::args::Events;
use crate::client::{ApiError, Event};
use crate::exit::Exit;
use crate::output::{Colour, Output};

/// How long a server may be out of reach: long enough for a restart.
const OUT_OF_REACH_MAX: Duration = Duration::from_secs(120);
/// Time between two attempts to reach it.
const RETRY: Duration = Duration::from_secs(1);

/// Writes events, and goes on where a connection broke.
pub(super) async fn run(remote: &Remote<'_>, args: &Events) -> anyhow::Result<Exit> {
    let deployment = match &args.deployment {
        Some(id) => Some(resolve::deployment(remote, id).await?),
        None => None,
    };
    tokio::select! {
        exit = listen(remote, args, deployment.as_deref()) => exit,
        pressed = tokio::signal::ctrl_c() => {
            pressed?;
            Ok(Exit::Interrupted)
        }
    }
}

async fn listen(remote: &Remote<'_>, args: &Events, deployment: Option<&str>) -> anyhow::Result<Exit> {
    let types = args.types.join(",");
    let after = args.after.map(|after| after.to_string());
    let filters = [
        ("type", Some(types.as_str()).filter(|types| !types.is_empty())),
        ("module", args.module.as_deref()),
        ("environment", args.env.as_deref()),
        ("node", args.node.as_deref()),
        ("deployment", deployment),
        // Without following, what is asked for is the past.
        ("after", after.as_deref().or((!args.follow).then_some("0"))),
        ("follow", (!args.follow).then_some("false")),
    ];
    let query: Vec<(&str, &str)> = filters
        .into_iter()
        .filter_map(|(key, value)| Some((key, value?)))
        .collect();
    let mut last: Option<String> = None;
    let mut lost: Option<Instant> = None;
    loop {
        let broken = match remote.client.events(&["events"], &query, last.as_deref()).await {
            Ok(mut events) => loop {
                lost = None;
                match events.next().await {
                    Ok(Some(event)) => {
                        if !event.id.is_empty() {
                            last = Some(event.id.clone());
                        }
                        write(remote.output, &event)?;
                    }
                    Ok(None) if args.follow => break None,
                    Ok(None) => return Ok(Exit::Done),
                    Err(error) => break Some(error),
                }
            },
            Err(error) => Some(error),
        };
        let since = *lost.get_or_insert_with(Instant::now);
        match broken {
            Some(error) if !goes_on(&error, since) => return Err(error.into()),
            _ => tokio::time::sleep(RETRY).await,
        }
    }
}

fn goes_on(error: &ApiError, lost: Instant) -> bool {
    (error.is_out_of_reach() || error.status() == Some(503)) && lost.elapsed() < OUT_OF_REACH_MAX
}

/// A line for each: for programs as JSON.
fn write(output: &Output, event: &Event) -> anyhow::Result<()> {
    if output.is_json() {
        output.line(&event.data)?;
        return Ok(());
    }
    let data: Value = serde_json::from_str(&event.data).unwrap_or_default();
    if event.kind == "Cut" {
        eprintln!("{}", text(&data, "reason"));
        return Ok(());
    }
    let style = output.style();
    let about = ["moduleName", "version", "environment", "nodeId"].map(|key| text(&data, key));
    let about: Vec<&str> = about.into_iter().filter(|word| !word.is_empty()).collect();
    let deployment = shortened(text(&data, "executionId"), 8);
    output.line(format!(
        "{}  {:<20}  {:<8}  {}{}{}",
        style.paint(text(&data, "time"), Colour::Grey),
        event.kind,
        deployment,
        style.paint(about.join(" "), Colour::Bold),
        if about.is_empty() { "" } else { ": " },
        text(&data, "message"),
    ))?;
    Ok(())
}
