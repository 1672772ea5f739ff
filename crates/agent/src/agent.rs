//! One node, put together: folder, ledger, ingress, driver and session.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hotswap_core::ids::{Incarnation, NodeId};
use hotswap_core::reconcile::Ledger;
use hotswap_core::report::Hello;
use hotswap_runtime::Runtimes;
use hotswap_telemetry::metrics::{MetricsExporter, MetricsOtlpError};
use hotswap_telemetry::otlp::{Exporter, OtlpError, Spans};
use hotswap_trust::PolicyError;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::config::{AgentConfig, ConfigError};
use crate::credential::{Credential, CredentialError, ServerLine};
use crate::disk::{Folder, FolderError, Found, LedgerError, LedgerFile, PackageStore, StoreError};
use crate::driver::{Booted, Driver, HealthMeter, LedgerWriter, Left, Parts, Stats, Totals};
use crate::fetch::Packages;
use crate::ingress::{Ingress, IngressConfig, Patience, Stopped};
use crate::machine;
use crate::meter::Meter;
use crate::metrics::{self, Line, Shown};
use crate::secrets::Secrets;
use crate::session::{self, Way};
use crate::spans::{NodeSpans, RequestSpans};

/// How long the ingress waits with its first answer for what was served before to be served again.
const BOOT_TIME_MAX: Duration = Duration::from_secs(10);

/// How long a successor may take until it serves all that its predecessor serves: a new version may have to compile
/// every release anew.
const SUCCESSOR_BOOT_TIME_MAX: Duration = Duration::from_secs(60);
/// At an end, how long connections that are kept alive wait for their next request, to end with its answer.
const IDLE_AT_SHUTDOWN: Duration = Duration::from_millis(250);
/// The same where a successor takes new connections meanwhile, so that nobody is in a hurry.
const IDLE_AT_HANDOVER: Duration = Duration::from_secs(5);

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
    /// The node's certificate, or what it joins by.
    #[error(transparent)]
    Credential(#[from] CredentialError),
    /// The packages.
    #[error(transparent)]
    Packages(#[from] StoreError),
    /// The export of traces.
    #[error(transparent)]
    Otlp(#[from] OtlpError),
    /// The export of metrics.
    #[error(transparent)]
    OtlpMetrics(#[from] MetricsOtlpError),
    /// The ingress's or the metrics' address.
    #[error("{what} can't listen on {address}: {source}{}", in_use_hint(source))]
    Listen {
        /// Who should listen there.
        what: &'static str,
        /// Where it should listen.
        address: SocketAddr,
        /// Why it can't.
        source: std::io::Error,
    },
    /// A successor that doesn't serve what its predecessor serves.
    #[error("not everything that was served could be served again{}", match waited {
        Some(waited) => format!(" within {waited:?}"),
        None => String::new(),
    })]
    NotWhole {
        /// How long it was waited for, where that was the limit.
        waited: Option<Duration>,
    },
    /// The driver of an agent that was to retire had ended before, by a panic.
    #[error("the agent's driver had failed before")]
    Driver,
}

fn in_use_hint(error: &std::io::Error) -> &'static str {
    match error.kind() {
        std::io::ErrorKind::AddrInUse => "; another process has this port: stop it, or set another one",
        std::io::ErrorKind::AddrNotAvailable => "; this machine has no such address: set another one",
        std::io::ErrorKind::PermissionDenied => "; ports below 1024 need a privilege: set another one",
        _ => "",
    }
}

/// A node that runs. Dropping it without [`RunningAgent::shutdown`] ends it at once, as a crash would.
#[derive(Debug)]
pub struct RunningAgent {
    ingress_addr: SocketAddr,
    /// The ingress's socket once more, for a successor.
    listener: std::net::TcpListener,
    metrics_addr: Option<SocketAddr>,
    totals: Totals,
    drain_deadline: Duration,
    at_end: watch::Sender<Patience>,
    stop_ingress: CancellationToken,
    stop_session: CancellationToken,
    stop_driver: CancellationToken,
    stop_spans: CancellationToken,
    ingress: Task<Stopped>,
    session: Task<()>,
    driver: Task<Left>,
    metrics: Option<Task<()>>,
    exporting: Option<Task<()>>,
}

