//! A module that tries everything it should not, beside one that customers use: each attempt is stopped, and the node
//! and its other module don't notice. What is measured is printed; nothing here asserts on speed.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use hotswap_agent::{Agent, AgentConfig};
use hotswap_core::report::ReleaseStatus;
use hotswap_core::spec::{Generation, NodeSpec};
use hotswap_package::Package;
use hotswap_runtime::testing::{component, hostile};
use hotswap_runtime::{Grants, WasmHost, WasmHostConfig};
use http_body_util::{BodyExt as _, Empty};
use tokio::task::JoinSet;

use crate::support::{Node, Server, serves};
use crate::traffic::{HttpClient, client, get};

const NEIGHBOUR: &str = "greeter.test";
/// What is tried, by which requests, and what answers show that it was stopped.
type Attack<'a> = (&'a str, Vec<&'a str>, fn(&(u16, String)) -> bool);
/// Chains of requests to itself that are begun at once.
const BOMBS: usize = 16;
const MIB: u64 = 1 << 20;

fn package(name: &str, host: &str, more: &str, component: &[u8]) -> Package {
    let manifest = format!(
        "name = \"{name}\"\nversion = \"1.0.0\"\nentry = \"module.wasm\"\n[[routes]]\nprefix = \"/\"\n{host}\n\
         [[smoke]]\nname = \"answers\"\npath = \"/ok\"\n{more}"
    );
    Package::assemble(manifest.as_bytes(), component).unwrap()
}

fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// This process's memory, in bytes.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1_024
}

fn node_with(grants: Grants) -> Node {
    let config = WasmHostConfig {
        instances_max: 100,
        grants,
        ..WasmHostConfig::default()
    };
    Node {
        dir: tempfile::tempdir().unwrap(),
        host: Arc::new(WasmHost::new(config).unwrap()),
    }
}

/// The neighbour's customers: requests one after the other on some connections, each timed.
struct Customers {
    stop: Arc<AtomicBool>,
    tasks: JoinSet<(Vec<Duration>, u64)>,
}

impl Customers {
    fn start(addr: SocketAddr) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let mut tasks = JoinSet::new();
        for _ in 0..2 {
            let stop = Arc::clone(&stop);
            tasks.spawn(async move {
                let (client, mut times, mut failed) = (client(), Vec::new(), 0);
                while !stop.load(Ordering::Relaxed) {
                    let begun = Instant::now();
                    failed += u64::from(!is_greeted(&client, addr).await);
                    times.push(begun.elapsed());
                }
                (times, failed)
            });
        }
        Self { stop, tasks }
    }

    /// Every time, in order of length, and how many requests failed.
    async fn end(self) -> (Vec<Duration>, u64) {
        self.stop.store(true, Ordering::Relaxed);
        let (mut all, mut failed) = (Vec::new(), 0);
        for (times, failures) in self.tasks.join_all().await {
            all.extend(times);
            failed += failures;
        }
        all.sort_unstable();
        (all, failed)
    }
}

