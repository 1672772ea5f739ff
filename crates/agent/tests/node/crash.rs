//! Nodes that are processes of their own: killed at any point, or on a full disk.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use hotswap_agent::{Agent, AgentConfig};
use hotswap_core::report::ReleaseStatus;
use hotswap_trust::Gate;

use crate::support::{Does, Plane, Server, host, package, package_of, serves};
use crate::traffic::{client, get};

const SERVER: &str = "HOTSWAP_TEST_SERVER";
const DIR: &str = "HOTSWAP_TEST_DIR";

/// The process that is killed: this test binary, running this alone.
#[test]
#[ignore = "other tests run it as a process of its own"]
fn a_node_as_a_process() {
    let server = std::env::var(SERVER).expect("set by the test that runs this");
    let dir = std::env::var(DIR).expect("set by the test that runs this");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let config = AgentConfig {
            gate: Gate::default().allowing_unsigned(),
            ..AgentConfig::new("node-1".parse().unwrap(), "QA".parse().unwrap(), server, dir)
        };
        let agent = Agent::start(config, host()).await.unwrap();
        println!("\ningress {}", agent.ingress_addr());
        // The one that started it ends it, and so does its end.
        let mut line = String::new();
        tokio::task::spawn_blocking(move || std::io::stdin().read_line(&mut line))
            .await
            .unwrap()
            .unwrap();
        agent.shutdown().await;
    });
}

struct Process {
    child: Child,
    ingress: SocketAddr,
}

impl Process {
    fn start(server: &str, dir: &Path, wrapper: &[&str]) -> Self {
        let exe = std::env::current_exe().unwrap();
        let exe = exe.to_str().unwrap();
        let args = [
            exe,
            "crash::a_node_as_a_process",
            "--exact",
            "--ignored",
            "--nocapture",
        ];
        let mut words = wrapper.iter().copied().chain(args);
        let mut child = Command::new(words.next().unwrap())
            .args(words)
            .env(SERVER, server)
            .env(DIR, dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let said = lines.find_map(|line| line.unwrap().strip_prefix("ingress ").map(str::to_owned));
        let ingress = said.expect("the node starts").parse().unwrap();
        Self { child, ingress }
    }

    /// SIGKILL.
    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Random enough, and printed: which moment is hit differs from machine to machine anyway.
fn draws(seed: u64) -> impl FnMut(u64) -> u64 {
    let mut state = seed | 1;
    move |below| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % below
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_killed_at_any_point_serves_one_whole_release_after() {
    let (server, dir) = (Server::start().await, tempfile::tempdir().unwrap());
    let versions = [package("1.0.0", Does::Answers), package("2.0.0", Does::Answers)];
    versions.iter().for_each(|version| server.plane.add(version));
    server
        .plane
        .say(server.plane.spec(1, &[serves(1, &[(&versions[0], 100)])]));
    let mut process = Process::start(&server.url(), dir.path(), &[]);
    // From here on there is always a release to return to, also after too many failed boots on trial.
    server
        .plane
        .until("the commit", |plane| plane.status()?.committed)
        .await;
    let seed = u64::from(std::process::id());
    println!("seed {seed}");
    let mut draw = draws(seed);
    for round in 2..=12 {
        server.plane.say(
            server
                .plane
                .spec(round, &[serves(round, &[(&versions[(round % 2) as usize], 100)])]),
        );
        tokio::time::sleep(Duration::from_millis(draw(60))).await;
        process.kill();
        process = Process::start(&server.url(), dir.path(), &[]);
        let answer = get(&client(), process.ingress, "/ok").await;
        assert!(
            answer.0 == 200 && (answer.1 == "1.0.0" || answer.1 == "2.0.0"),
            "round {round}: {answer:?}"
        );
        let damaged = std::fs::read_dir(dir.path()).unwrap().flatten();
        assert!(
            damaged
                .map(|entry| entry.file_name())
                .all(|name| !name.to_string_lossy().contains("damaged"))
        );
    }
    server
        .plane
        .say(server.plane.spec(20, &[serves(20, &[(&versions[1], 100)])]));
    server.plane.until_routed(&[(&versions[1], 100)]).await;
    assert_eq!(
        get(&client(), process.ingress, "/ok").await,
        (200, "2.0.0".to_owned())
    );
}

fn failure(plane: &Plane, package: &hotswap_package::Package) -> Option<String> {
    match plane.status()?.releases.get(&package.digest)? {
        ReleaseStatus::Failed { reason } => Some(reason.clone()),
        _ => None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_leaves_what_runs_and_the_ledger() {
    let can_mount = Command::new("unshare")
        .args(["-Urm", "true"])
        .stderr(Stdio::null())
        .status();
    if !can_mount.is_ok_and(|status| status.success()) {
        println!("skipped: no file system can be mounted here");
        return;
    }
    let (server, dir) = (Server::start().await, tempfile::tempdir().unwrap());
    let v1 = package("1.0.0", Does::Answers);
    let mut component = hotswap_runtime::testing::component("2.0.0");
    // A custom section of 2 MiB: its size and its name's in LEB128.
    component.extend([0, 0x82, 0x80, 0x80, 0x01, 1, b'x']);
    component.resize(component.len() + (2 << 20), 7);
    let large = package_of("greeter", "2.0.0", &component);
    [&v1, &large]
        .into_iter()
        .for_each(|version| server.plane.add(version));
    server
        .plane
        .say(server.plane.spec(1, &[serves(1, &[(&v1, 100)])]));
    let mount = r#"mount -t tmpfs -o size=1m tmpfs "$HOTSWAP_TEST_DIR" && exec "$0" "$@""#;
    let process = Process::start(&server.url(), dir.path(), &["unshare", "-Urm", "sh", "-c", mount]);
    server
        .plane
        .until("the commit", |plane| plane.status()?.committed)
        .await;

    server
        .plane
        .say(server.plane.spec(2, &[serves(2, &[(&large, 100)])]));
    let reason = server
        .plane
        .until("the failure", |plane| failure(plane, &large))
        .await;
    assert!(reason.contains("the disk is full"), "{reason}");
    assert_eq!(
        get(&client(), process.ingress, "/ok").await,
        (200, "1.0.0".to_owned())
    );
    assert_eq!(server.plane.status().unwrap().routes, [(v1.digest, 100)]);
    // The ledger can still be written: a later spec is accepted for good.
    server
        .plane
        .say(server.plane.spec(3, &[serves(3, &[(&v1, 100)])]));
    server
        .plane
        .until("the acceptance", |plane| {
            (plane.reports().last()?.highest.seq == 3).then_some(())
        })
        .await;
    assert_eq!(
        get(&client(), process.ingress, "/ok").await,
        (200, "1.0.0".to_owned())
    );
}
