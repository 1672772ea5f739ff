//! The control plane: the real core in a small driver, over a store that loses what was not synced.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use hotswap_core::apply::apply;
use hotswap_core::checks::{CheckRequest, outstanding};
use hotswap_core::command::Command;
use hotswap_core::decide::{self, CheckResult, Input, Reply};
use hotswap_core::desired::{desired, generation};
use hotswap_core::event::{Event, Logged, RolloutKey};
use hotswap_core::ids::{DeploymentId, FleetId, Incarnation, ModuleName, NodeId, ReleaseRef, RolloutId};
use hotswap_core::invariants::{Check, Invariant, Violation, check_state, check_step, settled, state};
use hotswap_core::observe::{Observations, folded_up_to, veto_known};
use hotswap_core::report::NodeReport;
use hotswap_core::spec::NodeSpec;
use hotswap_core::state::State;
use hotswap_core::time::{CoreTime, Millis, Now, WallTime};

use crate::scenario::HEARTBEAT_TIMEOUT;

/// Wall time at the simulation's start, in ms.
const WALL_AT_START: u64 = 1_700_000_000_000;
/// Most inputs of a batch.
const BATCH_MAX: usize = 64;
/// Most rounds of ticks in a batch: far more than any rollout has moves.
const ROUNDS_MAX: usize = 2_000;

/// Something that arrived.
#[derive(Clone, Debug)]
pub enum Inbound {
    /// A report of a node's session.
    Report(usize, u64, Box<NodeReport>),
    /// A node's session fell.
    Lost(usize, u64),
    /// A command, by its place among all.
    Command(usize, Box<Command>),
    /// A check ended.
    Check(CheckResult),
}

/// Something that leaves once it is durable.
#[derive(Clone, Debug)]
pub enum Outbound {
    /// A spec for a node.
    Spec(usize, u64, NodeSpec),
    /// A veto that needs no more sending.
    AckVeto(usize, u64, ModuleName, RolloutId, ReleaseRef),
    /// Intervals that need no more sending.
    AckIntervals(usize, u64, ModuleName, RolloutId, u32),
    /// The answer to a command: whether it was accepted.
    Reply(usize, Result<Reply, String>),
    /// A check to carry out.
    Check(CheckRequest),
}

/// One node's session.
#[derive(Clone, Debug, Default)]
struct Session {
    id: u64,
    sent: Option<NodeSpec>,
    /// What its intervals are of, and the newest of each that came.
    intervals: BTreeMap<(ModuleName, RolloutId), (Incarnation, u32)>,
}

/// The control plane.
#[derive(Debug)]
pub struct Server {
    /// Whether its process runs.
    pub up: bool,
    /// Counts its processes.
    pub run: u64,
    /// The fold of the log, with what is under way to the disk.
    pub state: State,
    /// What nodes said.
    pub obs: Observations,
    /// The durable log, as bytes.
    pub log: Vec<Vec<u8>>,
    unsynced: Vec<Vec<u8>>,
    replies: Vec<(usize, Result<Reply, String>)>,
    /// What waits for the next batch.
    pub inbox: VecDeque<Inbound>,
    /// Whether a sync is under way.
    pub syncing: bool,
    sessions: BTreeMap<usize, Session>,
    dispatched: BTreeSet<(DeploymentId, u32, u32)>,
    /// Core time at the process's start, and the simulation's time then.
    core_start: (CoreTime, u64),
    /// The newest spec that ever left, by node: ground truth over all runs.
    issued: BTreeMap<usize, NodeSpec>,
    /// Deployments that were acknowledged.
    pub acknowledged: BTreeSet<DeploymentId>,
    /// Events of the last batch.
    pub fresh: Vec<Logged>,
    /// When it wants to look again.
    pub wake: Option<u64>,
    ticks: u64,
}

impl Default for Server {
    fn default() -> Self {
        Self::new()
    }
}

impl Server {
    /// A control plane whose store is empty.
    pub fn new() -> Self {
        Self {
            up: false,
            run: 0,
            state: State::default(),
            obs: Observations::new(Now::default()),
            log: Vec::new(),
            unsynced: Vec::new(),
            replies: Vec::new(),
            inbox: VecDeque::new(),
            syncing: false,
            sessions: BTreeMap::new(),
            dispatched: BTreeSet::new(),
            core_start: (CoreTime(0), 0),
            issued: BTreeMap::new(),
            acknowledged: BTreeSet::new(),
            fresh: Vec::new(),
            wake: None,
            ticks: 0,
        }
    }

