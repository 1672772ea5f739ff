//! What happens to servers and their store.

use hotswap_core::decide::CheckResult;
use hotswap_core::desired::EPOCH_STEP_MAX;
use hotswap_core::invariants::{Check, Invariant, Violation};
use hotswap_core::mutants::{Mutant, is_on};

use super::story::brief;
use super::{Happening, SERVERS, World};
use crate::faults::Fault;
use crate::marks::Mark;
use crate::scenario::Behaviour;
use crate::server::{Inbound, Outbound};
use crate::store::{Draft, Refused};

/// How long a leader may be unheard of before another takes its place, in ms.
pub(super) const LEASE: u64 = 4_000;
/// How soon a server whose disk is full decides again, in ms.
const FULL_PAUSE: u64 = 1_000;
/// Events between two snapshots.
const SNAPSHOT_EVERY: u64 = 100;

impl World {
    /// Whether this process of a server runs.
    pub(super) fn runs(&self, server: usize, run: u64) -> bool {
        self.servers[server].up && self.servers[server].run == run
    }

    /// A server that takes connections: mostly the one that leads, now and then one that only believes to.
    pub(super) fn server_to_connect_to(&mut self) -> Option<usize> {
        let other = (self.leader + 1) % SERVERS;
        let (leads, believes) = (self.servers[self.leader].up, self.servers[other].up);
        match (leads, believes) {
            (true, true) => Some(if self.network.chance(250) {
                other
            } else {
                self.leader
            }),
            (true, false) => Some(self.leader),
            (false, true) => Some(other),
            (false, false) => None,
        }
    }

    /// Something reaches a server's process.
    pub(super) fn arrives(&mut self, server: usize, run: u64, inbound: Inbound) {
        if self.runs(server, run) {
            self.inputs += 1;
            self.servers[server].inbox.push_back(inbound);
            self.wake_server(server);
        }
    }

    pub(super) fn wake_server(&mut self, server: usize) {
        if !self.batch_queued[server] && !self.servers[server].syncing {
            self.batch_queued[server] = true;
            let run = self.servers[server].run;
            self.queue(0, Happening::ServerBatch(server, run));
        }
    }

    pub(super) fn server_batch(&mut self, server: usize, run: u64) -> Check {
        if !self.runs(server, run) || self.servers[server].syncing {
            return Ok(());
        }
        self.batch_queued[server] = false;
        let sync = self.servers[server].batch(&self.store, &self.ids, self.now)?;
        for _ in 0..std::mem::take(&mut self.servers[server].answered_again) {
            self.mark(Mark::FirstAnswerAgain);
        }
        if sync {
            self.tell_events(server);
            if is_on(Mutant::EffectsFirst) {
                self.effects(server)?;
            }
            self.sync(server);
        } else {
            self.effects(server)?;
        }
        if let Some(at) = self.servers[server].wake {
            self.queue(at - self.now, Happening::ServerWakes(server, run));
        }
        Ok(())
    }

    fn tell_events(&mut self, server: usize) {
        if self.story.is_none() {
            return;
        }
        let events = std::mem::take(&mut self.servers[server].draft.events);
        for logged in &events {
            self.say(|| format!("server {server} #{} {}", logged.seq, brief(&logged.event)));
        }
        self.servers[server].draft.events = events;
    }

    /// A batch is on its way to the disk.
    fn sync(&mut self, server: usize) {
        let delay = if self.strikes(Fault::SlowSync, 25) {
            self.machines.range(100, 1_500)
        } else {
            self.machines.range(1, 4)
        };
        let run = self.servers[server].run;
        self.servers[server].syncing = true;
        self.queue(delay, Happening::StoreCommits(server, run));
    }