async fn is_greeted(client: &HttpClient, addr: SocketAddr) -> bool {
    let request = http::Request::get(format!("http://{addr}/ok"))
        .header("host", NEIGHBOUR)
        .body(Empty::<Bytes>::new())
        .unwrap();
    match client.request(request).await {
        Ok(response) => {
            let is_ok = response.status() == 200;
            let body = response.into_body().collect().await;
            is_ok && body.is_ok_and(|body| body.to_bytes() == "hello")
        }
        Err(_) => false,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hostile_module_is_stopped_and_its_neighbour_does_not_notice() {
    let listen = free_address();
    let granted = Grants {
        outbound_hosts: vec![listen.to_string()],
        variables: [
            ("REGION".to_owned(), "north".to_owned()),
            ("SECRET".to_owned(), "s".to_owned()),
        ]
        .into(),
    };
    let (server, node) = (Server::start().await, node_with(granted));
    let limits = "[limits]\ntime = \"300ms\"\nmemory = \"8MiB\"\nconcurrency = 8\n";
    let asks =
        format!("{limits}[capabilities]\noutbound-hosts = [\"{listen}\"]\nenvironment = [\"REGION\"]\n");
    let hostile = package("hostile", "", &asks, &hostile::component("let me in"));
    let neighbour = package(
        "greeter",
        &format!("host = \"{NEIGHBOUR}\""),
        "",
        &component("hello"),
    );
    for package in [&hostile, &neighbour] {
        server.plane.add(package);
    }
    let both =
        [&hostile, &neighbour].map(|package| (package.manifest.name.clone(), serves(1, &[(package, 100)])));
    server.plane.say(NodeSpec {
        fleet: server.plane.fleet,
        generation: Generation { epoch: 1, seq: 1 },
        modules: both.into(),
        traces: Default::default(),
    });
    let config = AgentConfig {
        listen,
        ..node.config(&server.url())
    };
    let agent = Agent::start(config, Arc::clone(&node.host)).await.unwrap();
    for package in [&hostile, &neighbour] {
        let name = &package.manifest.name;
        server
            .plane
            .until("both modules", |plane| {
                plane.status_of(name).filter(|status| !status.routes.is_empty())
            })
            .await;
    }
    let addr = agent.ingress_addr();
    let attacker = client();
    let (before, mut rows) = (resident(), Vec::new());

    let other = free_address();
    let bomb = format!("/y{listen}");
    let bombs = vec![bomb.as_str(); BOMBS];
    let elsewhere = [
        format!("/r{other}/x"),
        "/rexample.com/x".to_owned(),
        format!("/r{NEIGHBOUR}/ok"),
    ];
    let elsewhere: Vec<&str> = elsewhere.iter().map(String::as_str).collect();
    let itself = [format!("/r{listen}/ok")];
    let itself: Vec<&str> = itself.iter().map(String::as_str).collect();
    let attacks: [Attack<'_>; 9] = [
        ("loops without end", vec!["/loop"; 8], |answer| answer.0 == 500),
        ("allocates without end", vec!["/memory"; 8], |answer| {
            answer.0 == 500
        }),
        ("traps", vec!["/trap"; 32], |answer| answer.0 == 500),
        ("opens sockets", vec!["/xsocket"; 8], |answer| {
            *answer == (200, "B".to_owned())
        }),
        ("looks for files", vec!["/files"; 8], |answer| {
            *answer == (200, "a".to_owned())
        }),
        ("looks for variables (1 granted)", vec!["/vars"; 8], |answer| {
            *answer == (200, "b".to_owned())
        }),
        ("calls hosts that aren't granted", elsewhere, |answer| {
            *answer == (502, "P".to_owned())
        }),
        ("floods the log", vec!["/gush"; 8], |answer| {
            matches!(answer.0, 200 | 500)
        }),
        ("sends itself requests without end", bombs, |answer| {
            matches!(answer.0, 500 | 502 | 503)
        }),
    ];
    for (what, paths, is_stopped) in attacks {
        let customers = Customers::start(addr);
        // Not before they are served.
        tokio::time::timeout(Duration::from_secs(30), async {
            while !is_greeted(&attacker, addr).await {}
        })
        .await
        .unwrap();
        let begun = Instant::now();
        let mut asked = JoinSet::new();
        for path in &paths {
            let (attacker, path) = (attacker.clone(), (*path).to_owned());
            asked.spawn(async move { get(&attacker, addr, &path).await });
        }
        let answers = asked.join_all().await;
        let took = begun.elapsed();
        let (times, failed) = customers.end().await;
        assert!(answers.iter().all(is_stopped), "{what}: {answers:?}");
        assert_eq!(failed, 0, "{what}: the neighbour's customers notice");
        assert!(!times.is_empty(), "{what}");
        let place = |percent: usize| times[times.len() * percent / 100].as_secs_f64() * 1_000.0;
        rows.push(format!(
            "{what:36} {:4} {:8.0} {:9} {failed:6} {:8.2} {:8.2}",
            answers.len(),
            took.as_secs_f64() * 1_000.0,
            times.len(),
            place(50),
            place(99),
        ));
    }
    // What is granted works, and works still.
    assert_eq!(get(&attacker, addr, itself[0]).await, (200, ".".to_owned()));
    assert_eq!(get(&attacker, addr, "/ok").await, (200, "let me in".to_owned()));
    let after = resident();
    println!(
        "{:36} {:>4} {:>8} {:>9} {:>6} {:>8} {:>8}",
        "a module that …", "n", "took ms", "neighbour", "failed", "p50 ms", "p99 ms"
    );
    rows.iter().for_each(|row| println!("{row}"));
    println!("resident before {} MiB, after {} MiB", before / MIB, after / MIB);
    agent.shutdown().await;
}

/// Why a node that grants nothing doesn't load a module that asks for something.
async fn refusal(asks: &str) -> String {
    let (server, node) = (Server::start().await, node_with(Grants::default()));
    let package = package("hostile", "", asks, &hostile::component("let me in"));
    server.plane.add(&package);
    let name = package.manifest.name.clone();
    server.plane.say(NodeSpec {
        fleet: server.plane.fleet,
        generation: Generation { epoch: 1, seq: 1 },
        modules: [(name.clone(), serves(1, &[(&package, 100)]))].into(),
        traces: Default::default(),
    });
    let agent = node.start(&server.url()).await;
    let reason = server
        .plane
        .until("the refusal", |plane| {
            match plane.status_of(&name)?.releases.get(&package.digest)? {
                ReleaseStatus::Failed { reason } => Some(reason.clone()),
                _ => None,
            }
        })
        .await;
    agent.shutdown().await;
    reason
}

#[tokio::test(flavor = "multi_thread")]
async fn a_module_that_asks_for_what_the_node_does_not_grant_is_not_loaded() {
    let hosts = refusal("[capabilities]\noutbound-hosts = [\"api.example.com\"]\n").await;
    assert!(hosts.contains("requests to api.example.com"), "{hosts}");
    let variables = refusal("[capabilities]\nenvironment = [\"REGION\"]\n").await;
    assert!(variables.contains("the variable REGION"), "{variables}");
}
