//! Faults: what is done, to whom, and what is promised under it.
//!
//! Each fault claims what it breaks, breaks it, mends it, and looks whether the promise held at once. What must hold
//! all the while, such as traffic, is watched elsewhere.

mod data;
mod disk;
mod network;
mod process;
mod resources;

use std::time::Duration;

use anyhow::Result;

use crate::fleet::{Claim, Component};
use crate::http::{Connection, request};
use crate::operator::MODULES;
use crate::policy::ENVIRONMENTS;
use crate::rng::Rng;
use crate::run::Run;

/// Longest wait for a component that no other fault has.
const CLAIM_MAX: Duration = Duration::from_secs(20);
/// Longest wait for a strategy to run.
const STRATEGY_MAX: Duration = Duration::from_secs(3);
/// Longest wait for an answer of a node that was just started.
const ANSWER_MAX: Duration = Duration::from_secs(30);

/// Faults of different lanes happen at once; those of one lane one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lane {
    Processes,
    Network,
    Resources,
}

/// What a fault can't do without.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Needs {
    Nothing,
    Mounts,
    Clock,
    Certificates,
}

/// How an injection went.
pub(crate) enum Injected {
    /// Nothing could be claimed.
    Not,
    /// Nothing that was looked at broke the promise. The strategies that ran.
    Held(Vec<&'static str>),
}

/// A fault.
pub(crate) struct Fault {
    pub(crate) name: &'static str,
    pub(crate) component: &'static str,
    pub(crate) promise: &'static str,
    pub(crate) lane: Lane,
    pub(crate) needs: Needs,
    run: fn(&Run, &mut Injector<'_>) -> Result<Injected>,
}

/// What a lane draws from.
pub(crate) struct Injector<'a> {
    pub(crate) rng: &'a mut Rng,
    /// Faults injected so far: steers them through the strategies.
    turn: usize,
}

/// All faults, in the order of the table.
pub(crate) fn all() -> Vec<Fault> {
    [
        process::FAULTS,
        network::FAULTS,
        disk::FAULTS,
        data::FAULTS,
        resources::FAULTS,
    ]
    .into_iter()
    .flat_map(|faults| faults())
    .collect()
}

/// Whether a fault's name or component is asked for.
pub(crate) fn is_asked_for(fault: &Fault, only: &[String]) -> bool {
    only.is_empty() || only.iter().any(|word| fault.name.contains(word.as_str()))
}

/// Injects a lane's faults, each at least once where there is time, until faults are over.
pub(crate) fn inject(run: &Run, lane: Lane, faults: &[(usize, Fault)], seed: u64) {
    let mut rng = Rng::new(seed, &format!("{lane:?}"));
    let mine: Vec<&(usize, Fault)> = faults.iter().filter(|(_, fault)| fault.lane == lane).collect();
    let mut turn = usize::try_from(rng.range(0, 3)).expect("it is small");
    while !run.are_faults_over() && !mine.is_empty() {
        for (place, fault) in rng.shuffled(mine.clone()) {
            run.hold(rng.ms(200, 1_500));
            if run.are_faults_over() {
                return;
            }
            let mut injector = Injector { rng: &mut rng, turn };
            turn += 1;
            let what = (fault.component, fault.promise);
            match (fault.run)(run, &mut injector) {
                Ok(Injected::Not) => {}
                Ok(Injected::Held(during)) => run.tally.fault(*place, fault.name, what, true, &during),
                Err(error) => {
                    run.violation(&format!("{} of {}: {error:#}", fault.name, fault.component));
                    run.tally.fault(*place, fault.name, what, false, &[]);
                }
            }
        }
    }
}

impl Injector<'_> {
    /// Has one component for itself.
    fn claim<'a>(&self, run: &Run, component: &'a Component) -> Option<Claim<'a>> {
        let claim = std::cell::RefCell::new(None);
        run.wait_for(CLAIM_MAX, || {
            *claim.borrow_mut() = component.claim();
            claim.borrow().is_some()
        });
        claim.into_inner()
    }

    fn server<'a>(&self, run: &'a Run) -> Option<Claim<'a>> {
        self.claim(run, &run.fleet.server)
    }

    /// One of the agents.
    fn agent<'a>(&mut self, run: &'a Run) -> Option<Claim<'a>> {
        let agent = self.rng.pick(&run.fleet.agents);
        self.claim(run, agent)
    }

    /// One of the agents of the environment whose strategy runs now, if one does.
    fn agent_of<'a>(&mut self, run: &'a Run, strategies: &[&'static str]) -> Option<Claim<'a>> {
        let environment = ENVIRONMENTS
            .iter()
            .find(|(_, _, strategy)| strategies.contains(strategy))
            .map(|(environment, _, _)| *environment);
        let agents: Vec<&Component> = run
            .fleet
            .agents
            .iter()
            .zip(&run.fleet.places)
            .filter(|(_, place)| environment.is_none_or(|wanted| place.environment == wanted))
            .map(|(agent, _)| agent)
            .collect();
        let agent = *self.rng.pick(&agents);
        self.claim(run, agent)
    }

    /// Waits for the next strategy in turn to run, then some more; says which run.
    fn strategy(&mut self, run: &Run) -> Vec<&'static str> {
        let wanted = ENVIRONMENTS[self.turn % ENVIRONMENTS.len()].2;
        run.wait_for(STRATEGY_MAX, || run.running().contains(&wanted));
        run.hold(self.rng.ms(0, 1_200));
        let mut running = run.running();
        running.sort_unstable();
        running.dedup();
        // The wanted one first: whoever breaks a node takes one of that environment.
        running.sort_by_key(|strategy| *strategy != wanted);
        running
    }
}

/// Whether a node answers for every module, over connections of its own.
fn serves(node: &Component) -> Result<(), String> {
    for module in &MODULES {
        let mut connection = Connection::open(node.http, ANSWER_MAX).map_err(|error| error.to_string())?;
        match connection.ask(&request("GET", module.path, &[], b"")) {
            Ok(answer) if answer.status == 200 => {}
            Ok(answer) => return Err(format!("{}: {} {}", module.name, answer.status, answer.text())),
            Err(error) => return Err(format!("{}: {error}", module.name)),
        }
    }
    Ok(())
}

/// Everything that was acknowledged must be there.
fn nothing_is_lost(run: &Run) -> Result<()> {
    let lost = run.acks.lost()?;
    if !lost.is_empty() {
        anyhow::bail!("acknowledged and not there: {}", lost.join(", "));
    }
    Ok(())
}
