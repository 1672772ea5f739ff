//! A server from start to end.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use hotswap_core::command::Command;
use hotswap_core::policy::Environment;
use hotswap_core::state::State;
use hotswap_core::time::Millis;
use hotswap_runtime::Runtimes;
use hotswap_telemetry::metrics::{MetricsExporter, MetricsOtlpError};
use hotswap_telemetry::otlp::{Exporter, OtlpError};
use hotswap_transport::{Authority, AuthorityError, ConfigError, IdentityError};
use hotswap_trust::{Gate, PolicyError};
use parking_lot::RwLock;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::access::{self, Access, AccessError, FirstAdmin};
use crate::api::{self, Api, Handshakes, Listening, Origins, RateLimits};
use crate::checks::Checks;
use crate::clock::millis;
use crate::config::{Grant, Grants, ServerConfig};
use crate::driver::{self, DriverError, DriverParts, World};
use crate::enrolment::{self, AUTHORITY_FOLDER, Credentials, Enrolment, NODE_CERTIFICATE_LIFETIMES};
use crate::feed::Feed;
use crate::fleet::{self, Door, Fleet, keep_certificate};
use crate::notify::{Notifier, NotifierParts, Pauses, Webhook, WebhookError};
use crate::registry::{Collector, Registry};
use crate::sight::{Alarms, Metrics, Series, SightDb, SightError, Tracer, journal};
use crate::store::{
    AccessStore, Answer, EVENTS_FORGOTTEN_MAX, EnrolmentStore, SqliteStore, Store, StoreError,
};
use crate::tls::{ApiCertificate, CertificateError, PlainBeyondLoopback, refused};

/// An agent that says nothing is asked this often whether it is there, and given up after as long again.
const AGENT_PING_INTERVAL: Duration = Duration::from_secs(20);
/// How often events are looked at that are older than they are kept, and how soon again where many are.
const FORGET_PAUSE: Duration = Duration::from_secs(600);
const FORGET_PAUSE_SHORT: Duration = Duration::from_millis(200);
/// How long agents' sessions may take to end at a shutdown.
const AGENTS_DEADLINE: Duration = Duration::from_secs(3);

/// Starts servers.
#[derive(Debug)]
pub struct Server;

