//! The API over TLS: by real sockets, with certificates of real authorities.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use hotswap_server::tls::CertificateError;
use hotswap_server::{RunningServer, Server, StartError, TlsConfig, TlsMode};
use hotswap_transport::rustls::ClientConfig;
use hotswap_transport::rustls::client::Resumption;
use hotswap_transport::rustls::pki_types::{CertificateDer, ServerName};
use hotswap_transport::{Authority, Fingerprint, Roots, certificates, client_config, untrusted};
use http_body_util::Empty;
use hyper_util::rt::{TokioExecutor, TokioIo};
use reqwest::StatusCode;
use reqwest::tls::TlsInfo;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};
use tokio_rustls::TlsConnector;

use crate::harness::{config, host};

const LIVE: &str = "/health/live";
const HSTS: &str = "strict-transport-security";
/// How long a test waits for a state.
const PATIENCE: Duration = Duration::from_secs(30);
const DAY: Duration = Duration::from_secs(86_400);

/// A server that speaks TLS.
struct Secure {
    running: RunningServer,
    dir: TempDir,
}

impl Secure {
    async fn start(tls: TlsConfig) -> Self {
        let dir = TempDir::new().unwrap();
        let mut wanted = config(dir.path());
        wanted.tls = tls;
        let running = Server::start(wanted, host().await).await.unwrap();
        Self { running, dir }
    }

    /// With a certificate of its own authority.
    async fn own() -> Self {
        Self::start(mode(TlsMode::Own)).await
    }

    fn own_authority(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("ca/authority.pem")).unwrap()
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.running.url())
    }

    /// One request on a connection of its own: the fingerprint of what the server showed.
    async fn shown(&self, authority: &str) -> Fingerprint {
        let answer = client(authority).get(self.url(LIVE)).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
        fingerprint(&answer)
    }

    async fn is_served(&self, authority: &str) {
        self.shown(authority).await;
    }
}

fn mode(mode: TlsMode) -> TlsConfig {
    TlsConfig {
        mode,
        ..TlsConfig::default()
    }
}

fn fingerprint(answer: &reqwest::Response) -> Fingerprint {
    let info = answer.extensions().get::<TlsInfo>().unwrap();
    Fingerprint::of(&CertificateDer::from(info.peer_certificate().unwrap()))
}

/// What a client speaks that trusts this authority. Sessions aren't resumed: each connection is shown a certificate.
fn trusting(authority: &str, protocol: &[u8]) -> ClientConfig {
    let mut tls = client_config(Roots::Pem(authority.to_owned()), None, &[protocol]).unwrap();
    tls.resumption = Resumption::disabled();
    tls
}

fn client(authority: &str) -> reqwest::Client {
    reqwest::Client::builder()
        .tls_backend_preconfigured(trusting(authority, b"http/1.1"))
        .tls_info(true)
        .build()
        .unwrap()
}

/// An authority of the operator's, and the files of a server's certificate.
struct Operator {
    dir: TempDir,
    authority: Authority,
}

impl Operator {
    fn new() -> Self {
        let dir = TempDir::new().unwrap();
        let authority = Authority::open_or_create(&dir.path().join("ca"), SystemTime::now()).unwrap();
        let operator = Self { dir, authority };
        operator.issue();
        operator
    }

    fn certificate(&self) -> PathBuf {
        self.dir.path().join("api.pem")
    }

    fn key(&self) -> PathBuf {
        self.dir.path().join("api.key")
    }

    /// Puts a new certificate in its place: its fingerprint.
    fn issue(&self) -> Fingerprint {
        self.issue_at(SystemTime::now())
    }

    fn issue_at(&self, now: SystemTime) -> Fingerprint {
        let issued = self
            .authority
            .issue_server(&["127.0.0.1".to_owned()], DAY, now)
            .unwrap();
        put(&self.key(), issued.key_pem.as_ref().unwrap());
        put(&self.certificate(), &issued.chain_pem);
        Fingerprint::of(&certificates(&issued.chain_pem).unwrap()[0])
    }

    fn pem(&self) -> &str {
        self.authority.certificate_pem()
    }

    fn files(&self) -> TlsMode {
        TlsMode::Files {
            certificate: self.certificate(),
            key: self.key(),
        }
    }
}

