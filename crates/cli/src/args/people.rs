//! Words about who somebody is, and about what was done.

use std::path::PathBuf;

use clap::{Args, Subcommand};

#[derive(Debug, Args)]
pub(crate) struct Login {
    /// The username [default: asked for]
    pub(crate) username: Option<String>,
    /// The password's file; - is stdin [default: asked for]
    #[arg(long, value_name = "FILE")]
    pub(crate) password_file: Option<PathBuf>,
    /// The file of the password that replaces a one-time one [default: asked for]
    #[arg(long, value_name = "FILE")]
    pub(crate) new_password_file: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Context {
    /// List them
    #[command(after_help = "Examples:
  hotswap context list")]
    List,
    /// Choose the one that commands use
    #[command(after_help = "Examples:
  hotswap context use eu")]
    Use {
        /// Its name
        name: String,
    },
    /// Make one, or give it another server
    #[command(after_help = "Examples:
  hotswap context set eu --server https://10.0.0.7:5000 --ca authority.pem")]
    Set {
        /// Its name
        name: String,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum User {
    /// List them
    #[command(after_help = "Examples:
  hotswap user list")]
    List,
    /// Make one; its one-time password is told once
    #[command(after_help = "Examples:
  hotswap user add ada --email ada@example.com --role Deployer")]
    Add {
        /// The name that it logs in by; never given to another later
        username: String,
        /// An e-mail address
        #[arg(long)]
        email: String,
        /// The name that people call it
        #[arg(long)]
        name: Option<String>,
        /// Viewer, Deployer or Admin
        #[arg(long)]
        role: String,
    },
    /// Change one: describe it anew, give another role, disable it, lift a lock
    #[command(after_help = "Examples:
  hotswap user set ada --role Admin
  hotswap user set ada --disabled true
  hotswap user set ada --unlock")]
    Set {
        /// Which
        username: String,
        /// Another e-mail address
        #[arg(long)]
        email: Option<String>,
        /// Another name
        #[arg(long)]
        name: Option<String>,
        /// Viewer, Deployer or Admin
        #[arg(long)]
        role: Option<String>,
        /// Whether it may not log in any more; if so, its sessions end and its API tokens are revoked
        #[arg(long, value_name = "true|false")]
        disabled: Option<bool>,
        /// Lift the lock after failed logins
        #[arg(long)]
        unlock: bool,
    },
    /// Give one a one-time password, told once; its sessions end and its API tokens are revoked
    #[command(after_help = "Examples:
  hotswap user reset-password ada")]
    ResetPassword {
        /// Which
        username: String,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Token {
    /// List them: your own, for an Admin everybody's
    #[command(after_help = "Examples:
  hotswap token list")]
    List,
    /// Make one that speaks for you; told once
    #[command(after_help = "Examples:
  hotswap token create ci --role Deployer --module 'payment-*' --env QA --days 30")]
    Create {
        /// What it is for
        name: String,
        /// Viewer, Deployer or Admin; no more than your own
        #[arg(long)]
        role: String,
        /// Only commands about such modules; may be repeated
        #[arg(long = "module", value_name = "PATTERN")]
        modules: Vec<String>,
        /// Only commands about this environment; may be repeated
        #[arg(long = "env", value_name = "ENV")]
        environments: Vec<String>,
        /// How long it lasts
        #[arg(long, default_value_t = 90)]
        days: u32,
    },
    /// Revoke one; it is refused at once
    #[command(after_help = "Examples:
  hotswap token revoke 0b5c6a4e-6f0e-4a3b-9a5e-0d0a2c1b7f11")]
    Revoke {
        /// Its id
        id: String,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Key {
    /// List them
    #[command(after_help = "Examples:
  hotswap key list")]
    List,
    /// Sign by a new one; nobody has to log in again
    #[command(after_help = "Examples:
  hotswap key rotate")]
    Rotate,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Audit {
    /// List what was done, newest first
    #[command(after_help = "Examples:
  hotswap audit list
  hotswap audit list --actor ada --kind command
  hotswap audit list --kind denial --from 2026-11-24T00:00:00Z --limit 500 -o json")]
    List(AuditList),
    /// Verify the whole record; exits 1 if anything in it was changed
    #[command(after_help = "Examples:
  hotswap audit verify
  hotswap audit verify --data /var/lib/hotswap    without the server, or on a copy of its database")]
    Verify {
        /// The server's folder, or a database file
        #[arg(long, value_name = "DIR")]
        data: Option<PathBuf>,
    },
}

#[derive(Debug, Args)]
pub(crate) struct AuditList {
    /// Only by this user
    #[arg(long)]
    pub(crate) actor: Option<String>,
    /// Only of this kind: server, event, command, login, denial, account, token, key or node
    #[arg(long)]
    pub(crate) kind: Option<String>,
    /// Only of this action, e.g. deploy
    #[arg(long)]
    pub(crate) action: Option<String>,
    /// Only with this outcome: done, or a refusal's code
    #[arg(long)]
    pub(crate) outcome: Option<String>,
    /// Only about this deployment, by its whole id
    #[arg(long, value_name = "ID")]
    pub(crate) deployment: Option<String>,
    /// Only from this time on
    #[arg(long, value_name = "TIME")]
    pub(crate) from: Option<String>,
    /// Only before this time
    #[arg(long, value_name = "TIME")]
    pub(crate) to: Option<String>,
    /// At most so many
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) limit: u32,
}
