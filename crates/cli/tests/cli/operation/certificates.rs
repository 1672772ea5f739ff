//! Nodes' certificates while customers are served: renewed, revoked, and got anew.

use std::time::{Duration, Instant};

use super::customers::{Customers, Habit};
use super::{configuration, deploy, push};
use crate::fleet::{DEADLINE, Process, Server};
use crate::support::{Ran, hotswap, run};

/// Short, so that a test sees many renewals.
const LIFETIME: &str = "5s";
/// Renewals under load.
const RENEWALS: usize = 5;

fn certificate(server: &Server) -> serde_json::Value {
    let shown = server
        .run(&["nodes", "show", "node-1", "-o", "json"])
        .exits(0)
        .json();
    shown["certificate"].clone()
}

/// An agent's command, for tokens that it has or lacks.
fn agent_with(server: &Server, node: &str, token: Option<&str>) -> std::process::Command {
    let data = server.dir.path().join(node);
    let mut command = hotswap();
    command.args(["agent", "--node", node, "--environment", "Production"]);
    command.args(["--server", &server.agents, "--ingress", "127.0.0.1:0"]);
    command.args(["--data", data.to_str().unwrap()]);
    if let Some(token) = token {
        command.env("HOTSWAP_JOIN_TOKEN", token);
    }
    command
}

#[test]
fn certificates_are_renewed_under_load_and_nobody_notices() {
    let file = configuration("");
    let server = Server::start(&[
        "--config",
        file.path().to_str().unwrap(),
        "--node-certificate-lifetime",
        LIFETIME,
    ]);
    let agent = server.agent("node-1", "Production");
    server.eventually(&["nodes"], "node-1");
    push(&server);
    deploy(&server, "2.0.0");
    let customers = Customers::start(&agent.url, &[Habit::Keeps, Habit::Keeps, Habit::Anew]);
    let (begun, mut serials) = (Instant::now(), std::collections::BTreeSet::new());
    while serials.len() <= RENEWALS {
        assert!(begun.elapsed() < DEADLINE, "{serials:?}\n{}", agent.log());
        let of = certificate(&server);
        assert_eq!(of["state"], "Valid", "{of:#}\n{}", agent.log());
        serials.insert(of["serial"].as_str().unwrap().to_owned());
        customers.go_on(50);
    }
    // Still by its first session, it takes a deployment.
    deploy(&server, "2.1.0");
    let (answered, failures) = customers.stop();
    assert!(failures.is_empty(), "of {answered} requests failed: {failures:?}");
    let log = agent.log();
    assert!(!log.contains("no session with the server"), "{log}");
    let connected = server.process.log().matches("\"connected\"").count();
    assert_eq!(connected, 1, "{}", server.process.log());
    println!("{RENEWALS} renewals, {answered} requests, none failed, one session");

    // Revoked, it serves on, is let in no more, and comes back by a new token.
    let customers = Customers::start(&agent.url, &[Habit::Keeps]);
    server
        .run(&["node", "revoke", "node-1"])
        .exits(0)
        .shows(&["let in no more"]);
    agent.eventually_logs("certificate_revoked");
    customers.go_on(200);
    let (_, failures) = customers.stop();
    assert!(failures.is_empty(), "{failures:?}");
    // Its token is one for many, and lets others in: not the node that was revoked. The file is read at every try.
    agent.eventually_logs("join_token_barred");
    std::fs::remove_file(server.join_token("Production")).unwrap();
    server.join_token("Production");
    agent.eventually_logs("joined: this node has a certificate of its own");
    server.eventually(&["nodes", "show", "node-1"], "valid");
    // And by that certificate it has a session: the line of the revoked one, which stands, is left.
    let begun = Instant::now();
    while server.process.log().matches("\"connected\"").count() < 2 {
        assert!(begun.elapsed() < DEADLINE, "{}", agent.log());
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(agent.stop(), 0);
}

#[test]
fn an_agent_that_can_not_join_says_why_and_what_to_do() {
    let file = configuration("");
    let server = Server::start(&["--config", file.path().to_str().unwrap()]);
    let create = |more: &[&str]| {
        let words = [&["node", "token", "create", "--env", "production"], more].concat();
        server.run(&words).exits(0).stdout.trim().to_owned()
    };
    // Nothing to join by.
    let nothing = agent_with(&server, "node-1", None).output().unwrap();
    Ran::from(nothing)
        .exits(1)
        .says(&["hotswap node token create --env Production", "--join-token-file"]);
    let faulty = agent_with(&server, "node-1", Some("hsj_something"))
        .output()
        .unwrap();
    Ran::from(faulty)
        .exits(2)
        .says(&["HOTSWAP_JOIN_TOKEN", "not a join token"]);
    // Plain HTTP is for this machine alone.
    run(&[
        "agent",
        "--node",
        "node-1",
        "--environment",
        "Production",
        "--server",
        "http://192.0.2.1:5002",
    ])
    .exits(2)
    .says(&["without TLS", "https://"]);
    // A single-use token lets one in; the other hears why not.
    let token = create(&["--node", "node-*"]);
    let first = Process::start_command(&mut agent_with(&server, "node-1", Some(&token)));
    server.eventually(&["nodes"], "node-1");
    let second = Process::start_command(&mut agent_with(&server, "node-2", Some(&token)));
    second.eventually_logs("join_token_used_up");
    assert!(!second.log().contains(&token), "a token is no business of a log");
    // The server that a token doesn't name is not spoken to.
    let (start, _) = token.rsplit_once('.').unwrap();
    let twisted = format!("{start}.{}", "0".repeat(64));
    let third = Process::start_command(&mut agent_with(&server, "node-3", Some(&twisted)));
    third.eventually_logs("other_authority");
    // The key is the node's alone.
    let key = server.dir.path().join("node-1/node.pem");
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(key).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    let list = server.run(&["node", "token", "list"]).exits(0);
    list.shows(&["Production", "node-*", "1 of 1", "UsedUp"]);
    let tokens = server
        .run(&["node", "token", "list", "-o", "json"])
        .exits(0)
        .json();
    let id = tokens[0]["id"].as_str().unwrap();
    server
        .run(&["node", "token", "revoke", id])
        .exits(0)
        .shows(&["revoked"]);
    server.run(&["node", "token", "revoke", id]).exits(2);
    // With its certificate a node needs no token any more.
    assert_eq!(first.stop(), 0);
    let again = Process::start_command(&mut agent_with(&server, "node-1", None));
    server.eventually(&["nodes"], "Running");
    assert_eq!(again.stop(), 0);
}
