//! The judge of one rollout: evidence of every signal, and what it comes to.

use serde::{Deserialize, Serialize};

use super::before_after;
use super::confidence::{Confidence, DifferenceGrid};
use super::counts::{ArmCounts, Block};
use super::errors::{ErrorEvidence, Question};
use super::evidence::{Exact, rounded};
use super::latency::LatencyEvidence;
use super::node_table::{NodeEvidence, NodeTable};
use super::policy::{Control, JudgePolicy};
use super::resources::LevelEvidence;
use super::verdict::{Basis, Outcome, Rate, Reason, Signal};

/// Users' part in the evidence for errors; probes have the rest. They are one signal in two strata.
const USERS_WEIGHT: f64 = 0.9;

/// The first step's weight in the evidence for harm; the later ones have halves of the rest: .2, .1, … Most faults show
/// in the first step, and each process goes on through all later ones.
const FIRST_STEP_WEIGHT: f64 = 0.6;

/// The evidence of one rollout, folded from its blocks; part of the core's state.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Judge {
    pub(super) policy: JudgePolicy,
    /// The step that is judged; `None` before the first.
    pub(super) step: Option<u32>,
    /// How many steps were begun.
    steps_begun: u16,
    pub(super) users: ErrorEvidence,
    pub(super) probes: ErrorEvidence,
    pub(super) latency: LatencyEvidence,
    pub(super) cpu: LevelEvidence,
    pub(super) memory: LevelEvidence,
    difference: DifferenceGrid,
    nodes: NodeTable,
    /// Before against after: the stable release before the switch, and the candidate since each step's beginning with
    /// that step's weight.
    before: Rate,
    after: Vec<(Exact, Rate)>,
    /// Everything counted at this step, in time.
    pub(super) counted: Block,
    /// Candidate probes in a row that succeeded at this step.
    pub(super) probe_streak: u64,
    /// Why it failed, once it did, and by what.
    pub(super) failed: Option<(Signal, Reason)>,
    /// What was ruled out so far at this step.
    pub(super) passed: Passed,
}

/// What was ruled out at a step: once shown it stays shown.
#[derive(Clone, Debug, PartialEq, Default, Serialize, Deserialize)]
pub(super) struct Passed {
    pub(super) errors: bool,
    pub(super) latency: [bool; 3],
    pub(super) cpu: bool,
    pub(super) whole: Option<(Basis, Reason)>,
}

impl Judge {
    /// A judge that has seen nothing. A faulty number in the policy counts as its default: check with
    /// [`JudgePolicy::validate`] where it comes from.
    pub fn new(policy: JudgePolicy) -> Self {
        let policy = policy.sound();
        Self {
            step: None,
            steps_begun: 0,
            users: ErrorEvidence::new(),
            probes: ErrorEvidence::new(),
            latency: LatencyEvidence::new(&policy),
            cpu: LevelEvidence::new(),
            memory: LevelEvidence::new(),
            difference: DifferenceGrid::new(),
            nodes: NodeTable::default(),
            before: Rate::default(),
            after: Vec::new(),
            counted: Block::default(),
            probe_streak: 0,
            failed: None,
            passed: Passed::default(),
            policy,
        }
    }

    /// The same judge, that knows how the stable release fared before: so many requests, so many of them errors.
    /// It needs less evidence then. Counts as at most 100,000 requests.
    #[must_use]
    pub fn with_history(mut self, requests: u64, errors: u64) -> Self {
        self.users.remember(Rate {
            of: requests,
            bad: errors.min(requests),
        });
        self
    }

    /// The policy, faulty numbers replaced.
    pub fn policy(&self) -> &JudgePolicy {
        &self.policy
    }

    /// Begins a step: the pass starts anew, and the evidence for harm gets a process that knows nothing of the good
    /// past. A step that isn't after the current one changes nothing.
    pub fn begin_step(&mut self, step: u32) {
        if self.step.is_some_and(|current| step <= current) {
            return;
        }
        self.step = Some(step);
        let weight = match self.steps_begun {
            0 => FIRST_STEP_WEIGHT,
            earlier => (1.0 - FIRST_STEP_WEIGHT) * 0.5_f64.powi(i32::from(earlier)),
        };
        self.steps_begun = self.steps_begun.saturating_add(1);
        self.users.begin_step(weight);
        self.probes.begin_step(weight);
        self.latency.begin_step(weight);
        self.cpu.begin_step(weight);
        self.memory.begin_once();
        self.after.push((Exact::new(weight), Rate::default()));
        self.difference = DifferenceGrid::new();
        self.counted = Block::default();
        self.probe_streak = 0;
        self.passed = Passed::default();
    }