/// A node's ingress that goes on serving what is loaded, without a session or a driver: its data folder is free for a
/// successor. Dropping it cuts what is under way.
#[derive(Debug)]
pub struct Retired {
    listener: std::net::TcpListener,
    stop_ingress: CancellationToken,
    drain_deadline: Duration,
    at_end: watch::Sender<Patience>,
    ingress: Task<Stopped>,
    left: Left,
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
    pub async fn start(
        config: AgentConfig,
        runtimes: impl Into<Runtimes>,
    ) -> Result<RunningAgent, AgentError> {
        config.validate()?;
        let listener = TcpListener::bind(config.listen)
            .await
            .and_then(TcpListener::into_std);
        let listener = listener.map_err(|source| unheard("the ingress", config.listen, source))?;
        Self::start_on(config, runtimes, listener).await
    }

    /// Starts a node as [`Agent::start`] does, with a socket that listens already: a service manager's, or a
    /// predecessor's.
    ///
    /// # Errors
    /// Those of [`Agent::start`].
    pub async fn start_on(
        config: AgentConfig,
        runtimes: impl Into<Runtimes>,
        listener: std::net::TcpListener,
    ) -> Result<RunningAgent, AgentError> {
        let (agent, has_booted) = Self::boot(config, runtimes.into(), listener, Some(BOOT_TIME_MAX)).await?;
        drop(has_booted);
        Ok(agent)
    }

    /// Starts a node on the socket of a predecessor that still serves. Returns once it serves everything that its
    /// ledger says, and takes no connection before.
    ///
    /// # Errors
    /// Those of [`Agent::start`], and that not everything can be served: the node is stopped again, in order.
    pub async fn succeed(
        config: AgentConfig,
        runtimes: impl Into<Runtimes>,
        listener: std::net::TcpListener,
    ) -> Result<RunningAgent, AgentError> {
        let (agent, has_booted) = Self::boot(config, runtimes.into(), listener, None).await?;
        let waited = match timeout(SUCCESSOR_BOOT_TIME_MAX, has_booted).await {
            Ok(Ok(Booted::Whole)) => return Ok(agent),
            Ok(_) => None,
            Err(_) => Some(SUCCESSOR_BOOT_TIME_MAX),
        };
        agent.shutdown().await;
        Err(AgentError::NotWhole { waited })
    }

