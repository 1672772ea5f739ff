//! Native processes through a real server and real agents: refused where nobody can run them, deployed, swapped under
//! load, taken back, and gone with their agent.

use std::path::{Path, PathBuf};

use crate::fleet::{DEADLINE, Process, Server, is_running, trust_file};
use crate::operation::customers::{Customers, Habit};
use crate::support::Ran;

const HABITS: [Habit; 3] = [Habit::Keeps, Habit::Keeps, Habit::Anew];
const ENVIRONMENTS: &str = "\
[[environments]]
name = \"Production\"
strategy = { type = \"Direct\" }
grants = { kinds = [\"process\"] }
[environments.policy]
settle = \"3s\"
step-deadline = \"6s\"
soak-min = \"1s\"
";
/// The interpreter that processes find: PATH is not inherited.
const PYTHON: &str = "/usr/bin/python3";

fn server(environments: &str) -> (Server, tempfile::NamedTempFile) {
    let file = tempfile::NamedTempFile::with_suffix(".toml").unwrap();
    std::fs::write(file.path(), environments).unwrap();
    (Server::start(&["--config", file.path().to_str().unwrap()]), file)
}

fn agent(server: &Server, node: &str, more: &[&str]) -> Process {
    let data = server.dir.path().join(node);
    let (trust, token) = (trust_file(&server.dir), server.join_token("Production"));
    let mut args = vec![
        "agent",
        "--node",
        node,
        "--environment",
        "Production",
        "--server",
        &server.agents,
        "--join-token-file",
        &token,
    ];
    args.extend([
        "--data",
        data.to_str().unwrap(),
        "--ingress",
        "127.0.0.1:0",
        "--trust",
        &trust,
    ]);
    args.extend(more);
    Process::start(&args)
}

fn native(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../modules/native")
        .join(name)
}

/// A version of the module in Python, changed.
fn push_greetings(server: &Server, version: &str, change: impl FnOnce(String) -> String) {
    let folder = server.dir.path().join(format!("greetings-{version}"));
    std::fs::create_dir(&folder).unwrap();
    let manifest = std::fs::read_to_string(native("greetings/module.toml")).unwrap();
    let manifest = manifest.replace("version = \"1.0.0\"", &format!("version = \"{version}\""));
    std::fs::write(folder.join("module.toml"), manifest).unwrap();
    let source = std::fs::read_to_string(native("greetings/server.py")).unwrap();
    std::fs::write(folder.join("server.py"), change(source)).unwrap();
    server.push(folder.to_str().unwrap()).exits(0);
}

fn deploy(server: &Server, module: &str, version: &str) -> Ran {
    server.run(&[
        "deploy",
        module,
        version,
        "--to",
        "Production",
        "--email",
        "a@b.example",
        "-o",
        "json",
    ])
}

/// Deploys and waits for the end; returns the whole answer.
fn deployed(server: &Server, module: &str, version: &str, exits: i32) -> serde_json::Value {
    let id = deploy(server, module, version).exits(0).json()["executionId"]
        .as_str()
        .unwrap()
        .to_owned();
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

#[test]
fn native_code_is_refused_where_no_node_runs_it_and_where_it_is_not_granted() {
    let (server, _file) = server(ENVIRONMENTS);
    let plain = agent(&server, "plain", &[]);
    server.eventually(&["nodes"], "plain");
    push_greetings(&server, "1.0.0", |source| source);
    server.run(&["module", "list"]).exits(0).shows(&["process"]);
    deploy(&server, "greetings", "1.0.0")
        .exits(2)
        .says(&["no node of Production can run greetings 1.0.0: plain lacks process (it has wasm, arch:"]);
    let able = agent(&server, "able", &["--native-kind", "process"]);
    server.eventually(&["nodes"], "able");
    server.eventually(&["nodes", "show", "able"], "wasm, process");
    server
        .run(&["nodes", "show", "able"])
        .exits(0)
        .shows(&["arch:", "kernel:", "cgroup:", "privileges:"]);
    server
        .run(&["plan", "greetings", "1.0.0", "--to", "Production"])
        .exits(0)
        .shows(&["plain", "lacks process"]);
    drop((plain, able));

    let (server, _file) = self::server(&ENVIRONMENTS.replace("grants = { kinds = [\"process\"] }\n", ""));
    let _able = agent(&server, "able", &["--native-kind", "process"]);
    server.eventually(&["nodes"], "able");
    push_greetings(&server, "1.0.0", |source| source);
    let refused = deployed(&server, "greetings", "1.0.0", 1).to_string();
    assert!(
        refused.contains("Production does not grant native code of kind process"),
        "{refused}"
    );
}

#[test]
fn native_processes_are_swapped_under_load_taken_back_and_gone_with_their_agent() {
    if !Path::new(PYTHON).exists() {
        println!("left out: there is no {PYTHON}, which native modules in Python need");
        return;
    }
    let (server, _file) = server(ENVIRONMENTS);
    let agent = agent(&server, "node-1", &["--native-kind", "process"]);
    server.eventually(&["nodes"], "node-1");
    for version in ["1.0.0", "1.1.0"] {
        push_greetings(&server, version, |source| source);
    }
    deployed(&server, "greetings", "1.0.0", 0);
    let customers = Customers::start_at(&agent.url, "/greetings/Ada", &HABITS);
    customers.go_on(200);
    deployed(&server, "greetings", "1.1.0", 0);
    customers.go_on(200);
    let (answered, failures) = customers.stop();
    println!(
        "a swap of processes under load: {answered} answered, {} failed",
        failures.len()
    );
    assert_eq!(failures, Vec::<String>::new());

    // It passes its smoke checks, then ends at every tenth request.
    push_greetings(&server, "1.2.0", |source| {
        source.replace(
            "def answer(method: str, path: str, body: bytes) -> tuple[int, dict]:\n",
            "ASKED = [0]\n\n\ndef answer(method: str, path: str, body: bytes) -> tuple[int, dict]:\n    \
             ASKED[0] += 1\n    if ASKED[0] == 10:\n        os._exit(9)\n",
        )
    });
    let customers = Customers::start_at(&agent.url, "/greetings/Ada", &HABITS);
    let back = deployed(&server, "greetings", "1.2.0", 1);
    let from = customers.answered();
    customers.go_on(200);
    let (answered, failures) = customers.stop();
    println!(
        "a release whose process ends again and again: {} of {} requests failed before it was taken back",
        failures.len(),
        answered + failures.len() as u64
    );
    assert_eq!(back["status"], "Failed", "{back}");
    assert!(
        back["message"].as_str().unwrap().starts_with("rolled back: "),
        "{back}"
    );
    assert!(
        back.to_string().contains("its process ended 3 times within 60s"),
        "{back}"
    );
    assert!(from > 0 && failures.len() < 100, "{failures:?}");

    // One that never says that it is ready never gets a request.
    push_greetings(&server, "1.3.0", |source| source.replace("    ready()\n", ""));
    let customers = Customers::start_at(&agent.url, "/greetings/Ada", &HABITS);
    let back = deployed(&server, "greetings", "1.3.0", 1);
    let (_, failures) = customers.stop();
    assert_eq!(failures, Vec::<String>::new());
    assert_eq!(back["status"], "Failed", "{back}");
    assert!(
        back["message"].as_str().unwrap().starts_with("rolled back: "),
        "{back}"
    );
    assert!(back.to_string().contains("was not ready within"), "{back}");

    let pids = children(agent.id());
    assert!(!pids.is_empty());
    // Its output is the log's, with what it is of.
    let line = agent.eventually_logs("the 3. time lately");
    assert!(
        line.contains("\"module\":\"greetings\"") && line.contains("\"node\":\"node-1\""),
        "{line}"
    );
    agent.signal("-KILL");
    let end = std::time::Instant::now() + DEADLINE;
    while pids.iter().any(|pid| is_running(*pid)) {
        assert!(std::time::Instant::now() < end, "{pids:?} outlive their agent");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}

#[test]
fn a_native_server_in_rust_is_deployed() {
    let (server, _file) = server(ENVIRONMENTS);
    let folder = server.dir.path().join("quotes");
    std::fs::create_dir_all(folder.join("src")).unwrap();
    for file in ["module.toml", "build.sh", "src/main.rs", "src/http.rs"] {
        std::fs::copy(native("quotes").join(file), folder.join(file)).unwrap();
    }
    let built = std::process::Command::new("sh")
        .arg(folder.join("build.sh"))
        .status()
        .unwrap();
    assert!(built.success());
    server.push(folder.to_str().unwrap()).exits(0);
    let agent = agent(&server, "node-1", &["--native-kind", "process"]);
    server.eventually(&["nodes"], "node-1");
    deployed(&server, "quotes", "1.0.0", 0);
    let customers = Customers::start_at(&agent.url, "/quotes", &HABITS);
    customers.go_on(100);
    assert_eq!(customers.stop().1, Vec::<String>::new());
    let pids = children(agent.id());
    assert_eq!(agent.stop(), 0);
    assert!(
        !pids.is_empty() && pids.iter().all(|pid| !is_running(*pid)),
        "{pids:?}"
    );
}

/// Processes that a process started itself.
fn children(of: u32) -> Vec<u32> {
    let threads = std::fs::read_dir(format!("/proc/{of}/task")).unwrap().flatten();
    let lists = threads.filter_map(|thread| std::fs::read_to_string(thread.path().join("children")).ok());
    lists
        .flat_map(|list| {
            list.split_ascii_whitespace()
                .map(|pid| pid.parse().unwrap())
                .collect::<Vec<u32>>()
        })
        .collect()
}
