//! The control plane.

use std::net::SocketAddr;
use std::path::PathBuf;

use hotswap_package::{ByteSize, HumanDuration, PACKAGE_BYTES_MAX};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::NativeKind;
use crate::section::section;

section! {
    /// The control plane, `hotswap server`.
    pub struct Server {
        /// Folder of the server's data; made if it isn't there.
        data: PathBuf = "hotswap-data".into(),
        /// Where the API listens.
        http: SocketAddr = SocketAddr::from(([127, 0, 0, 1], 5000)),
        /// Where agents connect to.
        agents: SocketAddr = SocketAddr::from(([127, 0, 0, 1], 5002)),
        /// Take agents without TLS, and believe them whoever they say they are: for trying out, and on a loopback address
        /// only.
        plain_agents: bool = false,
        /// How long nodes' certificates hold, 2s to 90days; agents renew theirs at two thirds of it.
        node_certificate_lifetime: HumanDuration = HumanDuration::secs(7 * 86_400),
        /// How often agents report at least.
        heartbeat: HumanDuration = HumanDuration::secs(30),
        /// A node without a report for this long counts as failed.
        heartbeat_timeout: HumanDuration = HumanDuration::secs(120),
        /// The largest package that may be pushed.
        package_size_max: ByteSize = ByteSize(PACKAGE_BYTES_MAX),
        /// How long events are kept, e.g. `400days`; for ever if nothing is given. Events of deployments that aren't
        /// finished stay, and so do all deployments' records.
        events_kept: Option<HumanDuration> = None,
        /// How long packages are kept that nothing runs or may return to, e.g. `90days`; for ever if nothing is given.
        /// Each module's newest version stays.
        packages_kept: Option<HumanDuration> = None,
        /// Events between snapshots of the log: a start folds at most about so many.
        snapshot_every: u64 = 10_000,
        /// The trust file: which roots, revocation lists and signers of modules. Without one nothing can be pushed.
        trust: Option<PathBuf> = None,
        /// Take modules without a signature too: for trying out only.
        allow_unsigned: bool = false,
        /// Kinds of native code that this server starts for a moment to test it: process, as nobody and without a
        /// network; ebpf, which the kernel verifies and nothing is attached of. Without them nodes are the first to run
        /// it. Modules of kind kernel are only looked at.
        native_kinds: Vec<NativeKind> = Vec::new(),
        /// TLS of the API.
        tls: Tls = Tls::default(),
        /// How many requests somebody may send in a minute: a user, or whoever has no token by address.
        rate_limits: RateLimits = RateLimits::default(),
        /// Origins such as https://ops.example.com whose pages may read answers.
        #[schemars(extend("x-live" = true))]
        cors_origins: Vec<String> = Vec::new(),
        /// Who is told what happens to deployments: URL, or slack+URL for Slack.
        #[schemars(extend("x-secret" = true))]
        webhooks: Vec<String> = Vec::new(),
        /// File with the secret that webhooks' messages are signed with; else the variable HOTSWAP_WEBHOOK_SECRET.
        webhook_secret_file: Option<PathBuf> = None,
        /// The receiver of traces: grpc://HOST:4317 or http://HOST:4318; empty, the OTEL_EXPORTER_OTLP_* variables say
        /// where. Without it nothing is recorded.
        #[schemars(extend("x-variable" = "HOTSWAP_OTLP"))]
        otlp: Option<String> = None,
    }
}

section! {
    /// TLS of the API.
    pub struct Tls {
        /// Whether the API speaks HTTPS: `auto` does so unless it listens on loopback.
        mode: TlsMode = TlsMode::Auto,
        /// The API's certificate, with those that lead to its authority, in PEM. Without one the fleet's own authority
        /// makes one and renews it. It is read anew when it changes, and when the server reloads.
        certificate: Option<PathBuf> = None,
        /// The certificate's private key, in PEM.
        key: Option<PathBuf> = None,
        /// Host names and addresses in the certificate of the fleet's own authority, besides this machine's.
        names: Vec<String> = Vec::new(),
        /// Speak plain HTTP where others can listen, too: only where something in front of it speaks TLS.
        insecure_http: bool = false,
    }
}

/// Whether the API speaks HTTPS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum TlsMode {
    /// Where others can reach it: not on loopback.
    Auto,
    /// Everywhere.
    On,
    /// Nowhere; beyond loopback that needs `insecure-http`.
    Off,
}

section! {
    /// How many requests somebody may send in a minute.
    pub struct RateLimits {
        /// Of any kind.
        #[schemars(extend("x-live" = true))]
        all: u32 = 1_000,
        /// Changes of deployments; aborts and rollbacks are never counted here.
        #[schemars(extend("x-live" = true))]
        deployments: u32 = 10,
        /// Reads of environments.
        #[schemars(extend("x-live" = true))]
        clusters: u32 = 60,
        /// About approvals.
        #[schemars(extend("x-live" = true))]
        approvals: u32 = 30,
        /// Logins, by address.
        #[schemars(extend("x-live" = true))]
        login: u32 = 5,
        /// Whether requests from this machine itself are not counted.
        #[schemars(extend("x-live" = true))]
        loopback_is_free: bool = false,
    }
}
