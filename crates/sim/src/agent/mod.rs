//! A node: the real reconciler, with a disk that forgets what was not synced, and releases that behave as drawn.

mod act;
mod kernel;
mod traffic;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use hotswap_core::ids::{Digest, ModuleName, NodeId, RolloutId};
use hotswap_core::invariants::{Check, Invariant, Violation};
use hotswap_core::mutants::{Mutant, is_on};
use hotswap_core::reconcile::{Ledger, NodeInput, Reconciler};
use hotswap_core::release::Kind;
use hotswap_core::report::Interval;
use hotswap_core::spec::{Generation, Observe, WEIGHT_ALL};
use hotswap_core::time::CoreTime;
use kernel::{Engaged, Kernel};

use crate::faults::{Fault, Injected};
use crate::marks::{Mark, Marks};
use crate::rng::Rng;
use crate::scenario::{Behaviour, NodePlan, Scenario};
use crate::store::{frame, frames};

/// How long an agent waits to write its ledger again when there was no room, in ms.
const FULL_PAUSE: u64 = 500;
/// How much later a release's health is looked at again that was on its way, in ms.
const ASKED_AGAIN: u64 = 10;
/// Parts of a clock's drift.
const MILLION: i64 = 1_000_000;

/// Something that comes back to an agent later, unless its process died meanwhile.
#[derive(Clone, Debug)]
pub enum Later {
    /// An answer for the reconciler.
    Input(NodeInput),
    /// A ledger's sync ended, if there was room.
    Synced(u64),
    /// A load ended; `load` counts them, so that an older instance's health says nothing.
    Loaded(ModuleName, Digest, Result<(), String>),
    /// An instance's health changes.
    Health(ModuleName, Digest, u64, Result<(), String>),
    /// A release takes the process down, if it still gets requests.
    Dies(ModuleName, Digest),
    /// An interval of evidence closes.
    Close(ModuleName, Observe),
    /// A release's turn to come to its place in the kernel is over.
    Engaged(Engaged),
    /// A release has been in its place in the kernel for a while, if it still is.
    Stood(ModuleName, Digest),
    /// A load takes the machine down.
    GoesDown,
}

/// What a node's disk does when the power fails while a ledger is being written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// Nothing of it is there.
    Lost,
    /// All of it is.
    Through,
    /// So many thousandths of it.
    Torn(u64),
}

/// A session, as the agent believes it to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Session {
    /// Its number.
    pub id: u64,
    /// The server's place.
    pub server: usize,
    /// Which of its processes.
    pub run: u64,
    /// The newest spec that the agent knew for good when it said hello.
    pub highest: Generation,
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
    /// Until when it is frozen, in ms.
    pub paused_until: u64,
    /// How many times as long everything takes.
    pub slow: u64,
    /// Whether its disk has no room.
    pub full: bool,
    /// What is durable: the last whole frame of `file`.
    pub disk: Ledger,
    file: Vec<u8>,
    /// Half a ledger that was never renamed into its place.
    half: Vec<u8>,
    writing: Option<Ledger>,
    /// Whether it was asked to stop.
    pub stopping: bool,
    /// The session that it believes in.
    pub session: Option<Session>,
    /// Whether it was removed from the fleet and is off.
    pub removed: bool,
    /// What needs reporting soon.
    pub report_due: bool,
    /// The next wake-up that is in the queue.
    pub wake: Option<u64>,
    /// When its process started: its monotonic clock counts from there.
    since: u64,
    /// By how many millionths that clock is fast.
    drift: i64,
    report_seq: u64,
    /// Packages that are verified and compiled, on disk.
    cache: BTreeSet<Digest>,
    live: BTreeMap<ModuleName, Live>,
    loads: u64,
    intervals: VecDeque<Interval>,
    numbers: BTreeMap<(ModuleName, RolloutId), u32>,
    /// What is in its kernel, and what it remembers of that.
    kernel: Kernel,
    /// Requests that it counted into closed intervals, by rollout: ground truth of evidence.
    pub counted: BTreeMap<RolloutId, u64>,
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
    /// What rare things happened.
    pub marks: &'a mut Marks,
    /// What broke.
    pub injected: &'a mut Injected,
}

