//! Why nothing moves, as data.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::decide;
use crate::ids::{DeploymentId, EnvName, NodeId};
use crate::observe::Observations;
use crate::state::State;
use crate::time::{Millis, Now, WallTime};

/// Most nodes that a reason names.
const NODES_NAMED_MAX: usize = 5;

/// What a deployment or rollout waits for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "for", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Wait {
    /// A person's yes.
    Approval {
        /// Until when.
        until: WallTime,
        /// How many people approved.
        #[serde(default)]
        given: u32,
        /// How many must.
        #[serde(default)]
        needed: u32,
    },
    /// The end of a freeze.
    Freeze {
        /// Where.
        environment: EnvName,
        /// Which window.
        window: String,
        /// Why it is there.
        reason: String,
        /// When it ends.
        until: WallTime,
    },
    /// A check of the server's own.
    Check {
        /// Which.
        check: String,
    },
    /// A place among the deployments that are checked at once.
    CheckSlot {
        /// How many are.
        at_once: u32,
    },
    /// Another deployment's rollout, or an older one's turn.
    Queue {
        /// The other deployment.
        behind: DeploymentId,
        /// Where.
        environment: EnvName,
    },
    /// A person who stopped it.
    Resume {
        /// Who stopped it.
        paused_by: String,
        /// When it gives up and goes back.
        until: WallTime,
    },
    /// What it is held for.
    Hold {
        /// Why.
        reason: String,
        /// When it gives up and goes back.
        until: WallTime,
    },
    /// Nodes that are not where the step wants them.
    Nodes {
        /// How many.
        count: u32,
        /// The first few, with what they lack.
        first: Vec<(NodeId, String)>,
    },
    /// The soak.
    Soak {
        /// So far, in time with reports.
        soaked: Millis,
        /// At least.
        needed: Millis,
    },
    /// The judge.
    Verdict {
        /// What it says so far.
        detail: String,
    },
    /// Nodes on their way back.
    WayBack {
        /// How many.
        count: u32,
        /// The first few, with what they lack.
        first: Vec<(NodeId, String)>,
    },
}

impl Wait {
    /// A wait for nodes, of which the first few are named.
    pub(crate) fn nodes(lacking: &[(&NodeId, impl fmt::Display)]) -> Self {
        let (count, first) = first_few(lacking);
        Self::Nodes { count, first }
    }

    /// A wait for nodes on their way back.
    pub(crate) fn way_back(lacking: &[(&NodeId, impl fmt::Display)]) -> Self {
        let (count, first) = first_few(lacking);
        Self::WayBack { count, first }
    }
}

fn first_few(lacking: &[(&NodeId, impl fmt::Display)]) -> (u32, Vec<(NodeId, String)>) {
    let count = u32::try_from(lacking.len()).unwrap_or(u32::MAX);
    let first = lacking.iter().take(NODES_NAMED_MAX);
    let named = first.map(|(node, lack)| ((*node).clone(), lack.to_string()));
    (count, named.collect())
}

/// So many nodes, for people.
pub(crate) fn nodes(count: u32) -> String {
    if count == 1 {
        "1 node".to_owned()
    } else {
        format!("{count} nodes")
    }
}

impl fmt::Display for Wait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = |f: &mut fmt::Formatter<'_>, count: u32, first: &[(NodeId, String)]| {
            for (i, (node, lack)) in first.iter().enumerate() {
                write!(f, "{}{node} ({lack})", if i == 0 { "" } else { ", " })?;
            }
            let more = count.saturating_sub(u32::try_from(first.len()).unwrap_or(u32::MAX));
            if more > 0 {
                write!(f, " and {more} more")
            } else {
                Ok(())
            }
        };
        match self {
            Self::Approval { given, needed, .. } if *needed > 1 => {
                write!(f, "waits for approvals: {given} of {needed} given")
            }
            Self::Approval { .. } => f.write_str("waits for an approval"),
            Self::Freeze {
                environment,
                window,
                reason,
                ..
            } => {
                let colon = if reason.is_empty() { "" } else { ": " };
                write!(
                    f,
                    "{environment} is frozen ({window}{colon}{reason}): no rollout starts until that ends"
                )
            }
            Self::Check { check } => write!(f, "{check} is running"),
            Self::CheckSlot { at_once } => {
                write!(
                    f,
                    "queued: {at_once} other deployments are being checked, as many as may be at once"
                )
            }
            Self::Queue { behind, environment } => {
                write!(f, "queued behind deployment {behind} in {environment}")
            }
            Self::Resume { paused_by, .. } => write!(f, "paused by {paused_by}"),
            Self::Hold { reason, .. } => write!(f, "held: {reason}"),
            Self::Nodes { count, first } => {
                write!(f, "waits for {}: ", nodes(*count))?;
                named(f, *count, first)
            }
            Self::Soak { soaked, needed } => write!(f, "soaking: {soaked} of {needed}"),
            Self::Verdict { detail } => write!(f, "waits for the judge: {detail}"),
            Self::WayBack { count, first } => {
                write!(f, "going back, waits for {}: ", nodes(*count))?;
                named(f, *count, first)
            }
        }
    }
}

/// What an unfinished deployment waits for now. Empty: it moves with the next tick, or it is finished.
pub fn waits(state: &State, obs: &Observations, id: &DeploymentId, now: Now) -> Vec<Wait> {
    let Some(deployment) = state.deployments.get(id) else {
        return Vec::new();
    };
    match state.rollout_of(deployment) {
        Some(rollout) => decide::rollout_move(state, obs, rollout, now)
            .err()
            .into_iter()
            .collect(),
        None => decide::deployment_wait(state, id).into_iter().collect(),
    }
}
