//! A node: the real reconciler, with a disk that forgets what was not synced, and releases that behave as drawn.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use hotswap_core::analysis::{ArmCounts, Block};
use hotswap_core::ids::{Digest, Incarnation, ModuleName, NodeId, RolloutId};
use hotswap_core::invariants::{Check, NodeTruth, node};
use hotswap_core::reconcile::{Action, Ledger, NodeInput, Reconciler};
use hotswap_core::report::{Hello, INTERVALS_KEPT_MAX, Interval, NodeReport, SmokeOutcome};
use hotswap_core::spec::{Generation, Observe};
use hotswap_core::time::CoreTime;

use crate::rng::Rng;
use crate::scenario::{Behaviour, NodePlan, Scenario};

/// Something that comes back to an agent later, unless its process died meanwhile.
#[derive(Clone, Debug)]
pub enum Later {
    /// An answer for the reconciler.
    Input(NodeInput),
    /// A load ended; `load` counts them, so that an older instance's health says nothing.
    Loaded(ModuleName, Digest, Result<(), String>),
    /// An instance's health changes.
    Health(ModuleName, Digest, u64, Result<(), String>),
    /// A release takes the process down, if it still gets requests.
    Dies(ModuleName, Digest),
    /// An interval of evidence closes.
    Close(ModuleName, Observe),
}

/// A node.
#[derive(Debug)]
pub struct Agent {
    /// Who it is.
    pub id: NodeId,
    /// Its running process; `None` while it is down.
    pub machine: Option<Reconciler>,
    /// Counts its processes.
    pub boot: u64,
    /// What is durable.
    pub disk: Ledger,
    writing: Option<Ledger>,
    /// The session that it believes in.
    pub session: Option<u64>,
    /// Whether it was removed for good.
    pub removed: bool,
    /// What needs reporting soon.
    pub report_due: bool,
    /// The next wake-up that is in the queue.
    pub wake: Option<u64>,
    report_seq: u64,
    /// Packages that are verified and compiled, on disk.
    cache: BTreeSet<Digest>,
    live: BTreeMap<ModuleName, Live>,
    loads: u64,
    intervals: VecDeque<Interval>,
    numbers: BTreeMap<(ModuleName, RolloutId), u32>,
    /// Actions carried out that change something.
    pub worked: u64,
    /// Refused specs: alarms.
    pub alarms: Vec<String>,
    /// What it did lately, for a trace.
    pub story: Vec<String>,
}

/// One module in a running process.
#[derive(Debug, Default)]
struct Live {
    routes: Vec<(Digest, u8)>,
    loaded: BTreeSet<Digest>,
    ill: BTreeSet<Digest>,
    load_of: BTreeMap<Digest, u64>,
    observe: Option<Observe>,
}

/// What drives an agent from outside.
pub struct Around<'a> {
    /// What was drawn.
    pub scenario: &'a Scenario,
    /// This node's part of it.
    pub plan: &'a NodePlan,
    /// Delays of machines.
    pub machines: &'a mut Rng,
    /// Requests.
    pub traffic: &'a mut Rng,
    /// The time, in ms.
    pub now: u64,
    /// Whether the story is told.
    pub trace: bool,
    /// Whether things may still go wrong.
    pub wild: bool,
    /// What comes later, with its delay in ms.
    pub later: &'a mut Vec<(u64, Later)>,
}

impl Around<'_> {
    fn core(&self) -> CoreTime {
        CoreTime(self.now)
    }

    fn behaviour(&self, digest: &Digest) -> Behaviour {
        self.scenario
            .release(digest)
            .map_or(Behaviour::Good, |plan| plan.behaviour)
    }

    /// Whether this is one of the nodes that a release misbehaves on.
    fn hit(&self, digest: &Digest, one_in: u64) -> bool {
        let node = self
            .plan
            .id
            .as_str()
            .bytes()
            .fold(0_u64, |hash, b| hash.wrapping_mul(31).wrapping_add(u64::from(b)));
        node.wrapping_add(u64::from(digest.0[1])).is_multiple_of(one_in)
    }
}

