//! Which events are told, and in what words: a function of the event and of its deployment.

use hotswap_core::event::{Event, Logged};
use hotswap_core::ids::FleetId;
use hotswap_core::stage::{Deployment, DeploymentStatus};
use serde::Serialize;
use serde_json::json;

use super::Format;
use crate::views::deployment::{status_name, version_of};
use crate::views::sentence::{environment, sentence};
use crate::views::time::rfc3339;

/// What is told about one event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Message {
    /// The same whenever the event is told: receivers recognise repeats by it.
    pub id: String,
    /// DeploymentStarted, ApprovalRequested, ApprovalDecided, ApprovalExpired, DeploymentHeld, DeploymentPaused,
    /// DeploymentResumed, RollbackStarted, DeploymentCompleted, DeploymentFailed, DeploymentCancelled or
    /// DeploymentRolledBack.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// When it happened, RFC 3339.
    pub time: String,
    /// The deployment.
    pub execution_id: String,
    /// Its module.
    pub module_name: String,
    /// Its version.
    pub version: String,
    /// How far it goes.
    pub target_environment: String,
    /// Where it happened, if in one environment.
    pub environment: Option<String>,
    /// How the deployment stands.
    pub status: &'static str,
    /// What happened, for people.
    pub message: String,
    /// Who asked for the deployment.
    pub requester: String,
    /// The deployment's W3C trace id.
    pub trace_id: String,
}

/// What an event is called that is told; `None` for those that aren't.
pub(super) fn kind(event: &Event) -> Option<&'static str> {
    Some(match event {
        Event::DeploymentRequested { approval: true, .. } => "ApprovalRequested",
        Event::DeploymentRequested { .. } | Event::ReversalRequested { .. } => "DeploymentStarted",
        Event::ApprovalDecided { .. } => "ApprovalDecided",
        Event::ApprovalExpired { .. } => "ApprovalExpired",
        Event::RolloutHeld { .. } => "DeploymentHeld",
        Event::RolloutPaused { .. } => "DeploymentPaused",
        Event::RolloutResumed { .. } => "DeploymentResumed",
        Event::BackStarted { .. } => "RollbackStarted",
        Event::DeploymentFinished { status, .. } => match status {
            DeploymentStatus::Succeeded => "DeploymentCompleted",
            DeploymentStatus::Cancelled => "DeploymentCancelled",
            _ => "DeploymentFailed",
        },
        Event::DeploymentRolledBack { .. } => "DeploymentRolledBack",
        _ => return None,
    })
}

impl Message {
    /// What is told about an event of a deployment, if anything is.
    pub(super) fn of(fleet: FleetId, logged: &Logged, deployment: &Deployment) -> Option<Self> {
        let event = &logged.event;
        // The record may be of a later time than the event; what the event says of the status wins.
        let status = match event {
            Event::DeploymentRequested { approval: true, .. } => DeploymentStatus::PendingApproval,
            Event::DeploymentFinished { status, .. } => *status,
            Event::DeploymentRolledBack { .. } => DeploymentStatus::RolledBack,
            Event::RolloutPaused { .. } => DeploymentStatus::Paused,
            _ if deployment.status.is_finished() => DeploymentStatus::Running,
            _ => deployment.status,
        };
        Some(Self {
            id: format!("{fleet}-{}", logged.seq),
            kind: kind(event)?,
            time: rfc3339(logged.wall),
            execution_id: deployment.id.to_string(),
            module_name: deployment.module.to_string(),
            version: version_of(deployment),
            target_environment: deployment.target.to_string(),
            environment: environment(event).map(ToString::to_string),
            status: status_name(status),
            message: sentence(event)?,
            requester: deployment.requester.clone(),
            trace_id: deployment.trace_id.clone(),
        })
    }

    /// As it is sent.
    pub(super) fn body(&self, format: Format) -> String {
        match format {
            Format::Json => serde_json::to_string(self).expect("a message is plain data"),
            Format::Slack => json!({ "text": self.line() }).to_string(),
        }
    }

    /// One line in Slack's markup, in which `&`, `<` and `>` have a meaning of their own.
    fn line(&self) -> String {
        let escaped = |text: &str| {
            text.replace('&', "&amp;")
                .replace('<', "&lt;")
                .replace('>', "&gt;")
        };
        let place = self.environment.as_ref().unwrap_or(&self.target_environment);
        format!(
            "*{} {}* → {}: {} (`{}`)",
            escaped(&self.module_name),
            escaped(&self.version),
            escaped(place),
            escaped(&self.message),
            self.execution_id.chars().take(8).collect::<String>(),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sentence_for_slack_keeps_its_markup_to_itself() {
        let message = Message {
            id: "f-7".to_owned(),
            kind: "DeploymentFailed",
            time: "2026-01-31T12:00:00Z".to_owned(),
            execution_id: "0123456789abcdef".to_owned(),
            module_name: "pay".to_owned(),
            version: "2.0.0".to_owned(),
            target_environment: "Production".to_owned(),
            environment: None,
            status: "Failed",
            message: "a <b> & c".to_owned(),
            requester: "ada".to_owned(),
            trace_id: "0".repeat(32),
        };
        assert_eq!(
            message.body(Format::Slack),
            r#"{"text":"*pay 2.0.0* → Production: a &lt;b&gt; &amp; c (`01234567`)"}"#
        );
        let json: serde_json::Value = serde_json::from_str(&message.body(Format::Json)).unwrap();
        assert_eq!(
            (&json["type"], &json["id"]),
            (&json!("DeploymentFailed"), &json!("f-7"))
        );
    }
}
