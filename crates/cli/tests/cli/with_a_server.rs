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
    .exits(1);
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
    .says(&["http://"]);
    let file = format!("{other}-environments.json");
    std::fs::write(&file, "[]").unwrap();
    run(&["server", "--data", other, "--environments", &file])
        .exits(2)
        .says(&["environments"]);
    std::fs::remove_file(file).unwrap();
}
