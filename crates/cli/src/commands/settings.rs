//! From the configuration's layers to what a server and an agent are told.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context as _;
use hotswap_agent::{AgentConfig, JoinSource, TraceConfig};
use hotswap_config::sections::NativeKind;
use hotswap_config::{Changes, ConfigError, Loaded, Sources};
use hotswap_core::ids::{EnvName, InvalidName};
use hotswap_package::Kind;
use hotswap_runtime::{
    EbpfHost, EbpfHostConfig, KernelHost, KernelHostConfig, ProcessHost, ProcessHostConfig, Runtimes,
    Ungranted, WasmHost, WasmHostConfig,
};
use hotswap_server::notify::{Webhook, WebhookError};
use hotswap_server::{Grant, RateLimits, ServerConfig};
use hotswap_telemetry::otlp::{OtlpConfig, Transport};
use hotswap_transport::JoinToken;
use hotswap_trust::Gate;
use tracing_subscriber::EnvFilter;

use super::https;
use crate::args::{self, Global, Layers};
use crate::problem::Problem;

/// Where the engine's bindings write out the arguments and results of every call of a module: customers' requests, and
/// the secrets among the module's variables.
const WITHOUT_CALLS: [&str; 4] = [
    "wasmtime_wasi::p2::bindings=debug",
    "wasmtime_wasi::p3::bindings=debug",
    "wasmtime_wasi_http::p2::bindings=debug",
    "wasmtime_wasi_http::p3::bindings=debug",
];
/// A join token itself.
const JOIN_TOKEN_VARIABLE: &str = "HOTSWAP_JOIN_TOKEN";

/// Where a process's configuration comes from.
pub(crate) fn sources(layers: &Layers) -> Sources {
    let mut sources = Sources::of_process(layers.config.clone());
    sources
        .flags
        .extend(layers.set.iter().map(|(key, value)| hotswap_config::Flag {
            flag: "--set",
            key: key.clone(),
            value: value.clone(),
        }));
    sources
}

/// A server's, with its flags.
pub(super) fn server_sources(args: &args::Server) -> Sources {
    let mut sources = sources(&args.layers)
        .flag(
            "--data",
            "server.data",
            args.data.as_ref().map(|path| path.display()),
        )
        .flag("--http", "server.http", args.http)
        .flag("--agents", "server.agents", args.agents)
        .flag("--tls", "server.tls.mode", args.tls.tls.as_ref())
        .flag(
            "--tls-certificate",
            "server.tls.certificate",
            args.tls.tls_certificate.as_ref().map(|path| path.display()),
        )
        .flag(
            "--tls-key",
            "server.tls.key",
            args.tls.tls_key.as_ref().map(|path| path.display()),
        )
        .flag("--tls-name", "server.tls.names", listed(&args.tls.tls_names))
        .flag(
            "--insecure-http",
            "server.tls.insecure-http",
            args.tls.insecure_http.then_some(true),
        )
        .flag(
            "--plain-agents",
            "server.plain-agents",
            args.plain_agents.then_some(true),
        )
        .flag(
            "--node-certificate-lifetime",
            "server.node-certificate-lifetime",
            args.node_certificate_lifetime,
        )
        .flag(
            "--trust",
            "server.trust",
            args.trust.trust.as_ref().map(|path| path.display()),
        )
        .flag(
            "--allow-unsigned",
            "server.allow-unsigned",
            args.trust.allow_unsigned.then_some(true),
        )
        .flag(
            "--no-rate-limit-on-loopback",
            "server.rate-limits.loopback-is-free",
            args.no_rate_limit_on_loopback.then_some(true),
        )
        .flag("--cors-origin", "server.cors-origins", listed(&args.cors_origins))
        .flag("--webhook", "server.webhooks", listed(&args.webhooks))
        .flag(
            "--webhook-secret-file",
            "server.webhook-secret-file",
            args.webhook_secret_file.as_ref().map(|path| path.display()),
        )
        .flag("--otlp", "server.otlp", args.traces.otlp.as_ref());
    for (group, number) in &args.rate_limits {
        let key = match group.as_str() {
            "all" => "server.rate-limits.all",
            "deployments" => "server.rate-limits.deployments",
            "clusters" => "server.rate-limits.clusters",
            "approvals" => "server.rate-limits.approvals",
            _ => "server.rate-limits.login",
        };
        sources = sources.flag("--rate-limit", key, Some(number));
    }
    sources
}

