//! The fleet's environments, as people write them, and their way to the core's.

use std::collections::BTreeMap;

use hotswap_core::analysis::{JudgePolicy, Setting, Settings, parse_setting};
use hotswap_core::freeze::FreezeWindow;
use hotswap_core::ids::ModuleName;
use hotswap_core::policy::{self, CanaryBy, RolloutPolicy};
use hotswap_core::time::Millis;
use hotswap_package::HumanDuration;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::section::section;

section! {
    /// An ordered stage of the fleet.
    pub struct Environment {
        /// Its name, shown as written here.
        name: String = String::new(),
        /// How releases reach its nodes.
        strategy: Strategy = Strategy::default(),
        /// Whether a deployment that targets it needs a person's approval even if nobody asked for one.
        approval_required: bool = false,
        /// How long an approval is waited for.
        approval_timeout: HumanDuration = HumanDuration::secs(24 * 3_600),
        /// Who may approve, and how many must.
        approvers: Approvers = Approvers::default(),
        /// When no rollout starts here.
        freezes: Vec<Freeze> = Vec::new(),
        /// Limits and times of its rollouts.
        policy: Policy = Policy::default(),
        /// What modules may ask for here; nothing by default.
        grants: Grants = Grants::default(),
    }
}

section! {
    /// Who may approve deployments, and how many must.
    pub struct Approvers {
        /// How many must: each person counts once, and whoever asked for the deployment never.
        needed: u32 = 1,
        /// Who may, by username; nobody named: whoever has the role for it.
        subjects: Vec<String> = Vec::new(),
    }
}

section! {
    /// A time in which no rollout starts. Running ones go on; aborts and rollbacks always do.
    pub struct Freeze {
        /// What it is called.
        name: String = String::new(),
        /// When it begins, as cron writes it and in UTC: `0 16 * * FRI`.
        starts: String = String::new(),
        /// How long it lasts each time, one minute to 31 days.
        lasts: HumanDuration = HumanDuration::secs(3_600),
        /// Why, for people.
        reason: String = String::new(),
    }
}

section! {
    /// How releases reach the nodes of an environment.
    pub struct Strategy {
        /// Direct (every node at once), Rolling (batches), BlueGreen (every node in preview, then every node) or
        /// Canary (growing shares, each judged against the stable release).
        r#type: StrategyType = StrategyType::Direct,
        /// Rolling: nodes of a batch (2 if not given).
        batch: Option<u32> = None,
        /// Canary: whether its shares are of nodes or of every node's traffic (nodes if not given). Modules that answer
        /// no requests (ebpf, kernel) are refused where it is traffic.
        by: Option<Canary> = None,
        /// Canary: growing percentages up to 100 (10, 30, 50, 100 if not given).
        percents: Option<Vec<u8>> = None,
    }
}

/// The strategies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum StrategyType {
    /// Every node in one step.
    Direct,
    /// Batches.
    Rolling,
    /// Every node in preview, then every node.
    BlueGreen,
    /// Growing shares.
    Canary,
}

/// What a canary's percentages are of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Canary {
    /// Shares of the nodes.
    Nodes,
    /// Shares of the requests on every node.
    Traffic,
}

/// A kind of module that is native code, and runs only where that is granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum NativeKind {
    /// Native servers.
    Process,
    /// eBPF programs.
    Ebpf,
    /// Linux kernel modules and livepatches.
    Kernel,
}

/// What to do when the longest soak ends without a verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum OnInconclusive {
    /// Hold for a person.
    Hold,
    /// Go on as if it had passed.
    Promote,
    /// Take it back.
    RollBack,
}

section! {
    /// What an environment lets modules ask for in their manifests.
    pub struct Grants {
        /// Hosts that modules may send requests to, as manifests write them; `*` is any host.
        outbound_hosts: Vec<String> = Vec::new(),
        /// Environment variables that modules may read; `*` is any variable.
        variables: Vec<String> = Vec::new(),
        /// Kinds of native code that may be deployed: process, ebpf, kernel. Modules of kind wasm always may.
        kinds: Vec<NativeKind> = Vec::new(),
    }
}

/// A default of the core's, as a span.
fn span(of: impl FnOnce(RolloutPolicy) -> Millis) -> HumanDuration {
    HumanDuration::millis(of(RolloutPolicy::default()).0)
}

