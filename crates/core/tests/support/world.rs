//! A server's core with its fleet, and a clock that only the script moves.

use std::collections::BTreeMap;

use hotswap_core::apply::apply;
use hotswap_core::checks::{CheckRequest, outstanding};
use hotswap_core::command::{Command, Refusal};
use hotswap_core::decide::{self, CheckResult, Input, Reply};
use hotswap_core::desired::desired;
use hotswap_core::event::{Event, Logged, RolloutKey};
use hotswap_core::ids::{Digest, EnvName, FleetId, ModuleName, NodeId};
use hotswap_core::invariants;
use hotswap_core::observe::{Observations, folded_up_to, veto_known};
use hotswap_core::policy::Environment;
use hotswap_core::reconcile::NodeInput;
use hotswap_core::report::Interval;
use hotswap_core::spec::{Generation, ModuleSpec, NodeSpec};
use hotswap_core::state::State;
use hotswap_core::time::{CoreTime, Millis, Now, WallTime};
use uuid::Uuid;

use super::node::{Machine, Traffic};
use super::words;

/// 2026-01-01 00:00:00 UTC.
const WALL_START: u64 = 1_767_225_600_000;
/// How far the clock moves at once.
pub const TICK: Millis = Millis(200);

type Contents = BTreeMap<NodeId, (Generation, BTreeMap<ModuleName, ModuleSpec>)>;

/// Everything.
pub struct World {
    /// The log.
    pub log: Vec<Logged>,
    /// It in words, with the time.
    pub story: Vec<(CoreTime, String)>,
    /// Its fold.
    pub state: State,
    /// What the server heard.
    pub obs: Observations,
    /// What time it is.
    pub now: Now,
    /// The fleet.
    pub machines: BTreeMap<NodeId, Machine>,
    /// What users do, by environment.
    pub traffic: BTreeMap<EnvName, Traffic>,
    /// When the server is up again, if it is down.
    pub down_until: Option<CoreTime>,
    /// How the server's own checks of a release end, where not well.
    pub check_faults: BTreeMap<(Digest, String), String>,
    /// How long a check takes.
    pub check_time: Millis,
    checks: BTreeMap<CheckRequest, CoreTime>,
    sent: BTreeMap<NodeId, Generation>,
    contents: Contents,
    ids: u128,
    /// The reports of an instant are taken in backwards: it must make no difference.
    pub backwards: bool,
}

impl World {
    /// A new fleet of these environments, without nodes.
    pub fn new(environments: Vec<Environment>) -> Self {
        let now = Now {
            core: CoreTime(0),
            wall: WallTime(WALL_START),
        };
        let mut world = Self {
            log: Vec::new(),
            story: Vec::new(),
            state: State::default(),
            obs: Observations::new(now),
            now,
            machines: BTreeMap::new(),
            traffic: BTreeMap::new(),
            down_until: None,
            check_faults: BTreeMap::new(),
            check_time: Millis(600),
            checks: BTreeMap::new(),
            sent: BTreeMap::new(),
            contents: BTreeMap::new(),
            ids: 0,
            backwards: false,
        };
        world.commit(vec![
            Event::FleetCreated {
                fleet: FleetId(Uuid::from_u128(0xF1EE7)),
            },
            Event::EnvironmentsConfigured { environments },
            Event::EpochStarted { epoch: 1 },
        ]);
        world
    }

    /// The next identity.
    pub fn next_id(&mut self) -> Uuid {
        self.ids += 1;
        Uuid::from_u128(self.ids)
    }

    /// The last identity is free again: what it was for was refused.
    pub fn unused_id(&mut self) {
        self.ids -= 1;
    }

    /// How many identities there are.
    pub fn ids(&self) -> u128 {
        self.ids
    }

