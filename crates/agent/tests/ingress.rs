//! The ingress by real sockets, in front of real components.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use hotswap_agent::ingress::{Ingress, IngressConfig, Patience, PreviewError, Release, Slot, Stopped};
use hotswap_agent::meter::Meter;
use hotswap_package::{ByteSize, HumanDuration, Manifest, Route};
use hotswap_runtime::testing::{artifact, component};
use hotswap_runtime::{Body, Launch, Runtime, WasmHost, WasmHostConfig};
use http::{Request, StatusCode};
use http_body_util::BodyExt;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

const MODULE: &str = "test-module";
/// Far longer than anything here takes: a test that waits so long has failed.
const PATIENCE: Duration = Duration::from_secs(30);

/// How the ingress of these tests ends.
const AT_END: Patience = Patience {
    idle: Duration::from_millis(50),
    deadline: Duration::from_secs(2),
};

struct Node {
    host: WasmHost,
    meter: Meter,
    ingress: Ingress,
    address: SocketAddr,
    stop: CancellationToken,
    served: JoinHandle<Stopped>,
}

impl Node {
    async fn start(change: impl FnOnce(&mut IngressConfig)) -> Self {
        let mut config = IngressConfig::default();
        change(&mut config);
        let host = WasmHost::new(WasmHostConfig {
            instances_max: 256,
            ..WasmHostConfig::default()
        })
        .unwrap();
        let ingress = Ingress::new(config);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let (serving, stopped) = (ingress.clone(), stop.clone());
        let served = tokio::spawn(async move {
            let (_patience, patience) = watch::channel(AT_END);
            serving.serve(listener, stopped, patience).await
        });
        let meter = Meter::new();
        Self {
            host,
            meter,
            ingress,
            address,
            stop,
            served,
        }
    }

    async fn load(&self, version: &str, change: impl FnOnce(&mut Manifest)) -> Arc<Release> {
        let artifact = artifact(MODULE, version, component(version), change);
        let instance = self
            .host
            .prepare(artifact)
            .await
            .unwrap()
            .start(Launch::default())
            .await
            .unwrap();
        Release::new(instance, &self.meter)
    }

    /// A slot for everything, with one release.
    async fn serving(&self, version: &str, change: impl FnOnce(&mut Manifest)) -> (Arc<Slot>, Arc<Release>) {
        let release = self.load(version, change).await;
        let module = MODULE.parse().unwrap();
        self.ingress
            .set_routes(&module, release.instance().manifest().routes.clone());
        let slot = self.ingress.slot(&module);
        slot.set_active([(Arc::clone(&release), 100)]);
        (slot, release)
    }

