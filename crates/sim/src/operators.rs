//! People: they deploy, and in wilder runs change their minds at random moments.

use std::collections::BTreeMap;

use hotswap_core::command::{Command, DeployRequest};
use hotswap_core::ids::DeploymentId;
use hotswap_core::policy::Strategy;
use hotswap_core::release::Release;
use hotswap_core::stage::DeploymentStatus;
use hotswap_core::state::State;
use hotswap_core::time::{Millis, WallTime};

use crate::rng::Rng;
use crate::scenario::{Profile, Scenario};
use crate::server::Server;
use crate::shape::Shape;

/// Operators, drawn by their own stream.
#[derive(Debug)]
pub struct Operators {
    rng: Rng,
    profile: Profile,
    left: u64,
    silent: bool,
    made: Vec<DeploymentId>,
    ends_at: u64,
    last_at: u64,
    versions: BTreeMap<usize, usize>,
}

impl Operators {
    /// They have so many deployments to make.
    pub fn new(scenario: &Scenario, shape: &Shape, rng: Rng) -> Self {
        Self {
            rng,
            profile: scenario.profile,
            left: scenario.deployments,
            silent: shape.no_commands,
            made: Vec::new(),
            ends_at: scenario.ends_at,
            last_at: 0,
            versions: BTreeMap::new(),
        }
    }

    /// What is set up before anything runs.
    pub fn first(&mut self, scenario: &Scenario) -> Vec<Command> {
        let mut commands = vec![Command::Configure {
            environments: scenario.environments.clone(),
        }];
        for module in &scenario.modules {
            for plan in &module.releases {
                let release = Release {
                    digest: plan.release.digest,
                    kind: module.kind,
                    size: 1,
                    pushed_at: WallTime(0),
                    pushed_by: "author".to_owned(),
                    signed_by: None,
                    needs: Vec::new(),
                };
                let (module, version) = (module.name.clone(), plan.release.version.clone());
                commands.push(Command::PushRelease {
                    module,
                    version,
                    release,
                });
            }
        }
        commands
    }

    /// How long until somebody acts again, in ms.
    pub fn pause(&mut self) -> u64 {
        self.rng
            .range(200, if self.profile.interferes() { 1_500 } else { 4_000 })
    }

    /// Whether deployments are still to be made.
    pub fn has_more(&self) -> bool {
        self.left > 0
    }

    /// When the last thing was asked for.
    pub fn last_at(&self) -> u64 {
        self.last_at.saturating_sub(self.ends_at)
    }

    /// A deployment was made.
    pub fn made(&mut self, id: DeploymentId) {
        self.made.push(id);
    }

    /// Whether a node is to be removed for good now. Rare.
    pub fn removes_at(&mut self, now: u64) -> bool {
        self.profile == Profile::Wild && now < self.ends_at && self.rng.chance(8)
    }

    /// One of the nodes.
    pub fn node(&mut self, nodes: usize) -> Option<usize> {
        (nodes > 0).then(|| self.rng.index(nodes))
    }

    /// Whether somebody presses a button twice.
    pub fn doubles(&mut self) -> bool {
        self.profile != Profile::Calm && self.rng.chance(80)
    }

    /// Whether somebody now wants what they had better not.
    pub fn meddles(&mut self) -> bool {
        self.profile.interferes() && !self.silent && self.rng.chance(300)
    }

    /// A short while, in ms.
    pub fn soon(&mut self) -> u64 {
        self.rng.range(0, 400)
    }

    /// An identity that the API replaces.
    fn id() -> DeploymentId {
        DeploymentId(uuid::Uuid::nil())
    }

