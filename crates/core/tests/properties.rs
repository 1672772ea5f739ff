//! What holds whatever is asked and whatever breaks. The world checks the invariants at every event by itself.

mod support;

use hotswap_core::apply::apply;
use hotswap_core::command::{Command, DeployRequest};
use hotswap_core::event::{Event, Logged};
use hotswap_core::ids::{DeploymentId, EnvName, ModuleName, NodeId, ReleaseRef};
use hotswap_core::invariants::settled::{l2_converges, l3_quiet};
use hotswap_core::policy::{
    CanaryBy, Environment, OnInconclusive, RolloutPolicy, STEPS_MAX, Strategy as Way,
};
use hotswap_core::release::{Kind, Release};
use hotswap_core::stage::DeploymentStatus;
use hotswap_core::state::State;
use hotswap_core::strategy::{Setting, draw_order, steps};
use hotswap_core::time::{Millis, WallTime};
use proptest::prelude::*;
use support::node::Traffic;
use support::world::{World, fold};

const TICK: Millis = Millis(500);
/// Every deployment of a property has ended so long after the last fault: dozens may queue, each held to the end.
const END_MAX: Millis = Millis::from_secs(6 * 3_600);
const VERSIONS: u64 = 4;
const NODES: [(&str, usize); 3] = [("Direct", 3), ("Steps", 4), ("Canary", 6)];

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

proptest! {
    /// Steps grow, end with everyone, and never give the candidate more than the strategy's share.
    #[test]
    fn steps_are_monotone_and_bounded(way in way(), nodes in 1..400_usize, routes: bool, has_base: bool) {
        let policy = RolloutPolicy::default();
        let setting = Setting { nodes, routes, has_base, policy: &policy };
        let planned = steps(&way, setting);
        prop_assert_eq!(&planned, &steps(&way, setting), "equal inputs, equal outputs");
        prop_assert!(!planned.is_empty() && planned.len() <= STEPS_MAX);
        prop_assert_eq!(planned.last().unwrap().upto as usize, nodes);
        for pair in planned.windows(2) {
            prop_assert!(pair[0].upto <= pair[1].upto && pair[0].weight <= pair[1].weight);
            prop_assert!(pair[0] != pair[1], "steps with equal cohorts merge");
        }
        for step in &planned {
            prop_assert!(step.upto >= 1 && step.upto as usize <= nodes);
            prop_assert!(has_base || step.preview || step.weight == 100, "nothing else could serve the rest");
            prop_assert!(routes || step.preview || step.weight == 100, "weights need requests");
        }
        if let Way::Canary { by: CanaryBy::Nodes, percents } = &way && !(routes && nodes < 5) {
            for (step, at) in planned.iter().zip(1..) {
                let allowed = percents.iter().map(|&percent| (nodes * usize::from(percent)).div_ceil(100));
                prop_assert!(allowed.clone().any(|share| share == step.upto as usize), "step {at}");
            }
        }
    }

    /// The drawn order is the roster, and each prefix holds each stratum in about its share.
    #[test]
    fn prefixes_are_stratified(zones in prop::collection::vec(0..4_usize, 1..200), seed: u64) {
        let names = ["a", "b", "c", "d"];
        let ids: Vec<NodeId> = (0..zones.len()).map(|i| format!("n-{i}").parse().unwrap()).collect();
        let roster = || ids.iter().zip(&zones).map(|(id, &zone)| (id, names[zone]));
        let order = draw_order(roster(), seed);
        prop_assert_eq!(&order, &draw_order(roster(), seed), "equal inputs, equal outputs");
        let mut sorted = order.clone();
        sorted.sort();
        let mut all = ids.clone();
        all.sort();
        prop_assert_eq!(sorted, all);
        let strata = names.len() as f64;
        for (zone, name) in names.iter().enumerate() {
            let members = zones.iter().filter(|&&of| of == zone).count() as f64;
            let mut seen = 0.0;
            for (k, node) in order.iter().enumerate() {
                let place = ids.iter().position(|id| id == node).unwrap();
                seen += f64::from(u8::from(zones[place] == zone));
                let share = members * (k + 1) as f64 / zones.len() as f64;
                prop_assert!((seen - share).abs() <= 1.0 + strata / 2.0, "{name}: {seen} of {share} at {k}");
            }
        }
    }
}