    fn uri(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    async fn get(&self, client: &TestClient, path: &str) -> (StatusCode, String) {
        let request = Request::get(self.uri(path)).body(Body::empty()).unwrap();
        answer(client.request(request).await.unwrap()).await
    }
}

type TestClient = Client<HttpConnector, Body>;

fn http1() -> TestClient {
    Client::builder(TokioExecutor::new()).build_http()
}

fn http2() -> TestClient {
    Client::builder(TokioExecutor::new())
        .http2_only(true)
        .build_http()
}

async fn answer<B>(response: http::Response<B>) -> (StatusCode, String)
where
    B: http_body::Body,
    B::Error: std::fmt::Debug,
{
    let status = response.status();
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(bytes.to_vec()).unwrap())
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !holds() {
        assert!(tokio::time::Instant::now() < deadline, "never: {what}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn both_protocols_reach_the_release_that_they_are_told_of() {
    let node = Node::start(|_| {}).await;
    let (slot, _) = node.serving("1.0.0", |_| {}).await;
    for client in [http1(), http2()] {
        let request = Request::get(node.uri("/ok")).body(Body::empty()).unwrap();
        let response = client.request(request).await.unwrap();
        assert_eq!(response.headers()["x-hotswap-release"], "test-module/1.0.0");
        assert_eq!(response.headers()["content-length"], "5");
        assert_eq!(answer(response).await, (StatusCode::OK, "1.0.0".to_owned()));
        assert_eq!(node.get(&client, "/stream").await.1.len(), 64 * 4096);
    }
    assert_eq!(slot.set_active([]).len(), 1);
    let (status, body) = node.get(&http1(), "/ok").await;
    assert_eq!(
        (status, body.contains("no active release")),
        (StatusCode::SERVICE_UNAVAILABLE, true)
    );
    node.ingress.set_routes(&MODULE.parse().unwrap(), vec![]);
    let (status, body) = node.get(&http1(), "/ok").await;
    assert_eq!(
        (status, body.starts_with("{\"error\":")),
        (StatusCode::NOT_FOUND, true)
    );
}

/// The heart of it: 100 swaps, each with a drain, under load by both protocols, and not one request fails.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_swaps_under_load_fail_no_request() {
    let node = Node::start(|_| {}).await;
    let (slot, mut active) = node.serving("1.0.0", |_| {}).await;
    let stop = Arc::new(AtomicBool::new(false));
    let sent = Arc::new(AtomicU64::new(0));
    let load: Vec<_> = (0..16)
        .map(|n| {
            let client = if n % 2 == 0 { http1() } else { http2() };
            let (uri, stop, sent) = (node.uri("/ok"), Arc::clone(&stop), Arc::clone(&sent));
            tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    let request = Request::get(&uri).body(Body::empty()).unwrap();
                    let (status, body) = answer(client.request(request).await.unwrap()).await;
                    assert!(
                        status == StatusCode::OK && body.starts_with(['1', '2']),
                        "{status} {body}"
                    );
                    sent.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    for n in 0..100 {
        let before = sent.load(Ordering::Relaxed);
        let version = if n % 2 == 0 { "2.0.0" } else { "1.0.0" };
        let next = node.load(version, |_| {}).await;
        let left = slot.set_active([(Arc::clone(&next), 100)]);
        assert!(Arc::ptr_eq(&left[0], &active) && left.len() == 1);
        assert_eq!(active.close(Duration::from_secs(10)).await.cut, 0);
        assert_eq!(active.instance().usage().instances, 0, "the old release is freed");
        active = next;
        until("requests go on", || sent.load(Ordering::Relaxed) > before + 10).await;
    }
    stop.store(true, Ordering::Relaxed);
    for client in load {
        client.await.unwrap();
    }
    let counters = node.meter.snapshot();
    assert_eq!(counters.len(), 2);
    let metered: u64 = counters
        .values()
        .map(hotswap_agent::meter::Counters::requests)
        .sum();
    assert_eq!(
        metered,
        sent.load(Ordering::Relaxed),
        "each request is counted once"
    );
    assert!(
        counters
            .values()
            .all(|counters| counters.errors + counters.abandoned == 0)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_ends_on_the_release_that_it_began_with() {
    let node = Node::start(|_| {}).await;
    let (slot, first) = node.serving("1.0.0", |_| {}).await;
    let second = node.load("2.0.0", |_| {}).await;
    let begun = tokio::spawn(http1().request(Request::get(node.uri("/wait")).body(Body::empty()).unwrap()));
    until("it began", || first.instance().usage().in_flight == 1).await;
    slot.set_active([(second, 100)]);
    assert_eq!(node.get(&http1(), "/ok").await.1, "2.0.0");
    assert_eq!(first.close(PATIENCE).await.cut, 0);
    assert_eq!(answer(begun.await.unwrap().unwrap()).await.1, "1.0.0");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drains_deadline_cuts_and_the_meter_says_so() {
    let node = Node::start(|_| {}).await;
    let (slot, release) = node.serving("1.0.0", |_| {}).await;
    let begun = tokio::spawn(http1().request(Request::get(node.uri("/wait")).body(Body::empty()).unwrap()));
    until("it began", || release.instance().usage().in_flight == 1).await;
    slot.set_active([]);
    assert_eq!(release.close(Duration::ZERO).await.cut, 1);
    assert_eq!(
        begun.await.unwrap().unwrap().status(),
        StatusCode::SERVICE_UNAVAILABLE
    );
    let counters = release.series().snapshot();
    assert_eq!((counters.requests(), counters.errors, counters.cut), (1, 1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn trap_loop_and_memory_are_each_one_500_and_the_meter_counts_them() {
    let node = Node::start(|_| {}).await;
    let (_, release) = node
        .serving("1.0.0", |manifest| {
            manifest.limits.time = HumanDuration::millis(100);
            manifest.limits.memory = ByteSize::mib(4);
            manifest.health.window = 8;
        })
        .await;
    let client = http1();
    for path in ["/trap", "/loop", "/memory", "/error"] {
        let (status, _) = node.get(&client, path).await;
        assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR, "{path}");
        assert_eq!(node.get(&client, "/ok").await.0, StatusCode::OK, "after {path}");
    }
    let counters = release.series().snapshot();
    assert_eq!((counters.requests(), counters.errors), (8, 4));
    assert_eq!(release.series().recent().counts(), (8, 4));
    assert_eq!(
        release.trouble(None).as_deref(),
        Some("4 of its last 8 requests failed")
    );
    assert_eq!(
        release.trouble(Some(&release)),
        None,
        "where the base fares no better, it isn't the release"
    );
    assert_eq!(release.instance().usage().traps, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn weights_are_kept_within_what_chance_allows() {
    const REQUESTS: u64 = 4_000;
    let node = Node::start(|_| {}).await;
    let (slot, stable) = node.serving("1.0.0", |_| {}).await;
    let candidate = node.load("2.0.0", |_| {}).await;
    slot.set_active([(Arc::clone(&stable), 75), (Arc::clone(&candidate), 25)]);
    assert_eq!(slot.routes(), [(stable.digest(), 75), (candidate.digest(), 25)]);
    for _ in 0..REQUESTS {
        let request = Request::get("/ok").body(Body::empty()).unwrap();
        assert_eq!(node.ingress.handle(request).await.status(), StatusCode::OK);
    }
    let drawn = candidate.series().snapshot().requests();
    assert_eq!(drawn + stable.series().snapshot().requests(), REQUESTS);
    // Six standard deviations of a binomial: missed once in half a billion runs.
    let deviation = (REQUESTS as f64 * 0.25 * 0.75).sqrt();
    assert!(
        (drawn as f64 - REQUESTS as f64 * 0.25).abs() < 6.0 * deviation,
        "{drawn} of {REQUESTS}"
    );
    assert!(
        slot.set_active([(Arc::clone(&stable), 100), (candidate, 0)])
            .len()
            == 1,
        "weight 0 is not active"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_preview_is_reached_by_a_call_and_by_nothing_else() {
    let node = Node::start(|_| {}).await;
    let (slot, _) = node.serving("1.0.0", |_| {}).await;
    let module = MODULE.parse().unwrap();
    let request = || Request::get("/ok").body(Body::empty()).unwrap();
    assert!(matches!(
        node.ingress.preview(&module, request()).await,
        Err(PreviewError::None)
    ));
    let preview = node.load("2.0.0", |_| {}).await;
    slot.set_preview(Some(Arc::clone(&preview)));
    assert_eq!(
        answer(node.ingress.preview(&module, request()).await.unwrap())
            .await
            .1,
        "2.0.0"
    );
    assert_eq!(preview.series().snapshot().requests(), 0, "nobody's request");
    for header in ["x-hotswap-preview", "x-hotswap-release", "x-preview"] {
        let request = Request::get(node.uri("/ok"))
            .header(header, "test-module/2.0.0")
            .body(Body::empty())
            .unwrap();
        assert_eq!(answer(http1().request(request).await.unwrap()).await.1, "1.0.0");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_is_too_large_is_refused_known_or_not() {
    let node = Node::start(|_| {}).await;
    let (_, release) = node
        .serving("1.0.0", |manifest| manifest.limits.body = ByteSize(100))
        .await;
    for (body, status) in [(100, StatusCode::OK), (101, StatusCode::PAYLOAD_TOO_LARGE)] {
        let request = Request::post(node.uri("/ok"))
            .body(Body::full(vec![b'x'; body]))
            .unwrap();
        assert_eq!(answer(http1().request(request).await.unwrap()).await.0, status);
    }
    assert_eq!(release.series().snapshot().errors, 0, "a client's fault");

    // Of a length that only shows as the module reads: the test component reads none, this one does.
    let dir = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../modules/payment-processor/2.0.0/payment-processor.wasm"
    );
    let payments = artifact(
        "payment-processor",
        "2.0.0",
        std::fs::read(dir).unwrap(),
        |manifest| {
            manifest.limits.body = ByteSize(100);
        },
    );
    let name = payments.manifest.name.clone();
    let routes = vec![Route {
        host: None,
        prefix: "/payments".to_owned(),
    }];
    node.ingress.set_routes(&name, routes);
    let instance = node
        .host
        .prepare(payments)
        .await
        .unwrap()
        .start(Launch::default())
        .await
        .unwrap();
    let payments = Release::new(instance, &node.meter);
    node.ingress
        .slot(&name)
        .set_active([(Arc::clone(&payments), 100)]);
    for (chunk, status) in [(100, "400"), (101, "413")] {
        let body = "x".repeat(chunk);
        let request = format!(
            "POST /payments HTTP/1.1\r\nhost: x\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n\
             {chunk:x}\r\n{body}\r\n0\r\n\r\n"
        );
        let answer = raw(node.address, request.as_bytes()).await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status}")),
            "{chunk}: {answer}"
        );
    }
}

/// Opens a connection, sends something incomplete, and returns what comes back until the end.
async fn raw(address: SocketAddr, sent: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(sent).await.unwrap();
    let mut got = Vec::new();
    let read = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut got)).await;
    // A reset is an end too.
    let _ = read.expect("the connection must be ended");
    String::from_utf8_lossy(&got).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_never_finish_a_head_or_send_too_much_of_one_are_cut() {
    let node = Node::start(|config| {
        config.header_read_timeout = Duration::from_millis(100);
        config.header_bytes_max = 8_192;
    })
    .await;
    node.serving("1.0.0", |_| {}).await;
    for slow in [&b""[..], b"P", b"PRI * HTT", b"GET / HTTP/1.1\r\nhost: x\r\n"] {
        raw(node.address, slow).await;
    }
    let kept_alive = raw(node.address, b"GET /ok HTTP/1.1\r\nhost: x\r\n\r\n").await;
    assert!(kept_alive.starts_with("HTTP/1.1 200"), "{kept_alive}");
    let huge = format!("GET / HTTP/1.1\r\nhost: x\r\nx: {}\r\n\r\n", "y".repeat(20_000));
    assert!(
        raw(node.address, huge.as_bytes())
            .await
            .starts_with("HTTP/1.1 431")
    );
    assert_eq!(node.get(&http1(), "/ok").await.0, StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_beyond_the_limit_wait_their_turn() {
    let node = Node::start(|config| config.connections_max = 1).await;
    node.serving("1.0.0", |_| {}).await;
    let holder = TcpStream::connect(node.address).await.unwrap();
    let waiting = tokio::spawn(raw(
        node.address,
        b"GET /ok HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
    ));
    // The holder's own request proves that it has the place.
    let mut holder = holder;
    holder
        .write_all(b"GET /ok HTTP/1.1\r\nhost: x\r\n\r\n")
        .await
        .unwrap();
    assert!(holder.read(&mut [0; 512]).await.unwrap() > 0);
    assert!(!waiting.is_finished());
    drop(holder);
    assert!(waiting.await.unwrap().starts_with("HTTP/1.1 200"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shutdown_finishes_what_has_begun_and_takes_nothing_new() {
    let node = Node::start(|_| {}).await;
    let (_, release) = node.serving("1.0.0", |_| {}).await;
    let mut begun = Vec::new();
    for client in [http1(), http2()] {
        // Warm, so that an idle connection that is kept alive is there too.
        assert_eq!(node.get(&client, "/ok").await.0, StatusCode::OK);
        let request = Request::get(node.uri("/wait")).body(Body::empty()).unwrap();
        begun.push(tokio::spawn(async move {
            answer(client.request(request).await.unwrap()).await
        }));
    }
    until("both began", || release.instance().usage().in_flight == 2).await;
    let idle = TcpStream::connect(node.address).await.unwrap();
    node.stop.cancel();
    for request in begun {
        assert_eq!(request.await.unwrap(), (StatusCode::OK, "1.0.0".to_owned()));
    }
    assert_eq!(node.served.await.unwrap(), Stopped { connections_cut: 0 });
    drop(idle);
    assert!(
        TcpStream::connect(node.address).await.is_err(),
        "the listener is gone"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn too_many_at_once_are_told_when_to_come_again() {
    let node = Node::start(|_| {}).await;
    let (_, release) = node
        .serving("1.0.0", |manifest| manifest.limits.concurrency = 1)
        .await;
    let client = http2();
    let requests: Vec<_> = (0..8)
        .map(|_| tokio::spawn(client.request(Request::get(node.uri("/wait")).body(Body::empty()).unwrap())))
        .collect();
    let mut refused = 0;
    for request in requests {
        let response = request.await.unwrap().unwrap();
        if response.status() == StatusCode::SERVICE_UNAVAILABLE {
            assert_eq!(response.headers()["retry-after"], "1");
            refused += 1;
        }
    }
    let counters = release.series().snapshot();
    assert!(refused >= 3, "1 place and a queue of 4: {refused}");
    assert_eq!((counters.overloaded, counters.errors), (refused, refused));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_goes_away_frees_its_place_and_counts_as_abandoned() {
    let node = Node::start(|_| {}).await;
    let (_, release) = node
        .serving("1.0.0", |manifest| manifest.limits.time = HumanDuration::secs(60))
        .await;
    let mut stream = TcpStream::connect(node.address).await.unwrap();
    stream
        .write_all(b"GET /loop HTTP/1.1\r\nhost: x\r\n\r\n")
        .await
        .unwrap();
    until("it began", || release.instance().usage().in_flight == 1).await;
    drop(stream);
    until("its place is free", || release.instance().usage().in_flight == 0).await;
    until("it is counted", || release.series().snapshot().abandoned == 1).await;
    assert_eq!(release.series().snapshot().requests(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_modules_share_an_ingress_by_prefix() {
    let node = Node::start(|_| {}).await;
    node.serving("1.0.0", |_| {}).await;
    let other = artifact("other-module", "9.0.0", component("other"), |manifest| {
        manifest.routes = vec![Route {
            host: None,
            prefix: "/other".to_owned(),
        }];
    });
    let name = other.manifest.name.clone();
    node.ingress.set_routes(&name, other.manifest.routes.clone());
    let instance = node
        .host
        .prepare(other)
        .await
        .unwrap()
        .start(Launch::default())
        .await
        .unwrap();
    node.ingress
        .slot(&name)
        .set_active([(Release::new(instance, &node.meter), 100)]);
    assert_eq!(node.get(&http1(), "/other").await.1, "other");
    assert_eq!(node.get(&http1(), "/others").await.1, "1.0.0");
    node.ingress.remove(&name);
    assert_eq!(node.get(&http1(), "/other").await.1, "1.0.0");
}
