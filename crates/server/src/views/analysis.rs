//! The judge's view of a deployment: its evidence from the log, folded as the judge folded it.

use std::collections::BTreeMap;

use hotswap_core::analysis::{ArmCounts, Block, NodeArm, NodeCounts, Outcome, Settings};
use hotswap_core::attribution::attribute;
use hotswap_core::event::Logged;
use hotswap_core::replay::{Moment, Point, Replayed, ReplayedStep, SignalEvidence, replay};
use hotswap_core::rollout::StepPass;
use hotswap_core::state::State;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::cluster::rounded;
use super::sentence;
use super::time::rfc3339;

/// The candidate-versus-control evidence of a deployment.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct AnalysisView {
    /// Which deployment.
    #[schema(format = "uuid")]
    pub execution_id: String,
    /// Its rollouts that are judged, in order.
    pub rollouts: Vec<RolloutAnalysis>,
}

/// The evidence of one rollout.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct RolloutAnalysis {
    /// Where.
    pub environment: String,
    /// The strategy.
    pub strategy: String,
    /// The release on trial.
    pub candidate: Option<String>,
    /// The release that it is compared with.
    pub control: Option<String>,
    /// The step that ran last, from 1.
    pub step: u32,
    /// What the judge says of all the evidence so far, as a sentence.
    pub verdict: String,
    /// pass, fail or inconclusive.
    pub outcome: String,
    /// The verdict with each signal's evidence, as data.
    #[schema(value_type = Object)]
    pub data: Value,
    /// Its steps, with the sums of what was counted in each.
    pub steps: Vec<StepAnalysis>,
    /// What was counted, interval by interval.
    pub series: Vec<PointView>,
    /// Where the harm is, once a fail is shown: on all nodes, on those of a label, or on single ones.
    #[schema(value_type = Option<Object>)]
    pub attribution: Option<Value>,
    /// The policy that this was folded under.
    #[schema(value_type = Object)]
    pub policy: Value,
    /// When this policy first said fail.
    #[schema(format = "date-time")]
    pub failed_at: Option<String>,
    /// What it said then.
    pub failed_verdict: Option<String>,
    /// When the rollout really went back.
    #[schema(format = "date-time")]
    pub went_back_at: Option<String>,
    /// Why it did.
    pub went_back: Option<String>,
}

/// What was counted in a step.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct StepAnalysis {
    /// Which, from 1.
    pub step: u32,
    /// What it is, for people.
    pub plan: String,
    /// When it began.
    #[schema(format = "date-time")]
    pub began: String,
    /// What the judge said last in it.
    pub verdict: String,
    /// When this policy's pass came.
    #[schema(format = "date-time")]
    pub passed_at: Option<String>,
    /// When it really was done.
    #[schema(format = "date-time")]
    pub completed_at: Option<String>,
    /// By what.
    pub completed: Option<String>,
    /// The candidate's sums.
    pub candidate: ArmView,
    /// The control's.
    pub control: ArmView,
}

/// What was counted in an interval.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct PointView {
    /// When it was recorded.
    #[schema(format = "date-time")]
    pub timestamp: String,
    /// In which step, from 1.
    pub step: u32,
    /// pass, fail or inconclusive.
    pub outcome: String,
    /// Each signal's evidence after it.
    pub evidence: Vec<EvidenceView>,
    /// The candidate's counts.
    pub candidate: ArmView,
    /// The control's.
    pub control: ArmView,
}

/// One signal's evidence, as log10 of e-values.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct EvidenceView {
    /// errors, latency, probes, cpu or memory.
    pub signal: String,
    /// For harm, over the rollout so far.
    pub fail: f64,
    /// Where the signal alone fails.
    pub fail_at: f64,
    /// Against harm beyond the margin, at this step.
    pub pass: f64,
    /// Where it passes.
    pub pass_at: f64,
}

/// One arm's counts.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ArmView {
    /// Users' requests.
    pub requests: u64,
    /// Errors among them.
    pub errors: u64,
    /// The same, in %.
    pub error_rate: f64,
    /// The latency below which half of the requests stayed, in ms; null without requests.
    pub latency_p50: Option<f64>,
    /// The same for 95 %.
    pub latency_p95: Option<f64>,
    /// The same for 99 %.
    pub latency_p99: Option<f64>,
    /// Probes.
    pub probes: u64,
    /// Failed ones among them.
    pub probe_errors: u64,
    /// Mean processor time of a request, in ms, over the nodes that are kept apart; null where it isn't metered.
    pub cpu_per_request: Option<f64>,
    /// Mean memory of an instance, in KiB, over the same.
    pub memory_per_instance: Option<f64>,
}

/// The evidence of a deployment, from its events in the log, under the policies it had but for these settings.
pub fn view(execution_id: String, events: &[Logged], state: &State, settings: &Settings) -> AnalysisView {
    let rollouts = replay(events, |policy| {
        // What is faulty was refused before; what remains leaves a policy as it is.
        let _ = policy.set_all(settings);
    });
    AnalysisView {
        execution_id,
        rollouts: rollouts
            .into_iter()
            .map(|rollout| rollout_view(&rollout, state))
            .collect(),
    }
}