    /// A machine that will connect.
    pub fn add(&mut self, name: &str, environment: &EnvName, zone: &str) {
        let id: NodeId = name.parse().unwrap();
        let mut machine = Machine::new(id.clone(), environment.clone(), zone, self.now.core);
        machine.traffic = self.traffic.get(environment).copied().unwrap_or_default();
        self.machines.insert(id, machine);
    }

    /// Asks the server for something.
    pub fn command(&mut self, command: Command) -> Result<Reply, Refusal> {
        let input = Input::Command(Box::new(command));
        let decision = decide::decide(&self.state, &self.obs, input, self.now);
        self.commit(decision.events);
        let reply = decision.reply.expect("a command is answered");
        self.settle();
        reply
    }

    /// Moves the clock once and lets everyone do what they do.
    pub fn tick(&mut self, by: Millis) {
        self.now.core = self.now.core + by;
        self.now.wall = self.now.wall + by;
        let now = self.now.core;
        for machine in self.machines.values_mut() {
            machine.step(now);
        }
        if let Some(until) = self.down_until {
            if now < until {
                return;
            }
            self.come_up();
        }
        self.sessions();
        self.take_reports();
        self.finish_checks();
        self.settle();
        self.send();
    }

    /// The server's process ends; it comes up again after a while, with nothing but the log.
    pub fn restart_server(&mut self, after: Millis) {
        self.down_until = Some(self.now.core + after);
        for machine in self.machines.values_mut() {
            machine.drop_session();
        }
    }

    fn come_up(&mut self) {
        self.down_until = None;
        self.state = fold(&self.log);
        self.obs = Observations::new(self.now);
        self.checks.clear();
        self.sent.clear();
        let epoch = self.state.epoch + 1;
        self.commit(vec![Event::EpochStarted { epoch }]);
    }

    fn sessions(&mut self) {
        for (id, machine) in &mut self.machines {
            if machine.reachable && !machine.session {
                machine.open_session();
                self.obs.connected(id, self.now);
                self.sent.remove(id);
            } else if !machine.reachable && machine.session {
                machine.drop_session();
                self.obs.disconnected(id, self.now);
            }
        }
    }

    fn take_reports(&mut self) {
        let now = self.now;
        let mut reports: Vec<_> = self
            .machines
            .values_mut()
            .filter_map(|machine| machine.report(now.core))
            .collect();
        if self.backwards {
            reports.reverse();
        }
        for report in reports {
            self.obs.absorb(&self.state, report, now);
        }
    }

    fn finish_checks(&mut self) {
        let asked = outstanding(&self.state);
        self.checks.retain(|check, _| asked.contains(check));
        for check in asked {
            let done = *self
                .checks
                .entry(check.clone())
                .or_insert(self.now.core + self.check_time);
            if done > self.now.core {
                continue;
            }
            let fault = self.check_faults.get(&(check.release.digest, check.kind.name()));
            let outcome = fault.map_or_else(|| Ok("passed".to_owned()), |why| Err(why.clone()));
            let CheckRequest {
                deployment,
                stage,
                attempt,
                ..
            } = check;
            let result = CheckResult {
                deployment,
                stage,
                attempt,
                outcome,
            };
            let decision = decide::decide(&self.state, &self.obs, Input::Check(result), self.now);
            self.commit(decision.events);
        }
    }

    /// Decides until there is nothing left to decide.
    fn settle(&mut self) {
        const ROUNDS_MAX: usize = 10_000;
        for _ in 0..ROUNDS_MAX {
            let events = decide::decide(&self.state, &self.obs, Input::Tick, self.now).events;
            if events.is_empty() {
                if let Err(violation) = invariants::settled::s13_explained(&self.state, &self.obs, self.now) {
                    panic!("{violation}");
                }
                return;
            }
            self.commit(events);
        }
        panic!(
            "the core decides without end: {:?}",
            &self.log[self.log.len() - 4..]
        );
    }

