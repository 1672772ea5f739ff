//! What the server and the agent have in common: logs, and an orderly end.

use std::future::Future;
use std::io::IsTerminal as _;

use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

/// Logs go to stderr: lines for people on a terminal, JSON otherwise. `HOTSWAP_LOG` says how much, e.g. `debug`.
pub(super) fn start_logs() {
    let filter = EnvFilter::try_from_env("HOTSWAP_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let logs = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    if std::io::stderr().is_terminal() {
        logs.with_target(false).init();
    } else {
        logs.json().flatten_event(true).init();
    }
}

/// Logs of whoever shows something else on the terminal: only where `HOTSWAP_LOG` asks for them.
pub(crate) fn start_logs_if_asked() {
    if std::env::var_os("HOTSWAP_LOG").is_some() {
        start_logs();
    }
}

/// Ends when somebody presses Ctrl-C, or the process is told to terminate.
///
/// # Errors
/// The operating system takes no handler.
pub(crate) fn asked_to_stop() -> anyhow::Result<impl Future<Output = ()>> {
    let handler = |kind| signal(kind).context("failed to listen for signals");
    let (mut interrupt, mut terminate) = (
        handler(SignalKind::interrupt())?,
        handler(SignalKind::terminate())?,
    );
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}
