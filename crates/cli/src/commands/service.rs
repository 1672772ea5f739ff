//! The service manager, where there is one: sockets from it, and what it is told (systemd's protocols).

use std::net::TcpListener;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use listenfd::ListenFd;
use sd_notify::NotifyState;
use tokio::time::{Instant, sleep_until};

/// A part of the watchdog's time after which it is fed.
const WATCHDOG_SHARE: u32 = 3;

/// What the manager gave.
static GIVEN: Mutex<Option<ListenFd>> = Mutex::new(None);

/// Takes what the manager gave out of the environment. Called once, before there are threads: it changes variables.
pub(super) fn take_given() {
    *GIVEN.lock().unwrap_or_else(PoisonError::into_inner) = Some(ListenFd::from_env());
}

/// The listening socket that the manager gave under a name (`FileDescriptorName=` of its socket unit), if it gave one.
/// A single nameless one is for whoever asks.
///
/// # Errors
/// What was given under the name is no TCP listener.
pub(super) fn listener(name: &str) -> anyhow::Result<Option<TcpListener>> {
    let mut given = GIVEN.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(given) = given.as_mut() else {
        return Ok(None);
    };
    let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
    let mut names = names.split(':').filter(|name| !name.is_empty());
    let place = match given.len() {
        0 => None,
        1 if names.clone().all(|name| name == "unknown") => Some(0),
        _ => names.position(|given| given == name),
    };
    let Some(place) = place else { return Ok(None) };
    given
        .take_tcp_listener(place)
        .with_context(|| format!("the socket that the service manager gave as {name:?} is no TCP listener"))
}

fn tell(states: &[NotifyState<'_>]) {
    // Without a manager this does nothing.
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "the service manager could not be told");
    }
}

/// Everything is served.
pub(super) fn ready() {
    tell(&[NotifyState::Ready]);
}

/// The end has begun.
pub(super) fn stopping() {
    tell(&[NotifyState::Stopping]);
}

/// Another process is the service now.
pub(super) fn succeeded_by(process: Option<u32>) {
    if let Some(process) = process {
        tell(&[NotifyState::MainPid(process)]);
    }
}

/// Tells of a reload around it.
pub(super) async fn reloading(reload: impl Future<Output = ()>) {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(error) => tracing::warn!(%error, "the service manager could not be told of the reload"),
    }
    reload.await;
    ready();
}

/// What has to be told regularly, or the manager starts the service anew.
pub(super) struct Watchdog {
    every: Option<Duration>,
    next: Instant,
}

impl Watchdog {
    /// As the manager wants it; never due where it doesn't.
    pub(super) fn of_manager() -> Self {
        Self {
            every: sd_notify::watchdog_enabled().map(|within| within / WATCHDOG_SHARE),
            next: Instant::now(),
        }
    }

    /// Returns when the watchdog is to be fed.
    pub(super) async fn due(&self) {
        match self.every {
            Some(_) => sleep_until(self.next).await,
            None => std::future::pending().await,
        }
    }

    /// Feeds it.
    pub(super) fn feed(&mut self) {
        tell(&[NotifyState::Watchdog]);
        self.next = Instant::now() + self.every.unwrap_or_default();
    }
}