impl Agent {
    /// A node that was never switched on.
    pub fn new(id: NodeId) -> Self {
        Self {
            id,
            machine: None,
            boot: 0,
            disk: Ledger::default(),
            writing: None,
            session: None,
            removed: false,
            report_due: false,
            wake: None,
            report_seq: 0,
            cache: BTreeSet::new(),
            live: BTreeMap::new(),
            loads: 0,
            intervals: VecDeque::new(),
            numbers: BTreeMap::new(),
            worked: 0,
            alarms: Vec::new(),
            story: Vec::new(),
        }
    }

    /// Switches it on.
    pub fn boot(&mut self, around: &mut Around<'_>) -> Check {
        self.boot += 1;
        self.report_seq = 0;
        self.wake = None;
        self.live.clear();
        self.numbers.clear();
        self.intervals.clear();
        let disk = serde_json::to_vec(&self.disk).expect("a ledger is plain data");
        let ledger = serde_json::from_slice(&disk).expect("it was written by the same code");
        let (machine, actions) = Reconciler::boot(self.id.clone(), ledger, around.core());
        self.machine = Some(machine);
        self.carry_out(actions, around)
    }

    /// Power is cut.
    pub fn crash(&mut self) {
        self.machine = None;
        self.session = None;
        self.writing = None;
        self.live.clear();
    }

    /// Takes an input in.
    pub fn input(&mut self, input: NodeInput, around: &mut Around<'_>) -> Check {
        let Some(machine) = &mut self.machine else {
            return Ok(());
        };
        if let NodeInput::LedgerWritten { .. } = input {
            self.report_due = true;
        }
        let actions = machine.step(input, around.core());
        self.carry_out(actions, around)
    }

    /// Takes in what it waited for.
    pub fn later(&mut self, later: Later, around: &mut Around<'_>) -> Check {
        match later {
            Later::Input(input) => {
                match &input {
                    NodeInput::Prepared {
                        digest,
                        result: Ok(()),
                        ..
                    } => {
                        self.cache.insert(*digest);
                    }
                    NodeInput::LedgerWritten { version } => self.synced(*version),
                    _ => {}
                }
                self.input(input, around)
            }
            Later::Loaded(module, digest, result) => {
                if result.is_ok() {
                    self.loads += 1;
                    let live = self.live.entry(module.clone()).or_default();
                    live.loaded.insert(digest);
                    live.ill.remove(&digest);
                    live.load_of.insert(digest, self.loads);
                    health_plan(&module, digest, self.loads, around);
                }
                self.input(
                    NodeInput::Loaded {
                        module,
                        digest,
                        result,
                    },
                    around,
                )
            }
            Later::Health(module, digest, load, result) => {
                let Some(live) = self.live.get_mut(&module) else {
                    return Ok(());
                };
                if live.load_of.get(&digest) != Some(&load) || (result.is_err() && !around.wild) {
                    return Ok(());
                }
                if result.is_err() {
                    live.ill.insert(digest);
                } else {
                    live.ill.remove(&digest);
                }
                self.input(
                    NodeInput::Health {
                        module,
                        digest,
                        result,
                    },
                    around,
                )
            }
            Later::Dies(..) => Ok(()),
            Later::Close(module, observe) => {
                self.close(&module, observe, around);
                Ok(())
            }
        }
    }

    /// Whether a release that kills its process does so now.
    pub fn dies(&self, module: &ModuleName, digest: &Digest) -> bool {
        self.live
            .get(module)
            .is_some_and(|live| live.routes.iter().any(|(served, _)| served == digest))
    }