/// Several values of one flag, as a list is written.
fn listed(values: &[String]) -> Option<String> {
    (!values.is_empty()).then(|| values.join(","))
}

/// Where the server's data is, by a command that needs nothing else of it.
///
/// # Errors
/// A configuration that is faulty.
pub(super) fn data_dir(layers: &Layers, data: Option<&PathBuf>) -> Result<PathBuf, Problem> {
    let sources = sources(layers).flag("--data", "server.data", data.map(|path| path.display()));
    Ok(load(&sources)?.config.server.data)
}

/// An agent's, with its flags.
pub(super) fn agent_sources(args: &args::Agent, global: &Global) -> Sources {
    let labels: Vec<String> = args
        .labels
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    let variables: Vec<String> = args
        .grant_variables
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    sources(&args.layers)
        .flag("--node", "agent.node", args.node.as_ref())
        .flag("--environment", "agent.environment", args.environment.as_ref())
        .flag("--server", "agent.server", global.server.as_ref())
        .flag(
            "--join-token-file",
            "agent.join-token-file",
            args.join_token_file.as_ref().map(|path| path.display()),
        )
        .flag("--ca", "agent.ca", global.ca.as_ref().map(|path| path.display()))
        .flag(
            "--data",
            "agent.data",
            args.data.as_ref().map(|path| path.display()),
        )
        .flag("--ingress", "agent.ingress", args.ingress)
        .flag("--metrics", "agent.metrics", args.metrics)
        .flag("--otlp", "agent.otlp", args.traces.otlp.as_ref())
        .flag("--sample", "agent.sample-percent", args.sample)
        .flag(
            "--label",
            "agent.labels",
            (!labels.is_empty()).then(|| labels.join(",")),
        )
        .flag(
            "--trust",
            "agent.trust",
            args.trust.trust.as_ref().map(|path| path.display()),
        )
        .flag(
            "--allow-unsigned",
            "agent.allow-unsigned",
            args.trust.allow_unsigned.then_some(true),
        )
        .flag(
            "--grant-host",
            "agent.grant-hosts",
            (!args.grant_hosts.is_empty()).then(|| args.grant_hosts.join(",")),
        )
        .flag(
            "--grant-variable",
            "agent.grant-variables",
            (!variables.is_empty()).then(|| variables.join(",")),
        )
        .flag(
            "--native-kind",
            "agent.native-kinds",
            (!args.native_kinds.is_empty()).then(|| args.native_kinds.join(",")),
        )
}

/// A configuration in force, and where it is read from again.
pub(super) struct Live {
    sources: Sources,
    /// As the process started with it: what needs a restart is still as here.
    started: Loaded,
    loaded: Loaded,
}

impl Live {
    /// Reads it for the first time.
    ///
    /// # Errors
    /// Everything that is wrong, for people.
    pub(super) fn load(sources: Sources) -> Result<Self, Problem> {
        let loaded = load(&sources)?;
        Ok(Self {
            sources,
            started: loaded.clone(),
            loaded,
        })
    }

    /// What is in force.
    pub(super) fn loaded(&self) -> &Loaded {
        &self.loaded
    }

    /// Reads it again, and has `take_up` take up what changed. If either fails, what was in force stays, all of it.
    pub(super) async fn reload(
        &mut self,
        take_up: impl AsyncFnOnce(&Loaded, &Changes) -> Result<(), String>,
    ) {
        let newer = match load(&self.sources) {
            Ok(newer) => newer,
            Err(problem) => {
                let faults = problem.faults().join("; ");
                tracing::error!(%problem, faults, "the configuration was not reloaded: what was in force stays");
                return;
            }
        };
        let changes = self.loaded.changes(&newer);
        if let Err(why) = take_up(&newer, &changes).await {
            tracing::error!(why, "the configuration was not reloaded: what was in force stays");
            return;
        }
        let restart = self.started.changes(&newer).restart;
        if !restart.is_empty() {
            tracing::warn!(
                keys = restart.join(", "),
                "these keys take a restart; until then their old values hold"
            );
        }
        tracing::info!(
            changed = changes.live.join(", "),
            "the configuration was reloaded"
        );
        self.loaded = newer;
    }
}

