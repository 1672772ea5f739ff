//! Unload a module from an environment.

use serde_json::json;

use super::resolve::text;
use super::{Remote, resolve, suggest, watch};
use crate::args::Undeploy;
use crate::exit::Exit;
use crate::output::counted;

/// Asks for it and, if wanted, stays until it has ended.
pub(super) async fn run(remote: &Remote<'_>, args: &Undeploy) -> anyhow::Result<Exit> {
    let body = json!({ "environment": args.from });
    let answer = match remote
        .client
        .post(&["modules", &args.name, "undeploy"], Some(&body))
        .await
    {
        Ok(answer) => answer,
        Err(refusal) => return Err(suggest::release(remote, &args.name, &args.from, refusal).await),
    };
    let id = text(&answer, "executionId").to_owned();
    if args.watch {
        return watch::until_ended(remote, &id, watch::Goal::Succeeded).await;
    }
    if remote.output.is_json() {
        remote.output.json(&answer)?;
    } else {
        let nodes = answer["nodesAffected"].as_u64().unwrap_or_default();
        remote.output.line(format!(
            "{} leaves {} ({}): {id}",
            args.name,
            args.from,
            counted(nodes, "node")
        ))?;
        let short = resolve::shortened(&id, 8);
        remote
            .output
            .line(format!("follow it: hotswap status {short} --watch"))?;
    }
    Ok(Exit::Done)
}
