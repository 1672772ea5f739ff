//! eBPF programs through a real server and real agents, in a network of the test's own: rolled out by cohorts under
//! traffic, found bad by their counters and taken back, kept at their hooks while agents are killed and upgraded.

use std::path::{Path, PathBuf};
use std::time::Instant;

use hotswap_runtime::testing::namespace::{Flood, Wire, inside, sh};
use serde_json::Value;

use crate::fleet::{DEADLINE, Process, Server, trust_file};
use crate::sight::get;

const MODULE: &str = "packet-limiter";
const ENVIRONMENTS: &str = "\
NATIVE[[environments]]
name = \"Production\"
strategy = { type = \"Canary\", percents = [20, 100] }
grants = { kinds = [\"ebpf\"], variables = [\"UPLINK\"] }
[environments.policy]
settle = \"1s\"
step-deadline = \"10s\"
soak-min = \"1s\"
interval = \"1s\"
";
/// Packets a second on each node's wire.
const RATE: u64 = 2_000;
const NODES: u8 = 3;
const PINS: &str = "/sys/fs/bpf/hotswap";
/// The node whose agent is replaced by another while it runs.
const UPGRADED: u8 = 2;

/// Where a node shows its metrics; the test's network is its own.
fn metrics(number: u8) -> String {
    format!("127.0.0.1:{}", 9_200 + u16::from(number))
}

/// `native`: whether the server has its kernel verify what is deployed.
fn server(native: bool) -> (Server, tempfile::NamedTempFile) {
    let file = tempfile::NamedTempFile::with_suffix(".toml").unwrap();
    let own = if native {
        "[server]\nnative-kinds = [\"ebpf\"]\n"
    } else {
        ""
    };
    std::fs::write(file.path(), ENVIRONMENTS.replace("NATIVE", own)).unwrap();
    let args = ["--config", file.path().to_str().unwrap()];
    (Server::start(&args), file)
}

fn agent(server: &Server, number: u8, more: &[&str]) -> Process {
    let node = format!("node-{number}");
    let (data, trust) = (server.dir.path().join(&node), trust_file(&server.dir));
    let (uplink, token) = (format!("UPLINK=hs{number}"), server.join_token("Production"));
    let args = [
        "agent",
        "--node",
        &node,
        "--environment",
        "Production",
        "--server",
        &server.agents,
        "--join-token-file",
        &token,
        "--data",
        data.to_str().unwrap(),
        "--ingress",
        "127.0.0.1:0",
        "--trust",
        &trust,
        "--grant-variable",
        &uplink,
    ];
    Process::start(&[&args[..], more].concat())
}

fn example(version: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../modules/ebpf")
        .join(MODULE)
        .join(version)
}

fn deploy(server: &Server, version: &str, exits: i32) -> Value {
    let asked = server.run(&[
        "deploy",
        MODULE,
        version,
        "--to",
        "Production",
        "--email",
        "a@b.example",
        "-o",
        "json",
    ]);
    let id = asked.exits(0).json()["executionId"].as_str().unwrap().to_owned();
    let ended = server.run(&["status", &id, "--watch"]);
    assert_eq!(
        ended.code,
        exits,
        "{}{}\n{}",
        ended.stdout,
        ended.stderr,
        server.process.log()
    );
    server.run(&["status", &id, "-o", "json"]).json()
}

/// A node's link: its number, and its program's.
fn link(number: u8) -> (u64, u64) {
    let link = sh(&format!(
        "bpftool -j link show pinned {PINS}/node-{number}/{MODULE}/links/limit"
    ));
    let link: Value = serde_json::from_str(&link).unwrap();
    let number = |key: &str| link[key].as_u64().unwrap_or_else(|| panic!("{link}"));
    (number("id"), number("prog_id"))
}

/// What a node's programs have counted, whoever runs its agent: packets, and those that were dropped.
fn counted(number: u8) -> (u64, u64) {
    let dump = sh(&format!(
        "bpftool -j map dump pinned {PINS}/node-{number}/{MODULE}/maps/totals"
    ));
    let dump: Value = serde_json::from_str(&dump).unwrap();
    let values = dump[0]["formatted"]["values"]
        .as_array()
        .unwrap_or_else(|| panic!("{dump}"));
    let sum = |field: &str| {
        values
            .iter()
            .map(|value| value["value"][field].as_u64().unwrap())
            .sum()
    };
    (sum("packets"), sum("dropped"))
}

#[track_caller]
fn eventually(what: &str, is: impl Fn() -> bool) {
    let end = Instant::now() + DEADLINE;
    while !is() {
        assert!(Instant::now() < end, "{what}");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

#[test]
fn an_object_is_begun_looked_at_and_refused_where_no_node_runs_it() {
    let (server, _file) = server(false);
    let plain = agent(&server, 1, &[]);
    server.eventually(&["nodes"], "node-1");
    server.push(example("1.0.0").to_str().unwrap()).exits(0);
    let asked = [
        "deploy",
        MODULE,
        "1.0.0",
        "--to",
        "Production",
        "--email",
        "a@b.example",
    ];
    server
        .run(&asked)
        .exits(2)
        .says(&["no node of Production can run packet-limiter 1.0.0: node-1 lacks ebpf (it has wasm, arch:"]);
    drop(plain);
    let folder = server.dir.path().join("begun");
    std::fs::create_dir(&folder).unwrap();
    let begun = std::process::Command::new(env!("CARGO_BIN_EXE_hotswap"))
        .args([
            "module",
            "init",
            "--kind",
            "ebpf",
            "--lang",
            "c",
            "edge-counter",
            "-o",
            "json",
        ])
        .current_dir(&folder)
        .output()
        .unwrap();
    assert!(begun.status.success(), "{begun:?}");
    let folder = folder.join("edge-counter");
    let built = std::process::Command::new("sh")
        .arg("build.sh")
        .current_dir(&folder)
        .output()
        .unwrap();
    if !built.status.success() {
        println!(
            "left out: the template's build: {}",
            String::from_utf8_lossy(&built.stderr).trim()
        );
        return;
    }
    server.push(folder.to_str().unwrap()).exits(0);
}

#[test]
fn a_canary_by_traffic_is_refused_with_what_to_do() {
    let file = tempfile::NamedTempFile::with_suffix(".toml").unwrap();
    let by_traffic = ENVIRONMENTS
        .replace("NATIVE", "")
        .replace("percents", "by = \"traffic\", percents");
    std::fs::write(file.path(), by_traffic).unwrap();
    let server = Server::start(&["--config", file.path().to_str().unwrap()]);
    server.push(example("1.0.0").to_str().unwrap()).exits(0);
    for command in ["plan", "deploy"] {
        let mut asked = vec![command, MODULE, "1.0.0", "--to", "Production"];
        if command == "deploy" {
            asked.extend(["--email", "a@b.example"]);
        }
        server.run(&asked).exits(2).says(&[
            "packet-limiter doesn't route requests (it is of the kind ebpf)",
            "use a canary by nodes there (strategy.by = \"nodes\")",
        ]);
    }
}

/// A version whose program's last instruction is none.
fn push_broken(server: &Server, version: &str) {
    let folder = server.dir.path().join(format!("broken-{version}"));
    std::fs::create_dir(&folder).unwrap();
    let manifest = std::fs::read_to_string(example("1.0.0").join("module.toml")).unwrap();
    std::fs::write(
        folder.join("module.toml"),
        manifest.replace("\"1.0.0\"", &format!("\"{version}\"")),
    )
    .unwrap();
    let mut object = std::fs::read(example("1.0.0").join("packet-limiter.o")).unwrap();
    let exit = [0x95, 0, 0, 0, 0, 0, 0, 0];
    let at = (0..object.len())
        .step_by(8)
        .find(|at| object[*at..].starts_with(&exit))
        .unwrap();
    object[at] = 0xff;
    std::fs::write(folder.join("packet-limiter.o"), object).unwrap();
    server.push(folder.to_str().unwrap()).exits(0);
}

#[test]
fn what_the_kernel_refuses_never_gets_to_a_hook() {
    if !inside("ebpf::what_the_kernel_refuses_never_gets_to_a_hook") {
        return;
    }
    let _wire = Wire::new(1);
    for native in [false, true] {
        let (server, _file) = server(native);
        let agent = agent(&server, 1, &["--native-kind", "ebpf"]);
        server.eventually(&["nodes"], "node-1");
        server.eventually(&["nodes", "show", "node-1"], "bpffs");
        push_broken(&server, "1.3.0");
        let failed = deploy(&server, "1.3.0", 1).to_string();
        assert!(
            failed.contains("the kernel refused the program limit")
                && failed.contains("last insn is not an exit or jmp"),
            "{failed}"
        );
        // Who has the privilege finds out before any node is asked, with all that the verifier said.
        assert_eq!(failed.contains("it does not start: "), native, "{failed}");
        assert!(failed.contains("processed "), "{failed}");
        assert_eq!(agent.stop(), 0);
        assert!(!Path::new(PINS).exists());
    }
}

#[test]
fn programs_are_rolled_out_taken_back_and_never_leave_their_hooks() {
    if !inside("ebpf::programs_are_rolled_out_taken_back_and_never_leave_their_hooks") {
        return;
    }
    let (server, _file) = server(false);
    let wires: Vec<Wire> = (1..=NODES).map(Wire::new).collect();
    let native = ["--native-kind", "ebpf"];
    let measured = |number| match metrics(number) {
        _ if number == UPGRADED => agent(&server, number, &native),
        address => agent(&server, number, &[&native[..], &["--metrics", &address]].concat()),
    };
    let mut agents: Vec<Process> = (1..=NODES).map(measured).collect();
    for number in 1..=NODES {
        server.eventually(&["nodes"], &format!("node-{number}"));
    }
    for version in ["1.0.0", "1.1.0", "1.2.0"] {
        server.push(example(version).to_str().unwrap()).exits(0);
    }
    let first = deploy(&server, "1.0.0", 0).to_string();
    assert!(first.contains("licensed Dual MIT/GPL, with BTF"), "{first}");
    let floods: Vec<Flood> = wires.iter().map(|wire| wire.flood(Some(RATE))).collect();
    let links: Vec<_> = (1..=NODES).map(link).collect();
    // Something to compare with.
    eventually("nothing is counted", || {
        (1..=NODES).all(|number| counted(number).0 > 3 * RATE)
    });

    let passed = deploy(&server, "1.1.0", 0);
    let id = passed["executionId"].as_str().unwrap();
    let why = server.run(&["why", id]).exits(0).stdout;
    assert!(why.contains("harm beyond +0.5 points ruled out"), "{why}");
    server
        .run(&["analysis", id, "-o", "json"])
        .exits(0)
        .shows(&["\"beforeAfter\""]);
    let updated: Vec<_> = (1..=NODES).map(link).collect();
    for (before, after) in links.iter().zip(&updated) {
        assert_eq!(before.0, after.0, "the link is the same");
        assert_ne!(before.1, after.1, "the program is another");
    }

    // Killed, and not there for a while.
    agents[0].signal("-KILL");
    let at = counted(1).0;
    eventually("a killed agent's program counts no more", || {
        counted(1).0 > at + RATE / 2
    });
    assert_eq!(link(1), updated[0]);
    agents[0] = measured(1);
    agents[0].eventually_logs("a program is at its hook");
    assert_eq!(link(1), updated[0], "found again, not loaded again");
    // Upgraded, with the node's word that it serves.
    let former = std::mem::replace(
        &mut agents[1],
        agent(&server, 2, &[&native[..], &["--takeover"]].concat()),
    );
    assert_eq!(former.ended(), 0);
    assert_eq!(link(2), updated[1]);
    server.eventually(&["nodes", "show", "node-2"], "1.1.0");
    server.eventually(&["nodes", "show", "node-1"], "1.1.0");

    let dropped: u64 = (1..=NODES).map(|number| counted(number).1).sum();
    assert_eq!(dropped, 0, "nothing is dropped so far");
    let begun = Instant::now();
    let back = deploy(&server, "1.2.0", 1);
    let took = begun.elapsed();
    assert_eq!(back["status"], "Failed", "{back}");
    let message = back["message"].as_str().unwrap();
    assert!(message.starts_with("rolled back: "), "{back}");
    assert!(back.to_string().contains("drops were "), "{back}");
    let after: Vec<_> = (1..=NODES).map(link).collect();
    assert_eq!(after, updated, "one node had it, and is back");
    let hurt: Vec<_> = (1..=NODES).map(|number| counted(number).1).collect();
    assert_eq!(hurt.iter().filter(|dropped| **dropped > 0).count(), 1, "{hurt:?}");

    // Nobody missed a packet in all this.
    let mut sent = 0;
    for (flood, number) in floods.into_iter().zip(1..) {
        let of_wire = flood.stop();
        eventually("not all packets were counted", || counted(number).0 >= of_wire);
        assert_eq!(counted(number).0, of_wire, "node-{number}");
        sent += of_wire;
    }
    println!(
        "{sent} packets to {NODES} nodes through two rollouts, a killed and an upgraded agent: all counted; 1.2.0 was taken back \
         after {took:.1?} by {message:?}, having dropped {hurt:?}"
    );
    // More than a source may send: what is dropped on purpose is among the node's metrics.
    let before = counted(1).1;
    let flood = wires[0].flood(None);
    eventually("nothing is dropped", || counted(1).1 > before + 1_000);
    drop(flood);
    eventually("drops are not shown", || {
        let shown = get(&format!("http://{}/metrics", metrics(1)), &[]).1;
        let mut lines = shown
            .lines()
            .filter(|line| line.starts_with("hotswap_drops_total{"));
        let line = lines.find(|line| line.contains("version=\"1.1.0\""));
        let drops = line.and_then(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
        // What fell between the last look at 1.2.0 and the way back is this one's too.
        let all = counted(1).1;
        drops.is_some_and(|drops| ((all - before) as f64..=all as f64).contains(&drops))
    });
    server
        .run(&["undeploy", MODULE, "--from", "Production", "--watch"])
        .exits(0);
    eventually("pins are left", || !Path::new(PINS).exists());
    let held = sh("bpftool link show");
    for (id, _) in updated {
        assert!(
            !held.lines().any(|line| line.starts_with(&format!("{id}: "))),
            "{held}"
        );
    }
    for agent in agents {
        assert_eq!(agent.stop(), 0);
    }
}