/// Reads all layers, and what only this crate can judge.
///
/// # Errors
/// Everything that is wrong, for people.
pub(crate) fn load(sources: &Sources) -> Result<Loaded, Problem> {
    let loaded = hotswap_config::load(sources).map_err(|error| problem(&error))?;
    log_filter(&loaded)?;
    Ok(loaded)
}

fn problem(error: &ConfigError) -> Problem {
    let because = std::error::Error::source(error)
        .map(|source| format!(": {source}"))
        .unwrap_or_default();
    Problem::usage(format!("{error}{because}"))
        .details(error.faults().iter().map(ToString::to_string).collect())
}

/// What is logged: never what a module is told and answers, which the engine's bindings write out at the widest level.
pub(crate) fn log_filter(loaded: &Loaded) -> Result<EnvFilter, Problem> {
    let filter = &loaded.config.log.filter;
    let parsed = EnvFilter::try_new(filter).map(|filter| {
        WITHOUT_CALLS.iter().fold(filter, |filter, directive| {
            filter.add_directive(directive.parse().expect("a literal directive is valid"))
        })
    });
    parsed.map_err(|error| {
        Problem::usage(format!(
            "log.filter is {filter:?}: {error}; it should be a level such as info, or levels by crate such as \
             info,hotswap_agent=debug"
        ))
    })
}

/// What a server is told.
///
/// # Errors
/// What only the server can judge, with its key.
pub(crate) fn server_config(loaded: &Loaded) -> Result<ServerConfig, Problem> {
    let server = &loaded.config.server;
    let mut config = ServerConfig::new(&server.data);
    config.http = server.http;
    config.tls = https::config(&server.tls)?;
    config.agents = server.agents;
    config.plain_agents = server.plain_agents;
    config.node_certificate_lifetime = server.node_certificate_lifetime.get();
    config.environments = loaded.environments();
    config.heartbeat = server.heartbeat.get();
    config.heartbeat_timeout = server.heartbeat_timeout.get();
    config.package_bytes_max = server.package_size_max.bytes();
    config.snapshot_every = server.snapshot_every;
    config.packages_kept = server.packages_kept.map(|kept| kept.get());
    config.events_kept = server.events_kept.map(|kept| kept.get());
    config.grants = grants(loaded);
    config.gate = gate(server.trust.as_ref(), server.allow_unsigned);
    config.rate_limits = rate_limits(loaded);
    config.cors_origins = cors_origins(loaded)?;
    config.otlp = server.otlp.as_deref().map(receiver);
    config.webhooks = webhooks(loaded)?;
    Ok(config)
}

/// How often somebody may call.
pub(super) fn rate_limits(loaded: &Loaded) -> RateLimits {
    let limits = &loaded.config.server.rate_limits;
    RateLimits {
        all: limits.all,
        deployments: limits.deployments,
        clusters: limits.clusters,
        approvals: limits.approvals,
        login: limits.login,
        loopback_is_free: limits.loopback_is_free,
    }
}

/// Whose pages may read answers.
///
/// # Errors
/// One that no browser would send.
pub(super) fn cors_origins(loaded: &Loaded) -> Result<Vec<String>, Problem> {
    let origins = &loaded.config.server.cors_origins;
    let is_origin = |text: &str| {
        let host = text
            .strip_prefix("https://")
            .or_else(|| text.strip_prefix("http://"));
        host.is_some_and(|host| !host.is_empty() && !host.contains(['/', ' ', ',']))
    };
    match origins.iter().find(|origin| !is_origin(origin)) {
        Some(other) => Err(Problem::usage(format!(
            "server.cors-origins is {other:?}; an origin is a scheme, a host and maybe a port, such as \
             https://ops.example.com, without a path"
        ))),
        None => Ok(origins.clone()),
    }
}

/// A receiver of traces, as it is written.
fn receiver(text: &str) -> OtlpConfig {
    let (endpoint, transport) = match text.strip_prefix("grpc://") {
        Some(address) => (format!("http://{address}"), Some(Transport::Grpc)),
        None => (text.to_owned(), None),
    };
    OtlpConfig {
        endpoint: Some(endpoint).filter(|endpoint| !endpoint.is_empty()),
        transport,
    }
}