impl Around<'_> {
    fn behaviour(&self, digest: &Digest) -> Behaviour {
        self.scenario
            .release(digest)
            .map_or(Behaviour::Good, |plan| plan.behaviour)
    }

    fn kind(&self, module: &ModuleName) -> Kind {
        let plan = self.scenario.modules.iter().find(|plan| plan.name == *module);
        plan.map_or(Kind::Wasm, |plan| plan.kind)
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
    pub fn new(plan: &NodePlan) -> Self {
        Self {
            id: plan.id.clone(),
            machine: None,
            boot: 0,
            paused_until: 0,
            slow: 1,
            full: false,
            disk: Ledger::default(),
            file: Vec::new(),
            half: Vec::new(),
            writing: None,
            stopping: false,
            session: None,
            removed: false,
            report_due: false,
            wake: None,
            since: 0,
            drift: plan.drift,
            report_seq: 0,
            cache: BTreeSet::new(),
            live: BTreeMap::new(),
            loads: 0,
            intervals: VecDeque::new(),
            numbers: BTreeMap::new(),
            kernel: Kernel::default(),
            counted: BTreeMap::new(),
            worked: 0,
            alarms: Vec::new(),
            story: Vec::new(),
        }
    }

    /// Its own monotonic clock.
    fn core(&self, now: u64) -> CoreTime {
        let elapsed = i64::try_from(now - self.since).expect("a run is short");
        CoreTime((elapsed + elapsed * self.drift / MILLION).unsigned_abs())
    }

    /// When its machine wants to be asked, in the simulation's ms.
    pub fn wake_at(&self) -> Option<u64> {
        let at = self.machine.as_ref()?.wake_at()?;
        let mut now = self.since + at.0;
        // Its own clock may not be there yet.
        while self.core(now) < at {
            now += 1;
        }
        Some(now)
    }

    /// Switches it on: what its disk holds is what it knows.
    ///
    /// # Errors
    /// An invariant that doesn't hold.
    pub fn boot(&mut self, around: &mut Around<'_>) -> Check {
        self.boot += 1;
        self.since = around.now;
        self.report_seq = 0;
        self.wake = None;
        self.live.clear();
        self.numbers.clear();
        self.intervals.clear();
        if !std::mem::take(&mut self.half).is_empty() {
            around.marks.hit(Mark::LedgerTorn);
        }
        let ledger = self.read()?;
        if ledger.modules.values().any(|entry| entry.trial.is_some()) {
            around.marks.hit(Mark::BootedFromTrial);
        }
        if ledger.orderly {
            around.marks.hit(Mark::OrderlyBoot);
        }
        let vetoes = ledger.vetoes.len();
        let (machine, actions) = Reconciler::boot(self.id.clone(), ledger, CoreTime(0));
        if machine.ledger().vetoes.len() > vetoes {
            around.marks.hit(Mark::BootsVeto);
        }
        self.machine = Some(machine);
        self.carry_out(actions, around)
    }

    /// The ledger's file, as a boot finds it. A torn one lies beside it and is not read.
    fn read(&self) -> Result<Ledger, Violation> {
        if self.file.is_empty() {
            return Ok(Ledger::default());
        }
        let fail = |what: String| Violation {
            invariant: Invariant::A5Full,
            what: format!("the ledger of {} {what}", self.id),
        };
        let Some((_, payload)) = frames(&self.file).next() else {
            return Err(fail("is torn".to_owned()));
        };
        let ledger: Ledger =
            serde_json::from_slice(payload).map_err(|error| fail(format!("does not read back: {error}")))?;
        if ledger == self.disk {
            Ok(ledger)
        } else {
            Err(fail("is not what was written".to_owned()))
        }
    }

    /// Power is cut. Whether a write was under way.
    pub fn crash(&mut self, cut: Cut) -> bool {
        self.machine = None;
        self.session = None;
        self.stopping = false;
        self.paused_until = 0;
        self.live.clear();
        self.kernel.agent_ends();
        let Some(writing) = self.writing.take().filter(|_| !self.full) else {
            return false;
        };
        match cut {
            Cut::Lost => {}
            Cut::Through => self.replace(writing),
            Cut::Torn(thousandths) => {
                let mut bytes = Vec::new();
                frame(&mut bytes, b'l', &writing);
                let part = bytes.len() as u64 * thousandths / 1_000;
                bytes.truncate(usize::try_from(part).expect("a part of a ledger fits"));
                self.half = bytes;
            }
        }
        true
    }

    /// Whether nothing that its machine knows is still to be written.
    pub fn is_written(&self) -> bool {
        let wanted = self.machine.as_ref().map(|machine| machine.ledger().version);
        self.writing.is_none() && wanted == Some(self.disk.version)
    }

    /// Its disk is lost: it will be a new node with an old name.
    pub fn wipe(&mut self) {
        self.disk = Ledger::default();
        self.file.clear();
        self.half.clear();
        self.cache.clear();
        self.kernel = Kernel::default();
    }

    fn replace(&mut self, ledger: Ledger) {
        self.file.clear();
        frame(&mut self.file, b'l', &ledger);
        self.disk = ledger;
    }

    /// Takes an input in.
    ///
    /// # Errors
    /// An invariant that doesn't hold.
    pub fn input(&mut self, input: NodeInput, around: &mut Around<'_>) -> Check {
        let now = self.core(around.now);
        let Some(machine) = &mut self.machine else {
            return Ok(());
        };
        if let NodeInput::LedgerWritten { .. } = input {
            self.report_due = true;
        }
        let older = match &input {
            NodeInput::Spec(spec) => spec.generation < machine.ledger().highest(),
            _ => false,
        };
        let vetoes = machine.ledger().vetoes.len();
        let version = machine.ledger().version;
        let actions = machine.step(input, now);
        if older && (!actions.is_empty() || machine.ledger().version != version) {
            return Err(Violation {
                invariant: Invariant::S11Fencing,
                what: format!("{} acts on an older spec than it knows: {actions:?}", self.id),
            });
        }
        if machine.ledger().vetoes.len() > vetoes {
            around.marks.hit(Mark::NodeVetoed);
        }
        self.carry_out(actions, around)
    }

    /// Takes in what it waited for.
    ///
    /// # Errors
    /// An invariant that doesn't hold.
    pub fn later(&mut self, later: Later, around: &mut Around<'_>) -> Check {
        match later {
            Later::Input(input) => {
                if let NodeInput::Prepared {
                    digest,
                    result: Ok(()),
                    ..
                } = &input
                {
                    self.cache.insert(*digest);
                }
                self.input(input, around)
            }
            Later::Synced(version) => self.synced(version, around),
            Later::Loaded(module, digest, result) => {
                if result.is_ok() {
                    self.loads += 1;
                    let live = self.live.entry(module.clone()).or_default();
                    live.loaded.insert(digest);
                    live.ill.remove(&digest);
                    live.load_of.insert(digest, self.loads);
                    act::health_plan(&module, digest, self.loads, around);
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
            // Nobody asks how a release is while it is on its way.
            Later::Health(ref module, ref digest, ..) if self.enters(module, digest) => {
                around.later.push((ASKED_AGAIN, later));
                Ok(())
            }
            Later::Health(module, digest, load, result) => {
                let elsewhere = !self.acts(&module, &digest);
                let Some(live) = self.live.get_mut(&module) else {
                    return Ok(());
                };
                if live.load_of.get(&digest) != Some(&load) || (result.is_err() && !around.wild) || elsewhere
                {
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
            Later::Dies(..) | Later::GoesDown => Ok(()),
            Later::Engaged(engaged) => self.engaged(engaged, around),
            Later::Stood(module, digest) => {
                self.kernel.stands(&module, digest);
                Ok(())
            }
            Later::Close(module, observe) => {
                self.close(&module, observe, around);
                Ok(())
            }
        }
    }

    /// A sync ended. Without room it is tried again, and what was durable still is.
    fn synced(&mut self, version: u64, around: &mut Around<'_>) -> Check {
        if self.full {
            around.marks.hit(Mark::LedgerFull);
            self.read()?;
            around.later.push((FULL_PAUSE, Later::Synced(version)));
            return Ok(());
        }
        if is_on(Mutant::LedgerUnsynced) {
            self.writing = None;
        }
        if let Some(ledger) = self.writing.take_if(|ledger| ledger.version == version) {
            if ledger.highest() < self.disk.highest() {
                return Err(Violation {
                    invariant: Invariant::S4Generations,
                    what: format!("the spec in the ledger of {} falls back", self.id),
                });
            }
            self.replace(ledger);
        }
        self.input(NodeInput::LedgerWritten { version }, around)
    }

    /// Whether a release that kills its process does so now.
    pub fn dies(&self, module: &ModuleName, digest: &Digest) -> bool {
        self.acts(module, digest)
            && self
                .live
                .get(module)
                .is_some_and(|live| live.routes.iter().any(|(served, _)| served == digest))
    }

    /// All that is ill recovers: faults end.
    ///
    /// # Errors
    /// An invariant that doesn't hold.
    pub fn recover(&mut self, around: &mut Around<'_>) -> Check {
        let ill: Vec<(ModuleName, Digest)> = self
            .live
            .iter()
            .flat_map(|(module, live)| live.ill.iter().map(|d| (module.clone(), *d)))
            .collect();
        for (module, digest) in ill {
            if !self.acts(&module, &digest) || self.enters(&module, &digest) {
                continue;
            }
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

    /// The server has these intervals up to a number.
    pub fn acked_intervals(&mut self, module: &ModuleName, rollout: RolloutId, number: u32) {
        self.intervals
            .retain(|kept| kept.module != *module || kept.rollout != rollout || kept.number > number);
    }

    /// Who really gets a module's requests.
    pub fn routes(&self, module: &ModuleName) -> Vec<(Digest, u8)> {
        if let Some(called) = self.called(module) {
            return called.map(|there| (there, WEIGHT_ALL)).into_iter().collect();
        }
        self.live
            .get(module)
            .map(|live| live.routes.clone())
            .unwrap_or_default()
    }

    /// The modules that anything is routed of.
    pub fn served(&self) -> impl Iterator<Item = &ModuleName> {
        let served = self.live.iter().filter(|(_, live)| !live.routes.is_empty());
        served.map(|(module, _)| module)
    }

    /// The newest spec that it accepted, durably.
    pub fn highest(&self) -> Generation {
        self.disk.highest()
    }

    /// How long a write of the ledger takes, in ms.
    fn write_time(&self, around: &mut Around<'_>) -> u64 {
        let slow = around.wild && around.scenario.faults.has(Fault::SlowLedger) && around.machines.chance(40);
        if slow {
            around.injected.count(Fault::SlowLedger);
            around.machines.range(200, 4_000)
        } else {
            around.machines.range(1, 8) * self.slow
        }
    }
}
