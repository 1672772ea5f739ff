//! Everything that a scrape of the server shows.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use hotswap_core::ids::NodeId;
use hotswap_core::observe::Observations;
use hotswap_core::report::NodeHealth;
use hotswap_core::rollout::{Phase, Rollout};
use hotswap_core::state::State;
use hotswap_core::time::{Millis, Now};
use hotswap_telemetry::exposition::prometheus_client::collector::Collector;
use hotswap_telemetry::exposition::prometheus_client::encoding::DescriptorEncoder;
use hotswap_telemetry::exposition::prometheus_client::registry::Registry;
use hotswap_telemetry::exposition::{self, Listed, Readings};
use hotswap_telemetry::process::Process;

use crate::clock::wall_now;
use crate::driver::World;
use crate::enrolment::Enrolment;
use crate::notify::Standing;
use crate::registry::Collector as PackageCollector;
use crate::tls::ApiCertificate;
use crate::views::cluster;
use crate::views::node::status;

/// Nodes with series of their own, in the order of their names. A larger fleet is scraped at its agents; its
/// environments' series are here all the same.
const NODES_SHOWN_MAX: usize = 1_000;

/// A server's metrics.
#[derive(Debug)]
pub struct Metrics(Registry);

impl Metrics {
    /// Reads what is asked for from the driver's world.
    pub fn new(
        world: &Arc<World>,
        heartbeat_timeout: Millis,
        endpoints: Vec<Arc<Standing>>,
        collector: Arc<PackageCollector>,
        certificate: Option<Arc<ApiCertificate>>,
        enrolment: Arc<Enrolment>,
    ) -> Self {
        let mut registry = Registry::default();
        world.counts().register(&mut registry);
        registry.register_collector(Box::new(Listed {
            name: "hotswap_invariant_violations",
            help: "Invariants that did not hold: each is a bug",
            metric: world.alarms().counts().clone(),
        }));
        registry.register_collector(Box::new(Process));
        registry.register_collector(Box::new(Seen {
            world: Arc::clone(world),
            heartbeat_timeout,
        }));
        registry.register_collector(Box::new(Told {
            world: Arc::clone(world),
            endpoints,
        }));
        registry.register_collector(Box::new(Removed(collector)));
        registry.register_collector(Box::new(Shown(certificate)));
        registry.register_collector(Box::new(Enrolled(enrolment)));
        Self(registry)
    }

    /// All of them, as OpenMetrics text.
    pub fn text(&self) -> String {
        exposition::text(&self.0)
    }
}

/// State and Observations, looked at when they are asked for.
struct Seen {
    world: Arc<World>,
    heartbeat_timeout: Millis,
}

impl fmt::Debug for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Seen").finish_non_exhaustive()
    }
}

impl Collector for Seen {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        // Taken out before anything is written: commits and reports wait for these locks.
        let taken = {
            let (state, obs) = (self.world.state(), self.world.observations());
            Taken::new(&state, &obs, self.world.now(), self.heartbeat_timeout)
        };
        taken.write(&mut Readings::new(encoder), self.world.is_read_only())
    }
}

/// Nodes' certificates.
#[derive(Debug)]
struct Enrolled(Arc<Enrolment>);

impl Collector for Enrolled {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut readings = Readings::new(encoder);
        let now = wall_now();
        let (nearest, nodes) = self.0.credentials().nearest_expiry(now);
        readings.gauge(
            "hotswap_node_certificates",
            "Nodes with a certificate that holds",
            nodes as f64,
        )?;
        if let Some(nearest) = nearest {
            readings.gauge(
                "hotswap_node_certificate_expires_seconds",
                "Until the first of the nodes' certificates expires that was not renewed",
                nearest.since(now).0 as f64 / 1e3,
            )?;
        }
        let counts = self.0.counts().all();
        readings.counters(
            "hotswap_node_enrolments",
            "Nodes that joined, renewed their certificate, had it revoked, or were refused",
            counts.map(|(outcome, count)| ([("outcome", outcome)], count as f64)),
        )
    }
}

/// Packages that nothing needed.
#[derive(Debug)]
struct Removed(Arc<PackageCollector>);

impl Collector for Removed {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut readings = Readings::new(encoder);
        let (packages, bytes) = self.0.counts();
        readings.counter(
            "hotswap_packages_collected",
            "Packages removed since nothing needed them",
            packages as f64,
        )?;
        readings.counter(
            "hotswap_packages_collected_bytes",
            "Bytes of packages removed since nothing needed them",
            bytes as f64,
        )
    }
}

