//! The command line against a real server and real agents.

use crate::fleet::Server;
use crate::support::{example, run};

fn folder(name: &str, version: &str) -> String {
    example(name, version).to_str().unwrap().to_owned()
}

#[test]
fn modules_are_pushed_listed_and_asked_for_by_name() {
    let server = Server::start(&[]);
    server
        .run(&["module", "list"])
        .exits(0)
        .shows(&["no modules yet"]);
    let payments = folder("payment-processor", "2.0.0");
    server
        .push(&payments)
        .exits(0)
        .shows(&["pushed payment-processor 2.0.0", "sha256:"]);
    // Equal bytes again are no news.
    server.push(&payments).exits(0);
    server
        .run(&["module", "list"])
        .exits(0)
        .shows(&["MODULE", "payment-processor  2.0.0"]);
    let json = server.run(&["module", "list", "-o", "json"]).exits(0).json();
    assert_eq!(json[0]["moduleName"], "payment-processor");
    server
        .run(&["module", "list", "other"])
        .exits(2)
        .says(&["payment-processor"]);

    server
        .run(&["deploy", "payment-procesor", "2.0.0", "--to", "QA"])
        .exits(2)
        .says(&["did you mean payment-processor?"]);
    server
        .run(&["deploy", "payment-processor", "9.9.9", "--to", "QA"])
        .exits(2)
        .says(&["9.9.9", "2.0.0"]);
    server
        .run(&["deploy", "payment-processor", "2.0.0", "--to", "prodction"])
        .exits(2)
        .says(&["did you mean Production?"]);
    server
        .run(&["clusters", "stagin"])
        .exits(2)
        .says(&["did you mean Staging?"]);
    server
        .run(&["nodes", "--env", "stagin"])
        .exits(2)
        .says(&["did you mean Staging?"]);
    server
        .run(&["clusters"])
        .exits(0)
        .shows(&["Development", "Production", "no nodes"]);
    server.run(&["nodes"]).exits(0).shows(&["no nodes"]);
    server.run(&["deployments"]).exits(0).shows(&["no deployments"]);
    server
        .run(&["status", "00000000"])
        .exits(2)
        .says(&["no deployment's id begins with 00000000"]);
    assert_eq!(server.process.stop(), 0);
}

#[test]
fn a_deployment_is_followed_and_its_outcome_is_the_exit_code() {
    let server = Server::start(&[]);
    server.push(&folder("payment-processor", "2.0.0")).exits(0);

    // Without a single node the target's stage fails.
    let failed = server
        .run(&[
            "deploy",
            "payment-processor",
            "2.0.0",
            "--to",
            "Development",
            "--watch",
        ])
        .exits(1);
    failed.shows(&["Build", "Succeeded", "Deploy to Development", "Failed"]);

    let agent = server.agent("node-1", "Development");
    server.eventually(&["nodes"], "node-1");
    server
        .run(&[
            "deploy",
            "payment-processor",
            "2.0.0",
            "--to",
            "development",
            "--watch",
        ])
        .exits(0)
        .shows(&["Development: Succeeded"]);
    server.eventually(&["nodes", "--env", "development"], "payment-processor 2.0.0");

    let all = server.run(&["deployments", "-o", "json"]).exits(0).json();
    assert_eq!(all.as_array().unwrap().len(), 2);
    let newest = all[0]["executionId"].as_str().unwrap().to_owned();
    let short = &newest[..8];
    server
        .run(&["deployments", "--status", "Failed"])
        .exits(0)
        .shows(&["Failed"]);
    server
        .run(&["status", short])
        .exits(0)
        .shows(&[&newest, "Succeeded", "Direct"]);
    server.run(&["why", short]).exits(0).shows(&["is stable now"]);
    // Nothing judges a Direct rollout; a policy's faults are told all the same.
    server
        .run(&["analysis", short])
        .exits(0)
        .shows(&["no rollout of this deployment was judged"]);
    server
        .run(&["replay", short, "--set", "judge.alpha=0.05"])
        .exits(0)
        .shows(&["under judge.alpha=0.05"]);
    server
        .run(&["replay", short, "--set", "judge.alfa=0.05"])
        .exits(2)
        .says(&["there is no such setting of the judge", "tolerance_share"]);
    let json = server.run(&["status", short, "-o", "json"]).exits(0).json();
    assert_eq!(json["executionId"], newest.as_str());
    let failed = all[1]["executionId"].as_str().unwrap();
    server.run(&["status", failed]).exits(1);

    // It has ended: what steers a running one is refused with the reason.
    for verb in ["abort", "pause", "resume", "skip", "promote"] {
        server.run(&[verb, short]).exits(2);
    }
    // A first release's rollback unloads.
    server.run(&["rollback", short, "--watch"]).exits(0);
    server.run(&["rollback", short]).exits(2);
    server.run(&["status", short]).exits(1).shows(&["RolledBack"]);
    assert_eq!(agent.stop(), 0);
    assert_eq!(server.process.stop(), 0);
}