    /// A batch reaches the disk: whatever the process does meanwhile.
    pub(super) fn store_commits(&mut self, server: usize, run: u64) -> Check {
        if !self.runs(server, run) || self.servers[server].committed {
            return Ok(());
        }
        if self.store_fails && server == self.leader {
            self.store_fails = false;
            self.mark(Mark::StoreFailed);
            self.server_crashes(server, "cannot write and ends itself", None)?;
            return Ok(());
        }
        if let Some(thousandths) = self.store_tears.take_if(|_| server == self.leader) {
            self.server_crashes(server, "loses power in a batch", Some(thousandths))?;
            return Ok(());
        }
        let result = self.commit(server)?;
        self.servers[server].committed = result.is_ok();
        self.queue(0, Happening::ServerSynced(server, run, result));
        Ok(())
    }

    /// Appends a server's batch, and looks at what is durable then.
    fn commit(&mut self, server: usize) -> Result<Result<(), Refused>, Violation> {
        let fence = self.store.epoch();
        let (epoch, after) = self.servers[server].epochs();
        let result = self.store.commit(&self.servers[server].draft, epoch, after);
        match &result {
            Ok(()) if epoch < fence => Err(self.violation(
                Invariant::S11Fencing,
                format!("server {server} appends under epoch {epoch}, and epoch {fence} exists"),
            )),
            Ok(()) => {
                self.backups.push(self.store.backup());
                let draft = std::mem::take(&mut self.servers[server].draft);
                let noted = self.note(&draft);
                self.servers[server].draft = draft;
                noted.map(|()| result)
            }
            Err(Refused::Gap(what)) => Err(self.violation(Invariant::S9Log, what)),
            Err(_) => Ok(result),
        }
    }

    /// Looks at durable events.
    fn note(&mut self, draft: &Draft) -> Check {
        for logged in &draft.events {
            self.mark_event(&logged.event);
            self.oracle.note(&self.scenario, logged)?;
        }
        let counted = &self.agents;
        self.oracle.evidence_is_counted(|rollout| {
            counted
                .iter()
                .filter_map(|agent| agent.counted.get(&rollout))
                .sum()
        })
    }

    #[expect(clippy::needless_pass_by_value, reason = "a happening is used up")]
    pub(super) fn server_synced(&mut self, server: usize, run: u64, result: Result<(), Refused>) -> Check {
        if !self.runs(server, run) {
            return Ok(());
        }
        match result {
            Ok(()) => {
                if self.leader != server {
                    self.mark(Mark::LateEffects);
                }
                self.servers[server].is_durable();
                self.effects(server)?;
                self.keep_snapshot(server);
                self.wake_server(server);
            }
            // A process that can't begin its epoch ends itself, and is started again.
            Err(Refused::Full) if !self.servers[server].begun => {
                self.server_ends(server, "has no room to begin its epoch");
                self.queue(FULL_PAUSE, Happening::ServerStarts(server));
            }
            Err(Refused::Full) => {
                self.mark(Mark::StoreWasFull);
                self.say(|| format!("server {server} has no room for its batch and takes it back"));
                let out = self.servers[server].takes_back(&self.store)?;
                self.send(server, out)?;
                let at = self.now + FULL_PAUSE;
                self.servers[server].wake = Some(at);
                self.queue(FULL_PAUSE, Happening::ServerWakes(server, run));
            }
            Err(Refused::Fenced) => {
                self.mark(Mark::Fenced);
                self.server_ends(server, "is fenced");
            }
            Err(Refused::Gap(_)) => unreachable!("a gap is a violation"),
        }
        Ok(())
    }

    fn keep_snapshot(&mut self, server: usize) {
        let seq = self.servers[server].state.seq;
        if self.leader == server && seq >= self.snapshot_at + SNAPSHOT_EVERY && self.machines.chance(300) {
            self.snapshot_at = seq;
            self.store.keep_snapshot(&self.servers[server].state);
        }
    }

    fn effects(&mut self, server: usize) -> Check {
        let out = self.servers[server].effects(&self.ids)?;
        self.send(server, out)
    }

