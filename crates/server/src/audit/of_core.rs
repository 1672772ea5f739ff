//! Entries for what the core decides.

use hotswap_core::command::Command;
use hotswap_core::event::Event;
use hotswap_core::ids::DeploymentId;

use super::{AuditEntry, AuditKind};
use crate::store::Entry;
use crate::views::sentence::sentence;

/// The entry of an event: `action` is its type, `digest` that of its row.
pub fn of_event(logged: &Entry, action: &str, digest: [u8; 32]) -> AuditEntry {
    let event = &logged.logged.event;
    let entry = AuditEntry::done(logged.logged.wall, AuditKind::Event, action);
    AuditEntry {
        actor: by(event).cloned(),
        deployment: logged.deployment,
        event: Some(logged.logged.seq),
        digest: Some(hotswap_core::ids::Digest(digest).hex()),
        ..entry
    }
    .detail(sentence(event).unwrap_or_default())
}

/// Who asked for an event; `None` where the server decided.
fn by(event: &Event) -> Option<&String> {
    match event {
        Event::DeploymentRequested { request, .. } => Some(&request.requester),
        Event::ReleasePushed { release, .. } => Some(&release.pushed_by),
        Event::ReversalRequested { by, .. }
        | Event::ApprovalGiven { by, .. }
        | Event::ApprovalDecided { by, .. }
        | Event::ReleaseHoldLifted { by, .. }
        | Event::NodeMoved { by, .. }
        | Event::NodeRemoved { by, .. }
        | Event::RolloutPaused { by, .. }
        | Event::RolloutResumed { by, .. }
        | Event::ReleaseRevoked { by, .. }
        | Event::MinimumVersionSet { by, .. }
        | Event::ReleaseYanked { by, .. }
        | Event::ReleaseUnyanked { by, .. }
        | Event::ValuesSet { by, .. }
        | Event::NodeLabelsSet { by, .. }
        | Event::NodeDrainRequested { by, .. }
        | Event::NodeUndrained { by, .. }
        | Event::RolloutPromoted { by, .. } => Some(by),
        _ => None,
    }
}

/// A command's name, the deployment that it is about, and what else it names.
pub fn command_named(command: &Command) -> (&'static str, Option<DeploymentId>, String) {
    match command {
        Command::Configure { environments } => {
            let names: Vec<&str> = environments
                .iter()
                .map(|environment| environment.name.as_str())
                .collect();
            ("configure", None, names.join(", "))
        }
        Command::PushRelease {
            module,
            version,
            release,
        } => ("push", None, format!("{module} {version} ({})", release.digest)),
        Command::Deploy(request) => {
            let (module, version, target) = (&request.module, &request.version, &request.target);
            (
                "deploy",
                Some(request.id),
                format!("{module} {version} to {target}"),
            )
        }
        Command::Decide {
            deployment,
            approve,
            reason,
            ..
        } => {
            let action = if *approve { "approve" } else { "reject" };
            (action, Some(*deployment), reason.clone().unwrap_or_default())
        }
        Command::Abort { deployment, .. } => ("abort", Some(*deployment), String::new()),
        Command::RollBack { deployment, id, .. } => {
            ("rollBack", Some(*deployment), format!("by deployment {id}"))
        }
        Command::Undeploy {
            id,
            module,
            environment,
            ..
        } => ("undeploy", Some(*id), format!("{module} from {environment}")),
        Command::Pause { deployment, .. } => ("pause", Some(*deployment), String::new()),
        Command::Resume { deployment, .. } => ("resume", Some(*deployment), String::new()),
        Command::SkipStep { deployment, .. } => ("skip", Some(*deployment), String::new()),
        Command::Promote { deployment, .. } => ("promote", Some(*deployment), String::new()),
        Command::Hold {
            module,
            release,
            reason,
            ..
        } => ("hold", None, format!("{module} {release}: {reason}")),
        Command::LiftHold { module, digest, .. } => ("liftHold", None, format!("{module} {digest}")),
        Command::Revoke {
            module,
            version,
            reason,
            ..
        } => ("revoke", None, format!("{module} {version}: {reason}")),
        Command::SetMinimumVersion { module, version, .. } => {
            let version = version
                .as_ref()
                .map_or_else(|| "any".to_owned(), ToString::to_string);
            ("setMinimumVersion", None, format!("{module}: {version}"))
        }
        Command::Yank {
            module,
            version,
            reason,
            ..
        } => ("yank", None, format!("{module} {version}: {reason}")),
        Command::Unyank { module, version, .. } => ("unyank", None, format!("{module} {version}")),
        Command::SetValues {
            module,
            environment,
            values,
            ..
        } => {
            let keys: Vec<&str> = values.keys().map(String::as_str).collect();
            (
                "setValues",
                None,
                format!("{module} in {environment}: {}", keys.join(", ")),
            )
        }
        Command::SetLabels { node, .. } => ("setLabels", None, node.to_string()),
        Command::Drain { node, reason, .. } => ("drainNode", None, format!("{node}: {reason}")),
        Command::Undrain { node, .. } => ("undrainNode", None, node.to_string()),
        Command::MoveNode {
            node, environment, ..
        } => ("moveNode", None, format!("{node} to {environment}")),
        Command::RemoveNode { node, .. } => ("removeNode", None, node.to_string()),
        Command::AdoptFleet { .. } => ("adoptFleet", None, String::new()),
    }
}
