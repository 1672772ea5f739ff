//! A configuration that changes while a server runs.

use super::{ENVIRONMENTS, configuration};
use crate::fleet::Server;
use crate::support::hotswap;

#[test]
fn a_server_takes_up_what_it_can_and_keeps_all_of_the_old_where_the_new_is_faulty() {
    let file = configuration("[log]\nfilter = \"info\"\n");
    let path = file.path().to_str().unwrap().to_owned();
    let server = Server::start(&["--config", &path]);
    let write = |more: &str| std::fs::write(&path, format!("{more}{ENVIRONMENTS}")).unwrap();

    write("[log]\nfilter = \"info\"\n[server]\nheartbeat = \"7s\"\n");
    server.process.signal("-HUP");
    let line = server.process.eventually_logs("these keys take a restart");
    assert!(line.contains("server.heartbeat"), "{line}");

    write("[log]\nfliter = \"info\"\n");
    server.process.signal("-HUP");
    let line = server.process.eventually_logs("did you mean filter?");
    assert!(line.contains("what was in force stays"), "{line}");

    let second = "[[environments]]\nname = \"Overseas\"\nstrategy = { type = \"Direct\" }\n";
    std::fs::write(&path, format!("{ENVIRONMENTS}\n{second}")).unwrap();
    server.process.signal("-HUP");
    server.eventually(&["clusters"], "Overseas");

    // Limits and origins hold from the next request on; a faulty one changes nothing.
    write("[server]\ncors-origins = [\"ops.example.com/x\"]\n");
    server.process.signal("-HUP");
    let line = server.process.eventually_logs("server.cors-origins is");
    assert!(line.contains("what was in force stays"), "{line}");
    let second = format!("[server.rate-limits]\nclusters = 7\n{ENVIRONMENTS}\n{second}");
    std::fs::write(&path, &second).unwrap();
    server.process.signal("-HUP");
    let line = server.process.eventually_logs("server.rate-limits.clusters");
    assert!(line.contains("was reloaded"), "{line}");

    // What nodes belong to can't be left out; the old stays.
    let _agent = server.agent("node-1", "Overseas");
    server.eventually(&["nodes"], "node-1");
    std::fs::write(&path, ENVIRONMENTS).unwrap();
    server.process.signal("-HUP");
    server.process.eventually_logs("Overseas has nodes or modules");
    server.run(&["clusters"]).exits(0).shows(&["Overseas"]);
}

#[test]
fn doctor_looks_at_everything_and_says_what_to_do() {
    let server = Server::start(&[]);
    let data = server.dir.path().join("server");
    let doctor = |url: &str, data: &std::path::Path| -> crate::support::Ran {
        let mut command = hotswap();
        command.args(["doctor", "--server", url, "-o", "json", "--set"]);
        command.arg(format!("server.data={}", data.display()));
        command.output().unwrap().into()
    };
    let ran = doctor(&server.process.url, &data);
    let findings = ran.json();
    let of = |what: &str| {
        let findings = findings.as_array().unwrap();
        findings
            .iter()
            .find(|finding| finding["check"] == what)
            .unwrap_or_else(|| panic!("{what}: {findings:?}"))
    };
    for what in [
        "kernel",
        "memory",
        "clock",
        "BTF",
        "bpffs",
        "cgroups",
        "KVM",
        "API's port",
        "server's disk",
    ] {
        assert!(!of(what)["found"].as_str().unwrap().is_empty());
    }
    assert_eq!(of("server")["level"], "ok", "{}", of("server"));
    assert_eq!(of("server's data")["level"], "ok", "{}", of("server's data"));

    // A damaged store fails, with the way out.
    let other = server.dir.path().join("other");
    std::fs::create_dir(&other).unwrap();
    std::fs::write(other.join("hotswap.db"), [7; 4096]).unwrap();
    let ran = doctor("http://127.0.0.1:1", &other).exits(1);
    let findings = ran.json();
    let findings = findings.as_array().unwrap();
    let data = findings
        .iter()
        .find(|finding| finding["check"] == "server's data")
        .unwrap();
    assert_eq!(data["level"], "fail");
    assert!(data["next"].as_str().unwrap().contains("hotswap restore"));
}