/// Something that is asked, or breaks.
#[derive(Clone, Debug)]
enum Op {
    Deploy {
        version: u64,
        target: usize,
        downgrade: bool,
        supersede: bool,
    },
    RollBack(usize),
    Abort(usize),
    Pause(usize),
    Resume(usize),
    Skip(usize),
    Promote(usize),
    Hold(u64),
    LiftHold(u64),
    Undeploy(usize),
    Configure(usize, Way),
    Move(usize, usize),
    Remove(usize),
    Silent(usize),
    Hangs(usize),
    Returns(usize),
    RestartNode(usize),
    RestartServer(u64),
    Sick(usize, u64),
    FailsLoad(usize, u64),
    FailsSmoke(usize, u64),
    Mend(usize),
    Errors(usize, u8),
    Wait(u64),
}

fn op() -> impl Strategy<Value = Op> {
    let nodes: usize = NODES.iter().map(|(_, n)| n).sum();
    let node = move || 0..nodes;
    let env = || 0..NODES.len();
    let version = || 0..VERSIONS;
    prop_oneof![
        6 => (version(), env(), prop::bool::ANY, prop::bool::ANY).prop_map(|(version, target, downgrade, supersede)| {
            Op::Deploy { version, target, downgrade, supersede }
        }),
        2 => (0..8_usize).prop_map(Op::RollBack),
        1 => (0..8_usize).prop_map(Op::Abort),
        1 => (0..8_usize).prop_map(Op::Pause),
        1 => (0..8_usize).prop_map(Op::Resume),
        1 => (0..8_usize).prop_map(Op::Skip),
        1 => (0..8_usize).prop_map(Op::Promote),
        1 => version().prop_map(Op::Hold),
        2 => version().prop_map(Op::LiftHold),
        1 => env().prop_map(Op::Undeploy),
        1 => (env(), way()).prop_map(|(env, way)| Op::Configure(env, way)),
        1 => (node(), env()).prop_map(|(node, env)| Op::Move(node, env)),
        1 => node().prop_map(Op::Remove),
        2 => node().prop_map(Op::Silent),
        1 => node().prop_map(Op::Hangs),
        3 => node().prop_map(Op::Returns),
        2 => node().prop_map(Op::RestartNode),
        1 => (0..30_u64).prop_map(Op::RestartServer),
        2 => (node(), version()).prop_map(|(node, version)| Op::Sick(node, version)),
        1 => (node(), version()).prop_map(|(node, version)| Op::FailsLoad(node, version)),
        1 => (node(), version()).prop_map(|(node, version)| Op::FailsSmoke(node, version)),
        2 => node().prop_map(Op::Mend),
        1 => (env(), 0..30_u8).prop_map(|(env, percent)| Op::Errors(env, percent)),
        14 => (1..40_u64).prop_map(Op::Wait),
    ]
}

fn module() -> ModuleName {
    "payments".parse().unwrap()
}

fn release(version: u64) -> ReleaseRef {
    let digest = hotswap_core::ids::Digest([u8::try_from(version + 1).unwrap(); 32]);
    ReleaseRef {
        version: semver::Version::new(1, version, 0),
        digest,
        config: 0,
    }
}

fn environments(max_failed: u32, on_inconclusive: OnInconclusive) -> Vec<Environment> {
    let policy = RolloutPolicy {
        max_failed,
        on_inconclusive,
        settle: Millis(1_000),
        soak_min: Millis(3_000),
        soak_max: Millis(20_000),
        interval: Millis(1_000),
        silence_max: Millis(8_000),
        step_deadline: Millis(15_000),
        hold_expiry: Millis(60_000),
        pause_expiry: Millis(60_000),
        back_deadline: Millis(10_000),
        ..RolloutPolicy::default()
    };
    let ways = [
        Way::Direct,
        Way::BlueGreen,
        Way::Canary {
            by: CanaryBy::Nodes,
            percents: vec![20, 50, 100],
        },
    ];
    let names = NODES.iter().map(|(name, _)| name.parse().unwrap());
    let environment = |(name, strategy)| Environment {
        name,
        strategy,
        policy: policy.clone(),
        approval_required: false,
        approval_timeout: Millis(60_000),
        approvers: hotswap_core::policy::Approvers::default(),
        freezes: Vec::new(),
    };
    names.zip(ways).map(environment).collect()
}

