//! Environments and what a rollout in them may do. A rollout freezes its copy when it starts.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::analysis::{JudgePolicy, Settings};
use crate::freeze::{FREEZES_MAX, FreezeWindow};
use crate::ids::{EnvName, ModuleName};
use crate::time::Millis;

/// Most environments of a fleet: every deployment has a stage for each.
pub const ENVIRONMENTS_MAX: usize = 32;
/// Most steps of a rollout: Rolling over 10,000 nodes in batches of two stays below.
pub const STEPS_MAX: usize = 8_192;

/// An ordered stage of the fleet.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Environment {
    /// Its name, shown as written here.
    pub name: EnvName,
    /// How releases are rolled out in it.
    pub strategy: Strategy,
    /// Limits and times of its rollouts.
    pub policy: RolloutPolicy,
    /// Whether a deployment that targets it needs a person's approval even if nobody asked for one.
    #[serde(default)]
    pub approval_required: bool,
    /// How long an approval is waited for.
    pub approval_timeout: Millis,
    /// Who may approve, and how many must.
    #[serde(default)]
    pub approvers: Approvers,
    /// When no rollout starts in it.
    #[serde(default)]
    pub freezes: Vec<FreezeWindow>,
}

/// Most people that must approve.
pub const APPROVALS_NEEDED_MAX: u32 = 16;
/// Most people that an environment names as approvers.
pub const APPROVERS_MAX: usize = 64;

/// Who may approve deployments to an environment, and how many must. A deployment keeps what holds when it is asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Approvers {
    /// How many must: each person counts once, and the requester never.
    #[serde(default = "one")]
    pub needed: u32,
    /// Who may, by the subjects of their tokens; empty: whoever has the role for it.
    #[serde(default)]
    pub subjects: Vec<String>,
}

fn one() -> u32 {
    1
}

impl Default for Approvers {
    fn default() -> Self {
        Self {
            needed: 1,
            subjects: Vec::new(),
        }
    }
}

/// How a release reaches the nodes of an environment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "camelCase")]
pub enum Strategy {
    /// Every node in one step.
    Direct,
    /// Batches, each healthy and settled before the next.
    Rolling {
        /// Nodes of a batch.
        batch: u32,
    },
    /// Every node holds the candidate in preview, then every node switches.
    BlueGreen,
    /// Growing shares, each judged against the stable release.
    Canary {
        /// Whether the shares are of nodes or of each node's traffic.
        by: CanaryBy,
        /// Growing percentages; the last is 100.
        percents: Vec<u8>,
    },
}

impl Strategy {
    /// The contract's name: Direct, Rolling, BlueGreen or Canary.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Direct => "Direct",
            Self::Rolling { .. } => "Rolling",
            Self::BlueGreen => "BlueGreen",
            Self::Canary { .. } => "Canary",
        }
    }

    /// Whether its operator asked for shares of requests, which kinds that don't route have none of. A canary by nodes
    /// that is too small for it goes by traffic for kinds that route, and by nodes for the others.
    pub fn shares_traffic(&self) -> bool {
        matches!(
            self,
            Self::Canary {
                by: CanaryBy::Traffic,
                ..
            }
        )
    }
}

/// What a canary's percentages are of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum CanaryBy {
    /// Shares of the roster.
    Nodes,
    /// Shares of the requests on every node.
    Traffic,
}

/// What to do when the longest soak ends without a verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "camelCase")]
pub enum OnInconclusive {
    /// Hold for a person, until the hold expires.
    #[default]
    Hold,
    /// Go on as if it had passed, and say so.
    Promote,
    /// Take it back.
    RollBack,
}

/// Limits and times of a rollout.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RolloutPolicy {
    /// Nodes that may be unavailable at once, from whatever cause.
    pub max_unavailable: u32,
    /// Excluded nodes that are tolerated before the rollout goes back.
    pub max_failed: u32,
    /// How long a node must be healthy on a release to count as settled.
    pub settle: Millis,
    /// How long a node may take to fetch, load and be ready; stands still while it is unknown.
    pub step_deadline: Millis,
    /// How long a node on trial may be silent before it is excluded.
    pub silence_max: Millis,
    /// Least soak of a judged or soaking step, counted in time with reports.
    pub soak_min: Millis,
    /// Longest soak of a judged step without a verdict.
    pub soak_max: Millis,
    /// What then happens.
    pub on_inconclusive: OnInconclusive,
    /// How often nodes close an interval of evidence.
    pub interval: Millis,
    /// Share of the requests on a judged cohort's nodes that stays on the stable release, in %.
    pub control_percent: u8,
    /// Probes of each arm in an interval on each cohort node, where users may be too few.
    pub probes_per_interval: u32,
    /// How long the way back waits for nodes that are reachable.
    pub back_deadline: Millis,
    /// How long a hold waits for what it holds for, by wall time.
    pub hold_expiry: Millis,
    /// How long a pause lasts, by wall time.
    pub pause_expiry: Millis,
    /// What the judge compares and how strictly.
    #[serde(default)]
    pub judge: JudgePolicy,
    /// What it is for single modules, where that differs: some of its settings, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub judge_modules: BTreeMap<ModuleName, Settings>,
}

