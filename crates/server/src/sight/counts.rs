//! What was decided since this process started, counted from committed events.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

use hotswap_core::event::{Event, Logged};
use hotswap_core::ids::{DeploymentId, EnvName, ModuleName};
use hotswap_core::rollout::BackReason;
use hotswap_core::stage::{Deployment, DeploymentStatus, StageKind, StageStatus};
use hotswap_core::state::State;
use hotswap_telemetry::exposition::prometheus_client::metrics::counter::Counter;
use hotswap_telemetry::exposition::prometheus_client::metrics::exemplar::HistogramWithExemplars;
use hotswap_telemetry::exposition::prometheus_client::metrics::family::Family;
use hotswap_telemetry::exposition::prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use hotswap_telemetry::exposition::prometheus_client::registry::Registry;
use hotswap_telemetry::exposition::{Labels, Listed};
use parking_lot::Mutex;

/// Modules that have series of their own; later ones are counted together as `other`, so that a fleet with thousands
/// of modules doesn't make tens of thousands of series.
const MODULES_LABELLED_MAX: usize = 200;
/// From a second to about nine hours.
const DURATION_BUCKETS_S: (f64, f64, u16) = (1.0, 2.0, 16);
/// From 0.1 ms to about 1.6 s.
const COMMIT_BUCKETS_S: (f64, f64, u16) = (0.000_1, 2.0, 15);

type ByLabels = Family<Labels, Counter>;
type Durations = Family<Labels, HistogramWithExemplars<Labels>, fn() -> HistogramWithExemplars<Labels>>;

/// Counters of what was decided. They begin at 0 with the process, as Prometheus expects.
#[derive(Debug)]
pub struct Counts {
    started: ByLabels,
    completed: ByLabels,
    failed: ByLabels,
    cancelled: ByLabels,
    rolled_back: ByLabels,
    duration: Durations,
    approvals_requested: ByLabels,
    approvals_granted: ByLabels,
    approvals_rejected: ByLabels,
    modules_deployed: ByLabels,
    nodes_updated: ByLabels,
    exclusions: ByLabels,
    events: Counter,
    commits: Histogram,
    answers: ByLabels,
    modules: Mutex<BTreeSet<ModuleName>>,
}

impl Default for Counts {
    fn default() -> Self {
        let durations: fn() -> HistogramWithExemplars<Labels> = || {
            let (start, factor, length) = DURATION_BUCKETS_S;
            HistogramWithExemplars::new(exponential_buckets(start, factor, length))
        };
        let (start, factor, length) = COMMIT_BUCKETS_S;
        Self {
            started: Family::default(),
            completed: Family::default(),
            failed: Family::default(),
            cancelled: Family::default(),
            rolled_back: Family::default(),
            duration: Family::new_with_constructor(durations),
            approvals_requested: Family::default(),
            approvals_granted: Family::default(),
            approvals_rejected: Family::default(),
            modules_deployed: Family::default(),
            nodes_updated: Family::default(),
            exclusions: Family::default(),
            events: Counter::default(),
            commits: Histogram::new(exponential_buckets(start, factor, length)),
            answers: Family::default(),
            modules: Mutex::default(),
        }
    }
}

impl Counts {
    /// Lets a registry read them.
    pub(super) fn register(&self, registry: &mut Registry) {
        let families = [
            ("deployments_started", "Deployments asked for", &self.started),
            (
                "deployments_completed",
                "Deployments that succeeded",
                &self.completed,
            ),
            ("deployments_failed", "Deployments that failed", &self.failed),
            (
                "deployments_cancelled",
                "Deployments that a person ended",
                &self.cancelled,
            ),
            (
                "deployments_rolled_back",
                "Rollouts that went back, and deployments undone later, by cause",
                &self.rolled_back,
            ),
            (
                "approval_requests",
                "Deployments that asked for a person's approval",
                &self.approvals_requested,
            ),
            ("approvals_granted", "Approvals given", &self.approvals_granted),
            (
                "approvals_rejected",
                "Approvals refused or expired",
                &self.approvals_rejected,
            ),
            (
                "modules_deployed",
                "Releases that became an environment's stable one",
                &self.modules_deployed,
            ),
            (
                "nodes_updated",
                "Nodes that took a release over, counted when their stage ended",
                &self.nodes_updated,
            ),
            (
                "hotswap_nodes_excluded",
                "Nodes that counted as failed in a rollout, by cause",
                &self.exclusions,
            ),
            (
                "hotswap_http_answers",
                "Answers of the API, by class of status",
                &self.answers,
            ),
        ];
        for (name, help, family) in families {
            let metric = family.clone();
            registry.register_collector(Box::new(Listed { name, help, metric }));
        }
        registry.register_collector(Box::new(Listed {
            name: "deployment_duration_seconds",
            help: "From a deployment's request to its end, by outcome; exemplars are deployments' traces",
            metric: self.duration.clone(),
        }));
        registry.register_collector(Box::new(Listed {
            name: "hotswap_events",
            help: "Events committed",
            metric: self.events.clone(),
        }));
        registry.register_collector(Box::new(Listed {
            name: "hotswap_commit_seconds",
            help: "From a batch's end to its durability",
            metric: self.commits.clone(),
        }));
    }

    /// A batch became durable.
    pub fn committed(&self, took: Duration) {
        self.commits.observe(took.as_secs_f64());
    }

