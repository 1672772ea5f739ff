//! Steer a deployment: rollback, abort, pause, resume, skip, promote.

use serde_json::Value;

use super::{Remote, resolve, watch};
use crate::args::Watched;
use crate::client::{RollbackAccepted, typed};
use crate::exit::Exit;
use crate::output::counted;

/// A word of an operator to one deployment.
pub(super) struct Control {
    /// The API's verb.
    verb: &'static str,
    /// What is said once the server took it.
    said: &'static str,
    /// What a watcher waits for.
    goal: watch::Goal,
}

pub(super) const ABORT: Control = Control {
    verb: "abort",
    said: "is aborted",
    goal: watch::Goal::Cancelled,
};
pub(super) const PAUSE: Control = Control {
    verb: "pause",
    said: "is paused",
    goal: watch::Goal::Succeeded,
};
pub(super) const RESUME: Control = Control {
    verb: "resume",
    said: "moves forward again",
    goal: watch::Goal::Succeeded,
};
pub(super) const SKIP: Control = Control {
    verb: "skip",
    said: "passes its step by your word",
    goal: watch::Goal::Succeeded,
};
pub(super) const PROMOTE: Control = Control {
    verb: "promote",
    said: "passes all its gates by your word",
    goal: watch::Goal::Succeeded,
};

impl Control {
    /// Says it.
    pub(super) async fn run(&self, remote: &Remote<'_>, args: &Watched) -> anyhow::Result<Exit> {
        let id = resolve::deployment(remote, &args.id).await?;
        let answer = remote
            .client
            .post(&["deployments", &id, self.verb], None::<&Value>)
            .await?;
        if args.watch {
            return watch::until_ended(remote, &id, self.goal).await;
        }
        if remote.output.is_json() {
            remote.output.json(&answer)?;
        } else {
            remote.output.line(format!("{id} {}", self.said))?;
        }
        Ok(Exit::Done)
    }
}

/// Undoes a finished deployment; what does it is a deployment itself.
pub(super) async fn rollback(remote: &Remote<'_>, args: &Watched) -> anyhow::Result<Exit> {
    let id = resolve::deployment(remote, &args.id).await?;
    let answer = remote
        .client
        .post(&["deployments", &id, "rollback"], None::<&Value>)
        .await?;
    let accepted: RollbackAccepted = typed(answer.clone())?;
    if args.watch {
        return watch::until_ended(remote, &accepted.rollback_id, watch::Goal::Succeeded).await;
    }
    if remote.output.is_json() {
        remote.output.json(&answer)?;
    } else {
        let back = &accepted.rollback_id;
        remote.output.line(format!(
            "{id} is rolled back on {}: {back}",
            counted(accepted.nodes_affected.into(), "node")
        ))?;
        remote.output.line(format!(
            "follow it: hotswap status {} --watch",
            resolve::shortened(back, 8)
        ))?;
    }
    Ok(Exit::Done)
}