/// As tools for certificates do it.
fn put(path: &Path, text: &str) {
    let beside = path.with_extension("new");
    std::fs::write(&beside, text).unwrap();
    std::fs::rename(&beside, path).unwrap();
}

async fn connect_h2(server: &Secure) -> hyper::client::conn::http2::SendRequest<Empty<&'static [u8]>> {
    let stream = TcpStream::connect(server.running.http_addr()).await.unwrap();
    let connector = TlsConnector::from(Arc::new(trusting(&server.own_authority(), b"h2")));
    let name = ServerName::try_from("127.0.0.1").unwrap();
    let stream = connector.connect(name, stream).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let made = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
    let (sender, connection) = made.unwrap();
    tokio::spawn(connection);
    sender
}

#[tokio::test(flavor = "multi_thread")]
async fn https_is_http_1_1_and_http_2_with_hsts_which_plain_http_has_not() {
    let server = Secure::own().await;
    assert!(server.running.url().starts_with("https://127.0.0.1:"));
    let answer = client(&server.own_authority())
        .get(server.url(LIVE))
        .send()
        .await
        .unwrap();
    assert_eq!(
        (answer.status(), answer.version()),
        (StatusCode::OK, reqwest::Version::HTTP_11)
    );
    assert_eq!(answer.headers()[HSTS], "max-age=31536000");

    let mut h2 = connect_h2(&server).await;
    let request = hyper::Request::get(server.url(LIVE)).body(Empty::new()).unwrap();
    let answer = h2.send_request(request).await.unwrap();
    assert_eq!(
        (answer.status(), answer.version()),
        (StatusCode::OK, hyper::Version::HTTP_2)
    );
    assert!(answer.headers().contains_key(HSTS));
    drop(h2);
    server.running.shutdown().await.unwrap();

    let plain = crate::harness::TestServer::start().await;
    let answer = plain.bare(reqwest::Method::GET, LIVE).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    assert!(!answer.headers().contains_key(HSTS));
    assert!(plain.running.certificate().is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_trusts_another_authority_is_told_which_certificate_it_was_shown() {
    let server = Secure::own().await;
    let other = Operator::new();
    let error = client(other.pem())
        .get(server.url(LIVE))
        .send()
        .await
        .unwrap_err();
    let why = untrusted(&error).unwrap();
    assert!(why.unknown_authority(), "{why}");
    let certificate = server.running.certificate().unwrap();
    assert_eq!(why.fingerprint, certificate.fingerprint());
    assert_eq!(why.authority, Some(certificate.authority().unwrap().1));
    server.is_served(&server.own_authority()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_own_authority_outlives_a_restart_and_the_certificate_is_measured() {
    let server = Secure::own().await;
    let (authority, first) = (
        server.own_authority(),
        server.running.certificate().unwrap().fingerprint(),
    );
    server.running.shutdown().await.unwrap();
    let mut wanted = config(server.dir.path());
    wanted.tls = mode(TlsMode::Own);
    let running = Server::start(wanted, host().await).await.unwrap();
    let server = Secure { running, ..server };
    assert_eq!(server.own_authority(), authority);
    assert_ne!(server.shown(&authority).await, first, "its key was never written");

    let client = client(&authority);
    let scrape = client.get(server.url("/metrics")).send().await.unwrap();
    let text = scrape.text().await.unwrap();
    let line = text
        .lines()
        .find(|line| line.starts_with("hotswap_api_certificate_expires_seconds"));
    let left: f64 = line.unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    let days = left / DAY.as_secs_f64();
    assert!((89.0..=90.0).contains(&days), "{days}");
}

#[tokio::test(flavor = "multi_thread")]
async fn plain_http_beyond_loopback_is_refused_unless_it_is_allowed() {
    let start = async |wanted: TlsMode| {
        let dir = TempDir::new().unwrap();
        let mut config = config(dir.path());
        config.http = ([0, 0, 0, 0], 0).into();
        config.tls = mode(wanted);
        (Server::start(config, host().await).await, dir)
    };
    let off = |beyond_loopback| TlsMode::Off { beyond_loopback };
    let (refused, dir) = start(off(false)).await;
    let refused = refused.unwrap_err();
    assert!(matches!(refused, StartError::Plain(_)), "{refused}");
    assert!(refused.to_string().contains("--insecure-http"), "{refused}");
    assert!(
        std::fs::read_dir(dir.path()).unwrap().next().is_none(),
        "nothing was begun"
    );

    let (allowed, _dir) = start(off(true)).await;
    let allowed = allowed.unwrap();
    assert!(allowed.url().starts_with("http://"));
    allowed.shutdown().await.unwrap();

    // Without a word it is TLS.
    let (running, dir) = start(TlsMode::Auto).await;
    let server = Secure {
        running: running.unwrap(),
        dir,
    };
    let port = server.running.http_addr().port();
    let answer = client(&server.own_authority())
        .get(format!("https://localhost:{port}{LIVE}"))
        .send()
        .await;
    assert_eq!(answer.unwrap().status(), StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_speaks_plain_http_to_the_tls_port_is_told_so() {
    let server = Secure::own().await;
    let mut stream = TcpStream::connect(server.running.http_addr()).await.unwrap();
    stream
        .write_all(b"GET /health HTTP/1.1\r\nhost: a\r\n\r\n")
        .await
        .unwrap();
    let mut answer = String::new();
    timeout(PATIENCE, stream.read_to_string(&mut answer))
        .await
        .unwrap()
        .unwrap();
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    assert!(
        answer.contains("\"https_required\"") && answer.contains("https://"),
        "{answer}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_is_silent_in_its_handshake_is_cut_by_the_deadline() {
    const DEADLINE: Duration = Duration::from_millis(300);
    let server = Secure::start(TlsConfig {
        mode: TlsMode::Own,
        handshake_timeout: DEADLINE,
        ..TlsConfig::default()
    })
    .await;
    let authority = server.own_authority();
    let began = Instant::now();
    // One says nothing, one begins a record of TLS and leaves it at that, one begins as plain HTTP does.
    for beginning in [&b""[..], &[22, 3, 1], b"GET / HTTP/1.1\r\n"] {
        let mut stream = TcpStream::connect(server.running.http_addr()).await.unwrap();
        stream.write_all(beginning).await.unwrap();
        server.is_served(&authority).await;
        let mut rest = Vec::new();
        // Closed or reset; either way it is over.
        let ended = timeout(PATIENCE, stream.read_to_end(&mut rest)).await;
        assert!(ended.is_ok(), "{beginning:?} still has its connection");
    }
    assert!(began.elapsed() >= DEADLINE, "it has its time");
}

#[tokio::test(flavor = "multi_thread")]
async fn failed_handshakes_cost_nobody_else() {
    let server = Secure::own().await;
    let (authority, other) = (server.own_authority(), Operator::new());
    let keeps_going = client(&authority);
    for _ in 0..20 {
        let mut stream = TcpStream::connect(server.running.http_addr()).await.unwrap();
        stream.write_all(&[22, 3, 1, 0, 4, 9, 9, 9, 9]).await.unwrap();
        let mut rest = Vec::new();
        let _ = timeout(PATIENCE, stream.read_to_end(&mut rest)).await.unwrap();
        client(other.pem())
            .get(server.url(LIVE))
            .send()
            .await
            .unwrap_err();
        let answer = keeps_going.get(server.url(LIVE)).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
    }
}

/// Clients of the load, of either kind.
const CLIENTS: usize = 4;
/// Requests of each before and after the exchange, and at most.
const AROUND: usize = 25;
const REQUESTS_MAX: usize = 20_000;

/// One client: how many requests, and the certificates that it was shown, one after another.
async fn load(
    client: reqwest::Client,
    url: String,
    asked: Arc<AtomicUsize>,
    exchanged: Arc<AtomicBool>,
) -> (usize, Vec<Fingerprint>) {
    let (mut shown, mut after) = (Vec::new(), 0);
    for count in 1..=REQUESTS_MAX {
        let answer = client
            .get(&url)
            .send()
            .await
            .unwrap_or_else(|error| panic!("request {count}: {error:?}"));
        assert_eq!(answer.status(), StatusCode::OK);
        let fingerprint = fingerprint(&answer);
        answer.bytes().await.unwrap();
        if shown.last() != Some(&fingerprint) {
            shown.push(fingerprint);
        }
        asked.fetch_add(1, Ordering::Relaxed);
        after += usize::from(exchanged.load(Ordering::Acquire));
        if after >= AROUND {
            return (count, shown);
        }
    }
    panic!("the exchange never came");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_is_exchanged_under_load_without_a_failed_request() {
    let operator = Operator::new();
    let server = Secure::start(mode(operator.files())).await;
    let first = server.shown(operator.pem()).await;
    let (asked, exchanged) = (Arc::<AtomicUsize>::default(), Arc::<AtomicBool>::default());
    let mut clients = Vec::new();
    for keeps_alive in [true, false] {
        for _ in 0..CLIENTS {
            let client = reqwest::Client::builder()
                .tls_backend_preconfigured(trusting(operator.pem(), b"http/1.1"))
                .tls_info(true)
                .pool_max_idle_per_host(if keeps_alive { 1 } else { 0 })
                .build()
                .unwrap();
            let load = load(
                client,
                server.url(LIVE),
                Arc::clone(&asked),
                Arc::clone(&exchanged),
            );
            clients.push((keeps_alive, tokio::spawn(load)));
        }
    }
    let deadline = Instant::now() + PATIENCE;
    while asked.load(Ordering::Relaxed) < 2 * CLIENTS * AROUND {
        assert!(Instant::now() < deadline, "the load never came up");
        sleep(Duration::from_millis(5)).await;
    }
    let second = operator.issue();
    server.running.reload_certificate().await.unwrap();
    assert_eq!(server.shown(operator.pem()).await, second);
    exchanged.store(true, Ordering::Release);

    let mut requests = 0;
    for (keeps_alive, client) in clients {
        let (count, shown) = client.await.unwrap();
        requests += count;
        let expected = if keeps_alive {
            vec![first]
        } else {
            vec![first, second]
        };
        assert_eq!(shown, expected, "keeps alive: {keeps_alive}");
    }
    println!("{requests} requests of {} clients, 0 failed", 2 * CLIENTS);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_certificate_is_noticed_and_a_broken_one_leaves_the_old() {
    let operator = Operator::new();
    let server = Secure::start(TlsConfig {
        mode: operator.files(),
        look_pause: Duration::from_millis(20),
        ..TlsConfig::default()
    })
    .await;
    let first = server.shown(operator.pem()).await;
    let reload = || server.running.reload_certificate();
    reload().await.unwrap();

    // Nobody calls: the files are looked at.
    let second = operator.issue();
    let deadline = Instant::now() + PATIENCE;
    while server.shown(operator.pem()).await != second {
        assert!(Instant::now() < deadline, "it was never noticed");
        sleep(Duration::from_millis(10)).await;
    }
    assert_ne!(first, second);

    let good = std::fs::read_to_string(operator.key()).unwrap();
    let stranger = Operator::new();
    let strange = std::fs::read_to_string(stranger.key()).unwrap();
    for broken in [strange.as_str(), "no key", "", &"x".repeat(300 << 10)] {
        put(&operator.key(), broken);
        let refused = reload().await.unwrap_err();
        assert!(
            matches!(
                refused,
                CertificateError::Pair { .. } | CertificateError::Size { .. }
            ),
            "{refused}"
        );
        assert_eq!(server.shown(operator.pem()).await, second);
    }
    std::fs::remove_file(operator.key()).unwrap();
    assert!(matches!(
        reload().await.unwrap_err(),
        CertificateError::File { .. }
    ));
    operator.issue_at(SystemTime::now() - 3 * DAY);
    assert!(matches!(
        reload().await.unwrap_err(),
        CertificateError::Ended { .. }
    ));
    assert_eq!(server.shown(operator.pem()).await, second);

    put(&operator.key(), &good);
    let third = operator.issue();
    reload().await.unwrap();
    assert_eq!(server.shown(operator.pem()).await, third);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_does_not_start_on_a_broken_pair() {
    let operator = Operator::new();
    put(&operator.key(), "no key");
    let dir = TempDir::new().unwrap();
    let mut wanted = config(dir.path());
    wanted.tls = mode(operator.files());
    let error = Server::start(wanted, host().await).await.unwrap_err();
    assert!(error.to_string().contains("api.key"), "{error}");
}
