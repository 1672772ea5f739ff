//! What a server is told at its start.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use hotswap_core::ids::EnvName;
use hotswap_core::policy::Environment;
use hotswap_package::{Kind, PACKAGE_BYTES_MAX};
use hotswap_telemetry::otlp::OtlpConfig;
use hotswap_trust::Gate;
use parking_lot::RwLock;

use crate::access::AccessConfig;
use crate::api::RateLimits;
use crate::enrolment::NODE_CERTIFICATE_LIFETIME;
#[cfg(doc)]
use crate::enrolment::NODE_CERTIFICATE_LIFETIMES;
use crate::notify::{Pauses, Webhook};
use crate::tls::TlsConfig;

/// How a server runs.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// Where the log, the read tables and the packages are kept.
    pub data_dir: PathBuf,
    /// Where HTTP is served. Port 0 picks a free one.
    pub http: SocketAddr,
    /// Whether HTTP is served over TLS, and with which certificate.
    pub tls: TlsConfig,
    /// Where agents connect (gRPC). Port 0 picks a free one.
    pub agents: SocketAddr,
    /// Whether agents connect without TLS and are believed whoever they say they are: on loopback only.
    pub plain_agents: bool,
    /// How long nodes' certificates hold, within [`NODE_CERTIFICATE_LIFETIMES`].
    pub node_certificate_lifetime: Duration,
    /// The fleet's environments, in order. `None` leaves those of the log, or makes the four default ones.
    pub environments: Option<Vec<Environment>>,
    /// How often agents report at least.
    pub heartbeat: Duration,
    /// A node without a report for this long counts as failed.
    pub heartbeat_timeout: Duration,
    /// Largest package, in bytes.
    pub package_bytes_max: u64,
    /// What modules may ask for, by environment. Environments that aren't named grant nothing.
    pub grants: Vec<Grant>,
    /// Who must have signed packages. By default nobody is trusted, so that nothing can be pushed.
    pub gate: Gate,
    /// Who is told what happens to deployments.
    pub webhooks: Vec<Webhook>,
    /// How a message that an endpoint doesn't take is tried again.
    pub webhook_pauses: Pauses,
    /// Where deployments' traces go; nowhere unless it is set.
    pub otlp: Option<OtlpConfig>,
    /// Events between snapshots: recovery folds at most about so many.
    pub snapshot_every: u64,
    /// Who may do what.
    pub access: AccessConfig,
    /// How often somebody may call.
    pub rate_limits: RateLimits,
    /// Origins (as in `https://ops.example.com`) whose pages may read answers; none by default.
    pub cors_origins: Vec<String>,
    /// How long events are kept; `None`: for ever.
    pub events_kept: Option<Duration>,
    /// How long packages are kept that nothing runs or may return to; `None`: for ever.
    pub packages_kept: Option<Duration>,
}

/// What an environment lets modules ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// The environment.
    pub environment: EnvName,
    /// Hosts that modules may send requests to, as manifests write them; `*` is any host.
    pub outbound_hosts: Vec<String>,
    /// Environment variables that modules may read; `*` is any variable.
    pub variables: Vec<String>,
    /// Kinds of native code that may run, besides `wasm`, which is sandboxed and always may.
    pub kinds: Vec<Kind>,
}

/// Grants that may be replaced while checks read them.
#[derive(Debug)]
pub struct Grants(RwLock<Arc<[Grant]>>);

impl Grants {
    /// Grants in force.
    pub fn new(grants: Vec<Grant>) -> Self {
        Self(RwLock::new(grants.into()))
    }

    pub(crate) fn get(&self) -> Arc<[Grant]> {
        Arc::clone(&self.0.read())
    }

    pub(crate) fn replace(&self, grants: Vec<Grant>) {
        *self.0.write() = grants.into();
    }
}

impl ServerConfig {
    /// The contract's ports on loopback, and the defaults everywhere else.
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        Self {
            data_dir: data_dir.into(),
            http: SocketAddr::from(([127, 0, 0, 1], 5000)),
            tls: TlsConfig::default(),
            agents: SocketAddr::from(([127, 0, 0, 1], 5002)),
            plain_agents: false,
            node_certificate_lifetime: NODE_CERTIFICATE_LIFETIME,
            environments: None,
            heartbeat: Duration::from_secs(30),
            heartbeat_timeout: Duration::from_secs(120),
            package_bytes_max: PACKAGE_BYTES_MAX,
            grants: Vec::new(),
            gate: Gate::default(),
            webhooks: Vec::new(),
            webhook_pauses: Pauses::default(),
            otlp: None,
            snapshot_every: 10_000,
            access: AccessConfig::default(),
            rate_limits: RateLimits::default(),
            cors_origins: Vec::new(),
            events_kept: None,
            packages_kept: None,
        }
    }
}
