//! The language of the scenarios: one command a line, what came of it indented below.

use hotswap_core::command::{Command, DeployRequest, Refusal};
use hotswap_core::decide::Reply;
use hotswap_core::desired::desired;
use hotswap_core::event::Logged;
use hotswap_core::explain::waits;
use hotswap_core::freeze::FreezeWindow;
use hotswap_core::ids::{DeploymentId, Digest, EnvName, ModuleName, NodeId, ReleaseRef};
use hotswap_core::policy::{CanaryBy, Environment, OnInconclusive, RolloutPolicy, Strategy};
use hotswap_core::reconcile::Ledger;
use hotswap_core::release::{Kind, Release};
use hotswap_core::spec::SmokeVia;
use hotswap_core::stage::DeploymentStatus;
use hotswap_core::time::{CoreTime, Millis, WallTime};

use super::node::{Machine, Traffic};
use super::words;
use super::world::{TICK, World};

/// Longest time that a script waits for something to come.
const WAIT_MAX: Millis = Millis::from_secs(4 * 3_600);
/// Beyond this the clock moves in larger steps.
const FINE_MAX: Millis = Millis::from_secs(1_800);
const COARSE_TICK: Millis = Millis::from_secs(5);

/// A running script.
pub struct Script {
    world: Option<World>,
    /// How much of the story was told.
    told: usize,
    out: Vec<String>,
}

/// Runs a script and returns it with what came of it.
pub fn run(text: &str) -> String {
    tell(text).0
}

/// Runs a script and returns its log.
pub fn log(text: &str) -> Vec<Logged> {
    tell(text).1.map(|world| world.log).unwrap_or_default()
}

/// Runs a script and returns what its nodes' ledgers hold then.
pub fn ledgers(text: &str) -> Vec<(NodeId, Ledger)> {
    let machines = tell(text).1.map(|world| world.machines).unwrap_or_default();
    let ledger = |(node, machine): (NodeId, Machine)| (node, machine.reconciler().ledger().clone());
    machines.into_iter().map(ledger).collect()
}

fn tell(text: &str) -> (String, Option<World>) {
    let mut script = Script {
        world: None,
        told: 0,
        out: Vec::new(),
    };
    let mut result = String::new();
    for line in text.lines() {
        if line.starts_with(' ') {
            continue;
        }
        result += line;
        result.push('\n');
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        script.out.clear();
        script.command(line);
        script.tell();
        for line in &script.out {
            result += "  ";
            result += line;
            result.push('\n');
        }
    }
    if let Some(world) = &script.world {
        world.check_log();
    }
    (result, script.world)
}

impl Script {
    fn world(&mut self) -> &mut World {
        self.world.as_mut().expect("a script begins with a fleet")
    }

    fn say(&mut self, line: impl Into<String>) {
        let line = words::plain(self.world.as_ref().unwrap(), &line.into());
        self.out.push(line);
    }

    /// Tells what happened since it was told last.
    fn tell(&mut self) -> Vec<String> {
        let world = self.world.as_ref().unwrap();
        let mut lines = Vec::new();
        for (at, text) in &world.story[self.told..] {
            lines.push(format!("{} {}", clock(*at), words::plain(world, text)));
        }
        self.told = world.story.len();
        for (id, machine) in &mut self.world().machines {
            for alarm in machine.alarms.drain(..) {
                lines.push(format!("ALARM of {id}: {alarm}"));
            }
        }
        self.out.extend(lines.iter().cloned());
        lines
    }

