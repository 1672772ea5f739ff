//! What the server shows of itself: metrics and health.

use reqwest::{Method, StatusCode};
use serde_json::json;

use crate::agent::{FakeNode, Fares};
use crate::harness::{TestServer, package};

/// The contract's names, which dashboards rely on.
const CONTRACT: [&str; 15] = [
    "deployments_started_total",
    "deployments_completed_total",
    "deployments_failed_total",
    "deployments_rolled_back_total",
    "deployment_duration_seconds",
    "approval_requests_total",
    "approvals_granted_total",
    "approvals_rejected_total",
    "modules_deployed_total",
    "nodes_updated_total",
    "node_cpu_usage",
    "node_memory_usage",
    "node_latency",
    "node_error_rate",
    "node_requests_per_second",
];

/// A scrape, and what it has under a name and with some labels: the sum of the values.
pub(crate) struct Scrape(String);

impl Scrape {
    pub(crate) async fn of(server: &TestServer) -> Self {
        let response = server.request(Method::GET, "/metrics").send().await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        let kind = response.headers()["content-type"].to_str().unwrap().to_owned();
        assert!(kind.starts_with("application/openmetrics-text"), "{kind}");
        Self(response.text().await.unwrap())
    }

    fn sum(&self, name: &str, labels: &[&str]) -> f64 {
        let samples = self.0.lines().filter_map(|line| {
            let (series, value) = line.split(" # ").next()?.rsplit_once(' ')?;
            let (found, with) = series.split_once('{').unwrap_or((series, ""));
            let has = |label: &&str| with.contains(*label);
            (found == name && labels.iter().all(has)).then(|| value.parse::<f64>().unwrap())
        });
        samples.sum()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scrape_counts_what_was_decided_and_shows_who_reports() {
    let server = TestServer::start().await;
    let addr = server.running.agents_addr();
    let _node = FakeNode::join(addr, "dev-1", "Development", Fares::Well).await;
    server.push(&package("pay", "1.0.0")).await;
    let id = server.deploy("1.0.0", "Development").await;
    let ended = server.ended(&id).await;
    assert_eq!(ended["status"], "Succeeded", "{ended:#}");

    let scrape = Scrape::of(&server).await;
    for name in CONTRACT {
        let family = name.strip_suffix("_total").unwrap_or(name);
        assert!(
            scrape.0.contains(&format!("# TYPE {family} ")),
            "{name} is missing:\n{}",
            scrape.0
        );
    }
    let here = ["environment=\"Development\"", "module=\"pay\""];
    for name in [
        "deployments_started_total",
        "deployments_completed_total",
        "modules_deployed_total",
        "nodes_updated_total",
    ] {
        assert!((scrape.sum(name, &here) - 1.0).abs() < 1e-9, "{name}");
    }
    assert!((scrape.sum("deployment_duration_seconds_count", &["outcome=\"succeeded\""]) - 1.0).abs() < 1e-9);
    let exemplar = format!("# {{trace_id=\"{}\"}}", ended["traceId"].as_str().unwrap());
    assert!(
        scrape.0.contains(&exemplar),
        "no exemplar {exemplar}:\n{}",
        scrape.0
    );
    assert!((scrape.sum("node_cpu_usage", &["node=\"dev-1\""]) - 12.5).abs() < 1e-9);
    let running = ["environment=\"Development\"", "status=\"Running\""];
    assert!((scrape.sum("hotswap_nodes", &running) - 1.0).abs() < 1e-9);
    assert!(!scrape.0.contains(&id), "no series carries a deployment's id");
    assert!(scrape.0.ends_with("# EOF\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ready_server_says_what_makes_it_so() {
    let server = TestServer::start().await;
    let (status, health) = server.get("/health/ready").await;
    assert_eq!(status, StatusCode::OK);
    let all = json!({ "leads": true, "storeWritable": true, "agentsAccepted": true });
    assert_eq!(health["checks"], all, "{health:#}");
}