#[test]
fn what_keeps_a_server_or_a_node_from_starting_is_told() {
    let server = Server::start(&[]);
    let address = server.process.url.strip_prefix("http://").unwrap();
    let other = tempfile::tempdir().unwrap();
    let other = other.path().to_str().unwrap();
    run(&[
        "server",
        "--data",
        other,
        "--http",
        address,
        "--agents",
        "127.0.0.1:0",
    ])
    .exits(1)
    .says(&["in use", "another port"]);
    run(&[
        "server",
        "--data",
        "/proc/hotswap",
        "--http",
        "127.0.0.1:0",
        "--agents",
        "127.0.0.1:0",
    ])
    .exits(1)
    .says(&["/proc/hotswap", "writable", "another data folder"]);
    run(&["agent", "--node", "a b", "--environment", "QA"])
        .exits(2)
        .says(&["--node"]);
    run(&[
        "agent",
        "--node",
        "a",
        "--environment",
        "QA",
        "--server",
        "nowhere",
        "--data",
        other,
    ])
    .exits(2)
    .says(&["https://"]);
    let file = format!("{other}-environments.json");
    std::fs::write(&file, "[]").unwrap();
    run(&["server", "--data", other, "--environments", &file])
        .exits(2)
        .says(&["environments"]);
    std::fs::remove_file(file).unwrap();
}

#[test]
fn versions_are_shown_held_withdrawn_and_downloaded() {
    let server = Server::start(&[]);
    server.push(&folder("payment-processor", "2.0.0")).exits(0);
    server
        .run(&["module", "show", "payment-processor"])
        .exits(0)
        .shows(&["payment-processor", "2.0.0"]);
    server
        .run(&["module", "versions", "payment-procesor"])
        .exits(2)
        .says(&["did you mean payment-processor?"]);
    let (name, version) = ("payment-processor", "2.0.0");
    server
        .run(&["module", "hold", name, version, "--reason", "a hunch"])
        .exits(0)
        .shows(&["on hold"]);
    server
        .run(&["module", "versions", name])
        .exits(0)
        .shows(&["on hold: a hunch"]);
    server.run(&["module", "unhold", name, version]).exits(0);
    server
        .run(&["module", "yank", name, version, "--reason", "a leak"])
        .exits(0);
    server
        .run(&["module", "list"])
        .exits(0)
        .shows(&["withdrawn: a leak"]);
    server
        .run(&["deploy", name, version, "--to", "QA"])
        .exits(2)
        .says(&["withdrawn"]);
    server.run(&["module", "unyank", name, version]).exits(0);

    let file = server.dir.path().join("payments.hsm");
    let file = file.to_str().unwrap();
    server
        .run(&["module", "download", name, version, "-o", file])
        .exits(0)
        .shows(&["downloaded payment-processor 2.0.0", "sha256:"]);
    // What came down goes up again: equal bytes are no news.
    server.push(file).exits(0);
    server
        .run(&["module", "download", name, "9.9.9"])
        .exits(2)
        .says(&["9.9.9", "2.0.0"]);
}

