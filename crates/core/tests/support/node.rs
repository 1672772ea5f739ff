//! A node of the scenarios: the real reconciler, on a machine that does what the script says.

use std::collections::BTreeMap;

use hotswap_core::analysis::{ArmCounts, Block};
use hotswap_core::ids::{Digest, EnvName, Incarnation, ModuleName, NodeId};
use hotswap_core::reconcile::{Action, Ledger, NodeInput, Reconciler};
use hotswap_core::report::{Hello, Interval, NodeReport, SmokeOutcome};
use hotswap_core::spec::{NodeSpec, Observe, SmokeRun, SmokeVia};
use hotswap_core::time::{CoreTime, Millis};

/// A node says at least this often that it lives.
const HEARTBEAT: Millis = Millis::from_secs(10);
/// Smoke checks of a release.
const SMOKE_CHECKS: u32 = 3;
/// How long smoke checks take.
const SMOKE_TIME: Millis = Millis(400);
/// How long a release that the node will leave looks well.
const SICK_AFTER: Millis = Millis(600);

/// One arm's behaviour under users' requests.
#[derive(Clone, Copy, Debug)]
pub struct Arm {
    /// Errors, in %.
    pub error_percent: f64,
    /// Median latency.
    pub latency_ms: f64,
}

/// What users ask of each node of an environment.
#[derive(Clone, Copy, Debug)]
pub struct Traffic {
    /// Requests a second on each node.
    pub per_second: f64,
    /// The release on trial.
    pub candidate: Arm,
    /// The stable one.
    pub control: Arm,
    /// Probes of the candidate that fail, in %.
    pub probe_error_percent: f64,
}

impl Default for Traffic {
    fn default() -> Self {
        let arm = Arm {
            error_percent: 0.0,
            latency_ms: 20.0,
        };
        Self {
            per_second: 50.0,
            candidate: arm,
            control: arm,
            probe_error_percent: 0.0,
        }
    }
}

/// What goes wrong on a node, as scripted.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    /// The releases' loads end so.
    pub load: BTreeMap<Digest, String>,
    /// Smoke checks of releases end so; by which door, where only by one.
    pub smoke: BTreeMap<Digest, (Option<SmokeVia>, String)>,
    /// Releases that turn bad once they serve.
    pub sick: BTreeMap<Digest, String>,
    /// How long fetching and compiling takes, where not the usual time.
    pub prepare: Option<Millis>,
}

/// What an arm's interval leaves to the next.
#[derive(Clone, Copy, Debug, Default)]
struct Carry {
    /// What is left of whole requests and errors.
    requests: f64,
    errors: f64,
    /// Where the next request stands among ten.
    place: u64,
}

/// A counter of evidence that runs.
#[derive(Clone, Debug)]
struct Counting {
    observe: Observe,
    since: CoreTime,
    number: u32,
    /// By arm: candidate, control.
    carry: [Carry; 2],
    probe_carry: f64,
}

/// A machine with an agent.
pub struct Machine {
    /// Who.
    pub id: NodeId,
    /// Where it wants to be.
    pub environment: EnvName,
    labels: BTreeMap<String, String>,
    reconciler: Reconciler,
    /// What survives a crash.
    disk: Ledger,
    incarnation: Incarnation,
    seq: u64,
    /// Whether the network carries its words.
    pub reachable: bool,
    /// Whether its process stands still.
    pub hung: bool,
    /// Whether a session stands.
    pub session: bool,
    greeted: bool,
    last_report: CoreTime,
    vetoes_said: usize,
    due: Vec<(CoreTime, NodeInput)>,
    counting: BTreeMap<ModuleName, Counting>,
    numbers: BTreeMap<(ModuleName, u64), u32>,
    intervals: Vec<Interval>,
    /// What goes wrong.
    pub faults: Faults,
    /// What its environment's users do.
    pub traffic: Traffic,
    /// Alarms that it raised.
    pub alarms: Vec<String>,
}