    fn command(&mut self, line: &str) {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            ["fleet", environments @ ..] => self.fleet(environments),
            ["policy", environment, settings @ ..] => self.policy(environment, settings),
            ["strategy", environment, strategy @ ..] => self.strategy(environment, strategy),
            ["push", module, version, rest @ ..] => self.push(module, version, rest),
            ["given", module, version, "in", environment] => self.given(module, version, environment),
            ["deploy", module, version, "to", environment, rest @ ..] => {
                self.deploy(module, version, environment, rest);
            }
            ["run", "until", "done"] => self.run_until(None),
            ["run", "until", ..] => self.run_until(line.strip_prefix("run until ")),
            ["run", time] => self.run_for(duration(time)),
            ["why", deployment @ ..] => self.why(deployment),
            ["nodes", module] => {
                let lines = words::fleet(self.world(), &module.parse().unwrap());
                lines.into_iter().for_each(|line| self.say(line));
            }
            ["stable", module] => {
                let lines = words::stable(&self.world().state, &module.parse().unwrap());
                lines.into_iter().for_each(|line| self.say(line));
            }
            ["spec", node, module] => self.spec(node, module),
            ["deployments"] => self.deployments(),
            ["stages", deployment] => self.stages(deployment),
            ["traffic", environment, rest @ ..] => self.traffic(environment, rest),
            ["node", node, rest @ ..] => self.node(node, rest),
            ["nodes", environment, rest @ ..] => self.nodes_of(environment, rest),
            ["check", check, "of", module, version, "fails:", why @ ..] => {
                let digest = self.release(module, version).digest;
                let check = if *check == "Scan" { "Security Scan" } else { check };
                self.world()
                    .check_faults
                    .insert((digest, check.to_owned()), why.join(" "));
            }
            ["checks", "take", time] => self.world().check_time = duration(time),
            ["restart", "server"] => self.world().restart_server(Millis::from_secs(2)),
            ["restart", "server", "after", time] => self.world().restart_server(duration(time)),
            ["add", node, "to", environment] => {
                let environment = words::environment(&self.world().state, environment);
                self.world().add(node, &environment, "a");
            }
            _ => self.operator(&words),
        }
    }

    /// What operators ask the server.
    fn operator(&mut self, words: &[&str]) {
        let (words, by) = match words {
            [rest @ .., "by", who] => (rest, (*who).to_owned()),
            _ => (words, "olga".to_owned()),
        };
        let number = |text: &str| {
            let number = text
                .strip_prefix('#')
                .unwrap_or_else(|| panic!("{text}: deployments are named #1"));
            DeploymentId(uuid::Uuid::from_u128(number.parse().unwrap()))
        };
        let trace_id = "0".repeat(32);
        let command = match words {
            ["abort", id] => Command::Abort {
                deployment: number(id),
                by,
            },
            ["pause", id] => Command::Pause {
                deployment: number(id),
                by,
            },
            ["resume", id] => Command::Resume {
                deployment: number(id),
                by,
            },
            ["skip", id] => Command::SkipStep {
                deployment: number(id),
                by,
            },
            ["promote", id] => Command::Promote {
                deployment: number(id),
                by,
            },
            ["rollback", id] => {
                let new = DeploymentId(self.world().next_id());
                Command::RollBack {
                    deployment: number(id),
                    id: new,
                    trace_id,
                    by,
                }
            }
            ["undeploy", module, "from", environment] => {
                let (module, environment) = (module.parse().unwrap(), environment.parse().unwrap());
                Command::Undeploy {
                    id: DeploymentId(self.world().next_id()),
                    trace_id,
                    module,
                    environment,
                    by,
                }
            }
            [verb @ ("approve" | "reject"), id] => {
                let (deployment, approve) = (number(id), *verb == "approve");
                let email = format!("{by}@example.com");
                Command::Decide {
                    deployment,
                    approve,
                    by,
                    email,
                    reason: None,
                }
            }
            ["hold", module, version, why @ ..] => {
                let release = self.release(module, version);
                Command::Hold {
                    module: module.parse().unwrap(),
                    release,
                    reason: why.join(" "),
                    by,
                }
            }
            ["lift", "hold", "of", module, version] => {
                let digest = self.release(module, version).digest;
                Command::LiftHold {
                    module: module.parse().unwrap(),
                    digest,
                    by,
                }
            }
            ["move", node, "to", environment] => {
                let (node, environment) = (node.parse().unwrap(), environment.parse().unwrap());
                Command::MoveNode {
                    node,
                    environment,
                    by,
                }
            }
            ["yank", module, version, why @ ..] => Command::Yank {
                module: module.parse().unwrap(),
                version: version.parse().unwrap(),
                reason: why.join(" "),
                by,
            },
            ["unyank", module, version] => Command::Unyank {
                module: module.parse().unwrap(),
                version: version.parse().unwrap(),
                by,
            },
            ["set", module, "in", environment, values @ ..] => Command::SetValues {
                module: module.parse().unwrap(),
                environment: environment.parse().unwrap(),
                values: values
                    .iter()
                    .filter_map(|pair| pair.split_once('='))
                    .map(|(key, value)| (key.to_owned(), value.to_owned()))
                    .collect(),
                expected: None,
                by,
            },
            ["drain", node, "within", time, why @ ..] => Command::Drain {
                node: node.parse().unwrap(),
                deadline: duration(time),
                reason: why.join(" "),
                by,
            },
            ["undrain", node] => Command::Undrain {
                node: node.parse().unwrap(),
                by,
            },
            ["label", node, key, value] => Command::SetLabels {
                node: node.parse().unwrap(),
                set: [((*key).to_owned(), (*value != "-").then(|| (*value).to_owned()))].into(),
                by,
            },
            ["remove", node] => Command::RemoveNode {
                node: node.parse().unwrap(),
                by,
            },
            _ => panic!("no such command: {}", words.join(" ")),
        };
        let takes_id = matches!(command, Command::RollBack { .. } | Command::Undeploy { .. });
        if self.ask(command).is_none() && takes_id {
            self.world().unused_id();
        }
    }

    fn ask(&mut self, command: Command) -> Option<Reply> {
        let reply = self.world().command(command);
        self.tell();
        match reply {
            Ok(reply) => Some(reply),
            Err(refusal) => {
                self.say(format!("refused ({}): {refusal}", status_code(&refusal)));
                None
            }
        }
    }

    fn fleet(&mut self, environments: &[&str]) {
        let mut configured = Vec::new();
        let mut sizes = Vec::new();
        let mut zones = 2;
        for word in environments {
            let (name, size) = word.split_once('=').unwrap();
            let size: u32 = size.parse().unwrap();
            if name == "zones" {
                zones = size;
                continue;
            }
            let known = Environment::defaults()
                .into_iter()
                .find(|known| known.name.as_str() == name);
            let environment = known.unwrap_or_else(|| Environment {
                name: name.parse().unwrap(),
                ..Environment::defaults().remove(0)
            });
            sizes.push((environment.name.clone(), size));
            configured.push(environment);
        }
        let mut world = World::new(configured);
        for (environment, size) in &sizes {
            for i in 1..=*size {
                let zone = ["a", "b", "c", "d"][(i as usize) % zones as usize];
                world.add(&format!("{}-{i}", prefix(environment)), environment, zone);
            }
        }
        world.tick(TICK);
        self.told = world.story.len();
        self.world = Some(world);
    }

    fn configure(&mut self, environment: &str, change: impl FnOnce(&mut Environment)) {
        let name = words::environment(&self.world().state, environment);
        let mut environments = self.world().state.environments.clone();
        change(
            environments
                .iter_mut()
                .find(|environment| environment.name == name)
                .unwrap(),
        );
        self.ask(Command::Configure { environments });
    }

    fn policy(&mut self, environment: &str, settings: &[&str]) {
        let settings: Vec<(String, String)> = settings
            .iter()
            .map(|setting| setting.split_once('=').unwrap())
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect();
        self.configure(environment, |environment| {
            for (key, value) in settings {
                match key.as_str() {
                    "approval" => environment.approval_required = value == "required",
                    "approvals" => environment.approvers.needed = value.parse().unwrap(),
                    "approvers" => {
                        environment.approvers.subjects = value.split(',').map(str::to_owned).collect();
                    }
                    // As in night=0_22_*_*_*~8h: its name, its schedule with _ for blanks, and how long it lasts.
                    "freeze" => {
                        let (name, rest) = value.split_once('=').unwrap();
                        let (starts, lasts) = rest.split_once('~').unwrap();
                        environment.freezes = vec![FreezeWindow {
                            name: name.to_owned(),
                            starts: starts.replace('_', " ").parse().unwrap(),
                            lasts: duration(lasts),
                            reason: String::new(),
                        }];
                    }
                    "freezes" if value == "none" => environment.freezes.clear(),
                    "approval_timeout" => environment.approval_timeout = duration(&value),
                    _ => set(&mut environment.policy, &key, &value),
                }
            }
        });
    }

    fn strategy(&mut self, environment: &str, strategy: &[&str]) {
        let percents = |words: &[&str]| words.iter().map(|percent| percent.parse().unwrap()).collect();
        let strategy = match strategy {
            ["Direct"] => Strategy::Direct,
            ["Rolling", batch] => Strategy::Rolling {
                batch: batch.parse().unwrap(),
            },
            ["BlueGreen"] => Strategy::BlueGreen,
            ["Canary", "nodes", rest @ ..] => Strategy::Canary {
                by: CanaryBy::Nodes,
                percents: percents(rest),
            },
            ["Canary", "traffic", rest @ ..] => Strategy::Canary {
                by: CanaryBy::Traffic,
                percents: percents(rest),
            },
            _ => panic!("no such strategy: {}", strategy.join(" ")),
        };
        self.configure(environment, |environment| environment.strategy = strategy);
    }

    fn push(&mut self, module: &str, version: &str, rest: &[&str]) {
        let (kind, bytes) = match rest {
            [] => (Kind::Wasm, version),
            ["ebpf"] => (Kind::Ebpf, version),
            ["with", "other", "bytes"] => (Kind::Wasm, "other"),
            _ => panic!("no such kind: {}", rest.join(" ")),
        };
        let release = Release {
            digest: digest(module, bytes),
            kind,
            size: 33_000,
            pushed_at: WallTime(0),
            pushed_by: "paul".to_owned(),
            signed_by: None,
            needs: Vec::new(),
        };
        let (module, version) = (module.parse().unwrap(), version.parse().unwrap());
        self.ask(Command::PushRelease {
            module,
            version,
            release,
        });
    }

    /// What was there before the story begins.
    fn given(&mut self, module: &str, version: &str, environment: &str) {
        self.push(module, version, &[]);
        self.deploy(module, version, environment, &[]);
        self.run_until(None);
        self.out.clear();
        let world = self.world();
        let last = world.state.finished_order.last().unwrap();
        let deployment = &world.state.finished[last];
        assert_eq!(
            deployment.status,
            DeploymentStatus::Succeeded,
            "{}",
            deployment.message
        );
    }

    fn deploy(&mut self, module: &str, version: &str, environment: &str, rest: &[&str]) {
        let world = self.world();
        let id = DeploymentId(world.next_id());
        let mut request = Box::new(DeployRequest {
            id,
            trace_id: "0".repeat(32),
            seed: world.state.seq,
            module: module.parse().unwrap(),
            version: version.parse().unwrap(),
            target: environment.parse().unwrap(),
            requester: "dora".to_owned(),
            requester_email: "dora@example.com".to_owned(),
            require_approval: false,
            description: String::new(),
            metadata: Default::default(),
            allow_downgrade: false,
            supersede: false,
        });
        for word in rest {
            match *word {
                "approved" | "with" | "a" => {}
                "approval" => request.require_approval = true,
                "downgrading" => request.allow_downgrade = true,
                "superseding" => request.supersede = true,
                _ => panic!("no such option of a deployment: {word}"),
            }
        }
        if self.ask(Command::Deploy(request)).is_none() {
            self.world().unused_id();
        }
    }

    fn run_for(&mut self, time: Millis) {
        let end = self.world().now.core + time;
        let began = self.world().now.core;
        while self.world().now.core < end {
            self.tick(began, end);
            self.tell();
        }
    }

    /// Until a line is told that holds the text, or all deployments have ended.
    fn run_until(&mut self, text: Option<&str>) {
        let began = self.world().now.core;
        let end = began + WAIT_MAX;
        loop {
            let said = self.tell();
            if text.is_some_and(|text| said.iter().any(|line| line.contains(text))) {
                return;
            }
            if text.is_none()
                && self.world().state.deployments.is_empty()
                && self.world().down_until.is_none()
            {
                return;
            }
            if self.world().now.core >= end {
                self.out.push(format!("NOTHING OF IT for {WAIT_MAX}"));
                return;
            }
            self.tick(began, end);
        }
    }

    fn tick(&mut self, began: CoreTime, end: CoreTime) {
        let world = self.world();
        let coarse = world.now.core.since(began) >= FINE_MAX;
        let by = if coarse { COARSE_TICK } else { TICK };
        let left = end.since(world.now.core);
        world.tick(if left < by { left } else { by });
    }

    fn why(&mut self, which: &[&str]) {
        let world = self.world();
        let mut lines = Vec::new();
        for deployment in world.state.deployments_by_age() {
            let name = words::name(&world.state, &deployment.id);
            if which
                .first()
                .is_some_and(|number| !name.starts_with(&format!("{number} ")))
            {
                continue;
            }
            for wait in waits(&world.state, &world.obs, &deployment.id, world.now) {
                lines.push(format!("{name}: {wait}"));
            }
        }
        lines.into_iter().for_each(|line| self.say(line));
    }

    fn spec(&mut self, node: &str, module: &str) {
        let node: NodeId = node.parse().unwrap();
        let module: ModuleName = module.parse().unwrap();
        let world = self.world();
        let spec = desired(&world.state, &node).and_then(|mut spec| spec.modules.remove(&module));
        let line = spec.map_or("nothing".to_owned(), |spec| {
            words::spec(&world.state, &module, &spec)
        });
        self.say(line);
    }

    fn deployments(&mut self) {
        let state = &self.world().state;
        let finished = state.finished_order.iter().map(|id| &state.finished[id]);
        let mut all: Vec<_> = finished.chain(state.deployments.values()).collect();
        all.sort_by_key(|deployment| deployment.order);
        let lines: Vec<String> = all
            .iter()
            .map(|deployment| {
                let current = deployment.current().filter(|_| !deployment.status.is_finished());
                let at = current.map_or(String::new(), |(_, stage)| format!(", at {}", stage.kind.name()));
                format!(
                    "{}: {:?}{at}",
                    words::name(state, &deployment.id),
                    deployment.status
                )
            })
            .collect();
        lines.into_iter().for_each(|line| self.say(line));
    }

    fn stages(&mut self, number: &str) {
        let id: u128 = number.strip_prefix('#').unwrap().parse().unwrap();
        let state = &self.world().state;
        let deployment = state
            .deployment(&DeploymentId(uuid::Uuid::from_u128(id)))
            .unwrap();
        let lines: Vec<String> = deployment
            .stages
            .iter()
            .map(|stage| {
                let message = if stage.message.is_empty() {
                    String::new()
                } else {
                    format!(": {}", stage.message)
                };
                format!("{} {:?}{message}", stage.kind.name(), stage.status)
            })
            .collect();
        lines.into_iter().for_each(|line| self.say(line));
    }

    /// `traffic Production 50/s candidate errors 5% latency 40ms control errors 0% probes 10%`.
    fn traffic(&mut self, environment: &str, rest: &[&str]) {
        let environment = words::environment(&self.world().state, environment);
        let mut traffic = self
            .world()
            .traffic
            .get(&environment)
            .copied()
            .unwrap_or_default();
        let mut arms: (bool, bool) = (true, true);
        let mut words = rest.iter();
        while let Some(word) = words.next() {
            let mut number = |unit: &str| -> f64 {
                let word = words.next().unwrap();
                word.strip_suffix(unit)
                    .unwrap_or_else(|| panic!("{word} has no {unit}"))
                    .parse()
                    .unwrap()
            };
            match *word {
                "candidate" => arms = (true, false),
                "control" => arms = (false, true),
                "errors" => {
                    let percent = number("%");
                    on_arms(&mut traffic, arms, |arm| arm.error_percent = percent);
                }
                "latency" => {
                    let ms = number("ms");
                    on_arms(&mut traffic, arms, |arm| arm.latency_ms = ms);
                }
                "probes" => traffic.probe_error_percent = number("%"),
                word => traffic.per_second = word.strip_suffix("/s").unwrap().parse().unwrap(),
            }
        }
        self.world().traffic.insert(environment.clone(), traffic);
        for machine in self.world().machines.values_mut() {
            if machine.environment == environment {
                machine.traffic = traffic;
            }
        }
    }

    fn nodes_of(&mut self, environment: &str, rest: &[&str]) {
        let environment = words::environment(&self.world().state, environment);
        let all: Vec<NodeId> = self.world().state.envs[&environment]
            .nodes
            .iter()
            .cloned()
            .collect();
        for node in all {
            self.node(node.as_str(), rest);
        }
    }

    fn node(&mut self, node: &str, rest: &[&str]) {
        let id: NodeId = node.parse().unwrap();
        let now = self.world().now.core;
        let release = match rest {
            [_, module, version, ..] | ["fails", _, module, version, ..] if version.contains('.') => Some((
                (*module).parse::<ModuleName>().unwrap(),
                self.release(module, version).digest,
            )),
            _ => None,
        };
        let machine = self
            .world()
            .machines
            .get_mut(&id)
            .unwrap_or_else(|| panic!("no machine {node}"));
        match rest {
            ["silent"] => machine.reachable = false,
            ["hangs"] => machine.hung = true,
            ["returns"] => {
                machine.reachable = true;
                machine.hung = false;
            }
            ["restarts"] => machine.restart(now),
            ["takes", time] => machine.faults.prepare = Some(duration(time)),
            ["vetoes", _, _, why @ ..] => {
                let (module, digest) = release.unwrap();
                let why = if why.is_empty() {
                    "it trapped".to_owned()
                } else {
                    why.join(" ")
                };
                machine.sicken(&module, digest, &why, now);
            }
            ["fails", "load", _, _, account @ ..] => {
                let account = match account {
                    ["telling", len] => "x".repeat(len.parse().unwrap()),
                    _ => "out of memory".to_owned(),
                };
                machine.faults.load.insert(release.unwrap().1, account);
            }
            ["fails", "smoke", _, _, door @ ..] => {
                let via = match door {
                    [] => None,
                    ["in", "preview"] => Some(SmokeVia::Preview),
                    ["through", "ingress"] => Some(SmokeVia::Ingress),
                    _ => panic!("no such door: {}", door.join(" ")),
                };
                let why = "GET /health: 500".to_owned();
                machine.faults.smoke.insert(release.unwrap().1, (via, why));
            }
            ["mends"] => machine.mend(now),
            _ => panic!("a node can't do that: {}", rest.join(" ")),
        }
    }

    fn release(&mut self, module: &str, version: &str) -> ReleaseRef {
        let version = version.parse().unwrap();
        let digest = self
            .world()
            .state
            .release(&module.parse().unwrap(), &version)
            .unwrap()
            .digest;
        ReleaseRef {
            version,
            digest,
            config: 0,
        }
    }
}

