//! The judge of one rollout: evidence of every signal, and what it comes to.

use serde::{Deserialize, Serialize};

use super::confidence::{Confidence, DifferenceGrid};
use super::counts::Block;
use super::errors::{ErrorEvidence, Question};
use super::evidence::{log10, rounded};
use super::histogram::{Histogram, edge_us};
use super::latency::LatencyEvidence;
use super::policy::{Control, JudgePolicy};
use super::two_arm::Bound;
use super::verdict::{Basis, Finding, LatencySummary, Outcome, Rate, Reason, Signal, Verdict};

/// Users' part in the evidence for errors; probes have the rest. They are one signal in two strata.
const USERS_WEIGHT: f64 = 0.9;

/// The evidence of one rollout, folded from its blocks; part of the core's state.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Judge {
    policy: JudgePolicy,
    /// The step that is judged; `None` before the first.
    step: Option<u32>,
    /// The weight of the next step in the evidence for harm: ½, ¼, …
    next_weight_log2: u16,
    users: ErrorEvidence,
    probes: ErrorEvidence,
    latency: LatencyEvidence,
    difference: DifferenceGrid,
    /// Everything counted at this step, in time.
    counted: Block,
    /// Candidate probes in a row that succeeded at this step.
    probe_streak: u64,
    /// Why it failed, once it did.
    failed: Option<Reason>,
    /// What was ruled out so far at this step.
    passed: Passed,
}

/// What was ruled out at a step: once shown it stays shown.
#[derive(Clone, Debug, PartialEq, Default, Serialize, Deserialize)]
struct Passed {
    errors: bool,
    latency: [bool; 3],
    whole: Option<(Basis, Reason)>,
}