section! {
    /// Limits and times of an environment's rollouts.
    pub struct Policy {
        /// Nodes that may be unavailable at once, from whatever cause.
        max_unavailable: u32 = RolloutPolicy::default().max_unavailable,
        /// Excluded nodes that are tolerated before a rollout goes back.
        max_failed: u32 = RolloutPolicy::default().max_failed,
        /// How long a node must be healthy on a release to count as settled.
        settle: HumanDuration = span(|p| p.settle),
        /// How long a node may take to fetch, load and be ready.
        step_deadline: HumanDuration = span(|p| p.step_deadline),
        /// How long a node on trial may be silent before it is excluded.
        silence_max: HumanDuration = span(|p| p.silence_max),
        /// Least soak of a step, counted in time with reports.
        soak_min: HumanDuration = span(|p| p.soak_min),
        /// Longest soak of a judged step without a verdict.
        soak_max: HumanDuration = span(|p| p.soak_max),
        /// What then happens: hold, promote or roll-back.
        on_inconclusive: OnInconclusive = OnInconclusive::Hold,
        /// How often nodes close an interval of evidence.
        interval: HumanDuration = span(|p| p.interval),
        /// Share of the requests on a judged cohort's nodes that stays on the stable release, in %.
        control_percent: u8 = RolloutPolicy::default().control_percent,
        /// Probes of each arm in an interval on each cohort node, where users may be too few.
        probes_per_interval: u32 = RolloutPolicy::default().probes_per_interval,
        /// How long the way back waits for nodes that are reachable.
        back_deadline: HumanDuration = span(|p| p.back_deadline),
        /// How long a hold waits for what it holds for.
        hold_expiry: HumanDuration = span(|p| p.hold_expiry),
        /// How long a pause lasts.
        pause_expiry: HumanDuration = span(|p| p.pause_expiry),
        /// What the judge compares, and how strictly.
        judge: Judge = Judge::default(),
        /// What differs for single modules, by name, as in payments = "alpha=0.001,dry_run=cpu|memory".
        judge_modules: BTreeMap<String, String> = BTreeMap::new(),
    }
}

section! {
    /// What the judge compares, and how strictly. Points are fractions: 0.005 is half a percentage point.
    pub struct Judge {
        /// Errors: harm is a rate above the control's by more than this …
        error_margin_points: f64 = JudgePolicy::default().error_margin_points,
        /// … and by more than this share of it.
        error_margin_relative: f64 = JudgePolicy::default().error_margin_relative,
        /// Whether latency is judged.
        judge_latency: bool = JudgePolicy::default().judge_latency,
        /// Latency: harm is a slowdown by more than this share (1.0: twice as slow) …
        latency_margin_relative: f64 = JudgePolicy::default().latency_margin_relative,
        /// … of more than this share of requests.
        latency_margin_points: f64 = JudgePolicy::default().latency_margin_points,
        /// Latencies below this are all the same, in µs.
        latency_floor_us: u64 = JudgePolicy::default().latency_floor_us,
        /// Whether processor time is judged, where nodes meter it.
        judge_cpu: bool = JudgePolicy::default().judge_cpu,
        /// Processor time of a request: harm is more by this share …
        cpu_margin_relative: f64 = JudgePolicy::default().cpu_margin_relative,
        /// … and by this many µs.
        cpu_margin_us: f64 = JudgePolicy::default().cpu_margin_us,
        /// Whether memory is judged, where nodes meter it.
        judge_memory: bool = JudgePolicy::default().judge_memory,
        /// Memory of an instance: harm is more by this share …
        memory_margin_relative: f64 = JudgePolicy::default().memory_margin_relative,
        /// … and by this many KiB.
        memory_margin_kib: f64 = JudgePolicy::default().memory_margin_kib,
        /// Signals that are judged and shown but never acted on, among errors, latency, cpu and memory.
        dry_run: Vec<String> = Vec::new(),
        /// The part of each margin that is tolerated; above 0, below 1.
        tolerance_share: f64 = JudgePolicy::default().tolerance_share,
        /// The chance that a harmless candidate fails, and per step that a harmful one passes.
        alpha: f64 = JudgePolicy::default().alpha,
        /// Candidate requests of users that a step needs at least before their evidence alone passes it.
        min_candidate_requests: u64 = JudgePolicy::default().min_candidate_requests,
        /// Probes count towards a pass in a step with fewer candidate requests than this.
        probes_below_requests: u64 = JudgePolicy::default().probes_below_requests,
        /// The absolute margin where probes are alone.
        probe_margin_points: f64 = JudgePolicy::default().probe_margin_points,
        /// Candidate probes in a row that pass a step where there is nothing to compare with.
        no_control_probes: u64 = JudgePolicy::default().no_control_probes,
    }
}

/// Nodes of a Rolling batch where none are given.
const BATCH: u32 = 2;
/// A canary's percentages where none are given.
const PERCENTS: [u8; 4] = [10, 30, 50, 100];

fn millis(span: HumanDuration) -> Millis {
    Millis(u64::try_from(span.get().as_millis()).unwrap_or(u64::MAX))
}

impl Environment {
    /// The environment as the core knows it.
    ///
    /// # Errors
    /// The key under this environment, and what is wrong there. What concerns several keys or environments is for
    /// [`policy::Environment::validate_all`].
    pub fn to_core(&self) -> Result<policy::Environment, (&'static str, String)> {
        if self.name.is_empty() {
            return Err(("name", "is missing; give one such as \"Production\"".to_owned()));
        }
        let name = self.name.parse().map_err(|error| ("name", format!("{error}")))?;
        let judge = self.policy.judge.to_core()?;
        judge
            .validate()
            .map_err(|faults| ("policy.judge", faults.to_string().replace('_', "-")))?;
        let mut policy = self.policy.to_core(judge);
        policy.judge_modules = self.policy.modules_to_core()?;
        Ok(policy::Environment {
            name,
            strategy: self.strategy.to_core()?,
            policy,
            approval_required: self.approval_required,
            approval_timeout: millis(self.approval_timeout),
            approvers: policy::Approvers {
                needed: self.approvers.needed,
                subjects: self.approvers.subjects.clone(),
            },
            freezes: self
                .freezes
                .iter()
                .map(Freeze::to_core)
                .collect::<Result<_, _>>()?,
        })
    }
}