/// Why a server did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address can't be listened on.
    #[error("failed to listen on {addr} for {what}: {}", explain(source, addr))]
    Listen {
        /// What for.
        what: &'static str,
        /// Where.
        addr: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
    /// Plain HTTP where others can listen.
    #[error(transparent)]
    Plain(#[from] PlainBeyondLoopback),
    /// The API's certificate.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// TLS of the API.
    #[error("failed to set up TLS for the API")]
    Tls(#[from] ConfigError),
    /// The store can't be opened.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The package store can't be opened.
    #[error("failed to open the package store in {}", path.display())]
    Registry {
        /// The data directory.
        path: std::path::PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The trust file can't be used.
    #[error("failed to read who is trusted")]
    Trust(#[from] PolicyError),
    /// The file of measurements can't be opened.
    #[error("failed to open the file of measurements in the data directory")]
    Sight(#[from] SightError),
    /// A webhook.
    #[error(transparent)]
    Webhook(#[from] WebhookError),
    /// The export of traces.
    #[error(transparent)]
    Otlp(#[from] OtlpError),
    /// The export of metrics.
    #[error(transparent)]
    OtlpMetrics(#[from] MetricsOtlpError),
    /// The log can't be recovered.
    #[error(transparent)]
    Driver(#[from] DriverError),
    /// The fleet's authority.
    #[error("the fleet's authority can't be used")]
    Authority(#[from] AuthorityError),
    /// The server's certificate for agents.
    #[error("the server's certificate for agents can't be used")]
    AgentsCertificate(#[from] IdentityError),
    /// Plain agents from elsewhere.
    #[error(
        "agents without TLS are taken on this machine alone, and {addr} is reached from elsewhere; leave --plain-agents \
         out, or give a loopback address"
    )]
    PlainAgents {
        /// Where agents connect.
        addr: SocketAddr,
    },
    /// A lifetime that can't be.
    #[error(
        "nodes' certificates can't hold for {given:?}; give a time between {:?} and {:?}",
        NODE_CERTIFICATE_LIFETIMES.0, NODE_CERTIFICATE_LIFETIMES.1
    )]
    CertificateLifetime {
        /// What was given.
        given: Duration,
    },
    /// Nobody could log in.
    #[error("users and keys could not be made ready: {0}")]
    Access(#[from] AccessError),
}

fn explain(error: &io::Error, addr: &SocketAddr) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            format!(
                "port {} is in use; stop what uses it, or give another port",
                addr.port()
            )
        }
        io::ErrorKind::AddrNotAvailable => {
            "this machine has no such address; give one that it has".to_owned()
        }
        io::ErrorKind::PermissionDenied => {
            format!("port {} needs more rights; give one above 1023", addr.port())
        }
        _ => error.to_string(),
    }
}

/// A server that runs.
#[derive(Debug)]
pub struct RunningServer {
    http: SocketAddr,
    agents: SocketAddr,
    first_admin: Option<FirstAdmin>,
    /// Ends the door for people and programs first, so that what is under way is still decided.
    doors: CancellationToken,
    /// Ends the driver, and with it agents' sessions.
    core: CancellationToken,
    api: JoinHandle<()>,
    commands: driver::Driver,
    grants: Arc<Grants>,
    limits: Arc<RwLock<RateLimits>>,
    origins: Origins,
    certificate: Option<Arc<ApiCertificate>>,
    tasks: TaskTracker,
    driver: JoinHandle<Result<(), DriverError>>,
}

/// Sockets that listen already, such as a service manager's; the others are made.
#[derive(Debug, Default)]
pub struct Sockets {
    /// For HTTP.
    pub http: Option<std::net::TcpListener>,
    /// For agents.
    pub agents: Option<std::net::TcpListener>,
}

impl Server {
    /// Opens the store, recovers, and serves. Returns once everything is served.
    ///
    /// # Errors
    /// A port that can't be listened on, a data directory that can't be used, or a log that can't be recovered; each
    /// says what to do.
    pub async fn start(
        config: ServerConfig,
        runtimes: impl Into<Runtimes>,
    ) -> Result<RunningServer, StartError> {
        Self::start_on(config, runtimes, Sockets::default()).await
    }

    /// Starts a server as [`Server::start`] does, on sockets that listen already where there are such.
    ///
    /// # Errors
    /// Those of [`Server::start`].
    pub async fn start_on(
        config: ServerConfig,
        runtimes: impl Into<Runtimes>,
        sockets: Sockets,
    ) -> Result<RunningServer, StartError> {
        Webhook::validate_all(&config.webhooks)?;
        config.gate.check()?;
        check_agents(&config)?;
        warn_of_gate(&config.gate);
        config.tls.at(config.http)?;
        let http = listen("the API", config.http, sockets.http).await?;
        let agents = listen("agents", config.agents, sockets.agents).await?;
        let otlp = config.otlp.as_ref();
        let exporter = otlp.map(|otlp| Exporter::new(otlp, "hotswap-server", &http.addr.to_string()));
        let exporter = exporter.transpose()?;
        let pushing = otlp.map(|otlp| MetricsExporter::new(otlp, "hotswap-server", &http.addr.to_string()));
        let pushing = pushing.transpose()?.flatten();
        let data_dir = config.data_dir.clone();
        let store = Arc::new(SqliteStore::open(&data_dir)?);
        // Once the data directory is this process's alone.
        let certificate = config.tls.open(http.addr, &data_dir)?.map(Arc::new);
        let authority = Authority::open_or_create(&data_dir.join(AUTHORITY_FOLDER), SystemTime::now())?;
        let access_store: Arc<dyn AccessStore> = Arc::<SqliteStore>::clone(&store);
        let enrolment_store: Arc<dyn EnrolmentStore> = Arc::<SqliteStore>::clone(&store);
        let credentials = Arc::new(Credentials::new(enrolment_store.load_enrolment().await?));
        let store: Arc<dyn Store> = store;
        let sight = SightDb::open(&data_dir)?;
        let registry =
            Registry::open(&data_dir, config.package_bytes_max).map_err(|source| StartError::Registry {
                path: data_dir,
                source,
            })?;
        let registry = Arc::new(registry);
        let (doors, core) = (CancellationToken::new(), CancellationToken::new());
        let heartbeat_timeout = millis(config.heartbeat_timeout);
        let parts = DriverParts {
            store: Arc::clone(&store),
            environments: config.environments,
            heartbeat_timeout,
            snapshot_every: config.snapshot_every,
            credentials: Arc::clone(&credentials),
            shutdown: core.clone(),
        };
        let (bench, grants) = (Arc::clone(&registry), Arc::new(Grants::new(config.grants)));
        let (granted, gate, runtimes) = (Arc::clone(&grants), config.gate.clone(), runtimes.into());
        let (driver, run) = driver::start(parts, |world, results| {
            Checks::new(world, bench, runtimes, granted, gate, results)
        })
        .await?;
        let issuer = driver
            .world()
            .state()
            .fleet
            .map_or_else(String::new, |fleet| fleet.to_string());
        let (access, first_admin, noted) = Access::start(access_store, config.access, issuer).await?;
        let access = Arc::new(access);
        let tasks = TaskTracker::new();
        tasks.spawn(access::maintain(Arc::clone(&access), noted, core.clone()));
        let enrolment = Arc::new(Enrolment::new(
            Arc::new(authority),
            enrolment_store,
            credentials,
            Arc::clone(driver.world()),
            config.node_certificate_lifetime,
        ));
        tasks.spawn(enrolment::maintain(Arc::clone(&enrolment), doors.clone()));
        if let Some(kept) = config.events_kept {
            tasks.spawn(forget_old_events(
                Arc::clone(&store),
                Arc::clone(driver.world()),
                millis(kept),
                doors.clone(),
            ));
        }
        let collector = Arc::new(Collector::new(
            Arc::clone(&registry),
            Arc::clone(driver.world()),
            config.packages_kept.map(millis),
        ));
        tasks.spawn(Arc::clone(&collector).keep(doors.clone()));
        let (http_addr, agents_addr) = (http.addr, agents.addr);
        let series = Arc::new(Series::new(sight.clone()));
        tasks.spawn(Arc::clone(&series).keep(Arc::clone(driver.world()), core.clone()));
        let watched = Watched {
            world: Arc::clone(driver.world()),
            store: Arc::clone(&store),
            sight: sight.clone(),
            shutdown: core.clone(),
        };
        let notifier = watched.start(config.webhooks, config.webhook_pauses, exporter, &tasks);
        // They wait in the listener until they are served.
        driver.world().set_accepts_agents(true);
        let fleet = Fleet::new(
            driver.clone(),
            Arc::clone(&registry),
            Arc::clone(&enrolment),
            Arc::clone(&access),
            config.heartbeat,
        );
        let door = if config.plain_agents {
            Door::Plain
        } else {
            let door = Door::tls(&enrolment)?;
            if let Door::Tls { identity, .. } = &door {
                let authority = Arc::clone(enrolment.authority());
                tasks.spawn(keep_certificate(Arc::clone(identity), authority, doors.clone()));
            }
            door
        };
        tasks.spawn(serve_agents(
            (agents, door),
            Arc::new(fleet),
            Arc::clone(driver.world()),
            core.clone(),
        ));
        let metrics = Metrics::new(
            driver.world(),
            heartbeat_timeout,
            notifier.standings().cloned().collect(),
            Arc::clone(&collector),
            certificate.clone(),
            Arc::clone(&enrolment),
        );
        let metrics = Arc::new(metrics);
        if let Some(pushing) = pushing {
            let read = Arc::clone(&metrics);
            tasks.spawn(pushing.run(move || read.text(), core.clone()));
        }
        let commands = driver.clone();
        let feed = Arc::new(Feed::new(
            Arc::clone(&store),
            Arc::clone(driver.world()),
            doors.clone(),
        ));
        tasks.spawn(Arc::clone(&feed).keep());
        let limits = Arc::new(RwLock::new(config.rate_limits));
        let origins = Origins::new(&config.cors_origins);
        let api = Arc::new(Api {
            driver,
            store,
            registry,
            collector,
            sight,
            series,
            gate: config.gate,
            notifier,
            metrics,
            feed,
            heartbeat_timeout,
            access,
            enrolment,
            rate_limits: Arc::clone(&limits),
            cors_origins: origins.clone(),
            making: tokio::sync::Mutex::default(),
        });
        let mut handshakes = None;
        if let Some(certificate) = &certificate {
            let identity = Arc::clone(certificate.identity());
            handshakes = Some(Handshakes::new(identity, config.tls.handshake_timeout)?);
            tasks.spawn(Arc::clone(certificate).keep(config.tls.look_pause, core.clone()));
        }
        let api = tokio::spawn(api::serve(http, api::router(api), handshakes, doors.clone()));
        tasks.close();
        tracing::info!(http = %http_addr, agents = %agents_addr, tls = certificate.is_some(), "serving");
        Ok(RunningServer {
            http: http_addr,
            agents: agents_addr,
            first_admin,
            doors,
            core,
            api,
            commands,
            grants,
            limits,
            origins,
            certificate,
            tasks,
            driver: tokio::spawn(run),
        })
    }
}

/// What those work with who look at what is committed and tell others.
struct Watched {
    world: Arc<World>,
    store: Arc<dyn Store>,
    sight: SightDb,
    shutdown: CancellationToken,
}

impl Watched {
    fn start(
        self,
        webhooks: Vec<Webhook>,
        pauses: Pauses,
        exporter: Option<Exporter>,
        tasks: &TaskTracker,
    ) -> Notifier {
        let Self {
            world,
            store,
            sight,
            shutdown,
        } = self;
        tasks.spawn(Alarms::watch(Arc::clone(&world), shutdown.clone()));
        tasks.spawn(journal(Arc::clone(&store), Arc::clone(&world), shutdown.clone()));
        if let Some(exporter) = exporter {
            let tracer = Tracer {
                exporter,
                store: Arc::clone(&store),
                db: sight.clone(),
                world: Arc::clone(&world),
            };
            tasks.spawn(tracer.run(shutdown.clone()));
        }
        let parts = NotifierParts {
            store,
            db: sight,
            world,
        };
        Notifier::start(webhooks, pauses, &parts, tasks, &shutdown)
    }
}

fn warn_of_gate(gate: &Gate) {
    if gate.allows_unsigned() {
        tracing::warn!(
            "UNSIGNED MODULES ARE ACCEPTED (--allow-unsigned): whoever reaches the API can run code on every node"
        );
    } else if gate.trust_file().is_none() {
        tracing::warn!(
            "no roots are trusted, so nothing can be pushed: start with --trust FILE (`hotswap trust init` makes one)"
        );
    }
}

async fn listen(
    what: &'static str,
    addr: SocketAddr,
    given: Option<std::net::TcpListener>,
) -> Result<Listening, StartError> {
    let listening = match given {
        Some(listener) => Listening::on(listener),
        None => Listening::bind(addr).await,
    };
    listening.map_err(|source| StartError::Listen { what, addr, source })
}

/// Forgets events that are older than they are kept, from time to time.
async fn forget_old_events(
    store: Arc<dyn Store>,
    world: Arc<World>,
    kept: Millis,
    shutdown: CancellationToken,
) {
    loop {
        let before = world.now().wall - kept;
        let pause = match store.forget_events(before).await {
            // More may be left: soon again, with commits in between.
            Ok(forgotten) if forgotten == EVENTS_FORGOTTEN_MAX => FORGET_PAUSE_SHORT,
            Ok(forgotten) => {
                tracing::debug!(forgotten, "old events are forgotten");
                FORGET_PAUSE
            }
            Err(error) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "old events could not be forgotten"
                );
                FORGET_PAUSE
            }
        };
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// What is asked of agents' connections, judged before anything is opened.
fn check_agents(config: &ServerConfig) -> Result<(), StartError> {
    let given = config.node_certificate_lifetime;
    let (shortest, longest) = NODE_CERTIFICATE_LIFETIMES;
    if !(shortest..=longest).contains(&given) {
        return Err(StartError::CertificateLifetime { given });
    }
    if config.plain_agents {
        if !config.agents.ip().is_loopback() {
            return Err(StartError::PlainAgents { addr: config.agents });
        }
        tracing::warn!(
            "AGENTS CONNECT WITHOUT TLS (--plain-agents): whoever runs a program on this machine can speak for any node"
        );
    }
    Ok(())
}

async fn serve_agents(
    (listening, door): (Listening, Door),
    fleet: Arc<Fleet>,
    world: Arc<World>,
    shutdown: CancellationToken,
) {
    let service = tonic::transport::Server::builder()
        .http2_keepalive_interval(Some(AGENT_PING_INTERVAL))
        .http2_keepalive_timeout(Some(AGENT_PING_INTERVAL))
        .add_service(Arc::clone(&fleet).into_service());
    let incoming = fleet::incoming(
        listening,
        door,
        move |address, error| fleet.handshake_failed(address, error),
        shutdown.clone(),
    );
    let served = service.serve_with_incoming_shutdown(incoming, shutdown.clone().cancelled_owned());
    // Sessions never end by themselves: after the deadline they are cut.
    let ended = tokio::select! {
        ended = served => ended,
        () = async { shutdown.cancelled().await; tokio::time::sleep(AGENTS_DEADLINE).await } => Ok(()),
    };
    world.set_accepts_agents(false);
    if let Err(error) = ended {
        tracing::error!(error = &error as &dyn std::error::Error, "serving agents failed");
    }
}

impl RunningServer {
    /// Where HTTP is served.
    pub fn http_addr(&self) -> SocketAddr {
        self.http
    }

    /// The API's address as clients write it.
    pub fn url(&self) -> String {
        let scheme = if self.certificate.is_some() {
            "https"
        } else {
            "http"
        };
        format!("{scheme}://{}", self.http)
    }

    /// The certificate that the API shows, where it speaks TLS.
    pub fn certificate(&self) -> Option<&ApiCertificate> {
        self.certificate.as_deref()
    }

    /// Reads the files of the API's certificate anew, where it has such; they are looked at from time to time anyway.
    ///
    /// # Errors
    /// Another certificate that can't be used: it is told in the log, too, and the old one stays.
    pub async fn reload_certificate(&self) -> Result<(), CertificateError> {
        let Some(certificate) = self.certificate.clone() else {
            return Ok(());
        };
        let read = tokio::task::spawn_blocking(move || certificate.reload(SystemTime::now()));
        let read = read
            .await
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()));
        read.map(drop).inspect_err(refused)
    }

    /// Where agents connect.
    pub fn agents_addr(&self) -> SocketAddr {
        self.agents
    }

    /// The admin that this start made, where nobody could log in before.
    pub fn first_admin(&self) -> Option<&FirstAdmin> {
        self.first_admin.as_ref()
    }

    /// Takes up other environments, and what modules may ask for in them. Rollouts that run keep the rules that they
    /// began with.
    ///
    /// # Errors
    /// Why they were refused; everything stays as it was then.
    pub async fn configure(&self, environments: Vec<Environment>, grants: Vec<Grant>) -> Result<(), String> {
        let command = Command::Configure { environments };
        let answer: driver::Answerer = Box::new(|_: &State, outcome: driver::Outcome<'_>| Answer {
            status: if outcome.result.is_ok() { 200 } else { 400 },
            location: None,
            body: outcome.result.err().map(ToString::to_string).into(),
        });
        let answer = self
            .commands
            .submit(driver::Origin::default(), command, None, answer)
            .await
            .map_err(|error| error.to_string())?;
        if let Some(refusal) = answer.body.as_str() {
            return Err(refusal.to_owned());
        }
        self.grants.replace(grants);
        Ok(())
    }

    /// Counts requests by other limits, and answers pages of other origins, from the next request on.
    pub fn limit(&self, limits: RateLimits, origins: &[String]) {
        *self.limits.write() = limits;
        self.origins.replace(origins);
    }

    /// Returns when the server ends by itself, which it does only where the store failed. The process must end then:
    /// what is durable is not known, and the next start finds out. Safe to give up and call again.
    ///
    /// # Errors
    /// Why it ended.
    pub async fn ended(&mut self) -> Result<(), DriverError> {
        let ended = (&mut self.driver).await;
        self.doors.cancel();
        self.core.cancel();
        ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))
    }

    /// Ends in order: no more requests, then the sessions, then the driver with a snapshot.
    ///
    /// # Errors
    /// The store failed before.
    pub async fn shutdown(self) -> Result<(), DriverError> {
        self.doors.cancel();
        if let Err(error) = self.api.await {
            tracing::error!(%error, "serving the API panicked");
        }
        self.core.cancel();
        self.tasks.wait().await;
        self.driver
            .await
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))
    }
}
