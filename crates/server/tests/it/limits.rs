//! Rate limits, as clients meet them.

use hotswap_server::RateLimits;
use reqwest::{Method, Response, StatusCode};
use serde_json::json;
use tempfile::TempDir;

use crate::harness::{PASSWORD, TestServer, config, deployment, package};

fn number(response: &Response, name: &str) -> u64 {
    response.headers()[name].to_str().unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn writes_are_counted_and_what_stops_or_undoes_never_waits() {
    let dir = TempDir::new().unwrap();
    let mut wanted = config(dir.path());
    wanted.rate_limits = RateLimits::default();
    let server = TestServer::start_with(dir, wanted).await;
    server.push(&package("pay", "1.0.0")).await;
    let body = deployment("pay", "1.0.0", "Development");
    let create = || {
        server
            .request(Method::POST, "/api/v1/deployments")
            .json(&body)
            .send()
    };
    for left in (0..10).rev() {
        let answer = create().await.unwrap();
        assert_eq!(answer.status(), StatusCode::ACCEPTED);
        assert_eq!(number(&answer, "x-ratelimit-limit"), 10);
        assert_eq!(number(&answer, "x-ratelimit-remaining"), left);
    }
    let over = create().await.unwrap();
    assert_eq!(over.status(), StatusCode::TOO_MANY_REQUESTS);
    let wait = number(&over, "retry-after");
    assert!((1..=60).contains(&wait), "{wait}");
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_secs();
    let reset = number(&over, "x-ratelimit-reset");
    assert!((now..=now + 62).contains(&reset), "{reset} after {now}");
    let body: serde_json::Value = over.json().await.unwrap();
    assert_eq!(body["code"], "rate_limited");
    for verb in ["abort", "rollback"] {
        for _ in 0..12 {
            let path = format!("/api/v1/deployments/7d444840-9dc0-11d1-b245-5ffdce74fad2/{verb}");
            let answer = server.request(Method::POST, &path).send().await.unwrap();
            assert_eq!(answer.status(), StatusCode::NOT_FOUND, "it is let through");
        }
    }
    let read = server
        .request(Method::GET, "/api/v1/deployments")
        .send()
        .await
        .unwrap();
    assert_eq!(
        (read.status(), number(&read, "x-ratelimit-limit")),
        (StatusCode::OK, 1_000)
    );
    // Another user has a count of its own.
    let ada = server.user("ada", "Deployer").await;
    let own = server
        .request_as(&ada, Method::POST, "/api/v1/deployments")
        .json(&json!({}));
    assert_eq!(own.send().await.unwrap().status(), StatusCode::BAD_REQUEST);
}

#[tokio::test(flavor = "multi_thread")]
async fn logins_are_counted_by_address_and_clusters_by_user() {
    let dir = TempDir::new().unwrap();
    let mut wanted = config(dir.path());
    wanted.rate_limits = RateLimits::default();
    let server = TestServer::start_with(dir, wanted).await;
    let login = || {
        let body = json!({ "username": "admin", "password": PASSWORD });
        server
            .bare(Method::POST, "/api/v1/authentication/login")
            .json(&body)
            .send()
    };
    // The harness logged in once.
    for _ in 0..4 {
        assert_eq!(login().await.unwrap().status(), StatusCode::OK);
    }
    let over = login().await.unwrap();
    assert_eq!(
        over.status(),
        StatusCode::TOO_MANY_REQUESTS,
        "also with the right password"
    );
    assert!(number(&over, "retry-after") > 0);
    let clusters = || server.request(Method::GET, "/api/v1/clusters").send();
    for _ in 0..60 {
        assert_eq!(clusters().await.unwrap().status(), StatusCode::OK);
    }
    assert_eq!(clusters().await.unwrap().status(), StatusCode::TOO_MANY_REQUESTS);
    let health = server.bare(Method::GET, "/health").send().await.unwrap();
    assert_eq!(health.status(), StatusCode::OK);
}
