//! The control plane: the real core in a small driver, over the simulated store.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use hotswap_core::apply::apply;
use hotswap_core::checks::{CheckRequest, outstanding};
use hotswap_core::command::Command;
use hotswap_core::decide::{self, CheckResult, Input};
use hotswap_core::desired::{desired, generation, knows_more, nodes_ahead};
use hotswap_core::event::{Event, Logged};
use hotswap_core::ids::{DeploymentId, FleetId, ModuleName, NodeId, ReleaseRef, RolloutId};
use hotswap_core::invariants::{Check, Invariant, Violation, check_state, check_step, settled, state};
use hotswap_core::mutants::{Mutant, is_on};
use hotswap_core::observe::Observations;
use hotswap_core::report::NodeReport;
use hotswap_core::spec::NodeSpec;
use hotswap_core::state::State;
use hotswap_core::time::{CoreTime, Millis, Now, WallTime};

use crate::acks::{Session, acks};
use crate::scenario::HEARTBEAT_TIMEOUT;
use crate::store::{Answer, Draft, Recovered, Store};

/// Wall time at the simulation's start, in ms.
const WALL_AT_START: u64 = 1_700_000_000_000;
/// Most core time that passes over a restart, in ms: as in the server's own clock.
const RESTART_GAP_MAX: u64 = 30_000;
/// Most inputs of a batch.
const BATCH_MAX: usize = 64;
/// Most rounds of ticks in a batch: far more than any rollout has moves.
const ROUNDS_MAX: usize = 2_000;
/// Without an event, what waits is looked at only in every so many batches.
const LOOK_AT_WAITS_EVERY: u64 = 8;

/// Something that arrived.
#[derive(Clone, Debug)]
pub enum Inbound {
    /// A report of a node's session.
    Report(usize, u64, Box<NodeReport>),
    /// A node's session fell.
    Lost(usize, u64),
    /// A command, by its place among all, with its idempotency key's.
    Command(Asked, Box<Command>),
    /// A check ended.
    Check(CheckResult),
}

/// Which command, and which of its tries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asked {
    /// Its place among all.
    pub place: usize,
    /// The key that its tries share.
    pub key: u64,
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
    /// The answer to a command; `None`: not now, ask again.
    Reply(Asked, Option<Answer>),
    /// A check to carry out.
    Check(CheckRequest),
    /// A session ends: its node was removed from the fleet.
    Close(usize, u64),
}

/// A control plane's process, or the place where one may run.
#[derive(Debug)]
pub struct Server {
    /// Whether its process runs.
    pub up: bool,
    /// Counts its processes.
    pub run: u64,
    /// Until when it is frozen, in ms.
    pub paused_until: u64,
    /// How far its wall clock is off, in ms.
    pub skew: i64,
    /// The fold of the log, with what is under way to the disk.
    pub state: State,
    /// What nodes said.
    pub obs: Observations,
    /// The epoch that its appends are fenced by.
    epoch: u64,
    /// The last event that it knows to be durable.
    durable: u64,
    /// Whether its epoch's beginning is.
    pub begun: bool,
    /// What is under way to the disk, or about to be.
    pub draft: Draft,
    replies: Vec<(Asked, Answer)>,
    /// Nodes that were removed with this batch.
    removed: Vec<NodeId>,
    recent: BTreeMap<u64, Answer>,
    /// What waits for the next batch.
    pub inbox: VecDeque<Inbound>,
    /// Whether a sync is under way.
    pub syncing: bool,
    /// Whether the store has that batch, and the process only doesn't know yet.
    pub committed: bool,
    sessions: BTreeMap<usize, Session>,
    dispatched: BTreeSet<(DeploymentId, u32, u32)>,
    /// Core time at the process's start, and the simulation's time then.
    core_start: (CoreTime, u64),
    /// When it wants to look again.
    pub wake: Option<u64>,
    /// Whether every decision is asked for twice, and reports are also taken in the other way round.
    pub looks_twice: bool,
    /// The reports of this batch, with whether each began a session, where it is looked at twice.
    taken: Vec<(bool, NodeReport)>,
    batches: u64,
    /// Answers to tries of a command that had an answer already.
    pub answered_again: u64,
}

impl Default for Server {
    fn default() -> Self {
        Self {
            up: false,
            run: 0,
            paused_until: 0,
            skew: 0,
            state: State::default(),
            obs: Observations::new(Now::default()),
            epoch: 0,
            durable: 0,
            begun: false,
            draft: Draft::default(),
            replies: Vec::new(),
            removed: Vec::new(),
            recent: BTreeMap::new(),
            inbox: VecDeque::new(),
            syncing: false,
            committed: false,
            sessions: BTreeMap::new(),
            dispatched: BTreeSet::new(),
            core_start: (CoreTime(0), 0),
            wake: None,
            looks_twice: false,
            taken: Vec::new(),
            batches: 0,
            answered_again: 0,
        }
    }
}

