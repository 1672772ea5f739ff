//! Words about whose modules are trusted.

use std::path::PathBuf;

use clap::{Args, Subcommand};

/// Whose modules are taken.
#[derive(Debug, Args)]
pub(crate) struct Trust {
    /// Trust file: which roots, revocation lists and signers (`hotswap trust init` makes one)
    #[arg(long, value_name = "FILE")]
    pub(crate) trust: Option<PathBuf>,
    /// Take modules without a signature too: for trying out only
    #[arg(long)]
    pub(crate) allow_unsigned: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum TrustCommand {
    /// Make a root and a signer of your own, and the trust file that trusts them
    #[command(after_help = "Examples:
  hotswap trust init                  in ./hotswap-trust
  hotswap trust init /etc/hotswap/trust

It is for development: the root's key is thrown away at once, so that there is one signer and no revocation. For a
company's modules use its own certificate authority, and name its root in the trust file.")]
    Init {
        /// Folder to make
        #[arg(default_value = "hotswap-trust")]
        dir: PathBuf,
    },
}
