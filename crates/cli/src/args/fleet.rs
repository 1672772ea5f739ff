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
    /// Forget a node, end its session and revoke its certificates; it comes back as a new node with a new join token
    #[command(after_help = "Examples:
  hotswap nodes drain web-1 --wait && hotswap nodes remove web-1")]
    Remove {
        /// The node
        node: String,
    },
    /// Revoke a node's certificates: its session ends at once, and it gets nothing until it joins anew
    #[command(after_help = "Examples:
  hotswap node revoke web-1                                 its key may be in other hands
  hotswap node token create --env Production --node web-1   and back again, with a new key")]
    Revoke {
        /// The node
        node: String,
    },
    /// Make, list and revoke join tokens, which nodes get their certificates by
    #[command(
        subcommand,
        after_help = "Examples:
  hotswap node token create --env Production > join.token
  hotswap agent --node web-1 --environment Production --server https://10.0.0.7:5002 --join-token-file join.token"
    )]
    Token(JoinToken),
}

#[derive(Debug, Subcommand)]
pub(crate) enum JoinToken {
    /// Make one; told once
    #[command(after_help = "Examples:
  hotswap node token create --env Production > join.token                             for one node, within an hour
  hotswap node token create --env QA --uses 20 --expires 1day --node 'qa-*'")]
    Create {
        /// The environment that its nodes belong to, in any case
        #[arg(long, value_name = "ENV")]
        env: String,
        /// Only nodes of such a name; a * stands for any characters
        #[arg(long, value_name = "PATTERN")]
        node: Option<String>,
        /// How many nodes may join by it, at most 10000
        #[arg(long, default_value_t = 1)]
        uses: u32,
        /// How long it lasts, at most 30days
        #[arg(long, default_value = "1h", value_name = "TIME")]
        expires: humantime::Duration,
    },
    /// List them, newest first
    #[command(after_help = "Examples:
  hotswap node token list")]
    List,
    /// Revoke one: nobody joins by it any more; nodes that have joined stay
    #[command(after_help = "Examples:
  hotswap node token revoke 0b5c6a4e-6f0e-4a3b-9a5e-0d0a2c1b7f11")]
    Revoke {
        /// Its id
        id: String,
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