/// The API's certificate, where it speaks TLS.
#[derive(Debug)]
struct Shown(Option<Arc<ApiCertificate>>);

impl Collector for Shown {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let (name, help) = (
            "hotswap_api_certificate_expires_seconds",
            "Seconds until the API's certificate ends, less than 0 after it",
        );
        let mut readings = Readings::new(encoder);
        match &self.0 {
            Some(shown) => readings.gauge(name, help, shown.seconds_left(SystemTime::now())),
            None => readings.gauges(name, help, std::iter::empty::<([(&str, &str); 0], f64)>()),
        }
    }
}

/// How far webhooks' endpoints are.
struct Told {
    world: Arc<World>,
    endpoints: Vec<Arc<Standing>>,
}

impl fmt::Debug for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Told")
            .field("endpoints", &self.endpoints)
            .finish_non_exhaustive()
    }
}

impl Collector for Told {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut readings = Readings::new(encoder);
        let seq = self.world.state().seq;
        let label = |standing: &Arc<Standing>| ("endpoint", standing.name.clone());
        let counted = self.endpoints.iter().flat_map(|standing| {
            let outcomes = ["delivered", "failed", "dead"].into_iter().zip(standing.counts());
            outcomes.map(move |(outcome, count)| {
                ([label(standing), ("outcome", outcome.to_owned())], count as f64)
            })
        });
        readings.counters(
            "hotswap_webhook_attempts",
            "Messages taken, attempts that failed, and messages given up, by endpoint",
            counted,
        )?;
        readings.gauges(
            "hotswap_webhook_behind",
            "Events of the log that an endpoint has not come to",
            self.endpoints.iter().map(|standing| {
                (
                    [label(standing)],
                    seq.saturating_sub(standing.cursor().seq) as f64,
                )
            }),
        )
    }
}

type Environments = Vec<(String, cluster::ClusterMetrics)>;

