//! The judge's view of a deployment: its evidence from the log, folded as the judge folded it.

use std::collections::BTreeMap;

use hotswap_core::analysis::{ArmCounts, Block, Judge};
use hotswap_core::event::{Event, Logged};
use hotswap_core::ids::RolloutId;
use hotswap_core::rollout::{Rollout, RolloutPlan};
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
}

/// What was counted in a step.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct StepAnalysis {
    /// Which, from 1.
    pub step: u32,
    /// What it is, for people.
    pub plan: String,
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
    /// The candidate's counts.
    pub candidate: ArmView,
    /// The control's.
    pub control: ArmView,
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
}

/// The evidence of a deployment, from its events in the log.
pub fn view(execution_id: String, events: &[Logged]) -> AnalysisView {
    let mut cases: BTreeMap<RolloutId, Case<'_>> = BTreeMap::new();
    for logged in events {
        match &logged.event {
            Event::RolloutStarted { plan } if plan.steps.iter().any(|step| step.gate.is_judged()) => {
                cases.insert(plan.id, Case::new(plan, logged));
            }
            Event::StepStarted { key, step, .. } => {
                if let Some(case) = cases.get_mut(&key.rollout) {
                    case.begin_step(*step);
                }
            }
            Event::EvidenceRecorded {
                key,
                step,
                block,
                late,
                ..
            } => {
                if let Some(case) = cases.get_mut(&key.rollout) {
                    case.fold(logged, *step, block.as_deref(), late);
                }
            }
            _ => {}
        }
    }
    AnalysisView {
        execution_id,
        rollouts: cases.into_values().map(Case::view).collect(),
    }
}

/// A rollout whose evidence is folded.
struct Case<'a> {
    plan: &'a RolloutPlan,
    judge: Judge,
    step: u32,
    steps: BTreeMap<u32, Block>,
    series: Vec<PointView>,
}

impl<'a> Case<'a> {
    fn new(plan: &'a RolloutPlan, logged: &Logged) -> Self {
        let judge = Rollout::new(plan.clone(), logged.at).judge;
        Self {
            plan,
            judge,
            step: 0,
            steps: BTreeMap::new(),
            series: Vec::new(),
        }
    }

    fn begin_step(&mut self, step: u32) {
        self.step = step;
        if self
            .plan
            .steps
            .get(step as usize)
            .is_some_and(|step| step.gate.is_judged())
        {
            self.judge.begin_step(step);
            self.steps.entry(step).or_default();
        }
    }

    fn fold(&mut self, logged: &Logged, step: u32, block: Option<&Block>, late: &[(u32, Block)]) {
        if let Some(block) = block {
            self.judge.fold(block);
            self.steps.entry(step).or_default().merge(block);
            self.series.push(PointView {
                timestamp: rfc3339(logged.wall),
                step: step + 1,
                candidate: arm(&block.candidate),
                control: arm(&block.control),
            });
        }
        for (step, block) in late {
            self.judge.fold_late(*step, block);
            self.steps.entry(*step).or_default().merge(block);
        }
    }

    fn view(self) -> RolloutAnalysis {
        let verdict = self.judge.verdict();
        let data = serde_json::to_value(&verdict).unwrap_or(Value::Null);
        let steps = self.steps.iter().map(|(&step, block)| StepAnalysis {
            step: step + 1,
            plan: self
                .plan
                .steps
                .get(step as usize)
                .map(sentence::step)
                .unwrap_or_default(),
            candidate: arm(&block.candidate),
            control: arm(&block.control),
        });
        RolloutAnalysis {
            environment: self.plan.environment.to_string(),
            strategy: self.plan.strategy.clone(),
            candidate: self.plan.candidate.as_ref().map(ToString::to_string),
            control: self.plan.base.as_ref().map(ToString::to_string),
            step: self.step + 1,
            verdict: verdict.to_string(),
            outcome: data
                .get("outcome")
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned(),
            steps: steps.collect(),
            series: self.series,
            data,
        }
    }
}

fn arm(counts: &ArmCounts) -> ArmView {
    let quantile = |q| counts.latency.quantile(q).map(|us| rounded(us as f64 / 1e3));
    let share = if counts.requests == 0 {
        0.0
    } else {
        counts.errors as f64 / counts.requests as f64
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
    }
}
