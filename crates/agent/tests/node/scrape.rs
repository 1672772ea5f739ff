//! What a node shows to a scraper: on an address of its own, never through the ingress.

use std::sync::Arc;

use hotswap_agent::Agent;

use crate::support::{Does, Node, Server, package, serves};
use crate::traffic::{client, get};

#[tokio::test(flavor = "multi_thread")]
async fn a_scrape_reads_the_meter_and_the_ingress_shows_nothing() {
    let (server, node) = (Server::start().await, Node::new());
    let v1 = package("1.0.0", Does::Answers);
    server.plane.add(&v1);
    server
        .plane
        .say(server.plane.spec(1, &[serves(1, &[(&v1, 100)])]));
    let mut config = node.config(&server.url());
    config.metrics = Some(([127, 0, 0, 1], 0).into());
    let agent = Agent::start(config, Arc::clone(&node.host)).await.unwrap();
    server.plane.until_routed(&[(&v1, 100)]).await;
    for _ in 0..3 {
        get(&client(), agent.ingress_addr(), "/ok").await;
    }
    let metrics = agent.metrics_addr().unwrap();
    let (status, text) = get(&client(), metrics, "/metrics").await;
    assert_eq!(status, 200);
    let module = v1.manifest.name.as_str();
    for line in [
        format!("hotswap_requests_total{{module=\"{module}\",version=\"1.0.0\",outcome=\"ok\"}} 3.0"),
        format!("hotswap_request_duration_seconds_count{{module=\"{module}\",version=\"1.0.0\"}} 3"),
        "hotswap_agent_connected 1.0".to_owned(),
    ] {
        assert!(text.lines().any(|found| found == line), "no {line} in\n{text}");
    }
    for name in [
        "node_cpu_usage",
        "node_memory_usage",
        "process_resident_memory_bytes",
    ] {
        assert!(
            text.contains(&format!("# TYPE {name} gauge")),
            "no {name} in\n{text}"
        );
    }
    assert_eq!(get(&client(), metrics, "/other").await.0, 404);
    let (status, body) = get(&client(), agent.ingress_addr(), "/metrics").await;
    assert!(
        !body.contains("hotswap_requests"),
        "{status}: the ingress answered {body}"
    );
    agent.shutdown().await;
}
