//! `wasmtime serve`, built from its crate.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

use super::{Child, free_address};

/// The peer's version: that of the engine that Hotswap embeds, or it is not comparable.
const WASMTIME_VERSION: &str = "48.0.8";
/// What it is built with: as much of the default as serving takes.
const FEATURES: &str =
    "run,serve,cranelift,pooling-allocator,parallel-compilation,component-model,component-model-async";

/// A running `wasmtime serve`.
pub(crate) struct Wasmtime {
    _child: Child,
    pub(crate) address: SocketAddr,
}

impl Wasmtime {
    /// Where the peer is, or would be.
    fn binary(peers: &Path) -> PathBuf {
        peers.join("bin").join("wasmtime")
    }

    /// Builds the peer where it isn't there: some minutes, once.
    pub(crate) fn build(peers: &Path) -> Result<()> {
        if Self::binary(peers).is_file() {
            return Ok(());
        }
        println!("building wasmtime {WASMTIME_VERSION} as a peer (some minutes, once)");
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let status = Command::new(cargo)
            .args(["install", "wasmtime-cli", "--version", WASMTIME_VERSION])
            .args(["--locked", "--no-default-features", "--features", FEATURES])
            .arg("--root")
            .arg(peers)
            .arg("--target-dir")
            .arg(peers.join("build"))
            .status()
            .context("failed to start cargo")?;
        if !status.success() {
            bail!("wasmtime-cli was not built: {status}");
        }
        Ok(())
    }

    /// Serves a component, each instance for so many requests; `None`: as it comes.
    pub(crate) async fn start(
        peers: &Path,
        component: &Path,
        reuse: Option<u32>,
        log: &Path,
    ) -> Result<Self> {
        let address = free_address()?;
        let mut command = Command::new(Self::binary(peers));
        command
            .arg("serve")
            .args(["--addr", &address.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        if let Some(reuse) = reuse {
            command.args(["--max-instance-reuse-count", &reuse.to_string()]);
        }
        let mut child = Child::start(command.arg(component), log)?;
        child.listens(address, log).await?;
        Ok(Self {
            _child: child,
            address,
        })
    }
}
