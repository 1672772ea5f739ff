//! The event queue, and everything that happens to servers, nodes and the network between them.

mod breaking;
mod ending;
mod network;
mod nodes;
mod noted;
mod people;
mod servers;
mod story;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

use hotswap_core::command::Command;
use hotswap_core::decide::CheckResult;
use hotswap_core::ids::{DeploymentId, Digest, ModuleName, NodeId, RolloutId};
use hotswap_core::invariants::{Invariant, Violation};
use hotswap_core::time::WallTime;

use crate::agent::{Agent, Later};
use crate::faults::{Fault, Injected};
use crate::marks::{Mark, Marks};
use crate::operators::Operators;
use crate::oracle::Oracle;
use crate::rng::{Rng, Stream};
use crate::scenario::Scenario;
use crate::server::{Inbound, Outbound, Server};
use crate::shape::Shape;
use crate::store::{Answer, Refused, Store};

/// Most steps of a run: a run that needs more does something for ever.
const STEPS_MAX: u64 = 3_000_000;
/// Places where a server may run: one leads, the other stands by or was deposed.
const SERVERS: usize = 2;

/// What is in the queue.
#[derive(Debug)]
enum Happening {
    AgentBoots(usize),
    AgentConnects(usize, u64),
    AgentLost(usize, u64),
    AgentHeartbeat(usize, u64, u64),
    AgentReports(usize, u64),
    AgentWakes(usize, u64),
    AgentLater(usize, u64, Later),
    AgentQuickens(usize, u64),
    AgentHasRoom(usize),
    ToServer(usize, u64, Box<Inbound>),
    ToAgent(usize, u64, Box<Outbound>),
    ServerBatch(usize, u64),
    StoreCommits(usize, u64),
    ServerSynced(usize, u64, Result<(), Refused>),
    ServerWakes(usize, u64),
    ServerStarts(usize),
    ServerFollows(usize, u64),
    StoreHasRoom,
    CheckDone(usize, u64, CheckResult),
    Operator,
    Retry(usize),
    Heals(u64),
    Breaks(usize),
    Adopt,
    TakesOver(usize),
    AgentReturns(usize),
    Decides(DeploymentId, WallTime),
    Meddles(DeploymentId),
    FaultsEnd,
    Settling,
}

struct Item {
    at: u64,
    order: u64,
    what: Happening,
}

impl PartialEq for Item {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.order) == (other.at, other.order)
    }
}
impl Eq for Item {}
impl PartialOrd for Item {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Item {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.order).cmp(&(other.at, other.order))
    }
}

/// How a run went.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Inputs that the core took.
    pub inputs: u64,
    /// How long it lasted, in simulated ms.
    pub lasted: u64,
    /// What didn't hold, if anything.
    pub violation: Option<Violation>,
    /// How often which rare thing happened.
    pub marks: Marks,
    /// What broke, how often.
    pub injected: Injected,
    /// Places of the faults that had their moment, for making the run smaller.
    pub planned: Vec<usize>,
    /// Nodes that there were.
    pub nodes: usize,
    /// The whole story, if it was asked for.
    pub story: String,
}

/// Something that was asked for.
#[derive(Debug)]
struct Wish {
    command: Command,
    /// The first answer that came, if one did.
    answer: Option<Answer>,
    tries: u64,
}

/// A whole run.
pub struct World {
    scenario: Scenario,
    ids: Vec<NodeId>,
    agents: Vec<Agent>,
    servers: [Server; SERVERS],
    store: Store,
    /// Which server took the lead last.
    leader: usize,
    /// Lengths of the log that were kept as backups.
    backups: Vec<usize>,
    operators: Operators,
    oracle: Oracle,
    queue: BinaryHeap<Reverse<Item>>,
    order: u64,
    now: u64,
    sessions: u64,
    /// Nodes that the network doesn't reach, by direction, with until when.
    cut_up: BTreeMap<usize, u64>,
    cut_down: BTreeMap<usize, u64>,
    /// When the last message of each direction arrives: a stream keeps its order.
    last_up: Vec<u64>,
    last_down: Vec<u64>,
    faults: Rng,
    network: Rng,
    machines: Rng,
    traffic: Rng,
    epochs: Rng,
    wild: bool,
    wishes: Vec<Wish>,
    pending: BTreeSet<usize>,
    batch_queued: [bool; SERVERS],
    inputs: u64,
    settled: Option<(u64, u64, u64)>,
    /// When faults ended.
    calm_since: u64,
    /// Whether a backup was restored and the fleet not adopted since.
    restored: bool,
    /// The first event that the restored log knows nothing of, the epochs that had begun, and the last session before.
    lost_from: u64,
    lost_epochs: BTreeSet<u64>,
    /// What each node left by itself, as it was acknowledged.
    left: Vec<BTreeSet<(ModuleName, RolloutId, Digest)>>,
    begun: BTreeSet<u64>,
    dead_sessions: u64,
    /// Whether the next batch fails, with an outcome that nobody knows, or loses its end.
    store_fails: bool,
    store_tears: Option<u64>,
    snapshot_at: u64,
    marks: Marks,
    injected: Injected,
    story: Option<String>,
}

