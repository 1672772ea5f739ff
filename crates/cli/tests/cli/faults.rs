//! A server and four agents, each a process of its own, under traffic: swaps, kills, restarts and a veto.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use hotswap_core::policy::{Environment, Strategy};
use hotswap_core::time::Millis;

use crate::fleet::{DEADLINE, Process, Server};
use crate::support::example;

const NODES: [&str; 4] = ["node-1", "node-2", "node-3", "node-4"];
/// Requests that must be answered while releases are swapped.
const REQUESTS: u64 = 100_000;
/// A payment that 2.0.0 and 2.1.0 take and 2.2.0 answers with 500.
const YEN: &str = r#"{"amount":4500,"currency":"JPY","card":{"number":"4242 4242 4242 4242","expiry":"12/30","cvc":"123"}}"#;

/// One environment of four nodes, two at a time, with short times. One node may fail.
fn environments() -> String {
    let mut production = Environment::defaults().pop().expect("there are defaults");
    production.strategy = Strategy::Rolling { batch: 2 };
    production.policy.settle = Millis(700);
    production.policy.step_deadline = Millis::from_secs(30);
    production.policy.silence_max = Millis::from_secs(20);
    production.policy.max_failed = 1;
    serde_json::to_string(&[production]).expect("environments are JSON")
}

/// One connection that is kept alive.
struct Customer {
    stream: BufReader<TcpStream>,
}

impl Customer {
    fn connect(url: &str) -> Self {
        let address = url
            .strip_prefix("http://")
            .expect("an ingress is reached by HTTP");
        let stream = TcpStream::connect(address).expect("the ingress accepts");
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream.set_nodelay(true).unwrap();
        Self {
            stream: BufReader::new(stream),
        }
    }

    /// The status and the version that answered.
    fn ask(&mut self, request: &str) -> std::io::Result<(u16, String)> {
        self.stream.get_mut().write_all(request.as_bytes())?;
        let mut line = String::new();
        self.stream.read_line(&mut line)?;
        let status = line.split(' ').nth(1).and_then(|status| status.parse().ok());
        let status = status.ok_or_else(|| std::io::Error::other(format!("no status: {line:?}")))?;
        let (mut length, mut version) = (0, String::new());
        loop {
            line.clear();
            self.stream.read_line(&mut line)?;
            let Some((name, value)) = line.trim().split_once(": ") else {
                break;
            };
            match name.to_ascii_lowercase().as_str() {
                "content-length" => length = value.parse().map_err(std::io::Error::other)?,
                "x-module-version" => value.clone_into(&mut version),
                _ => {}
            }
        }
        self.stream.read_exact(&mut vec![0; length])?;
        Ok((status, version))
    }
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: fleet\r\n\r\n")
}

fn post(path: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "POST {path} HTTP/1.1\r\nhost: fleet\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
    )
}

/// Requests to one node from a thread of its own; everything but the expected status is a failure.
struct Traffic {
    answered: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Vec<String>>,
}

impl Traffic {
    fn start(url: &str, request: String, expected: u16) -> Self {
        let (answered, stop) = (Arc::<AtomicU64>::default(), Arc::<AtomicBool>::default());
        let mut customer = Customer::connect(url);
        let (count, stopped) = (Arc::clone(&answered), Arc::clone(&stop));
        let thread = std::thread::spawn(move || {
            let mut failures = Vec::new();
            while !stopped.load(Ordering::Relaxed) && failures.len() < 10 {
                match customer.ask(&request) {
                    Ok((status, _)) if status == expected => {}
                    Ok((status, version)) => failures.push(format!("{status} by {version:?}")),
                    Err(error) => {
                        failures.push(error.to_string());
                        break;
                    }
                }
                count.fetch_add(1, Ordering::Relaxed);
            }
            failures
        });
        Self {
            answered,
            stop,
            thread,
        }
    }

    fn answered(&self) -> u64 {
        self.answered.load(Ordering::Relaxed)
    }

    fn stop(self) -> Vec<String> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("a customer's thread ends in order")
    }
}

struct Fleet {
    server: Server,
    agents: Vec<Process>,
}

impl Fleet {
    /// Four nodes that serve payment-processor 2.0.0.
    fn start() -> Self {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), environments()).unwrap();
        let server = Server::start(&["--environments", file.path().to_str().unwrap()]);
        let agents = NODES.map(|node| server.agent(node, "Production")).into();
        for node in NODES {
            server.eventually(&["nodes"], node);
        }
        for version in ["2.0.0", "2.1.0", "2.2.0"] {
            let folder = example("payment-processor", version);
            server.push(folder.to_str().unwrap()).exits(0);
        }
        let fleet = Self { server, agents };
        fleet.deploy("2.0.0").exits(0);
        fleet
    }

    fn deploy(&self, version: &str) -> crate::support::Ran {
        let deploy = [
            "deploy",
            "payment-processor",
            version,
            "--to",
            "Production",
            "--email",
            "a@b.example",
        ];
        self.server
            .run(&[&deploy[..], &["--allow-downgrade", "--watch"]].concat())
    }

    /// Which version answers on a node.
    fn version(&self, node: usize) -> String {
        let (status, version) = Customer::connect(&self.agents[node].url)
            .ask(&get("/payments/health"))
            .unwrap();
        assert_eq!(status, 200);
        version
    }

    fn eventually_all(&self, version: &str) {
        let end = Instant::now() + DEADLINE;
        for (node, name) in NODES.iter().enumerate() {
            while self.version(node) != version {
                assert!(Instant::now() < end, "{name} stays on {}", self.version(node));
                std::thread::sleep(Duration::from_millis(20));
            }
        }
    }
}

