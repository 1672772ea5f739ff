//! What happens to a node's files, and what a node makes of it.

use std::fs;
use std::path::PathBuf;

use bytes::Bytes;
use hotswap_agent::AgentError;
use hotswap_core::report::ReleaseStatus;
use hotswap_package::Package;

use crate::support::{Does, Node, Server, package, serves};
use crate::traffic::{client, get};

fn ok(version: &str) -> (u16, String) {
    (200, version.to_owned())
}

/// A node that serves 1.0.0, stopped in order.
async fn stopped_node() -> (Server, Node, Package) {
    let (server, node) = (Server::start().await, Node::new());
    let v1 = package("1.0.0", Does::Answers);
    server.plane.add(&v1);
    server
        .plane
        .say(server.plane.spec(1, &[serves(1, &[(&v1, 100)])]));
    let agent = node.start(&server.url()).await;
    server
        .plane
        .until("the commit", |plane| plane.status()?.committed)
        .await;
    agent.shutdown().await;
    (server, node, v1)
}

fn package_file(node: &Node, package: &Package) -> PathBuf {
    node.dir
        .path()
        .join(format!("packages/{}.hsm", package.digest.hex()))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_ledger_is_kept_aside_and_the_node_serves_by_the_one_before() {
    let (server, node, v1) = stopped_node().await;
    let url = server.url();
    let plane = server.stop().await;
    let ledger = node.dir.path().join("ledger");
    let whole = fs::read(&ledger).unwrap();
    fs::write(&ledger, &whole[..whole.len() / 2]).unwrap();
    let agent = node.start(&url).await;
    assert_eq!(get(&client(), agent.ingress_addr(), "/ok").await, ok("1.0.0"));
    assert!(node.dir.path().join("ledger.damaged-1").exists());
    agent.shutdown().await;

    // With both gone it serves nothing until the server says what; the package is still here.
    fs::write(&ledger, "").unwrap();
    fs::write(node.dir.path().join("ledger.before"), "x").unwrap();
    let agent = node.start(&url).await;
    assert_eq!(get(&client(), agent.ingress_addr(), "/ok").await.0, 404);
    let addr = url.trim_start_matches("http://").parse().unwrap();
    let server = Server::again(plane, addr).await;
    server.plane.until_routed(&[(&v1, 100)]).await;
    assert_eq!(server.plane.fetches().len(), 1);
    agent.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_package_is_noticed_and_fetched_again() {
    let (server, node, v1) = stopped_node().await;
    let file = package_file(&node, &v1);
    let mut bytes = fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&file, bytes).unwrap();
    let agent = node.start(&server.url()).await;
    assert_eq!(get(&client(), agent.ingress_addr(), "/ok").await, ok("1.0.0"));
    assert_eq!(server.plane.fetches(), [(v1.digest, 0), (v1.digest, 0)]);
    assert_eq!(fs::read(&file).unwrap(), v1.file);
    agent.shutdown().await;
}

/// A release that fails to come, while 1.0.0 serves; its reason.
async fn reason_of_failure(server: &Server, node: &Node, v1: &Package, v2: &Package, seq: u64) -> String {
    let agent = node.start(&server.url()).await;
    server
        .plane
        .say(server.plane.spec(seq, &[serves(seq, &[(v2, 100)])]));
    let reason = server.plane.until("the failure", |plane| {
        match plane.status()?.releases.get(&v2.digest)? {
            ReleaseStatus::Failed { reason } => Some(reason.clone()),
            _ => None,
        }
    });
    let reason = reason.await;
    server.plane.until_routed(&[(v1, 100)]).await;
    assert_eq!(get(&client(), agent.ingress_addr(), "/ok").await, ok("1.0.0"));
    agent.shutdown().await;
    reason
}

#[tokio::test(flavor = "multi_thread")]
async fn other_bytes_than_the_digests_are_refused() {
    let (server, node, v1) = stopped_node().await;
    let v2 = package("2.0.0", Does::Answers);
    server
        .plane
        .add_as(v2.digest, package("6.6.6", Does::Answers).file);
    let reason = reason_of_failure(&server, &node, &v1, &v2, 2).await;
    assert!(
        reason.contains("the server sent other bytes than asked for"),
        "{reason}"
    );
    assert!(!package_file(&node, &v2).exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_package_of_another_module_version_or_no_package_is_refused() {
    let (server, node, v1) = stopped_node().await;
    let component = hotswap_runtime::testing::component("2.0.0");
    let other_module = crate::support::package_of("other-module", "2.0.0", &component);
    server.plane.add(&other_module);
    let reason = reason_of_failure(&server, &node, &v1, &other_module, 3).await;
    assert!(
        reason.contains("is of module other-module, not greeter"),
        "{reason}"
    );

    // The spec says 3.0.0, the package 2.0.0.
    let v2 = package("2.0.0", Does::Answers);
    server.plane.add(&v2);
    let mut claimed = v2.clone();
    claimed.manifest.version = "3.0.0".parse().unwrap();
    let reason = reason_of_failure(&server, &node, &v1, &claimed, 4).await;
    assert!(reason.contains("is version 2.0.0, not 3.0.0"), "{reason}");

    let garbage = Bytes::from_static(b"not a package at all");
    let mut nothing = v2.clone();
    nothing.digest = hotswap_package::digest_of(&garbage);
    server.plane.add_as(nothing.digest, garbage);
    let reason = reason_of_failure(&server, &node, &v1, &nothing, 5).await;
    assert!(reason.contains("not a package"), "{reason}");

    let broken =
        crate::support::package_of("greeter", "2.0.0", b"\0asm\x0d\0\x01\0 and nothing that follows");
    server.plane.add(&broken);
    let reason = reason_of_failure(&server, &node, &v1, &broken, 6).await;
    assert!(reason.contains("component"), "{reason}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_fetch_goes_on_where_it_ended() {
    let (server, node) = (Server::start().await, Node::new());
    let v1 = package("1.0.0", Does::Answers);
    server.plane.add(&v1);
    server.plane.break_after(3_000);
    server
        .plane
        .say(server.plane.spec(1, &[serves(1, &[(&v1, 100)])]));
    let agent = node.start(&server.url()).await;
    server.plane.until_routed(&[(&v1, 100)]).await;
    let offsets: Vec<u64> = server.plane.fetches().iter().map(|(_, offset)| *offset).collect();
    assert!(matches!(offsets[..], [0, 1..=3_000]), "{offsets:?}");
    assert_eq!(fs::read(package_file(&node, &v1)).unwrap(), v1.file);
    agent.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn packages_that_nothing_names_are_removed() {
    let (server, node, v1) = stopped_node().await;
    let v2 = package("2.0.0", Does::Answers);
    server.plane.add(&v2);
    let agent = node.start(&server.url()).await;
    let mut prefetching = serves(2, &[(&v1, 100)]);
    prefetching.prefetch = vec![v2.digest];
    server.plane.say(server.plane.spec(2, &[prefetching]));
    let prefetched = |plane: &crate::support::Plane| {
        let status = plane.status()?;
        matches!(status.releases.get(&v2.digest), Some(ReleaseStatus::Prefetched)).then_some(status)
    };
    let status = server.plane.until("the prefetch", prefetched).await;
    assert_eq!(status.routes, [(v1.digest, 100)]);
    server
        .plane
        .say(server.plane.spec(3, &[serves(3, &[(&v2, 100)])]));
    server.plane.until_routed(&[(&v2, 100)]).await;
    assert_eq!(
        server.plane.fetches().len(),
        2,
        "what was prefetched is not fetched again"
    );
    let gone = package_file(&node, &v1);
    server
        .plane
        .until("the removal", |_| (!gone.exists()).then_some(()))
        .await;
    assert!(package_file(&node, &v2).exists());
    agent.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_keeps_an_agent_from_starting_is_said_with_what_to_do() {
    let (server, node) = (Server::start().await, Node::new());
    let agent = node.start(&server.url()).await;
    let in_use = node.try_start(&server.url()).await.unwrap_err();
    assert!(matches!(in_use, AgentError::Folder(_)), "{in_use}");
    assert!(in_use.to_string().contains("in use by another agent"), "{in_use}");

    let other = Node::new();
    let mut config = other.config(&server.url());
    config.listen = agent.ingress_addr();
    let port = hotswap_agent::Agent::start(config, other.host.clone())
        .await
        .unwrap_err()
        .to_string();
    assert!(
        port.contains("the ingress can't listen on 127.0.0.1:") && port.contains("set another one"),
        "{port}"
    );

    let file = other.dir.path().join("file");
    fs::write(&file, "").unwrap();
    let mut config = other.config(&server.url());
    config.data_dir = file.join("node");
    let unusable = hotswap_agent::Agent::start(config, other.host.clone())
        .await
        .unwrap_err()
        .to_string();
    assert!(unusable.contains("can't be used"), "{unusable}");

    let mut config = other.config("nonsense");
    config.data_dir = other.dir.path().join("unused");
    let config = hotswap_agent::Agent::start(config, other.host.clone())
        .await
        .unwrap_err()
        .to_string();
    assert!(config.starts_with("`server` is \"nonsense\""), "{config}");
    server
        .plane
        .until("a session", |plane| (!plane.reports().is_empty()).then_some(()))
        .await;
    agent.shutdown().await;

    let mut config = node.config(&server.url());
    config.node = "node-2".parse().unwrap();
    server.plane.say(server.plane.spec(1, &[]));
    let agent = node.start(&server.url()).await;
    server
        .plane
        .until("the spec", |plane| {
            (plane.reports().last()?.highest.seq == 1).then_some(())
        })
        .await;
    agent.shutdown().await;
    let other_node = hotswap_agent::Agent::start(config, node.host.clone())
        .await
        .unwrap_err()
        .to_string();
    assert!(
        other_node.contains("is of node node-1, and this is node node-2"),
        "{other_node}"
    );
}