    /// `accepts_after`: how long the ingress waits for the boot; `None` as long as it takes.
    async fn boot(
        config: AgentConfig,
        runtimes: Runtimes,
        listener: std::net::TcpListener,
        accepts_after: Option<Duration>,
    ) -> Result<(RunningAgent, oneshot::Receiver<Booted>), AgentError> {
        config.validate()?;
        config.gate.check()?;
        warn_of_gate(&config);
        let (folder, found, file, store) = {
            let (path, node) = (config.data_dir.clone(), config.node.clone());
            let opened = tokio::task::spawn_blocking(move || open(&path, &node)).await;
            opened.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))?
        };
        // Only now: a predecessor may have renewed the certificate until it left the folder.
        let credential = Credential::open(&config)?;
        let way = Way {
            line: ServerLine::new(config.server_uri()?, credential.clone()),
            credential,
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

        let (ingress_addr, spare, listener) =
            listening(listener).map_err(|source| unheard("the ingress", config.listen, source))?;
        let scraped = match config.metrics {
            Some(address) => {
                let bound = metrics::bind(address).await;
                Some(bound.map_err(|source| unheard("the metrics' listener", address, source))?)
            }
            None => None,
        };
        let mut pushing = None;
        let traced = match &config.traces {
            Some(traces) => {
                let (otlp, node) = (&traces.otlp, config.node.as_str());
                pushing = MetricsExporter::new(otlp, "hotswap-agent", node)?;
                let exporter = Exporter::new(otlp, "hotswap-agent", node)?;
                Some((exporter, Spans::queue(), traces.sample_percent))
            }
            None => None,
        };
        let spans = traced.as_ref().map(|(_, (spans, _), _)| spans.clone());
        let ingress_config = IngressConfig {
            spans: traced
                .as_ref()
                .map(|(_, (spans, _), percent)| RequestSpans::new(spans.clone(), *percent)),
            ..IngressConfig::default()
        };
        let (meter, ingress) = (Meter::new(), Ingress::new(ingress_config));
        let totals = Totals::new(meter.clone());
        let line = Arc::new(Line::default());
        let shown = {
            let (meter, line, spans, totals) =
                (meter.clone(), Arc::clone(&line), spans.clone(), totals.clone());
            let (node, environment) = (config.node.to_string(), config.environment.to_string());
            let credential = way.credential.clone();
            move || Shown {
                node: node.clone(),
                environment: environment.clone(),
                meter: meter.clone(),
                line: Arc::clone(&line),
                credential: credential.clone(),
                spans: spans.clone(),
                health: HealthMeter::new(totals.clone()).into(),
                started: std::time::Instant::now(),
            }
        };
        let (booted, has_booted) = oneshot::channel();
        let (tell, told) = oneshot::channel();
        let driver = Driver::boot(
            Parts {
                writer,
                ledger,
                hello: hello(&config, ingress_addr, &runtimes),
                heartbeat: config.heartbeat,
                ingress_addr: reachable(ingress_addr),
                ingress: ingress.clone(),
                meter,
                totals: totals.clone(),
                gate: config.gate.clone(),
                secrets: Secrets::new(config.secrets.clone()),
                line,
                spans: NodeSpans::new(config.node.to_string(), spans.clone()),
                packages: Arc::new(Packages::new(store, way.line.clone())),
                runtimes,
            },
            booted,
        );

        let stop_ingress = CancellationToken::new();
        let stop_session = CancellationToken::new();
        let stop_driver = CancellationToken::new();
        let stop_spans = CancellationToken::new();
        let (events, heard) = mpsc::channel(session::EVENTS_QUEUED_MAX);
        let patience = Patience {
            idle: IDLE_AT_SHUTDOWN,
            deadline: config.drain_deadline,
        };
        let (at_end, patience) = watch::channel(patience);
        let serving = {
            let stop = stop_ingress.clone();
            tokio::spawn(async move {
                // Until then clients wait in the listener's queue, which is better than an error.
                let booted = async {
                    // A driver that ended tells nothing, and the ingress is told to stop then.
                    if let Ok(came_to) = has_booted.await {
                        let _ = tell.send(came_to);
                    }
                };
                match accepts_after {
                    Some(most) => {
                        let _ = timeout(most, booted).await;
                    }
                    None => {
                        let _ = stop.run_until_cancelled(booted).await;
                    }
                }
                ingress.serve(listener, stop, patience).await
            })
        };
        let driving = {
            let stop = stop_driver.clone();
            tokio::spawn(driver.run(heard, stop))
        };
        let exporting = traced.map(|(exporter, (_, waiting), _)| {
            let (stop, read) = (stop_spans.clone(), metrics::reader(shown()));
            Task(tokio::spawn(async move {
                let spans = waiting.send(exporter, stop.clone());
                match pushing {
                    Some(pushing) => drop(tokio::join!(spans, pushing.run(read, stop))),
                    None => spans.await,
                }
            }))
        });
        let metrics_addr = scraped.as_ref().map(|(address, _)| *address);
        let metrics = scraped.map(|(_, listener)| {
            Task(tokio::spawn(metrics::serve(
                listener,
                shown(),
                stop_driver.clone(),
            )))
        });
        let agent = RunningAgent {
            ingress_addr,
            listener: spare,
            metrics_addr,
            totals,
            drain_deadline: config.drain_deadline,
            at_end,
            metrics,
            exporting,
            session: Task(tokio::spawn(session::run(way, events, stop_session.clone()))),
            ingress: Task(serving),
            driver: Task(driving),
            stop_ingress,
            stop_session,
            stop_driver,
            stop_spans,
        };
        Ok((agent, told))
    }
}

fn unheard(what: &'static str, address: SocketAddr, source: std::io::Error) -> AgentError {
    AgentError::Listen {
        what,
        address,
        source,
    }
}

/// A socket's address, the socket once more, and the socket to serve.
fn listening(
    listener: std::net::TcpListener,
) -> std::io::Result<(SocketAddr, std::net::TcpListener, TcpListener)> {
    listener.set_nonblocking(true)?;
    let spare = listener.try_clone()?;
    Ok((listener.local_addr()?, spare, TcpListener::from_std(listener)?))
}