    /// The API answered.
    pub fn answered(&self, status: u16) {
        let class = match status {
            0..300 => "2xx",
            300..400 => "3xx",
            400..500 => "4xx",
            500.. => "5xx",
        };
        self.answers
            .get_or_create(&vec![("class", class.to_owned())])
            .inc();
    }

    /// Counts an event that was committed and folded into `state`.
    pub fn note(&self, state: &State, logged: &Logged) {
        self.events.inc();
        match &logged.event {
            Event::DeploymentRequested {
                request, approval, ..
            } => {
                self.count(&self.started, &request.target, &request.module);
                if *approval {
                    self.count(&self.approvals_requested, &request.target, &request.module);
                }
            }
            Event::ReversalRequested {
                environment, module, ..
            } => self.count(&self.started, environment, module),
            Event::ApprovalDecided {
                deployment, approved, ..
            } => {
                let which = if *approved {
                    &self.approvals_granted
                } else {
                    &self.approvals_rejected
                };
                self.count_of(state, *deployment, which);
            }
            Event::ApprovalExpired { deployment } => {
                self.count_of(state, *deployment, &self.approvals_rejected);
            }
            Event::StageFinished {
                deployment,
                stage,
                status: StageStatus::Succeeded,
                nodes_deployed,
                ..
            } => {
                let Some(deployment) = state.deployment(deployment) else {
                    return;
                };
                if let Some(StageKind::Deploy(environment)) =
                    deployment.stages.get(*stage as usize).map(|stage| &stage.kind)
                {
                    let labels = self.labels(environment, &deployment.module);
                    self.nodes_updated
                        .get_or_create(&labels)
                        .inc_by(u64::from(*nodes_deployed));
                }
            }
            Event::DeploymentFinished {
                deployment, status, ..
            } => {
                if let Some(deployment) = state.deployment(deployment) {
                    self.finished(deployment, *status);
                }
            }
            Event::BackStarted { key, reason } => {
                if let Some(cause) = cause_of(reason) {
                    self.rolled_back(&key.environment, &key.module, cause);
                }
            }
            Event::DeploymentRolledBack { deployment, .. } => {
                if let Some(deployment) = state.deployment(deployment) {
                    self.rolled_back(&deployment.target, &deployment.module, "undone");
                }
            }
            Event::NodeExcluded { key, reason, .. } => {
                use hotswap_core::rollout::Exclusion;
                let cause = match reason {
                    Exclusion::Veto { .. } => "veto",
                    Exclusion::Smoke { .. } => "smoke",
                    Exclusion::NotReady { .. } => "not_ready",
                    Exclusion::Silent { .. } => "silent",
                };
                let mut labels = self.labels(&key.environment, &key.module);
                labels.push(("cause", cause.to_owned()));
                self.exclusions.get_or_create(&labels).inc();
            }
            Event::StableSet {
                key,
                release: Some(_),
                ..
            } => self.count(&self.modules_deployed, &key.environment, &key.module),
            _ => {}
        }
    }

    fn finished(&self, deployment: &Deployment, status: DeploymentStatus) {
        let (which, outcome) = match status {
            DeploymentStatus::Succeeded => (&self.completed, "succeeded"),
            DeploymentStatus::Cancelled => (&self.cancelled, "cancelled"),
            _ => (&self.failed, "failed"),
        };
        self.count(which, &deployment.target, &deployment.module);
        let Some(ended) = deployment.ended else { return };
        let took = Duration::from_millis(ended.core.since(deployment.requested.core).0);
        let labels = vec![
            ("environment", deployment.target.to_string()),
            ("outcome", outcome.to_owned()),
        ];
        let exemplar = vec![("trace_id", deployment.trace_id.clone())];
        let at = SystemTime::UNIX_EPOCH + Duration::from_millis(ended.wall.0);
        self.duration
            .get_or_create(&labels)
            .observe(took.as_secs_f64(), Some(exemplar), Some(at));
    }

    fn rolled_back(&self, environment: &EnvName, module: &ModuleName, cause: &str) {
        let mut labels = self.labels(environment, module);
        labels.push(("cause", cause.to_owned()));
        self.rolled_back.get_or_create(&labels).inc();
    }

    fn count(&self, which: &ByLabels, environment: &EnvName, module: &ModuleName) {
        which.get_or_create(&self.labels(environment, module)).inc();
    }

    fn count_of(&self, state: &State, deployment: DeploymentId, which: &ByLabels) {
        if let Some(deployment) = state.deployment(&deployment) {
            self.count(which, &deployment.target, &deployment.module);
        }
    }

    fn labels(&self, environment: &EnvName, module: &ModuleName) -> Labels {
        let mut known = self.modules.lock();
        if !known.contains(module) && known.len() < MODULES_LABELLED_MAX {
            known.insert(module.clone());
        }
        let module = if known.contains(module) {
            module.to_string()
        } else {
            "other".to_owned()
        };
        vec![("environment", environment.to_string()), ("module", module)]
    }
}

/// The cause's label; `None` for a way back that is a deployment of its own and was counted with the one it undoes.
fn cause_of(reason: &BackReason) -> Option<&'static str> {
    Some(match reason {
        BackReason::Excluded { .. } => "nodes_failed",
        BackReason::Verdict { .. } => "verdict",
        BackReason::Validation { .. } => "validation",
        BackReason::Aborted { .. } => "aborted",
        BackReason::Expired { .. } => "expired",
        BackReason::Inconclusive { .. } => "inconclusive",
        BackReason::ReleaseHeld { .. } => "release_held",
        BackReason::Superseded { .. } => "superseded",
        BackReason::Requested { .. } => return None,
    })
}