impl Machine {
    /// A new machine, with nothing on its disk.
    pub fn new(id: NodeId, environment: EnvName, zone: &str, now: CoreTime) -> Self {
        let (reconciler, actions) = Reconciler::boot(id.clone(), Ledger::default(), now);
        let mut machine = Self {
            id,
            environment,
            labels: [("zone".to_owned(), zone.to_owned())].into(),
            reconciler,
            disk: Ledger::default(),
            incarnation: Incarnation(1),
            seq: 0,
            reachable: true,
            hung: false,
            session: false,
            greeted: false,
            last_report: now,
            vetoes_said: 0,
            due: Vec::new(),
            counting: BTreeMap::new(),
            numbers: BTreeMap::new(),
            intervals: Vec::new(),
            faults: Faults::default(),
            traffic: Traffic::default(),
            alarms: Vec::new(),
        };
        machine.carry_out(actions, now);
        machine
    }

    /// Power off and on: only the disk is left.
    pub fn restart(&mut self, now: CoreTime) {
        let (reconciler, actions) = Reconciler::boot(self.id.clone(), self.disk.clone(), now);
        self.reconciler = reconciler;
        self.incarnation.0 += 1;
        self.seq = 0;
        self.drop_session();
        self.due.clear();
        self.counting.clear();
        self.numbers.clear();
        self.intervals.clear();
        self.carry_out(actions, now);
    }

    /// The session fell.
    pub fn drop_session(&mut self) {
        self.session = false;
        self.greeted = false;
    }

    /// A session stands; the next report is a full one.
    pub fn open_session(&mut self) {
        self.session = true;
        self.greeted = false;
    }

    /// What it does by itself until now.
    pub fn step(&mut self, now: CoreTime) {
        if self.hung {
            return;
        }
        // Each answer may ask for more; a node's whole way to a new release takes fewer than these.
        const ROUNDS_MAX: usize = 1_000;
        for _ in 0..ROUNDS_MAX {
            let Some(next) = self.due.iter().position(|(at, _)| *at <= now) else {
                break;
            };
            let (_, input) = self.due.remove(next);
            self.input(input, now);
        }
        if self.reconciler.wake_at().is_some_and(|at| at <= now) {
            self.input(NodeInput::Tick, now);
        }
        self.count(now);
    }

    /// What the server sent.
    pub fn spec(&mut self, spec: NodeSpec, now: CoreTime) {
        self.input(NodeInput::Spec(spec), now);
    }

    /// What the server, or the world, says.
    pub fn input(&mut self, input: NodeInput, now: CoreTime) {
        let actions = self.reconciler.step(input, now);
        self.carry_out(actions, now);
    }

    /// The newest spec that it accepted for good.
    pub fn reconciler(&self) -> &Reconciler {
        &self.reconciler
    }

    /// A release that serves turns bad, or will once it serves.
    pub fn sicken(&mut self, module: &ModuleName, digest: Digest, reason: &str, now: CoreTime) {
        self.faults.sick.insert(digest, reason.to_owned());
        let status = self.reconciler.statuses().get(module);
        if status.is_some_and(|status| status.routes.iter().any(|(served, _)| *served == digest)) {
            let result = Err(reason.to_owned());
            self.due.push((
                now,
                NodeInput::Health {
                    module: module.clone(),
                    digest,
                    result,
                },
            ));
        }
    }

    /// Nothing goes wrong any more; what was bad is well.
    pub fn mend(&mut self, now: CoreTime) {
        let faults = std::mem::take(&mut self.faults);
        let modules: Vec<ModuleName> = self.reconciler.statuses().keys().cloned().collect();
        // Whoever was to turn bad later doesn't.
        self.due
            .retain(|(_, input)| !matches!(input, NodeInput::Health { result: Err(_), .. }));
        for digest in faults.sick.into_keys() {
            for module in modules.clone() {
                let result = Ok(());
                self.due.push((
                    now,
                    NodeInput::Health {
                        module,
                        digest,
                        result,
                    },
                ));
            }
        }
    }

