//! An agent that is upgraded in place, under load.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use super::customers::{Customers, Habit, version};
use super::{configuration, deploy, push};
use crate::fleet::{DEADLINE, Process, Server, is_running, signal_process};

const HABITS: [Habit; 4] = [Habit::Keeps, Habit::Keeps, Habit::Keeps, Habit::Anew];
/// Successions of the test.
const UPGRADES: u64 = 3;

/// A process that the test did not start itself; ends with its owner.
struct Successor(u32);

impl Successor {
    fn is_there(&self) -> bool {
        is_running(self.0)
    }
}

impl Drop for Successor {
    fn drop(&mut self) {
        if self.is_there() {
            let _ = Command::new("kill").args(["-KILL", &self.0.to_string()]).status();
        }
    }
}

/// A copy of the binary of its own, which can be replaced.
fn install(path: &Path) {
    let aside = path.with_extension("new");
    std::fs::copy(env!("CARGO_BIN_EXE_hotswap"), &aside).unwrap();
    std::fs::rename(aside, path).unwrap();
}

fn install_script(path: &Path, script: &str) {
    let aside = path.with_extension("new");
    std::fs::write(&aside, script).unwrap();
    std::fs::set_permissions(&aside, std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::rename(aside, path).unwrap();
}

fn agent(server: &Server, program: &Path) -> Process {
    let data = data(server);
    let mut command = Command::new(program);
    command.args(["agent", "--node", "node-1", "--environment", "Production"]);
    command.args([
        "--server",
        &server.agents,
        "--join-token-file",
        &server.join_token("Production"),
        "--data",
        data.to_str().unwrap(),
        "--ingress",
        "127.0.0.1:0",
        "--trust",
        &crate::fleet::trust_file(&server.dir),
    ]);
    Process::start_command(&mut command)
}

fn data(server: &Server) -> PathBuf {
    server.dir.path().join("node-1")
}

/// The process that a log says took the node over, after so many others did.
fn successor(first: &Process, number: u64) -> Successor {
    let end = Instant::now() + DEADLINE;
    loop {
        let log = first.log();
        let mut taken = log.lines().filter(|line| line.contains("took the node over"));
        if let Some(line) = taken.nth(usize::try_from(number).unwrap()) {
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            return Successor(line["process"].as_u64().unwrap().try_into().unwrap());
        }
        assert!(Instant::now() < end, "nobody took the node over: {log}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn an_agent_upgraded_in_place_under_load_drops_nothing() {
    let file = configuration("");
    let server = Server::start(&["--config", file.path().to_str().unwrap()]);
    let program = server.dir.path().join("hotswap");
    install(&program);
    let first = agent(&server, &program);
    let url = first.url.clone();
    server.eventually(&["nodes"], "node-1");
    push(&server);
    deploy(&server, "2.0.0");
    let customers = Customers::start(&url, &HABITS);
    customers.go_on(500);

    // The first one is this test's child and ends in order; the others succeed each other.
    let mut current = first.id();
    let mut successors = Vec::new();
    for number in 0..UPGRADES {
        install(&program);
        signal_process(current, "-USR2");
        let next = successor(&first, number);
        current = next.0;
        customers.go_on(500);
        successors.push(next);
    }
    let end = Instant::now() + DEADLINE;
    while successors[..successors.len() - 1].iter().any(Successor::is_there) {
        assert!(
            Instant::now() < end,
            "a predecessor does not end: {}",
            first.log()
        );
        std::thread::sleep(Duration::from_millis(20));
    }
    // The last one is the node: it takes a deployment.
    deploy(&server, "2.1.0");
    assert_eq!(version(&url), "2.1.0");
    let (answered, failures) = customers.stop();
    assert!(
        failures.is_empty(),
        "of {answered} requests failed: {failures:?}\n{}",
        first.log()
    );
    signal_process(current, "-TERM");
    while successors.iter().any(Successor::is_there) {
        assert!(Instant::now() < end, "the last one does not end: {}", first.log());
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(first.ended(), 0);
    println!("{answered} requests over {UPGRADES} upgrades in place, none failed");
}

#[test]
fn a_successor_that_fails_leaves_the_node_with_its_predecessor() {
    let file = configuration("");
    let server = Server::start(&["--config", file.path().to_str().unwrap()]);
    let program = server.dir.path().join("hotswap");
    install(&program);
    let agent = agent(&server, &program);
    server.eventually(&["nodes"], "node-1");
    push(&server);
    deploy(&server, "2.0.0");
    let customers = Customers::start(&agent.url, &HABITS);

    // A new version that does not even start.
    install_script(&program, "#!/bin/sh\nexit 3\n");
    agent.signal("-USR2");
    agent.eventually_logs("the successor ended");
    customers.go_on(200);

    // One that gets the socket and never gets ready.
    let knock = |words: &[(&str, &str)]| {
        let mut stream = UnixStream::connect(data(&server).join("takeover.sock")).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        let mut answers = BufReader::new(stream.try_clone().unwrap());
        for (said, answer) in words {
            stream.write_all(format!("{said}\n").as_bytes()).unwrap();
            let mut line = String::new();
            answers.read_line(&mut line).unwrap();
            assert_eq!(line.trim_end(), *answer);
        }
    };
    knock(&[("takeover 1", "listener")]);
    agent.eventually_logs(r#"ended before it said \"prepared\""#);
    customers.go_on(200);

    // One that dies after the node was handed to it: the predecessor boots beside its own ingress.
    knock(&[("takeover 1", "listener"), ("prepared", "yours")]);
    agent.eventually_logs(r#"ended before it said \"serving\""#);
    customers.go_on(500);
    deploy(&server, "2.1.0");
    assert_eq!(version(&agent.url), "2.1.0");
    let (answered, failures) = customers.stop();
    assert!(
        failures.is_empty(),
        "of {answered} requests failed: {failures:?}\n{}",
        agent.log()
    );
    assert_eq!(agent.stop(), 0);
}