    /// Both clocks.
    pub fn now(&self, at: u64) -> Now {
        let (core, since) = self.core_start;
        Now {
            core: core + Millis(at.saturating_sub(since)),
            wall: WallTime(WALL_AT_START + at),
        }
    }

    /// The process ends at once. Whether a sync that was under way got through is for the caller to say.
    pub fn crash(&mut self, got_through: bool) {
        self.up = false;
        if got_through {
            self.log.append(&mut self.unsynced);
        }
        self.unsynced.clear();
        self.replies.clear();
        self.inbox.clear();
        self.sessions.clear();
        self.dispatched.clear();
        self.syncing = false;
        self.wake = None;
    }

    /// The process starts: folds the log, begins an epoch.
    pub fn start(&mut self, at: u64) -> Check {
        let mut folded = State::default();
        for line in &self.log {
            let logged: Logged = serde_json::from_slice(line).map_err(|error| {
                violation(Invariant::S9Log, format!("an event does not read back: {error}"))
            })?;
            apply(&mut folded, &logged);
        }
        self.run += 1;
        self.up = true;
        let lost = WALL_AT_START + at - folded.wall.0.min(WALL_AT_START + at);
        let away = if folded.seq == 0 { 0 } else { lost.min(30_000) };
        self.core_start = (folded.at + Millis(away), at);
        self.state = folded;
        self.obs = Observations::new(self.now(at)).with_heartbeat_timeout(Millis(HEARTBEAT_TIMEOUT));
        for id in &self.acknowledged {
            if self.state.deployment(id).is_none() {
                return Err(violation(
                    Invariant::S10Durable,
                    format!("deployment {id} was acknowledged and is gone"),
                ));
            }
        }
        let mut events = Vec::new();
        if self.state.fleet.is_none() {
            events.push(Event::FleetCreated {
                fleet: FleetId(uuid::Uuid::from_u128(1)),
            });
        }
        events.push(Event::EpochStarted {
            epoch: self.state.epoch + 1,
        });
        self.fresh.clear();
        self.append(events, at)
    }

    /// Takes what arrived in, decides, and leaves the events to be synced. Whether there is something to sync.
    pub fn batch(&mut self, nodes: &[NodeId], at: u64) -> Result<bool, Violation> {
        self.fresh.clear();
        let now = self.now(at);
        for _ in 0..BATCH_MAX {
            let Some(inbound) = self.inbox.pop_front() else {
                break;
            };
            self.take(inbound, nodes, now, at)?;
        }
        for round in 0.. {
            let events = decide::decide(&self.state, &self.obs, Input::Tick, now).events;
            if events.is_empty() {
                break;
            }
            if round > ROUNDS_MAX {
                return Err(violation(
                    Invariant::L3Quiet,
                    format!("ticks never end: {:?}", events[0]),
                ));
            }
            self.append(events, at)?;
        }
        if !self.fresh.is_empty() {
            check_state(&self.state)?;
        }
        self.ticks += 1;
        if !self.fresh.is_empty() || self.ticks.is_multiple_of(8) {
            settled::s13_explained(&self.state, &self.obs, now)?;
            settled::l4_apart(&self.state, &self.obs, now)?;
        }
        self.wake = decide::wakeup(&self.state, &self.obs, now).map(|after| at + after.0);
        Ok(!self.unsynced.is_empty())
    }

    fn take(&mut self, inbound: Inbound, nodes: &[NodeId], now: Now, at: u64) -> Check {
        match inbound {
            Inbound::Report(node, session, report) => {
                let known = self.sessions.get(&node).map_or(0, |known| known.id);
                if report.hello.is_some() && session > known {
                    self.sessions.insert(
                        node,
                        Session {
                            id: session,
                            ..Session::default()
                        },
                    );
                    self.obs.connected(&nodes[node], now);
                } else if session != known {
                    return Ok(());
                }
                let track = &mut self.sessions.entry(node).or_default().intervals;
                for interval in &report.intervals {
                    let key = (interval.module.clone(), interval.rollout);
                    track.insert(key, (report.incarnation, interval.number));
                }
                self.obs.absorb(&self.state, *report, now);
                Ok(())
            }
            Inbound::Lost(node, session) => {
                if self.sessions.get(&node).is_some_and(|known| known.id == session) {
                    self.sessions.remove(&node);
                    self.obs.disconnected(&nodes[node], now);
                }
                Ok(())
            }
            Inbound::Command(place, command) => {
                let decision = decide::decide(&self.state, &self.obs, Input::Command(command), now);
                if let Some(reply) = decision.reply {
                    self.replies.push((
                        place,
                        reply.map_err(|refusal| format!("{}: {refusal}", refusal.code())),
                    ));
                }
                self.append(decision.events, at)
            }
            Inbound::Check(result) => {
                let events = decide::decide(&self.state, &self.obs, Input::Check(result), now).events;
                self.append(events, at)
            }
        }
    }

