//! The event queue, and everything that happens to the server, its nodes and the network between them.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

use hotswap_core::command::Command;
use hotswap_core::decide::CheckResult;
use hotswap_core::event::{Event, Logged};
use hotswap_core::ids::NodeId;
use hotswap_core::invariants::{Check, Invariant, Violation, settled};
use hotswap_core::reconcile::NodeInput;
use hotswap_core::report::NodeReport;

use crate::agent::{Agent, Around, Later};
use crate::operators::Operators;
use crate::oracle::Oracle;
use crate::rng::{Rng, Stream};
use crate::scenario::{Behaviour, HEARTBEAT, Scenario};
use crate::server::{Inbound, Outbound, Server};

/// Most steps of a run: a run that needs more does something for ever.
const STEPS_MAX: u64 = 3_000_000;
/// How long everything must be quiet at the end, in ms.
const QUIET: u64 = 3_000;

/// What is in the queue.
#[derive(Debug)]
enum Happening {
    AgentBoots(usize),
    AgentCrashes(usize),
    AgentConnects(usize, u64),
    AgentLost(usize, u64),
    AgentHeartbeat(usize, u64, u64),
    AgentReports(usize, u64),
    AgentWakes(usize, u64),
    AgentLater(usize, u64, Later),
    ToServer(u64, Box<Inbound>),
    ToAgent(usize, u64, Box<Outbound>),
    ServerBatch(u64),
    ServerSynced(u64),
    ServerWakes(u64),
    ServerCrashes,
    ServerStarts,
    CheckDone(u64, CheckResult),
    Operator,
    Retry(usize),
    PartitionBegins(u64),
    PartitionEnds,
    Resets,
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
    pub marks: BTreeMap<&'static str, u64>,
}

/// A whole run.
pub struct World {
    scenario: Scenario,
    ids: Vec<NodeId>,
    agents: Vec<Agent>,
    server: Server,
    operators: Operators,
    oracle: Oracle,
    queue: BinaryHeap<Reverse<Item>>,
    order: u64,
    now: u64,
    sessions: u64,
    /// Nodes that the network doesn't reach.
    cut: BTreeSet<usize>,
    /// When the last message of each direction arrives: a stream keeps its order.
    last_up: Vec<u64>,
    last_down: Vec<u64>,
    faults: Rng,
    network: Rng,
    machines: Rng,
    traffic: Rng,
    wild: bool,
    commands: Vec<Command>,
    pending: BTreeSet<usize>,
    batch_queued: bool,
    inputs: u64,
    settled: Option<(u64, u64, u64)>,
    marks: BTreeMap<&'static str, u64>,
    trace: bool,
}

impl World {
    /// Draws everything from a seed.
    pub fn new(seed: u64, trace: bool) -> Self {
        let scenario = Scenario::draw(seed);
        let ids: Vec<NodeId> = scenario.nodes.iter().map(|plan| plan.id.clone()).collect();
        let agents = ids.iter().cloned().map(Agent::new).collect();
        let operators = Operators::new(&scenario, Rng::new(seed, Stream::Operators));
        Self {
            last_up: vec![0; ids.len()],
            last_down: vec![0; ids.len()],
            oracle: Oracle::default(),
            operators,
            agents,
            ids,
            server: Server::new(),
            queue: BinaryHeap::new(),
            order: 0,
            now: 0,
            sessions: 0,
            cut: BTreeSet::new(),
            faults: Rng::new(seed, Stream::Faults),
            network: Rng::new(seed, Stream::Network),
            machines: Rng::new(seed, Stream::Machines),
            traffic: Rng::new(seed, Stream::Traffic),
            wild: true,
            commands: Vec::new(),
            pending: BTreeSet::new(),
            batch_queued: false,
            inputs: 0,
            settled: None,
            marks: BTreeMap::new(),
            trace,
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
        }
    }

