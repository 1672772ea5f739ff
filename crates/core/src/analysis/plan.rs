//! How long a step will take at a given traffic, before it begins: until an equal candidate passes, and until a
//! candidate of twice the errors or twice the latency fails.

use serde::{Deserialize, Serialize};

use super::alternatives::{ALTERNATIVES, ODDS_RATIOS, beyond};
use super::errors::forecast_rate;
use super::histogram::Histogram;
use super::latency;
use super::policy::{Control, JudgePolicy};
use super::resources::bets_to;
use super::say::two_digits;
use super::two_arm::{Counts, Pair, log_for_harm, nearest_harm};
use super::verdict::{Rate, Signal};

/// The first step's weight and users' part, as the judge has them: what evidence for harm is worth at first.
const FIRST_WEIGHT: f64 = 0.6 * 0.9;

/// Traffic of a step's cohort as it is now, with the stable release serving it.
#[derive(Clone, Debug, PartialEq)]
pub struct Traffic {
    /// Requests a second on the cohort's nodes.
    pub requests_per_second: f64,
    /// The candidate's share of them, above 0 and below 1.
    pub candidate_share: f64,
    /// The stable release's requests and errors over some past, for its rate.
    pub history: Rate,
    /// Its latencies; empty where they aren't known.
    pub latency: Histogram,
    /// Seconds between two reports.
    pub interval_seconds: f64,
}

/// What a step needs at a traffic.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PowerPlan {
    /// Until a candidate as good as the stable release passes.
    pub pass: Forecast,
    /// Until a candidate with twice the errors fails.
    pub errors_doubled: Forecast,
    /// Until a candidate that takes twice as long fails; absent where no latencies are known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latency_doubled: Option<Forecast>,
}

/// An estimate: half of the runs take less.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Forecast {
    /// The signal that it waits for, or that finds it.
    pub signal: Signal,
    /// Candidate requests; absent where no number will do: the harm is within the tolerance, or there is no traffic.
    pub candidate_requests: Option<u64>,
    /// Seconds at this traffic.
    pub seconds: Option<u64>,
}

/// Estimates what a step needs, by the evidence's expected growth. Within a factor of two of the medians by simulation.
/// Where there is no control or only one before the switch, nothing is foretold.
pub fn power_plan(policy: &JudgePolicy, traffic: &Traffic) -> PowerPlan {
    let policy = policy.clone().sound();
    let share = if traffic.candidate_share > 0.0 && traffic.candidate_share < 1.0 {
        traffic.candidate_share
    } else {
        0.5
    };
    let at = Planner {
        side_by_side: policy.control == Control::SideBySide,
        rate: forecast_rate(traffic.history),
        // One candidate request with its share of the control's.
        unit: Counts {
            candidate: 1.0,
            candidate_bad: 0.0,
            control: (1.0 - share) / share,
            control_bad: 0.0,
        },
        requests_per_second: traffic.requests_per_second.max(0.0) * share,
        policy,
        traffic,
    };
    PowerPlan {
        pass: at.pass(),
        errors_doubled: at.errors_doubled(),
        latency_doubled: at.latency_doubled(),
    }
}

struct Planner<'a> {
    policy: JudgePolicy,
    side_by_side: bool,
    rate: f64,
    unit: Counts,
    /// To the candidate.
    requests_per_second: f64,
    traffic: &'a Traffic,
}

impl Planner<'_> {
    fn forecast(&self, signal: Signal, requests: f64) -> Forecast {
        let requests = if self.side_by_side {
            requests
        } else {
            f64::INFINITY
        };
        Forecast {
            signal,
            candidate_requests: two_digits(requests),
            seconds: two_digits(requests / self.requests_per_second),
        }
    }

    fn pass(&self) -> Forecast {
        let policy = &self.policy;
        let left = policy.pass_at().ln();
        let equal = Pair::new(self.rate, self.rate);
        let nearest = nearest_harm(&self.unit, equal, policy.errors_margin());
        let mut most = (Signal::Errors, policy.min_candidate_requests.max(1) as f64);
        let mut note = |signal, requests: f64| {
            if requests > most.1 {
                most = (signal, requests);
            }
        };
        if policy.acts(Signal::Errors) {
            note(Signal::Errors, left / self.unit.divergence(equal, nearest));
        }
        if policy.acts(Signal::Latency) && !self.traffic.latency.is_empty() {
            let slowest = latency::forecast_pass(&self.traffic.latency, &self.unit, policy);
            note(Signal::Latency, left / slowest);
        }
        if policy.acts(Signal::Cpu) {
            let bets = bets_to(policy.pass_at()) as f64;
            note(
                Signal::Cpu,
                bets * self.traffic.interval_seconds.max(0.0) * self.requests_per_second,
            );
        }
        self.forecast(most.0, most.1)
    }

    fn errors_doubled(&self) -> Forecast {
        let counts = Counts {
            candidate_bad: (2.0 * self.rate).min(1.0),
            control_bad: self.rate * self.unit.control,
            ..self.unit
        };
        let tolerance = self.policy.errors_tolerance();
        let growth = ODDS_RATIOS
            .iter()
            .map(|ratio| log_for_harm(&counts, beyond(self.rate, tolerance, *ratio), tolerance))
            .fold(0.0, f64::max);
        let left = (self.policy.fail_at(Signal::Errors) * ALTERNATIVES as f64 / FIRST_WEIGHT).ln();
        self.forecast(Signal::Errors, left / growth)
    }

    fn latency_doubled(&self) -> Option<Forecast> {
        if !self.policy.is_judged(Signal::Latency) || self.traffic.latency.is_empty() {
            return None;
        }
        let (growth, processes) = latency::forecast_fail(&self.traffic.latency, &self.unit, &self.policy);
        let left = (self.policy.fail_at(Signal::Latency) * processes / FIRST_WEIGHT).ln();
        Some(self.forecast(Signal::Latency, left / growth))
    }
}
