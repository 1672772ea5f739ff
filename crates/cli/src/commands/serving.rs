//! What the server and the agent have in common: logs, and an orderly end.

use std::future::Future;
use std::io::IsTerminal as _;

use anyhow::Context as _;
use hotswap_config::Loaded;
use hotswap_config::sections::LogFormat;
use tokio::signal::unix::{SignalKind, signal};

use super::settings;
use crate::args::Layers;
use crate::problem::Problem;

/// Logs go to stderr, as the configuration says.
///
/// # Errors
/// `log.filter` is malformed.
pub(super) fn start_logs(loaded: &Loaded) -> Result<(), Problem> {
    let filter = settings::log_filter(loaded)?;
    let json = match loaded.config.log.format {
        LogFormat::Auto => !std::io::stderr().is_terminal(),
        LogFormat::Text => false,
        LogFormat::Json => true,
    };
    let logs = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    if json {
        logs.json().flatten_event(true).init();
    } else {
        logs.with_target(false).init();
    }
    Ok(())
}

/// Logs of whoever shows something else on the terminal: only where a variable asks for them.
///
/// # Errors
/// The variables that the configuration takes are faulty.
pub(crate) fn start_logs_if_asked() -> Result<(), Problem> {
    let asked = |name| std::env::var_os(name).is_some();
    if asked("HOTSWAP_LOG") || asked("HOTSWAP_LOG_FILTER") {
        let sources = settings::sources(&Layers::default());
        start_logs(&settings::load(&sources)?)?;
    }
    Ok(())
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