impl Server {
    /// Both clocks.
    pub fn now(&self, at: u64) -> Now {
        let (core, since) = self.core_start;
        Now {
            core: core + Millis(at.saturating_sub(since)),
            wall: WallTime((WALL_AT_START + at).saturating_add_signed(self.skew)),
        }
    }

    /// The process ends at once, with all that it knew. What was under way to the disk is for the caller to judge.
    pub fn ends(&mut self) -> Draft {
        self.up = false;
        self.paused_until = 0;
        self.replies.clear();
        self.removed.clear();
        self.committed = false;
        self.recent.clear();
        self.inbox.clear();
        self.sessions.clear();
        self.dispatched.clear();
        self.syncing = false;
        self.wake = None;
        std::mem::take(&mut self.draft)
    }

    /// The process starts from what it found; its first batch begins an epoch.
    ///
    /// # Errors
    /// An event that may not be.
    pub fn start(&mut self, recovered: Recovered, at: u64) -> Check {
        let Recovered { state, epoch, .. } = recovered;
        self.run += 1;
        self.up = true;
        let wall = (WALL_AT_START + at).saturating_add_signed(self.skew);
        let away = wall.saturating_sub(state.wall.0).min(RESTART_GAP_MAX);
        let away = if state.seq == 0 { 0 } else { away };
        self.core_start = (state.at + Millis(away), at);
        self.epoch = epoch;
        self.durable = state.seq;
        self.begun = false;
        self.state = state;
        self.obs = Observations::new(self.now(at)).with_heartbeat_timeout(Millis(HEARTBEAT_TIMEOUT));
        let mut events = Vec::new();
        if self.state.fleet.is_none() {
            events.push(Event::FleetCreated {
                fleet: FleetId(uuid::Uuid::from_u128(1)),
            });
        }
        let epoch = if is_on(Mutant::SameEpoch) {
            self.state.epoch
        } else {
            epoch
        };
        events.push(Event::EpochStarted { epoch });
        self.append(events, at)
    }

