//! What the judge says: the verdict with its reason, what is missing, and each signal's evidence.

use super::counts::Block;
use super::evidence::log10;
use super::histogram::{Histogram, edge_us};
use super::judge::{Judge, probes, users};
use super::nodes::NodeArm;
use super::policy::Control;
use super::verdict::{Finding, LatencySummary, Levels, Outcome, Rate, Reason, Signal, Verdict};

impl Judge {
    /// What the evidence comes to now.
    pub fn verdict(&self) -> Verdict {
        let (outcome, basis, reason) = match (&self.failed, &self.passed.whole) {
            (Some((_, reason)), _) => (Outcome::Fail, None, reason.clone()),
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

    /// A signal's harm in numbers.
    pub(super) fn harm_of(&self, signal: Signal) -> Reason {
        match signal {
            Signal::Latency => self.slower(),
            Signal::Cpu | Signal::Memory => {
                let levels = self.levels(signal);
                Reason::Costlier {
                    signal,
                    candidate: levels.candidate,
                    control: levels.control,
                    beyond: levels.beyond,
                }
            }
            Signal::Errors if self.policy.control == Control::BeforeAfter => Reason::MoreErrorsThanBefore {
                after: users(&self.counted.candidate),
                before: self.before(),
            },
            Signal::Errors if self.for_harm(Signal::Errors) >= 2.0 * self.for_harm(Signal::Probes) => {
                let confidence = self.confidence();
                Reason::MoreErrors {
                    candidate: users(&self.counted.candidate),
                    control: users(&self.counted.control),
                    at_least_points: confidence.at_least_points.filter(|points| *points > 0.0),
                    confidence_percent: confidence.percent,
                }
            }
            Signal::Errors | Signal::Probes => Reason::MoreProbeErrors {
                candidate: probes(&self.counted.candidate),
                control: probes(&self.counted.control),
            },
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

    fn levels(&self, signal: Signal) -> Levels {
        let (read, evidence): (fn(&NodeArm) -> Option<f64>, _) = if signal == Signal::Memory {
            (NodeArm::memory_per_instance_kib, &self.memory)
        } else {
            (NodeArm::cpu_per_request_us, &self.cpu)
        };
        Levels {
            candidate: mean_level(&self.counted, |node| read(&node.candidate)),
            control: mean_level(&self.counted, |node| read(&node.control)),
            beyond: evidence.bets(),
        }
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
        let control_requests = if policy.control == Control::BeforeAfter {
            self.before().of
        } else {
            control.requests
        };
        if control_requests == 0 && control.probes == 0 {
            return Reason::NoControlTraffic;
        }
        if candidate.requests == 0 {
            let growth = self
                .probes
                .growth(policy.probes_margin(), candidate.probes, control.probes.max(1));
            let about = self.about(self.probes.against_wide_harm(), growth);
            return Reason::NeedsRequests {
                signal: Signal::Probes,
                about,
            };
        }
        if policy.acts(Signal::Latency) && (candidate.latency.is_empty() || control.latency.is_empty()) {
            return Reason::NoLatencyCounts;
        }
        self.needs_requests(candidate.requests, control_requests.max(1))
    }

    fn needs_requests(&self, candidate: u64, control: u64) -> Reason {
        let policy = &self.policy;
        let at_least = policy.min_candidate_requests.saturating_sub(candidate);
        let mut need = (Some(at_least), Signal::Errors);
        if policy.control == Control::BeforeAfter && !self.passed.errors {
            // The evidence isn't a product over intervals: how it will grow is not foretold.
            need.0 = None;
        } else if !self.is_cleared(Signal::Errors) {
            let growth = self.users.growth(policy.errors_margin(), candidate, control);
            need.0 = self
                .about(self.users.against_harm(), growth)
                .map(|about| about.max(at_least));
        }
        if !self.is_cleared(Signal::Latency) {
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
        if need.0 == Some(0) && !self.is_cleared(Signal::Cpu) {
            return Reason::NeedsIntervals {
                signal: Signal::Cpu,
                about: self.cpu.bets_left(policy.pass_at()),
            };
        }
        Reason::NeedsRequests {
            signal: need.1,
            about: need.0,
        }
    }

    /// About how many more candidate requests take an e-value to a pass, at a growth of its logarithm for each.
    fn about(&self, e: f64, growth: f64) -> Option<u64> {
        let left = (self.policy.pass_at() / e.max(1e-280)).ln().max(0.0);
        two_digits(left / growth)
    }

    fn findings(&self) -> Vec<Finding> {
        let policy = &self.policy;
        let (candidate, control) = (&self.counted.candidate, &self.counted.control);
        let finding = |signal, pass: f64, passed: bool| {
            let (fail, fail_at) = (self.for_harm(signal), policy.fail_at(signal));
            Finding {
                signal,
                outcome: if fail >= fail_at {
                    Outcome::Fail
                } else if passed {
                    Outcome::Pass
                } else {
                    Outcome::Inconclusive
                },
                fail_log10: log10(fail),
                fail_at_log10: log10(fail_at),
                dry_run: !policy.acts(signal),
                pass_log10: log10(pass),
                pass_at_log10: log10(policy.pass_at()),
                candidate: Rate::default(),
                control: Rate::default(),
                candidate_latency: None,
                control_latency: None,
                levels: None,
            }
        };
        let control_errors = if policy.control == Control::BeforeAfter {
            self.before()
        } else {
            users(control)
        };
        let mut findings = vec![Finding {
            candidate: users(candidate),
            control: control_errors,
            ..finding(Signal::Errors, self.errors_against_harm(), self.passed.errors)
        }];
        if policy.is_judged(Signal::Latency) {
            let weakest = self
                .latency
                .against_harm()
                .into_iter()
                .fold(f64::INFINITY, f64::min);
            let count = |latency: &Histogram| Rate {
                of: latency.count(),
                bad: 0,
            };
            findings.push(Finding {
                candidate: count(&candidate.latency),
                control: count(&control.latency),
                candidate_latency: Some(summary(&candidate.latency)),
                control_latency: Some(summary(&control.latency)),
                ..finding(
                    Signal::Latency,
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
                ..finding(Signal::Probes, e, e >= policy.pass_at())
            });
        }
        for (signal, evidence) in [(Signal::Cpu, &self.cpu), (Signal::Memory, &self.memory)] {
            let levels = self.levels(signal);
            if policy.is_judged(signal) && (levels.beyond.of > 0 || levels.candidate > 0) {
                let e = evidence.against_harm();
                findings.push(Finding {
                    levels: Some(levels),
                    ..finding(signal, e, e >= policy.pass_at())
                });
            }
        }
        findings
    }
}

/// A number of requests or seconds as an estimate is told: rounded up to two digits; `None` beyond any use.
pub(super) fn two_digits(about: f64) -> Option<u64> {
    if !about.is_finite() || about > 1e12 {
        return None;
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "0 to 1e12"
    )]
    let about = about.max(0.0).ceil() as u64;
    let unit = 10_u64.pow(about.checked_ilog10().unwrap_or(0).saturating_sub(1));
    Some(about.div_ceil(unit) * unit)
}

fn mean_level(counted: &Block, level: impl Fn(&super::NodeCounts) -> Option<f64>) -> u64 {
    let (mut sum, mut nodes) = (0.0, 0.0);
    for level in counted.nodes.iter().filter_map(level) {
        sum += level;
        nodes += 1.0;
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a mean of quotients of u64"
    )]
    let mean = (sum / f64::max(nodes, 1.0)).round() as u64;
    mean
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
