//! What a seed draws before anything runs: the fleet, its modules and how they behave, who asks for what, what breaks.

use std::collections::BTreeMap;

use hotswap_core::analysis::JudgePolicy;
use hotswap_core::freeze::FreezeWindow;
use hotswap_core::ids::{Digest, EnvName, ModuleName, NodeId, ReleaseRef};
use hotswap_core::policy::{Approvers, CanaryBy, Environment, OnInconclusive, RolloutPolicy, Strategy};
use hotswap_core::release::Kind;
use hotswap_core::time::Millis;

use crate::faults::{Fault, FaultSet, Planned};
use crate::rng::{Rng, Stream};
use crate::shape::Shape;

/// How wild a run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// Good releases only, nothing breaks, nobody interferes: all must succeed.
    Calm,
    /// Releases of all sorts; operators interfere; nothing breaks.
    Operators,
    /// Releases of all sorts; nodes, networks, disks and the server break; nobody interferes.
    Faults,
    /// Everything at once.
    Wild,
}

impl Profile {
    /// Whether machines and networks break.
    pub fn breaks(self) -> bool {
        matches!(self, Self::Faults | Self::Wild)
    }

    /// Whether operators do more than deploy.
    pub fn interferes(self) -> bool {
        matches!(self, Self::Operators | Self::Wild)
    }
}

/// How a release behaves. `one_in`: on one in so many nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Behaviour {
    /// Well.
    Good,
    /// The server's check of it fails.
    Refused,
    /// It does not load.
    LoadFails {
        /// On one in so many nodes.
        one_in: u64,
    },
    /// It loads only after so many ms.
    LoadsSlowly(u64),
    /// Its health turns so many ms after it was loaded.
    TurnsIll {
        /// When.
        after: u64,
        /// On one in so many nodes.
        one_in: u64,
    },
    /// Its health comes and goes.
    Flaps {
        /// How long each state lasts, in ms.
        period: u64,
    },
    /// It takes the whole process down so many ms after it got requests.
    Crashes {
        /// When.
        after: u64,
    },
    /// Where it is loaded into a kernel, its load is not over at its deadline.
    Stalls {
        /// On one in so many nodes.
        one_in: u64,
        /// Whether it can be taken back.
        reverses: bool,
    },
    /// Where it is loaded into a kernel, its load takes the machine down.
    TakesDown {
        /// On one in so many nodes.
        one_in: u64,
        /// Whether it hangs before that until the watchdog bites.
        hangs: bool,
    },
    /// Its smoke checks fail.
    SmokeFails {
        /// On one in so many nodes.
        one_in: u64,
    },
    /// It errs, but only under users' requests; per mille of them.
    Errs(u64),
    /// It answers so many times as slowly, under users' requests.
    Slow(u64),
}

/// One release.
#[derive(Clone, Debug)]
pub struct ReleasePlan {
    /// Its identity.
    pub release: ReleaseRef,
    /// How it behaves.
    pub behaviour: Behaviour,
}

/// One module.
#[derive(Clone, Debug)]
pub struct ModulePlan {
    /// Its name.
    pub name: ModuleName,
    /// Its kind.
    pub kind: Kind,
    /// Its releases, oldest first.
    pub releases: Vec<ReleasePlan>,
}

/// One node.
#[derive(Clone, Debug)]
pub struct NodePlan {
    /// Its identity.
    pub id: NodeId,
    /// The environment that it wants.
    pub environment: EnvName,
    /// Its zone.
    pub zone: String,
    /// When it is switched on, in ms.
    pub joins_at: u64,
    /// Users' requests of each module a second.
    pub rate: u64,
    /// How long it takes to fetch and to load, in ms.
    pub load_ms: u64,
    /// By how many millionths its clock is fast; slow where negative.
    pub drift: i64,
}

/// Everything drawn.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// How wild it is.
    pub profile: Profile,
    /// The environments.
    pub environments: Vec<Environment>,
    /// The nodes.
    pub nodes: Vec<NodePlan>,
    /// The modules.
    pub modules: Vec<ModulePlan>,
    /// Deployments that are asked for.
    pub deployments: u64,
    /// Which kinds of fault there are.
    pub faults: FaultSet,
    /// Faults at their moments, in order, each with its place among all that were drawn.
    pub planned: Vec<(usize, Planned)>,
    /// Until when operators act and things break, in ms.
    pub ends_at: u64,
    /// Within how many ms after that everything must have ended and converged.
    pub bound: u64,
}