    /// Takes what arrived in, decides, and leaves the events to be synced. Whether there is something to sync.
    ///
    /// # Errors
    /// An invariant that doesn't hold.
    pub fn batch(&mut self, store: &Store, nodes: &[NodeId], at: u64) -> Result<bool, Violation> {
        let now = self.now(at);
        self.taken.clear();
        let reports_alone = |inbound: &Inbound| matches!(inbound, Inbound::Report(..));
        let before = (self.looks_twice && self.inbox.iter().all(reports_alone)).then(|| self.obs.clone());
        for _ in 0..BATCH_MAX {
            let Some(inbound) = self.inbox.pop_front() else {
                break;
            };
            self.take(inbound, store, nodes, now, at)?;
        }
        if let Some(before) = before {
            self.other_way_round(before, now)?;
        }
        for round in 0.. {
            let events = decide::decide(&self.state, &self.obs, Input::Tick, now).events;
            if self.looks_twice {
                let again = decide::decide(&self.state, &self.obs, Input::Tick, now).events;
                if events != again {
                    return Err(violation(
                        Invariant::S12Purity,
                        format!("asked twice, it decides {events:?} and {again:?}"),
                    ));
                }
            }
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
        let moved = !self.draft.events.is_empty();
        if moved {
            check_state(&self.state)?;
        }
        self.batches += 1;
        if moved || self.batches.is_multiple_of(LOOK_AT_WAITS_EVERY) {
            settled::s13_explained(&self.state, &self.obs, now)?;
            settled::l4_apart(&self.state, &self.obs, now)?;
        }
        self.wake = decide::wakeup(&self.state, &self.obs, now).map(|after| at + after.0);
        Ok(!self.draft.is_empty())
    }

    /// The order in which the reports of one instant are taken in changes no decision.
    fn other_way_round(&self, mut before: Observations, now: Now) -> Check {
        let by_node = self
            .taken
            .iter()
            .map(|(begins, report)| (&report.node, (begins, report)));
        let mut nodes: BTreeMap<&NodeId, Vec<(&bool, &NodeReport)>> = BTreeMap::new();
        for (node, report) in by_node {
            nodes.entry(node).or_default().push(report);
        }
        if nodes.len() < 2 {
            return Ok(());
        }
        for (begins, report) in nodes.into_values().rev().flatten() {
            if *begins {
                before.connected(&report.node, now);
            }
            before.absorb(&self.state, report.clone(), now);
        }
        let ours = decide::decide(&self.state, &self.obs, Input::Tick, now).events;
        let other = decide::decide(&self.state, &before, Input::Tick, now).events;
        if ours == other {
            return Ok(());
        }
        let what = format!("by the order of reports it decides {ours:?} or {other:?}");
        Err(violation(Invariant::S12Purity, what))
    }

    fn take(&mut self, inbound: Inbound, store: &Store, nodes: &[NodeId], now: Now, at: u64) -> Check {
        match inbound {
            Inbound::Report(node, session, report) => {
                let known = self.sessions.get(&node).map_or(0, |known| known.id);
                let begins = report.hello.is_some() && session > known;
                if begins {
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
                if self.looks_twice {
                    self.taken.push((begins, (*report).clone()));
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
            Inbound::Command(asked, command) => self.command(asked, command, store, at),
            Inbound::Check(result) => {
                let done = (result.deployment, result.stage, result.attempt);
                let events = decide::decide(&self.state, &self.obs, Input::Check(result), now).events;
                self.dispatched.remove(&done);
                self.append(events, at)
            }
        }
    }

    /// The first answer to a key is the only one.
    fn command(&mut self, asked: Asked, command: Box<Command>, store: &Store, at: u64) -> Check {
        let first = self.recent.get(&asked.key).or_else(|| store.answer(asked.key));
        if let Some(first) = first.cloned() {
            self.answered_again += 1;
            self.replies.push((asked, first));
            return Ok(());
        }
        let decision = decide::decide(&self.state, &self.obs, Input::Command(command), self.now(at));
        let reply = decision.reply.unwrap_or_else(|| Ok(decide::Reply::default()));
        let answer = match reply {
            Ok(reply) => Answer {
                deployment: reply.deployment,
                refused: None,
            },
            Err(refusal) => Answer {
                deployment: None,
                refused: Some(format!("{}: {refusal}", refusal.code())),
            },
        };
        self.append(decision.events, at)?;
        self.recent.insert(asked.key, answer.clone());
        if !is_on(Mutant::AnswerForgotten) {
            self.draft.answers.push((asked.key, answer.clone()));
        }
        self.replies.push((asked, answer));
        Ok(())
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
            apply(&mut self.state, &logged);
            if let Event::NodeRemoved { node, .. } = &logged.event {
                self.removed.push(node.clone());
            }
            self.draft.push(logged);
        }
        self.obs.after_apply(&self.state);
        Ok(())
    }

    /// The epochs before and after the batch that is under way.
    pub fn epochs(&self) -> (u64, u64) {
        (self.epoch, self.state.epoch)
    }

    /// The batch is durable, or there was nothing in it.
    pub fn is_durable(&mut self) {
        self.epoch = self.state.epoch;
        self.durable = self.state.seq;
        self.begun = true;
        self.draft = Draft::default();
        (self.syncing, self.committed) = (false, false);
    }

    /// There was no room for the batch: all of it is taken back, and whoever asked is told to ask again.
    ///
    /// # Errors
    /// What is durable doesn't read back.
    pub fn takes_back(&mut self, store: &Store) -> Result<Vec<Outbound>, Violation> {
        if !is_on(Mutant::FullForgets) {
            self.state = store.fold().map_err(|what| violation(Invariant::S9Log, what))?;
        }
        self.syncing = false;
        self.removed.clear();
        for (key, _) in std::mem::take(&mut self.draft).answers {
            self.recent.remove(&key);
        }
        let replies = std::mem::take(&mut self.replies);
        Ok(replies
            .into_iter()
            .map(|(asked, _)| Outbound::Reply(asked, None))
            .collect())
    }

    /// What follows from State leaves.
    ///
    /// # Errors
    /// Something leaves that may not.
    pub fn effects(&mut self, nodes: &[NodeId]) -> Result<Vec<Outbound>, Violation> {
        if self.state.seq > self.durable {
            return Err(violation(
                Invariant::S10Durable,
                format!(
                    "effects of event {} leave, and {} is durable",
                    self.state.seq, self.durable
                ),
            ));
        }
        let mut out: Vec<Outbound> = self
            .replies
            .drain(..)
            .map(|(asked, reply)| Outbound::Reply(asked, Some(reply)))
            .collect();
        for removed in self.removed.drain(..) {
            self.obs.forget(&removed);
            self.sessions.retain(|&node, session| {
                let stays = nodes[node] != removed;
                if !stays {
                    out.push(Outbound::Close(node, session.id));
                }
                stays
            });
        }
        for (&node, session) in &mut self.sessions {
            let id = &nodes[node];
            if generation(&self.state, id) > session.sent.as_ref().map(|spec| spec.generation) {
                let said = self.obs.node(id).map(|said| said.highest);
                let lost = said.is_some_and(|highest| knows_more(&self.state, highest));
                if let Some(spec) = desired(&self.state, id).filter(|_| !lost) {
                    state::s4_generations(session.sent.as_ref(), &spec)?;
                    state::s6_one_colour(&self.state, id, &spec)?;
                    state::s7_back_means_back(&self.state, id, &spec)?;
                    session.sent = Some(spec.clone());
                    out.push(Outbound::Spec(node, session.id, spec));
                }
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

    /// Whether a node knows more than this log: it gets nothing until the fleet is adopted.
    pub fn is_behind(&self) -> bool {
        nodes_ahead(&self.state, &self.obs).next().is_some()
    }

    /// Whether nothing waits to be taken in or synced.
    pub fn is_idle(&self) -> bool {
        self.up && !self.syncing && self.inbox.is_empty() && self.draft.is_empty()
    }
}

fn violation(invariant: Invariant, what: String) -> Violation {
    Violation { invariant, what }
}
