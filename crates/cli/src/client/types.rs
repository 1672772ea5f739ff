//! What the API's JSON says. Fields that a client doesn't need are left out, unknown ones are ignored.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// `POST /deployments`.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct NewDeployment {
    pub(crate) module_name: String,
    pub(crate) version: String,
    pub(crate) target_environment: String,
    pub(crate) requester_email: String,
    pub(crate) require_approval: bool,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) description: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) metadata: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) allow_downgrade: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) supersede: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) seed: Option<u64>,
}

/// The answer to it.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Accepted {
    pub(crate) execution_id: String,
    pub(crate) status: String,
}

/// The answer to a rollback.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RollbackAccepted {
    pub(crate) rollback_id: String,
    #[serde(default)]
    pub(crate) nodes_affected: u32,
}

/// A deployment in a list.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct DeploymentRow {
    pub(crate) execution_id: String,
    pub(crate) module_name: String,
    pub(crate) version: String,
    pub(crate) target_environment: String,
    pub(crate) status: String,
    pub(crate) start_time: String,
    pub(crate) duration: Option<String>,
}

/// A deployment with its stages.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Deployment {
    pub(crate) execution_id: String,
    pub(crate) module_name: String,
    pub(crate) version: String,
    pub(crate) target_environment: String,
    pub(crate) status: String,
    pub(crate) start_time: String,
    pub(crate) duration: Option<String>,
    #[serde(default)]
    pub(crate) stages: Vec<Stage>,
    #[serde(default)]
    pub(crate) message: Option<String>,
}

impl Deployment {
    /// Whether it can't change by itself any more.
    pub(crate) fn is_finished(&self) -> bool {
        matches!(
            self.status.as_str(),
            "Succeeded" | "Failed" | "Cancelled" | "RolledBack"
        )
    }

    /// What it does: the release on its way, or the module that is taken away.
    pub(crate) fn title(&self) -> String {
        let (name, environment) = (&self.module_name, &self.target_environment);
        match self.version.as_str() {
            "" => format!("{name} leaves {environment}"),
            version => format!("{name} {version} to {environment}"),
        }
    }

    /// A stage by its name.
    pub(crate) fn stage(&self, name: &str) -> Option<&Stage> {
        self.stages.iter().find(|stage| stage.name == name)
    }
}

/// One stage of a deployment.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Stage {
    pub(crate) name: String,
    pub(crate) status: String,
    #[serde(default)]
    pub(crate) start_time: Option<String>,
    #[serde(default)]
    pub(crate) duration: Option<String>,
    #[serde(default)]
    pub(crate) strategy: Option<String>,
    #[serde(default)]
    pub(crate) nodes_deployed: Option<u32>,
    #[serde(default)]
    pub(crate) nodes_failed: Option<u32>,
    #[serde(default)]
    pub(crate) message: Option<String>,
}

/// An environment in a list.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ClusterRow {
    pub(crate) environment: String,
    pub(crate) total_nodes: u32,
    pub(crate) healthy_nodes: u32,
    pub(crate) is_healthy: bool,
}

/// An environment with its nodes.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Cluster {
    pub(crate) environment: String,
    pub(crate) total_nodes: u32,
    pub(crate) healthy_nodes: u32,
    pub(crate) unhealthy_nodes: u32,
    pub(crate) metrics: Metrics,
    pub(crate) nodes: Vec<ClusterNode>,
}

/// Averages over an environment's nodes.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Metrics {
    pub(crate) avg_cpu_usage: f64,
    pub(crate) avg_memory_usage: f64,
    pub(crate) avg_latency: f64,
    pub(crate) error_rate: f64,
    pub(crate) requests_per_second: f64,
}

/// A node of an environment.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ClusterNode {
    pub(crate) node_id: String,
    pub(crate) hostname: String,
    pub(crate) status: String,
    pub(crate) last_heartbeat: Option<String>,
}

/// A node of the fleet.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Node {
    pub(crate) node_id: String,
    pub(crate) environment: String,
    pub(crate) status: String,
    #[serde(default)]
    pub(crate) last_heartbeat: Option<String>,
    #[serde(default)]
    pub(crate) ingress: Option<String>,
    /// What it reports of each module.
    #[serde(default)]
    pub(crate) modules: Vec<NodeModule>,
    /// Its certificate, as it came.
    #[serde(default)]
    pub(crate) certificate: Option<serde_json::Value>,
}