#[test]
fn swaps_under_load_drop_nothing_and_a_killed_servers_rollout_goes_on() {
    let mut fleet = Fleet::start();
    let traffic: Vec<Traffic> = fleet
        .agents
        .iter()
        .map(|agent| Traffic::start(&agent.url, get("/payments/health"), 200))
        .collect();
    let answered = |traffic: &[Traffic]| traffic.iter().map(Traffic::answered).sum::<u64>();

    // Any time: swaps there and back.
    let mut swaps = 0;
    for version in ["2.1.0", "2.0.0"].into_iter().cycle() {
        fleet.deploy(version).exits(0);
        fleet.eventually_all(version);
        swaps += 1;
        if version == "2.0.0" && answered(&traffic) >= REQUESTS {
            break;
        }
    }

    // The server dies in the middle of a rollout: half of the nodes have switched.
    let deploy = [
        "deploy",
        "payment-processor",
        "2.1.0",
        "--to",
        "Production",
        "--email",
        "a@b.example",
        "-o",
        "json",
    ];
    let id = fleet.server.run(&deploy).exits(0).json()["executionId"]
        .as_str()
        .unwrap()
        .to_owned();
    let end = Instant::now() + DEADLINE;
    while (0..NODES.len())
        .filter(|&node| fleet.version(node) == "2.1.0")
        .count()
        < 2
    {
        assert!(Instant::now() < end, "no node switched");
        std::thread::sleep(Duration::from_millis(5));
    }
    fleet.server.kill();
    let still: Vec<String> = (0..NODES.len()).map(|node| fleet.version(node)).collect();
    assert!(
        still.contains(&"2.0.0".to_owned()),
        "killed too late to be in the middle: {still:?}"
    );
    fleet.server.restart();
    fleet.server.run(&["status", &id, "--watch"]).exits(0);
    fleet.eventually_all("2.1.0");

    let total = answered(&traffic);
    let failures: Vec<String> = traffic.into_iter().flat_map(Traffic::stop).collect();
    assert!(failures.is_empty(), "of {total} requests failed: {failures:?}");
    println!("{total} requests over {swaps} swaps of four nodes and a killed server, none failed");
}

#[test]
fn agents_restarted_without_a_server_serve_what_they_served() {
    let mut fleet = Fleet::start();
    fleet.deploy("2.1.0").exits(0);
    fleet.server.kill();
    let agents = std::mem::take(&mut fleet.agents);
    for (place, agent) in agents.into_iter().enumerate() {
        // One in order, one by kill -9.
        if place % 2 == 0 {
            assert_eq!(agent.stop(), 0);
        } else {
            drop(agent);
        }
        fleet.agents.push(fleet.server.agent(NODES[place], "Production"));
    }
    for (node, name) in NODES.iter().enumerate() {
        assert_eq!(fleet.version(node), "2.1.0", "{name}");
    }
}

#[test]
fn a_node_that_vetoes_stays_on_the_old_release() {
    let fleet = Fleet::start();
    fleet.deploy("2.1.0").exits(0);
    // Only this node's customers pay in yen. It may be wrong for as long as it takes to find out.
    let mut customer = Customer::connect(&fleet.agents[3].url);
    let stop = Arc::<AtomicBool>::default();
    let stopped = Arc::clone(&stop);
    let yen = std::thread::spawn(move || {
        let mut wrong = 0;
        while !stopped.load(Ordering::Relaxed) {
            let (status, _) = customer
                .ask(&post("/payments", YEN))
                .expect("every request is answered");
            wrong += u32::from(status >= 500);
            std::thread::sleep(Duration::from_millis(5));
        }
        wrong
    });
    // One failed node is tolerated here: the others go on.
    let ran = fleet.deploy("2.2.0").exits(0);
    assert!(ran.stdout.contains("node-4"), "{}", ran.stdout);
    for (node, name) in NODES.iter().enumerate().take(3) {
        assert_eq!(fleet.version(node), "2.2.0", "{name}");
    }
    assert_eq!(fleet.version(3), "2.1.0", "the veto holds");
    stop.store(true, Ordering::Relaxed);
    let wrong = yen.join().expect("the customer's thread ends in order");
    assert!(wrong > 0, "the fault was met");
    println!("node-4 left the release after {wrong} wrong answers");
}
