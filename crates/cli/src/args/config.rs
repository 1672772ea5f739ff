//! Words about the configuration, and where it comes from.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::{GetValues, SetValues, key_value};

#[derive(Debug, Subcommand)]
pub(crate) enum Config {
    /// Say everything that is wrong with a configuration; exits 2 if anything is
    #[command(after_help = "Examples:
  hotswap config check
  hotswap config check /etc/hotswap/hotswap.toml")]
    Check {
        /// The file [default: the one that a server or an agent started here would read]
        file: Option<PathBuf>,
    },
    /// Show the values in force, and where each came from: default, file and line, variable or flag
    #[command(after_help = "Examples:
  hotswap config show
  HOTSWAP_SERVER_HTTP=127.0.0.1:6000 hotswap config show --changed")]
    Show {
        #[command(flatten)]
        layers: Layers,
        /// Only what somebody gave a value
        #[arg(long)]
        changed: bool,
    },
    /// Print the JSON schema of hotswap.toml, for editors
    #[command(after_help = "Examples:
  hotswap config schema > hotswap.schema.json")]
    Schema,
    /// Show the values that an environment gives a module
    #[command(after_help = "Examples:
  hotswap config get payment-processor --env Production")]
    Get(GetValues),
    /// Give a module values in an environment; a deployment makes them count
    #[command(after_help = "Examples:
  hotswap config set payment-processor CURRENCY=EUR --env Production
  hotswap config set payment-processor DB_PASSWORD=file:db-password --env Production    a secret of the nodes
  hotswap config set payment-processor CURRENCY- --env Production                       takes it back
  hotswap deploy payment-processor 2.1.0 --to Production --watch                        rolls them out")]
    Set(SetValues),
}

/// Where a configuration comes from besides the defaults and the environment.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct Layers {
    /// The configuration file [env: HOTSWAP_CONFIG] [default: ./hotswap.toml or /etc/hotswap/hotswap.toml, if there]
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Give any key a value, e.g. server.snapshot-every=500; may be repeated
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = key_value)]
    pub(crate) set: Vec<(String, String)>,
}