    fn append(&mut self, events: Vec<Event>, at: u64) -> Check {
        let now = self.now(at);
        if events.is_empty() {
            return Ok(());
        }
        for event in events {
            let epoch = match event {
                Event::EpochStarted { epoch } | Event::FleetAdopted { epoch, .. } => epoch,
                _ => self.state.epoch,
            };
            let logged = Logged {
                seq: self.state.seq + 1,
                epoch,
                at: now.core,
                wall: now.wall,
                event,
            };
            check_step(&self.state, &self.obs, &logged)?;
            self.unsynced
                .push(serde_json::to_vec(&logged).expect("an event is plain data"));
            apply(&mut self.state, &logged);
            if let Event::NodeRemoved { node, .. } = &logged.event {
                self.obs.forget(node);
            }
            self.fresh.push(logged);
        }
        self.obs.after_apply(&self.state);
        Ok(())
    }

    /// The sync ended, or there was nothing to sync: what follows from State leaves.
    pub fn effects(&mut self, nodes: &[NodeId], synced: bool) -> Result<Vec<Outbound>, Violation> {
        if synced {
            self.log.append(&mut self.unsynced);
            self.syncing = false;
        }
        let mut out: Vec<Outbound> = self
            .replies
            .drain(..)
            .map(|(place, reply)| Outbound::Reply(place, reply))
            .collect();
        for (&node, session) in &mut self.sessions {
            let id = &nodes[node];
            if generation(&self.state, id) > session.sent.as_ref().map(|spec| spec.generation)
                && let Some(spec) = desired(&self.state, id)
            {
                state::s4_generations(self.issued.get(&node), &spec)?;
                state::s6_one_colour(&self.state, id, &spec)?;
                self.issued.insert(node, spec.clone());
                session.sent = Some(spec.clone());
                out.push(Outbound::Spec(node, session.id, spec));
            }
            acks(&self.state, &self.obs, (node, id), session, &mut out);
        }
        for request in outstanding(&self.state) {
            if self
                .dispatched
                .insert((request.deployment, request.stage, request.attempt))
            {
                out.push(Outbound::Check(request));
            }
        }
        Ok(out)
    }

    /// Whether nothing waits to be taken in or synced.
    pub fn is_idle(&self) -> bool {
        self.up && !self.syncing && self.inbox.is_empty() && self.unsynced.is_empty()
    }

    /// The log folds to what runs: checked when everything is durable.
    pub fn check_fold(&self) -> Check {
        let mut folded = State::default();
        for line in &self.log {
            let logged: Logged = serde_json::from_slice(line).map_err(|error| {
                violation(Invariant::S9Log, format!("an event does not read back: {error}"))
            })?;
            apply(&mut folded, &logged);
        }
        if folded == self.state {
            Ok(())
        } else {
            Err(violation(
                Invariant::S9Log,
                "the log folds to another State than the one that runs".to_owned(),
            ))
        }
    }
}

/// What a node need not send again, by what is durable.
fn acks(
    state: &State,
    obs: &Observations,
    (node, id): (usize, &NodeId),
    session: &mut Session,
    out: &mut Vec<Outbound>,
) {
    let said = obs.node(id);
    for veto in said
        .iter()
        .flat_map(|said| &said.vetoes)
        .filter(|veto| veto_known(state, id, veto))
    {
        let (module, release) = (veto.module.clone(), veto.release.clone());
        out.push(Outbound::AckVeto(node, session.id, module, veto.rollout, release));
    }
    let environment = state.nodes.get(id).map(|record| &record.environment);
    session
        .intervals
        .retain(|(module, rollout), (incarnation, newest)| {
            let key = environment.map(|environment| RolloutKey {
                environment: environment.clone(),
                module: module.clone(),
                rollout: *rollout,
            });
            let folded = match key.and_then(|key| folded_up_to(state, &key, id)) {
                Some((folded, number)) if folded == *incarnation => number,
                Some(_) => 0,
                // Nobody waits for them any more.
                None => *newest,
            };
            if folded > 0 {
                out.push(Outbound::AckIntervals(
                    node,
                    session.id,
                    module.clone(),
                    *rollout,
                    folded,
                ));
            }
            folded < *newest
        });
}

fn violation(invariant: Invariant, what: String) -> Violation {
    Violation { invariant, what }
}
