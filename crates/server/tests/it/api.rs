//! The API's shapes and its answers to bad input.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::harness::{TestServer, deployment, package, read};

#[tokio::test(flavor = "multi_thread")]
async fn health_and_clusters_of_an_empty_fleet() {
    let server = TestServer::start().await;
    for path in ["/health", "/health/live", "/health/ready"] {
        let (status, body) = server.get(path).await;
        assert_eq!(
            (status, &body["status"]),
            (StatusCode::OK, &json!("Healthy")),
            "{path}"
        );
    }
    let (_, clusters) = server.get("/api/v1/clusters").await;
    assert_eq!(
        clusters[0],
        json!({ "environment": "Development", "totalNodes": 0, "healthyNodes": 0, "isHealthy": true })
    );
    assert_eq!(clusters.as_array().unwrap().len(), 4);
    let (_, cluster) = server.get("/api/v1/clusters/pRoDuCtIoN").await;
    let zeros = json!({
        "avgCpuUsage": 0.0, "avgMemoryUsage": 0.0, "avgLatency": 0.0, "errorRate": 0.0, "requestsPerSecond": 0.0,
    });
    assert_eq!(
        cluster,
        json!({
            "environment": "Production", "totalNodes": 0, "healthyNodes": 0, "unhealthyNodes": 0,
            "metrics": zeros, "nodes": [],
        })
    );
    let (status, series) = server.get("/api/v1/clusters/QA/metrics").await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(
        series,
        json!({ "environment": "QA", "interval": "5m", "dataPoints": [] })
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn every_error_has_its_document() {
    let server = TestServer::start().await;
    let unknown = "/api/v1/deployments/7d444840-9dc0-11d1-b245-5ffdce74fad2";
    for (method, path, status, code) in [
        (Method::GET, "/nowhere", 404, "unknown_route"),
        (Method::DELETE, "/api/v1/deployments", 405, "method_not_allowed"),
        (Method::GET, unknown, 404, "unknown_deployment"),
        (Method::GET, "/api/v1/deployments/none", 404, "unknown_deployment"),
        (
            Method::POST,
            "/api/v1/deployments/none/rollback",
            404,
            "unknown_deployment",
        ),
        (Method::GET, "/api/v1/clusters/Moon", 404, "unknown_environment"),
        (
            Method::GET,
            "/api/v1/clusters/QA/metrics?interval=7s",
            400,
            "validation",
        ),
        (
            Method::GET,
            "/api/v1/clusters/QA/metrics?from=now&to=then",
            400,
            "validation",
        ),
        (
            Method::GET,
            "/api/v1/clusters/QA/metrics?from=2026-01-02T00:00:00Z&to=2026-01-01T00:00:00Z",
            400,
            "validation",
        ),
        (
            Method::GET,
            "/api/v1/deployments?limit=0&status=Odd&module=X&environment=Moon&cursor=!",
            400,
            "validation",
        ),
        (Method::GET, "/api/v1/modules/none-such", 404, "unknown_module"),
        (Method::GET, "/api/v1/nodes/none", 404, "unknown_node"),
        (
            Method::GET,
            "/api/v1/approvals/deployments/none",
            404,
            "unknown_deployment",
        ),
    ] {
        let response = server
            .request(method, path)
            .header("traceparent", TRACEPARENT)
            .send()
            .await
            .unwrap();
        let (got, body) = read(response).await;
        assert_eq!(
            (got.as_u16(), &body["code"]),
            (status, &json!(code)),
            "{path}: {body:#}"
        );
        assert_eq!(body["traceId"], TRACE, "the caller's trace is joined");
        assert!(body["error"].as_str().is_some_and(|error| !error.is_empty()));
    }
    for verb in ["rollback", "abort", "pause", "resume", "skip", "promote"] {
        let (status, body) = server.post(&format!("{unknown}/{verb}"), &json!({})).await;
        assert_eq!(
            (status, &body["code"]),
            (StatusCode::NOT_FOUND, &json!("unknown_deployment")),
            "{verb}"
        );
    }
}

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const TRACEPARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

#[tokio::test(flavor = "multi_thread")]
async fn all_faults_of_a_deployment_are_told_at_once() {
    let server = TestServer::start().await;
    let body = json!({
        "moduleName": "-X", "version": "v1", "targetEnvironment": "Moon", "requesterEmail": "nobody",
        "description": "x".repeat(1_001), "metadata": { "": "empty key", "long": "x".repeat(501), "number": 7 },
        "requireApproval": "yes",
    });
    let (status, answer) = server.post("/api/v1/deployments", &body).await;
    assert_eq!(
        (status, &answer["code"]),
        (StatusCode::BAD_REQUEST, &json!("validation"))
    );
    let details: Vec<&str> = answer["details"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(Value::as_str)
        .collect();
    let count = |field: &str| {
        details
            .iter()
            .filter(|detail| detail.starts_with(&format!("{field}: ")))
            .count()
    };
    for field in [
        "moduleName",
        "version",
        "targetEnvironment",
        "requesterEmail",
        "description",
        "requireApproval",
    ] {
        assert_eq!(count(field), 1, "{field} in {details:#?}");
    }
    assert_eq!(count("metadata"), 3, "{details:#?}");

    let (_, answer) = server.post("/api/v1/deployments", &json!({})).await;
    assert_eq!(answer["details"].as_array().unwrap().len(), 4, "{answer:#}");
    let many: serde_json::Map<String, Value> = (0..51).map(|i| (i.to_string(), json!("x"))).collect();
    let mut body = deployment("pay", "1.0.0", "QA");
    body["metadata"] = many.into();
    let (_, answer) = server.post("/api/v1/deployments", &body).await;
    assert_eq!(
        answer["details"],
        json!(["metadata: must have at most 50 entries, not 51"])
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_that_are_no_json_objects() {
    let server = TestServer::start().await;
    let send = |content_type: &'static str, body: Vec<u8>| {
        let request = server
            .request(Method::POST, "/api/v1/deployments")
            .header("content-type", content_type);
        async { read(request.body(body).send().await.unwrap()).await }
    };
    let (status, body) = send("application/json", b"{\n  \"moduleName\": }".to_vec()).await;
    assert_eq!(
        (status, &body["code"]),
        (StatusCode::BAD_REQUEST, &json!("malformed_json"))
    );
    assert!(
        body["error"].as_str().unwrap().contains("line 2 column 17"),
        "{body:#}"
    );
    let (status, _) = send("application/json", b"[]".to_vec()).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    let (status, _) = send("application/json", Vec::new()).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    let (status, body) = send("text/plain", b"{}".to_vec()).await;
    assert_eq!(
        (status, &body["code"]),
        (StatusCode::UNSUPPORTED_MEDIA_TYPE, &json!("content_type"))
    );
    let (status, body) = send("application/json", vec![b' '; 300 << 10]).await;
    assert_eq!(
        (status, &body["code"]),
        (StatusCode::PAYLOAD_TOO_LARGE, &json!("body_too_large"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_release_never_pushed_names_those_there_are() {
    let server = TestServer::start().await;
    let (status, body) = server
        .post("/api/v1/deployments", &deployment("pay", "1.0.0", "QA"))
        .await;
    assert_eq!(
        (status, &body["code"]),
        (StatusCode::NOT_FOUND, &json!("unknown_module"))
    );
    server.push(&package("pay", "1.0.0")).await;
    let (status, body) = server
        .post("/api/v1/deployments", &deployment("pay", "2.0.0", "qa"))
        .await;
    assert_eq!(
        (status, &body["code"]),
        (StatusCode::NOT_FOUND, &json!("unknown_version"))
    );
    let error = body["error"].as_str().unwrap();
    assert!(
        error.contains("pay") && error.contains("2.0.0") && error.contains("1.0.0"),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_document_describes_every_route() {
    let server = TestServer::start().await;
    let (status, document) = server.get("/openapi.json").await;
    assert_eq!(status, StatusCode::OK);
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1"));
    for path in [
        "/api/v1/deployments",
        "/api/v1/deployments/{id}",
        "/api/v1/clusters/{environment}",
        "/health",
    ] {
        assert!(document["paths"][path].is_object(), "{path}");
    }
    for schema in [
        "DeploymentView",
        "StageView",
        "ClusterView",
        "NodeHealthView",
        "ServerHealth",
        "ErrorBody",
    ] {
        assert!(document["components"]["schemas"][schema].is_object(), "{schema}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn heads_are_limited_and_others_are_answered() {
    let server = TestServer::start().await;
    // Beyond the limit by more than the last read before it may bring.
    let large = server
        .request(Method::GET, "/health")
        .header("x-large", "a".repeat(256 << 10));
    let many = (0..200).fold(server.request(Method::GET, "/health"), |request, number| {
        request.header(format!("x-{number}"), "a")
    });
    for request in [large, many] {
        match request.send().await {
            Ok(answer) => assert_eq!(answer.status(), StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE),
            // The connection may be cut before the answer is read: refused all the same.
            Err(error) => assert!(error.is_request(), "{error}"),
        }
    }
    assert_eq!(server.get("/health").await.0, StatusCode::OK);
}
