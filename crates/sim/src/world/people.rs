//! What people ask for, and what they are answered.

use hotswap_core::command::Command;
use hotswap_core::ids::DeploymentId;
use hotswap_core::invariants::{Check, Invariant};
use hotswap_core::state::State;

use super::story::brief;
use super::{Happening, Wish, World};
use crate::marks::Mark;
use crate::server::{Asked, Inbound};
use crate::store::Answer;

/// How long somebody waits for an answer before they ask again, in ms.
const PATIENCE: u64 = 2_000;
/// How often somebody looks whether nodes know more than a restored log, in ms.
const LOOKS_EVERY: u64 = 2_000;

impl World {
    pub(super) fn operator(&mut self) {
        let breaks = self.scenario.profile.breaks();
        if breaks && self.operators.removes_at(self.now) {
            self.remove_a_node();
        }
        let next = self
            .operators
            .next(&self.scenario, &self.servers[self.leader], self.now);
        if let Some(command) = next {
            self.ask(command);
        }
        if self.now < self.scenario.ends_at || self.operators.has_more() {
            let pause = self.operators.pause();
            self.queue(pause, Happening::Operator);
        }
    }

    /// A node is switched off and removed from the fleet. Some come back later, with all that they knew.
    fn remove_a_node(&mut self) {
        let Some(node) = self.operators.node(self.agents.len()) else {
            return;
        };
        if self.agents[node].removed {
            return;
        }
        self.agents[node].removed = true;
        self.agent_crashes(node);
        let (by, id) = ("op".to_owned(), self.ids[node].clone());
        self.ask(Command::RemoveNode { node: id, by });
        if self.faults.chance(500) {
            let away = self.faults.range(500, 8_000);
            self.queue(away, Happening::AgentReturns(node));
        }
    }

    pub(super) fn agent_returns(&mut self, node: usize) -> Check {
        self.agents[node].removed = false;
        self.mark(Mark::NodeRejoined);
        self.agent_boots(node)
    }

    pub(super) fn ask(&mut self, command: Command) {
        let place = self.wishes.len();
        self.say(|| format!("operator asks {}", brief(&command)));
        let twice = self.operators.doubles();
        self.wishes.push(Wish {
            command,
            answer: None,
            tries: 0,
        });
        self.pending.insert(place);
        self.send_command(place);
        if twice {
            self.send_command(place);
        }
    }

    pub(super) fn send_command(&mut self, place: usize) {
        if let Some(server) = self.server_to_connect_to() {
            let wish = &mut self.wishes[place];
            wish.tries += 1;
            let command = tried(&wish.command, place, wish.tries);
            let asked = Asked {
                place,
                key: place as u64,
            };
            let (delay, run) = (self.network.range(1, 30), self.servers[server].run);
            let inbound = Inbound::Command(asked, Box::new(command));
            self.queue(delay, Happening::ToServer(server, run, Box::new(inbound)));
        }
        self.queue(PATIENCE, Happening::Retry(place));
    }

    /// An answer came; `None`: not now. An answer that was given once is given for good.
    pub(super) fn reply(&mut self, asked: Asked, answer: Option<Answer>) -> Check {
        let Some(answer) = answer else {
            self.say(|| "the server can't write and says so".to_owned());
            return Ok(());
        };
        let wish = &mut self.wishes[asked.place];
        if let Some(first) = &wish.answer {
            if *first != answer {
                let what = format!(
                    "{} was answered {first:?} and then {answer:?}",
                    brief(&wish.command)
                );
                return Err(self.violation(Invariant::S10Durable, what));
            }
            return Ok(());
        }
        wish.answer = Some(answer.clone());
        self.pending.remove(&asked.place);
        if let Some(refused) = answer.refused {
            self.mark(Mark::Refused);
            if refused.starts_with("release_revoked") {
                self.mark(Mark::RevokedRefused);
            } else if refused.starts_with("below_minimum_version") {
                self.mark(Mark::BelowMinimumRefused);
            }
            self.say(|| format!("refused: {refused}"));
        } else if let (Some(id), true) = (
            answer.deployment,
            makes_deployment(&self.wishes[asked.place].command),
        ) {
            self.operators.made(id);
        }
        Ok(())
    }

    /// What was acknowledged is there, and so are the answers.
    pub(super) fn still_there(&self, state: &State) -> Check {
        for (place, wish) in self.wishes.iter().enumerate() {
            let Some(answer) = &wish.answer else {
                continue;
            };
            let gone = answer
                .deployment
                .filter(|id| makes_deployment(&wish.command) && state.deployment(id).is_none());
            if let Some(id) = gone {
                let what = format!("deployment {id} was acknowledged and is gone");
                return Err(self.violation(Invariant::S10Durable, what));
            }
            if self.store.answer(place as u64) != Some(answer) {
                let what = format!("the answer to {} is gone", brief(&wish.command));
                return Err(self.violation(Invariant::S10Durable, what));
            }
        }
        Ok(())
    }

    /// A backup knows nothing of what was answered after it.
    pub(super) fn forget_answers(&mut self) {
        for (place, wish) in self.wishes.iter_mut().enumerate() {
            if self.store.answer(place as u64).is_none() && wish.answer.take().is_some() {
                // Whoever set the fleet up does so again.
                let again = matches!(
                    wish.command,
                    Command::Configure { .. } | Command::PushRelease { .. }
                );
                if again {
                    self.pending.insert(place);
                }
            }
        }
        for place in self.pending.clone() {
            self.queue(PATIENCE, Happening::Retry(place));
        }
    }

    /// Somebody looks whether nodes know more than the restored log, and takes them over.
    pub(super) fn adopt(&mut self) {
        if self.servers[self.leader].is_behind() {
            self.mark(Mark::NodeAhead);
            self.ask(Command::AdoptFleet { by: "op".to_owned() });
        }
        self.queue(LOOKS_EVERY, Happening::Adopt);
    }
}

pub(super) fn makes_deployment(command: &Command) -> bool {
    matches!(
        command,
        Command::Deploy(_) | Command::RollBack { .. } | Command::Undeploy { .. }
    )
}

/// A command as the API hands it on: each try draws an identity of its own, and the trace is the wish's.
fn tried(command: &Command, place: usize, tries: u64) -> Command {
    let mut command = command.clone();
    let fresh = DeploymentId(uuid::Uuid::from_u128(
        ((place as u128 + 1) << 32) | u128::from(tries),
    ));
    match &mut command {
        Command::Deploy(request) => {
            request.id = fresh;
            request.trace_id = place.to_string();
        }
        Command::RollBack { id, trace_id, .. } | Command::Undeploy { id, trace_id, .. } => {
            *id = fresh;
            *trace_id = place.to_string();
        }
        _ => {}
    }
    command
}