    fn commit(&mut self, events: Vec<Event>) {
        if events.is_empty() {
            return;
        }
        for event in events {
            let epoch = match event {
                Event::EpochStarted { epoch } | Event::FleetAdopted { epoch, .. } => epoch,
                _ => self.state.epoch,
            };
            let logged = Logged {
                seq: self.state.seq + 1,
                epoch,
                at: self.now.core,
                wall: self.now.wall,
                event,
            };
            if let Err(violation) = invariants::check_step(&self.state, &self.obs, &logged) {
                panic!("{violation}\nby {:?}", logged.event);
            }
            apply(&mut self.state, &logged);
            if let Err(violation) = invariants::check_state(&self.state) {
                panic!("{violation}\nafter {:?}", logged.event);
            }
            // Told now: names come from State as it is after the event.
            let told = words::event(&self.state, &logged.event);
            self.story.extend(told.map(|line| (logged.at, line)));
            self.log.push(logged);
            self.generations_grow();
        }
        self.obs.after_apply(&self.state);
    }

    /// Other content has a newer generation, and a generation never falls.
    fn generations_grow(&mut self) {
        let event = &self.log.last().unwrap().event;
        for node in self.state.nodes.keys() {
            let Some(NodeSpec {
                generation, modules, ..
            }) = desired(&self.state, node)
            else {
                continue;
            };
            if let Some((before, content)) = self.contents.get(node) {
                assert!(generation >= *before, "{node}'s generation falls by {event:?}");
                assert!(
                    *content == modules || generation > *before,
                    "{node} is told something else under the same generation by {event:?}:\n\
                     before {content:#?}\nafter {modules:#?}"
                );
            }
            self.contents.insert(node.clone(), (generation, modules));
        }
    }

    fn send(&mut self) {
        let now = self.now.core;
        for (id, machine) in &mut self.machines {
            if !machine.session || machine.hung {
                continue;
            }
            let vetoes: Vec<_> = machine.reconciler().vetoes().cloned().collect();
            for veto in vetoes
                .into_iter()
                .filter(|veto| veto_known(&self.state, id, veto))
            {
                let (module, rollout, release) = (veto.module, veto.rollout, veto.release);
                machine.input(
                    NodeInput::Acked {
                        module,
                        rollout,
                        release,
                    },
                    now,
                );
            }
            if !machine.unacked().is_empty() {
                let environment = self.state.nodes.get(id).map(|record| record.environment.clone());
                machine.acked(|interval: &Interval, incarnation| {
                    let Some(environment) = environment.clone() else {
                        return false;
                    };
                    let (module, rollout) = (interval.module.clone(), interval.rollout);
                    let key = RolloutKey {
                        environment,
                        module,
                        rollout,
                    };
                    folded_up_to(&self.state, &key, id)
                        .is_none_or(|(of, number)| of == incarnation && interval.number <= number)
                });
            }
            let Some(generation) = hotswap_core::desired::generation(&self.state, id) else {
                continue;
            };
            if self.sent.get(id) == Some(&generation) {
                continue;
            }
            if let Some(spec) = desired(&self.state, id) {
                machine.spec(spec, now);
                self.sent.insert(id.clone(), generation);
            }
        }
    }

    /// What must be true of a log at the end of any story.
    pub fn check_log(&self) {
        // A prefix folds to the State that it once made, also after a way through JSON.
        let folded = fold(&self.log);
        assert_eq!(folded, self.state, "the fold of the log is another State");
        for logged in &self.log {
            let text = serde_json::to_string(logged).unwrap();
            let back: Logged = serde_json::from_str(&text).unwrap();
            assert_eq!(*logged, back, "an event changes on its way through JSON");
        }
        let text = serde_json::to_string(&self.state).unwrap();
        let back: State = serde_json::from_str(&text).unwrap();
        assert_eq!(back, self.state, "State changes on its way through JSON");
    }
}

/// The fold of a log.
pub fn fold(log: &[Logged]) -> State {
    let mut state = State::default();
    for logged in log {
        apply(&mut state, logged);
    }
    state
}
