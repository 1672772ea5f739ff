//! What operators and authors ask for, and why it may be refused.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::ids::{DeploymentId, Digest, EnvName, ModuleName, NodeId, ReleaseRef};
use crate::policy::Environment;
use crate::release::{Kind, Release};
use crate::time::Millis;
use crate::values::Values;

/// Longest description of a deployment, in characters.
pub const DESCRIPTION_LEN_MAX: usize = 1_000;
/// Most metadata entries of a deployment.
pub const METADATA_ENTRIES_MAX: usize = 50;
/// Most unfinished deployments: beyond it new ones are refused until some end.
pub const DEPLOYMENTS_UNFINISHED_MAX: usize = 10_000;

/// What a deployment is asked to do. Identity and seed come with it: the core draws nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeployRequest {
    /// The new deployment's identity.
    pub id: DeploymentId,
    /// The W3C trace id of its trace, 32 hexadecimal digits.
    pub trace_id: String,
    /// Seed of its draws.
    pub seed: u64,
    /// What to roll out.
    pub module: ModuleName,
    /// Which version of it.
    pub version: semver::Version,
    /// How far.
    pub target: EnvName,
    /// The subject of the token that asked.
    pub requester: String,
    /// An annotation, not an identity.
    pub requester_email: String,
    /// Whether a person must approve even where the environment doesn't require it.
    pub require_approval: bool,
    /// For people.
    pub description: String,
    /// For machines.
    pub metadata: BTreeMap<String, String>,
    /// Whether an older version may replace a newer one.
    pub allow_downgrade: bool,
    /// Whether a held rollout that blocks this one is ended.
    pub supersede: bool,
}

/// Something asked by a person or a program. `by` is the subject of its token.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "camelCase")]
pub enum Command {
    /// Replace the environments' configuration. Running rollouts keep theirs.
    Configure {
        /// All of them, in order.
        environments: Vec<Environment>,
    },
    /// Record a pushed release.
    PushRelease {
        /// Its module.
        module: ModuleName,
        /// Its version.
        version: semver::Version,
        /// What it is.
        release: Release,
    },
    /// Start a deployment.
    Deploy(Box<DeployRequest>),
    /// Decide a pending approval.
    Decide {
        /// Which deployment's.
        deployment: DeploymentId,
        /// Yes or no.
        approve: bool,
        /// Who decides.
        by: String,
        /// An annotation.
        email: String,
        /// Why.
        reason: Option<String>,
    },
    /// End a running deployment and take it back where it is under way.
    Abort {
        /// Which.
        deployment: DeploymentId,
        /// Who asks.
        by: String,
    },
    /// Undo a finished deployment whose release is its target's stable one.
    RollBack {
        /// Which.
        deployment: DeploymentId,
        /// Identity of the deployment that does it.
        id: DeploymentId,
        /// Its trace.
        trace_id: String,
        /// Who asks.
        by: String,
    },
    /// Unload a module from an environment.
    Undeploy {
        /// Identity of the deployment that does it.
        id: DeploymentId,
        /// Its trace.
        trace_id: String,
        /// Which module.
        module: ModuleName,
        /// Where.
        environment: EnvName,
        /// Who asks.
        by: String,
    },
    /// Stop moving forward.
    Pause {
        /// Which deployment.
        deployment: DeploymentId,
        /// Who asks.
        by: String,
    },
    /// Move forward again.
    Resume {
        /// Which deployment.
        deployment: DeploymentId,
        /// Who asks.
        by: String,
    },
    /// Pass the current step's gate by a person's word.
    SkipStep {
        /// Which deployment.
        deployment: DeploymentId,
        /// Who asks.
        by: String,
    },
    /// Pass all gates of the running rollout by a person's word; nodes must still be healthy.
    Promote {
        /// Which deployment.
        deployment: DeploymentId,
        /// Who asks.
        by: String,
    },
    /// Let no promotion take a release.
    Hold {
        /// Its module.
        module: ModuleName,
        /// Which.
        release: ReleaseRef,
        /// Why.
        reason: String,
        /// Who asks.
        by: String,
    },
    /// Let promotions take it again.
    LiftHold {
        /// Its module.
        module: ModuleName,
        /// Which.
        digest: Digest,
        /// Who asks.
        by: String,
    },
    /// Let nothing take a release ever again.
    Revoke {
        /// Its module.
        module: ModuleName,
        /// Which version.
        version: semver::Version,
        /// Why.
        reason: String,
        /// Who asks.
        by: String,
    },
    /// Withdraw a version: nothing new takes it, and what runs it keeps it.
    Yank {
        /// Its module.
        module: ModuleName,
        /// Which.
        version: semver::Version,
        /// Why.
        reason: String,
        /// Who asks.
        by: String,
    },
    /// Let deployments of a module take no older version. Rollbacks, which are recorded, may.
    SetMinimumVersion {
        /// The module.
        module: ModuleName,
        /// The oldest that is taken; `None`: any.
        version: Option<semver::Version>,
        /// Who asks.
        by: String,
    },
    /// Offer a withdrawn version again.
    Unyank {
        /// Its module.
        module: ModuleName,
        /// Which.
        version: semver::Version,
        /// Who asks.
        by: String,
    },
    /// Give a module other values in an environment. A deployment makes them count.
    SetValues {
        /// The module.
        module: ModuleName,
        /// Where.
        environment: EnvName,
        /// All of them.
        values: Values,
        /// The number of the values that these are meant to replace, 0 for none; `None`: whatever there is.
        expected: Option<u64>,
        /// Who asks.
        by: String,
    },
    /// Put a node into another environment.
    MoveNode {
        /// Which.
        node: NodeId,
        /// Where to.
        environment: EnvName,
        /// Who asks.
        by: String,
    },
    /// Set labels of a node, over those that it reports.
    SetLabels {
        /// Which.
        node: NodeId,
        /// Values by key; `None` takes an operator's value back, so that the reported one counts.
        set: BTreeMap<String, Option<String>>,
        /// Who asks.
        by: String,
    },
    /// Let a node serve nothing, as soon as its environment can spare it.
    Drain {
        /// Which.
        node: NodeId,
        /// How long to wait for that at most; then it is drained all the same. 0: at once.
        deadline: Millis,
        /// Why.
        reason: String,
        /// Who asks.
        by: String,
    },
    /// Let a drained node serve again.
    Undrain {
        /// Which.
        node: NodeId,
        /// Who asks.
        by: String,
    },
    /// Forget a node.
    RemoveNode {
        /// Which.
        node: NodeId,
        /// Who asks.
        by: String,
    },
    /// Take over a fleet whose nodes know newer specs than this log (a backup was restored).
    AdoptFleet {
        /// Who asks.
        by: String,
    },
}

