//! Words about versions of modules, and about deployments that are only thought of.

use clap::Args;

/// One version of a module.
#[derive(Debug, Args)]
pub(crate) struct OneVersion {
    /// The module's name
    pub(crate) name: String,
    /// Which of its versions
    pub(crate) version: String,
}

/// One version of a module, and why.
#[derive(Debug, Args)]
pub(crate) struct VersionWithReason {
    #[command(flatten)]
    pub(crate) version: OneVersion,
    /// A sentence for people
    #[arg(long, default_value = "", hide_default_value = true)]
    pub(crate) reason: String,
}

#[derive(Debug, Args)]
pub(crate) struct Undeploy {
    /// The module's name
    pub(crate) name: String,
    /// The environment that it leaves, in any case
    #[arg(long, value_name = "ENV")]
    pub(crate) from: String,
    /// Stay until it has ended, and exit by its outcome
    #[arg(short, long)]
    pub(crate) watch: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Plan {
    /// The module's name
    pub(crate) name: String,
    /// Which of its versions
    pub(crate) version: String,
    /// How far: the target environment, in any case
    #[arg(long, value_name = "ENV")]
    pub(crate) to: String,
    /// As if an older version may replace a newer one
    #[arg(long)]
    pub(crate) allow_downgrade: bool,
    /// As if a person's approval were asked for
    #[arg(long)]
    pub(crate) require_approval: bool,
    /// Draw the nodes with this seed [default: a new one, which is shown]
    #[arg(long, value_name = "NUMBER")]
    pub(crate) seed: Option<u64>,
}

#[derive(Debug, Args)]
pub(crate) struct Events {
    /// Stay, and write events as they happen
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// Only these types, e.g. DeploymentCompleted, NodeExcluded; may be repeated
    #[arg(long = "type", value_name = "TYPE", value_delimiter = ',')]
    pub(crate) types: Vec<String>,
    /// Only about this module
    #[arg(long)]
    pub(crate) module: Option<String>,
    /// Only about this environment
    #[arg(long, value_name = "ENV")]
    pub(crate) env: Option<String>,
    /// Only about this node
    #[arg(long)]
    pub(crate) node: Option<String>,
    /// Only of this deployment: its id, or a unique beginning of it
    #[arg(long, value_name = "ID")]
    pub(crate) deployment: Option<String>,
    /// Begin after this event's number [default: the log's first; with -f what comes next]
    #[arg(long, value_name = "NUMBER")]
    pub(crate) after: Option<u64>,
}
