//! What happens between servers and nodes.

use hotswap_core::report::NodeReport;

use super::{Happening, World};
use crate::agent::Session;
use crate::faults::Fault;
use crate::server::{Inbound, Outbound};

impl World {
    /// A message takes its time, and sometimes more.
    fn delay(&mut self) -> u64 {
        if self.strikes(Fault::Delay, 40) {
            self.network.range(50, 1_200)
        } else {
            self.network.range(1, 15)
        }
    }

    pub(super) fn send_up(&mut self, node: usize, session: Session, report: NodeReport) {
        if self.cut_up.contains_key(&node) {
            return;
        }
        if self.strikes(Fault::Drop, 15) {
            self.break_session(node);
            return;
        }
        let (server, run) = (session.server, session.run);
        let at = (self.now + self.delay()).max(self.last_up[node]);
        self.last_up[node] = at;
        let soon = at - self.now;
        if self.strikes(Fault::Twice, 30) {
            let late = soon + self.network.range(0, 3_000);
            let copy = Inbound::Report(node, session.id, Box::new(report.clone()));
            self.queue(late, Happening::ToServer(server, run, Box::new(copy)));
        }
        let inbound = Inbound::Report(node, session.id, Box::new(report));
        self.queue(soon, Happening::ToServer(server, run, Box::new(inbound)));
    }

    pub(super) fn send_down(&mut self, node: usize, session: u64, message: Outbound) {
        let current = self.agents[node].session.is_some_and(|ours| ours.id == session);
        if !current || self.cut_down.contains_key(&node) {
            return;
        }
        if self.strikes(Fault::Drop, 15) {
            self.break_session(node);
            return;
        }
        let boot = self.agents[node].boot;
        let at = (self.now + self.delay()).max(self.last_down[node]);
        self.last_down[node] = at;
        let soon = at - self.now;
        if self.strikes(Fault::Twice, 40) {
            let late = soon + self.network.range(0, 5_000);
            self.queue(late, Happening::ToAgent(node, boot, Box::new(message.clone())));
        }
        self.queue(soon, Happening::ToAgent(node, boot, Box::new(message)));
    }

    /// Both ends notice in their own time.
    pub(super) fn break_session(&mut self, node: usize) {
        let Some(session) = self.agents[node].session else {
            return;
        };
        let (up, down) = (self.network.range(1, 1_500), self.network.range(1, 1_500));
        self.queue(up, Happening::AgentLost(node, session.id));
        let lost = Box::new(Inbound::Lost(node, session.id));
        self.queue(down, Happening::ToServer(session.server, session.run, lost));
    }

    /// Some nodes are cut off, one way or both.
    pub(super) fn cut(&mut self, fault: Fault, whom: u64, lasts: u64) {
        let until = self.now + lasts;
        let nodes = self.agents.len();
        // One node, a third of them, or all.
        let hit = |node: usize| match whom % 3 {
            0 => node as u64 == whom / 3 % nodes as u64,
            1 => (whom / 3 + node as u64).is_multiple_of(3),
            _ => true,
        };
        let cut: Vec<usize> = (0..nodes).filter(|&node| hit(node)).collect();
        self.say(|| format!("the network cuts off {cut:?} for {lasts} ms ({fault})"));
        for &node in &cut {
            self.break_session(node);
            if fault != Fault::CutDown {
                self.cut_up.insert(node, until);
            }
            if fault != Fault::CutUp {
                self.cut_down.insert(node, until);
            }
        }
        self.queue(lasts, Happening::Heals(until));
    }

    pub(super) fn heals(&mut self, until: u64) {
        self.say(|| "the network heals".to_owned());
        self.cut_up.retain(|_, till| *till > until);
        self.cut_down.retain(|_, till| *till > until);
    }
}