impl RolloutPolicy {
    /// The policy of one module's rollouts, as they freeze it.
    #[must_use]
    pub fn for_module(&self, module: &ModuleName) -> Self {
        let mut policy = self.clone();
        if let Some(settings) = policy.judge_modules.get(module) {
            // What is faulty was refused when it was configured.
            let _ = policy.judge.set_all(settings);
        }
        policy.judge_modules.clear();
        policy
    }
}

impl Default for RolloutPolicy {
    fn default() -> Self {
        Self {
            max_unavailable: 1,
            max_failed: 0,
            settle: Millis::from_secs(10),
            step_deadline: Millis::from_secs(300),
            silence_max: Millis::from_secs(120),
            soak_min: Millis::from_secs(60),
            soak_max: Millis::from_secs(3_600),
            on_inconclusive: OnInconclusive::Hold,
            interval: Millis::from_secs(10),
            control_percent: 50,
            probes_per_interval: 2,
            back_deadline: Millis::from_secs(120),
            hold_expiry: Millis::from_secs(24 * 3_600),
            pause_expiry: Millis::from_secs(24 * 3_600),
            judge: JudgePolicy::default(),
            judge_modules: BTreeMap::new(),
        }
    }
}

impl Environment {
    /// The four environments a fleet has unless it is configured otherwise: Development (Direct),
    /// QA (Rolling), Staging (Blue-green) and Production (Canary 10, 30, 50, 100 % of nodes).
    pub fn defaults() -> Vec<Self> {
        let day = Millis::from_secs(24 * 3_600);
        let make = |name: &str, strategy, approval_timeout| Self {
            name: name.parse().expect("a literal environment name is valid"),
            strategy,
            policy: RolloutPolicy::default(),
            approval_required: false,
            approval_timeout,
            approvers: Approvers::default(),
            freezes: Vec::new(),
        };
        vec![
            make("Development", Strategy::Direct, day),
            make("QA", Strategy::Rolling { batch: 2 }, day),
            make("Staging", Strategy::BlueGreen, day),
            make(
                "Production",
                Strategy::Canary {
                    by: CanaryBy::Nodes,
                    percents: vec![10, 30, 50, 100],
                },
                Millis::from_secs(4 * 3_600),
            ),
        ]
    }

    /// Every fault of a list of environments, each naming the environment and the key.
    pub fn validate_all(environments: &[Self]) -> Result<(), Vec<String>> {
        let mut faults = Vec::new();
        if environments.is_empty() || environments.len() > ENVIRONMENTS_MAX {
            faults.push(format!(
                "environments: there must be 1 to {ENVIRONMENTS_MAX}, not {}",
                environments.len()
            ));
        }
        for (index, environment) in environments.iter().enumerate() {
            let name = &environment.name;
            let same = |other: &Self| other.name.as_str().eq_ignore_ascii_case(name.as_str());
            if environments[..index].iter().any(same) {
                faults.push(format!("{name}: is there twice"));
            }
            environment.validate(&mut faults);
        }
        if faults.is_empty() { Ok(()) } else { Err(faults) }
    }

    /// Approvers and freezes.
    fn validate_people(&self, faults: &mut Vec<String>) {
        let name = &self.name;
        let Approvers { needed, subjects } = &self.approvers;
        if !(1..=APPROVALS_NEEDED_MAX).contains(needed) {
            faults.push(format!(
                "{name}: approvers.needed must be 1 to {APPROVALS_NEEDED_MAX}, not {needed}"
            ));
        }
        if subjects.len() > APPROVERS_MAX {
            faults.push(format!(
                "{name}: approvers.subjects must be at most {APPROVERS_MAX}"
            ));
        }
        if !subjects.is_empty() && subjects.len() < *needed as usize {
            faults.push(format!(
                "{name}: approvers.needed is {needed}, and only {} may approve",
                subjects.len()
            ));
        }
        if self.freezes.len() > FREEZES_MAX {
            faults.push(format!("{name}: freezes must be at most {FREEZES_MAX}"));
        }
        for (index, freeze) in self.freezes.iter().enumerate() {
            if self.freezes[..index]
                .iter()
                .any(|other| other.name == freeze.name)
            {
                faults.push(format!("{name}: freezes has {:?} twice", freeze.name));
            }
            let mut own = Vec::new();
            freeze.validate(&mut own);
            faults.extend(own.into_iter().map(|fault| format!("{name}: {fault}")));
        }
    }