    /// All that is ill recovers: faults end.
    pub fn recover(&mut self, around: &mut Around<'_>) -> Check {
        let ill: Vec<(ModuleName, Digest)> = self
            .live
            .iter()
            .flat_map(|(module, live)| live.ill.iter().map(|d| (module.clone(), *d)))
            .collect();
        for (module, digest) in ill {
            self.live.entry(module.clone()).or_default().ill.remove(&digest);
            self.input(
                NodeInput::Health {
                    module,
                    digest,
                    result: Ok(()),
                },
                around,
            )?;
        }
        Ok(())
    }

    fn carry_out(&mut self, actions: Vec<Action>, around: &mut Around<'_>) -> Check {
        for action in actions {
            let touched = self.act(action, around);
            if let Some((module, before)) = touched {
                self.check(&module, Some(&before))?;
            }
        }
        if self
            .machine
            .as_mut()
            .is_some_and(|machine| !machine.take_changed().is_empty())
        {
            self.report_due = true;
        }
        for module in self.live.keys() {
            self.check(module, None)?;
        }
        Ok(())
    }

    /// Carries one action out; says whose routes changed, and from what.
    fn act(&mut self, action: Action, around: &mut Around<'_>) -> Option<(ModuleName, Vec<(Digest, u8)>)> {
        self.worked += 1;
        if around.trace {
            self.story.push(told(&action));
        }
        match action {
            Action::WriteLedger(ledger) => {
                let slow = around.wild && around.scenario.profile.breaks() && around.machines.chance(20);
                let delay = if slow {
                    around.machines.range(200, 4_000)
                } else {
                    around.machines.range(1, 8)
                };
                around.later.push((
                    delay,
                    Later::Input(NodeInput::LedgerWritten {
                        version: ledger.version,
                    }),
                ));
                // The bytes are under way; the sync's end makes them the disk's.
                self.writing = Some(ledger);
            }
            Action::Prepare { module, digest } => {
                let known = self.cache.contains(&digest);
                let delay = if known {
                    1
                } else {
                    around.machines.range(2, around.plan.load_ms.max(3))
                };
                around.later.push((
                    delay,
                    Later::Input(NodeInput::Prepared {
                        module,
                        digest,
                        result: Ok(()),
                    }),
                ));
            }
            Action::Load { module, release } => self.load(module, release.digest, around),
            Action::Route { module, routes } => {
                let live = self.live.entry(module.clone()).or_default();
                for &(digest, _) in &routes {
                    if let Behaviour::Crashes { after } = around.behaviour(&digest) {
                        around.later.push((after, Later::Dies(module.clone(), digest)));
                    }
                }
                let before = std::mem::replace(&mut live.routes, routes);
                return Some((module, before));
            }
            Action::Preview { .. } => {}
            Action::Unload { module, digest } => {
                let live = self.live.entry(module).or_default();
                live.loaded.remove(&digest);
                live.ill.remove(&digest);
                live.load_of.remove(&digest);
            }
            Action::RunSmoke { module, run } => {
                let fails = match around.behaviour(&run.digest) {
                    Behaviour::SmokeFails { one_in } => around.wild && around.hit(&run.digest, one_in),
                    _ => false,
                };
                let failures = if fails {
                    vec!["GET / answered 500".to_owned()]
                } else {
                    Vec::new()
                };
                let outcome = SmokeOutcome {
                    run,
                    passed: 2,
                    failures,
                };
                around.later.push((
                    around.machines.range(5, 150),
                    Later::Input(NodeInput::Smoke { module, outcome }),
                ));
            }
            Action::Observe { module, observe } => {
                let live = self.live.entry(module.clone()).or_default();
                live.observe = observe;
                if let Some(observe) = observe {
                    around
                        .later
                        .push((observe.interval.0, Later::Close(module, observe)));
                }
            }
            Action::Alarm(alarm) => self.alarms.push(alarm.to_string()),
        }
        None
    }