fn on_arms(
    traffic: &mut Traffic,
    (candidate, control): (bool, bool),
    change: impl Fn(&mut super::node::Arm),
) {
    if candidate {
        change(&mut traffic.candidate);
    }
    if control {
        change(&mut traffic.control);
    }
}

fn set(policy: &mut RolloutPolicy, key: &str, value: &str) {
    match key {
        "max_unavailable" => policy.max_unavailable = value.parse().unwrap(),
        "max_failed" => policy.max_failed = value.parse().unwrap(),
        "control_percent" => policy.control_percent = value.parse().unwrap(),
        "probes" => policy.probes_per_interval = value.parse().unwrap(),
        "settle" => policy.settle = duration(value),
        "step_deadline" => policy.step_deadline = duration(value),
        "silence_max" => policy.silence_max = duration(value),
        "soak_min" => policy.soak_min = duration(value),
        "soak_max" => policy.soak_max = duration(value),
        "interval" => policy.interval = duration(value),
        "back_deadline" => policy.back_deadline = duration(value),
        "hold_expiry" => policy.hold_expiry = duration(value),
        "pause_expiry" => policy.pause_expiry = duration(value),
        "on_inconclusive" => {
            policy.on_inconclusive = match value {
                "hold" => OnInconclusive::Hold,
                "promote" => OnInconclusive::Promote,
                "rollback" => OnInconclusive::RollBack,
                _ => panic!("on_inconclusive is hold, promote or rollback, not {value}"),
            }
        }
        _ => panic!("no such policy: {key}"),
    }
}

