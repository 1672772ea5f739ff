//! Native processes behind a real ingress: swapped, killed, and never missed.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hotswap_agent::ingress::{Ingress, IngressConfig, Patience, Release, Slot};
use hotswap_agent::meter::Meter;
use hotswap_runtime::testing::process::release;
use hotswap_runtime::{Body, Launch, ProcessHost, ProcessHostConfig, Readiness, Runtime as _};
use http::{Request, StatusCode};
use http_body_util::BodyExt as _;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Clients at once, each with a connection of its own that is kept.
const CLIENTS: u64 = 16;
const AT_END: Patience = Patience {
    idle: Duration::from_millis(50),
    deadline: Duration::from_secs(5),
};

struct Node {
    host: ProcessHost,
    meter: Meter,
    slot: Arc<Slot>,
    address: SocketAddr,
    stop: CancellationToken,
    _dir: tempfile::TempDir,
}

impl Node {
    async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let config = ProcessHostConfig::new(dir.path().join("processes"));
        let (host, ingress) = (
            ProcessHost::new(config).unwrap(),
            Ingress::new(IngressConfig::default()),
        );
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, serving) = (CancellationToken::new(), ingress.clone());
        let stopped = stop.clone();
        tokio::spawn(async move {
            let (_patience, patience) = watch::channel(AT_END);
            serving.serve(listener, stopped, patience).await
        });
        let module = "native".parse().unwrap();
        let all = hotswap_package::Route {
            host: None,
            prefix: "/".to_owned(),
        };
        ingress.set_routes(&module, vec![all]);
        Self {
            host,
            meter: Meter::new(),
            slot: ingress.slot(&module),
            address,
            stop,
            _dir: dir,
        }
    }

    async fn load(&self, version: &str) -> Arc<Release> {
        let prepared = self.host.prepare(release(version, &[], |_| {})).await.unwrap();
        Release::new(prepared.start(Launch::default()).await.unwrap(), &self.meter)
    }

    /// Starts clients that ask until they are told to stop; each answer that is not 200 is kept.
    fn customers(&self, stop: &CancellationToken) -> (Arc<AtomicU64>, JoinSet<Vec<String>>) {
        let (answered, mut clients) = (Arc::new(AtomicU64::new(0)), JoinSet::new());
        for client in 0..CLIENTS {
            let (answered, stop) = (Arc::clone(&answered), stop.clone());
            let uri = format!("http://{}/?{client}", self.address);
            clients.spawn(async move {
                let http = Client::builder(TokioExecutor::new()).build_http::<Body>();
                let mut failures = Vec::new();
                while !stop.is_cancelled() {
                    // Half of them would do something, and must not be sent twice.
                    let request = Request::builder().method(if client % 2 == 0 { "GET" } else { "POST" });
                    let request = request.uri(&uri).body(Body::from("x".repeat(64))).unwrap();
                    match http.request(request).await {
                        Ok(response) if response.status() == StatusCode::OK => {
                            response.into_body().collect().await.unwrap();
                            answered.fetch_add(1, Ordering::Relaxed);
                        }
                        Ok(response) => failures.push(response.status().to_string()),
                        Err(error) => failures.push(format!("{error:?}")),
                    }
                }
                failures
            });
        }
        (answered, clients)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn swapped(requests: u64, swaps: u64) {
    let node = Node::start().await;
    let mut serving = node.load("1.0.0").await;
    node.slot.set_active([(Arc::clone(&serving), 100)]);
    let done = CancellationToken::new();
    let (answered, clients) = node.customers(&done);
    let begun = Instant::now();
    let (mut starts, mut drains) = (Vec::new(), Vec::new());
    for swap in 1..=swaps {
        while answered.load(Ordering::Relaxed) < requests * swap / (swaps + 1) {
            assert!(begun.elapsed() < Duration::from_secs(600), "the clients stopped");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let start = Instant::now();
        let next = node.load(&format!("1.0.{swap}")).await;
        starts.push(start.elapsed());
        node.slot.set_active([(Arc::clone(&next), 100)]);
        let drain = Instant::now();
        let former = std::mem::replace(&mut serving, next);
        assert_eq!(former.close(Duration::from_secs(10)).await.cut, 0);
        drains.push(drain.elapsed());
    }
    while answered.load(Ordering::Relaxed) < requests {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let took = begun.elapsed();
    done.cancel();
    let failures: Vec<String> = clients.join_all().await.into_iter().flatten().collect();
    let answered = answered.load(Ordering::Relaxed);
    starts.sort_unstable();
    drains.sort_unstable();
    println!(
        "{answered} requests over {swaps} swaps in {took:.1?} ({:.0}/s), {} failed; start to ready p50 {:.1?} max {:.1?}, \
         switch to gone p50 {:.1?} max {:.1?}",
        answered as f64 / took.as_secs_f64(),
        failures.len(),
        starts[starts.len() / 2],
        starts[starts.len() - 1],
        drains[drains.len() / 2],
        drains[drains.len() - 1],
    );
    assert_eq!(failures, Vec::<String>::new());
    assert_eq!(serving.instance().readiness(), Readiness::Ready);
    serving.close(Duration::from_secs(5)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_request_fails_while_processes_are_swapped() {
    swapped(3_000, 6).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "the full figures, some half a minute: run by hand"]
async fn no_request_fails_over_fifty_swaps() {
    swapped(100_000, 50).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_process_costs_only_what_it_was_answering() {
    let node = Node::start().await;
    let serving = node.load("1.0.0").await;
    node.slot.set_active([(Arc::clone(&serving), 100)]);
    let done = CancellationToken::new();
    let (answered, clients) = node.customers(&done);
    let until = async |count: u64| {
        let deadline = Instant::now() + Duration::from_secs(60);
        while answered.load(Ordering::Relaxed) < count {
            assert!(Instant::now() < deadline, "the clients stopped");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    until(1_000).await;
    let request = Request::get("/").body(Body::empty()).unwrap();
    let answer = serving.instance().handle(request).await.unwrap();
    let answer = answer.into_body().collect().await.unwrap().to_bytes();
    let pid = String::from_utf8_lossy(&answer)
        .split(' ')
        .nth(1)
        .unwrap()
        .to_owned();
    let killed = std::process::Command::new("/bin/kill")
        .args(["-9", &pid])
        .status();
    assert!(killed.unwrap().success());
    let (before, begun) = (answered.load(Ordering::Relaxed), Instant::now());
    until(before + CLIENTS * 2).await;
    let gap = begun.elapsed();
    until(before + 1_000).await;
    done.cancel();
    let failures: Vec<String> = clients.join_all().await.into_iter().flatten().collect();
    println!(
        "SIGKILL under load: {} of {CLIENTS} clients lost a request, every one was answered again after {gap:?}",
        failures.len()
    );
    assert!(failures.len() as u64 <= CLIENTS, "{failures:?}");
    assert_eq!(serving.instance().readiness(), Readiness::Ready);
    serving.close(Duration::from_secs(5)).await;
}
