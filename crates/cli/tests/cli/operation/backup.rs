//! A server that is backed up, destroyed, restored and adopted, under load.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::customers::{Customers, Habit, version};
use super::{configuration, deploy, push};
use crate::fleet::{DEADLINE, Server};
use crate::support::run;

const NODES: [&str; 2] = ["node-1", "node-2"];
/// Deployments before the backup, at least.
const DEPLOYMENTS: usize = 4;

fn ids(server: &Server) -> Vec<String> {
    let list = server
        .run(&["deployments", "--limit", "1000", "-o", "json"])
        .exits(0)
        .json();
    let ids = list
        .as_array()
        .unwrap()
        .iter()
        .map(|row| row["executionId"].as_str().unwrap().to_owned());
    ids.collect()
}

#[test]
fn a_server_destroyed_under_load_comes_back_from_its_backup_and_adopts_its_nodes() {
    let file = configuration("");
    let mut server = Server::start(&["--config", file.path().to_str().unwrap()]);
    let agents = NODES.map(|node| server.agent(node, "Production"));
    for node in NODES {
        server.eventually(&["nodes"], node);
    }
    push(&server);
    deploy(&server, "2.0.0");
    let customers: Vec<Customers> = agents
        .iter()
        .map(|agent| Customers::start(&agent.url, &[Habit::Keeps, Habit::Anew]))
        .collect();

    // The backup is made in the middle of deployments: what was answered before it began is in it.
    let folder = server.dir.path().join("backups");
    std::fs::create_dir(&folder).unwrap();
    let data = server.dir.path().join("server");
    let (enough, backed_up) = (AtomicBool::new(false), AtomicBool::new(false));
    let (backup, before) = std::thread::scope(|scope| {
        let deploying = scope.spawn(|| {
            let mut done = 0;
            for version in ["2.1.0", "2.0.0"].into_iter().cycle() {
                deploy(&server, version);
                done += 1;
                enough.store(done >= DEPLOYMENTS, Ordering::Relaxed);
                if backed_up.load(Ordering::Relaxed) && version == "2.0.0" {
                    return;
                }
            }
        });
        while !enough.load(Ordering::Relaxed) {
            assert!(!deploying.is_finished(), "a deployment failed");
            std::thread::sleep(Duration::from_millis(10));
        }
        let before = ids(&server);
        let backup = run(&[
            "backup",
            "--data",
            data.to_str().unwrap(),
            "--to",
            folder.to_str().unwrap(),
            "-o",
            "json",
        ])
        .exits(0)
        .json();
        backed_up.store(true, Ordering::Relaxed);
        deploying.join().unwrap();
        (backup, before)
    });
    assert!(
        backup["deployments"].as_u64().unwrap() >= before.len() as u64,
        "{backup}"
    );
    // What the nodes are told after the backup makes them know more than it does.
    deploy(&server, "2.1.0");

    server.kill();
    std::fs::remove_dir_all(&data).unwrap();
    for customers in &customers {
        customers.go_on(200);
    }
    let path = backup["path"].as_str().unwrap();
    run(&["restore", path, "--data", data.to_str().unwrap()])
        .exits(0)
        .shows(&["restored", "hotswap adopt"]);
    run(&["restore", path, "--data", data.to_str().unwrap()])
        .exits(2)
        .says(&["is not empty"]);
    server.restart();
    let after = ids(&server);
    let lost: Vec<&String> = before.iter().filter(|id| !after.contains(id)).collect();
    assert!(lost.is_empty(), "lost: {lost:?}");

    // Both nodes are ahead: the server says so and tells them nothing.
    for node in NODES {
        let line = server
            .process
            .eventually_logs(&format!("\"node\":\"{node}\",\"node_epoch\""));
        assert!(line.contains("hotswap adopt") && line.contains("ERROR"), "{line}");
    }
    for customers in &customers {
        customers.go_on(200);
    }
    for agent in &agents {
        assert_eq!(
            version(&agent.url),
            "2.1.0",
            "a node that is ahead was told something"
        );
    }
    server
        .run(&["adopt"])
        .exits(0)
        .shows(&["is adopted under epoch", "2 nodes"]);
    server.run(&["adopt"]).exits(2).says(&["nothing to adopt"]);
    // Now they follow the restored log, and it can go on.
    deploy(&server, "2.0.0");
    let end = Instant::now() + DEADLINE;
    for agent in &agents {
        while version(&agent.url) != "2.0.0" {
            assert!(Instant::now() < end, "{}", server.process.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    deploy(&server, "2.1.0");
    for agent in &agents {
        assert_eq!(version(&agent.url), "2.1.0");
    }
    let mut total = 0;
    for customers in customers {
        let (answered, failures) = customers.stop();
        assert!(failures.is_empty(), "of {answered} requests failed: {failures:?}");
        total += answered;
    }
    println!(
        "{total} requests, none failed; {} deployments of before the backup, none lost; backup: {} bytes",
        before.len(),
        backup["bytes"]
    );
}

#[test]
fn what_is_no_whole_backup_is_refused_and_leaves_nothing() {
    let server = Server::start(&[]);
    push(&server);
    let dir = server.dir.path();
    let (data, file, to) = (dir.join("server"), dir.join("one.tar"), dir.join("restored"));
    let to_text = to.to_str().unwrap();
    run(&[
        "backup",
        "--data",
        data.to_str().unwrap(),
        "--to",
        file.to_str().unwrap(),
    ])
    .exits(0)
    .shows(&["backed up", "next: `hotswap restore"]);
    let whole = std::fs::read(&file).unwrap();
    let refuse = |bytes: &[u8], why: &str| {
        std::fs::write(&file, bytes).unwrap();
        run(&["restore", file.to_str().unwrap(), "--data", to_text])
            .exits(2)
            .says(&["is no whole backup", why]);
        assert!(!to.exists());
    };
    refuse(&whole[..whole.len() / 2], "");
    refuse(b"something else", "");
    let mut damaged = whole.clone();
    // Within the database, which comes first.
    damaged[4_096] ^= 1;
    refuse(&damaged, "is damaged");
    std::fs::write(&file, &whole).unwrap();
    run(&["restore", file.to_str().unwrap(), "--data", to_text]).exits(0);
    run(&[
        "backup",
        "--data",
        dir.to_str().unwrap(),
        "--to",
        file.to_str().unwrap(),
    ])
    .exits(2)
    .says(&["holds no server's data"]);
}