    fn carry_out(&mut self, actions: Vec<Action>, now: CoreTime) {
        for action in actions {
            match action {
                Action::WriteLedger(ledger) => {
                    let version = ledger.version;
                    self.disk = ledger;
                    self.due.push((now, NodeInput::LedgerWritten { version }));
                }
                Action::Prepare { module, digest, .. } => {
                    let delay = self.faults.prepare.unwrap_or(Millis(800));
                    let result = Ok(());
                    self.due.push((
                        now + delay,
                        NodeInput::Prepared {
                            module,
                            digest,
                            result,
                        },
                    ));
                }
                Action::Load {
                    module,
                    release,
                    values,
                } => {
                    let result = self
                        .faults
                        .load
                        .get(&release.digest)
                        .map_or(Ok(()), |why| Err(why.clone()));
                    assert!(values.is_some(), "a release is loaded whose values nobody knows");
                    let loaded = NodeInput::Loaded {
                        module,
                        digest: release.id(),
                        result,
                    };
                    self.due.push((now + Millis(200), loaded));
                }
                Action::Route { module, routes } => {
                    for (digest, _) in routes {
                        if let Some(reason) = self.faults.sick.get(&digest) {
                            let result = Err(reason.clone());
                            let health = NodeInput::Health {
                                module: module.clone(),
                                digest,
                                result,
                            };
                            self.due.push((now + SICK_AFTER, health));
                        }
                    }
                }
                Action::RunSmoke { module, run } => {
                    let outcome = self.smoke(run);
                    self.due
                        .push((now + SMOKE_TIME, NodeInput::Smoke { module, outcome }));
                }
                Action::Observe { module, observe } => self.observe(module, observe, now),
                Action::Preview { .. } | Action::Unload { .. } => {}
                Action::Alarm(alarm) => self.alarms.push(alarm.to_string()),
            }
        }
    }

    fn smoke(&self, run: SmokeRun) -> SmokeOutcome {
        let fault = self.faults.smoke.get(&run.digest);
        let failures: Vec<String> = fault
            .filter(|(via, _)| via.is_none_or(|via| via == run.via))
            .map(|(_, why)| why.clone())
            .into_iter()
            .collect();
        let failed = u32::try_from(failures.len()).unwrap();
        SmokeOutcome {
            run,
            passed: SMOKE_CHECKS - failed,
            failures,
        }
    }

    fn observe(&mut self, module: ModuleName, observe: Option<Observe>, now: CoreTime) {
        self.close(&module, now);
        match observe {
            Some(observe) => {
                let number = self
                    .numbers
                    .get(&(module.clone(), observe.rollout.0))
                    .copied()
                    .unwrap_or(0);
                let counting = Counting {
                    observe,
                    since: now,
                    number,
                    carry: Default::default(),
                    probe_carry: 0.0,
                };
                self.counting.insert(module, counting);
            }
            None => {
                self.counting.remove(&module);
            }
        }
    }

    fn count(&mut self, now: CoreTime) {
        let ended: Vec<ModuleName> = self
            .counting
            .iter()
            .filter(|(_, counting)| now.since(counting.since) >= counting.observe.interval)
            .map(|(module, _)| module.clone())
            .collect();
        for module in ended {
            self.close(&module, now);
        }
    }

    /// Closes a module's interval with what its users did meanwhile.
    fn close(&mut self, module: &ModuleName, now: CoreTime) {
        let traffic = self.traffic;
        let Some(counting) = self.counting.get_mut(module) else {
            return;
        };
        let elapsed = now.since(counting.since);
        if elapsed == Millis(0) {
            return;
        }
        let routes = self
            .reconciler
            .statuses()
            .get(module)
            .map_or(&[][..], |status| &status.routes);
        let weight = |digest| {
            let route = routes.iter().find(|(served, _)| Some(*served) == digest);
            route.map_or(0.0, |(_, weight)| f64::from(*weight) / 100.0)
        };
        let observe = counting.observe;
        let requests = traffic.per_second * elapsed.0 as f64 / 1_000.0;
        let shares = [weight(Some(observe.candidate)), weight(observe.control)];
        let mut block = Block::default();
        let arms = [
            (&mut block.candidate, traffic.candidate),
            (&mut block.control, traffic.control),
        ];
        for (((counts, arm), share), carry) in arms.into_iter().zip(shares).zip(&mut counting.carry) {
            serve(counts, arm, requests * share, carry);
        }
        block.candidate.probes = u64::from(observe.probes);
        counting.probe_carry += f64::from(observe.probes) * traffic.probe_error_percent / 100.0;
        block.candidate.probe_errors = whole(&mut counting.probe_carry);
        if observe.control.is_some() {
            block.control.probes = u64::from(observe.probes);
        }
        counting.since = now;
        counting.number += 1;
        let number = counting.number;
        self.numbers.insert((module.clone(), observe.rollout.0), number);
        self.intervals.push(Interval {
            module: module.clone(),
            rollout: observe.rollout,
            step: observe.step,
            number,
            block,
        });
    }