/// Who is told what happens. The secret is in a file or in the environment: what is on a command line is seen by all.
fn webhooks(loaded: &Loaded) -> Result<Vec<Webhook>, Problem> {
    let server = &loaded.config.server;
    let secret = match &server.webhook_secret_file {
        Some(file) => {
            let text = std::fs::read_to_string(file).map_err(|error| {
                Problem::usage(format!(
                    "server.webhook-secret-file: {} can't be read: {error}",
                    file.display()
                ))
            })?;
            Some(text.trim().to_owned())
        }
        None => std::env::var("HOTSWAP_WEBHOOK_SECRET")
            .ok()
            .filter(|secret| !secret.is_empty()),
    };
    let faulty = |error: WebhookError| Problem::usage(format!("server.webhooks: {error}"));
    let mut webhooks = Vec::new();
    for text in &server.webhooks {
        let webhook: Webhook = text.parse().map_err(faulty)?;
        webhooks.push(Webhook {
            secret: secret.clone(),
            ..webhook
        });
    }
    Webhook::validate_all(&webhooks).map_err(faulty)?;
    Ok(webhooks)
}

/// Whose modules are taken.
fn gate(trust_file: Option<&PathBuf>, allow_unsigned: bool) -> Gate {
    let gate = trust_file.map_or_else(Gate::default, Gate::signed);
    if allow_unsigned {
        gate.allowing_unsigned()
    } else {
        gate
    }
}

/// What a node lets modules use.
pub(super) fn node_grants(loaded: &Loaded) -> hotswap_runtime::Grants {
    hotswap_runtime::Grants {
        outbound_hosts: loaded.config.agent.grant_hosts.clone(),
        variables: loaded.config.agent.grant_variables.clone(),
    }
}

fn kind(kind: NativeKind) -> Kind {
    match kind {
        NativeKind::Process => Kind::Process,
        NativeKind::Ebpf => Kind::Ebpf,
        NativeKind::Kernel => Kind::Kernel,
    }
}

/// What compiles and tries releases on a server: the runtimes that nodes have. Here nothing is granted; the scan says what
/// nodes would not grant.
///
/// # Errors
/// A host that can't start.
pub(super) fn server_runtimes(loaded: &Loaded, config: &ServerConfig) -> anyhow::Result<Runtimes> {
    let wasm = WasmHostConfig {
        cache_dir: Some(config.data_dir.join("compiled")),
        ungranted: Ungranted::Withhold,
        ..WasmHostConfig::default()
    };
    let wasm = WasmHost::new(wasm).context("failed to start the WebAssembly runtime")?;
    let mut runtimes = Runtimes::from(Arc::new(wasm));
    if loaded.config.server.native_kinds.contains(&NativeKind::Process) {
        let mut process = ProcessHostConfig::new(config.data_dir.join("processes"));
        process.ungranted = Ungranted::Withhold;
        let host = ProcessHost::new(process).context("failed to start the runtime of native processes")?;
        runtimes = runtimes.with(Arc::new(host));
    }
    if loaded.config.server.native_kinds.contains(&NativeKind::Ebpf) {
        let host = EbpfHost::new(EbpfHostConfig::for_checks())
            .context("failed to start the runtime of eBPF programs")?;
        runtimes = runtimes.with(Arc::new(host));
    }
    Ok(runtimes)
}

/// What runs modules on a node: WebAssembly always, native code where the configuration says so.
///
/// # Errors
/// A host that can't start, or a setting that can't be.
pub(super) fn node_runtimes(loaded: &Loaded, config: &AgentConfig) -> anyhow::Result<Runtimes> {
    let (agent, grants) = (&loaded.config.agent, node_grants(loaded));
    let wasm = WasmHostConfig {
        cache_dir: Some(config.data_dir.join("compiled")),
        grants: grants.clone(),
        log_lines_per_second_max: agent.module_log_lines,
        ..WasmHostConfig::default()
    };
    let wasm = WasmHost::new(wasm).context("failed to start the WebAssembly runtime")?;
    let mut runtimes = Runtimes::from(Arc::new(wasm));
    if agent.native_kinds.contains(&NativeKind::Process) {
        let mut process = ProcessHostConfig::new(config.data_dir.join("processes"));
        process.grants = grants.clone();
        process.log_lines_per_second_max = agent.module_log_lines;
        process.cgroup.clone_from(&agent.cgroup);
        if let Some(user) = &agent.process_user {
            process.user = user.parse().map_err(|error| {
                Problem::usage(format!("agent.process-user: {error}"))
                    .next("give another by HOTSWAP_AGENT_PROCESS_USER or in hotswap.toml")
            })?;
        }
        let host = ProcessHost::new(process).context("failed to start the runtime of native processes")?;
        runtimes = runtimes.with(Arc::new(host));
    }
    if agent.native_kinds.contains(&NativeKind::Ebpf) {
        let host = EbpfHost::new(EbpfHostConfig::new(grants))
            .context("failed to start the runtime of eBPF programs")?;
        runtimes = runtimes.with(Arc::new(host));
    }
    if agent.native_kinds.contains(&NativeKind::Kernel) {
        let mut kernel = KernelHostConfig::new(config.data_dir.join("kernel"));
        kernel.watchdog.clone_from(&agent.watchdog);
        let host = KernelHost::new(kernel).context("failed to start the runtime of kernel modules")?;
        runtimes = runtimes.with(Arc::new(host));
    }
    Ok(runtimes)
}

