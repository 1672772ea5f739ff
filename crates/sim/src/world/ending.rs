//! The end: faults stop, everything ends, converges and stays quiet.

use hotswap_core::desired::desired;
use hotswap_core::invariants::{Check, Invariant, Violation, settled};

use super::{Happening, SERVERS, World};

/// How long everything must be quiet at the end, in ms.
const QUIET: u64 = 3_000;
/// How often it is looked at, in ms.
const LOOKS_EVERY: u64 = 500;

impl World {
    pub(super) fn faults_end(&mut self) -> Check {
        self.say(|| "faults end".to_owned());
        self.wild = false;
        self.calm_since = self.now;
        self.cut_up.clear();
        self.cut_down.clear();
        self.store.full = false;
        self.store_fails = false;
        self.store_tears = None;
        for server in 0..SERVERS {
            self.servers[server].skew = 0;
            self.servers[server].paused_until = 0;
            if server != self.leader && self.servers[server].up {
                self.server_ends(server, "sees that another leads");
            }
        }
        for node in 0..self.agents.len() {
            let agent = &mut self.agents[node];
            (agent.paused_until, agent.slow, agent.full) = (0, 1, false);
            if agent.machine.is_some() {
                self.agent_input(node, |agent, around| agent.recover(around))?;
            }
        }
        self.queue(LOOKS_EVERY, Happening::Settling);
        Ok(())
    }

    /// Whether everything has ended, converged, and stayed quiet.
    pub(super) fn settling(&mut self) -> Result<bool, Violation> {
        let server = &self.servers[self.leader];
        let now = server.now(self.now);
        let worked: u64 = self.agents.iter().map(|agent| agent.worked).sum();
        let seen = (server.state.seq, worked);
        let done = server.is_idle()
            && server.state.deployments.is_empty()
            && server.state.draining.is_empty()
            && !server.is_behind()
            && self.pending.is_empty()
            && !self.operators.has_more();
        let converged = done && self.converged().is_ok();
        if !converged {
            self.settled = None;
        }
        let late = self.now > self.calm_since + self.scenario.bound + self.operators.last_at();
        match self.settled {
            _ if !converged => {
                if late {
                    settled::l1_ends(&server.state, &server.obs, now)?;
                    self.converged()?;
                    return Err(self.violation(Invariant::L1Ends, "it never comes to rest"));
                }
            }
            None => self.settled = Some((self.now, seen.0, seen.1)),
            Some((since, seq, work)) if (seq, work) != seen => {
                if late {
                    let (events, actions) = (seen.0 - seq, seen.1 - work);
                    let what = format!(
                        "at rest since {since} ms, and still {events} events and {actions} actions came"
                    );
                    return Err(self.violation(Invariant::L3Quiet, what));
                }
                self.settled = Some((self.now, seen.0, seen.1));
            }
            Some((since, ..)) if self.now - since >= QUIET => {
                settled::l3_quiet(&server.state, &server.obs, now)?;
                let folded = self.store.fold();
                let folded = folded.map_err(|what| self.violation(Invariant::S9Log, what))?;
                if folded != server.state {
                    let what = "the log folds to another State than the one that runs";
                    return Err(self.violation(Invariant::S9Log, what));
                }
                self.oracle.end(&self.scenario, &server.state)?;
                return Ok(true);
            }
            Some(_) => {}
        }
        self.queue(LOOKS_EVERY, Happening::Settling);
        Ok(false)
    }

    fn converged(&self) -> Check {
        let state = &self.servers[self.leader].state;
        for (agent, id) in self.agents.iter().zip(&self.ids) {
            if agent.removed {
                continue;
            }
            if agent.machine.is_none() || agent.session.is_none() {
                return Err(self.violation(Invariant::L2Converges, format!("{id} is not back")));
            }
            settled::l2_converges(state, id, |module| agent.routes(module))?;
            let spec = desired(state, id);
            let told = |module| {
                spec.as_ref()
                    .is_some_and(|spec| spec.modules.contains_key(module))
            };
            if let Some(module) = agent.served().find(|module| !told(*module)) {
                let what = format!("{id} serves {module} and is told nothing of it");
                return Err(self.violation(Invariant::L2Converges, what));
            }
        }
        Ok(())
    }
}
