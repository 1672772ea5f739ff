//! Words about deployments.

use clap::{Args, Subcommand};

use super::key_value;

/// A person's word on an approval.
#[derive(Debug, Args)]
pub(crate) struct Decision {
    /// The deployment's id, or a unique beginning of it
    pub(crate) id: String,
    /// Why, for people
    #[arg(long)]
    pub(crate) reason: Option<String>,
    /// Who decides, for people [default: your account's address]
    #[arg(long, env = "HOTSWAP_EMAIL", value_name = "ADDRESS", hide_env_values = true)]
    pub(crate) email: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Deploy {
    /// The module's name
    pub(crate) name: String,
    /// Which of its versions
    pub(crate) version: String,
    /// How far: the target environment, in any case
    #[arg(long, value_name = "ENV")]
    pub(crate) to: String,
    /// Stay until it has ended, and exit by its outcome
    #[arg(short, long)]
    pub(crate) watch: bool,
    /// A sentence for people
    #[arg(long, default_value = "", hide_default_value = true)]
    pub(crate) description: String,
    /// Ask for a person's approval before anything else
    #[arg(long)]
    pub(crate) require_approval: bool,
    /// A value for programs; may be repeated
    #[arg(long = "metadata", value_name = "KEY=VALUE", value_parser = key_value)]
    pub(crate) metadata: Vec<(String, String)>,
    /// Let an older version replace a newer one
    #[arg(long)]
    pub(crate) allow_downgrade: bool,
    /// End a held rollout that is in the way
    #[arg(long)]
    pub(crate) supersede: bool,
    /// Draw the nodes with this seed, as a plan stated it
    #[arg(long, value_name = "NUMBER")]
    pub(crate) seed: Option<u64>,
    /// Who asks, for people [default: the user's name at this machine]
    #[arg(long, env = "HOTSWAP_EMAIL", value_name = "ADDRESS", hide_env_values = true)]
    pub(crate) email: Option<String>,
}

/// A command about one deployment that may be watched.
#[derive(Debug, Args)]
pub(crate) struct Watched {
    /// The deployment's id, or a unique beginning of it
    pub(crate) id: String,
    /// Stay until it has ended, and exit by its outcome
    #[arg(short, long)]
    pub(crate) watch: bool,
}

/// A command about one deployment.
#[derive(Debug, Args)]
pub(crate) struct One {
    /// The deployment's id, or a unique beginning of it
    pub(crate) id: String,
}

#[derive(Debug, Args)]
pub(crate) struct Replay {
    /// The deployment's id, or a unique beginning of it
    pub(crate) id: String,
    /// A setting of the judge that is different; may be repeated
    #[arg(long, value_name = "judge.NAME=VALUE")]
    pub(crate) set: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Deployments {
    /// Only those of this status, e.g. Running, Succeeded, Failed
    #[arg(long)]
    pub(crate) status: Option<String>,
    /// Only those of this module
    #[arg(long)]
    pub(crate) module: Option<String>,
    /// Only those to this environment
    #[arg(long, value_name = "ENV")]
    pub(crate) env: Option<String>,
    /// At most so many
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) limit: u32,
}

#[derive(Debug, Args)]
pub(crate) struct Clusters {
    /// One environment, in any case
    pub(crate) env: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Webhooks {
    /// Send messages that were given up on once more; those that are taken are forgotten
    #[command(after_help = "Examples:
  hotswap webhooks resend 0190c7de-3f2a-7c11-9b6e-0d2f4a5b6c7d-1042
  hotswap webhooks resend --all")]
    Resend {
        /// The events' identities, as `hotswap webhooks` lists them
        #[arg(required_unless_present = "all")]
        ids: Vec<String>,
        /// All that are listed
        #[arg(long, conflicts_with = "ids")]
        all: bool,
    },
}
