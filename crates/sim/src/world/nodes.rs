//! What happens to nodes.

use hotswap_core::ids::Digest;
use hotswap_core::invariants::{Check, Invariant};
use hotswap_core::reconcile::NodeInput;
use hotswap_core::spec::NodeSpec;

use super::story::told;
use super::{Happening, World};
use crate::agent::{Agent, Around, Cut, Later};
use crate::faults::Fault;
use crate::marks::Mark;
use crate::scenario::HEARTBEAT;
use crate::server::Outbound;

/// How soon a change is reported, in ms.
const REPORT_AFTER: u64 = 3;

impl World {
    pub(super) fn agent_boots(&mut self, node: usize) -> Check {
        if self.agents[node].removed || self.agents[node].machine.is_some() {
            return Ok(());
        }
        self.say_node(node, "boots");
        self.agent_input(node, |agent, around| agent.boot(around))?;
        let boot = self.agents[node].boot;
        let delay = self.network.range(1, 100);
        self.queue(delay, Happening::AgentConnects(node, boot));
        Ok(())
    }

    pub(super) fn say_node(&mut self, node: usize, what: &str) {
        let id = self.ids[node].clone();
        self.say(|| format!("{id} {what}"));
    }

    /// The process ends, and with it the machine, or the machine alone: what was being written is there or not.
    pub(super) fn agent_crashes(&mut self, node: usize) {
        if self.agents[node].machine.is_none() {
            return;
        }
        let cut = if self.wild && self.scenario.faults.has(Fault::TornLedger) && self.faults.chance(500) {
            Cut::Torn(self.faults.range(0, 1_000))
        } else if self.faults.chance(500) {
            Cut::Through
        } else {
            Cut::Lost
        };
        self.break_session(node);
        let agent = &self.agents[node];
        if agent.has_places() && (agent.is_loading() || self.faults.chance(500)) {
            self.say_node(node, "goes down with its kernel");
            self.agents[node].goes_down();
        }
        let writing = self.agents[node].crash(cut);
        self.say_node(node, &format!("crashes; what it was writing: {cut:?}"));
        if writing {
            match cut {
                Cut::Torn(_) => self.injected.count(Fault::TornLedger),
                Cut::Through => self.mark(Mark::LedgerWriteThrough),
                Cut::Lost => self.mark(Mark::LedgerWriteCut),
            }
        }
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

    /// The agent is asked to stop, and does so once its ledger says so.
    pub(super) fn agent_stops(&mut self, node: usize) -> Check {
        if self.agents[node].machine.is_none() || self.agents[node].paused_until > self.now {
            return Ok(());
        }
        self.say_node(node, "is asked to stop");
        self.agents[node].stopping = true;
        self.agent_input(node, |agent, around| agent.input(NodeInput::Shutdown, around))?;
        self.stops_when_written(node);
        Ok(())
    }

    fn stops_when_written(&mut self, node: usize) {
        let agent = &self.agents[node];
        // What is in the kernel's hands is waited for.
        if agent.stopping && agent.machine.is_some() && agent.is_written() && !agent.is_loading() {
            self.say_node(node, "stopped");
            self.break_session(node);
            self.agents[node].stops();
            self.agents[node].crash(Cut::Lost);
            let down = self.faults.range(20, 1_500);
            self.queue(down, Happening::AgentBoots(node));
        }
    }

    pub(super) fn agent_wakes(&mut self, node: usize, boot: u64) -> Check {
        let agent = &mut self.agents[node];
        if agent.boot == boot && agent.wake.is_some_and(|at| at <= self.now) {
            agent.wake = None;
            self.agent_input(node, |agent, around| agent.input(NodeInput::Tick, around))?;
        }
        Ok(())
    }

    pub(super) fn agent_later(&mut self, node: usize, boot: u64, later: Later) -> Check {
        if self.agents[node].boot != boot || self.agents[node].machine.is_none() {
            return Ok(());
        }
        if let Later::Dies(module, digest) = &later {
            if self.wild && self.agents[node].dies(module, digest) {
                self.mark(Mark::ReleaseKilledNode);
                if self.agents[node].is_in_kernel(module) {
                    self.agents[node].goes_down();
                }
                self.agent_crashes(node);
            }
            return Ok(());
        }
        if let Later::GoesDown = &later {
            self.mark(Mark::LoadTookDown);
            self.agent_crashes(node);
            return Ok(());
        }
        self.agent_input(node, |agent, around| agent.later(later, around))?;
        self.stops_when_written(node);
        Ok(())
    }

    pub(super) fn agent_input(
        &mut self,
        node: usize,
        with: impl FnOnce(&mut Agent, &mut Around<'_>) -> Check,
    ) -> Check {
        self.inputs += 1;
        let mut later = Vec::new();
        let mut around = Around {
            scenario: &self.scenario,
            plan: &self.scenario.nodes[node],
            machines: &mut self.machines,
            traffic: &mut self.traffic,
            now: self.now,
            trace: self.story.is_some(),
            wild: self.wild,
            later: &mut later,
            marks: &mut self.marks,
            injected: &mut self.injected,
        };
        let agent = &mut self.agents[node];
        let done = with(agent, &mut around);
        let boot = agent.boot;
        let wake = agent.wake_at().map(|at| at.max(self.now));
        let rearm = wake.filter(|_| wake != agent.wake);
        agent.wake = wake;
        let report = agent.report_due && agent.session.is_some();
        let alarm = agent.alarms.pop();
        self.say_of_node(node);
        for (delay, later) in later {
            self.queue(delay, Happening::AgentLater(node, boot, later));
        }
        if let Some(at) = rearm {
            self.queue(at - self.now, Happening::AgentWakes(node, boot));
        }
        if report {
            self.queue(REPORT_AFTER, Happening::AgentReports(node, boot));
        }
        done?;
        match alarm {
            Some(alarm) => {
                Err(self.violation(Invariant::S4Generations, format!("{}: {alarm}", self.ids[node])))
            }
            None => Ok(()),
        }
    }

    pub(super) fn agent_connects(&mut self, node: usize, boot: u64) {
        let agent = &self.agents[node];
        if agent.boot != boot || agent.machine.is_none() || agent.session.is_some() {
            return;
        }
        let cut = self.cut_up.contains_key(&node) || self.cut_down.contains_key(&node);
        let Some(server) = self.server_to_connect_to().filter(|_| !cut) else {
            if self.agents[node].served().next().is_some() {
                self.mark(Mark::ServedAlone);
            }
            let delay = self.network.range(100, 600);
            self.queue(delay, Happening::AgentConnects(node, boot));
            return;
        };
        self.sessions += 1;
        let session = crate::agent::Session {
            id: self.sessions,
            server,
            run: self.servers[server].run,
            highest: self.agents[node].highest(),
        };
        self.agents[node].session = Some(session);
        self.last_up[node] = self.now;
        self.last_down[node] = self.now;
        self.agent_reports(node, true);
        self.queue(HEARTBEAT, Happening::AgentHeartbeat(node, boot, session.id));
    }

    pub(super) fn agent_lost(&mut self, node: usize, session: u64) {
        if self.agents[node].session.is_some_and(|ours| ours.id == session) {
            self.agents[node].session = None;
            let (delay, boot) = (self.network.range(10, 300), self.agents[node].boot);
            self.queue(delay, Happening::AgentConnects(node, boot));
        }
    }

    pub(super) fn agent_heartbeat(&mut self, node: usize, boot: u64, session: u64) {
        let agent = &self.agents[node];
        if agent.boot == boot && agent.session.is_some_and(|ours| ours.id == session) {
            self.agent_reports(node, false);
            self.queue(HEARTBEAT, Happening::AgentHeartbeat(node, boot, session));
        }
    }

    pub(super) fn agent_reports(&mut self, node: usize, full: bool) {
        let Some(session) = self.agents[node].session else {
            return;
        };
        let Some(report) = self.agents[node].report(&self.scenario.nodes[node], full) else {
            return;
        };
        self.send_up(node, session, report);
    }

    /// A node that knows more than a restored log is told nothing until the fleet was adopted.
    fn adopted_first(&self, node: usize, spec: &NodeSpec) -> Check {
        let knew = self.agents[node].session.map(|session| session.highest);
        let adopted = self.servers[self.leader].state.adopted;
        let lost = knew.is_some_and(|knew| {
            knew.seq >= self.lost_from && self.lost_epochs.contains(&knew.epoch) && knew.epoch >= adopted
        });
        if self.restored && lost {
            let what = format!(
                "{} knew more than the restored log and is told {}",
                self.ids[node],
                told(spec)
            );
            return Err(self.violation(Invariant::S11Fencing, what));
        }
        Ok(())
    }

    /// What a node left by itself, and the server said that it knows that, the same rollout asks of it no more.
    fn left_for_good(&self, node: usize, spec: &NodeSpec) -> Check {
        if self.restored {
            return Ok(());
        }
        for (name, module) in &spec.modules {
            let asked = |(digest, _): &&(Digest, u8)| {
                self.left[node].contains(&(name.clone(), module.rollout, *digest))
            };
            if let Some((digest, _)) = module.routes.iter().find(asked) {
                let what = format!(
                    "{} left {digest} of {name} in {} and is told to serve it again",
                    self.ids[node], module.rollout
                );
                return Err(self.violation(Invariant::A8VetoHolds, what));
            }
        }
        Ok(())
    }

    /// A message of the server's reaches a node's process.
    pub(super) fn deliver(&mut self, node: usize, message: Outbound) -> Check {
        match message {
            Outbound::Spec(_, session, spec) => {
                let agent = &self.agents[node];
                let Some(machine) = &agent.machine else {
                    return Ok(());
                };
                let known = machine.ledger().highest();
                let older = spec.generation < known;
                let former = spec.generation.epoch < known.epoch;
                if agent.session.is_none_or(|ours| ours.id != session) {
                    self.mark(Mark::SpecAfterSession);
                }
                if older {
                    self.mark(Mark::OlderSpecRefused);
                }
                if former {
                    self.mark(Mark::OldServersSpec);
                }
                // The connection to a server that was thrown away is gone, with what was in it.
                if session <= self.dead_sessions {
                    return Ok(());
                }
                self.adopted_first(node, &spec)?;
                if spec.generation > known {
                    self.left_for_good(node, &spec)?;
                }
                if self.story.is_some() {
                    self.say_node(node, &format!("is told {}", told(&spec)));
                }
                self.agent_input(node, |agent, around| agent.input(NodeInput::Spec(spec), around))
            }
            Outbound::AckVeto(_, _, module, rollout, release) => {
                self.left[node].insert((module.clone(), rollout, release.digest));
                let acked = NodeInput::Acked {
                    module,
                    rollout,
                    release,
                };
                self.agent_input(node, |agent, around| agent.input(acked, around))
            }
            Outbound::AckIntervals(_, _, module, rollout, number) => {
                self.agents[node].acked_intervals(&module, rollout, number);
                Ok(())
            }
            Outbound::Reply(..) | Outbound::Check(_) | Outbound::Close(..) => {
                unreachable!("only sessions come here")
            }
        }
    }
}
