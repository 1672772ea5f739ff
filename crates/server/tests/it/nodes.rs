//! What operators do with nodes.

use reqwest::{Method, StatusCode};
use serde_json::json;

use crate::agent::{FakeNode, Fares};
use crate::harness::{TestServer, package, read};

async fn node(server: &TestServer, name: &str, environment: &str) -> FakeNode {
    let node = FakeNode::join(server.running.agents_addr(), name, environment, Fares::Well).await;
    let runs = |body: &serde_json::Value| body["status"] == "Running";
    server.until(&format!("/api/v1/nodes/{name}"), runs).await;
    node
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drained_node_serves_nothing_until_it_is_undrained() {
    let server = TestServer::start().await;
    let _nodes = (
        node(&server, "qa-a", "QA").await,
        node(&server, "qa-b", "QA").await,
    );
    server.push(&package("pay", "1.0.0")).await;
    let id = server.deploy("1.0.0", "QA").await;
    assert_eq!(server.ended(&id).await["status"], "Succeeded");

    let path = "/api/v1/nodes/qa-a";
    let body = json!({ "deadline": "PT1H", "reason": "a new disk" });
    let (status, record) = server.post(&format!("{path}/drain"), &body).await;
    assert_eq!(status, StatusCode::ACCEPTED);
    assert_eq!(record["drain"]["reason"], "a new disk");
    let drained = |body: &serde_json::Value| {
        body["status"] == "Stopped" && body["modules"][0]["routes"].as_array().is_some_and(Vec::is_empty)
    };
    server.until(path, drained).await;
    let (_, cluster) = server.get("/api/v1/clusters/QA").await;
    assert_eq!(
        (&cluster["healthyNodes"], &cluster["unhealthyNodes"]),
        (&json!(1), &json!(0)),
        "who is drained is not unhealthy"
    );

    // The other one can't be spared meanwhile.
    let (_, record) = server.post("/api/v1/nodes/qa-b/drain", &json!({})).await;
    assert_eq!(record["drain"]["state"], "Draining");
    let (_, waiting) = server.get("/api/v1/nodes/qa-b").await;
    assert_eq!(waiting["status"], "Stopping");
    let waits = waiting["drain"]["waitsFor"].as_str().unwrap();
    assert!(
        waits.contains("1 node is away or drained and 1 may be"),
        "{waits}"
    );
    let (status, _) = server.post("/api/v1/nodes/qa-b/undrain", &json!({})).await;
    assert_eq!(status, StatusCode::OK);

    // A rollout goes on without the drained one, which has its release at hand afterwards.
    server.push(&package("pay", "1.1.0")).await;
    let id = server.deploy("1.1.0", "QA").await;
    let ended = server.ended(&id).await;
    assert_eq!(ended["status"], "Succeeded", "{ended:#}");
    let server = server.restart().await;
    let _nodes = (
        FakeNode::join(server.running.agents_addr(), "qa-a", "QA", Fares::Well).await,
        FakeNode::join(server.running.agents_addr(), "qa-b", "QA", Fares::Well).await,
    );
    server.until(path, drained).await;
    let (status, _) = server.post(&format!("{path}/undrain"), &json!({})).await;
    assert_eq!(status, StatusCode::OK);
    let serves = |body: &serde_json::Value| {
        body["status"] == "Running" && body["modules"][0]["routes"][0]["version"] == "1.1.0"
    };
    server.until(path, serves).await;
    let (status, body) = server.post(&format!("{path}/undrain"), &json!({})).await;
    assert_eq!(
        (status, &body["code"]),
        (StatusCode::BAD_REQUEST, &json!("not_now"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn labels_are_set_over_reported_ones_and_taken_back() {
    let server = TestServer::start().await;
    let _node = node(&server, "dev-a", "Development").await;
    let path = "/api/v1/nodes/dev-a/labels";
    let (status, record) = server
        .post(path, &json!({ "labels": { "zone": "b", "rack": "12" } }))
        .await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(record["labels"], json!({ "zone": "b", "rack": "12" }));
    let (_, record) = server.post(path, &json!({ "labels": { "rack": null } })).await;
    assert_eq!(
        (&record["labels"], &record["setLabels"]),
        (&json!({ "zone": "b" }), &json!({ "zone": "b" }))
    );
    for (body, fault) in [
        (json!({}), "labels: is required"),
        (json!({ "labels": { "a b": "x" } }), "labels: key \"a b\""),
        (json!({ "labels": { "a": 7 } }), "labels: the value of \"a\""),
        (
            json!({ "labels": { "a": "x".repeat(257) } }),
            "labels: the value of \"a\"",
        ),
    ] {
        let (status, answer) = server.post(path, &body).await;
        assert_eq!(status, StatusCode::BAD_REQUEST);
        let told = answer["details"][0].as_str().unwrap();
        assert!(told.starts_with(fault), "{told}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_are_moved_and_removed_once() {
    let server = TestServer::start().await;
    let running = node(&server, "dev-a", "Development").await;
    let (status, body) = server
        .post("/api/v1/nodes/dev-a/move", &json!({ "environment": "mars" }))
        .await;
    assert_eq!(
        (status, &body["code"]),
        (StatusCode::BAD_REQUEST, &json!("validation"))
    );
    let moving = || {
        let request = server.request(Method::POST, "/api/v1/nodes/dev-a/move");
        request
            .header("idempotency-key", "once")
            .json(&json!({ "environment": "qa" }))
            .send()
    };
    let (status, record) = read(moving().await.unwrap()).await;
    assert_eq!((status, &record["environment"]), (StatusCode::OK, &json!("QA")));
    let again = moving().await.unwrap();
    assert_eq!(again.headers()["idempotent-replayed"], "true");
    assert_eq!(again.status(), StatusCode::OK, "a retry gets the first answer");

    drop(running);
    let remove = || server.request(Method::DELETE, "/api/v1/nodes/dev-a").send();
    let (status, record) = read(remove().await.unwrap()).await;
    assert_eq!((status, &record["environment"]), (StatusCode::OK, &json!(null)));
    let (status, body) = read(remove().await.unwrap()).await;
    assert_eq!(
        (status, &body["code"]),
        (StatusCode::NOT_FOUND, &json!("unknown_node"))
    );
    let (_, nodes) = server.get("/api/v1/nodes").await;
    assert_eq!(nodes, json!([]));
    for verb in ["drain", "undrain", "labels", "move"] {
        let (status, body) = server
            .post(&format!("/api/v1/nodes/none/{verb}"), &json!({}))
            .await;
        assert_eq!(
            (status, &body["code"]),
            (StatusCode::NOT_FOUND, &json!("unknown_node")),
            "{verb}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_module_leaves_an_environment() {
    let server = TestServer::start().await;
    let _node = node(&server, "dev-a", "Development").await;
    server.push(&package("pay", "1.0.0")).await;
    let id = server.deploy("1.0.0", "Development").await;
    assert_eq!(server.ended(&id).await["status"], "Succeeded");
    let (status, body) = server
        .post("/api/v1/modules/pay/undeploy", &json!({ "environment": "QA" }))
        .await;
    assert_eq!(
        (status, &body["code"]),
        (StatusCode::BAD_REQUEST, &json!("not_now"))
    );
    let (status, accepted) = server
        .post(
            "/api/v1/modules/pay/undeploy",
            &json!({ "environment": "development" }),
        )
        .await;
    assert_eq!(
        (status, &accepted["nodesAffected"]),
        (StatusCode::ACCEPTED, &json!(1))
    );
    let ended = server.ended(accepted["executionId"].as_str().unwrap()).await;
    assert_eq!(
        (&ended["status"], &ended["version"]),
        (&json!("Succeeded"), &json!("")),
        "{ended:#}"
    );
    let (_, module) = server.get("/api/v1/modules/pay").await;
    assert_eq!(module["environments"], json!([]));
    let (status, _) = server
        .post(
            "/api/v1/modules/none-such/undeploy",
            &json!({ "environment": "QA" }),
        )
        .await;
    assert_eq!(status, StatusCode::NOT_FOUND);
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_are_listed_by_what_they_are() {
    let server = TestServer::start().await;
    let _nodes = (
        node(&server, "dev-a", "Development").await,
        node(&server, "dev-b", "Development").await,
        node(&server, "qa-a", "QA").await,
    );
    for (name, zone) in [("dev-a", "a/1"), ("dev-b", "b"), ("qa-a", "a/1")] {
        server
            .post(
                &format!("/api/v1/nodes/{name}/labels"),
                &json!({ "labels": { "zone": zone } }),
            )
            .await;
    }
    let names = async |query: &str| {
        let (_, nodes) = server.get(&format!("/api/v1/nodes?{query}")).await;
        let names = nodes
            .as_array()
            .unwrap()
            .iter()
            .map(|node| node["nodeId"].as_str().unwrap().to_owned());
        names.collect::<Vec<_>>()
    };
    assert_eq!(names("label=zone%3Da/1").await, ["dev-a", "qa-a"]);
    assert_eq!(names("label=zone&environment=qa").await, ["qa-a"]);
    assert_eq!(
        names("status=running&environment=development").await,
        ["dev-a", "dev-b"]
    );
    assert!(names("status=Failed").await.is_empty());
    let page = "/api/v1/nodes?label=zone%3Da/1&limit=1";
    let first = server.request(Method::GET, page).send().await.unwrap();
    let link = first.headers()["link"].to_str().unwrap().to_owned();
    let next = link.trim_start_matches('<').split('>').next().unwrap();
    let (_, rest) = server.get(next).await;
    assert_eq!(rest[0]["nodeId"], "qa-a", "filters go with the cursor");
    let (status, body) = server.get("/api/v1/nodes?status=odd&label=%00").await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert_eq!(body["details"].as_array().unwrap().len(), 2);
}