    /// What is asked for now, if anything.
    pub fn next(&mut self, scenario: &Scenario, server: &Server, now: u64) -> Option<Command> {
        let state = &server.state;
        let over = now >= self.ends_at;
        let calm = self.profile == Profile::Calm;
        let busy = !state.deployments.is_empty() || state.seq < 5;
        let deploys = self.left > 0 && if calm { !busy } else { over || self.rng.chance(400) };
        if deploys {
            self.last_at = now;
            self.left -= 1;
            return Some(self.deploy(scenario));
        }
        if over || self.silent || !self.profile.interferes() {
            return None;
        }
        let id = if self.made.is_empty() {
            return None;
        } else {
            *self.rng.pick(&self.made)
        };
        let by = "op".to_owned();
        Some(match self.rng.range(0, 26) {
            0 | 1 => Command::Abort { deployment: id, by },
            2..=4 => Command::Pause { deployment: id, by },
            5..=8 => Command::Resume { deployment: id, by },
            9 | 10 => Command::RollBack {
                deployment: id,
                id: Self::id(),
                trace_id: String::new(),
                by,
            },
            11 => Command::SkipStep { deployment: id, by },
            12 => Command::Promote { deployment: id, by },
            13 | 14 => self.decide(state, id),
            15 => {
                let module = self.rng.pick(&scenario.modules).name.clone();
                let environment = self.rng.pick(&scenario.environments).name.clone();
                Command::Undeploy {
                    id: Self::id(),
                    trace_id: String::new(),
                    module,
                    environment,
                    by,
                }
            }
            16 => self.lift(state)?,
            17 => {
                let node = self.node(scenario.nodes.len())?;
                let environment = self.rng.pick(&scenario.environments).name.clone();
                Command::MoveNode {
                    node: scenario.nodes[node].id.clone(),
                    environment,
                    by,
                }
            }
            18 => {
                let module = self.rng.pick(&scenario.modules);
                let release = self.rng.pick(&module.releases).release.clone();
                Command::Hold {
                    module: module.name.clone(),
                    release,
                    reason: "a hunch".to_owned(),
                    by,
                }
            }
            20 => {
                let node = self.node(scenario.nodes.len())?;
                Command::Drain {
                    node: scenario.nodes[node].id.clone(),
                    deadline: Millis(self.rng.range(0, 5_000)),
                    reason: "maintenance".to_owned(),
                    by,
                }
            }
            21 => {
                let drained = state.nodes.iter().filter(|(_, record)| record.drain.is_some());
                let drained: Vec<_> = drained.map(|(node, _)| node.clone()).collect();
                if drained.is_empty() {
                    return None;
                }
                Command::Undrain {
                    node: self.rng.pick(&drained).clone(),
                    by,
                }
            }
            22 => {
                let module = self.rng.pick(&scenario.modules);
                let version = self.rng.pick(&module.releases).release.version.clone();
                let (module, reason) = (module.name.clone(), "superseded".to_owned());
                match state.yank(&module, &version) {
                    Some(_) => Command::Unyank { module, version, by },
                    None => Command::Yank {
                        module,
                        version,
                        reason,
                        by,
                    },
                }
            }
            23 => {
                let module = self.rng.pick(&scenario.modules);
                let version = self.rng.pick(&module.releases).release.version.clone();
                let minimum = state.minimum(&module.name).is_none().then_some(version);
                let module = module.name.clone();
                Command::SetMinimumVersion {
                    module,
                    version: minimum,
                    by,
                }
            }
            // For good, and so more seldom.
            24 if self.rng.chance(300) => {
                let module = self.rng.pick(&scenario.modules);
                let version = self.rng.pick(&module.releases).release.version.clone();
                Command::Revoke {
                    module: module.name.clone(),
                    version,
                    reason: "its key leaked".to_owned(),
                    by,
                }
            }
            25 => {
                let module = self.rng.pick(&scenario.modules).name.clone();
                let environment = self.rng.pick(&scenario.environments).name.clone();
                let values = [("LEVEL".to_owned(), self.rng.range(0, 9).to_string())].into();
                Command::SetValues {
                    module,
                    environment,
                    values,
                    expected: None,
                    by,
                }
            }
            _ => self.configure(scenario),
        })
    }

    /// An environment gets another strategy, and perhaps loses its freezes: running rollouts keep what they began with.
    fn configure(&mut self, scenario: &Scenario) -> Command {
        let mut environments = scenario.environments.clone();
        let place = self.rng.index(environments.len());
        environments[place].strategy = match self.rng.range(0, 2) {
            0 => Strategy::Direct,
            1 => Strategy::Rolling { batch: 2 },
            _ => Strategy::BlueGreen,
        };
        if self.rng.chance(300) {
            environments[place].freezes.clear();
        }
        Command::Configure { environments }
    }

    fn decide(&mut self, state: &State, any: DeploymentId) -> Command {
        let waiting = state
            .deployments
            .values()
            .filter(|d| d.status == DeploymentStatus::PendingApproval);
        let deployment = waiting.map(|deployment| deployment.id).next().unwrap_or(any);
        Command::Decide {
            deployment,
            approve: self.rng.chance(800),
            by: (*self.rng.pick(&["boss", "boss", "chief", "chief", "dev"])).to_owned(),
            email: String::new(),
            reason: None,
        }
    }

    fn lift(&mut self, state: &State) -> Option<Command> {
        let held: Vec<_> = state
            .modules
            .iter()
            .flat_map(|(name, module)| module.holds.keys().map(move |digest| (name.clone(), *digest)))
            .collect();
        if held.is_empty() {
            return None;
        }
        let (module, digest) = self.rng.pick(&held).clone();
        Some(Command::LiftHold {
            module,
            digest,
            by: "op".to_owned(),
        })
    }

    fn deploy(&mut self, scenario: &Scenario) -> Command {
        let place = self.rng.index(scenario.modules.len());
        let module = &scenario.modules[place];
        let newest = module.releases.len() - 1;
        let next = self.versions.entry(place).or_insert(0);
        let version = if self.profile == Profile::Calm || self.rng.chance(750) {
            let version = (*next).min(newest);
            *next += 1;
            version
        } else {
            self.rng.index(module.releases.len())
        };
        let calm = self.profile == Profile::Calm;
        let seed = self.rng.bits();
        let target = self.rng.pick(&scenario.environments).name.clone();
        Command::Deploy(Box::new(DeployRequest {
            id: Self::id(),
            trace_id: String::new(),
            seed,
            module: module.name.clone(),
            version: module.releases[version].release.version.clone(),
            target,
            requester: "dev".to_owned(),
            requester_email: String::new(),
            require_approval: !calm && self.rng.chance(60),
            description: String::new(),
            metadata: BTreeMap::new(),
            allow_downgrade: self.rng.chance(300),
            supersede: !calm && self.rng.chance(200),
        }))
    }
}
