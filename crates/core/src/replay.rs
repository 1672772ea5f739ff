//! A deployment's recorded evidence, folded again: as it was judged, or under another policy. One fold over its events,
//! which shows that they are complete.

use std::collections::BTreeMap;

use crate::analysis::{Block, Finding, Judge, JudgePolicy, Outcome, Signal, Verdict};
use crate::event::{Event, Logged};
use crate::ids::{NodeId, RolloutId};
use crate::rollout::{BackReason, Rollout, RolloutPlan, StepPass};
use crate::time::{CoreTime, WallTime};

/// A judged rollout's evidence, folded.
#[derive(Clone, Debug)]
pub struct Replayed<'a> {
    /// What it was to do.
    pub plan: &'a RolloutPlan,
    /// When it began.
    pub began: Moment,
    /// Its nodes by place, those that came late at the end.
    pub order: Vec<NodeId>,
    /// The judge after all that was recorded.
    pub judge: Judge,
    /// The step that ran last.
    pub step: u32,
    /// Its judged steps, in order.
    pub steps: Vec<ReplayedStep<'a>>,
    /// Its intervals, in order.
    pub points: Vec<Point<'a>>,
    /// When this policy first said fail, and the verdict then.
    pub failed: Option<(Moment, Verdict)>,
    /// When it really went back, and why.
    pub back: Option<(Moment, &'a BackReason)>,
}

/// When something was recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// By the core's clock.
    pub core: CoreTime,
    /// By the wall's.
    pub wall: WallTime,
}

impl Moment {
    fn of(logged: &Logged) -> Self {
        Self {
            core: logged.at,
            wall: logged.wall,
        }
    }
}

/// One judged step.
#[derive(Clone, Debug)]
pub struct ReplayedStep<'a> {
    /// Which, from 0.
    pub step: u32,
    /// When it began.
    pub began: Moment,
    /// All that was counted in it, what came late included.
    pub sums: Block,
    /// What the judge said last in it.
    pub verdict: Verdict,
    /// When this policy's pass came.
    pub passed: Option<Moment>,
    /// When it really was done, and by what.
    pub completed: Option<(Moment, &'a StepPass)>,
}

/// One interval's evidence.
#[derive(Clone, Debug)]
pub struct Point<'a> {
    /// When it was recorded.
    pub at: Moment,
    /// In which step, from 0.
    pub step: u32,
    /// What was counted.
    pub block: &'a Block,
    /// What the judge said then.
    pub outcome: Outcome,
    /// Each signal's evidence then.
    pub evidence: Vec<SignalEvidence>,
}

/// One signal's evidence at a point, as log10 of e-values.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SignalEvidence {
    /// Which.
    pub signal: Signal,
    /// For harm, over the rollout so far.
    pub fail_log10: f64,
    /// Where it alone fails.
    pub fail_at_log10: f64,
    /// Against harm beyond the margin, at this step.
    pub pass_log10: f64,
    /// Where it passes.
    pub pass_at_log10: f64,
}

impl From<&Finding> for SignalEvidence {
    fn from(finding: &Finding) -> Self {
        Self {
            signal: finding.signal,
            fail_log10: finding.fail_log10,
            fail_at_log10: finding.fail_at_log10,
            pass_log10: finding.pass_log10,
            pass_at_log10: finding.pass_at_log10,
        }
    }
}

/// Folds the judged rollouts of a deployment's events. `policy` may change each one's policy.
pub fn replay(events: &[Logged], policy: impl Fn(&mut JudgePolicy)) -> Vec<Replayed<'_>> {
    let mut rollouts: BTreeMap<RolloutId, Replayed<'_>> = BTreeMap::new();
    for logged in events {
        match &logged.event {
            Event::RolloutStarted { plan } if plan.steps.iter().any(|step| step.gate.is_judged()) => {
                rollouts.insert(plan.id, Replayed::new(plan, logged, &policy));
            }
            Event::StepStarted { key, step, joins } => {
                if let Some(rollout) = rollouts.get_mut(&key.rollout) {
                    rollout.enter(joins);
                    rollout.begin_step(*step, logged);
                }
            }
            Event::NodeEntered { key, node } => {
                if let Some(rollout) = rollouts.get_mut(&key.rollout) {
                    rollout.enter(std::slice::from_ref(node));
                }
            }
            Event::EvidenceRecorded {
                key,
                step,
                block,
                late,
                ..
            } => {
                if let Some(rollout) = rollouts.get_mut(&key.rollout) {
                    rollout.fold(logged, *step, block.as_deref(), late);
                }
            }
            Event::StepCompleted { key, step, pass } => {
                let steps = rollouts
                    .get_mut(&key.rollout)
                    .into_iter()
                    .flat_map(|rollout| &mut rollout.steps);
                for done in steps.filter(|done| done.step == *step) {
                    done.completed = Some((Moment::of(logged), pass));
                }
            }
            Event::BackStarted { key, reason } => {
                if let Some(rollout) = rollouts.get_mut(&key.rollout) {
                    rollout.back = Some((Moment::of(logged), reason));
                }
            }
            _ => {}
        }
    }
    rollouts.into_values().collect()
}

impl<'a> Replayed<'a> {
    fn new(plan: &'a RolloutPlan, logged: &Logged, policy: &impl Fn(&mut JudgePolicy)) -> Self {
        let mut judge = Rollout::new(plan.clone(), logged.at).judge.policy().clone();
        policy(&mut judge);
        Self {
            plan,
            began: Moment::of(logged),
            order: plan.order.clone(),
            judge: Judge::new(judge),
            step: 0,
            steps: Vec::new(),
            points: Vec::new(),
            failed: None,
            back: None,
        }
    }

    fn enter(&mut self, nodes: &[NodeId]) {
        for node in nodes {
            if !self.order.contains(node) {
                self.order.push(node.clone());
            }
        }
    }

    fn begin_step(&mut self, step: u32, logged: &Logged) {
        self.step = step;
        let planned = self.plan.steps.get(step as usize);
        if planned.is_some_and(|step| step.gate.is_judged()) {
            self.judge.begin_step(step);
            self.steps.push(ReplayedStep {
                step,
                began: Moment::of(logged),
                sums: Block::default(),
                verdict: self.judge.verdict(),
                passed: None,
                completed: None,
            });
        }
    }

    fn fold(&mut self, logged: &Logged, step: u32, block: Option<&'a Block>, late: &[(u32, Block)]) {
        if let Some(block) = block {
            self.judge.fold(block);
            self.sum(step, block);
        }
        for (step, block) in late {
            self.judge.fold_late(*step, block);
            self.sum(*step, block);
        }
        let verdict = self.judge.verdict();
        if let Some(block) = block {
            self.points.push(Point {
                at: Moment::of(logged),
                step,
                block,
                outcome: verdict.outcome,
                evidence: verdict.findings.iter().map(SignalEvidence::from).collect(),
            });
        }
        if verdict.outcome == Outcome::Fail && self.failed.is_none() {
            self.failed = Some((Moment::of(logged), verdict.clone()));
        }
        if let Some(now) = self.steps.last_mut() {
            if verdict.outcome == Outcome::Pass && now.passed.is_none() {
                now.passed = Some(Moment::of(logged));
            }
            now.verdict = verdict;
        }
    }

    fn sum(&mut self, step: u32, block: &Block) {
        if let Some(step) = self.steps.iter_mut().find(|other| other.step == step) {
            step.sums.merge(block);
        }
    }
}
