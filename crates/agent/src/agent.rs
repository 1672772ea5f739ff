//! One node, put together: folder, ledger, ingress, driver and session.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hotswap_core::ids::{Incarnation, NodeId};
use hotswap_core::reconcile::Ledger;
use hotswap_core::report::Hello;
use hotswap_runtime::WasmHost;
use hotswap_trust::PolicyError;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::config::{AgentConfig, ConfigError};
use crate::disk::{Folder, FolderError, Found, LedgerError, LedgerFile, PackageStore, StoreError};
use crate::driver::{Driver, LedgerWriter, Parts, Stats, Totals};
use crate::fetch::Packages;
use crate::ingress::{Ingress, IngressConfig, Stopped};
use crate::meter::Meter;
use crate::session;

/// How long the ingress waits with its first answer for what was served before to be served again.
const BOOT_TIME_MAX: Duration = Duration::from_secs(10);

/// Starts agents.
#[derive(Debug, Clone, Copy)]
pub struct Agent;

/// Why an agent can't start.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// A setting.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The data folder.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// The ledger.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The trust file.
    #[error("failed to read who is trusted")]
    Trust(#[from] PolicyError),
    /// The packages.
    #[error(transparent)]
    Packages(#[from] StoreError),
    /// The ingress's address.
    #[error("the ingress can't listen on {address}: {source}{}", in_use_hint(source))]
    Listen {
        /// Where it should listen.
        address: SocketAddr,
        /// Why it can't.
        source: std::io::Error,
    },
}

fn in_use_hint(error: &std::io::Error) -> &'static str {
    match error.kind() {
        std::io::ErrorKind::AddrInUse => "; another process has this port: stop it, or set another `listen`",
        std::io::ErrorKind::AddrNotAvailable => "; this machine has no such address: set another `listen`",
        std::io::ErrorKind::PermissionDenied => "; ports below 1024 need a privilege: set another `listen`",
        _ => "",
    }
}

/// A node that runs. Dropping it without [`RunningAgent::shutdown`] ends it at once, as a crash would.
#[derive(Debug)]
pub struct RunningAgent {
    ingress_addr: SocketAddr,
    totals: Totals,
    stop_ingress: CancellationToken,
    stop_session: CancellationToken,
    stop_driver: CancellationToken,
    ingress: Task<Stopped>,
    session: Task<()>,
    driver: Task<()>,
}

/// A task that ends with its owner.
#[derive(Debug)]
struct Task<T>(JoinHandle<T>);

impl<T> Drop for Task<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Agent {
    /// Starts a node: it serves what its ledger says before the server is asked anything. Returns once the ingress's
    /// address is known; the server need not be there.
    ///
    /// # Errors
    /// A faulty setting, a data folder that can't be used, is another's or another version's, an address that can't
    /// be listened on.
    pub async fn start(config: AgentConfig, host: Arc<WasmHost>) -> Result<RunningAgent, AgentError> {
        config.validate()?;
        config.gate.check()?;
        warn_of_gate(&config);
        let channel = session::channel(config.server_uri()?);
        let (folder, found, file, store) = {
            let (path, node) = (config.data_dir.clone(), config.node.clone());
            let opened = tokio::task::spawn_blocking(move || open(&path, &node)).await;
            opened.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))?
        };
        for damage in &found.damage {
            tracing::error!(node = %config.node, "{damage}");
        }
        let (before, ledger) = match found.record {
            Some(record) => (record.incarnation, record.ledger),
            None => (Incarnation(0), Ledger::default()),
        };
        let writer = LedgerWriter {
            file,
            node: config.node.clone(),
            incarnation: next_incarnation(before),
            _folder: Arc::new(folder),
        };

        let unheard = |source| AgentError::Listen {
            address: config.listen,
            source,
        };
        let listener = TcpListener::bind(config.listen).await.map_err(unheard)?;
        let ingress_addr = listener.local_addr().map_err(unheard)?;
        let (meter, ingress) = (Meter::new(), Ingress::new(IngressConfig::default()));
        let totals = Totals::new(meter.clone());
        let (booted, has_booted) = oneshot::channel();
        let driver = Driver::boot(
            Parts {
                writer,
                ledger,
                hello: hello(&config, ingress_addr),
                heartbeat: config.heartbeat,
                ingress_addr: reachable(ingress_addr),
                ingress: ingress.clone(),
                meter,
                totals: totals.clone(),
                gate: config.gate.clone(),
                packages: Arc::new(Packages::new(store, channel.clone())),
                runtime: host,
            },
            booted,
        );

        let stop_ingress = CancellationToken::new();
        let stop_session = CancellationToken::new();
        let stop_driver = CancellationToken::new();
        let (events, heard) = mpsc::channel(session::EVENTS_QUEUED_MAX);
        let serving = {
            let (stop, deadline) = (stop_ingress.clone(), config.drain_deadline);
            tokio::spawn(async move {
                // Until then clients wait in the listener's queue, which is better than an error.
                let _ = timeout(BOOT_TIME_MAX, has_booted).await;
                ingress.serve(listener, stop, deadline).await
            })
        };
        let driving = {
            let stop = stop_driver.clone();
            tokio::spawn(driver.run(heard, stop))
        };
        Ok(RunningAgent {
            ingress_addr,
            totals,
            session: Task(tokio::spawn(session::run(channel, events, stop_session.clone()))),
            ingress: Task(serving),
            driver: Task(driving),
            stop_ingress,
            stop_session,
            stop_driver,
        })
    }
}