    fn send(&mut self, server: usize, out: Vec<Outbound>) -> Check {
        let run = self.servers[server].run;
        for message in out {
            match message {
                Outbound::Reply(asked, answer) => self.reply(asked, answer)?,
                Outbound::Check(request) => {
                    let plan = self.scenario.release(&request.release.digest);
                    let refused = plan.is_some_and(|plan| plan.behaviour == Behaviour::Refused);
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
                    self.queue(delay, Happening::CheckDone(server, run, result));
                }
                Outbound::Close(node, session) => {
                    let delay = self.network.range(1, 100);
                    self.queue(delay, Happening::AgentLost(node, session));
                }
                Outbound::Spec(node, session, _)
                | Outbound::AckVeto(node, session, ..)
                | Outbound::AckIntervals(node, session, ..) => self.send_down(node, session, message),
            }
        }
        Ok(())
    }

    /// A server's process starts, unless another one leads already.
    pub(super) fn server_starts(&mut self, server: usize) -> Check {
        if self.servers[server].up || (self.leader != server && self.servers[self.leader].up) {
            return Ok(());
        }
        if self.store.full {
            self.queue(FULL_PAUSE, Happening::ServerStarts(server));
            return Ok(());
        }
        self.server_leads(server)
    }

    /// A server takes the lead, whatever another one believes.
    pub(super) fn server_leads(&mut self, server: usize) -> Check {
        let from_snapshot = self.machines.chance(400);
        let lost = |world: &Self, what| world.violation(Invariant::S9Log, what);
        let step = self.epochs.range(1, EPOCH_STEP_MAX);
        let recovered = self
            .store
            .lead(from_snapshot, step)
            .map_err(|what| lost(self, what))?;
        if recovered.torn {
            self.mark(Mark::TornTail);
        }
        if recovered.from_snapshot {
            self.mark(Mark::FromSnapshot);
            let folded = self.store.fold().map_err(|what| lost(self, what))?;
            if folded != recovered.state {
                return Err(lost(
                    self,
                    "a snapshot and its tail fold to another State".to_owned(),
                ));
            }
        }
        self.snapshot_at = self.snapshot_at.min(recovered.state.seq);
        self.still_there(&recovered.state)?;
        self.begun.insert(recovered.epoch);
        self.leader = server;
        self.batch_queued[server] = false;
        self.servers[server].start(recovered, self.now)?;
        let epoch = self.servers[server].state.epoch;
        self.say(|| format!("server {server} leads epoch {epoch}"));
        self.tell_events(server);
        self.sync(server);
        let other = (server + 1) % SERVERS;
        if self.servers[other].up {
            self.mark(Mark::TwoLeaders);
            let (delay, run) = (self.network.range(LEASE / 4, LEASE), self.servers[other].run);
            self.queue(delay, Happening::ServerFollows(other, run));
        }
        Ok(())
    }

    /// A process ends. Its sessions fall; each node notices in its own time. What it had not written is lost.
    pub(super) fn server_ends(&mut self, server: usize, why: &str) {
        self.say(|| format!("server {server} {why}"));
        let run = self.servers[server].run;
        self.servers[server].ends();
        self.batch_queued[server] = false;
        for node in 0..self.agents.len() {
            if let Some(session) = self.agents[node]
                .session
                .filter(|s| s.server == server && s.run == run)
            {
                let delay = self.network.range(1, 800);
                self.queue(delay, Happening::AgentLost(node, session.id));
            }
        }
    }

    /// A process dies where it stands and starts again later. A batch that was under way is wholly there or not at all;
    /// `tears`: its bytes are there up to so many thousandths.
    pub(super) fn server_crashes(&mut self, server: usize, why: &str, tears: Option<u64>) -> Check {
        if !self.servers[server].up {
            return Ok(());
        }
        if self.servers[server].committed {
            self.mark(Mark::CrashBetweenAppendAndEffect);
        } else if self.servers[server].syncing {
            if let Some(thousandths) = tears {
                self.store.tear(&self.servers[server].draft, thousandths);
            } else if self.faults.chance(500) {
                if self.commit(server)?.is_ok() {
                    self.mark(Mark::CommitThrough);
                    self.mark(Mark::CrashBetweenAppendAndEffect);
                }
            } else {
                self.mark(Mark::CommitLost);
            }
        }
        self.server_ends(server, why);
        let down = self.faults.range(50, 5_000);
        self.queue(down, Happening::ServerStarts(server));
        Ok(())
    }
}