#[test]
fn packages_that_nothing_needs_are_listed_and_removed() {
    let server = Server::start(&[]);
    server
        .run(&["module", "collect"])
        .exits(0)
        .shows(&["no package that nothing needs"]);
    // No release has it, and it lies there longer than a push takes.
    let orphan = server.dir.path().join("server/artifacts/ab");
    std::fs::create_dir_all(&orphan).unwrap();
    let orphan = orphan.join("ab".repeat(32));
    std::fs::write(&orphan, "nobody's").unwrap();
    let file = std::fs::File::options().write(true).open(&orphan).unwrap();
    file.set_modified(std::time::SystemTime::now() - std::time::Duration::from_hours(48))
        .unwrap();
    server
        .run(&["module", "collect", "--dry-run"])
        .exits(0)
        .shows(&["sha256:abab", "would go"]);
    assert!(orphan.exists());
    server
        .run(&["module", "collect"])
        .exits(0)
        .shows(&["sha256:abab", "removed"]);
    assert!(!orphan.exists());
}

#[test]
fn a_plan_a_drain_and_an_unloading() {
    let server = Server::start(&[]);
    let name = "payment-processor";
    server.push(&folder(name, "2.0.0")).exits(0);
    server
        .run(&["plan", name, "2.0.0", "--to", "Development"])
        .exits(1)
        .shows(&["would fail", "no nodes"]);
    let agent = server.agent("node-1", "Development");
    server.eventually(&["nodes"], "node-1");
    server
        .run(&["plan", name, "2.0.0", "--to", "development", "--seed", "7"])
        .exits(0)
        .shows(&["Direct", "node-1", "seed 7"]);
    server
        .run(&["plan", "payment-procesor", "2.0.0", "--to", "QA"])
        .exits(2)
        .says(&["did you mean payment-processor?"]);
    server
        .run(&["deploy", name, "2.0.0", "--to", "Development", "--watch"])
        .exits(0);
    let parts = ["node-1", "zone=a", "payment-processor", "100 %"];
    let shown = server.run(&["nodes", "show", "node-1"]).exits(0).shows(&parts);
    // The machine's own load is no matter of this test: other tests may keep it busy.
    let up = ["Running", "Degraded"].iter().any(|up| shown.stdout.contains(up));
    assert!(up, "{}", shown.stdout);
    server
        .run(&["nodes", "show", "node-2"])
        .exits(2)
        .says(&["did you mean node-1?"]);
    server
        .run(&["nodes", "label", "node-1", "zone=b", "rack=7"])
        .exits(0)
        .shows(&["zone=b"]);
    server
        .run(&["nodes", "label", "node-1", "zone-"])
        .exits(0)
        .shows(&["zone=a", "rack=7"]);
    server
        .run(&["nodes", "drain", "node-1", "--reason", "a new disk", "--wait"])
        .exits(0)
        .shows(&["drained: it serves nothing"]);
    server
        .run(&["nodes", "show", "node-1"])
        .exits(0)
        .shows(&["Stopped", "a new disk", "prefetched"]);
    server.run(&["nodes", "undrain", "node-1"]).exits(0);
    server.eventually(&["nodes"], "payment-processor 2.0.0");
    server
        .run(&["undeploy", name, "--from", "Development", "--watch"])
        .exits(0);
    server
        .run(&["undeploy", name, "--from", "Development"])
        .exits(2)
        .says(&["not deployed"]);
    server
        .run(&["nodes", "move", "node-1", "--to", "stagin"])
        .exits(2)
        .says(&["did you mean Staging?"]);
    server
        .run(&["nodes", "move", "node-1", "--to", "staging"])
        .exits(0)
        .shows(&["belongs to Staging"]);
    server
        .run(&["events", "--type", "NodeDrained,NodeMoved,DeploymentCompleted"])
        .exits(0)
        .shows(&["is drained", "moved node-1 to Staging", "DeploymentCompleted"]);
    let events = server.run(&["events", "--module", name, "-o", "json"]).exits(0);
    let first: serde_json::Value = serde_json::from_str(events.stdout.lines().next().unwrap()).unwrap();
    assert_eq!(first["type"], "ReleasePushed");
    assert_eq!(agent.stop(), 0);
    server.run(&["nodes", "remove", "node-1"]).exits(0);
    server.run(&["nodes"]).exits(0).shows(&["no nodes"]);
}