    /// Folds what was counted in one interval of the current step. Before any step was begun it begins step 0.
    pub fn fold(&mut self, block: &Block) {
        if self.step.is_none() {
            self.begin_step(0);
        }
        self.fold_evidence(block, false);
        self.difference
            .fold(users(&block.candidate), users(&block.control), self.policy.alpha);
        self.probe_streak = block.candidate.streak_after(self.probe_streak);
        self.counted.merge(block);
        self.note_fail();
        self.note_pass();
    }

    /// Folds what was counted during a step but arrived later: towards a fail only, if that step is over.
    pub fn fold_late(&mut self, step: u32, block: &Block) {
        if self.step.is_none_or(|current| step >= current) {
            self.fold(block);
        } else {
            self.fold_evidence(block, true);
            self.note_fail();
        }
    }

    fn fold_evidence(&mut self, block: &Block, late: bool) {
        let (candidate, control) = (&block.candidate, &block.control);
        let policy = &self.policy;
        self.nodes
            .fold(&block.nodes, 1.0 + policy.errors_tolerance().relative);
        if policy.control == Control::BeforeAfter {
            self.before.add(control.requests, control.errors);
            for (_, since) in &mut self.after {
                since.add(candidate.requests, candidate.errors);
            }
            return;
        }
        let question = Question {
            tolerance: policy.errors_tolerance(),
            margin: policy.errors_margin(),
            wide_margin: None,
        };
        self.users.fold(users(candidate), users(control), &question, late);
        let question = Question {
            tolerance: policy.probes_margin().times(policy.tolerance_share),
            margin: policy.errors_margin(),
            wide_margin: Some(policy.probes_margin()),
        };
        self.probes
            .fold(probes(candidate), probes(control), &question, late);
        if policy.is_judged(Signal::Latency) {
            self.latency
                .fold(&candidate.latency, &control.latency, policy, late);
        }
        if policy.is_judged(Signal::Cpu) {
            self.cpu.fold_cpu(block, &policy.cpu_question(), late);
        }
        if policy.is_judged(Signal::Memory) {
            self.memory.fold_memory(block, &policy.memory_question());
        }
    }

    /// A signal's evidence for harm, as an e-value.
    pub(super) fn for_harm(&self, signal: Signal) -> f64 {
        match signal {
            Signal::Errors if self.policy.control == Control::BeforeAfter => self.worse_than_before(),
            Signal::Errors => USERS_WEIGHT * self.users.for_harm() + self.for_harm(Signal::Probes),
            Signal::Probes => (1.0 - USERS_WEIGHT) * self.probes.for_harm(),
            Signal::Latency => self.latency.for_harm(),
            Signal::Cpu => self.cpu.for_harm(),
            Signal::Memory => self.memory.for_harm(),
        }
    }

    fn worse_than_before(&self) -> f64 {
        let tolerance = self.policy.errors_tolerance();
        let e = |after: Rate| {
            before_after::log_for_harm(after, self.before, tolerance)
                .min(600.0)
                .exp()
        };
        self.after
            .iter()
            .map(|(weight, since)| weight.get() * e(*since))
            .sum()
    }

    /// Fails where the mean of the acting signals' evidence, by their weights, reaches 1/α.
    fn note_fail(&mut self) {
        if self.failed.is_some() {
            return;
        }
        let parts = [Signal::Errors, Signal::Latency, Signal::Cpu, Signal::Memory]
            .into_iter()
            .filter(|signal| self.policy.acts(*signal))
            .map(|signal| (signal, self.policy.weight(signal) * self.for_harm(signal)));
        let mut all = 0.0;
        let mut most = (Signal::Errors, 0.0);
        for (signal, part) in parts {
            all += part;
            if part > most.1 {
                most = (signal, part);
            }
        }
        if all >= self.policy.pass_at() {
            let reason = self.harm_of(most.0);
            self.failed = Some((most.0, reason));
        }
    }