impl RunningAgent {
    /// Where the ingress listens.
    pub fn ingress_addr(&self) -> SocketAddr {
        self.ingress_addr
    }

    /// What it served since it started.
    pub fn stats(&self) -> Stats {
        self.totals.stats()
    }

    /// Stops in order: takes no more connections, lets requests in flight finish until the drain's deadline, notes in
    /// the ledger that this was no crash, and frees everything.
    pub async fn shutdown(mut self) -> Stopped {
        self.stop_session.cancel();
        self.stop_ingress.cancel();
        let stopped = (&mut self.ingress.0)
            .await
            .unwrap_or(Stopped { connections_cut: 0 });
        self.stop_driver.cancel();
        for task in [&mut self.session, &mut self.driver] {
            let _ = (&mut task.0).await;
        }
        stopped
    }
}

fn warn_of_gate(config: &AgentConfig) {
    let node = &config.node;
    if config.gate.allows_unsigned() {
        tracing::warn!(%node, "UNSIGNED MODULES RUN HERE (--allow-unsigned): whoever controls the server runs code on this node");
    } else if config.gate.trust_file().is_none() {
        tracing::warn!(%node, "no roots are trusted, so nothing runs here: start with --trust FILE");
    }
}

/// The blocking part of a start.
fn open(path: &Path, node: &NodeId) -> Result<(Folder, Found, LedgerFile, PackageStore), AgentError> {
    let folder = Folder::open(path)?;
    let file = LedgerFile::new(folder.path());
    let found = file.read(node)?;
    let store = PackageStore::open(folder.path())?;
    Ok((folder, found, file, store))
}

/// Another number than every former run of this node had: the time of day, or one more than the last that was noted,
/// where the clock went back.
fn next_incarnation(before: Incarnation) -> Incarnation {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let ms = u64::try_from(since_epoch.as_millis()).unwrap_or(0);
    Incarnation(ms.max(before.0.saturating_add(1)))
}

fn hello(config: &AgentConfig, ingress: SocketAddr) -> Hello {
    Hello {
        hostname: config.hostname.clone().unwrap_or_else(|| config.node.to_string()),
        environment: config.environment.clone(),
        ingress: config.advertise.clone().unwrap_or_else(|| ingress.to_string()),
        labels: config.labels.clone(),
        agent_version: env!("CARGO_PKG_VERSION").to_owned(),
        capabilities: vec![hotswap_package::Kind::Wasm.as_str().to_owned()],
    }
}

/// Where this process reaches its own listener.
fn reachable(mut listens: SocketAddr) -> SocketAddr {
    if listens.ip().is_unspecified() {
        listens.set_ip(match listens {
            SocketAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
            SocketAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
        });
    }
    listens
}
