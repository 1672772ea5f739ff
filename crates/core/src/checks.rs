//! Checks of the server's own that are outstanding: a pure function of State, recomputed on start.

use crate::ids::{DeploymentId, EnvName, ModuleName, ReleaseRef};
use crate::stage::{StageKind, StageStatus};
use crate::state::State;

/// A check to carry out; its result is answered with the same deployment, stage and attempt.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct CheckRequest {
    /// Which deployment's.
    pub deployment: DeploymentId,
    /// Which of its stages.
    pub stage: u32,
    /// Which attempt at it.
    pub attempt: u32,
    /// What to check: Build, Test or Security Scan.
    pub kind: StageKind,
    /// The module.
    pub module: ModuleName,
    /// The release.
    pub release: ReleaseRef,
    /// The environment whose policy holds.
    pub target: EnvName,
}

/// All checks that are outstanding, oldest deployment first.
pub fn outstanding(state: &State) -> Vec<CheckRequest> {
    let mut requests = Vec::new();
    for deployment in state.deployments_by_age() {
        let Some((place, stage)) = deployment.current() else {
            continue;
        };
        let Some(release) = &deployment.release else {
            continue;
        };
        if stage.kind.is_check() && stage.status == StageStatus::Running {
            requests.push(CheckRequest {
                deployment: deployment.id,
                stage: place,
                attempt: stage.attempt,
                kind: stage.kind.clone(),
                module: deployment.module.clone(),
                release: release.clone(),
                target: deployment.target.clone(),
            });
        }
    }
    requests
}