/// A fleet with four releases pushed.
fn world(max_failed: u32, on_inconclusive: OnInconclusive) -> World {
    let mut world = World::new(environments(max_failed, on_inconclusive));
    world.check_time = Millis(500);
    for (name, count) in NODES {
        let environment: EnvName = name.parse().unwrap();
        let traffic = Traffic {
            per_second: 300.0,
            ..Traffic::default()
        };
        world.traffic.insert(environment.clone(), traffic);
        for i in 0..count {
            world.add(
                &format!("{}-{i}", name.to_lowercase()),
                &environment,
                ["a", "b"][i % 2],
            );
        }
    }
    world.tick(TICK);
    for version in 0..VERSIONS {
        let ReleaseRef { version, digest, .. } = release(version);
        let (pushed_at, pushed_by) = (WallTime(0), "paul".to_owned());
        let release = Release {
            digest,
            kind: Kind::Wasm,
            size: 1,
            pushed_at,
            pushed_by,
            signed_by: None,
            needs: Vec::new(),
        };
        world
            .command(Command::PushRelease {
                module: module(),
                version,
                release,
            })
            .unwrap();
    }
    world
}

fn node(index: usize) -> NodeId {
    let all = NODES
        .iter()
        .flat_map(|(name, count)| (0..*count).map(move |i| (name, i)));
    let (name, i) = all.into_iter().nth(index).unwrap();
    format!("{}-{i}", name.to_lowercase()).parse().unwrap()
}

fn environment(index: usize) -> EnvName {
    NODES[index].0.parse().unwrap()
}

/// One of the deployments there were, the newest first.
fn deployment(world: &World, back: usize) -> DeploymentId {
    DeploymentId(uuid::Uuid::from_u128(world.ids().saturating_sub(back as u128)))
}

fn deploy(world: &mut World, version: u64, target: usize, downgrade: bool, supersede: bool) {
    let id = DeploymentId(world.next_id());
    let request = DeployRequest {
        id,
        trace_id: "0".repeat(32),
        seed: world.state.seq,
        module: module(),
        version: release(version).version,
        target: environment(target),
        requester: "dora".to_owned(),
        requester_email: "dora@example.com".to_owned(),
        require_approval: false,
        description: String::new(),
        metadata: Default::default(),
        allow_downgrade: downgrade,
        supersede,
    };
    let _ = world.command(Command::Deploy(Box::new(request)));
}

fn wait(world: &mut World, time: Millis) {
    let end = world.now.core + time;
    while world.now.core < end {
        world.tick(TICK);
    }
}

fn ask(world: &mut World, command: Command) {
    // A server that is down answers nobody.
    if world.down_until.is_none() {
        // Refusals are fine: they change nothing, which the log's fold shows.
        let before = world.log.len();
        if world.command(command).is_err() {
            assert_eq!(before, world.log.len(), "a refusal changes nothing");
        }
    }
}

