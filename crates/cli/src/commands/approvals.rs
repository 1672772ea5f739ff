//! Deployments that wait for a person, and that person's word.

use serde_json::{Value, json};

use super::resolve::{self, text};
use super::{Remote, deploy};
use crate::args;
use crate::client::{Account, typed};
use crate::exit::Exit;
use crate::output::{Cell, Table, ago};

/// Lists the approvals that wait, oldest first.
pub(super) async fn list(remote: &Remote<'_>) -> anyhow::Result<Exit> {
    let answer = remote.client.get(&["approvals", "pending"], &[]).await?;
    if remote.output.is_json() {
        remote.output.json(&answer)?;
        return Ok(Exit::Done);
    }
    let pending: Vec<Value> = typed(answer)?;
    if pending.is_empty() {
        remote.output.line("no approvals wait")?;
        return Ok(Exit::Done);
    }
    let mut table = Table::new([
        "DEPLOYMENT",
        "MODULE",
        "VERSION",
        "TARGET",
        "ASKED BY",
        "ASKED",
        "APPROVED BY",
        "UNTIL",
    ]);
    for approval in &pending {
        let given: Vec<&str> = approval["approvedBy"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        table.row([
            Cell::new(resolve::shortened(text(approval, "deploymentExecutionId"), 8)),
            Cell::new(text(approval, "moduleName")),
            Cell::new(text(approval, "version")),
            Cell::new(text(approval, "targetEnvironment")),
            Cell::new(text(approval, "requester")),
            Cell::new(ago(text(approval, "requestedAt"))),
            Cell::new(format!("{} of {}", given.len(), approval["approvalsNeeded"])),
            Cell::new(text(approval, "timeoutAt")),
        ]);
    }
    remote.output.table(&table)?;
    Ok(Exit::Done)
}

/// Approves or rejects.
pub(super) async fn decide(remote: &Remote<'_>, args: &args::Decision, verb: &str) -> anyhow::Result<Exit> {
    let id = resolve::deployment(remote, &args.id).await?;
    let email = match &args.email {
        Some(email) => email.clone(),
        None => own_email(remote).await,
    };
    let body = json!({ "approverEmail": email, "reason": args.reason });
    let answer = remote
        .client
        .post(&["approvals", "deployments", &id, verb], Some(&body))
        .await?;
    if remote.output.is_json() {
        remote.output.json(&answer)?;
        return Ok(Exit::Done);
    }
    let (module, version) = (text(&answer, "moduleName"), text(&answer, "version"));
    let target = text(&answer, "targetEnvironment");
    remote.output.line(format!(
        "{module} {version} to {target}: {}",
        text(&answer, "status")
    ))?;
    Ok(Exit::Done)
}

/// The address of the account, else of the user at this machine.
pub(super) async fn own_email(remote: &Remote<'_>) -> String {
    let account = remote
        .client
        .fetch::<Account>(&["authentication", "me"], &[])
        .await;
    account.map_or_else(|_| deploy::own_email(), |account| account.email)
}