fn rollout_view(rollout: &Replayed<'_>, state: &State) -> RolloutAnalysis {
    let verdict = rollout.judge.verdict();
    let value = |value: serde_json::Result<Value>| value.unwrap_or(Value::Null);
    let unlabelled = BTreeMap::new();
    let found = attribute(&rollout.judge, &rollout.order, |node| {
        state.nodes.get(node).map_or(&unlabelled, |record| &record.labels)
    });
    let steps = rollout.steps.iter().map(|step| step_view(step, rollout));
    RolloutAnalysis {
        environment: rollout.plan.environment.to_string(),
        strategy: rollout.plan.strategy.clone(),
        candidate: rollout.plan.candidate.as_ref().map(ToString::to_string),
        control: rollout.plan.base.as_ref().map(ToString::to_string),
        step: rollout.step + 1,
        outcome: outcome(verdict.outcome),
        steps: steps.collect(),
        series: rollout.points.iter().map(point).collect(),
        attribution: found.map(|found| value(serde_json::to_value(found))),
        policy: value(serde_json::to_value(rollout.judge.policy())),
        failed_at: rollout.failed.as_ref().map(|(at, _)| time(*at)),
        failed_verdict: rollout.failed.as_ref().map(|(_, verdict)| verdict.to_string()),
        went_back_at: rollout.back.map(|(at, _)| time(at)),
        went_back: rollout.back.map(|(_, reason)| reason.to_string()),
        verdict: verdict.to_string(),
        data: value(serde_json::to_value(&verdict)),
    }
}

fn step_view(step: &ReplayedStep<'_>, rollout: &Replayed<'_>) -> StepAnalysis {
    let planned = rollout.plan.steps.get(step.step as usize);
    let by = |pass: &StepPass| match pass {
        StepPass::Gate { detail } | StepPass::Inconclusive { detail } => detail.clone(),
        StepPass::Override { who } => format!("{who}'s word"),
        StepPass::Empty => "all of its nodes moved away".to_owned(),
    };
    StepAnalysis {
        step: step.step + 1,
        plan: planned.map(sentence::step).unwrap_or_default(),
        began: time(step.began),
        verdict: step.verdict.to_string(),
        passed_at: step.passed.map(time),
        completed_at: step.completed.map(|(at, _)| time(at)),
        completed: step.completed.map(|(_, pass)| by(pass)),
        candidate: arm(&step.sums.candidate, &step.sums, |node| &node.candidate),
        control: arm(&step.sums.control, &step.sums, |node| &node.control),
    }
}

fn point(point: &Point<'_>) -> PointView {
    PointView {
        timestamp: time(point.at),
        step: point.step + 1,
        outcome: outcome(point.outcome),
        evidence: point.evidence.iter().map(evidence).collect(),
        candidate: arm(&point.block.candidate, point.block, |node| &node.candidate),
        control: arm(&point.block.control, point.block, |node| &node.control),
    }
}

fn evidence(evidence: &SignalEvidence) -> EvidenceView {
    EvidenceView {
        signal: evidence.signal.to_string(),
        fail: evidence.fail_log10,
        fail_at: evidence.fail_at_log10,
        pass: evidence.pass_log10,
        pass_at: evidence.pass_at_log10,
    }
}

fn time(at: Moment) -> String {
    rfc3339(at.wall)
}

fn outcome(outcome: Outcome) -> String {
    match outcome {
        Outcome::Pass => "pass",
        Outcome::Fail => "fail",
        Outcome::Inconclusive => "inconclusive",
    }
    .to_owned()
}

fn arm(counts: &ArmCounts, block: &Block, of: fn(&NodeCounts) -> &NodeArm) -> ArmView {
    let quantile = |q| counts.latency.quantile(q).map(|us| rounded(us as f64 / 1e3));
    let share = if counts.requests == 0 {
        0.0
    } else {
        counts.errors as f64 / counts.requests as f64
    };
    let mean = |level: fn(&NodeArm) -> Option<f64>| {
        let levels: Vec<f64> = block.nodes.iter().filter_map(|node| level(of(node))).collect();
        (!levels.is_empty()).then(|| levels.iter().sum::<f64>() / levels.len() as f64)
    };
    ArmView {
        requests: counts.requests,
        errors: counts.errors,
        error_rate: rounded(share * 100.0),
        latency_p50: quantile(0.5),
        latency_p95: quantile(0.95),
        latency_p99: quantile(0.99),
        probes: counts.probes,
        probe_errors: counts.probe_errors,
        cpu_per_request: mean(NodeArm::cpu_per_request_us).map(|us| rounded(us / 1e3)),
        memory_per_instance: mean(NodeArm::memory_per_instance_kib).map(rounded),
    }
}
