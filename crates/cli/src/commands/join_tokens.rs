//! Join tokens: make, list, revoke.

use reqwest::Method;
use serde_json::{Value, json};

use super::Remote;
use super::resolve::text;
use super::suggest;
use crate::args::JoinToken;
use crate::client::typed;
use crate::exit::Exit;
use crate::output::{Cell, Table, ago};
use crate::problem::Problem;

/// Does what was asked of them.
pub(super) async fn run(remote: &Remote<'_>, command: &JoinToken) -> anyhow::Result<Exit> {
    match command {
        JoinToken::Create {
            env,
            node,
            uses,
            expires,
        } => {
            let expires = format!("PT{}S", expires.as_secs_f64());
            let mut body = json!({ "environment": env, "uses": uses, "expiresIn": expires });
            if let Some(pattern) = node {
                body["nodes"] = pattern.as_str().into();
            }
            create(remote, env, &body).await
        }
        JoinToken::List => list(remote).await,
        JoinToken::Revoke { id } => {
            remote
                .client
                .call(Method::DELETE, &["join-tokens", id], None)
                .await?;
            remote
                .output
                .line(format!("{id} is revoked; nodes that joined by it stay"))?;
            Ok(Exit::Done)
        }
    }
}

async fn create(remote: &Remote<'_>, environment: &str, body: &Value) -> anyhow::Result<Exit> {
    let answer = match remote.client.post(&["join-tokens"], Some(body)).await {
        Ok(answer) => answer,
        Err(refusal) if refusal.status() == Some(400) => {
            return Err(suggest::environment(remote, environment, refusal).await);
        }
        Err(refusal) => return Err(refusal.into()),
    };
    if remote.output.is_json() {
        remote.output.json(&answer)?;
        return Ok(Exit::Done);
    }
    let details = &answer["details"];
    if answer["token"].is_null() {
        let id = text(details, "id");
        return Err(Problem::failed(
            "the join token was made, but the answer that told it was lost on its way",
        )
        .next(format!(
            "revoke it (`hotswap node token revoke {id}`) and make another"
        ))
        .into());
    }
    // Alone on stdout, so that it can be put where it is needed.
    eprintln!(
        "the join token for {}, told this once, until {}; an agent is given it by --join-token-file or HOTSWAP_JOIN_TOKEN:",
        text(details, "environment"),
        text(details, "expiresAt"),
    );
    remote.output.line(text(&answer, "token"))?;
    Ok(Exit::Done)
}

async fn list(remote: &Remote<'_>) -> anyhow::Result<Exit> {
    let tokens = remote.client.get(&["join-tokens"], &[]).await?;
    if remote.output.is_json() {
        remote.output.json(&tokens)?;
        return Ok(Exit::Done);
    }
    let tokens: Vec<Value> = typed(tokens)?;
    let mut table = Table::new([
        "ID",
        "ENVIRONMENT",
        "NODES",
        "USED",
        "STATE",
        "BY",
        "MADE",
        "EXPIRES",
    ]);
    for token in &tokens {
        let pattern = text(token, "nodes");
        table.row([
            Cell::new(text(token, "id")),
            Cell::new(text(token, "environment")),
            Cell::new(if pattern.is_empty() { "*" } else { pattern }),
            Cell::new(format!("{} of {}", token["uses"], token["usesMax"])),
            Cell::new(text(token, "state")),
            Cell::new(text(token, "by")),
            Cell::new(ago(text(token, "createdAt"))),
            Cell::new(text(token, "expiresAt")),
        ]);
    }
    remote.output.table(&table)?;
    Ok(Exit::Done)
}