impl Freeze {
    /// Names and lengths are checked with the rest by [`policy::Environment::validate_all`].
    fn to_core(&self) -> Result<FreezeWindow, (&'static str, String)> {
        let wrong = |error| ("freezes", format!("starts of {:?}: {error}", self.name));
        Ok(FreezeWindow {
            name: self.name.clone(),
            starts: self.starts.parse().map_err(wrong)?,
            lasts: millis(self.lasts),
            reason: self.reason.clone(),
        })
    }
}

impl Strategy {
    fn to_core(&self) -> Result<policy::Strategy, (&'static str, String)> {
        let only = |of: &str| format!("is for {of} only; leave it out");
        if self.batch.is_some() && self.r#type != StrategyType::Rolling {
            return Err(("strategy.batch", only("Rolling")));
        }
        if self.r#type != StrategyType::Canary {
            if self.by.is_some() {
                return Err(("strategy.by", only("Canary")));
            }
            if self.percents.is_some() {
                return Err(("strategy.percents", only("Canary")));
            }
        }
        Ok(match self.r#type {
            StrategyType::Direct => policy::Strategy::Direct,
            StrategyType::Rolling => policy::Strategy::Rolling {
                batch: self.batch.unwrap_or(BATCH),
            },
            StrategyType::BlueGreen => policy::Strategy::BlueGreen,
            StrategyType::Canary => policy::Strategy::Canary {
                by: match self.by {
                    None | Some(Canary::Nodes) => CanaryBy::Nodes,
                    Some(Canary::Traffic) => CanaryBy::Traffic,
                },
                percents: self.percents.clone().unwrap_or_else(|| PERCENTS.to_vec()),
            },
        })
    }
}

impl Policy {
    /// Their ranges are checked with the rest by [`policy::Environment::validate_all`].
    fn modules_to_core(&self) -> Result<BTreeMap<ModuleName, Settings>, (&'static str, String)> {
        let key = "policy.judge-modules";
        let mut modules = BTreeMap::new();
        for (module, text) in &self.judge_modules {
            let name: ModuleName = module.parse().map_err(|error| (key, format!("{error}")))?;
            let settings: Result<Settings, _> = text.split(',').map(parse_setting).collect();
            let settings = settings.map_err(|fault| (key, format!("{module}: {fault}")))?;
            modules.insert(name, settings);
        }
        Ok(modules)
    }

    fn to_core(&self, judge: JudgePolicy) -> RolloutPolicy {
        RolloutPolicy {
            max_unavailable: self.max_unavailable,
            max_failed: self.max_failed,
            settle: millis(self.settle),
            step_deadline: millis(self.step_deadline),
            silence_max: millis(self.silence_max),
            soak_min: millis(self.soak_min),
            soak_max: millis(self.soak_max),
            on_inconclusive: match self.on_inconclusive {
                OnInconclusive::Hold => policy::OnInconclusive::Hold,
                OnInconclusive::Promote => policy::OnInconclusive::Promote,
                OnInconclusive::RollBack => policy::OnInconclusive::RollBack,
            },
            interval: millis(self.interval),
            control_percent: self.control_percent,
            probes_per_interval: self.probes_per_interval,
            back_deadline: millis(self.back_deadline),
            hold_expiry: millis(self.hold_expiry),
            pause_expiry: millis(self.pause_expiry),
            judge,
            ..RolloutPolicy::default()
        }
    }
}

impl Judge {
    fn to_core(&self) -> Result<JudgePolicy, (&'static str, String)> {
        let mut policy = JudgePolicy {
            error_margin_points: self.error_margin_points,
            error_margin_relative: self.error_margin_relative,
            judge_latency: self.judge_latency,
            latency_margin_relative: self.latency_margin_relative,
            latency_margin_points: self.latency_margin_points,
            latency_floor_us: self.latency_floor_us,
            judge_cpu: self.judge_cpu,
            cpu_margin_relative: self.cpu_margin_relative,
            cpu_margin_us: self.cpu_margin_us,
            judge_memory: self.judge_memory,
            memory_margin_relative: self.memory_margin_relative,
            memory_margin_kib: self.memory_margin_kib,
            tolerance_share: self.tolerance_share,
            alpha: self.alpha,
            min_candidate_requests: self.min_candidate_requests,
            probes_below_requests: self.probes_below_requests,
            probe_margin_points: self.probe_margin_points,
            no_control_probes: self.no_control_probes,
            ..JudgePolicy::default()
        };
        policy
            .set("dry_run", &Setting::Signals(self.dry_run.clone()))
            .map_err(|fault| ("policy.judge", fault.to_string().replace('_', "-")))?;
        Ok(policy)
    }
}
