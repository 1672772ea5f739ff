//! What the judge says, as data and for people.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The answer. An inconclusive one never passes by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Outcome {
    /// Harm beyond the margin is ruled out at this step.
    Pass,
    /// Harm beyond the tolerance is shown. Final: nothing that comes later takes it back.
    Fail,
    /// Neither.
    Inconclusive,
}

/// What a pass rests on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Basis {
    /// Users' requests alone.
    Users,
    /// Few users' requests, and probes; latency was too thin to judge.
    UsersAndProbes,
    /// Probes alone, with their wider margin; latency was not judged.
    Probes,
    /// Probes in a row of a candidate that has no control.
    NoControl,
}

/// What is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Signal {
    /// Errors of users' requests.
    Errors,
    /// Latency of users' requests.
    Latency,
    /// Failed probes.
    Probes,
    /// Processor time of a request.
    Cpu,
    /// Memory of an instance.
    Memory,
}

/// So many of so many.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Rate {
    /// How many there were.
    pub of: u64,
    /// How many of them were bad.
    pub bad: u64,
}

impl Rate {
    /// The share of bad ones, 0 where there were none.
    pub fn share(self) -> f64 {
        if self.of == 0 {
            0.0
        } else {
            self.bad as f64 / self.of as f64
        }
    }

    pub(super) fn add(&mut self, of: u64, bad: u64) {
        self.of = self.of.saturating_add(of);
        self.bad = self.bad.saturating_add(bad.min(of));
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let percent = self.share() * 100.0;
        // A small rate keeps two digits that say something.
        if percent != 0.0 && percent < 0.1 {
            write!(f, "{percent:.3} %")
        } else {
            write!(f, "{percent:.1} %")
        }
    }
}

/// Quantiles of one arm's latency at this step, in µs, as upper edges of histogram bins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct LatencySummary {
    /// How many requests.
    pub count: u64,
    /// Half are faster.
    pub p50_us: u64,
    /// 95 % are faster.
    pub p95_us: u64,
    /// 99 % are faster.
    pub p99_us: u64,
}

/// Why the outcome is what it is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Reason {
    /// More errors than tolerated.
    MoreErrors {
        /// The candidate's error rate.
        candidate: Rate,
        /// The control's.
        control: Rate,
        /// The difference is at least this, in percentage points, with the judge's confidence; absent where the
        /// harm was shown by evidence of several steps or by one too short to bound it.
        at_least_points: Option<f64>,
        /// 100 · (1 − α).
        confidence_percent: f64,
    },
    /// Slower than tolerated, at the latency where the evidence is strongest.
    Slower {
        /// The candidate's share of requests above `candidate_above_us`.
        candidate: Rate,
        /// That latency, in µs: the control's times 1 + tolerance.
        candidate_above_us: u64,
        /// The control's share above `control_above_us`.
        control: Rate,
        /// That latency, in µs.
        control_above_us: u64,
    },
    /// More failed probes than tolerated.
    MoreProbeErrors {
        /// The candidate's rate of failed probes.
        candidate: Rate,
        /// The control's.
        control: Rate,
    },
    /// More processor time or memory than tolerated, on most nodes.
    Costlier {
        /// Which of them.
        signal: Signal,
        /// The candidate's mean at this step over the nodes that are kept apart: µs of a request, or KiB of an
        /// instance.
        candidate: u64,
        /// The control's.
        control: u64,
        /// Comparisons (intervals for processor time, nodes for memory), and those beyond the tolerance.
        beyond: Rate,
    },
    /// More errors than tolerated after the switch than before it.
    MoreErrorsThanBefore {
        /// The candidate's error rate.
        after: Rate,
        /// The stable release's before.
        before: Rate,
    },
    /// Harm beyond the margin is ruled out.
    RuledOut {
        /// The absolute margin, in percentage points.
        margin_points: f64,
        /// The candidate's requests at this step.
        requests: u64,
        /// The candidate's probes at this step that counted towards it.
        probes: u64,
    },
    /// No control; enough probes in a row succeeded.
    NoControl {
        /// How many did.
        probes: u64,
    },
    /// Too little evidence yet.
    NeedsRequests {
        /// The signal that needs most.
        signal: Signal,
        /// About so many more requests (or probes) to the candidate until a pass, if it is as good as the control.
        /// Absent where its evidence points to no pass at all.
        about: Option<u64>,
    },
    /// Too few intervals in which processor time compares.
    NeedsIntervals {
        /// Which signal.
        signal: Signal,
        /// About so many more, if the candidate takes no more than the control in each.
        about: u64,
    },
    /// Nothing of the candidate was counted at this step.
    NoCandidateTraffic,
    /// Nothing of the control was counted at this step, though there is one.
    NoControlTraffic,
    /// Latency is judged, but none was counted at this step.
    NoLatencyCounts,
    /// No control, and not enough probes in a row yet.
    NeedsProbes {
        /// In a row so far.
        have: u64,
        /// Needed.
        need: u64,
    },
}

