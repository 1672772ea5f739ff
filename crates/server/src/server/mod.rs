//! A server from start to end.

mod agents;
mod error;
mod retention;
mod running;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::SystemTime;

use hotswap_runtime::Runtimes;
use hotswap_telemetry::metrics::MetricsExporter;
use hotswap_telemetry::otlp::Exporter;
use hotswap_transport::Authority;
use hotswap_trust::Gate;
use parking_lot::RwLock;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::access::{self, Access};
use crate::api::{self, Api, Handshakes, Listening, Origins};
use crate::checks::Checks;
use crate::clock::millis;
use crate::config::{Grants, ServerConfig};
use crate::driver::{self, DriverParts, World};
use crate::enrolment::{self, AUTHORITY_FOLDER, Credentials, Enrolment};
use crate::feed::Feed;
use crate::fleet::{Door, Fleet, keep_certificate};
use crate::notify::{Notifier, NotifierParts, Pauses, Webhook};
use crate::registry::{Collector, Registry};
use crate::sight::{Alarms, Metrics, Series, SightDb, Tracer, journal};
use crate::store::{AccessStore, EnrolmentStore, SqliteStore, Store};

pub use error::StartError;
pub use running::RunningServer;

/// Starts servers.
#[derive(Debug)]
pub struct Server;

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
        agents::check(&config)?;
        warn_of_gate(&config.gate);
        config.tls.at(config.http)?;
        let http = listen("the API", config.http, sockets.http).await?;
        let for_agents = listen("agents", config.agents, sockets.agents).await?;
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
            tasks.spawn(retention::forget_old_events(
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
        let (http_addr, agents_addr) = (http.addr, for_agents.addr);
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
        tasks.spawn(agents::serve(
            (for_agents, door),
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
