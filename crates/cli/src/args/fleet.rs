//! Words about nodes.

use clap::{Args, Subcommand};

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Nodes {
    #[command(subcommand)]
    pub(crate) command: Option<NodeCommand>,
    /// Only those of this environment
    #[arg(long, value_name = "ENV")]
    pub(crate) env: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum NodeCommand {
    /// Show a node: labels, health, and every release that it holds
    #[command(after_help = "Examples:
  hotswap nodes show web-1
  hotswap nodes show web-1 -o json")]
    Show {
        /// The node
        node: String,
    },
    /// Set labels over those that the node reports; KEY- takes one back
    #[command(after_help = "Examples:
  hotswap nodes label web-1 zone=b rack=12
  hotswap nodes label web-1 zone-              the reported zone counts again")]
    Label {
        /// The node
        node: String,
        /// KEY=VALUE sets, KEY- takes back
        #[arg(required = true, value_name = "KEY=VALUE|KEY-", value_parser = pair)]
        labels: Vec<(String, Option<String>)>,
    },
    /// Take a node's traffic away, as soon as its environment can spare it
    #[command(after_help = "Examples:
  hotswap nodes drain web-1 --reason 'a new disk' --wait
  hotswap nodes drain web-1 --deadline 1m      drained within a minute, whatever else is away
  hotswap nodes drain web-1 --deadline 0s      at once")]
    Drain {
        /// The node
        node: String,
        /// How long to wait at most until the environment can spare it; then it is drained all the same
        #[arg(long, default_value = "10m", value_name = "TIME")]
        deadline: humantime::Duration,
        /// A sentence for people
        #[arg(long, default_value = "", hide_default_value = true)]
        reason: String,
        /// Stay until it serves nothing
        #[arg(short, long)]
        wait: bool,
    },
    /// Let a drained node serve again, with what is stable by then
    #[command(after_help = "Examples:
  hotswap nodes undrain web-1")]
    Undrain {
        /// The node
        node: String,
    },
    /// Move a node to another environment
    #[command(after_help = "Examples:
  hotswap nodes move web-1 --to Staging")]
    Move {
        /// The node
        node: String,
        /// The environment, in any case
        #[arg(long, value_name = "ENV")]
        to: String,
    },
    /// Forget a node and end its session; one whose agent still runs comes back as a new node
    #[command(after_help = "Examples:
  hotswap nodes drain web-1 --wait && hotswap nodes remove web-1")]
    Remove {
        /// The node
        node: String,
    },
}

/// `KEY=VALUE`, or `KEY-`.
pub(super) fn pair(text: &str) -> Result<(String, Option<String>), String> {
    match (text.split_once('='), text.strip_suffix('-')) {
        (Some((key, value)), _) if !key.is_empty() => Ok((key.to_owned(), Some(value.to_owned()))),
        (None, Some(key)) if !key.is_empty() => Ok((key.to_owned(), None)),
        _ => Err("must be KEY=VALUE, or KEY- to take it back".to_owned()),
    }
}