fn carry_out(world: &mut World, op: Op) {
    let by = || "olga".to_owned();
    let trace_id = || "0".repeat(32);
    let now = world.now.core;
    match op {
        Op::Deploy {
            version,
            target,
            downgrade,
            supersede,
        } => {
            if world.down_until.is_none() {
                deploy(world, version, target, downgrade, supersede);
            }
        }
        Op::RollBack(n) => {
            let (deployment, id) = (deployment(world, n), DeploymentId(world.next_id()));
            ask(
                world,
                Command::RollBack {
                    deployment,
                    id,
                    trace_id: trace_id(),
                    by: by(),
                },
            );
        }
        Op::Undeploy(n) => {
            let (id, environment) = (DeploymentId(world.next_id()), environment(n));
            let (trace_id, by, module) = (trace_id(), by(), module());
            ask(
                world,
                Command::Undeploy {
                    id,
                    trace_id,
                    module,
                    environment,
                    by,
                },
            );
        }
        Op::Abort(n) => ask(
            world,
            Command::Abort {
                deployment: deployment(world, n),
                by: by(),
            },
        ),
        Op::Pause(n) => ask(
            world,
            Command::Pause {
                deployment: deployment(world, n),
                by: by(),
            },
        ),
        Op::Resume(n) => ask(
            world,
            Command::Resume {
                deployment: deployment(world, n),
                by: by(),
            },
        ),
        Op::Skip(n) => ask(
            world,
            Command::SkipStep {
                deployment: deployment(world, n),
                by: by(),
            },
        ),
        Op::Promote(n) => ask(
            world,
            Command::Promote {
                deployment: deployment(world, n),
                by: by(),
            },
        ),
        Op::Hold(n) => {
            let reason = "a leak".to_owned();
            ask(
                world,
                Command::Hold {
                    module: module(),
                    release: release(n),
                    reason,
                    by: by(),
                },
            );
        }
        Op::LiftHold(n) => {
            ask(
                world,
                Command::LiftHold {
                    module: module(),
                    digest: release(n).digest,
                    by: by(),
                },
            );
        }
        Op::Configure(n, way) => {
            let mut environments = world.state.environments.clone();
            environments[n].strategy = way;
            ask(world, Command::Configure { environments });
        }
        Op::Move(n, to) => {
            ask(
                world,
                Command::MoveNode {
                    node: node(n),
                    environment: environment(to),
                    by: by(),
                },
            );
        }
        Op::Remove(n) => ask(
            world,
            Command::RemoveNode {
                node: node(n),
                by: by(),
            },
        ),
        Op::RestartServer(seconds) => world.restart_server(Millis::from_secs(seconds)),
        Op::Errors(n, percent) => {
            let environment = environment(n);
            for machine in world
                .machines
                .values_mut()
                .filter(|m| m.environment == environment)
            {
                machine.traffic.candidate.error_percent = f64::from(percent);
            }
        }
        Op::Wait(seconds) => wait(world, Millis::from_secs(seconds)),
        Op::Silent(n) => machine(world, n).reachable = false,
        Op::Hangs(n) => machine(world, n).hung = true,
        Op::Returns(n) => {
            let machine = machine(world, n);
            (machine.reachable, machine.hung) = (true, false);
        }
        Op::RestartNode(n) => machine(world, n).restart(now),
        Op::Sick(n, v) => machine(world, n).sicken(&module(), release(v).digest, "it trapped", now),
        Op::FailsLoad(n, v) => {
            machine(world, n)
                .faults
                .load
                .insert(release(v).digest, "out of memory".to_owned());
        }
        Op::FailsSmoke(n, v) => {
            let fault = (None, "GET /health: 500".to_owned());
            machine(world, n).faults.smoke.insert(release(v).digest, fault);
        }
        Op::Mend(n) => machine(world, n).mend(now),
    }
}

fn machine(world: &mut World, n: usize) -> &mut support::node::Machine {
    world.machines.get_mut(&node(n)).unwrap()
}

/// No fault any more: everything ends, everyone converges, and then it is quiet.
fn comes_to_rest(world: &mut World) {
    let now = world.now.core;
    for machine in world.machines.values_mut() {
        (machine.reachable, machine.hung) = (true, false);
        machine.mend(now);
        machine.traffic.candidate.error_percent = 0.0;
    }
    let end = world.now.core + END_MAX;
    while !world.state.deployments.is_empty() || world.down_until.is_some() {
        assert!(world.now.core < end, "L1: {:?}", world.state.deployments);
        world.tick(TICK);
    }
    // A failed load is tried again within a minute.
    wait(world, Millis::from_secs(75));
    for (id, machine) in &world.machines {
        let statuses = machine.reconciler().statuses();
        let routes = |module: &ModuleName| {
            statuses
                .get(module)
                .map_or(Vec::new(), |status| status.routes.clone())
        };
        if let Err(violation) = l2_converges(&world.state, id, routes) {
            panic!("{violation}");
        }
        assert!(machine.alarms.is_empty(), "{id}: {:?}", machine.alarms);
    }
    let events = world.log.len();
    wait(world, Millis::from_secs(30));
    assert_eq!(
        events,
        world.log.len(),
        "L3: at rest nothing happens: {:?}",
        world.log.last()
    );
    l3_quiet(&world.state, &world.obs, world.now).unwrap();
}