/// The time between two reports of a node, in ms.
pub const HEARTBEAT: u64 = 900;
/// The time after which a node counts as silent, in ms.
pub const HEARTBEAT_TIMEOUT: u64 = 2_500;

/// How much faster or slower than the others a node's clock runs at most, in millionths: ten times what crystals do.
pub const DRIFT_MAX: u64 = 2_000;

/// How far a wall clock is off at most, in ms, either way.
pub const SKEW_MAX: u64 = 15_000;

impl Scenario {
    /// Draws one, and makes it as small as asked for: what stays is as it would be in the whole.
    pub fn draw(seed: u64, shape: &Shape) -> Self {
        let mut rng = Rng::new(seed, Stream::Scenario);
        let rng = &mut rng;
        let profile = *rng.pick(&[
            Profile::Calm,
            Profile::Operators,
            Profile::Faults,
            Profile::Wild,
            Profile::Wild,
        ]);
        let calm = profile == Profile::Calm;
        let names = ["Development", "QA", "Staging", "Production"];
        let first = rng.index(names.len());
        let mut environments: Vec<Environment> = names[first..]
            .iter()
            .map(|name| environment(name, calm, rng))
            .collect();
        let mut nodes = Vec::new();
        for environment in &environments {
            let count = match rng.range(0, 19) {
                0 => 0,
                1..=3 => 1,
                4..=8 => rng.range(2, 4),
                9..=17 => rng.range(5, 8),
                _ => rng.range(9, 16),
            };
            for _ in 0..count {
                let late = rng.chance(150);
                nodes.push(NodePlan {
                    id: format!("n{:02}", nodes.len())
                        .parse()
                        .expect("a literal node id is valid"),
                    environment: environment.name.clone(),
                    zone: format!("z{}", rng.range(0, 2)),
                    joins_at: if late && !calm {
                        rng.range(0, 15_000)
                    } else {
                        rng.range(0, 300)
                    },
                    rate: if calm {
                        1_500
                    } else {
                        *rng.pick(&[0, 50, 400, 1_500])
                    },
                    load_ms: rng.range(5, 400),
                    drift: 0,
                });
            }
        }
        let modules: Vec<ModulePlan> = (0..rng.range(1, 2)).map(|n| module(n, profile, rng)).collect();
        if modules.iter().any(|module| !module.kind.routes()) && rng.chance(800) {
            environments.iter_mut().for_each(by_nodes);
        }
        let deployments = rng.range(1, 5);
        let ends_at = rng.range(10_000, 30_000);
        let faults = if profile.breaks() {
            swarm(seed).without(shape.without)
        } else {
            FaultSet::NONE
        };
        if faults.has(Fault::Drift) {
            let mut rng = Rng::part(seed, Stream::Faults, Fault::Drift as u64 + 1);
            for node in &mut nodes {
                node.drift =
                    i64::try_from(rng.range(0, 2 * DRIFT_MAX)).expect("it is small") - DRIFT_MAX as i64;
            }
        }
        let mut scenario = Self {
            profile,
            environments,
            nodes,
            modules,
            deployments: shape
                .deployments
                .map_or(deployments, |most| deployments.min(most)),
            faults,
            planned: planned(seed, faults, ends_at, shape),
            ends_at: shape.until.map_or(ends_at, |most| ends_at.min(most)),
            bound: 0,
        };
        scenario.nodes.truncate(shape.nodes.unwrap_or(usize::MAX));
        if shape.good {
            let releases = scenario
                .modules
                .iter_mut()
                .flat_map(|module| &mut module.releases);
            releases.for_each(|release| release.behaviour = Behaviour::Good);
        }
        scenario.bound = scenario.bound();
        scenario
    }

    /// The stated bound of L1: every deployment, one after the other, takes all the time that it may, everywhere.
    fn bound(&self) -> u64 {
        let one: u64 = self
            .environments
            .iter()
            .map(|environment| self.bound_of(environment))
            .sum();
        (one + 20_000) * (2 * self.deployments + 1) + 120_000
    }

