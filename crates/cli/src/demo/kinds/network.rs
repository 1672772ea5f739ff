//! A network and a file system for pins of the demo's own: nothing outside sees what is done with them, and they go with
//! the last process in them, however that ends.

use std::os::unix::process::CommandExt as _;
use std::process::Command;

/// Says to this program that it is in a network of its own.
const OWN: &str = "HOTSWAP_DEMO_OWN_NETWORK";
/// What has to work in it.
const PREPARE: &str = "mount -t bpf bpf /sys/fs/bpf && ip link set lo up && \
     { ! test -e /proc/sys/net/ipv6 || echo 1 > /proc/sys/net/ipv6/conf/all/disable_ipv6; } && \
     ip link add hotswap0 type veth peer name hotswap1 && ip link del hotswap0";

/// Why there is none.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoNetwork {
    /// The command that makes one is not there.
    #[error("the command unshare is missing: install util-linux")]
    NoCommand(#[source] std::io::Error),
    /// It can't be made, or has no file system for pins or no pairs of interfaces.
    #[error(
        "it needs root, iproute2, and a kernel with network namespaces, veth and bpffs ({0}): run it with sudo, or as root"
    )]
    Refused(String),
}

/// Starts this program again in a network of its own, in its own place: it returns there.
///
/// # Errors
/// This machine doesn't allow it; this program goes on where it is.
pub(super) fn enter() -> Result<(), NoNetwork> {
    if std::env::var_os(OWN).is_some() {
        return prepare(Command::new("sh").args(["-c", PREPARE]));
    }
    // Tried by another process first: there is no way back out of it.
    prepare(Command::new("unshare").args(["--net", "--mount", "sh", "-c", PREPARE]))?;
    let program = std::env::current_exe().map_err(NoNetwork::NoCommand)?;
    let failed = Command::new("unshare")
        .args(["--net", "--mount"])
        .arg(program)
        .args(std::env::args_os().skip(1))
        .env(OWN, "1")
        .exec();
    Err(NoNetwork::NoCommand(failed))
}

fn prepare(command: &mut Command) -> Result<(), NoNetwork> {
    let prepared = command.output().map_err(NoNetwork::NoCommand)?;
    if prepared.status.success() {
        return Ok(());
    }
    let why = String::from_utf8_lossy(&prepared.stderr);
    let why = why.trim().lines().last().unwrap_or("it failed").to_owned();
    Err(NoNetwork::Refused(why))
}

/// Runs one of iproute2's commands.
///
/// # Errors
/// What it said.
pub(super) fn ip(arguments: &str) -> anyhow::Result<()> {
    let ran = Command::new("ip").args(arguments.split(' ')).output()?;
    anyhow::ensure!(
        ran.status.success(),
        "failed to run ip {arguments}: {}",
        String::from_utf8_lossy(&ran.stderr).trim()
    );
    Ok(())
}
