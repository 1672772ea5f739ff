//! Start a deployment.

use super::{Remote, resolve, suggest, watch};
use crate::args::Deploy;
use crate::client::{Accepted, ApiError, NewDeployment, typed};
use crate::exit::Exit;

/// Asks for the deployment and, if wanted, stays until it has ended.
pub(super) async fn run(remote: &Remote<'_>, args: &Deploy) -> anyhow::Result<Exit> {
    let wanted = NewDeployment {
        module_name: args.name.clone(),
        version: args.version.clone(),
        target_environment: args.to.clone(),
        requester_email: args.email.clone().unwrap_or_else(own_email),
        require_approval: args.require_approval,
        description: args.description.clone(),
        metadata: args.metadata.iter().cloned().collect(),
        allow_downgrade: args.allow_downgrade,
        supersede: args.supersede,
        seed: args.seed,
    };
    let answer = match remote.client.post(&["deployments"], Some(&wanted)).await {
        Ok(answer) => answer,
        Err(refusal) => return Err(explain(remote, args, refusal).await),
    };
    let accepted: Accepted = typed(answer.clone())?;
    if args.watch {
        return watch::until_ended(remote, &accepted.execution_id, watch::Goal::Succeeded).await;
    }
    if remote.output.is_json() {
        remote.output.json(&answer)?;
    } else {
        let id = &accepted.execution_id;
        remote.output.line(format!(
            "{} {} to {}: {}  {id}",
            args.name,
            args.version,
            args.to,
            remote.output.style().status(&accepted.status)
        ))?;
        remote.output.line(format!(
            "follow it: hotswap status {} --watch",
            resolve::shortened(id, 8)
        ))?;
    }
    Ok(Exit::Done)
}

async fn explain(remote: &Remote<'_>, args: &Deploy, refusal: ApiError) -> anyhow::Error {
    suggest::release(remote, &args.name, &args.to, refusal).await
}

/// An annotation for people where none is given: the user at this machine.
pub(super) fn own_email() -> String {
    let plain = |text: String, also: &str| -> String {
        text.chars()
            .filter(|c| c.is_ascii_alphanumeric() || also.contains(*c))
            .collect()
    };
    let user = ["USER", "LOGNAME", "USERNAME"]
        .iter()
        .find_map(|name| std::env::var(name).ok());
    let user = plain(user.unwrap_or_default(), "-_.");
    let host = plain(std::fs::read_to_string("/etc/hostname").unwrap_or_default(), "-");
    let or = |text: String, standard: &str| {
        if text.is_empty() {
            standard.to_owned()
        } else {
            text
        }
    };
    format!(
        "{}@{}.local",
        or(user, "operator"),
        or(host.trim_matches('-').to_owned(), "localhost")
    )
}
