//! A plan as the API shows it.

use hotswap_core::ids::{EnvName, ModuleName, NodeId};
use hotswap_core::plan::{Action, EnvironmentPlan, Plan, StepPlan};
use hotswap_core::rollout::Gate;
use serde::Serialize;
use utoipa::ToSchema;

use super::cluster::rounded;
use super::sentence;
use super::time::iso8601;

/// What a deployment would do.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct PlanView {
    /// The module.
    #[schema(example = "payment-processor")]
    pub module_name: String,
    /// The version.
    #[schema(example = "2.1.0")]
    pub version: String,
    /// Digest of its package.
    pub digest: String,
    /// wasm, process, ebpf or kernel.
    pub kind: &'static str,
    /// How far it goes.
    #[schema(example = "Production")]
    pub target_environment: String,
    /// The seed of its draws. A deployment with this seed, made while nothing else begins, draws the same nodes.
    pub seed: u64,
    /// Whether a person must approve it before anything else.
    pub approval_required: bool,
    /// Its environments, in order, up to the first that it would fail in.
    pub environments: Vec<EnvironmentPlanView>,
}

/// What would happen in one environment.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct EnvironmentPlanView {
    /// The environment.
    #[schema(example = "Production")]
    pub environment: String,
    /// Direct, Rolling, BlueGreen or Canary.
    pub strategy: String,
    /// RollOut, Skip or Fail.
    pub action: &'static str,
    /// Why it is skipped or fails.
    pub reason: Option<String>,
    /// The version that it would go back to.
    pub base_version: Option<String>,
    /// What would block, hold or delay it as things are.
    pub waits: Vec<String>,
    /// The deployment that has the lock now.
    #[schema(format = "uuid")]
    pub behind: Option<String>,
    /// Nodes of its roster that can't run the release.
    pub unable: Vec<NodeReason>,
    /// Nodes that are left out.
    pub left_out: Vec<NodeReason>,
    /// Nodes that fetch, verify and compile the release while others run it, here and in the next environment.
    pub prefetching_nodes: u32,
    /// Its steps, in order.
    pub steps: Vec<StepPlanView>,
}

/// A node and what there is to say of it.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeReason {
    /// The node.
    pub node_id: String,
    /// Why.
    pub reason: String,
}

/// A step of a rollout.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct StepPlanView {
    /// From 1.
    pub step: u32,
    /// What it is, for people.
    pub message: String,
    /// Nodes that would join with it.
    pub joins: Vec<String>,
    /// Nodes that have the release with it.
    pub nodes: u32,
    /// The release's share of the requests on them, in %.
    pub weight: u8,
    /// Whether the release is only held in preview.
    pub preview: bool,
    /// Settled, Smoke, Soak, Judge or JudgedSoak.
    pub gate: &'static str,
    /// Its shortest time: settling and soak. ISO 8601.
    pub at_least: String,
    /// What the judge needs for a pass, where it judges.
    pub judge: Option<JudgeNeedView>,
}

/// What the judge needs for a pass, if the release is as good as the stable one.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct JudgeNeedView {
    /// About so many requests to the release; null where no number would do.
    pub requests: Option<u64>,
    /// Whether these are probes, which nodes send by themselves: there is nothing to compare with.
    pub probes: bool,
    /// Requests a second that the release would get at today's traffic.
    pub requests_per_second: f64,
    /// How long that takes at today's traffic, ISO 8601; null without traffic.
    pub takes: Option<String>,
}

/// A plan.
pub fn view(plan: &Plan, module: &ModuleName, target: &EnvName) -> PlanView {
    PlanView {
        module_name: module.to_string(),
        version: plan.release.version.to_string(),
        digest: plan.release.digest.to_string(),
        kind: plan.kind.name(),
        target_environment: target.to_string(),
        seed: plan.seed,
        approval_required: plan.approval,
        environments: plan.environments.iter().map(environment).collect(),
    }
}

fn environment(plan: &EnvironmentPlan) -> EnvironmentPlanView {
    let (action, reason, base, steps) = match &plan.action {
        Action::Skip { reason } => ("Skip", Some(reason.clone()), None, &[][..]),
        Action::Fail { reason } => ("Fail", Some(reason.clone()), None, &[][..]),
        Action::RollOut { base, steps } => ("RollOut", None, base.as_ref(), steps.as_slice()),
    };
    EnvironmentPlanView {
        environment: plan.environment.to_string(),
        strategy: plan.strategy.clone(),
        action,
        reason,
        base_version: base.map(|base| base.version.to_string()),
        waits: plan.waits.clone(),
        behind: plan.behind.map(|behind| behind.to_string()),
        unable: reasons(&plan.unable),
        left_out: reasons(&plan.left_out),
        prefetching_nodes: plan.prefetch,
        steps: (1..)
            .zip(steps)
            .map(|(number, planned)| step(number, planned))
            .collect(),
    }
}

fn reasons(nodes: &[(NodeId, String)]) -> Vec<NodeReason> {
    let reason = |(node, reason): &(NodeId, String)| NodeReason {
        node_id: node.to_string(),
        reason: reason.clone(),
    };
    nodes.iter().map(reason).collect()
}

fn step(number: u32, planned: &StepPlan) -> StepPlanView {
    let judge = planned.judged.map(|need| JudgeNeedView {
        requests: need.requests,
        probes: need.probes,
        requests_per_second: rounded(need.per_second),
        takes: need.takes.map(iso8601),
    });
    StepPlanView {
        step: number,
        message: sentence::step(&planned.step),
        joins: planned.joins.iter().map(ToString::to_string).collect(),
        nodes: planned.step.upto,
        weight: planned.step.weight,
        preview: planned.step.preview,
        gate: match planned.step.gate {
            Gate::Settled => "Settled",
            Gate::Smoke => "Smoke",
            Gate::Soak => "Soak",
            Gate::Judge => "Judge",
            Gate::JudgedSoak => "JudgedSoak",
        },
        at_least: iso8601(planned.at_least),
        judge,
    }
}