#[derive(Debug)]
struct Taken {
    nodes: Vec<([(&'static str, String); 2], NodeHealth)>,
    standing: BTreeMap<(String, &'static str), u32>,
    environments: Environments,
    connected: usize,
    unfinished: BTreeMap<&'static str, u32>,
    rollouts: BTreeMap<(String, &'static str), u32>,
    seq: u64,
    epoch: u64,
    releases: usize,
}

/// A name, what it means, and where it is read.
type Gauge<T> = (&'static str, &'static str, fn(&T) -> f64);

impl Taken {
    fn new(state: &State, obs: &Observations, now: Now, heartbeat_timeout: Millis) -> Self {
        let health = |id: &NodeId| obs.node(id).filter(|seen| seen.connected)?.health;
        let mut standing = BTreeMap::new();
        for environment in &state.environments {
            for word in ["Running", "Degraded", "Failed", "Initializing", "Stopped"] {
                standing.insert((environment.name.to_string(), word), 0);
            }
        }
        for (id, node) in &state.nodes {
            let word = status(id, state, obs, now, heartbeat_timeout);
            *standing.entry((node.environment.to_string(), word)).or_default() += 1;
        }
        let shown = state.nodes.iter().take(NODES_SHOWN_MAX);
        let nodes = shown.filter_map(|(id, node)| {
            let labels = [
                ("environment", node.environment.to_string()),
                ("node", id.to_string()),
            ];
            Some((labels, health(id)?))
        });
        let environments = state.environments.iter().map(|environment| {
            let name = &environment.name;
            (name.to_string(), cluster::metrics(name, state, obs))
        });
        let mut unfinished = BTreeMap::from([("Running", 0), ("PendingApproval", 0), ("Paused", 0)]);
        for deployment in state.deployments.values() {
            let word = crate::views::deployment::status_name(deployment.status);
            *unfinished.entry(word).or_default() += 1;
        }
        let mut rollouts = BTreeMap::new();
        for environment in &state.environments {
            for word in ["forward", "held", "validating", "back"] {
                rollouts.insert((environment.name.to_string(), word), 0);
            }
        }
        for rollout in state.rollouts() {
            let place = (rollout.plan.environment.to_string(), phase(rollout));
            *rollouts.entry(place).or_default() += 1;
        }
        Self {
            nodes: nodes.collect(),
            standing,
            environments: environments.collect(),
            connected: obs.nodes().filter(|(_, seen)| seen.connected).count(),
            unfinished,
            rollouts,
            seq: state.seq,
            epoch: state.epoch,
            releases: state.modules.values().map(|module| module.releases.len()).sum(),
        }
    }

    fn write(&self, readings: &mut Readings<'_>, read_only: bool) -> fmt::Result {
        self.write_nodes(readings)?;
        self.write_environments(readings)?;
        let labelled = |(&word, &count): (&&'static str, &u32)| ([("status", word)], f64::from(count));
        readings.gauges(
            "hotswap_deployments_unfinished",
            "Deployments that have not ended, by status",
            self.unfinished.iter().map(labelled),
        )?;
        readings.gauges(
            "hotswap_rollouts",
            "Unfinished rollouts, by what they do",
            self.rollouts
                .iter()
                .map(|((environment, word), count)| (place(environment, "phase", word), f64::from(*count))),
        )?;
        readings.gauge("hotswap_log_seq", "The newest event of the log", self.seq as f64)?;
        readings.gauge("hotswap_log_epoch", "The leadership", self.epoch as f64)?;
        readings.gauge("hotswap_releases", "Releases known", self.releases as f64)?;
        readings.gauge(
            "hotswap_agents_connected",
            "Agents with a session",
            self.connected as f64,
        )?;
        readings.gauge(
            "hotswap_read_only",
            "1 while the disk is full and nothing can be changed",
            f64::from(u8::from(read_only)),
        )?;
        readings.gauges(
            "hotswap_build_info",
            "This server's version",
            [([("version", env!("CARGO_PKG_VERSION"))], 1.0)],
        )
    }

    fn write_nodes(&self, readings: &mut Readings<'_>) -> fmt::Result {
        let shown: [Gauge<NodeHealth>; 5] = [
            ("node_cpu_usage", "A node's CPU in use, in %", |health| {
                health.cpu_percent
            }),
            ("node_memory_usage", "A node's memory in use, in %", |health| {
                health.memory_percent
            }),
            (
                "node_latency",
                "Mean latency of a node's requests, in ms",
                |health| health.latency_ms,
            ),
            (
                "node_error_rate",
                "Errors among a node's requests, in %",
                |health| health.error_percent,
            ),
            (
                "node_requests_per_second",
                "A node's requests a second",
                |health| health.requests_per_second,
            ),
        ];
        for (name, help, value) in shown {
            let values = self
                .nodes
                .iter()
                .map(|(labels, health)| (labels.clone(), value(health)));
            readings.gauges(name, help, values)?;
        }
        readings.gauges(
            "hotswap_nodes",
            "Nodes, by environment and status",
            self.standing
                .iter()
                .map(|((environment, word), count)| (place(environment, "status", word), f64::from(*count))),
        )
    }

    fn write_environments(&self, readings: &mut Readings<'_>) -> fmt::Result {
        let shown: [Gauge<cluster::ClusterMetrics>; 5] = [
            (
                "hotswap_environment_cpu_usage",
                "Mean CPU in use of an environment's nodes, in %",
                |metrics| metrics.avg_cpu_usage,
            ),
            (
                "hotswap_environment_memory_usage",
                "Mean memory in use of an environment's nodes, in %",
                |metrics| metrics.avg_memory_usage,
            ),
            (
                "hotswap_environment_latency",
                "Mean latency of an environment's requests, in ms",
                |metrics| metrics.avg_latency,
            ),
            (
                "hotswap_environment_error_rate",
                "Errors among an environment's requests, in %",
                |metrics| metrics.error_rate,
            ),
            (
                "hotswap_environment_requests_per_second",
                "Requests a second of an environment's nodes together",
                |metrics| metrics.requests_per_second,
            ),
        ];
        for (name, help, value) in shown {
            let values = self
                .environments
                .iter()
                .map(|(environment, metrics)| ([("environment", environment.clone())], value(metrics)));
            readings.gauges(name, help, values)?;
        }
        Ok(())
    }
}

fn place(environment: &str, key: &'static str, word: &str) -> [(&'static str, String); 2] {
    [("environment", environment.to_owned()), (key, word.to_owned())]
}

fn phase(rollout: &Rollout) -> &'static str {
    match rollout.phase {
        Phase::Back { .. } => "back",
        Phase::Validating { .. } => "validating",
        Phase::Forward { .. } if rollout.held.is_some() => "held",
        Phase::Forward { .. } => "forward",
    }
}