impl RunningAgent {
    /// Where the ingress listens.
    pub fn ingress_addr(&self) -> SocketAddr {
        self.ingress_addr
    }

    /// Where its metrics are, if they are served.
    pub fn metrics_addr(&self) -> Option<SocketAddr> {
        self.metrics_addr
    }

    /// What it served since it started.
    pub fn stats(&self) -> Stats {
        self.totals.stats()
    }

    /// Stops in order: takes no more connections, lets requests in flight finish until the drain's deadline, notes in
    /// the ledger that this was no crash, and frees everything.
    pub async fn shutdown(self) -> Stopped {
        let Self {
            listener,
            stop_ingress,
            stop_session,
            stop_driver,
            stop_spans,
            mut ingress,
            mut session,
            mut driver,
            mut metrics,
            mut exporting,
            ..
        } = self;
        drop(listener);
        stop_session.cancel();
        stop_ingress.cancel();
        let stopped = ended(&mut ingress)
            .await
            .unwrap_or(Stopped { connections_cut: 0 });
        stop_driver.cancel();
        ended(&mut session).await;
        if let Some(left) = ended(&mut driver).await {
            left.close().await;
        }
        if let Some(metrics) = &mut metrics {
            ended(metrics).await;
        }
        // Last, so that what the others ended with is sent too.
        stop_spans.cancel();
        if let Some(exporting) = &mut exporting {
            ended(exporting).await;
        }
        stopped
    }

    /// Ends the session and the driver, and notes in the ledger that this was no crash: the data folder is free for a
    /// successor, while the ingress goes on serving what is loaded.
    ///
    /// # Errors
    /// The driver panicked before; the ingress has ended then.
    pub async fn retire(self) -> Result<Retired, AgentError> {
        let Self {
            listener,
            drain_deadline,
            at_end,
            stop_ingress,
            stop_session,
            stop_driver,
            ingress,
            mut session,
            mut driver,
            ..
        } = self;
        stop_session.cancel();
        stop_driver.cancel();
        ended(&mut session).await;
        let left = ended(&mut driver).await.ok_or(AgentError::Driver)?;
        Ok(Retired {
            listener,
            stop_ingress,
            drain_deadline,
            at_end,
            ingress,
            left,
        })
    }

    /// The ingress's socket, for a successor.
    ///
    /// # Errors
    /// The process has no descriptor left.
    pub fn listener(&self) -> std::io::Result<std::net::TcpListener> {
        self.listener.try_clone()
    }
}

impl Retired {
    /// The ingress's socket, for a successor.
    ///
    /// # Errors
    /// The process has no descriptor left.
    pub fn listener(&self) -> std::io::Result<std::net::TcpListener> {
        self.listener.try_clone()
    }

    /// Takes no more connections, which are the successor's now, and ends those there as their requests end: each that
    /// is kept alive with its next answer.
    pub async fn finish(self) -> Stopped {
        let Self {
            listener,
            stop_ingress,
            drain_deadline,
            at_end,
            mut ingress,
            left,
        } = self;
        drop(listener);
        at_end.send_replace(Patience {
            idle: IDLE_AT_HANDOVER,
            deadline: drain_deadline,
        });
        stop_ingress.cancel();
        let stopped = ended(&mut ingress)
            .await
            .unwrap_or(Stopped { connections_cut: 0 });
        left.close().await;
        stopped
    }
}

/// What a task came to; `None` where it panicked, which the panic's message has told.
async fn ended<T>(task: &mut Task<T>) -> Option<T> {
    (&mut task.0).await.ok()
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

fn hello(config: &AgentConfig, ingress: SocketAddr, runtimes: &Runtimes) -> Hello {
    Hello {
        hostname: config.hostname.clone().unwrap_or_else(|| config.node.to_string()),
        environment: config.environment.clone(),
        ingress: config.advertise.clone().unwrap_or_else(|| ingress.to_string()),
        labels: config.labels.clone(),
        agent_version: env!("CARGO_PKG_VERSION").to_owned(),
        capabilities: machine::capabilities(runtimes),
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
