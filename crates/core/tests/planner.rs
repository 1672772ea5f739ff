//! The planner as a specification: bounds of every step, progress that never turns, idempotence, late joiners, and
//! independence of what has nothing to do with each other. The world checks the invariants at every event by itself.

mod support;

use std::collections::BTreeMap;

use hotswap_core::command::{Command, DeployRequest};
use hotswap_core::decide::{self, Input};
use hotswap_core::desired::desired;
use hotswap_core::event::Event;
use hotswap_core::ids::{DeploymentId, Digest, EnvName, ModuleName, NodeId};
use hotswap_core::policy::{Approvers, CanaryBy, Environment, RolloutPolicy, Strategy as Way};
use hotswap_core::reconcile::NodeInput;
use hotswap_core::release::{Kind, Release};
use hotswap_core::rollout::{Phase, Rollout};
use hotswap_core::stage::DeploymentStatus;
use hotswap_core::time::{Millis, WallTime};
use proptest::prelude::*;
use support::node::Traffic;
use support::world::World;

const TICK: Millis = Millis(500);
/// Within so many ticks a deployment without faults has ended.
const TICKS_MAX: usize = 20_000;
const MODULES: [&str; 2] = ["payments", "search"];

fn way() -> impl Strategy<Value = Way> {
    let percents = prop::collection::btree_set(1..100_u8, 0..4).prop_map(|mut percents| {
        percents.insert(100);
        percents.into_iter().collect()
    });
    prop_oneof![
        Just(Way::Direct),
        (1..5_u32).prop_map(|batch| Way::Rolling { batch }),
        Just(Way::BlueGreen),
        (prop::bool::ANY, percents).prop_map(|(nodes, percents)| Way::Canary {
            by: if nodes { CanaryBy::Nodes } else { CanaryBy::Traffic },
            percents,
        }),
    ]
}

fn module(place: usize) -> ModuleName {
    MODULES[place].parse().unwrap()
}

fn digest(module: usize, version: u64) -> Digest {
    let (module, version) = (u8::try_from(module).unwrap(), u8::try_from(version).unwrap());
    Digest([16 * (module + 1) + version; 32])
}

/// One environment with so many nodes, and three releases of each module.
fn world(way: Way, nodes: usize) -> World {
    let environment = Environment {
        name: "Production".parse().unwrap(),
        strategy: way,
        policy: RolloutPolicy {
            settle: Millis(1_000),
            soak_min: Millis(3_000),
            // Probes alone must be able to pass a step.
            soak_max: Millis::from_secs(3_600),
            interval: Millis(1_000),
            ..RolloutPolicy::default()
        },
        approval_required: false,
        approval_timeout: Millis(60_000),
        approvers: Approvers::default(),
        freezes: Vec::new(),
    };
    let name = environment.name.clone();
    let mut world = World::new(vec![environment]);
    let traffic = Traffic {
        per_second: 300.0,
        ..Traffic::default()
    };
    world.traffic.insert(name.clone(), traffic);
    for i in 0..nodes {
        world.add(&format!("n-{i}"), &name, ["a", "b", "c"][i % 3]);
    }
    world.tick(TICK);
    for place in 0..MODULES.len() {
        for version in 1..=3 {
            let release = Release {
                digest: digest(place, version),
                kind: Kind::Wasm,
                size: 1,
                pushed_at: WallTime(0),
                pushed_by: "paul".to_owned(),
                signed_by: None,
                needs: Vec::new(),
            };
            let (module, version) = (module(place), semver::Version::new(version, 0, 0));
            world
                .command(Command::PushRelease {
                    module,
                    version,
                    release,
                })
                .unwrap();
        }
    }
    world
}

fn request(world: &mut World, place: usize, version: u64) -> DeployRequest {
    DeployRequest {
        id: DeploymentId(world.next_id()),
        trace_id: "0".repeat(32),
        seed: 7,
        module: module(place),
        version: semver::Version::new(version, 0, 0),
        target: environment(),
        requester: "dora".to_owned(),
        requester_email: String::new(),
        require_approval: false,
        description: String::new(),
        metadata: BTreeMap::new(),
        allow_downgrade: false,
        supersede: false,
    }
}

fn environment() -> EnvName {
    "Production".parse().unwrap()
}

fn deploy(world: &mut World, place: usize, version: u64) -> DeploymentId {
    let request = request(world, place, version);
    let id = request.id;
    world.command(Command::Deploy(Box::new(request))).unwrap();
    id
}