/// One signal's evidence at this step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Finding {
    /// The signal.
    pub signal: Signal,
    /// What it says alone.
    pub outcome: Outcome,
    /// Evidence for harm beyond the tolerance, as log10 of its e-value, over the rollout so far.
    pub fail_log10: f64,
    /// Where it fails.
    pub fail_at_log10: f64,
    /// Whether it is shown but not acted on.
    #[serde(default, skip_serializing_if = "is_false")]
    pub dry_run: bool,
    /// Evidence for no harm beyond the margin, as log10 of its e-value, at this step (the weakest of several).
    pub pass_log10: f64,
    /// Where it passes.
    pub pass_at_log10: f64,
    /// The candidate's rate at this step; for latency 0 bad.
    pub candidate: Rate,
    /// The control's.
    pub control: Rate,
    /// The candidate's latency, for latency.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub candidate_latency: Option<LatencySummary>,
    /// The control's latency, for latency.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub control_latency: Option<LatencySummary>,
    /// The level of processor time or memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub levels: Option<Levels>,
}

/// Means at this step over the nodes that are kept apart: µs of a request, or KiB of an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Levels {
    /// The candidate's.
    pub candidate: u64,
    /// The control's.
    pub control: u64,
    /// Comparisons (intervals for processor time, nodes for memory), and those beyond the tolerance.
    pub beyond: Rate,
}

fn is_false(flag: &bool) -> bool {
    !*flag
}

/// What the judge says now, with its reason and the evidence of each signal. Its numbers are rounded so that they
/// survive JSON unchanged.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Verdict {
    /// The answer.
    pub outcome: Outcome,
    /// The step that it is about.
    pub step: u32,
    /// What a pass rests on; absent unless it passes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub basis: Option<Basis>,
    /// Why.
    pub reason: Reason,
    /// Each signal's evidence.
    pub findings: Vec<Finding>,
}

/// A whole number with commas between thousands.
struct Thousands(u64);

impl fmt::Display for Thousands {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = self.0.to_string();
        for (i, digit) in digits.chars().enumerate() {
            if i > 0 && (digits.len() - i).is_multiple_of(3) {
                f.write_str(",")?;
            }
            write!(f, "{digit}")?;
        }
        Ok(())
    }
}

/// A latency in a unit that suits it.
struct Latency(u64);

impl fmt::Display for Latency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            us if us < 1_000 => write!(f, "{us} µs"),
            us if us < 10_000 => write!(f, "{:.1} ms", us as f64 / 1e3),
            us if us < 1_000_000 => write!(f, "{:.0} ms", us as f64 / 1e3),
            us => write!(f, "{:.1} s", us as f64 / 1e6),
        }
    }
}

/// Memory in a unit that suits it.
struct Memory(u64);