    fn begin(&mut self) {
        if self.trace {
            let Scenario {
                profile,
                environments,
                nodes,
                modules,
                ..
            } = &self.scenario;
            println!(
                "profile {profile:?}, ends at {} ms, bound {} ms",
                self.scenario.ends_at, self.scenario.bound
            );
            for environment in environments {
                println!(
                    "environment {} {:?} {:?}",
                    environment.name, environment.strategy, environment.policy
                );
            }
            for node in nodes {
                println!("node {node:?}");
            }
            for module in modules {
                println!("module {} {:?}", module.name, module.kind);
                for plan in &module.releases {
                    println!(
                        "  {} {:?} {:?}",
                        plan.release, plan.release.digest, plan.behaviour
                    );
                }
            }
        }
        self.queue(0, Happening::ServerStarts);
        for node in 0..self.agents.len() {
            let at = self.scenario.nodes[node].joins_at;
            self.queue(at, Happening::AgentBoots(node));
        }
        for command in self.operators.first(&self.scenario) {
            self.ask(command);
        }
        let first = self.operators.pause();
        self.queue(first, Happening::Operator);
        let ends_at = self.scenario.ends_at;
        self.queue(ends_at, Happening::FaultsEnd);
        if self.scenario.profile.breaks() {
            self.draw_faults(ends_at);
        }
    }