/// Ticks until all has ended, looking in between.
fn to_the_end(world: &mut World, mut look: impl FnMut(&World)) {
    for _ in 0..TICKS_MAX {
        if world.state.deployments.is_empty() {
            return;
        }
        world.tick(TICK);
        look(world);
    }
    panic!("it never ends: {:?}", world.state.deployments);
}

fn rollout(world: &World, place: usize) -> Option<&Rollout> {
    world
        .state
        .env_module(&environment(), &module(place))?
        .rollout
        .as_deref()
}

/// How far a rollout is: its step, its cohort and the candidate's share; all of it only grows.
fn progress(rollout: &Rollout) -> (u32, usize, u8) {
    let step = match rollout.phase {
        Phase::Forward { step, .. } => step,
        Phase::Validating { .. } => u32::MAX - 1,
        Phase::Back { .. } => u32::MAX,
    };
    (step, rollout.cohort.len(), rollout.weights().0)
}

/// What happened to a module, without names, numbers and times.
fn outline(world: &World, place: usize) -> Vec<String> {
    let ours = module(place);
    let lines = world.log.iter().filter_map(|logged| match &logged.event {
        Event::RolloutStarted { plan } if plan.module == ours => Some(format!(
            "{} nodes in {} steps",
            plan.order.len(),
            plan.steps.len()
        )),
        Event::StepStarted { key, step, joins } if key.module == ours => {
            Some(format!("step {step} with {} more", joins.len()))
        }
        Event::StepCompleted { key, step, .. } if key.module == ours => Some(format!("step {step} is done")),
        Event::StableSet { key, release, .. } if key.module == ours => Some(format!("{release:?} is stable")),
        Event::RolloutEnded { key, kept, .. } if key.module == ours => Some(format!("it ends, kept: {kept}")),
        _ => None,
    });
    lines.collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    /// While a step runs its cohort is no larger than its share of the roster, rounded up, and nobody is told to give
    /// the candidate more requests than the step's weight.
    #[test]
    fn a_running_step_stays_in_its_bounds(way in way(), nodes in 1..12_usize, two: bool) {
        let mut world = world(way, nodes);
        for version in 1..=if two { 2 } else { 1 } {
            deploy(&mut world, 0, version);
            to_the_end(&mut world, |world| {
                let Some(rollout) = rollout(world, 0) else { return };
                let Some(effect) = rollout.effect else {
                    assert!(rollout.cohort.is_empty());
                    return;
                };
                let step = &rollout.plan.steps[effect.step as usize];
                assert!(rollout.cohort.len() <= step.upto as usize, "{:?} in {step:?}", rollout.cohort);
                let told = world.state.nodes.keys().filter(|node| {
                    let spec = desired(&world.state, node).unwrap();
                    let routes = spec.modules.get(&module(0)).map_or(&[][..], |module| &module.routes);
                    routes.iter().any(|(served, _)| *served == digest(0, version))
                });
                assert!(told.count() <= step.upto as usize);
                let base = rollout.plan.base.is_some();
                let validating = matches!(rollout.phase, Phase::Validating { .. });
                assert!(!base || validating || step.preview || rollout.weights().0 <= step.weight);
            });
        }
    }

    /// Without faults progress never turns: steps, cohort and share only grow, and the end is success.
    #[test]
    fn progress_is_monotone(way in way(), nodes in 1..12_usize) {
        let mut world = world(way, nodes);
        for version in 1..=2 {
            let id = deploy(&mut world, 0, version);
            let mut before = (0, 0, 0);
            to_the_end(&mut world, |world| {
                let Some(rollout) = rollout(world, 0) else { return };
                let now = progress(rollout);
                assert!(now.0 >= before.0 && now.1 >= before.1, "{before:?} and then {now:?}");
                // A preview gives nobody requests, whatever came before it.
                assert!(now.2 >= before.2 || rollout.plan.strategy == "BlueGreen", "{before:?} and then {now:?}");
                before = now;
            });
            prop_assert_eq!(world.state.finished[&id].status, DeploymentStatus::Succeeded);
        }
    }

    /// Asked again with nothing changed, the planner plans nothing; the same question has the same answer; the same
    /// spec makes a node do nothing; the same deployment can't be asked for twice.
    #[test]
    fn everything_is_idempotent(way in way(), nodes in 1..8_usize, ticks in 0..60_usize) {
        let mut world = world(way, nodes);
        let asked = request(&mut world, 0, 1);
        world.command(Command::Deploy(Box::new(asked.clone()))).unwrap();
        for _ in 0..ticks {
            world.tick(TICK);
        }
        let tick = || decide::decide(&world.state, &world.obs, Input::Tick, world.now).events;
        prop_assert_eq!(tick(), vec![], "the world had settled");
        let again = Input::Command(Box::new(Command::Deploy(Box::new(asked))));
        let decision = decide::decide(&world.state, &world.obs, again, world.now);
        prop_assert!(decision.events.is_empty() && decision.reply.unwrap().is_err());
        let now = world.now.core;
        for (id, machine) in &mut world.machines {
            let spec = desired(&world.state, id).unwrap();
            let once_more = desired(&world.state, id);
            prop_assert_eq!(Some(&spec), once_more.as_ref());
            if machine.reconciler().ledger().spec.as_deref() == Some(&spec) {
                let before = machine.reconciler().ledger().clone();
                machine.input(NodeInput::Spec(spec), now);
                prop_assert_eq!(&before, machine.reconciler().ledger(), "{}", id);
            }
        }
    }

    /// Who joins while a rollout runs gets what is stable, enters with the last step, and ends on the candidate.
    #[test]
    fn late_joiners_enter_last(way in way(), nodes in 2..9_usize, joins_after in 0..40_usize) {
        let mut world = world(way, nodes);
        deploy(&mut world, 0, 1);
        to_the_end(&mut world, |_| {});
        deploy(&mut world, 0, 2);
        for _ in 0..joins_after {
            world.tick(TICK);
        }
        let late: NodeId = "late".parse().unwrap();
        world.add("late", &environment(), "a");
        to_the_end(&mut world, |world| {
            let (Some(rollout), Some(spec)) = (rollout(world, 0), desired(&world.state, &late)) else { return };
            let on_roster = rollout.plan.order[..nodes].contains(&late);
            let last = rollout.effect.is_some_and(|effect| effect.step == rollout.last_step());
            if !on_roster && !last {
                assert!(!rollout.cohort.contains(&late), "it is in before the last step");
                let served = spec.modules.get(&module(0)).map_or(&[][..], |module| &module.routes);
                assert!(served.iter().all(|(served, _)| *served == digest(0, 1)), "{served:?}");
            }
        });
        for _ in 0..60 {
            world.tick(TICK);
        }
        let served = &world.machines[&late].reconciler().statuses()[&module(0)].routes;
        prop_assert_eq!(served, &vec![(digest(0, 2), 100)]);
    }

    /// Two modules have nothing to do with each other: each goes the way that it goes alone, in whatever order they
    /// were asked for.
    #[test]
    fn independent_deployments_commute(way in way(), nodes in 1..8_usize, pause in 0..30_usize) {
        let alone: Vec<Vec<String>> = (0..2)
            .map(|place| {
                let mut world = world(way.clone(), nodes);
                deploy(&mut world, place, 1);
                to_the_end(&mut world, |_| {});
                outline(&world, place)
            })
            .collect();
        for order in [[0, 1], [1, 0]] {
            let mut world = world(way.clone(), nodes);
            deploy(&mut world, order[0], 1);
            for _ in 0..pause {
                world.tick(TICK);
            }
            deploy(&mut world, order[1], 1);
            to_the_end(&mut world, |_| {});
            for place in 0..2 {
                prop_assert_eq!(&outline(&world, place), &alone[place], "{}", MODULES[place]);
            }
        }
    }
}

/// However small the share of the stable release, it is no reason to find an equal one worse.
#[test]
fn a_sliver_of_control_is_no_harm() {
    for nodes in 1..12 {
        for sliver in 1..=5 {
            let way = Way::Canary {
                by: CanaryBy::Traffic,
                percents: vec![100 - sliver, 100],
            };
            let mut world = world(way, nodes);
            for version in 1..=2 {
                let id = deploy(&mut world, 0, version);
                to_the_end(&mut world, |_| {});
                let ended = &world.state.finished[&id];
                let what = format!("{sliver} % of {nodes} nodes' requests: {:?}", ended.message);
                assert_eq!(ended.status, DeploymentStatus::Succeeded, "{what}");
            }
        }
    }
}