    fn validate(&self, faults: &mut Vec<String>) {
        let name = &self.name;
        match &self.strategy {
            Strategy::Rolling { batch: 0 } => {
                faults.push(format!("{name}: strategy.batch must be at least 1"));
            }
            Strategy::Canary { percents, .. } => {
                let grows = percents.windows(2).all(|pair| pair[0] < pair[1]);
                if percents.first().is_none_or(|&first| first == 0) || !grows || percents.last() != Some(&100)
                {
                    faults.push(format!(
                        "{name}: strategy.percents must grow from above 0 to 100, as in [10, 30, 50, 100], not {percents:?}"
                    ));
                }
            }
            _ => {}
        }
        self.validate_people(faults);
        let policy = &self.policy;
        if policy.control_percent == 0 || policy.control_percent > 90 {
            faults.push(format!(
                "{name}: control_percent must be 1 to 90, not {}",
                policy.control_percent
            ));
        }
        for (key, value) in [
            ("step_deadline", policy.step_deadline),
            ("silence_max", policy.silence_max),
            ("interval", policy.interval),
            ("back_deadline", policy.back_deadline),
            ("hold_expiry", policy.hold_expiry),
            ("pause_expiry", policy.pause_expiry),
            ("approval_timeout", self.approval_timeout),
        ] {
            if value == Millis(0) {
                faults.push(format!("{name}: {key} must be above 0"));
            }
        }
        if let Err(fault) = policy.judge.validate() {
            faults.push(format!("{name}: judge: {fault}"));
        }
        for (module, settings) in &policy.judge_modules {
            let mut judge = policy.judge.clone();
            let refused = match judge.set_all(settings) {
                Err(refused) => refused.iter().map(ToString::to_string).collect(),
                Ok(()) => judge
                    .validate()
                    .err()
                    .map(|fault| fault.to_string())
                    .into_iter()
                    .collect(),
            };
            let refused: Vec<String> = refused;
            faults.extend(
                refused
                    .iter()
                    .map(|fault| format!("{name}: judge_modules.{module}: {fault}")),
            );
        }
        if policy.soak_max < policy.soak_min {
            faults.push(format!(
                "{name}: soak_max ({}) must not be below soak_min ({})",
                policy.soak_max, policy.soak_min
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analysis::Signal;

    fn production(json: &str) -> Environment {
        let mut environment = Environment::defaults().pop().expect("there are four");
        environment.policy.judge_modules = serde_json::from_str(json).expect("it is read");
        environment
    }

    #[test]
    fn a_module_has_its_own_policy_where_its_settings_differ() {
        let environment = production(r#"{"pay": {"alpha": 0.001, "dry_run": ["cpu"]}}"#);
        assert_eq!(
            Environment::validate_all(std::slice::from_ref(&environment)),
            Ok(())
        );
        let policy = |module: &str| {
            let module = module.parse().expect("a valid name");
            environment.policy.for_module(&module).judge
        };
        assert_eq!(policy("other"), JudgePolicy::default());
        let own = JudgePolicy {
            alpha: 0.001,
            dry_run: [Signal::Cpu].into(),
            ..JudgePolicy::default()
        };
        assert_eq!(policy("pay"), own);
    }

    #[test]
    fn faults_of_a_judges_policy_name_where_they_are() {
        let mut environment = production(r#"{"pay": {"alpha": 2, "alfa": 0.1}, "quote": {"alpha": 2}}"#);
        environment.policy.judge.tolerance_share = 2.0;
        let faults = Environment::validate_all(&[environment]).expect_err("it is faulty");
        assert_eq!(
            faults[0],
            "Production: judge: tolerance_share is 2, must be 0.05 to 0.95"
        );
        assert!(faults[1].starts_with("Production: judge_modules.pay: alfa: there is no such setting"));
        assert!(
            faults[2].starts_with("Production: judge_modules.quote: "),
            "{faults:?}"
        );
    }
}