    fn bound_of(&self, environment: &Environment) -> u64 {
        let policy = &environment.policy;
        let nodes = self.nodes.len() as u64;
        let steps = match &environment.strategy {
            Strategy::Direct => 1,
            Strategy::Rolling { batch } => nodes.div_ceil(u64::from(*batch)),
            Strategy::BlueGreen => 2,
            Strategy::Canary { percents, .. } => percents.len() as u64,
        };
        let step = policy.step_deadline.0 + policy.silence_max.0 + policy.settle.0 + policy.soak_max.0;
        // What expires by wall time lasts longer where the clock was set back meanwhile.
        let skew = 2 * SKEW_MAX;
        (steps + 1) * (step + policy.hold_expiry.0 + skew)
            + policy.back_deadline.0
            + policy.pause_expiry.0
            + environment.approval_timeout.0
            + environment
                .freezes
                .iter()
                .map(|freeze| freeze.lasts.0 + skew)
                .sum::<u64>()
            + 2 * skew
    }

    /// A release's plan by its digest, under whatever configuration.
    pub fn release(&self, digest: &Digest) -> Option<&ReleasePlan> {
        self.modules
            .iter()
            .flat_map(|module| &module.releases)
            .find(|plan| plan.release.digest.config_of(digest).is_some())
    }
}

/// Which kinds of fault a run has: in some few, in some most, so that the rare ones are also seen alone.
fn swarm(seed: u64) -> FaultSet {
    let mut rng = Rng::new(seed, Stream::Swarm);
    let share = *rng.pick(&[120, 250, 500]);
    Fault::ALL.iter().copied().filter(|_| rng.chance(share)).collect()
}

/// Draws the faults that have their moment, each kind from numbers of its own.
fn planned(seed: u64, faults: FaultSet, ends_at: u64, shape: &Shape) -> Vec<(usize, Planned)> {
    let mut planned = Vec::new();
    for fault in Fault::ALL.iter().copied().filter(|fault| fault.is_planned()) {
        let mut rng = Rng::part(seed, Stream::Faults, fault as u64 + 1);
        let most = match fault {
            Fault::Restore | Fault::LongCut => 1,
            Fault::NodeCrash | Fault::Reset => 5,
            _ => 3,
        };
        for _ in 0..rng.range(1, most) {
            let at = rng.range(500, ends_at);
            let (whom, extent) = (rng.range(0, 1 << 32), rng.range(0, 1_000));
            planned.push(Planned {
                at,
                fault,
                whom,
                extent,
            });
        }
    }
    planned.sort_by_key(|planned| planned.at);
    let kept = |(place, planned): &(usize, Planned)| {
        faults.has(planned.fault)
            && shape.planned.as_ref().is_none_or(|kept| kept.contains(place))
            && shape.until.is_none_or(|until| planned.at <= until)
    };
    planned.into_iter().enumerate().filter(kept).collect()
}

fn environment(name: &str, calm: bool, rng: &mut Rng) -> Environment {
    let by = *rng.pick(&[CanaryBy::Nodes, CanaryBy::Traffic]);
    let percents = rng
        .pick(&[&[10_u8, 30, 50, 100][..], &[50, 100], &[100], &[1, 99, 100]])
        .to_vec();
    let strategy = match rng.range(0, 9) {
        0 | 1 => Strategy::Direct,
        2 | 3 => Strategy::Rolling {
            batch: u32::try_from(rng.range(1, 3)).expect("it is small"),
        },
        4 | 5 => Strategy::BlueGreen,
        _ => Strategy::Canary { by, percents },
    };
    let ms = |rng: &mut Rng, low, high| Millis(rng.range(low, high));
    let soak_min = ms(rng, 300, 2_500);
    let small = |rng: &mut Rng, high| u32::try_from(rng.range(0, high)).expect("it is small");
    let policy = RolloutPolicy {
        max_unavailable: small(rng, 3),
        max_failed: small(rng, 2),
        settle: ms(rng, 100, 800),
        step_deadline: ms(rng, 5_000, 12_000),
        silence_max: ms(rng, 2_600, 4_000),
        soak_min,
        soak_max: if calm {
            Millis(1_200_000)
        } else {
            soak_min + ms(rng, 4_000, 12_000)
        },
        on_inconclusive: *rng.pick(&[
            OnInconclusive::Hold,
            OnInconclusive::Promote,
            OnInconclusive::RollBack,
        ]),
        interval: ms(rng, 400, 900),
        control_percent: *rng.pick(&[20, 50, 50]),
        probes_per_interval: if calm { 12 } else { small(rng, 12) },
        back_deadline: ms(rng, 2_000, 6_000),
        hold_expiry: ms(rng, 4_000, 12_000),
        pause_expiry: ms(rng, 3_000, 10_000),
        judge: JudgePolicy::default(),
        judge_modules: BTreeMap::new(),
    };
    Environment {
        name: name.parse().expect("a literal environment name is valid"),
        strategy,
        policy,
        approval_required: !calm && rng.chance(100),
        approval_timeout: ms(rng, 3_000, 8_000),
        approvers: Approvers {
            needed: if !calm && rng.chance(300) { 2 } else { 1 },
            subjects: Vec::new(),
        },
        freezes: (!calm && rng.chance(60))
            .then(|| freeze(rng.range(0, 1)))
            .into_iter()
            .collect(),
    }
}

