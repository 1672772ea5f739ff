//! What modules get meanwhile: requests, packets, calls. Each driver counts what it sent and what came of it.

use std::collections::BTreeMap;
use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use hotswap_transport::{Roots, client_config};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::network::ip;

/// Callers of each node.
const CALLERS: usize = 4;
/// Pause of a caller between an answer and its next request.
const PAUSE: Duration = Duration::from_millis(8);
/// Longest wait for an answer.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Packets a second on each wire.
const PACKETS_PER_SECOND: f64 = 2_000.0;
/// Pause of a reader between two calls through the gate.
const BETWEEN_CALLS: Duration = Duration::from_micros(500);
/// Where the node says which release answered.
const RELEASE_HEADER: &str = "x-hotswap-release";

/// What a driver saw.
#[derive(Clone, Debug, Default)]
pub(super) struct Seen {
    /// What was sent.
    pub(super) sent: u64,
    /// What nobody answered, or wrongly.
    pub(super) missed: u64,
    /// Answers by version, where answers name one.
    pub(super) by_version: BTreeMap<String, u64>,
}

impl Seen {
    fn add(&mut self, other: Self) {
        self.sent += other.sent;
        self.missed += other.missed;
        for (version, count) in other.by_version {
            *self.by_version.entry(version).or_insert(0) += count;
        }
    }
}

/// A driver at work.
pub(super) enum Drive {
    Requests {
        callers: JoinSet<Seen>,
        stop: CancellationToken,
    },
    Threads {
        threads: Vec<JoinHandle<Seen>>,
        stop: Stop,
    },
}

/// Tells threads to stop, also where nobody waits for them any more.
pub(super) struct Stop(Arc<AtomicBool>);

impl Drop for Stop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Drive {
    /// Callers who ask nodes one request after the other.
    pub(super) fn requests(nodes: &[SocketAddr], path: &str) -> anyhow::Result<Self> {
        let stop = CancellationToken::new();
        let mut callers = JoinSet::new();
        for node in nodes {
            for _ in 0..CALLERS {
                let client = reqwest::Client::builder()
                    .tls_backend_preconfigured(client_config(Roots::Nobody, None, &[])?)
                    .no_proxy()
                    .timeout(TIMEOUT)
                    .build()?;
                callers.spawn(call(client, format!("http://{node}{path}"), stop.clone()));
            }
        }
        Ok(Self::Requests { callers, stop })
    }

    /// Packets on wires.
    pub(super) fn packets<'a>(wires: impl Iterator<Item = &'a Wire>) -> anyhow::Result<Self> {
        let sockets: Vec<UdpSocket> = wires.map(Wire::socket).collect::<Result<_, _>>()?;
        Ok(Self::threads(
            sockets
                .into_iter()
                .map(|socket| move |stop: &AtomicBool| send(&socket, stop)),
        ))
    }

    /// Calls through a gate in the kernel.
    pub(super) fn calls(gate: &Path) -> Self {
        let gate = gate.to_owned();
        Self::threads([move |stop: &AtomicBool| read(&gate, stop)])
    }

    fn threads<F: FnOnce(&AtomicBool) -> Seen + Send + 'static>(works: impl IntoIterator<Item = F>) -> Self {
        let stop = Arc::<AtomicBool>::default();
        let threads = works.into_iter().map(|work| {
            let stop = Arc::clone(&stop);
            std::thread::spawn(move || work(&stop))
        });
        Self::Threads {
            threads: threads.collect(),
            stop: Stop(stop),
        }
    }

    /// Stops, and waits for what is on its way.
    pub(super) async fn end(self) -> anyhow::Result<Seen> {
        let mut seen = Seen::default();
        match self {
            Self::Requests { mut callers, stop } => {
                stop.cancel();
                while let Some(of_one) = callers.join_next().await {
                    seen.add(of_one.context("a caller failed")?);
                }
            }
            Self::Threads { threads, stop } => {
                drop(stop);
                let joined = tokio::task::spawn_blocking(move || {
                    threads
                        .into_iter()
                        .map(JoinHandle::join)
                        .collect::<Result<Vec<_>, _>>()
                });
                let all = joined.await.context("a driver failed")?;
                let all = all.map_err(|_| anyhow::anyhow!("a driver failed"))?;
                all.into_iter().for_each(|of_one| seen.add(of_one));
            }
        }
        Ok(seen)
    }
}

async fn call(client: reqwest::Client, url: String, stop: CancellationToken) -> Seen {
    let mut seen = Seen::default();
    while !stop.is_cancelled() {
        seen.sent += 1;
        let version = answer(&client, &url).await;
        match version {
            Some(version) => *seen.by_version.entry(version).or_insert(0) += 1,
            None => seen.missed += 1,
        }
        tokio::select! {
            () = stop.cancelled() => {}
            () = tokio::time::sleep(PAUSE) => {}
        }
    }
    seen
}

/// The version that answered, if one did, with a success and a whole body.
async fn answer(client: &reqwest::Client, url: &str) -> Option<String> {
    let response = client.get(url).send().await.ok()?.error_for_status().ok()?;
    let release = response.headers().get(RELEASE_HEADER)?.to_str().ok()?.to_owned();
    response.bytes().await.ok()?;
    release.rsplit_once('/').map(|(_, version)| version.to_owned())
}

fn send(socket: &UdpSocket, stop: &AtomicBool) -> Seen {
    let mut seen = Seen::default();
    let began = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        let due = Duration::from_secs_f64(seen.sent as f64 / PACKETS_PER_SECOND);
        if let Some(early) = due.checked_sub(began.elapsed()) {
            std::thread::sleep(early.min(Duration::from_millis(5)));
            continue;
        }
        if socket.send(&seen.sent.to_be_bytes()).is_ok() {
            seen.sent += 1;
        }
    }
    seen
}

fn read(gate: &Path, stop: &AtomicBool) -> Seen {
    let mut seen = Seen::default();
    while !stop.load(Ordering::Relaxed) {
        seen.sent += 1;
        let answer = std::fs::read_to_string(gate).unwrap_or_default();
        match answer.split_whitespace().next() {
            Some(version) => *seen.by_version.entry(version.to_owned()).or_insert(0) += 1,
            None => seen.missed += 1,
        }
        std::thread::sleep(BETWEEN_CALLS);
    }
    seen
}

/// A pair of interfaces: what is sent to its address leaves one and is received by the other.
#[derive(Debug)]
pub(super) struct Wire {
    /// The receiving interface.
    pub(super) name: String,
    number: usize,
}

impl Wire {
    /// A new pair, in the network of the demo's own.
    pub(super) fn new(number: usize) -> anyhow::Result<Self> {
        /// Nobody else is on the wire.
        const ADDRESS: &str = "02:00:00:00:00:0";
        let (name, peer) = (format!("demo{number}"), format!("demo{number}p"));
        ip(&format!(
            "link add {name} address {ADDRESS}{number} type veth peer name {peer}"
        ))?;
        for interface in [&name, &peer] {
            ip(&format!("link set {interface} up arp off"))?;
        }
        ip(&format!("addr add 10.77.{number}.1/24 dev {peer}"))?;
        ip(&format!(
            "neigh replace 10.77.{number}.2 lladdr {ADDRESS}{number} dev {peer} nud permanent"
        ))?;
        Ok(Self { name, number })
    }

    fn socket(&self) -> std::io::Result<UdpSocket> {
        let socket = UdpSocket::bind(format!("10.77.{}.1:0", self.number))?;
        socket.connect(format!("10.77.{}.2:9", self.number))?;
        Ok(socket)
    }
}