    /// What it says now, if it has anything to say.
    pub fn report(&mut self, now: CoreTime) -> Option<NodeReport> {
        if !self.session || self.hung {
            return None;
        }
        let vetoes: Vec<_> = self.reconciler.vetoes().cloned().collect();
        let full = !self.greeted;
        let changed = self.reconciler.take_changed();
        let beat = now.since(self.last_report) >= HEARTBEAT;
        let news = !changed.is_empty() || vetoes.len() != self.vetoes_said || !self.intervals.is_empty();
        if !(full || beat || news) {
            return None;
        }
        let statuses = self.reconciler.statuses();
        let modules = if full {
            statuses
                .iter()
                .map(|(module, status)| (module.clone(), Some(status.clone())))
                .collect()
        } else {
            changed
                .into_iter()
                .map(|module| (module.clone(), statuses.get(&module).cloned()))
                .collect()
        };
        self.greeted = true;
        self.vetoes_said = vetoes.len();
        self.last_report = now;
        self.seq += 1;
        Some(NodeReport {
            node: self.id.clone(),
            incarnation: self.incarnation,
            seq: self.seq,
            hello: full.then(|| self.hello()),
            highest: self.reconciler.highest(),
            modules,
            vetoes,
            intervals: self.intervals.clone(),
            health: None,
            loads: Vec::new(),
        })
    }

    fn hello(&self) -> Hello {
        Hello {
            hostname: format!("{}.example", self.id),
            environment: self.environment.clone(),
            ingress: "127.0.0.1:8080".to_owned(),
            labels: self.labels.clone(),
            agent_version: "0.1.0".to_owned(),
            capabilities: ["wasm", "process", "ebpf", "kernel"].map(str::to_owned).to_vec(),
        }
    }

    /// Intervals that the server may still want.
    pub fn unacked(&self) -> &[Interval] {
        &self.intervals
    }

    /// Forgets intervals that the server has folded, or has no use for.
    pub fn acked(&mut self, unwanted: impl Fn(&Interval, Incarnation) -> bool) {
        let incarnation = self.incarnation;
        self.intervals.retain(|interval| !unwanted(interval, incarnation));
    }
}

/// Of ten requests in a row, how many times the median each takes.
const LATENCIES: [f64; 10] = [0.8, 0.9, 1.0, 0.8, 0.9, 1.2, 0.8, 0.9, 1.0, 2.0];

/// Requests of one arm, spread over a few latencies around the median: over many intervals as over one, however few
/// requests each has.
fn serve(counts: &mut ArmCounts, arm: Arm, requests: f64, carry: &mut Carry) {
    carry.requests += requests;
    counts.requests = whole(&mut carry.requests);
    carry.errors += counts.requests as f64 * arm.error_percent / 100.0;
    counts.errors = whole(&mut carry.errors).min(counts.requests);
    let tens = counts.requests / 10;
    for (place, factor) in (0..).zip(LATENCIES) {
        let is_next = (place + 10 - carry.place) % 10 < counts.requests % 10;
        let us = whole(&mut (arm.latency_ms * 1_000.0 * factor));
        counts.latency.record_many(us, tens + u64::from(is_next));
    }
    carry.place = (carry.place + counts.requests) % 10;
}

/// Takes the whole part.
fn whole(carry: &mut f64) -> u64 {
    let whole = carry.floor();
    *carry -= whole;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "small and not negative"
    )]
    let whole = whole as u64;
    whole
}