/// What sort of refusal it is, as HTTP would say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefusalKind {
    /// The request itself can't be done: 400.
    Invalid,
    /// What it names isn't there: 404.
    NotFound,
    /// It contradicts what is there: 409.
    Conflict,
    /// Whoever asks may not: 403.
    Forbidden,
    /// A limit is reached: 429 or 503.
    Busy,
}

/// Why a command was refused; nothing was changed. Reads as a sentence for people.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No such module.
    #[error("module {module} was never pushed; there are: {}", list(known))]
    UnknownModule {
        /// The name asked for.
        module: ModuleName,
        /// The names there are.
        known: Vec<String>,
    },
    /// No such version.
    #[error("version {version} of {module} was never pushed; there are: {}", list(known))]
    UnknownVersion {
        /// The module.
        module: ModuleName,
        /// The version asked for.
        version: semver::Version,
        /// The versions there are.
        known: Vec<String>,
    },
    /// No such environment.
    #[error("environment {environment} is not configured; there are: {}", list(known))]
    UnknownEnvironment {
        /// The name asked for.
        environment: EnvName,
        /// The names there are.
        known: Vec<String>,
    },
    /// No such deployment among those that can still change.
    #[error("deployment {0} is unknown")]
    UnknownDeployment(DeploymentId),
    /// No such node.
    #[error("node {0} is unknown")]
    UnknownNode(NodeId),
    /// An identity is taken.
    #[error("deployment {0} exists already")]
    DuplicateDeployment(DeploymentId),
    /// Other bytes under a name and version that exist.
    #[error(
        "{module} {version} exists already with other bytes ({existing}); \
         push the new bytes ({pushed}) under a new version"
    )]
    ReleaseConflict {
        /// The module.
        module: ModuleName,
        /// The version.
        version: semver::Version,
        /// What is there.
        existing: Digest,
        /// What was pushed.
        pushed: Digest,
    },
    /// The release is on hold.
    #[error("{module} {release} is on hold ({reason}); lift the hold first, or deploy another version")]
    ReleaseHeld {
        /// The module.
        module: ModuleName,
        /// The release.
        release: ReleaseRef,
        /// Why it is held.
        reason: String,
    },
    /// The release is revoked.
    #[error("{module} {release} is revoked ({reason}); it never runs again: deploy another version")]
    ReleaseRevoked {
        /// The module.
        module: ModuleName,
        /// The release.
        release: ReleaseRef,
        /// Why.
        reason: String,
    },
    /// The version is older than any that may be deployed.
    #[error(
        "{module} {version} is older than {minimum}, the oldest version that may be deployed; deploy a newer one, \
         roll a deployment back, or lower the minimum"
    )]
    BelowMinimum {
        /// The module.
        module: ModuleName,
        /// The version asked for.
        version: semver::Version,
        /// The oldest that is taken.
        minimum: semver::Version,
    },
    /// The values are no longer those that were to be replaced.
    #[error(
        "the values of {module} in {environment} are number {newest}, not {expected}: somebody set others meanwhile; \
         read them again"
    )]
    ValuesChanged {
        /// The module.
        module: ModuleName,
        /// Where.
        environment: EnvName,
        /// The number that was expected.
        expected: u64,
        /// The number that there is.
        newest: u64,
    },
    /// The version is withdrawn.
    #[error("{module} {version} is withdrawn ({reason}); deploy another version, or offer it again first")]
    ReleaseYanked {
        /// The module.
        module: ModuleName,
        /// The version.
        version: semver::Version,
        /// Why it is withdrawn.
        reason: String,
    },
    /// No node of the target can run it.
    #[error(
        "no node of {environment} can run {module} {version}: {}",
        nodes_listed(nodes)
    )]
    NoCapableNode {
        /// The module.
        module: ModuleName,
        /// The version asked for.
        version: semver::Version,
        /// The target.
        environment: EnvName,
        /// Every node there, with what it lacks.
        nodes: Vec<String>,
    },
    /// An environment on its way would give it a share of requests, and its kind gets none.
    #[error(
        "{module} doesn't route requests (it is of the kind {}), so the canary by traffic of {environment} has no share \
         to give it; use a canary by nodes there (strategy.by = \"nodes\"), or another strategy",
        kind.name()
    )]
    NoTrafficToShare {
        /// The module.
        module: ModuleName,
        /// What it is.
        kind: Kind,
        /// The first environment on its way whose strategy needs shares of requests.
        environment: EnvName,
    },
    /// It can't be done in the state that things are in.
    #[error("{0}")]
    NotNow(String),
    /// It was decided already.
    #[error("{0}")]
    AlreadyDecided(String),
    /// Whoever asks may not.
    #[error("{0}")]
    Forbidden(String),
    /// What was configured is faulty.
    #[error("the configuration is faulty: {}", list(.0))]
    Configuration(Vec<String>),
    /// A limit is reached.
    #[error("{0}")]
    Limit(String),
}