/// From a snapshot taken anywhere, the rest of the log leads to the same State.
fn folds_from_anywhere(log: &[Logged], state: &State, at: usize) {
    let (head, tail) = log.split_at(at % (log.len() + 1));
    let snapshot = serde_json::to_string(&fold(head)).unwrap();
    let mut folded: State = serde_json::from_str(&snapshot).unwrap();
    for logged in tail {
        apply(&mut folded, logged);
    }
    assert_eq!(folded, *state);
}

proptest! {
    #![proptest_config(ProptestConfig { max_shrink_iters: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever is asked and whatever breaks: the invariants hold at every event, every deployment ends once faults
    /// stop, every node ends on what it is told, and the log leads to State from any snapshot.
    #[test]
    fn whatever_happens_it_comes_to_rest(
        ops in prop::collection::vec(op(), 1..60),
        max_failed in 0..3_u32,
        on in prop_oneof![
            Just(OnInconclusive::Hold), Just(OnInconclusive::Promote), Just(OnInconclusive::RollBack)
        ],
        snapshot: usize,
    ) {
        let mut world = world(max_failed, on);
        for op in ops {
            carry_out(&mut world, op);
        }
        comes_to_rest(&mut world);
        world.check_log();
        folds_from_anywhere(&world.log, &world.state, snapshot);
    }

    /// The order in which the reports of one instant are taken in changes nothing.
    #[test]
    fn reports_of_one_instant_commute(ops in prop::collection::vec(op(), 1..40)) {
        let mut worlds = [world(1, OnInconclusive::Hold), world(1, OnInconclusive::Hold)];
        worlds[1].backwards = true;
        for world in &mut worlds {
            for op in ops.clone() {
                carry_out(world, op);
            }
        }
        let [one, other] = worlds;
        prop_assert_eq!(one.log, other.log);
    }

    /// Without faults every deployment succeeds, and its progress never turns: steps come in order, cohorts grow.
    #[test]
    fn without_faults_everything_succeeds(
        ways in prop::collection::vec(way(), 3),
        versions in prop::collection::vec((0..3_usize, 1..90_u64), 1..4),
    ) {
        let mut world = world(0, OnInconclusive::Hold);
        let mut environments = world.state.environments.clone();
        for (environment, way) in environments.iter_mut().zip(ways) {
            environment.strategy = way;
            // Probes alone must be able to pass a step.
            environment.policy.soak_max = Millis::from_secs(3_600);
        }
        world.command(Command::Configure { environments }).unwrap();
        for (version, (target, pause)) in versions.into_iter().enumerate() {
            deploy(&mut world, version as u64, target, false, false);
            wait(&mut world, Millis::from_secs(pause));
        }
        comes_to_rest(&mut world);
        for finished in world.state.finished.values() {
            prop_assert_eq!(finished.status, DeploymentStatus::Succeeded, "{}", &finished.message);
        }
        let mut next_step = std::collections::BTreeMap::new();
        for logged in &world.log {
            match &logged.event {
                Event::StepStarted { key, step, .. } => {
                    let next = next_step.entry(key.rollout).or_insert(0);
                    prop_assert_eq!(*step, *next);
                    *next += 1;
                }
                Event::NodeExcluded { .. } | Event::BackStarted { .. } | Event::RolloutHeld { .. } => {
                    prop_assert!(false, "{:?}", logged.event);
                }
                _ => {}
            }
        }
    }
}

/// What was mended twice at one instant is well.
#[test]
fn a_node_that_is_mended_twice_comes_to_rest() {
    let deploy = |version, downgrade| Op::Deploy {
        version,
        target: 0,
        downgrade,
        supersede: false,
    };
    let mut world = world(1, OnInconclusive::Hold);
    let ops = [
        deploy(3, false),
        Op::Wait(6),
        deploy(0, true),
        Op::Sick(0, 3),
        Op::Wait(4),
        Op::Mend(0),
        deploy(3, false),
    ];
    for op in ops {
        carry_out(&mut world, op);
    }
    comes_to_rest(&mut world);
}