/// The faults that are there from the start.
fn drifting(scenario: &Scenario) -> Injected {
    let mut injected = Injected::default();
    for _ in scenario.nodes.iter().filter(|node| node.drift != 0) {
        injected.count(Fault::Drift);
    }
    injected
}

impl World {
    /// Draws everything from a seed, made as small as asked for; with its story, if that is asked for.
    pub fn new(seed: u64, shape: &Shape, tells: bool) -> Self {
        let scenario = Scenario::draw(seed, shape);
        let ids: Vec<NodeId> = scenario.nodes.iter().map(|plan| plan.id.clone()).collect();
        let agents = scenario.nodes.iter().map(Agent::new).collect();
        let operators = Operators::new(&scenario, shape, Rng::new(seed, Stream::Operators));
        let looks_twice = Rng::new(seed, Stream::Checks).chance(60);
        let mut servers = <[Server; SERVERS]>::default();
        for server in &mut servers {
            server.looks_twice = looks_twice;
        }
        Self {
            last_up: vec![0; ids.len()],
            left: vec![BTreeSet::new(); ids.len()],
            last_down: vec![0; ids.len()],
            oracle: Oracle::default(),
            operators,
            agents,
            ids,
            servers,
            store: Store::default(),
            leader: 0,
            backups: Vec::new(),
            queue: BinaryHeap::new(),
            order: 0,
            now: 0,
            sessions: 0,
            cut_up: BTreeMap::new(),
            cut_down: BTreeMap::new(),
            faults: Rng::new(seed, Stream::Faults),
            network: Rng::new(seed, Stream::Network),
            machines: Rng::new(seed, Stream::Machines),
            traffic: Rng::new(seed, Stream::Traffic),
            epochs: Rng::new(seed, Stream::Epochs),
            wild: true,
            wishes: Vec::new(),
            pending: BTreeSet::new(),
            batch_queued: [false; SERVERS],
            inputs: 0,
            settled: None,
            calm_since: 0,
            restored: false,
            lost_from: 0,
            lost_epochs: BTreeSet::new(),
            begun: BTreeSet::new(),
            dead_sessions: 0,
            store_fails: false,
            store_tears: None,
            snapshot_at: 0,
            marks: Marks::default(),
            injected: drifting(&scenario),
            story: tells.then(String::new),
            scenario,
        }
    }

    /// Runs it to its end.
    pub fn run(mut self) -> Outcome {
        self.begin();
        let mut steps = 0_u64;
        let violation = loop {
            let Some(Reverse(item)) = self.queue.pop() else {
                break None;
            };
            self.now = item.at;
            steps += 1;
            if steps > STEPS_MAX {
                break Some(self.violation(Invariant::L3Quiet, format!("{STEPS_MAX} steps and no end")));
            }
            match self.happen(item.what) {
                Ok(false) => {}
                Ok(true) => break None,
                Err(violation) => break Some(violation),
            }
        };
        if let Some(violation) = &violation {
            self.say(|| format!("VIOLATION {violation}"));
        }
        Outcome {
            inputs: self.inputs,
            lasted: self.now,
            violation,
            marks: self.marks,
            injected: self.injected,
            planned: self.scenario.planned.iter().map(|(place, _)| *place).collect(),
            nodes: self.agents.len(),
            story: self.story.unwrap_or_default(),
        }
    }

    fn begin(&mut self) {
        self.tell_scenario();
        self.queue(0, Happening::ServerStarts(0));
        for node in 0..self.agents.len() {
            let at = self.scenario.nodes[node].joins_at;
            self.queue(at, Happening::AgentBoots(node));
        }
        for command in self.operators.first(&self.scenario) {
            self.ask(command);
        }
        let first = self.operators.pause();
        self.queue(first, Happening::Operator);
        self.queue(self.scenario.ends_at, Happening::FaultsEnd);
        for place in 0..self.scenario.planned.len() {
            let at = self.scenario.planned[place].1.at;
            self.queue(at, Happening::Breaks(place));
        }
    }

    fn queue(&mut self, after: u64, what: Happening) {
        self.order += 1;
        self.queue.push(Reverse(Item {
            at: self.now + after,
            order: self.order,
            what,
        }));
    }