fn nodes_listed(nodes: &[String]) -> String {
    const NODES_SHOWN_MAX: usize = 5;
    let shown = nodes
        .iter()
        .take(NODES_SHOWN_MAX)
        .cloned()
        .collect::<Vec<_>>()
        .join("; ");
    match nodes.len().saturating_sub(NODES_SHOWN_MAX) {
        0 => shown,
        more => format!("{shown}; and {more} more"),
    }
}

fn list(names: &[String]) -> String {
    const NAMES_SHOWN_MAX: usize = 20;
    match names {
        [] => "none".to_owned(),
        names if names.len() <= NAMES_SHOWN_MAX => names.join(", "),
        names => format!(
            "{} and {} more",
            names[..NAMES_SHOWN_MAX].join(", "),
            names.len() - NAMES_SHOWN_MAX
        ),
    }
}

impl Refusal {
    /// What sort of refusal it is.
    pub fn kind(&self) -> RefusalKind {
        match self {
            Self::UnknownModule { .. }
            | Self::UnknownVersion { .. }
            | Self::UnknownDeployment(_)
            | Self::UnknownNode(_) => RefusalKind::NotFound,
            Self::UnknownEnvironment { .. } | Self::NotNow(_) | Self::Configuration(_) => {
                RefusalKind::Invalid
            }
            Self::ReleaseHeld { .. }
            | Self::ReleaseRevoked { .. }
            | Self::BelowMinimum { .. }
            | Self::ReleaseYanked { .. }
            | Self::NoCapableNode { .. }
            | Self::NoTrafficToShare { .. } => RefusalKind::Invalid,
            Self::DuplicateDeployment(_)
            | Self::ReleaseConflict { .. }
            | Self::AlreadyDecided(_)
            | Self::ValuesChanged { .. } => RefusalKind::Conflict,
            Self::Forbidden(_) => RefusalKind::Forbidden,
            Self::Limit(_) => RefusalKind::Busy,
        }
    }

    /// A stable code for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::UnknownModule { .. } => "unknown_module",
            Self::UnknownVersion { .. } => "unknown_version",
            Self::UnknownEnvironment { .. } => "unknown_environment",
            Self::UnknownDeployment(_) => "unknown_deployment",
            Self::UnknownNode(_) => "unknown_node",
            Self::DuplicateDeployment(_) => "duplicate_deployment",
            Self::ReleaseConflict { .. } => "release_conflict",
            Self::ReleaseHeld { .. } => "release_held",
            Self::ReleaseRevoked { .. } => "release_revoked",
            Self::BelowMinimum { .. } => "below_minimum_version",
            Self::ReleaseYanked { .. } => "release_yanked",
            Self::ValuesChanged { .. } => "values_changed",
            Self::NoCapableNode { .. } => "no_capable_node",
            Self::NoTrafficToShare { .. } => "no_traffic_to_share",
            Self::NotNow(_) => "not_now",
            Self::AlreadyDecided(_) => "already_decided",
            Self::Forbidden(_) => "forbidden",
            Self::Configuration(_) => "configuration",
            Self::Limit(_) => "limit",
        }
    }
}