    fn note_pass(&mut self) {
        let pass_at = self.policy.pass_at();
        self.passed.errors |= self.errors_against_harm() >= pass_at;
        for (passed, e) in self.passed.latency.iter_mut().zip(self.latency.against_harm()) {
            *passed |= e >= pass_at;
        }
        self.passed.cpu |= self.cpu.against_harm() >= pass_at;
        if self.passed.whole.is_none() {
            self.passed.whole = self.pass();
        }
    }

    pub(super) fn errors_against_harm(&self) -> f64 {
        if self.policy.control != Control::BeforeAfter {
            return self.users.against_harm();
        }
        let margin = self.policy.errors_margin();
        before_after::log_against_harm(users(&self.counted.candidate), self.before, margin)
            .min(600.0)
            .exp()
    }

    /// Whether a signal is no hindrance to a pass that rests on users' requests.
    pub(super) fn is_cleared(&self, signal: Signal) -> bool {
        if !self.policy.acts(signal) {
            return true;
        }
        match signal {
            Signal::Errors => self.passed.errors,
            Signal::Latency => self.passed.latency.iter().all(|passed| *passed),
            // Where no node meters it there is nothing to wait for.
            Signal::Cpu => self.passed.cpu || self.cpu.bets().of == 0,
            Signal::Memory | Signal::Probes => true,
        }
    }

    fn pass(&self) -> Option<(Basis, Reason)> {
        let policy = &self.policy;
        let (candidate, control) = (&self.counted.candidate, &self.counted.control);
        if policy.control == Control::Absent {
            let enough = self.probe_streak >= policy.no_control_probes;
            return enough.then_some((
                Basis::NoControl,
                Reason::NoControl {
                    probes: self.probe_streak,
                },
            ));
        }
        let ruled_out = |margin: f64, probes: u64| Reason::RuledOut {
            margin_points: rounded(margin * 100.0),
            requests: candidate.requests,
            probes,
        };
        let cleared = [Signal::Errors, Signal::Latency, Signal::Cpu]
            .into_iter()
            .all(|signal| self.is_cleared(signal));
        if cleared && candidate.requests >= policy.min_candidate_requests.max(1) {
            return Some((Basis::Users, ruled_out(policy.error_margin_points, 0)));
        }
        if candidate.requests >= policy.probes_below_requests || candidate.probes == 0 || control.probes == 0
        {
            return None;
        }
        if candidate.requests == 0 {
            let enough = self.probes.against_wide_harm() >= policy.pass_at();
            return enough.then(|| {
                (
                    Basis::Probes,
                    ruled_out(policy.probe_margin_points, candidate.probes),
                )
            });
        }
        // Users and probes are two strata of one question: their factors multiply.
        let enough = self.users.against_harm() * self.probes.against_harm() >= policy.pass_at();
        enough.then(|| {
            (
                Basis::UsersAndProbes,
                ruled_out(policy.error_margin_points, candidate.probes),
            )
        })
    }

    /// The bare outcome: [`Self::verdict`] without its reasons, for those who ask after every block.
    pub fn outcome(&self) -> Outcome {
        match (&self.failed, &self.passed.whole) {
            (Some(_), _) => Outcome::Fail,
            (None, Some(_)) => Outcome::Pass,
            (None, None) => Outcome::Inconclusive,
        }
    }

    /// The signal that a fail is owed to.
    pub fn blamed(&self) -> Option<Signal> {
        self.failed.as_ref().map(|(signal, _)| *signal)
    }

    /// What the nodes that are kept apart came to over the rollout, by place.
    pub fn nodes(&self) -> impl Iterator<Item = NodeEvidence> + '_ {
        self.nodes.evidence()
    }

    /// Bounds of the difference of users' error rates at this step, with confidence 1 − α at every look.
    pub fn confidence(&self) -> Confidence {
        self.difference.confidence(self.policy.alpha)
    }

    /// The stable release before the switch, where that is the control.
    pub(super) fn before(&self) -> Rate {
        self.before
    }
}

pub(super) fn users(arm: &ArmCounts) -> Rate {
    Rate {
        of: arm.requests,
        bad: arm.errors.min(arm.requests),
    }
}

pub(super) fn probes(arm: &ArmCounts) -> Rate {
    Rate {
        of: arm.probes,
        bad: arm.probe_errors.min(arm.probes),
    }
}
