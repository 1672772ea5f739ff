//! Faults, at their moments.

use hotswap_core::invariants::{Check, Invariant, settled};

use super::servers::LEASE;
use super::{Happening, SERVERS, World};
use crate::faults::{Fault, Planned};
use crate::marks::Mark;
use crate::scenario::SKEW_MAX;

impl World {
    /// One of the planned faults strikes; not where there is nothing that it could hit.
    pub(super) fn breaks(&mut self, place: usize) -> Check {
        if !self.wild {
            return Ok(());
        }
        let Planned {
            fault, whom, extent, ..
        } = self.scenario.planned[place].1;
        let nodes = self.agents.len() as u64;
        let node = usize::try_from(whom % nodes.max(1)).expect("there are few nodes");
        let leader = self.leader;
        // So many ms at most.
        let up_to = |most: u64| (extent * most / 1_000).max(1);
        let of_a_node = matches!(fault.component(), "node" | "network");
        if of_a_node && nodes == 0 {
            return Ok(());
        }
        self.say(|| format!("FAULT {place}: {fault}"));
        self.injected.count(fault);
        match fault {
            Fault::Reset => {
                self.say_node(node, "loses its session");
                self.break_session(node);
            }
            Fault::Cut | Fault::CutUp | Fault::CutDown => self.cut(fault, whom, up_to(8_000)),
            Fault::LongCut => self.cut(fault, 3 * (whom / 3), 10_000 + up_to(20_000)),
            Fault::ServerCrash => self.server_crashes(leader, "crashes", None)?,
            Fault::ServerPause => self.server_pauses(whom, up_to(12_000)),
            Fault::SecondServer => {
                let other = (leader + 1) % SERVERS;
                if !self.servers[other].up && !self.store.full && self.servers[leader].run > 0 {
                    self.server_leads(other)?;
                }
            }
            Fault::WallJump => self.wall_jumps(extent)?,
            Fault::StoreFull => {
                self.store.full = true;
                self.queue(up_to(6_000), Happening::StoreHasRoom);
            }
            Fault::StoreError => self.store_fails = true,
            Fault::TornBatch => self.store_tears = Some(extent),
            Fault::Restore => self.restores(whom)?,
            Fault::NodeCrash => self.agent_crashes(node),
            Fault::NodeStop => self.agent_stops(node)?,
            Fault::NodePause => {
                let lasts = up_to(8_000);
                if self.agents[node].machine.is_some() {
                    self.say_node(node, &format!("is frozen for {lasts} ms"));
                    self.agents[node].paused_until = self.now + lasts;
                }
            }
            Fault::NodeSlow => {
                let boot = self.agents[node].boot;
                self.agents[node].slow = 2 + whom / nodes.max(1) % 20;
                self.queue(up_to(10_000), Happening::AgentQuickens(node, boot));
            }
            Fault::NodeWiped => {
                self.agent_crashes(node);
                if self.agents[node].machine.is_none() {
                    self.say_node(node, "loses its disk");
                    self.agents[node].wipe();
                }
            }
            Fault::NodeFull => {
                self.agents[node].full = true;
                self.queue(up_to(6_000), Happening::AgentHasRoom(node));
            }
            Fault::HookLost => {
                let lasts = up_to(6_000);
                if self.agents[node].machine.is_some() {
                    self.agent_input(node, |agent, around| {
                        agent.loses_hooks(lasts, around);
                        Ok(())
                    })?;
                }
            }
            Fault::TornLedger
            | Fault::Delay
            | Fault::Twice
            | Fault::Drop
            | Fault::SlowSync
            | Fault::SlowLedger
            | Fault::Stall
            | Fault::LoadReboot
            | Fault::Drift => {}
        }
        Ok(())
    }

    /// The leader is frozen. Longer than its lease, another one takes its place.
    fn server_pauses(&mut self, whom: u64, lasts: u64) {
        let leader = self.leader;
        if !self.servers[leader].up {
            return;
        }
        self.say(|| format!("server {leader} is frozen for {lasts} ms"));
        self.servers[leader].paused_until = self.now + lasts;
        if lasts > LEASE {
            self.mark(Mark::LongPause);
            if whom.is_multiple_of(2) {
                self.queue(LEASE, Happening::TakesOver(leader));
            }
        }
        for node in 0..self.agents.len() {
            if self.agents[node].session.is_some() && self.network.chance(500) {
                self.break_session(node);
            }
        }
    }

    /// Another server takes the place of one that is frozen still.
    pub(super) fn takes_over(&mut self, frozen: usize) -> Check {
        let other = (frozen + 1) % SERVERS;
        let still = self.servers[frozen].up && self.servers[frozen].paused_until > self.now;
        if self.leader == frozen && still && !self.servers[other].up && !self.store.full {
            self.server_leads(other)?;
        }
        Ok(())
    }

    fn wall_jumps(&mut self, extent: u64) -> Check {
        let leader = self.leader;
        let far = i64::try_from(extent * 2 * SKEW_MAX / 1_000).expect("a skew is small");
        let skew = far - i64::try_from(SKEW_MAX).expect("a skew is small");
        let before = self.servers[leader].now(self.now);
        let jump = skew - self.servers[leader].skew;
        for server in &mut self.servers {
            server.skew = skew;
        }
        self.say(|| format!("the wall clock jumps by {jump} ms"));
        self.mark(if jump > 0 {
            Mark::WallForward
        } else {
            Mark::WallBack
        });
        let server = &self.servers[leader];
        if server.up && !server.syncing {
            settled::a6_clock(&server.state, &server.obs, before, server.now(self.now))?;
        }
        Ok(())
    }

    /// The store is lost, and a backup of it put in its place.
    fn restores(&mut self, whom: u64) -> Check {
        let Some(last) = self.backups.len().checked_sub(1) else {
            return Ok(());
        };
        let leader = self.leader;
        for server in 0..SERVERS {
            if self.servers[server].up {
                self.server_ends(server, "is stopped, for a backup to be restored");
            }
        }
        // Mostly a young one.
        let age = usize::try_from(whom % 1_000 * (whom / 1_000 % 1_000) * (last as u64 + 1) / 1_000_000);
        let place = last.saturating_sub(age.expect("a place in the log"));
        let backup = self.backups[place];
        self.backups.truncate(place + 1);
        let failed = |world: &Self, what| world.violation(Invariant::S9Log, what);
        self.store.restore(backup).map_err(|what| failed(self, what))?;
        let events = self.store.events().map_err(|what| failed(self, what))?;
        self.oracle.begins_anew(&self.scenario, &events);
        self.restored = true;
        self.lost_from = self.store.next_seq();
        self.lost_epochs = self.begun.clone();
        self.dead_sessions = self.sessions;
        self.snapshot_at = 0;
        self.mark(Mark::BackupRestored);
        let seq = self.store.next_seq();
        self.say(|| format!("a backup is restored: event {seq} comes next"));
        self.forget_answers();
        let down = self.faults.range(50, 3_000);
        self.queue(down, Happening::ServerStarts(leader));
        self.queue(2_000, Happening::Adopt);
        Ok(())
    }
}