impl fmt::Display for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            kib if kib < 1_024 => write!(f, "{kib} KiB"),
            kib if kib < 10 * 1_024 => write!(f, "{:.1} MiB", kib as f64 / 1_024.0),
            kib => write!(f, "{:.0} MiB", kib as f64 / 1_024.0),
        }
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Errors => "errors",
            Self::Latency => "latency",
            Self::Probes => "probes",
            Self::Cpu => "cpu",
            Self::Memory => "memory",
        })
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MoreErrors {
                candidate,
                control,
                at_least_points,
                confidence_percent,
            } => {
                write!(f, "error rate {candidate} against {control}")?;
                match at_least_points {
                    Some(points) => {
                        write!(
                            f,
                            ", at least {points:+} points with {confidence_percent} % confidence"
                        )
                    }
                    None => Ok(()),
                }
            }
            Self::Slower {
                candidate,
                candidate_above_us,
                control,
                control_above_us,
            } => write!(
                f,
                "slower: {candidate} of requests take {} or more, against {control} that took {} or more before",
                Latency(*candidate_above_us),
                Latency(*control_above_us)
            ),
            Self::MoreProbeErrors { candidate, control } => {
                write!(f, "failed probes {candidate} against {control}")
            }
            Self::Costlier {
                signal: Signal::Memory,
                candidate,
                control,
                beyond,
            } => write!(
                f,
                "memory of an instance {} against {}, beyond what is tolerated on {} of {} nodes",
                Memory(*candidate),
                Memory(*control),
                beyond.bad,
                beyond.of
            ),
            Self::Costlier {
                candidate,
                control,
                beyond,
                ..
            } => write!(
                f,
                "cpu of a request {} against {}, beyond what is tolerated in {} of {} intervals",
                Latency(*candidate),
                Latency(*control),
                beyond.bad,
                beyond.of
            ),
            Self::MoreErrorsThanBefore { after, before } => {
                write!(f, "error rate {after} against {before} before")
            }
            Self::RuledOut {
                margin_points,
                requests,
                probes,
            } => {
                write!(f, "harm beyond {margin_points:+} points ruled out after ")?;
                match (requests, probes) {
                    (requests, 0) => write!(f, "{} candidate requests", Thousands(*requests)),
                    (0, probes) => write!(f, "{} candidate probes, no users", Thousands(*probes)),
                    (requests, probes) => write!(
                        f,
                        "{} candidate requests and {} probes, latency not judged",
                        Thousands(*requests),
                        Thousands(*probes)
                    ),
                }
            }
            Self::NoControl { probes } => {
                write!(
                    f,
                    "no control; {} candidate probes in a row succeeded",
                    Thousands(*probes)
                )
            }
            Self::NeedsRequests {
                signal,
                about: Some(about),
            } => {
                let unit = if *signal == Signal::Probes {
                    "probes"
                } else {
                    "requests"
                };
                write!(
                    f,
                    "about {} more candidate {unit} needed ({signal})",
                    Thousands(*about)
                )
            }
            Self::NeedsRequests { signal, about: None } => {
                write!(
                    f,
                    "{signal}: neither harm beyond the tolerance nor its absence is shown"
                )
            }
            Self::NeedsIntervals { signal, about } => {
                write!(f, "about {about} more intervals needed ({signal})")
            }
            Self::NoCandidateTraffic => f.write_str("no candidate requests or probes at this step yet"),
            Self::NoControlTraffic => {
                f.write_str("no control requests or probes at this step to compare with")
            }
            Self::NoLatencyCounts => f.write_str("no latency counted at this step"),
            Self::NeedsProbes { have, need } => {
                write!(f, "no control; {have} of {need} candidate probes in a row")
            }
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let outcome = match (self.outcome, self.basis) {
            (Outcome::Fail, _) => "fail",
            (Outcome::Inconclusive, _) => "inconclusive",
            (Outcome::Pass, Some(Basis::NoControl)) => "pass (no control)",
            (Outcome::Pass, Some(Basis::Probes)) => "pass (probes alone)",
            (Outcome::Pass, Some(Basis::UsersAndProbes)) => "pass (with probes)",
            (Outcome::Pass, _) => "pass",
        };
        write!(f, "{outcome}: {}", self.reason)
    }
}