/// `500ms`, `30s`, `5min`, `24h`.
fn duration(text: &str) -> Millis {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let number: u64 = text[..digits]
        .parse()
        .unwrap_or_else(|_| panic!("{text} is no time"));
    match &text[digits..] {
        "ms" => Millis(number),
        "s" => Millis::from_secs(number),
        "min" => Millis::from_secs(number * 60),
        "h" => Millis::from_secs(number * 3_600),
        unit => panic!("{unit} is no unit of time"),
    }
}

fn clock(at: CoreTime) -> String {
    let seconds = at.0 / 1_000;
    let (hours, minutes) = (seconds / 3_600, seconds / 60 % 60);
    if hours > 0 {
        format!("{hours}:{minutes:02}:{:02}", seconds % 60)
    } else {
        format!("{minutes:02}:{:02}.{}", seconds % 60, at.0 % 1_000 / 100)
    }
}

fn prefix(environment: &EnvName) -> String {
    match environment.as_str() {
        "Development" => "dev".to_owned(),
        "Production" => "prod".to_owned(),
        "Staging" => "stage".to_owned(),
        name => name.to_lowercase(),
    }
}

fn status_code(refusal: &Refusal) -> u16 {
    use hotswap_core::command::RefusalKind;
    match refusal.kind() {
        RefusalKind::Invalid => 400,
        RefusalKind::Forbidden => 403,
        RefusalKind::NotFound => 404,
        RefusalKind::Conflict => 409,
        RefusalKind::Busy => 503,
    }
}

/// A digest that differs by name and bytes: no hash, only an identity.
fn digest(module: &str, bytes: &str) -> Digest {
    let mut digest = [0_u8; 32];
    for (i, byte) in module.bytes().chain([b'/']).chain(bytes.bytes()).enumerate() {
        let place = i % 32;
        digest[place] = digest[place].wrapping_mul(31).wrapping_add(byte);
    }
    Digest(digest)
}
