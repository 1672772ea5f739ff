//! What the server and the agent have in common: logs, and an orderly end.

use std::future::Future;
use std::io::IsTerminal as _;

use anyhow::Context as _;
use hotswap_config::sections::LogFormat;
use hotswap_config::{Changes, Loaded};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing_subscriber::EnvFilter;

use super::settings;
use crate::args::Layers;
use crate::problem::Problem;

/// The running log, whose filter can be set anew.
pub(super) struct Logs {
    set: Box<dyn Fn(EnvFilter) -> Result<(), String> + Send + Sync>,
}

impl Logs {
    /// Takes up another filter, where there is one.
    ///
    /// # Errors
    /// Why the old one stays.
    pub(super) fn take_up(&self, loaded: &Loaded, changes: &Changes) -> Result<(), String> {
        if changes.live.iter().any(|key| key == "log.filter") {
            (self.set)(settings::log_filter(loaded).map_err(|problem| problem.to_string())?)?;
        }
        Ok(())
    }
}

/// Logs go to stderr, as the configuration says.
///
/// # Errors
/// `log.filter` is malformed.
pub(super) fn start_logs(loaded: &Loaded) -> Result<Logs, Problem> {
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
        let logs = logs.json().flatten_event(true).with_filter_reloading();
        let handle = logs.reload_handle();
        logs.init();
        Ok(Logs {
            set: Box::new(move |filter| handle.reload(filter).map_err(|error| error.to_string())),
        })
    } else {
        let logs = logs.with_target(false).with_filter_reloading();
        let handle = logs.reload_handle();
        logs.init();
        Ok(Logs {
            set: Box::new(move |filter| handle.reload(filter).map_err(|error| error.to_string())),
        })
    }
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

/// Hears a signal.
///
/// # Errors
/// The operating system takes no handler.
pub(super) fn signals(kind: SignalKind) -> anyhow::Result<Signal> {
    signal(kind).context("failed to listen for signals")
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
