//! Webhooks, told to a real receiver that fails first.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use hotswap_server::Server;
use hotswap_server::notify::{Format, Pauses, SIGNATURE_HEADER, TIMESTAMP_HEADER, Webhook, sign};
use parking_lot::Mutex;
use serde_json::Value;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::time::{Instant, sleep};

use crate::agent::{FakeNode, Fares};
use crate::harness::{TestServer, config, host, package};

const SECRET: &str = "a secret of the test's own";
const PATIENCE: Duration = Duration::from_secs(60);

/// A request that came.
#[derive(Clone, Debug)]
struct Came {
    headers: HeaderMap,
    body: String,
    answered: StatusCode,
}

impl Came {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }
}

/// A receiver that fails as often as it is told, then takes everything.
struct Receiver {
    addr: SocketAddr,
    seen: Arc<Seen>,
}

#[derive(Default)]
struct Seen {
    failing: Mutex<u32>,
    came: Mutex<Vec<Came>>,
}

impl Receiver {
    async fn start(failing: u32) -> Self {
        let seen = Arc::new(Seen {
            failing: Mutex::new(failing),
            ..Seen::default()
        });
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let addr = listener.local_addr().unwrap();
        let router = Router::new()
            .route("/hook", post(take))
            .with_state(Arc::clone(&seen));
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { addr, seen }
    }

    fn webhook(&self) -> Webhook {
        Webhook {
            url: format!("http://{}/hook", self.addr),
            format: Format::Json,
            secret: Some(SECRET.to_owned()),
        }
    }

    fn came(&self) -> Vec<Came> {
        self.seen.came.lock().clone()
    }

    fn taken(&self) -> Vec<Value> {
        let taken = self
            .came()
            .into_iter()
            .filter(|came| came.answered == StatusCode::OK);
        taken.map(|came| came.json()).collect()
    }

    async fn until_taken(&self, kind: &str) -> Vec<Value> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let taken = self.taken();
            if taken.iter().any(|message| message["type"] == kind) {
                return taken;
            }
            assert!(Instant::now() < deadline, "{kind} never came: {:#?}", self.came());
            sleep(Duration::from_millis(20)).await;
        }
    }
}

async fn take(State(seen): State<Arc<Seen>>, headers: HeaderMap, body: Bytes) -> StatusCode {
    let mut failing = seen.failing.lock();
    let answered = if *failing > 0 {
        *failing -= 1;
        StatusCode::SERVICE_UNAVAILABLE
    } else {
        StatusCode::OK
    };
    seen.came.lock().push(Came {
        headers,
        body: String::from_utf8(body.to_vec()).unwrap(),
        answered,
    });
    answered
}

async fn start(dir: TempDir, webhooks: Vec<Webhook>, attempts_max: u32) -> TestServer {
    let mut config = config(dir.path());
    config.webhooks = webhooks;
    config.webhook_pauses = Pauses {
        first: Duration::from_millis(10),
        longest: Duration::from_millis(50),
        attempts_max,
    };
    let running = Server::start(config, host().await).await.unwrap();
    TestServer::of(running, dir).await
}

