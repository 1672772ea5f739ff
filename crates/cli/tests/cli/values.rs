//! Values that an environment gives a module: set, rolled out, judged as a release, taken back.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use hotswap_package::Package;
use hotswap_runtime::testing::hostile;

use crate::fleet::{Process, Server, trust_file};
use crate::support::hotswap;

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

/// A module that answers how many variables it finds, in one letter from `a`.
fn counter(server: &Server, version: &str) -> String {
    let manifest = format!(
        "name = \"counter\"\nversion = {version:?}\nentry = \"module.wasm\"\n[[routes]]\nprefix = \"/\"\n\
         [capabilities]\nenvironment = [\"CURRENCY\", \"PASSWORD\"]\n\
         [[smoke]]\nname = \"answers\"\npath = \"/ok\"\n"
    );
    let package = Package::assemble(manifest.as_bytes(), &hostile::component("fine")).unwrap();
    let file = server.dir.path().join(format!("counter-{version}.hsm"));
    std::fs::write(&file, &package.file).unwrap();
    file.to_str().unwrap().to_owned()
}

/// A whole answer; the request belongs to a trace.
fn ask(node: &Process, path: &str) -> String {
    let address = node.url.trim_start_matches("http://");
    let mut connection = TcpStream::connect(address).unwrap();
    let request = format!(
        "GET {path} HTTP/1.1\r\nhost: any\r\nconnection: close\r\ntraceparent: 00-{TRACE}-00f067aa0ba902b7-00\r\n\r\n"
    );
    connection.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    connection.read_to_string(&mut answer).unwrap();
    answer
}

/// The body of `/vars`, and the release that answered.
fn variables(node: &Process) -> (String, String) {
    let answer = ask(node, "/vars");
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let release = head
        .lines()
        .find_map(|line| line.strip_prefix("x-hotswap-release: "))
        .unwrap_or_default();
    let letter = body.chars().find(char::is_ascii_lowercase).unwrap_or('?');
    (letter.to_string(), release.to_owned())
}

#[test]
fn values_reach_the_module_by_a_deployment_and_a_rollback_brings_the_former_ones_back() {
    let server = Server::start(&[]);
    let secrets = server.dir.path().join("secrets");
    std::fs::create_dir_all(secrets.join("counter")).unwrap();
    std::fs::write(secrets.join("counter/db"), "s3cret\n").unwrap();
    let data = server.dir.path().join("dev-1");
    let node = Process::start_command(hotswap().args([
        "agent",
        "--node=dev-1",
        "--environment=Development",
        "--ingress=127.0.0.1:0",
        &format!("--server={}", server.agents),
        &format!("--join-token-file={}", server.join_token("Development")),
        &format!("--data={}", data.display()),
        &format!("--trust={}", trust_file(&server.dir)),
        &format!("--set=agent.secrets={}", secrets.display()),
    ]));
    server.push(&counter(&server, "1.0.0")).exits(0);
    let deploy = ["deploy", "counter", "1.0.0", "--to", "Development", "--watch"];
    server
        .run(&deploy)
        .exits(1)
        .shows(&["does not grant the variable CURRENCY"]);

    let set = |values: &[&str]| {
        let mut words = vec!["config", "set", "counter"];
        words.extend(values);
        words.extend(["--env", "development"]);
        server.run(&words)
    };
    set(&["CURRENCY=EUR", "PASSWORD=file:db"]).exits(0).shows(&[
        "CURRENCY",
        "EUR",
        "file:db",
        "values 1 of counter in Development",
    ]);
    server.run(&deploy).exits(0);
    assert_eq!(variables(&node), ("c".to_owned(), "counter/1.0.0@1".to_owned()));

    // A secret that no node has: the node says so, and nothing changes for anybody.
    set(&["PASSWORD=file:none"]).exits(0).shows(&[
        "values 2 of counter in Development; 1.0.0 runs there with values 1",
        "hotswap deploy counter 1.0.0 --to Development --watch",
    ]);
    set(&["CURRENCY-", "CURRENCY-"])
        .exits(2)
        .says(&["has no value CURRENCY"]);
    set(&["PASSWORD=file:db", "CURRENCY=USD"]).exits(0);
    server.run(&deploy).exits(0);
    assert_eq!(variables(&node).1, "counter/1.0.0@3");
    server
        .run(&["nodes", "show", "dev-1"])
        .exits(0)
        .shows(&["1.0.0@3"]);

    // Back to the values before, which are another release than the one that is on hold now.
    let last = server.run(&["deployments", "-o", "json"]).exits(0).json();
    let id = last[0]["executionId"].as_str().unwrap().to_owned();
    server.run(&["rollback", &id, "--watch"]).exits(0);
    assert_eq!(variables(&node).1, "counter/1.0.0@1");
    server.run(&deploy).exits(2).says(&["counter 1.0.0 is on hold"]);
    set(&["CURRENCY=CHF"]).exits(0);
    server.run(&deploy).exits(0);
    assert_eq!(variables(&node).1, "counter/1.0.0@4");

    let got = server
        .run(&["config", "get", "counter", "--env", "Development", "-o", "json"])
        .exits(0)
        .json();
    assert_eq!((&got["number"], &got["runningNumber"]), (&4.into(), &4.into()));
    // What it writes becomes lines of the node's log that say whose they are, as many as may be.
    assert!(ask(&node, "/gush").starts_with("HTTP/1.1 200"));
    let line = node.eventually_logs("\"target\":\"module\"");
    let line: serde_json::Value = serde_json::from_str(&line).unwrap();
    let of = |key: &str| line[key].as_str().unwrap_or_default().to_owned();
    assert_eq!(
        [
            of("module"),
            of("version"),
            of("node"),
            of("trace_id"),
            of("stream")
        ],
        ["counter", "1.0.0@4", "dev-1", TRACE, "stdout"].map(str::to_owned),
        "{line:#}"
    );
    assert!(ask(&node, "/gush").starts_with("HTTP/1.1 200"));
    let lines = node
        .log()
        .lines()
        .filter(|line| line.contains("\"stream\":\"stdout\""))
        .count();
    assert!(lines <= 4 * 50, "{lines} lines of 40,000 in a few seconds");
    server
        .run(&["nodes", "show", "dev-1"])
        .exits(0)
        .shows(&["modules' output", "in the agent's log"]);

    // Whoever looks at the logs finds keys, and the secret nowhere.
    let audit = server.run(&["audit", "-o", "json"]);
    for told in [node.log(), server.process.log(), audit.stdout] {
        assert!(!told.contains("s3cret"), "{told}");
    }
}