    /// Whether a fault of a kind befalls this message, write or batch: in so many of a thousand.
    fn strikes(&mut self, fault: Fault, per_mille: u64) -> bool {
        if !self.wild || !self.scenario.faults.has(fault) || !self.network.chance(per_mille) {
            return false;
        }
        self.injected.count(fault);
        true
    }

    fn mark(&mut self, mark: Mark) {
        self.marks.hit(mark);
    }

    fn violation(&self, invariant: Invariant, what: impl std::fmt::Display) -> Violation {
        Violation {
            invariant,
            what: format!("{what} (at {} ms)", self.now),
        }
    }

    /// One thing happens. `true`: all is over and well.
    fn happen(&mut self, what: Happening) -> Result<bool, Violation> {
        let Some(what) = self.while_awake(what) else {
            return Ok(false);
        };
        match what {
            Happening::AgentBoots(node) => self.agent_boots(node)?,
            Happening::AgentConnects(node, boot) => self.agent_connects(node, boot),
            Happening::AgentLost(node, session) => self.agent_lost(node, session),
            Happening::AgentHeartbeat(node, boot, session) => self.agent_heartbeat(node, boot, session),
            Happening::AgentReports(node, boot) => {
                if self.agents[node].boot == boot && self.agents[node].report_due {
                    self.agent_reports(node, false);
                }
            }
            Happening::AgentWakes(node, boot) => self.agent_wakes(node, boot)?,
            Happening::AgentLater(node, boot, later) => self.agent_later(node, boot, later)?,
            Happening::AgentQuickens(node, boot) => {
                if self.agents[node].boot == boot {
                    self.agents[node].slow = 1;
                }
            }
            Happening::AgentHasRoom(node) => self.agents[node].full = false,
            Happening::ToServer(server, run, inbound) => self.arrives(server, run, *inbound),
            Happening::ToAgent(node, boot, message) => {
                if self.agents[node].boot == boot {
                    self.deliver(node, *message)?;
                }
            }
            Happening::ServerBatch(server, run) => self.server_batch(server, run)?,
            Happening::StoreCommits(server, run) => self.store_commits(server, run)?,
            Happening::ServerSynced(server, run, result) => self.server_synced(server, run, result)?,
            Happening::ServerWakes(server, run) => {
                if self.runs(server, run) && self.servers[server].wake.is_some_and(|at| at <= self.now) {
                    self.inputs += 1;
                    self.wake_server(server);
                }
            }
            Happening::ServerStarts(server) => self.server_starts(server)?,
            Happening::ServerFollows(server, run) => {
                if self.runs(server, run) && self.leader != server {
                    self.mark(Mark::Fenced);
                    self.server_ends(server, "sees that another leads");
                }
            }
            Happening::StoreHasRoom => self.store.full = false,
            Happening::CheckDone(server, run, result) => {
                self.arrives(server, run, Inbound::Check(result));
            }
            Happening::Operator => self.operator(),
            Happening::Retry(place) => {
                if self.pending.contains(&place) {
                    self.mark(Mark::UnknownOutcome);
                    self.send_command(place);
                }
            }
            Happening::Heals(until) => self.heals(until),
            Happening::Breaks(place) => self.breaks(place)?,
            Happening::Adopt => self.adopt(),
            Happening::TakesOver(frozen) => self.takes_over(frozen)?,
            Happening::AgentReturns(node) => self.agent_returns(node)?,
            Happening::Decides(deployment, until) => self.decides(deployment, until),
            Happening::Meddles(deployment) => self.meddles(deployment),
            Happening::FaultsEnd => self.faults_end()?,
            Happening::Settling => return self.settling(),
        }
        Ok(false)
    }

    /// A frozen process takes nothing in; what it would have taken waits until it thaws.
    fn while_awake(&mut self, what: Happening) -> Option<Happening> {
        let until = match &what {
            // A machine that goes down waits for nobody.
            Happening::AgentLater(_, _, Later::GoesDown) => 0,
            Happening::AgentConnects(node, _)
            | Happening::AgentLost(node, _)
            | Happening::AgentHeartbeat(node, ..)
            | Happening::AgentReports(node, _)
            | Happening::AgentWakes(node, _)
            | Happening::AgentLater(node, ..)
            | Happening::ToAgent(node, ..) => self.agents[*node].paused_until,
            Happening::ToServer(server, ..)
            | Happening::ServerBatch(server, _)
            | Happening::ServerSynced(server, ..)
            | Happening::ServerWakes(server, _)
            | Happening::ServerFollows(server, _)
            | Happening::CheckDone(server, ..) => self.servers[*server].paused_until,
            _ => 0,
        };
        if until <= self.now {
            return Some(what);
        }
        self.queue(until - self.now, what);
        None
    }
}
