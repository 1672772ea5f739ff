//! A node against a control plane: what it is told, what it serves, what it says.

mod crash;
mod disk;
mod hostile;
mod scrape;
mod support;
mod traffic;
mod trust;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hotswap_agent::Agent;
use hotswap_core::ids::{ModuleName, RolloutId};
use hotswap_core::report::ReleaseStatus;
use hotswap_core::spec::{ModuleSpec, Observe, SmokeRun, SmokeVia};
use hotswap_core::time::Millis;
use hotswap_package::Kind;
use hotswap_runtime::{Artifact, BoxFuture, PrepareError, Prepared, Runtime, WasmHost};
use support::{Does, Node, Server, module, package, release, serves};
use traffic::{Traffic, client, get};

fn ok(version: &str) -> (u16, String) {
    (200, version.to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_spec_is_fetched_loaded_served_and_reported() {
    let (server, node) = (Server::start().await, Node::new());
    let v1 = package("1.0.0", Does::Answers);
    server.plane.add(&v1);
    server
        .plane
        .say(server.plane.spec(5, &[serves(1, &[(&v1, 100)])]));
    let agent = node.start(&server.url()).await;
    server.plane.until_routed(&[(&v1, 100)]).await;
    assert_eq!(get(&client(), agent.ingress_addr(), "/ok").await, ok("1.0.0"));
    let status = server
        .plane
        .until("the commit", |plane| {
            plane.status().filter(|s| s.committed.is_some())
        })
        .await;
    assert_eq!((status.committed, status.trial), (Some(v1.digest), None));
    assert!(
        matches!(status.releases[&v1.digest], ReleaseStatus::Ready { .. }),
        "{status:?}"
    );

    let reports = server.plane.reports();
    assert!(
        reports[0]
            .hello
            .as_ref()
            .is_some_and(|hello| hello.ingress == agent.ingress_addr().to_string())
    );
    assert!(reports[1..].iter().all(|report| report.hello.is_none()));
    assert!(reports.windows(2).all(|pair| pair[0].seq < pair[1].seq));
    let beat = server
        .plane
        .until("a heartbeat", |plane| {
            plane.reports().into_iter().skip(1).find_map(|r| r.health)
        })
        .await;
    assert!(beat.memory_percent > 0.0);
    assert_eq!(agent.stats().requests, 1);
    agent.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn swaps_under_traffic_fail_no_request() {
    let (server, node) = (Server::start().await, Node::new());
    let versions = [package("1.0.0", Does::Answers), package("2.0.0", Does::Answers)];
    versions.iter().for_each(|version| server.plane.add(version));
    server
        .plane
        .say(server.plane.spec(1, &[serves(1, &[(&versions[0], 100)])]));
    let agent = node.start(&server.url()).await;
    server.plane.until_routed(&[(&versions[0], 100)]).await;
    let traffic = Traffic::start(agent.ingress_addr(), 8);
    for turn in 1..=20 {
        let (next, other) = (&versions[turn % 2], &versions[(turn + 1) % 2]);
        // Every third way there is by halves.
        if turn % 3 == 0 {
            let halves = serves(2 * turn as u64, &[(next, 50), (other, 50)]);
            server.plane.say(server.plane.spec(2 * turn as u64, &[halves]));
            server.plane.until_routed(&[(next, 50), (other, 50)]).await;
        }
        server.plane.say(server.plane.spec(
            2 * turn as u64 + 1,
            &[serves(2 * turn as u64 + 1, &[(next, 100)])],
        ));
        server.plane.until_routed(&[(next, 100)]).await;
    }
    let answers = traffic.end().await;
    assert!(
        answers
            .keys()
            .all(|answer| *answer == ok("1.0.0") || *answer == ok("2.0.0")),
        "{answers:?}"
    );
    let total = answers.values().sum::<u64>();
    println!("{total} requests over 20 swaps, all answered");
    let stats = agent.stats();
    assert_eq!((stats.requests, stats.errors, stats.cut), (total, 0, 0));
    assert_eq!(get(&client(), agent.ingress_addr(), "/ok").await, ok("1.0.0"));
    agent.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_serves_what_it_served_without_a_server() {
    let (server, node) = (Server::start().await, Node::new());
    let v1 = package("1.0.0", Does::Answers);
    server.plane.add(&v1);
    server
        .plane
        .say(server.plane.spec(1, &[serves(1, &[(&v1, 100)])]));
    let agent = node.start(&server.url()).await;
    server.plane.until_routed(&[(&v1, 100)]).await;
    let (url, addr) = (server.url(), server.addr);
    let plane = server.stop().await;
    assert_eq!(
        get(&client(), agent.ingress_addr(), "/ok").await,
        ok("1.0.0"),
        "while the server is away"
    );
    agent.shutdown().await;
    // After an orderly stop, and after a drop without one: the first request waits for the boot and is answered.
    for orderly in [true, false] {
        let agent = node.start(&url).await;
        assert_eq!(
            get(&client(), agent.ingress_addr(), "/ok").await,
            ok("1.0.0"),
            "orderly: {orderly}"
        );
        if orderly {
            agent.shutdown().await;
        } else {
            node.drop_now(agent).await;
        }
    }
    assert_eq!(plane.fetches().len(), 1);
    // The server returns, and the node finds it.
    let agent = node.start(&url).await;
    let sessions = plane.sessions();
    let server = Server::again(plane, addr).await;
    server
        .plane
        .until("a session", |plane| (plane.sessions() > sessions).then_some(()))
        .await;
    server.plane.until_routed(&[(&v1, 100)]).await;
    agent.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn older_equal_and_foreign_specs_change_nothing() {
    let (server, node) = (Server::start().await, Node::new());
    let [v1, v2] = [package("1.0.0", Does::Answers), package("2.0.0", Does::Answers)];
    [&v1, &v2]
        .into_iter()
        .for_each(|version| server.plane.add(version));
    let agent = node.start(&server.url()).await;
    server
        .plane
        .until("a session", |plane| (!plane.reports().is_empty()).then_some(()))
        .await;
    server
        .plane
        .say(server.plane.spec(5, &[serves(2, &[(&v2, 100)])]));
    server.plane.until_routed(&[(&v2, 100)]).await;
    let older = server.plane.spec(4, &[serves(1, &[(&v1, 100)])]);
    let conflicting = server.plane.spec(5, &[serves(2, &[(&v1, 100)])]);
    let mut foreign = server.plane.spec(9, &[serves(3, &[(&v1, 100)])]);
    foreign.fleet = hotswap_core::ids::FleetId(uuid::Uuid::new_v4());
    for spec in [
        older,
        conflicting,
        foreign,
        server.plane.spec(5, &[serves(2, &[(&v2, 100)])]),
    ] {
        server.plane.say(spec);
    }
    // What comes after them is taken, so they were looked at.
    server
        .plane
        .say(server.plane.spec(6, &[serves(2, &[(&v2, 100), (&v1, 0)])]));
    let status = server.plane.until("the standby", |plane| {
        plane
            .status()
            .filter(|status| matches!(status.releases.get(&v1.digest), Some(ReleaseStatus::Ready { .. })))
    });
    assert_eq!(status.await.routes, [(v2.digest, 100)]);
    assert_eq!(get(&client(), agent.ingress_addr(), "/ok").await, ok("2.0.0"));
    server.plane.say(server.plane.spec(7, &[]));
    server
        .plane
        .until("the unloading", |plane| plane.status().is_none().then_some(()))
        .await;
    assert_eq!(get(&client(), agent.ingress_addr(), "/ok").await.0, 404);
    agent.shutdown().await;
}

/// A canary at half of the requests, on trial.
fn canary(candidate: &hotswap_package::Package, stable: &hotswap_package::Package) -> ModuleSpec {
    ModuleSpec {
        trial: true,
        ..serves(7, &[(candidate, 50), (stable, 50)])
    }
}

async fn a_bad_candidate_is_left(does: Does, reason: &str) {
    let (server, node) = (Server::start().await, Node::new());
    let (v1, v2) = (package("1.0.0", Does::Answers), package("2.0.0", does));
    [&v1, &v2]
        .into_iter()
        .for_each(|version| server.plane.add(version));
    server
        .plane
        .say(server.plane.spec(1, &[serves(1, &[(&v1, 100)])]));
    let agent = node.start(&server.url()).await;
    server
        .plane
        .until("the commit", |plane| plane.status()?.committed)
        .await;
    server.plane.say(server.plane.spec(2, &[canary(&v2, &v1)]));
    server.plane.until_routed(&[(&v1, 50), (&v2, 50)]).await;
    let traffic = Traffic::start(agent.ingress_addr(), 4);
    let veto = server.plane.until("the veto", |plane| plane.vetoes().pop()).await;
    server.plane.until_routed(&[(&v1, 100)]).await;
    let answers = traffic.end().await;
    assert!(veto.reason.contains(reason), "{veto:?}");
    assert_eq!(
        (&veto.release, &veto.base, veto.rollout),
        (&release(&v2), &Some(release(&v1)), RolloutId(7))
    );
    assert!(
        answers.keys().all(|(status, _)| matches!(status, 200 | 500)),
        "{answers:?}"
    );
    let after = Traffic::start(agent.ingress_addr(), 2);
    // Unacknowledged, it is said again; also by the next process, which serves the stable release from the start.
    node.drop_now(agent).await;
    drop(after.end().await);
    let sessions = server.plane.sessions();
    let agent = node.start(&server.url()).await;
    assert_eq!(get(&client(), agent.ingress_addr(), "/ok").await, ok("1.0.0"));
    server
        .plane
        .until("a session", |plane| (plane.sessions() > sessions).then_some(()))
        .await;
    assert_eq!(
        server.plane.until("the veto", |plane| plane.vetoes().pop()).await,
        veto
    );
    server.plane.acks(true);
    server
        .plane
        .until("silence about it", |plane| {
            plane.vetoes().is_empty().then_some(())
        })
        .await;
    assert_eq!(server.plane.status().unwrap().routes, [(v1.digest, 100)]);
    agent.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_candidate_that_traps_is_left_by_the_node_itself() {
    a_bad_candidate_is_left(Does::Traps, "trap").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_candidate_that_errs_grossly_is_left_by_the_node_itself() {
    a_bad_candidate_is_left(Does::Errs, "of its last 20 requests failed").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn intervals_are_numbered_without_gaps_and_resent_until_the_server_has_them() {
    let (server, node) = (Server::start().await, Node::new());
    let [v1, v2] = [package("1.0.0", Does::Answers), package("2.0.0", Does::Answers)];
    [&v1, &v2]
        .into_iter()
        .for_each(|version| server.plane.add(version));
    let agent = node.start(&server.url()).await;
    let observe = |step| Observe {
        rollout: RolloutId(7),
        step,
        candidate: v2.digest,
        control: Some(v1.digest),
        interval: Millis(50),
        probes: 2,
    };
    let step = |step| ModuleSpec {
        observe: Some(observe(step)),
        ..canary(&v2, &v1)
    };
    server.plane.say(server.plane.spec(1, &[step(0)]));
    server.plane.until_routed(&[(&v1, 50), (&v2, 50)]).await;
    let traffic = Traffic::start(agent.ingress_addr(), 2);
    server
        .plane
        .until("intervals", |plane| (plane.intervals().len() >= 4).then_some(()))
        .await;
    // The line breaks; what was not acknowledged comes again, then what was counted meanwhile.
    let addr = server.addr;
    let plane = server.stop().await;
    plane.acks(true);
    let server = Server::again(plane, addr).await;
    server.plane.say(server.plane.spec(2, &[step(1)]));
    server
        .plane
        .until("the next step's", |plane| {
            plane.intervals().iter().any(|i| i.step == 1).then_some(())
        })
        .await;
    drop(traffic.end().await);
    let intervals = server.plane.intervals();
    let numbers: Vec<u32> = intervals.iter().map(|interval| interval.number).collect();
    assert!(
        numbers
            .iter()
            .zip(1..)
            .all(|(number, expected)| *number == expected),
        "{numbers:?}"
    );
    let arms = intervals
        .iter()
        .flat_map(|interval| [&interval.block.candidate, &interval.block.control]);
    let (mut requests, mut probes) = (0, 0);
    for arm in arms {
        assert_eq!(
            (arm.latency.count(), arm.errors, arm.probe_errors),
            (arm.requests, 0, 0)
        );
        requests += arm.requests;
        probes += arm.probes;
    }
    assert!(requests > 0 && requests <= agent.stats().requests, "{requests}");
    assert!(probes >= 8, "{probes}");
    server.plane.say(server.plane.spec(3, &[canary(&v2, &v1)]));
    server
        .plane
        .until("nothing left to send", |plane| {
            plane.reports().last()?.intervals.is_empty().then_some(())
        })
        .await;
    agent.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn smoke_checks_go_through_the_preview_and_through_the_ingress() {
    let (server, node) = (Server::start().await, Node::new());
    let (v1, v2) = (package("1.0.0", Does::Answers), package("2.0.0", Does::Errs));
    [&v1, &v2]
        .into_iter()
        .for_each(|version| server.plane.add(version));
    let agent = node.start(&server.url()).await;
    let run = |digest, via| SmokeRun {
        rollout: RolloutId(7),
        step: 0,
        digest,
        via,
    };
    let outcome = async |run| {
        server
            .plane
            .until("the outcome", |plane| {
                plane.status()?.smoke.filter(|outcome| outcome.run == run)
            })
            .await
    };
    let through_ingress = run(v1.digest, SmokeVia::Ingress);
    server.plane.say(server.plane.spec(
        1,
        &[ModuleSpec {
            smoke: Some(through_ingress),
            ..serves(7, &[(&v1, 100)])
        }],
    ));
    let good = outcome(through_ingress).await;
    assert_eq!((good.passed, good.failures.len()), (1, 0), "{good:?}");
    assert_eq!(agent.stats().requests, 1, "it came as a user's would");

    let through_preview = run(v2.digest, SmokeVia::Preview);
    let mut spec = serves(7, &[(&v2, 0), (&v1, 100)]);
    (spec.trial, spec.preview, spec.smoke) = (true, Some(v2.digest), Some(through_preview));
    server.plane.say(server.plane.spec(2, &[spec]));
    let bad = outcome(through_preview).await;
    assert_eq!(
        bad.failures,
        [r#"says its version: answered 500, expected 200; it was "2.0.0""#]
    );
    assert_eq!(agent.stats().requests, 1, "nothing of it came by the ingress");
    agent.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_lets_requests_in_flight_finish() {
    let (server, node) = (Server::start().await, Node::new());
    let v1 = package("1.0.0", Does::Answers);
    server.plane.add(&v1);
    server
        .plane
        .say(server.plane.spec(1, &[serves(1, &[(&v1, 100)])]));
    let agent = node.start(&server.url()).await;
    server.plane.until_routed(&[(&v1, 100)]).await;
    let addr = agent.ingress_addr();
    let slow = tokio::spawn(async move { get(&client(), addr, "/wait").await });

    assert_eq!(get(&client(), addr, "/ok").await, ok("1.0.0"));
    tokio::time::sleep(Duration::from_millis(50)).await;
    let stopped = agent.shutdown().await;
    assert_eq!(stopped.connections_cut, 0);
    assert_eq!(slow.await.unwrap(), ok("1.0.0"));
}

/// Runs what another runtime runs, and keeps what it is told of a node's modules.
struct Retaining {
    host: Arc<WasmHost>,
    told: Mutex<Vec<BTreeSet<ModuleName>>>,
}

impl Runtime for Retaining {
    fn kind(&self) -> Kind {
        self.host.kind()
    }

    fn prepare(&self, artifact: Artifact) -> BoxFuture<'_, Result<Arc<dyn Prepared>, PrepareError>> {
        self.host.prepare(artifact)
    }

    fn retain(&self, node: &str, modules: &BTreeSet<ModuleName>) -> BoxFuture<'static, ()> {
        assert_eq!(node, "node-1");
        self.told.lock().unwrap().push(modules.clone());
        Box::pin(std::future::ready(()))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn runtimes_are_told_when_a_module_leaves_that_could_not_be_loaded() {
    let (server, node) = (Server::start().await, Node::new());
    let runtime = Arc::new(Retaining {
        host: Arc::clone(&node.host),
        told: Mutex::default(),
    });
    let config = node.config(&server.url());
    let _agent = Agent::start(config, Arc::clone(&runtime)).await.unwrap();
    // Nobody has the package.
    let v1 = package("1.0.0", Does::Answers);
    server
        .plane
        .say(server.plane.spec(5, &[serves(1, &[(&v1, 100)])]));
    server
        .plane
        .until("the failure", |plane| {
            let status = plane.status()?;
            matches!(status.releases.get(&v1.digest)?, ReleaseStatus::Failed { .. }).then_some(())
        })
        .await;
    let told = || runtime.told.lock().unwrap().clone();
    assert_eq!(told(), [[module()].into()]);
    server.plane.say(server.plane.spec(6, &[]));
    server
        .plane
        .until("the end", |_| (told().len() > 1).then_some(()))
        .await;
    assert_eq!(told()[1..], [BTreeSet::new()]);
}