    fn draw_faults(&mut self, ends_at: u64) {
        let nodes = self.agents.len();
        for _ in 0..self.faults.range(1, 12) {
            let at = self.faults.range(500, ends_at);
            let what = match self.faults.range(0, 9) {
                0..=3 if nodes > 0 => Happening::AgentCrashes(self.faults.index(nodes)),
                4 | 5 => Happening::ServerCrashes,
                6 | 7 => Happening::PartitionBegins(self.faults.range(100, 8_000)),
                _ => Happening::Resets,
            };
            self.queue(at, what);
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

    fn say(&self, what: impl FnOnce() -> String) {
        if self.trace {
            println!("{:>9.3} {}", self.now as f64 / 1_000.0, what());
        }
    }

    fn mark(&mut self, what: &'static str) {
        *self.marks.entry(what).or_insert(0) += 1;
    }

    fn violation(&self, invariant: Invariant, what: impl std::fmt::Display) -> Violation {
        Violation {
            invariant,
            what: format!("{what} (at {} ms)", self.now),
        }
    }

    /// One thing happens. `true`: all is over and well.
    fn happen(&mut self, what: Happening) -> Result<bool, Violation> {
        match what {
            Happening::AgentBoots(node) => self.agent_boots(node)?,
            Happening::AgentCrashes(node) => self.agent_crashes(node),
            Happening::AgentConnects(node, boot) => self.agent_connects(node, boot),
            Happening::AgentLost(node, session) => self.agent_lost(node, session),
            Happening::AgentHeartbeat(node, boot, session) => {
                if self.agents[node].boot == boot && self.agents[node].session == Some(session) {
                    self.agent_reports(node, false);
                    self.queue(HEARTBEAT, Happening::AgentHeartbeat(node, boot, session));
                }
            }
            Happening::AgentReports(node, boot) => {
                if self.agents[node].boot == boot && self.agents[node].report_due {
                    self.agent_reports(node, false);
                }
            }
            Happening::AgentWakes(node, boot) => {
                if self.agents[node].boot == boot && self.agents[node].wake == Some(self.now) {
                    self.agents[node].wake = None;
                    self.agent_input(node, |agent, around| agent.input(NodeInput::Tick, around))?;
                }
            }
            Happening::AgentLater(node, boot, later) => {
                if self.agents[node].boot != boot || self.agents[node].machine.is_none() {
                    return Ok(false);
                }
                if let Later::Dies(module, digest) = &later {
                    if self.wild && self.agents[node].dies(module, digest) {
                        self.mark("a release took its node down");
                        self.agent_crashes(node);
                    }
                    return Ok(false);
                }
                self.agent_input(node, |agent, around| agent.later(later, around))?;
            }
            Happening::ToServer(run, inbound) => {
                if self.server.up && self.server.run == run {
                    self.inputs += 1;
                    self.server.inbox.push_back(*inbound);
                    self.wake_server();
                }
            }
            Happening::ToAgent(node, boot, message) => {
                if self.agents[node].boot == boot {
                    self.deliver(node, *message)?;
                }
            }
            Happening::ServerBatch(run) => self.server_batch(run)?,
            Happening::ServerSynced(run) => {
                if self.server.up && self.server.run == run {
                    self.server_effects(true)?;
                    if !self.server.inbox.is_empty() || self.server.wake.is_none() {
                        self.wake_server();
                    }
                }
            }
            Happening::ServerWakes(run) => {
                if self.server.up && self.server.run == run && self.server.wake == Some(self.now) {
                    self.inputs += 1;
                    self.wake_server();
                }
            }
            Happening::ServerCrashes => self.server_crashes(),
            Happening::ServerStarts => {
                self.server.start(self.now)?;
                self.batch_queued = false;
                self.say(|| format!("server starts, epoch {}", self.server.state.epoch));
                self.server.syncing = true;
                self.after_events()?;
                let (delay, run) = (self.machines.range(1, 5), self.server.run);
                self.queue(delay, Happening::ServerSynced(run));
                self.wake_server();
            }
            Happening::CheckDone(run, result) => {
                if self.server.up && self.server.run == run {
                    self.inputs += 1;
                    self.server.inbox.push_back(Inbound::Check(result));
                    self.wake_server();
                }
            }
            Happening::Operator => self.operator()?,
            Happening::Retry(place) => {
                if self.pending.contains(&place) {
                    self.send_command(place);
                }
            }
            Happening::PartitionBegins(lasts) => self.partition(lasts),
            Happening::PartitionEnds => {
                self.say(|| "the network heals".to_owned());
                self.cut.clear();
            }
            Happening::Resets => {
                let sessions: Vec<usize> = (0..self.agents.len())
                    .filter(|&node| self.agents[node].session.is_some())
                    .collect();
                if !sessions.is_empty() {
                    let node = *self.faults.pick(&sessions);
                    self.say(|| format!("the session of {} breaks", self.ids[node]));
                    self.break_session(node);
                }
            }
            Happening::FaultsEnd => self.faults_end()?,
            Happening::Settling => return self.settling(),
        }
        Ok(false)
    }

    // Nodes.

    fn agent_boots(&mut self, node: usize) -> Check {
        if self.agents[node].removed || self.agents[node].machine.is_some() {
            return Ok(());
        }
        self.say(|| format!("{} boots", self.ids[node]));
        self.agent_input(node, |agent, around| agent.boot(around))?;
        let boot = self.agents[node].boot;
        let delay = self.network.range(1, 100);
        self.queue(delay, Happening::AgentConnects(node, boot));
        Ok(())
    }

    fn agent_crashes(&mut self, node: usize) {
        if self.agents[node].machine.is_none() {
            return;
        }
        self.say(|| format!("{} crashes", self.ids[node]));
        self.mark("a node crashed");
        self.break_session(node);
        self.agents[node].crash();
        if !self.agents[node].removed {
            let long = self.wild && self.faults.chance(150);
            let down = if long {
                self.faults.range(3_000, 12_000)
            } else {
                self.faults.range(20, 1_500)
            };
            self.queue(down, Happening::AgentBoots(node));
        }
    }

    fn agent_connects(&mut self, node: usize, boot: u64) {
        let agent = &self.agents[node];
        if agent.boot != boot || agent.machine.is_none() || agent.session.is_some() {
            return;
        }
        if !self.server.up || self.cut.contains(&node) {
            let delay = self.network.range(100, 600);
            self.queue(delay, Happening::AgentConnects(node, boot));
            return;
        }
        self.sessions += 1;
        let session = self.sessions;
        self.agents[node].session = Some(session);
        self.last_up[node] = self.now;
        self.last_down[node] = self.now;
        self.agent_reports(node, true);
        self.queue(HEARTBEAT, Happening::AgentHeartbeat(node, boot, session));
    }

    fn agent_lost(&mut self, node: usize, session: u64) {
        if self.agents[node].session == Some(session) {
            self.agents[node].session = None;
            let (delay, boot) = (self.network.range(10, 300), self.agents[node].boot);
            self.queue(delay, Happening::AgentConnects(node, boot));
        }
    }

    fn agent_reports(&mut self, node: usize, full: bool) {
        let Some(session) = self.agents[node].session else {
            return;
        };
        let Some(report) = self.agents[node].report(&self.scenario.nodes[node], full) else {
            return;
        };
        if !self.server.up || self.cut.contains(&node) {
            return;
        }
        self.send_up(node, session, report);
    }

    fn send_up(&mut self, node: usize, session: u64, report: NodeReport) {
        let run = self.server.run;
        let at = (self.now + self.delay()).max(self.last_up[node]);
        self.last_up[node] = at;
        if self.wild && self.scenario.profile.breaks() && self.network.chance(20) {
            self.mark("a report came twice");
            let late = at - self.now + self.network.range(0, 3_000);
            let copy = Inbound::Report(node, session, Box::new(report.clone()));
            self.queue(late, Happening::ToServer(run, Box::new(copy)));
        }
        let inbound = Inbound::Report(node, session, Box::new(report));
        self.queue(at - self.now, Happening::ToServer(run, Box::new(inbound)));
    }

    fn delay(&mut self) -> u64 {
        if self.wild && self.scenario.profile.breaks() && self.network.chance(30) {
            self.network.range(50, 1_200)
        } else {
            self.network.range(1, 15)
        }
    }

    fn agent_input(&mut self, node: usize, with: impl FnOnce(&mut Agent, &mut Around<'_>) -> Check) -> Check {
        self.inputs += 1;
        let mut later = Vec::new();
        let wild = self.wild;
        let mut around = Around {
            scenario: &self.scenario,
            plan: &self.scenario.nodes[node],
            machines: &mut self.machines,
            traffic: &mut self.traffic,
            now: self.now,
            trace: self.trace,
            wild,
            later: &mut later,
        };
        let agent = &mut self.agents[node];
        let worked = agent.worked;
        let done = with(agent, &mut around);
        let boot = agent.boot;
        let wake = agent
            .machine
            .as_ref()
            .and_then(hotswap_core::reconcile::Reconciler::wake_at);
        let wake = wake.map(|at| at.0.max(self.now));
        let rearm = wake.filter(|_| wake != agent.wake);
        agent.wake = wake;
        let report = agent.report_due && agent.session.is_some();
        let alarm = agent.alarms.pop();
        if self.trace && self.agents[node].worked != worked {
            for line in std::mem::take(&mut self.agents[node].story) {
                println!("{:>9.3} {} {line}", self.now as f64 / 1_000.0, self.ids[node]);
            }
        }
        for (delay, later) in later {
            self.queue(delay, Happening::AgentLater(node, boot, later));
        }
        if let Some(at) = rearm {
            self.queue(at - self.now, Happening::AgentWakes(node, boot));
        }
        if report {
            self.queue(3, Happening::AgentReports(node, boot));
        }
        done?;
        match alarm {
            Some(alarm) => {
                Err(self.violation(Invariant::S4Generations, format!("{}: {alarm}", self.ids[node])))
            }
            None => Ok(()),
        }
    }

    fn deliver(&mut self, node: usize, message: Outbound) -> Check {
        match message {
            Outbound::Spec(_, session, spec) => {
                let agent = &self.agents[node];
                let older = agent
                    .machine
                    .as_ref()
                    .is_some_and(|machine| spec.generation < machine.ledger().highest());
                let stale = agent.session != Some(session);
                if older {
                    self.mark("an older spec was refused");
                }
                if stale {
                    self.mark("a spec came after its session");
                }
                if self.trace {
                    self.say(|| format!("{} is told {}", self.ids[node], told(&spec)));
                }
                self.agent_input(node, |agent, around| agent.input(NodeInput::Spec(spec), around))
            }
            Outbound::AckVeto(_, _, module, rollout, release) => self.agent_input(node, |agent, around| {
                agent.input(
                    NodeInput::Acked {
                        module,
                        rollout,
                        release,
                    },
                    around,
                )
            }),
            Outbound::AckIntervals(_, _, module, rollout, number) => {
                self.agents[node].acked_intervals(&module, rollout, number);
                Ok(())
            }
            Outbound::Reply(..) | Outbound::Check(_) => unreachable!("only sessions come here"),
        }
    }

    // The server.

    fn wake_server(&mut self) {
        if !self.batch_queued && !self.server.syncing {
            self.batch_queued = true;
            let run = self.server.run;
            self.queue(0, Happening::ServerBatch(run));
        }
    }

    fn server_batch(&mut self, run: u64) -> Check {
        if !self.server.up || self.server.run != run || self.server.syncing {
            return Ok(());
        }
        self.batch_queued = false;
        let sync = self.server.batch(&self.ids, self.now)?;
        self.after_events()?;
        if sync {
            self.server.syncing = true;
            let slow = self.wild && self.scenario.profile.breaks() && self.machines.chance(10);
            let delay = if slow {
                self.machines.range(100, 900)
            } else {
                self.machines.range(1, 4)
            };
            self.queue(delay, Happening::ServerSynced(run));
        } else {
            self.server_effects(false)?;
        }
        if let Some(at) = self.server.wake {
            self.queue(at - self.now, Happening::ServerWakes(run));
        }
        Ok(())
    }

    /// Looks at what was just decided.
    fn after_events(&mut self) -> Check {
        let fresh = std::mem::take(&mut self.server.fresh);
        for logged in &fresh {
            self.say(|| format!("server #{} {}", logged.seq, brief(&logged.event)));
            if let Some(mark) = mark_of(logged) {
                self.mark(mark);
            }
            self.oracle.note(&self.scenario, &self.server.state, logged)?;
        }
        self.server.fresh = fresh;
        Ok(())
    }

    fn server_effects(&mut self, synced: bool) -> Check {
        let out = self.server.effects(&self.ids, synced)?;
        let run = self.server.run;
        for message in out {
            match message {
                Outbound::Reply(place, reply) => self.reply(place, &reply),
                Outbound::Check(request) => {
                    let refused = self
                        .scenario
                        .release(&request.release.digest)
                        .is_some_and(|plan| plan.behaviour == Behaviour::Refused);
                    let outcome = if refused {
                        Err("it is refused".to_owned())
                    } else {
                        Ok("it is fine".to_owned())
                    };
                    let result = CheckResult {
                        deployment: request.deployment,
                        stage: request.stage,
                        attempt: request.attempt,
                        outcome,
                    };
                    let delay = self.machines.range(1, 60);
                    self.queue(delay, Happening::CheckDone(run, result));
                }
                Outbound::Spec(node, session, _)
                | Outbound::AckVeto(node, session, ..)
                | Outbound::AckIntervals(node, session, ..) => self.send_down(node, session, message),
            }
        }
        Ok(())
    }

    fn send_down(&mut self, node: usize, session: u64, message: Outbound) {
        if self.cut.contains(&node) || self.agents[node].session != Some(session) {
            return;
        }
        let boot = self.agents[node].boot;
        let at = (self.now + self.delay()).max(self.last_down[node]);
        self.last_down[node] = at;
        if self.wild && self.scenario.profile.breaks() && self.network.chance(30) {
            let late = at - self.now + self.network.range(0, 5_000);
            self.queue(late, Happening::ToAgent(node, boot, Box::new(message.clone())));
        }
        self.queue(at - self.now, Happening::ToAgent(node, boot, Box::new(message)));
    }

    fn server_crashes(&mut self) {
        if !self.server.up {
            return;
        }
        let got_through = self.faults.chance(500);
        self.say(|| format!("server crashes; what was under way to the disk got through: {got_through}"));
        self.mark(if self.server.syncing {
            "the server crashed between append and effect"
        } else {
            "the server crashed"
        });
        self.server.crash(got_through);
        self.batch_queued = false;
        for node in 0..self.agents.len() {
            if let Some(session) = self.agents[node].session {
                let delay = self.network.range(1, 800);
                self.queue(delay, Happening::AgentLost(node, session));
            }
        }
        let down = self.faults.range(50, 5_000);
        self.queue(down, Happening::ServerStarts);
    }

    // The network.

    /// Both ends notice in their own time.
    fn break_session(&mut self, node: usize) {
        let Some(session) = self.agents[node].session else {
            return;
        };
        let (up, down) = (self.network.range(1, 1_500), self.network.range(1, 1_500));
        self.queue(up, Happening::AgentLost(node, session));
        let run = self.server.run;
        self.queue(
            down,
            Happening::ToServer(run, Box::new(Inbound::Lost(node, session))),
        );
    }

    fn partition(&mut self, lasts: u64) {
        let share = *self.faults.pick(&[100, 300, 1_000]);
        let cut: Vec<usize> = (0..self.agents.len())
            .filter(|_| self.faults.chance(share))
            .collect();
        self.say(|| format!("the network cuts off {cut:?} for {lasts} ms"));
        self.mark("the network was cut");
        for &node in &cut {
            self.break_session(node);
            self.cut.insert(node);
        }
        self.queue(lasts, Happening::PartitionEnds);
    }

    // Operators.

    fn operator(&mut self) -> Check {
        if self.operators.removes_at(self.now)
            && let Some(node) = self.operators.node(self.agents.len())
            && !self.agents[node].removed
            && self.scenario.profile.breaks()
        {
            self.agents[node].removed = true;
            self.agent_crashes(node);
            let by = "op".to_owned();
            self.ask(Command::RemoveNode {
                node: self.ids[node].clone(),
                by,
            });
        }
        if let Some(command) = self.operators.next(&self.scenario, &self.server.state, self.now) {
            self.ask(command);
        }
        if self.now < self.scenario.ends_at || self.operators.has_more() {
            let pause = self.operators.pause();
            self.queue(pause, Happening::Operator);
        }
        Ok(())
    }

    fn ask(&mut self, command: Command) {
        let place = self.commands.len();
        self.say(|| format!("operator asks {}", brief(&command)));
        self.commands.push(command);
        self.pending.insert(place);
        self.send_command(place);
    }

    fn send_command(&mut self, place: usize) {
        if self.server.up {
            let (delay, run) = (self.network.range(1, 30), self.server.run);
            let inbound = Inbound::Command(place, Box::new(self.commands[place].clone()));
            self.queue(delay, Happening::ToServer(run, Box::new(inbound)));
        }
        self.queue(2_000, Happening::Retry(place));
    }

    fn reply(&mut self, place: usize, reply: &Result<hotswap_core::decide::Reply, String>) {
        if !self.pending.remove(&place) {
            return;
        }
        match reply {
            Ok(reply) => {
                self.mark("a command was accepted");
                if let (Some(id), true) = (reply.deployment, makes_deployment(&self.commands[place])) {
                    self.server.acknowledged.insert(id);
                    self.operators.made(id);
                }
            }
            Err(refusal) => self.say(|| format!("refused: {refusal}")),
        }
    }

    // The end.

    fn faults_end(&mut self) -> Check {
        self.say(|| "faults end".to_owned());
        self.wild = false;
        self.cut.clear();
        for node in 0..self.agents.len() {
            if self.agents[node].machine.is_some() {
                self.agent_input(node, |agent, around| agent.recover(around))?;
            }
        }
        self.queue(500, Happening::Settling);
        Ok(())
    }

    /// Whether everything has ended, converged, and stayed quiet.
    fn settling(&mut self) -> Result<bool, Violation> {
        let now = self.server.now(self.now);
        let worked: u64 = self.agents.iter().map(|agent| agent.worked).sum();
        let seen = (self.server.state.seq, worked);
        let done =
            self.server.is_idle() && self.server.state.deployments.is_empty() && !self.operators.has_more();
        let converged = done && self.converged().is_ok();
        if !converged {
            self.settled = None;
        }
        match self.settled {
            _ if !converged => {
                let late = self.now > self.scenario.ends_at + self.scenario.bound + self.operators.last_at();
                if late {
                    settled::l1_ends(&self.server.state, &self.server.obs, now)?;
                    self.converged()?;
                    return Err(self.violation(Invariant::L1Ends, "it never comes to rest".to_owned()));
                }
            }
            None => self.settled = Some((self.now, seen.0, seen.1)),
            Some((since, seq, work)) if (seq, work) != seen => {
                if self.now > self.scenario.ends_at + self.scenario.bound + self.operators.last_at() {
                    return Err(self.violation(
                        Invariant::L3Quiet,
                        format!(
                            "settled since {since} ms, and still {} events and {} actions came",
                            seen.0 - seq,
                            seen.1 - work
                        ),
                    ));
                }
                self.settled = Some((self.now, seen.0, seen.1));
            }
            Some((since, ..)) if self.now - since >= QUIET => {
                settled::l3_quiet(&self.server.state, &self.server.obs, now)?;
                self.server.check_fold()?;
                self.oracle.end(&self.scenario, &self.server.state)?;
                return Ok(true);
            }
            Some(_) => {}
        }
        self.queue(500, Happening::Settling);
        Ok(false)
    }

    fn converged(&self) -> Check {
        for (node, agent) in self.agents.iter().enumerate() {
            if agent.removed {
                continue;
            }
            if agent.machine.is_none() || agent.session.is_none() {
                return Err(self.violation(Invariant::L2Converges, format!("{} is not back", self.ids[node])));
            }
            settled::l2_converges(&self.server.state, &self.ids[node], |module| agent.routes(module))?;
        }
        Ok(())
    }
}

/// An event or a command in a line.
fn brief(what: &impl std::fmt::Debug) -> String {
    let text = format!("{what:?}");
    text.chars().take(360).collect()
}

fn told(spec: &hotswap_core::spec::NodeSpec) -> String {
    let modules = spec.modules.iter().map(|(name, module)| {
        let trial = if module.trial { " on trial" } else { "" };
        let routes: Vec<String> = module
            .routes
            .iter()
            .map(|(digest, weight)| format!("{}:{weight}", digest.0[1]))
            .collect();
        let preview = module
            .preview
            .map(|digest| format!(" preview {}", digest.0[1]))
            .unwrap_or_default();
        format!("{name} {}{trial} [{}]{preview}", module.rollout, routes.join(" "))
    });
    let modules: Vec<String> = modules.collect();
    format!(
        "{}/{}: {}",
        spec.generation.epoch,
        spec.generation.seq,
        modules.join(", ")
    )
}

fn mark_of(logged: &Logged) -> Option<&'static str> {
    Some(match &logged.event {
        Event::NodeExcluded { .. } => "a node was excluded",
        Event::NodeExcused { .. } => "a node was excused",
        Event::NodeEntered { .. } => "a node entered late",
        Event::NodeMoved { .. } => "a node was moved",
        Event::NodeDrained { .. } => "a node was drained",
        Event::NodeUndrained { .. } => "a drained node came back",
        Event::ExceptionRecorded { .. } => "a veto became an exception",
        Event::RolloutHeld { .. } => "a rollout was held",
        Event::RolloutReleased { .. } => "a hold ended by itself",
        Event::RolloutPaused { .. } => "a rollout was paused",
        Event::BackStarted { reason, .. } => match reason {
            hotswap_core::rollout::BackReason::Verdict { .. } => "the judge took a release back",
            hotswap_core::rollout::BackReason::Excluded { .. } => "failed nodes took a release back",
            hotswap_core::rollout::BackReason::Validation { .. } => "Validation took a release back",
            hotswap_core::rollout::BackReason::Expired { .. } => "a hold or pause expired",
            hotswap_core::rollout::BackReason::Inconclusive { .. } => "an inconclusive rollout went back",
            hotswap_core::rollout::BackReason::Aborted { .. } => "a rollout was aborted",
            _ => "a rollout went back for another reason",
        },
        Event::StableSet { .. } => "a release became stable",
        Event::ReversalRequested { .. } => "an operator's way back began",
        Event::EpochStarted { .. } => "an epoch began",
        _ => return None,
    })
}

fn makes_deployment(command: &Command) -> bool {
    matches!(
        command,
        Command::Deploy(_) | Command::RollBack { .. } | Command::Undeploy { .. }
    )
}