impl Judge {
    /// A judge that has seen nothing. A faulty number in the policy counts as its default: check with
    /// [`JudgePolicy::validate`] where it comes from.
    pub fn new(policy: JudgePolicy) -> Self {
        let policy = policy.sound();
        Self {
            step: None,
            next_weight_log2: 1,
            users: ErrorEvidence::new(),
            probes: ErrorEvidence::new(),
            latency: LatencyEvidence::new(&policy),
            difference: DifferenceGrid::new(),
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
        let weight = 0.5_f64.powi(i32::from(self.next_weight_log2));
        self.next_weight_log2 = self.next_weight_log2.saturating_add(1);
        self.users.begin_step(weight);
        self.probes.begin_step(weight);
        self.latency.begin_step(weight);
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
        let question = self.users_question();
        self.users.fold(users(candidate), users(control), &question, late);
        let question = self.probes_question();
        self.probes
            .fold(probes(candidate), probes(control), &question, late);
        if self.policy.judge_latency {
            self.latency
                .fold(&candidate.latency, &control.latency, &self.policy, late);
        }
    }

    fn users_question(&self) -> Question {
        let policy = &self.policy;
        Question {
            tolerance: Bound {
                points: policy.error_margin_points * policy.tolerance_share,
                relative: policy.error_margin_relative * policy.tolerance_share,
            },
            margin: Bound {
                points: policy.error_margin_points,
                relative: policy.error_margin_relative,
            },
            wide_margin: None,
        }
    }

    fn probes_question(&self) -> Question {
        let policy = &self.policy;
        let wide = Bound {
            points: policy.probe_margin_points,
            relative: policy.error_margin_relative,
        };
        let margin = self.users_question().margin;
        Question {
            tolerance: Bound {
                points: wide.points * policy.tolerance_share,
                relative: wide.relative * policy.tolerance_share,
            },
            margin,
            wide_margin: Some(wide),
        }
    }

    fn errors_for_harm(&self) -> f64 {
        USERS_WEIGHT * self.users.for_harm() + (1.0 - USERS_WEIGHT) * self.probes.for_harm()
    }

    fn note_fail(&mut self) {
        if self.failed.is_some() {
            return;
        }
        if self.errors_for_harm() >= self.policy.fail_at() {
            let of_users = USERS_WEIGHT * self.users.for_harm();
            let by_users = of_users >= (1.0 - USERS_WEIGHT) * self.probes.for_harm();
            self.failed = Some(if by_users {
                self.more_errors()
            } else {
                self.more_probe_errors()
            });
        } else if self.policy.judge_latency && self.latency.for_harm() >= self.policy.fail_at() {
            self.failed = Some(self.slower());
        }
    }

    fn more_errors(&self) -> Reason {
        let confidence = self.confidence();
        Reason::MoreErrors {
            candidate: users(&self.counted.candidate),
            control: users(&self.counted.control),
            at_least_points: confidence.at_least_points.filter(|points| *points > 0.0),
            confidence_percent: confidence.percent,
        }
    }

    fn more_probe_errors(&self) -> Reason {
        Reason::MoreProbeErrors {
            candidate: probes(&self.counted.candidate),
            control: probes(&self.counted.control),
        }
    }

    fn slower(&self) -> Reason {
        let (candidate_bin, control_bin) = self.latency.worst_edge(&self.policy);
        let above = |latency: &Histogram, bin| Rate {
            of: latency.count(),
            bad: latency.count_above(bin),
        };
        Reason::Slower {
            candidate: above(&self.counted.candidate.latency, candidate_bin),
            candidate_above_us: edge_us(candidate_bin),
            control: above(&self.counted.control.latency, control_bin),
            control_above_us: edge_us(control_bin),
        }
    }

    fn note_pass(&mut self) {
        let pass_at = self.policy.pass_at();
        self.passed.errors |= self.users.against_harm() >= pass_at;
        for (passed, e) in self.passed.latency.iter_mut().zip(self.latency.against_harm()) {
            *passed |= e >= pass_at;
        }
        if self.passed.whole.is_none() {
            self.passed.whole = self.pass();
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
        let latency_passed = !policy.judge_latency || self.passed.latency.iter().all(|passed| *passed);
        if self.passed.errors && latency_passed && candidate.requests >= policy.min_candidate_requests {
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

    /// What the evidence comes to now.
    pub fn verdict(&self) -> Verdict {
        let (outcome, basis, reason) = match (&self.failed, &self.passed.whole) {
            (Some(reason), _) => (Outcome::Fail, None, reason.clone()),
            (None, Some((basis, reason))) => (Outcome::Pass, Some(*basis), reason.clone()),
            (None, None) => (Outcome::Inconclusive, None, self.wanting()),
        };
        Verdict {
            outcome,
            step: self.step.unwrap_or(0),
            basis,
            reason,
            findings: self.findings(),
        }
    }

    /// Bounds of the difference of users' error rates at this step, with confidence 1 − α at every look.
    pub fn confidence(&self) -> Confidence {
        self.difference.confidence(self.policy.alpha)
    }

    /// What a pass waits for.
    fn wanting(&self) -> Reason {
        let policy = &self.policy;
        let (candidate, control) = (&self.counted.candidate, &self.counted.control);
        if policy.control == Control::Absent {
            return Reason::NeedsProbes {
                have: self.probe_streak,
                need: policy.no_control_probes,
            };
        }
        if candidate.requests == 0 && candidate.probes == 0 {
            return Reason::NoCandidateTraffic;
        }
        if control.requests == 0 && control.probes == 0 {
            return Reason::NoControlTraffic;
        }
        if candidate.requests == 0 {
            let growth = self.probes.growth(
                self.probes_question()
                    .wide_margin
                    .unwrap_or_else(|| self.users_question().margin),
                candidate.probes,
                control.probes.max(1),
            );
            let about = self.about(self.probes.against_wide_harm(), growth);
            return Reason::NeedsRequests {
                signal: Signal::Probes,
                about,
            };
        }
        if policy.judge_latency && (candidate.latency.is_empty() || control.latency.is_empty()) {
            return Reason::NoLatencyCounts;
        }
        self.needs_requests(candidate.requests, control.requests.max(1))
    }

    fn needs_requests(&self, candidate: u64, control: u64) -> Reason {
        let policy = &self.policy;
        let growth = self
            .users
            .growth(self.users_question().margin, candidate, control);
        let at_least = policy.min_candidate_requests.saturating_sub(candidate);
        let mut need = (Some(at_least), Signal::Errors);
        if !self.passed.errors {
            need.0 = self
                .about(self.users.against_harm(), growth)
                .map(|about| about.max(at_least));
        }
        if policy.judge_latency {
            let growths = self.latency.growth(policy, candidate, control);
            for ((passed, e), growth) in self
                .passed
                .latency
                .iter()
                .zip(self.latency.against_harm())
                .zip(growths)
            {
                let about = self.about(e, growth);
                // No estimate at all is more than any.
                if !passed && (about.is_none() || need.0.is_some_and(|most| about > Some(most))) {
                    need = (about.filter(|_| need.0.is_some()), Signal::Latency);
                }
            }
        }
        Reason::NeedsRequests {
            signal: need.1,
            about: need.0,
        }
    }

    /// About how many more candidate requests take an e-value to a pass, at a growth of its logarithm for each.
    fn about(&self, e: f64, growth: f64) -> Option<u64> {
        let left = (self.policy.pass_at() / e.max(1e-280)).ln().max(0.0);
        let about = left / growth;
        if !about.is_finite() || about > 1e12 {
            return None;
        }
        // Two digits: it is an estimate.
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "0 to 1e12"
        )]
        let about = about.ceil() as u64;
        let unit = 10_u64.pow(about.checked_ilog10().unwrap_or(0).saturating_sub(1));
        Some(about.div_ceil(unit) * unit)
    }

    fn findings(&self) -> Vec<Finding> {
        let policy = &self.policy;
        let (candidate, control) = (&self.counted.candidate, &self.counted.control);
        let finding = |signal, fail: f64, pass: f64, passed: bool| Finding {
            signal,
            outcome: if fail >= policy.fail_at() {
                Outcome::Fail
            } else if passed {
                Outcome::Pass
            } else {
                Outcome::Inconclusive
            },
            fail_log10: log10(fail),
            fail_at_log10: log10(policy.fail_at()),
            pass_log10: log10(pass),
            pass_at_log10: log10(policy.pass_at()),
            candidate: Rate::default(),
            control: Rate::default(),
            candidate_latency: None,
            control_latency: None,
        };
        let mut findings = vec![Finding {
            candidate: users(candidate),
            control: users(control),
            ..finding(
                Signal::Errors,
                USERS_WEIGHT * self.users.for_harm(),
                self.users.against_harm(),
                self.passed.errors,
            )
        }];
        if policy.judge_latency {
            let weakest = self
                .latency
                .against_harm()
                .into_iter()
                .fold(f64::INFINITY, f64::min);
            findings.push(Finding {
                candidate: Rate {
                    of: candidate.latency.count(),
                    bad: 0,
                },
                control: Rate {
                    of: control.latency.count(),
                    bad: 0,
                },
                candidate_latency: Some(summary(&candidate.latency)),
                control_latency: Some(summary(&control.latency)),
                ..finding(
                    Signal::Latency,
                    self.latency.for_harm(),
                    weakest,
                    self.passed.latency.iter().all(|passed| *passed),
                )
            });
        }
        if candidate.probes > 0 || control.probes > 0 {
            let e = self.probes.against_wide_harm();
            findings.push(Finding {
                candidate: probes(candidate),
                control: probes(control),
                ..finding(
                    Signal::Probes,
                    (1.0 - USERS_WEIGHT) * self.probes.for_harm(),
                    e,
                    e >= policy.pass_at(),
                )
            });
        }
        findings
    }
}

fn users(arm: &super::ArmCounts) -> Rate {
    Rate {
        of: arm.requests,
        bad: arm.errors.min(arm.requests),
    }
}

fn probes(arm: &super::ArmCounts) -> Rate {
    Rate {
        of: arm.probes,
        bad: arm.probe_errors.min(arm.probes),
    }
}

fn summary(latency: &Histogram) -> LatencySummary {
    let quantile = |q| latency.quantile(q).unwrap_or(0);
    LatencySummary {
        count: latency.count(),
        p50_us: quantile(0.5),
        p95_us: quantile(0.95),
        p99_us: quantile(0.99),
    }
}