/// What kinds that don't route can be rolled out by: they are refused where a canary goes by traffic.
fn by_nodes(environment: &mut Environment) {
    if let Strategy::Canary { by, .. } = &mut environment.strategy {
        *by = CanaryBy::Nodes;
    }
}

/// A window that is on when a run begins, at 22:13:20 by its wall clock, or one that begins 40 s later.
fn freeze(later: u64) -> FreezeWindow {
    let starts = format!("{} 22 * * *", 13 + later);
    FreezeWindow {
        name: "evening".to_owned(),
        starts: starts.parse().expect("a literal schedule is valid"),
        lasts: Millis(60_000),
        reason: String::new(),
    }
}

fn module(n: u64, profile: Profile, rng: &mut Rng) -> ModulePlan {
    let calm = profile == Profile::Calm;
    let kind = if !calm && rng.chance(120) {
        *rng.pick(&[Kind::Ebpf, Kind::Kernel])
    } else {
        *rng.pick(&[Kind::Wasm, Kind::Process])
    };
    let releases = (1..=rng.range(2, 5)).map(|version| {
        let mut digest = [0; 32];
        digest[0] = u8::try_from(n + 1).expect("there are few modules");
        digest[1] = u8::try_from(version).expect("there are few versions");
        let release = ReleaseRef {
            version: semver::Version::new(version, 0, 0),
            digest: Digest(digest),
            config: 0,
        };
        let behaviour = if calm || (version == 1 && rng.chance(800)) {
            Behaviour::Good
        } else if kind == Kind::Kernel && rng.chance(400) {
            at_loading(rng)
        } else {
            behaviour(rng)
        };
        ReleasePlan { release, behaviour }
    });
    ModulePlan {
        name: format!("mod-{n}")
            .parse()
            .expect("a literal module name is valid"),
        kind,
        releases: releases.collect(),
    }
}

fn behaviour(rng: &mut Rng) -> Behaviour {
    let one_in = *rng.pick(&[1, 1, 3, 8]);
    match rng.range(0, 19) {
        0 => Behaviour::Refused,
        1 | 2 => Behaviour::LoadFails { one_in },
        3 => Behaviour::LoadsSlowly(rng.range(1_000, 20_000)),
        4..=6 => Behaviour::TurnsIll {
            after: rng.range(1, 3_000),
            one_in,
        },
        7 => Behaviour::Flaps {
            period: rng.range(50, 1_500),
        },
        8 => Behaviour::Crashes {
            after: rng.range(1, 2_000),
        },
        9 => Behaviour::SmokeFails { one_in },
        10..=12 => Behaviour::Errs(rng.range(100, 600)),
        13 => Behaviour::Slow(rng.range(6, 20)),
        _ => Behaviour::Good,
    }
}

/// How a release that is loaded into a kernel may go wrong as it is.
fn at_loading(rng: &mut Rng) -> Behaviour {
    let one_in = *rng.pick(&[1, 1, 3, 8]);
    if rng.chance(500) {
        Behaviour::Stalls {
            one_in,
            reverses: rng.chance(700),
        }
    } else {
        Behaviour::TakesDown {
            one_in,
            hangs: rng.chance(300),
        }
    }
}
