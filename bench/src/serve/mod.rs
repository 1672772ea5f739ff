//! Servers to be measured, each in a process of its own: this program, started again.

mod bare;
pub(crate) mod module;
mod sink;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result};
use clap::{Args, ValueEnum};
use tokio::net::TcpListener;

use crate::processes::{Child, free_address};

pub(crate) use sink::otlp_sink;

/// What a process of this program serves.
#[derive(Args, Debug)]
pub(crate) struct Serve {
    #[arg(value_enum)]
    what: What,
    #[arg(long)]
    address: SocketAddr,
    /// Folder of the module.
    #[arg(long)]
    module: PathBuf,
    /// Where compiled modules are kept.
    #[arg(long)]
    cache: PathBuf,
    /// Where 1 % of the requests are sent as spans.
    #[arg(long)]
    otlp: Option<String>,
    /// What bare hyper answers: a head as lines of `name: value`.
    #[arg(long, default_value = "")]
    head: String,
    /// And a body.
    #[arg(long, default_value = "")]
    body: String,
}

/// The kinds of server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum What {
    /// The agent's ingress with the module behind it: routed and metered.
    Ingress,
    /// The module behind hyper: neither routed nor metered.
    Alone,
    /// Hyper alone, with the same bytes.
    Bare,
}

impl Serve {
    /// Serves until the process is killed.
    pub(crate) fn run(self) -> Result<()> {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        runtime.block_on(async {
            let listener = TcpListener::bind(self.address).await?;
            match self.what {
                What::Ingress => module::ingress(listener, &self.module, self.cache, self.otlp).await,
                What::Alone => module::alone(listener, &self.module, self.cache).await,
                What::Bare => bare::serve(listener, &self.head, self.body).await,
            }
        })
    }
}

/// A process that serves; commands go to its standard input.
pub(crate) struct Served {
    pub(crate) child: Child,
    pub(crate) address: SocketAddr,
}

impl Served {
    /// Starts this program as a server.
    pub(crate) async fn start(what: What, module: &Path, dir: &Path, more: &[(&str, &str)]) -> Result<Self> {
        let address = free_address()?;
        let name = what.to_possible_value().context("every kind has a name")?;
        let log = dir.join(format!("{}-{}.log", name.get_name(), address.port()));
        let mut command = Command::new(std::env::current_exe()?);
        command
            .args(["serve", name.get_name(), "--address", &address.to_string()])
            .arg("--module")
            .arg(module)
            .arg("--cache")
            .arg(dir.join("compiled"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        for (flag, value) in more {
            command.arg(format!("{flag}={value}"));
        }
        let mut child = Child::start(&mut command, &log)?;
        child.listens(address, &log).await?;
        Ok(Self { child, address })
    }
}
