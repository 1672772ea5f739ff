//! Live events, by real sockets.

use std::time::Duration;

use futures::StreamExt as _;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::agent::{FakeNode, Fares};
use crate::harness::{TestServer, package};

/// How long a test waits for an event.
const PATIENCE: Duration = Duration::from_secs(60);

/// An endless answer, read event by event.
struct Stream {
    chunks: futures::stream::BoxStream<'static, reqwest::Result<bytes::Bytes>>,
    text: String,
}

impl Stream {
    async fn open(server: &TestServer, path: &str, last: Option<u64>) -> Self {
        let mut request = server.bare(Method::GET, path).bearer_auth(&server.token);
        if let Some(last) = last {
            request = request.header("last-event-id", last);
        }
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Self {
            chunks: response.bytes_stream().boxed(),
            text: String::new(),
        }
    }

    /// The next event's name and data; `None` where the stream ended.
    async fn next(&mut self) -> Option<(String, Value)> {
        loop {
            if let Some(end) = self.text.find("\n\n") {
                let event: String = self.text.drain(..end + 2).collect();
                let field = |name: &str| event.lines().find_map(|line| line.strip_prefix(name));
                if let Some(data) = field("data: ") {
                    let data: Value = serde_json::from_str(data).unwrap();
                    if let Some(id) = field("id: ") {
                        assert_eq!(data["seq"].to_string(), id);
                    }
                    return Some((field("event: ").unwrap().to_owned(), data));
                }
                continue;
            }
            let chunk = timeout(PATIENCE, self.chunks.next())
                .await
                .expect("an event comes")?;
            self.text.push_str(std::str::from_utf8(&chunk.unwrap()).unwrap());
        }
    }

    async fn until(&mut self, wanted: &str) -> Vec<(String, Value)> {
        let mut events = Vec::new();
        loop {
            let event = self.next().await.expect("the stream goes on");
            let found = event.0 == wanted;
            events.push(event);
            if found {
                return events;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deployment_is_told_in_order_and_again_from_anywhere() {
    let server = TestServer::start().await;
    let addr = server.running.agents_addr();
    let _node = FakeNode::join(addr, "dev-a", "Development", Fares::Well).await;
    server
        .until("/api/v1/nodes/dev-a", |body| body["status"] == "Running")
        .await;
    server.push(&package("pay", "1.0.0")).await;

    let mut live = Stream::open(
        &server,
        "/api/v1/events?type=DeploymentStarted,DeploymentCompleted,StableSet",
        None,
    )
    .await;
    let mut other = Stream::open(&server, "/api/v1/events?module=other", None).await;
    let id = server.deploy("1.0.0", "Development").await;
    let told = live.until("DeploymentCompleted").await;
    let names: Vec<&str> = told.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["DeploymentStarted", "StableSet", "DeploymentCompleted"]);
    for (_, data) in &told {
        assert_eq!(
            (&data["executionId"], &data["moduleName"]),
            (&json!(id), &json!("pay"))
        );
        assert_eq!(
            (&data["version"], &data["environment"]),
            (&json!("1.0.0"), &json!("Development"))
        );
    }
    let none = timeout(Duration::from_millis(1), other.next()).await;
    assert!(none.is_err(), "another module's listener hears nothing: {none:?}");

    // The deployment's own stream begins with its first event, and any place in it can be gone on from.
    let path = format!("/api/v1/deployments/{id}/events");
    let all = Stream::open(&server, &path, None)
        .await
        .until("DeploymentCompleted")
        .await;
    assert_eq!(all[0].0, "DeploymentStarted");
    assert!(all.iter().any(|(name, _)| name == "DeploymentProgress"));
    let numbers: Vec<u64> = all
        .iter()
        .map(|(_, data)| data["seq"].as_u64().unwrap())
        .collect();
    assert!(numbers.is_sorted_by(|a, b| a < b), "{numbers:?}");
    let middle = numbers.len() / 2;
    let rest = Stream::open(&server, &path, Some(numbers[middle]))
        .await
        .until("DeploymentCompleted")
        .await;
    assert_eq!(rest, all[middle + 1..]);

    // The whole log, to its end: the same after a restart.
    let server = server.restart().await;
    let mut log = Stream::open(&server, "/api/v1/events?after=0&follow=false", None).await;
    let mut seqs = Vec::new();
    while let Some((_, data)) = log.next().await {
        seqs.push(data["seq"].as_u64().unwrap());
    }
    let (_, health) = server.get("/health").await;
    let end = health["events"].as_u64().unwrap();
    assert!(
        seqs.iter().copied().eq(1..=*seqs.last().unwrap()),
        "no gap: {seqs:?}"
    );
    assert!(*seqs.last().unwrap() <= end);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_ends_with_the_server_and_bad_filters_are_told() {
    let server = TestServer::start().await;
    for (path, fault) in [
        ("/api/v1/events?type=Deployment-Started", "type: "),
        ("/api/v1/events?environment=Mars", "environment: "),
        ("/api/v1/events?deployment=7", "deployment: "),
        ("/api/v1/events?after=-1", "after: "),
        ("/api/v1/events?follow=maybe", "follow: "),
    ] {
        let (status, body) = server.get(path).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{path}");
        assert!(
            body["details"][0].as_str().unwrap().starts_with(fault),
            "{body:#}"
        );
    }
    let (status, _) = server
        .get("/api/v1/deployments/7d444840-9dc0-11d1-b245-5ffdce74fad2/events")
        .await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    let mut stream = Stream::open(&server, "/api/v1/events", None).await;
    server.running.shutdown().await.unwrap();
    assert_eq!(stream.next().await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn listeners_are_limited_and_make_room_when_they_go() {
    let server = TestServer::start().await;
    let mut listeners = Vec::new();
    for _ in 0..hotswap_server::feed::CLIENTS_MAX {
        listeners.push(Stream::open(&server, "/api/v1/events", None).await);
    }
    let (status, body) = server.get("/api/v1/events").await;
    assert_eq!(
        (status, &body["code"]),
        (StatusCode::SERVICE_UNAVAILABLE, &json!("too_many_listeners"))
    );
    listeners.clear();
    let open = || async {
        server
            .bare(Method::GET, "/api/v1/events")
            .bearer_auth(&server.token)
            .send()
            .await
            .unwrap()
            .status()
    };
    let room = async {
        while open().await != StatusCode::OK {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, room)
        .await
        .expect("their places are free again");
}
