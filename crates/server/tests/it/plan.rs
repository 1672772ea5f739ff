//! A plan is what then happens.

use hotswap_core::policy::{CanaryBy, Strategy};
use hotswap_package::Package;
use reqwest::StatusCode;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::agent::Fares;
use crate::deployments::fleet;
use crate::harness::{TestServer, config, deployment, package};

fn strings(value: &Value) -> Vec<&str> {
    value
        .as_array()
        .unwrap()
        .iter()
        .filter_map(Value::as_str)
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deployment_does_what_its_plan_says() {
    let server = TestServer::start().await;
    let _nodes = fleet(&server, Fares::Well).await;
    for version in ["1.0.0", "1.1.0"] {
        server.push(&package("pay", version)).await;
    }
    let first = server.deploy("1.0.0", "Production").await;
    assert_eq!(server.ended(&first).await["status"], "Succeeded");
    let staged = server.deploy("1.1.0", "Development").await;
    assert_eq!(server.ended(&staged).await["status"], "Succeeded");

    let mut wanted = deployment("pay", "1.1.0", "Production");
    wanted["seed"] = json!(7);
    let (status, plan) = server.post("/api/v1/deployments/plan", &wanted).await;
    assert_eq!((status, &plan["seed"]), (StatusCode::OK, &json!(7)), "{plan:#}");
    let places = plan["environments"].as_array().unwrap();
    let actions: Vec<&str> = places
        .iter()
        .map(|place| place["action"].as_str().unwrap())
        .collect();
    assert_eq!(actions, ["Skip", "RollOut", "RollOut", "RollOut"]);
    let production = &places[3];
    assert_eq!(production["baseVersion"], "1.0.0");
    let judged = &production["steps"][0]["judge"];
    assert!(judged["requests"].as_u64().unwrap() > 100, "{judged:#}");
    assert!(judged["requestsPerSecond"].as_f64().unwrap() > 0.0, "{judged:#}");
    let (_, deployments) = server.get("/api/v1/deployments").await;
    assert_eq!(deployments.as_array().unwrap().len(), 2, "nothing was made");

    let (_, made) = server.post("/api/v1/deployments", &wanted).await;
    let id = made["executionId"].as_str().unwrap();
    assert_eq!(server.ended(id).await["status"], "Succeeded");
    let (_, why) = server.get(&format!("/api/v1/deployments/{id}/why")).await;
    let decisions = why["decisions"].as_array().unwrap();
    for place in &places[1..] {
        let environment = place["environment"].as_str().unwrap();
        let started: Vec<Vec<&str>> = decisions
            .iter()
            .map(|decision| &decision["data"])
            .filter(|data| data["type"] == "stepStarted" && data["key"]["environment"] == environment)
            .map(|data| strings(&data["joins"]))
            .collect();
        let planned: Vec<Vec<&str>> = place["steps"]
            .as_array()
            .unwrap()
            .iter()
            .map(|step| strings(&step["joins"]))
            .collect();
        assert_eq!(planned, started, "{environment}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_says_what_is_in_the_way() {
    let server = TestServer::start().await;
    let (status, body) = server
        .post("/api/v1/deployments/plan", &deployment("pay", "1.0.0", "QA"))
        .await;
    assert_eq!(
        (status, &body["code"]),
        (StatusCode::NOT_FOUND, &json!("unknown_module"))
    );
    let (status, body) = server
        .post("/api/v1/deployments/plan", &json!({ "seed": -1 }))
        .await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert!(
        strings(&body["details"])
            .iter()
            .any(|fault| fault.starts_with("seed: ")),
        "{body:#}"
    );

    server.push(&package("pay", "1.0.0")).await;
    let (_, plan) = server
        .post("/api/v1/deployments/plan", &deployment("pay", "1.0.0", "QA"))
        .await;
    let actions: Vec<&str> = plan["environments"]
        .as_array()
        .unwrap()
        .iter()
        .map(|place| place["action"].as_str().unwrap())
        .collect();
    assert_eq!(actions, ["Skip", "Fail"], "no node is there: {plan:#}");

    let _nodes = fleet(&server, Fares::Well).await;
    server
        .post("/api/v1/nodes/qa-a/drain", &json!({ "deadline": "PT0S" }))
        .await;
    let mut wanted = deployment("pay", "1.0.0", "QA");
    wanted["requireApproval"] = json!(true);
    let (_, plan) = server.post("/api/v1/deployments/plan", &wanted).await;
    assert_eq!(plan["approvalRequired"], true);
    let qa = &plan["environments"][1];
    assert_eq!(
        qa["leftOut"],
        json!([{ "nodeId": "qa-a", "reason": "is drained" }])
    );
    assert_eq!(strings(&qa["steps"][0]["joins"]), ["qa-b"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kind_without_requests_is_refused_where_a_canary_shares_them_out() {
    const EXAMPLE: &str = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../modules/ebpf/packet-limiter/1.0.0"
    );
    let dir = TempDir::new().unwrap();
    let mut config = config(dir.path());
    let environments = config.environments.as_mut().unwrap();
    environments[1].strategy = Strategy::Canary {
        by: CanaryBy::Traffic,
        percents: vec![10, 100],
    };
    let server = TestServer::start_with(dir, config).await;
    let read = |name: &str| std::fs::read(format!("{EXAMPLE}/{name}")).unwrap();
    let package_of_ebpf = Package::assemble(&read("module.toml"), &read("packet-limiter.o")).unwrap();
    server.push(&package_of_ebpf).await;
    server.push(&package("pay", "1.0.0")).await;
    for path in ["/api/v1/deployments/plan", "/api/v1/deployments"] {
        for target in ["QA", "Production"] {
            let (status, body) = server
                .post(path, &deployment("packet-limiter", "1.0.0", target))
                .await;
            assert_eq!(
                (status, &body["code"]),
                (StatusCode::BAD_REQUEST, &json!("no_traffic_to_share")),
                "{path} to {target}: {body:#}"
            );
            assert_eq!(
                body["error"],
                "packet-limiter doesn't route requests (it is of the kind ebpf), so the canary by traffic of QA has \
                 no share to give it; use a canary by nodes there (strategy.by = \"nodes\"), or another strategy"
            );
        }
        for (module, target) in [("packet-limiter", "Development"), ("pay", "Production")] {
            let (status, body) = server.post(path, &deployment(module, "1.0.0", target)).await;
            assert!(status.is_success(), "{path} of {module} to {target}: {body:#}");
        }
    }
}