    fn load(&self, module: ModuleName, digest: Digest, around: &mut Around<'_>) {
        let mut delay = around.machines.range(1, around.plan.load_ms);
        let mut result = Ok(());
        match around.behaviour(&digest) {
            Behaviour::LoadFails { one_in } if around.wild && around.hit(&digest, one_in) => {
                result = Err("an import is missing".to_owned());
            }
            Behaviour::LoadsSlowly(ms) if around.wild => delay += ms,
            _ => {}
        }
        around.later.push((delay, Later::Loaded(module, digest, result)));
    }

    fn synced(&mut self, version: u64) {
        if let Some(ledger) = self.writing.take_if(|ledger| ledger.version == version) {
            self.disk = ledger;
        }
    }

    /// Checks the ground truth of one module.
    fn check(&self, module: &ModuleName, before: Option<&[(Digest, u8)]>) -> Check {
        let (Some(machine), Some(live)) = (&self.machine, self.live.get(module)) else {
            return Ok(());
        };
        let ledger = machine.ledger();
        let truth = NodeTruth {
            node: &self.id,
            module,
            routes: &live.routes,
            loaded: &live.loaded,
            ill: &live.ill,
            verified: &self.cache,
            durable: self.disk.modules.get(module),
            intended: ledger.modules.get(module).filter(|_| self.writing.is_none()),
            vetoes: &ledger.vetoes,
            spec: ledger.spec.as_ref().and_then(|spec| spec.modules.get(module)),
        };
        match before {
            Some(before) => {
                node::a2_recorded(before, &truth)?;
                node::a7_answered(before, &truth)
            }
            None => node::check(&truth),
        }
    }

    /// Closes an interval of evidence and begins the next.
    fn close(&mut self, module: &ModuleName, observe: Observe, around: &mut Around<'_>) {
        let Some(live) = self.live.get(module).filter(|live| live.observe == Some(observe)) else {
            return;
        };
        let share = |digest: &Digest| {
            live.routes
                .iter()
                .find(|(served, _)| served == digest)
                .map_or(0, |&(_, weight)| u64::from(weight))
        };
        let requests = around.plan.rate * observe.interval.0 / 1_000;
        let candidate = arm(
            share(&observe.candidate) * requests / 100,
            &observe.candidate,
            observe.probes,
            around,
        );
        let control = observe
            .control
            .map(|digest| arm(share(&digest) * requests / 100, &digest, observe.probes, around));
        let block = Block {
            candidate,
            control: control.unwrap_or_default(),
            ..Block::default()
        };
        let number = self.numbers.entry((module.clone(), observe.rollout)).or_insert(0);
        *number += 1;
        let interval = Interval {
            module: module.clone(),
            rollout: observe.rollout,
            step: observe.step,
            number: *number,
            block,
        };
        self.intervals.push_back(interval);
        if self.intervals.len() > INTERVALS_KEPT_MAX {
            self.intervals.pop_front();
        }
        self.report_due = true;
        around
            .later
            .push((observe.interval.0, Later::Close(module.clone(), observe)));
    }

    /// The server has these intervals up to a number.
    pub fn acked_intervals(&mut self, module: &ModuleName, rollout: RolloutId, number: u32) {
        self.intervals
            .retain(|kept| kept.module != *module || kept.rollout != rollout || kept.number > number);
    }

    /// What it says now; in full at a session's start.
    pub fn report(&mut self, plan: &NodePlan, full: bool) -> Option<NodeReport> {
        let machine = self.machine.as_ref()?;
        self.report_seq += 1;
        self.report_due = false;
        let hello = full.then(|| Hello {
            hostname: plan.id.to_string(),
            environment: plan.environment.clone(),
            ingress: String::new(),
            labels: [("zone".to_owned(), plan.zone.clone())].into(),
            agent_version: "1".to_owned(),
            capabilities: Vec::new(),
        });
        let statuses = machine.statuses();
        let mut modules: BTreeMap<ModuleName, _> = statuses
            .iter()
            .map(|(module, status)| (module.clone(), Some(status.clone())))
            .collect();
        for gone in self
            .live
            .keys()
            .filter(|module| !full && !statuses.contains_key(*module))
        {
            modules.insert(gone.clone(), None);
        }
        Some(NodeReport {
            node: self.id.clone(),
            incarnation: Incarnation(self.boot),
            seq: self.report_seq,
            hello,
            highest: machine.highest(),
            modules,
            vetoes: machine.vetoes().cloned().collect(),
            intervals: self.intervals.iter().cloned().collect(),
            health: None,
            loads: Vec::new(),
        })
    }

