//! Results of the server's own checks.

use crate::event::Event;
use crate::ids::DeploymentId;
use crate::stage::{DeploymentStatus, StageStatus};
use crate::state::State;

/// How a check ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckResult {
    /// Which deployment's.
    pub deployment: DeploymentId,
    /// Which of its stages.
    pub stage: u32,
    /// Which attempt at it.
    pub attempt: u32,
    /// What to say, either way.
    pub outcome: Result<String, String>,
}

/// A stale attempt's result says nothing.
pub(super) fn check(state: &State, result: CheckResult) -> Vec<Event> {
    let CheckResult {
        deployment: id,
        stage: place,
        attempt,
        outcome,
    } = result;
    let current = state
        .deployments
        .get(&id)
        .and_then(|deployment| deployment.stages.get(place as usize));
    let Some(stage) = current else { return Vec::new() };
    if !stage.kind.is_check() || stage.status != StageStatus::Running || stage.attempt != attempt {
        return Vec::new();
    }
    let finished = |status, message| Event::StageFinished {
        deployment: id,
        stage: place,
        status,
        message,
        nodes_deployed: 0,
        nodes_failed: 0,
    };
    match outcome {
        Ok(message) => vec![finished(StageStatus::Succeeded, message)],
        Err(message) => vec![
            finished(StageStatus::Failed, message.clone()),
            Event::DeploymentFinished {
                deployment: id,
                status: DeploymentStatus::Failed,
                message: format!("{} failed: {message}", stage.kind.name()),
            },
        ],
    }
}