#[tokio::test(flavor = "multi_thread")]
async fn events_come_signed_in_order_and_once_though_the_receiver_failed_first() {
    let receiver = Receiver::start(3).await;
    let server = start(TempDir::new().unwrap(), vec![receiver.webhook()], 100).await;
    let _node = FakeNode::join(server.running.agents_addr(), "dev-1", "Development", Fares::Well).await;
    server.push(&package("pay", "1.0.0")).await;
    let id = server.deploy("1.0.0", "Development").await;
    let ended = server.ended(&id).await;
    let taken = receiver.until_taken("DeploymentCompleted").await;
    let kinds: Vec<&str> = taken
        .iter()
        .map(|message| message["type"].as_str().unwrap())
        .collect();
    assert_eq!(kinds, ["DeploymentStarted", "DeploymentCompleted"]);
    for message in &taken {
        assert_eq!(message["executionId"], id.as_str());
        assert_eq!(message["traceId"], ended["traceId"], "as in the API's answer");
        assert_eq!(message["moduleName"], "pay");
    }
    let came = receiver.came();
    assert_eq!(came.len(), 5, "three failures, two taken");
    let ids: Vec<&str> = came
        .iter()
        .map(|came| came.headers["hotswap-event-id"].to_str().unwrap())
        .collect();
    assert!(
        ids[..4].iter().all(|id| *id == ids[0]),
        "repeats have one identity: {ids:?}"
    );
    assert_ne!(ids[4], ids[0]);
    for came in &came {
        let timestamp = came.headers[TIMESTAMP_HEADER].to_str().unwrap();
        let signature = sign(SECRET, timestamp.parse().unwrap(), &came.body);
        assert_eq!(came.headers[SIGNATURE_HEADER], signature.as_str());
    }
    let standing = server
        .until("/api/v1/webhooks", |list| list[0]["delivered"] == 2)
        .await;
    assert_eq!(standing[0]["attempts"], 0, "{standing:#}");
    assert!(
        !standing.to_string().contains("/hook"),
        "the address is not shown"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_neither_loses_nor_repeats() {
    // Nobody listens there: what happens meanwhile has to wait.
    let nobody = TcpListener::bind(("127.0.0.1", 0))
        .await
        .unwrap()
        .local_addr()
        .unwrap();
    let webhook = Webhook {
        url: format!("http://{nobody}/hook"),
        format: Format::Json,
        secret: None,
    };
    let server = start(TempDir::new().unwrap(), vec![webhook.clone()], 100_000).await;
    let _node = FakeNode::join(server.running.agents_addr(), "dev-1", "Development", Fares::Well).await;
    server.push(&package("pay", "1.0.0")).await;
    let id = server.deploy("1.0.0", "Development").await;
    server.ended(&id).await;
    server
        .until("/api/v1/webhooks", |list| list[0]["attempts"].as_u64() > Some(1))
        .await;
    let TestServer { running, dir, .. } = server;
    running.shutdown().await.unwrap();
    let listener = TcpListener::bind(nobody).await.unwrap();
    let seen = Arc::<Seen>::default();
    let router = Router::new()
        .route("/hook", post(take))
        .with_state(Arc::clone(&seen));
    tokio::spawn(async move { axum::serve(listener, router).await });
    let receiver = Receiver { addr: nobody, seen };
    let server = start(dir, vec![webhook.clone()], 100_000).await;
    let taken = receiver.until_taken("DeploymentCompleted").await;
    assert_eq!(taken.len(), 2, "{taken:#?}");
    let TestServer { running, dir, .. } = server;
    running.shutdown().await.unwrap();
    // Once more: what was told is told no more.
    let server = start(dir, vec![webhook], 100_000).await;
    let again = server.deploy("1.0.0", "Development").await;
    let deadline = Instant::now() + PATIENCE;
    while !receiver
        .taken()
        .iter()
        .any(|message| message["executionId"] == again.as_str())
    {
        assert!(Instant::now() < deadline, "{:#?}", receiver.came());
        sleep(Duration::from_millis(20)).await;
    }
    let of_first = receiver.taken();
    let of_first = of_first
        .iter()
        .filter(|message| message["executionId"] == id.as_str());
    assert_eq!(of_first.count(), 2, "none of the first deployment's came again");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_never_taken_is_a_dead_letter_and_the_next_goes_on() {
    let receiver = Receiver::start(2).await;
    let server = start(TempDir::new().unwrap(), vec![receiver.webhook()], 2).await;
    let _node = FakeNode::join(server.running.agents_addr(), "dev-1", "Development", Fares::Well).await;
    server.push(&package("pay", "1.0.0")).await;
    server.deploy("1.0.0", "Development").await;
    let taken = receiver.until_taken("DeploymentCompleted").await;
    assert_eq!(taken.len(), 1, "the first was given up");
    let (_, dead) = server.get("/api/v1/webhooks/dead-letters").await;
    assert_eq!(dead.as_array().unwrap().len(), 1, "{dead:#}");
    assert_eq!(dead[0]["type"], "DeploymentStarted");
    assert_eq!(dead[0]["attempts"], 2);
    assert_eq!(dead[0]["body"]["moduleName"], "pay");
    assert!(dead[0]["error"].as_str().unwrap().contains("503"), "{dead:#}");

    // Once more by hand: refused first, and it stays; then taken, and it is gone.
    let again = format!(
        "/api/v1/webhooks/dead-letters/{}/resend",
        dead[0]["id"].as_str().unwrap()
    );
    *receiver.seen.failing.lock() = 1;
    let (status, resent) = server.post(&again, &serde_json::json!({})).await;
    assert_eq!(status, 200, "{resent:#}");
    assert_eq!(resent[0]["delivered"], false, "{resent:#}");
    assert!(resent[0]["error"].as_str().unwrap().contains("503"), "{resent:#}");
    let (_, kept) = server.get("/api/v1/webhooks/dead-letters").await;
    assert_eq!(kept[0]["attempts"], 3, "{kept:#}");
    let (_, resent) = server.post(&again, &serde_json::json!({})).await;
    assert_eq!(resent[0]["delivered"], true, "{resent:#}");
    let came = receiver.came();
    let last = came.last().unwrap();
    assert_eq!(last.json()["type"], "DeploymentStarted");
    assert_eq!(last.headers["hotswap-event-id"], dead[0]["id"].as_str().unwrap());
    let (_, none) = server.get("/api/v1/webhooks/dead-letters").await;
    assert_eq!(none, serde_json::json!([]));
    let (status, refused) = server.post(&again, &serde_json::json!({})).await;
    assert_eq!(
        (status, &refused["code"]),
        (StatusCode::NOT_FOUND, &Value::from("not_found")),
        "{refused:#}"
    );
}