    /// Who really gets a module's requests.
    pub fn routes(&self, module: &ModuleName) -> Vec<(Digest, u8)> {
        self.live
            .get(module)
            .map(|live| live.routes.clone())
            .unwrap_or_default()
    }

    /// The newest spec that it accepted, durably.
    pub fn highest(&self) -> Generation {
        self.disk.highest()
    }
}

fn health_plan(module: &ModuleName, digest: Digest, load: u64, around: &mut Around<'_>) {
    let push = |around: &mut Around<'_>, at, result: Result<(), &str>| {
        around.later.push((
            at,
            Later::Health(module.clone(), digest, load, result.map_err(str::to_owned)),
        ));
    };
    match around.behaviour(&digest) {
        Behaviour::TurnsIll { after, one_in } if around.wild && around.hit(&digest, one_in) => {
            push(around, after, Err("its probe fails"));
        }
        Behaviour::Flaps { period } if around.wild => {
            for i in 0..3 {
                push(around, period * (2 * i + 1), Err("it flaps"));
                push(around, period * (2 * i + 2), Ok(()));
            }
        }
        _ => {}
    }
}

/// One arm's counts of an interval.
fn arm(requests: u64, digest: &Digest, probes: u32, around: &mut Around<'_>) -> ArmCounts {
    let (errs_per_million, slow) = match around.behaviour(digest) {
        Behaviour::Errs(per_mille) => (per_mille * 1_000, 1),
        Behaviour::Slow(factor) => (2_000, factor),
        _ => (2_000, 1),
    };
    let mut counts = ArmCounts {
        requests,
        probes: u64::from(probes),
        probe_streak: u64::from(probes),
        ..ArmCounts::default()
    };
    counts.errors = around.traffic.successes(requests, errs_per_million);
    let jitter = around.traffic.range(0, 200);
    let mut rest = requests;
    for (us, per_cent) in [(3_000, 30), (5_000, 9), (20_000, 1)] {
        let times = around.traffic.successes(requests, per_cent * 10_000).min(rest);
        counts.latency.record_many((us + jitter) * slow, times);
        rest -= times;
    }
    counts.latency.record_many((2_000 + jitter) * slow, rest);
    counts
}

/// An action in a few words.
fn told(action: &Action) -> String {
    let n = |digest: &Digest| digest.0[1];
    match action {
        Action::WriteLedger(ledger) => format!("writes its ledger {}", ledger.version),
        Action::Prepare { module, digest } => format!("prepares {module} {}", n(digest)),
        Action::Load { module, release } => format!("loads {module} {}", n(&release.digest)),
        Action::Route { module, routes } => {
            let routes: Vec<String> = routes
                .iter()
                .map(|(digest, weight)| format!("{}:{weight}", n(digest)))
                .collect();
            format!("routes {module} [{}]", routes.join(" "))
        }
        Action::Preview { module, digest } => format!("previews {module} {:?}", digest.as_ref().map(n)),
        Action::Unload { module, digest } => format!("unloads {module} {}", n(digest)),
        Action::RunSmoke { module, run } => format!("checks {module} {} {:?}", n(&run.digest), run.via),
        Action::Observe { module, observe } => {
            format!(
                "observes {module} {:?}",
                observe.map(|observe| (observe.rollout, observe.step))
            )
        }
        Action::Alarm(alarm) => format!("ALARM {alarm}"),
    }
}