impl Node {
    /// What it runs, by its own report: module and version; two versions where both get requests.
    pub(crate) fn running(&self) -> impl Iterator<Item = (&str, &str)> {
        self.modules.iter().flat_map(|module| {
            module
                .routes
                .iter()
                .map(|route| (module.module_name.as_str(), route.version.as_str()))
        })
    }
}

/// What a node reports of one module.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct NodeModule {
    pub(crate) module_name: String,
    #[serde(default)]
    pub(crate) routes: Vec<NodeRoute>,
}

/// A release that gets requests on a node.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct NodeRoute {
    pub(crate) version: String,
}

/// A module with its versions.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Module {
    pub(crate) module_name: String,
    #[serde(default)]
    pub(crate) versions: Vec<Release>,
    #[serde(default)]
    pub(crate) environments: Vec<Stable>,
}

/// A release of a module.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Release {
    pub(crate) version: String,
    pub(crate) digest: String,
    pub(crate) size: u64,
    pub(crate) kind: String,
    pub(crate) pushed_at: String,
    #[serde(default)]
    pub(crate) hold_reason: Option<String>,
    #[serde(default)]
    pub(crate) yank_reason: Option<String>,
}

/// What an environment runs of a module.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Stable {
    pub(crate) environment: String,
    pub(crate) version: String,
}

/// Why a deployment stands as it does.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Why {
    pub(crate) status: String,
    pub(crate) waits: Vec<Wait>,
    pub(crate) decisions: Vec<Decision>,
}

/// Something that a deployment waits for.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Wait {
    pub(crate) message: String,
}

/// A decision.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Decision {
    pub(crate) time: String,
    pub(crate) stage: String,
    pub(crate) message: String,
    /// The event.
    #[serde(default)]
    pub(crate) data: serde_json::Value,
}

/// The candidate-versus-control evidence of a deployment.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Analysis {
    /// Of its judged rollouts, in order.
    pub(crate) rollouts: Vec<Judged>,
}

/// The evidence of one rollout.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Judged {
    pub(crate) environment: String,
    pub(crate) candidate: Option<String>,
    pub(crate) control: Option<String>,
    /// The step that ran last, from 1.
    pub(crate) step: u32,
    /// What the judge says, as a sentence.
    pub(crate) verdict: String,
    /// pass, fail or inconclusive.
    pub(crate) outcome: String,
    #[serde(default)]
    pub(crate) strategy: String,
    pub(crate) steps: Vec<JudgedStep>,
    /// Interval by interval.
    #[serde(default)]
    pub(crate) series: Vec<JudgedPoint>,
    /// When the policy first said fail.
    pub(crate) failed_at: Option<String>,
    pub(crate) failed_verdict: Option<String>,
    /// When it really went back.
    pub(crate) went_back_at: Option<String>,
    pub(crate) went_back: Option<String>,
}

/// What was counted in an interval, and the evidence after it.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct JudgedPoint {
    #[serde(default)]
    pub(crate) evidence: Vec<Evidence>,
    pub(crate) candidate: Arm,
    pub(crate) control: Arm,
}

/// One signal's evidence, as log10.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Evidence {
    pub(crate) signal: String,
    pub(crate) fail: f64,
    pub(crate) fail_at: f64,
    pub(crate) pass: f64,
    pub(crate) pass_at: f64,
}

impl Judged {
    /// The sums of the step that ran last.
    pub(crate) fn current(&self) -> Option<&JudgedStep> {
        self.steps.iter().find(|step| step.step == self.step)
    }
}

/// What was counted in a step.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct JudgedStep {
    pub(crate) step: u32,
    /// What it is, for people.
    pub(crate) plan: String,
    pub(crate) began: Option<String>,
    /// What the judge said last in it.
    #[serde(default)]
    pub(crate) verdict: String,
    /// When the policy's pass came, and when the step really was done, by what.
    pub(crate) passed_at: Option<String>,
    pub(crate) completed_at: Option<String>,
    pub(crate) completed: Option<String>,
    pub(crate) candidate: Arm,
    pub(crate) control: Arm,
}

/// One arm's counts.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Arm {
    pub(crate) requests: u64,
    pub(crate) errors: u64,
    /// In %.
    pub(crate) error_rate: f64,
    /// In ms.
    pub(crate) latency_p99: Option<f64>,
    #[serde(default)]
    pub(crate) probes: u64,
    /// In ms.
    pub(crate) cpu_per_request: Option<f64>,
    /// In KiB.
    pub(crate) memory_per_instance: Option<f64>,
}