/// What modules may ask for, by environment.
pub(crate) fn grants(loaded: &Loaded) -> Vec<Grant> {
    let environments = loaded.config.environments.iter();
    environments
        .map(|environment| Grant {
            environment: environment
                .name
                .parse::<EnvName>()
                .expect("names were checked when they were loaded"),
            outbound_hosts: environment.grants.outbound_hosts.clone(),
            variables: environment.grants.variables.clone(),
            kinds: environment.grants.kinds.iter().copied().map(kind).collect(),
        })
        .collect()
}

/// What a node joins by: a file, or else a variable. On a command line everybody on the machine would see it.
fn join_source(file: Option<&PathBuf>) -> Result<Option<JoinSource>, Problem> {
    if let Some(file) = file {
        return Ok(Some(JoinSource::File(file.clone())));
    }
    let given = std::env::var(JOIN_TOKEN_VARIABLE)
        .ok()
        .filter(|token| !token.is_empty());
    let token = given.map(|token| token.trim().parse::<JoinToken>()).transpose();
    match token {
        Ok(token) => Ok(token.map(JoinSource::Token)),
        Err(error) => Err(Problem::usage(format!("{JOIN_TOKEN_VARIABLE}: {error}"))),
    }
}

/// What an agent is told.
///
/// # Errors
/// The node's name or environment is missing or malformed, or a setting can't be.
pub(crate) fn agent_config(loaded: &Loaded) -> Result<AgentConfig, Problem> {
    let agent = &loaded.config.agent;
    let missing = |key: &str, flag: &str, variable: &str| {
        Problem::usage(format!("agent.{key} is missing"))
            .next(format!("give it by {flag}, by {variable}, or in hotswap.toml"))
    };
    let node = agent
        .node
        .as_ref()
        .ok_or_else(|| missing("node", "--node", "HOTSWAP_AGENT_NODE"))?;
    let environment = agent
        .environment
        .as_ref()
        .ok_or_else(|| missing("environment", "--environment", "HOTSWAP_AGENT_ENVIRONMENT"))?;
    let faulty = |key: &str, error: InvalidName, flag: &str| {
        Problem::usage(format!("agent.{key}: {error}"))
            .next(format!("give another by {flag} or in hotswap.toml"))
    };
    let node = node.parse().map_err(|error| faulty("node", error, "--node"))?;
    let environment = environment
        .parse()
        .map_err(|error| faulty("environment", error, "--environment"))?;
    let data = agent
        .data
        .clone()
        .unwrap_or_else(|| PathBuf::from(format!("hotswap-agent-{node}")));
    let mut config = AgentConfig::new(node, environment, &agent.server, data);
    config.labels.clone_from(&agent.labels);
    config.join = join_source(agent.join_token_file.as_ref())?;
    config.ca.clone_from(&agent.ca);
    config.listen = agent.ingress;
    config.advertise.clone_from(&agent.advertise);
    config.hostname = agent.hostname.clone().or_else(|| {
        let name = std::fs::read_to_string("/etc/hostname").ok()?;
        Some(name.trim().to_owned())
    });
    config.heartbeat = agent.heartbeat.get();
    config.drain_deadline = agent.drain_deadline.get();
    config.gate = gate(agent.trust.as_ref(), agent.allow_unsigned);
    config.secrets.clone_from(&agent.secrets);
    config.metrics = agent.metrics;
    config.traces = agent.otlp.as_deref().map(|otlp| TraceConfig {
        otlp: receiver(otlp),
        sample_percent: agent.sample_percent,
    });
    config
        .validate()
        .map_err(|error| Problem::usage(error.to_string()))?;
    Ok(config)
}
