//! Deployments through the whole pipeline, on nodes that speak the real protocol.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::agent::{FakeNode, Fares};
use crate::harness::{TestServer, deployment, package, package_with, read};

/// Two nodes in each of the four environments.
pub(crate) async fn fleet(server: &TestServer, fares: Fares) -> Vec<FakeNode> {
    let mut nodes = Vec::new();
    for environment in ["Development", "QA", "Staging", "Production"] {
        for place in ["a", "b"] {
            let name = format!("{}-{place}", environment.to_lowercase());
            let addr = server.running.agents_addr();
            nodes.push(FakeNode::join(addr, &name, environment, fares).await);
        }
    }
    let all_run = |clusters: &Value| {
        clusters
            .as_array()
            .unwrap()
            .iter()
            .all(|cluster| cluster["healthyNodes"] == 2)
    };
    server.until("/api/v1/clusters", all_run).await;
    nodes
}

fn stage<'a>(deployment: &'a Value, name: &str) -> &'a Value {
    let stages = deployment["stages"].as_array().unwrap();
    stages
        .iter()
        .find(|stage| stage["name"] == name)
        .unwrap_or_else(|| panic!("no stage {name}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_release_goes_through_every_stage_and_back_again() {
    let server = TestServer::start().await;
    let _nodes = fleet(&server, Fares::Well).await;
    server.push(&package("pay", "1.0.0")).await;
    server.push(&package("pay", "1.1.0")).await;

    let first = server.deploy("1.0.0", "production").await;
    let ended = server.ended(&first).await;
    assert_eq!(ended["status"], "Succeeded", "{ended:#}");
    let names: Vec<&str> = ended["stages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|stage| stage["name"].as_str().unwrap())
        .collect();
    assert_eq!(
        names,
        [
            "Build",
            "Test",
            "Security Scan",
            "Deploy to Development",
            "Deploy to QA",
            "Deploy to Staging",
            "Deploy to Production",
            "Validation"
        ]
    );
    for (name, strategy) in [
        ("Development", "Direct"),
        ("QA", "Rolling"),
        ("Staging", "BlueGreen"),
        ("Production", "Canary"),
    ] {
        let stage = stage(&ended, &format!("Deploy to {name}"));
        assert_eq!(
            (&stage["status"], &stage["strategy"]),
            (&json!("Succeeded"), &json!(strategy)),
            "{stage:#}"
        );
        assert_eq!(
            (&stage["nodesDeployed"], &stage["nodesFailed"]),
            (&json!(2), &json!(0))
        );
    }
    assert!(stage(&ended, "Build").get("nodesDeployed").is_none());
    assert!(
        stage(&ended, "Test")["message"]
            .as_str()
            .unwrap()
            .contains("1 of 1 smoke checks passed")
    );

    let second = server.deploy("1.1.0", "Production").await;
    assert_eq!(server.ended(&second).await["status"], "Succeeded");
    let (_, analysis) = server
        .get(&format!("/api/v1/deployments/{second}/analysis"))
        .await;
    let judged = &analysis["rollouts"][0];
    assert_eq!(
        (&judged["environment"], &judged["outcome"]),
        (&json!("Production"), &json!("pass")),
        "{analysis:#}"
    );
    assert!(!judged["series"].as_array().unwrap().is_empty());
    let (_, why) = server.get(&format!("/api/v1/deployments/{second}/why")).await;
    let told: Vec<&str> = why["decisions"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|decision| decision["message"].as_str())
        .collect();
    assert!(
        told.iter().any(|message| message.contains("1.1.0 is stable now")),
        "{told:#?}"
    );

    // The first one's release is no longer stable; the second's is.
    let (status, body) = server
        .post(&format!("/api/v1/deployments/{first}/rollback"), &json!({}))
        .await;
    assert_eq!(
        (status, &body["code"]),
        (StatusCode::BAD_REQUEST, &json!("not_now")),
        "{body:#}"
    );
    let (status, body) = server
        .post(&format!("/api/v1/deployments/{second}/rollback"), &json!({}))
        .await;
    assert_eq!(
        (status, &body["status"], &body["nodesAffected"]),
        (StatusCode::ACCEPTED, &json!("InProgress"), &json!(2))
    );
    let rollback = server.ended(body["rollbackId"].as_str().unwrap()).await;
    assert_eq!(
        (&rollback["status"], &rollback["version"]),
        (&json!("Succeeded"), &json!("1.0.0")),
        "{rollback:#}"
    );
    let (_, undone) = server.get(&format!("/api/v1/deployments/{second}")).await;
    assert_eq!(undone["status"], "RolledBack");
    let back = |node: &Value| node["modules"][0]["routes"] == json!([{ "version": "1.0.0", "weight": 100 }]);
    server.until("/api/v1/nodes/production-a", back).await;
    let (_, module) = server.get("/api/v1/modules/pay").await;
    assert!(
        module["versions"][0]["holdReason"].as_str().is_some(),
        "what was rolled back is held: {module:#}"
    );

    // All of it is there after a restart, and the list pages.
    let server = server.restart().await;
    let (_, list) = server.get("/api/v1/deployments?limit=2").await;
    assert_eq!(list.as_array().unwrap().len(), 2);
    assert_eq!(list[1]["executionId"], second.as_str());
    let response = server
        .request(Method::GET, "/api/v1/deployments?limit=2")
        .send()
        .await
        .unwrap();
    let link = response.headers()["link"].to_str().unwrap().to_owned();
    let next = link.trim_start_matches('<').split('>').next().unwrap();
    let (_, rest) = server.get(next).await;
    assert_eq!(rest[0]["executionId"], first.as_str());
    assert_eq!(rest.as_array().unwrap().len(), 1);
    let (_, only) = server
        .get("/api/v1/deployments?status=rolledback&environment=PRODUCTION&module=pay")
        .await;
    assert_eq!(only.as_array().unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn harm_is_shown_and_taken_back() {
    let server = TestServer::start().await;
    let _nodes = fleet(&server, Fares::WithErrors).await;
    server.push(&package("pay", "1.0.0")).await;
    let first = server.deploy("1.0.0", "Staging").await;
    assert_eq!(
        server.ended(&first).await["status"],
        "Succeeded",
        "nothing judges below Production"
    );
    server.push(&package("pay", "1.1.0")).await;
    // Production has no control yet: its first release is judged by probes, which are fine.
    let first = server.deploy("1.0.0", "Production").await;
    assert_eq!(server.ended(&first).await["status"], "Succeeded");
    let second = server.deploy("1.1.0", "Production").await;
    let ended = server.ended(&second).await;
    assert_eq!(ended["status"], "Failed", "{ended:#}");
    assert!(
        stage(&ended, "Deploy to Production")["message"]
            .as_str()
            .unwrap()
            .contains("error rate"),
        "{ended:#}"
    );
    let (_, analysis) = server
        .get(&format!("/api/v1/deployments/{second}/analysis"))
        .await;
    let judged = &analysis["rollouts"][0];
    assert_eq!(judged["outcome"], "fail", "{analysis:#}");
    assert!(
        judged["failedAt"].is_string() && judged["wentBackAt"].is_string(),
        "{judged:#}"
    );
    let last = judged["series"].as_array().unwrap().last().unwrap();
    let errors = &last["evidence"][0];
    assert_eq!(errors["signal"], "errors");
    assert!(errors["fail"].as_f64() >= errors["failAt"].as_f64(), "{last:#}");

    // The same evidence under another policy: one fold over the events.
    let replay = |set: &str| format!("/api/v1/deployments/{second}/replay?set={set}");
    let (_, same) = server.get(&replay("")).await;
    assert_eq!(same, analysis, "the recorded evidence is complete");
    // Half of the candidate's requests fail: hardly more than this tolerates.
    let lax = "judge.error_margin_points=0.5,judge.tolerance_share=0.95";
    let (_, lax) = server.get(&replay(lax)).await;
    let lax = &lax["rollouts"][0];
    assert_eq!(
        (&lax["outcome"], &lax["failedAt"]),
        (&json!("inconclusive"), &Value::Null),
        "{lax:#}"
    );
    assert_eq!(lax["policy"]["error_margin_points"], 0.5);
    let (status, refused) = server.get(&replay("judge.alfa=0.05,alpha=2")).await;
    assert_eq!(
        (status, &refused["code"]),
        (StatusCode::BAD_REQUEST, &json!("validation")),
        "{refused:#}"
    );
    assert!(
        refused["details"][0].as_str().unwrap().contains("alfa"),
        "{refused:#}"
    );
    let (status, body) = server
        .post("/api/v1/deployments", &deployment("pay", "1.1.0", "Production"))
        .await;
    assert_eq!(
        (status, &body["code"]),
        (StatusCode::BAD_REQUEST, &json!("release_held"))
    );
    let (status, body) = server
        .post(&format!("/api/v1/deployments/{second}/rollback"), &json!({}))
        .await;
    assert_eq!(
        status,
        StatusCode::BAD_REQUEST,
        "nothing of it to roll back: {body:#}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn smoke_checks_that_fail_on_nodes_fail_the_deployment() {
    let server = TestServer::start().await;
    let _nodes = fleet(&server, Fares::SmokeFails).await;
    server.push(&package("pay", "1.0.0")).await;
    let id = server.deploy("1.0.0", "Staging").await;
    let ended = server.ended(&id).await;
    assert_eq!(ended["status"], "Failed");
    assert!(
        stage(&ended, "Deploy to Staging")["message"]
            .as_str()
            .unwrap()
            .contains("smoke"),
        "{ended:#}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_servers_own_checks_name_what_is_wrong() {
    let server = TestServer::start().await;
    server
        .push(&package_with(
            "pay",
            "1.0.0",
            "\n[[smoke]]\nname = \"traps\"\npath = \"/trap\"\n",
        ))
        .await;
    let ended = server.ended(&server.deploy("1.0.0", "Development").await).await;
    assert_eq!(ended["status"], "Failed");
    let message = stage(&ended, "Test")["message"].as_str().unwrap();
    assert!(
        message.contains("1 of 2 smoke checks failed: traps: "),
        "{message}"
    );

    server
        .push(&package_with(
            "pay",
            "1.1.0",
            "\n[capabilities]\noutbound-hosts = [\"api.example.com\"]\n",
        ))
        .await;
    let ended = server.ended(&server.deploy("1.1.0", "Development").await).await;
    let message = stage(&ended, "Security Scan")["message"].as_str().unwrap();
    assert_eq!(message, "Development does not grant requests to api.example.com");

    let manifest = b"name = \"pay\"\nversion = \"1.2.0\"\nentry = \"m.wasm\"\n[[routes]]\nprefix = \"/\"\n[[smoke]]\nname = \"a\"\npath = \"/ok\"\n";
    let broken = hotswap_package::Package::assemble(manifest, b"\0asm\x0d\0\x01\0and then nothing").unwrap();
    server.push(&broken).await;
    let ended = server.ended(&server.deploy("1.2.0", "Development").await).await;
    assert_eq!(stage(&ended, "Build")["status"], "Failed", "{ended:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_gets_the_first_answer() {
    let server = TestServer::start().await;
    server.push(&package("pay", "1.0.0")).await;
    let send = |server: &TestServer, version: &str| {
        let request = server
            .request(Method::POST, "/api/v1/deployments")
            .header("idempotency-key", "k1");
        request.json(&deployment("pay", version, "Development"))
    };
    let response = send(&server, "1.0.0").send().await.unwrap();
    let location = response.headers()["location"].to_str().unwrap().to_owned();
    let (status, first) = read(response).await;
    assert_eq!(status, StatusCode::ACCEPTED);
    assert_eq!(
        location,
        format!("/api/v1/deployments/{}", first["executionId"].as_str().unwrap())
    );
    assert_eq!(first["links"]["self"], location.as_str());
    assert!(first["estimatedDuration"].as_str().unwrap().starts_with("PT"));
    assert_eq!(
        read(send(&server, "1.0.0").send().await.unwrap()).await,
        (status, first.clone())
    );
    let server = server.restart().await;
    assert_eq!(
        read(send(&server, "1.0.0").send().await.unwrap()).await,
        (status, first),
        "after a restart too"
    );
    let (status, body) = read(send(&server, "2.0.0").send().await.unwrap()).await;
    assert_eq!(
        (status, &body["code"]),
        (StatusCode::UNPROCESSABLE_ENTITY, &json!("idempotency_key_reused"))
    );
    let (_, list) = server.get("/api/v1/deployments").await;
    assert_eq!(list.as_array().unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_creations_at_once_make_a_hundred_deployments() {
    let server = TestServer::start().await;
    server.push(&package("pay", "1.0.0")).await;
    let body = deployment("pay", "1.0.0", "Development");
    let creations = (0..100).map(|i| {
        let request = server
            .request(Method::POST, "/api/v1/deployments")
            .header("idempotency-key", format!("k{}", i % 50));
        let request = request.json(&body);
        async { read(request.send().await.unwrap()).await }
    });
    let answers = futures::future::join_all(creations).await;
    assert!(
        answers.iter().all(|(status, _)| *status == StatusCode::ACCEPTED),
        "{answers:#?}"
    );
    let ids: std::collections::BTreeSet<&str> = answers
        .iter()
        .map(|(_, body)| body["executionId"].as_str().unwrap())
        .collect();
    assert_eq!(ids.len(), 50, "each key made one deployment");
    let (_, list) = server.get("/api/v1/deployments").await;
    assert_eq!(list.as_array().unwrap().len(), 50);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_approval_comes_first_and_takes_two_people() {
    let server = TestServer::start().await;
    let bob = server.user("bob", "Admin").await;
    server.push(&package("pay", "1.0.0")).await;
    let mut body = deployment("pay", "1.0.0", "Development");
    body["requireApproval"] = json!(true);
    let (_, created) = server.post("/api/v1/deployments", &body).await;
    assert_eq!(created["status"], "PendingApproval");
    let id = created["executionId"].as_str().unwrap();
    let (_, pending) = server.get("/api/v1/approvals/pending").await;
    assert_eq!(
        (&pending[0]["status"], &pending[0]["deploymentExecutionId"]),
        (&json!("Pending"), &json!(id))
    );
    let decide = |who: &str, verb: &str, email: &str| {
        let path = format!("/api/v1/approvals/deployments/{id}/{verb}");
        let body = json!({ "approverEmail": email, "reason": "looks good" });
        let (server, who) = (&server, who.to_owned());
        async move { server.post_as(&who, &path, &body).await }
    };
    assert_eq!(
        decide(&server.token, "approve", "somebody-else@example.com")
            .await
            .0,
        StatusCode::FORBIDDEN,
        "the requester, whatever address it gives"
    );
    assert_eq!(decide(&bob, "approve", "nobody").await.0, StatusCode::BAD_REQUEST);
    let (status, approval) = decide(&bob, "approve", "bob@example.com").await;
    assert_eq!(
        (status, &approval["status"]),
        (StatusCode::OK, &json!("Approved")),
        "{approval:#}"
    );
    assert_eq!(
        (&approval["respondedBy"], &approval["responseReason"]),
        (&json!("bob@example.com"), &json!("looks good"))
    );
    assert_eq!(
        (&approval["requester"], &approval["approvedBy"]),
        (&json!("admin"), &json!(["bob"]))
    );
    assert_eq!(
        decide(&bob, "reject", "bob@example.com").await.0,
        StatusCode::CONFLICT
    );
    let ended = server.ended(id).await;
    assert_eq!(stage(&ended, "Approval")["status"], "Succeeded");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_deployment_is_aborted_not_rolled_back() {
    let server = TestServer::start().await;
    server.push(&package("pay", "1.0.0")).await;
    let mut body = deployment("pay", "1.0.0", "Development");
    body["requireApproval"] = json!(true);
    let (_, created) = server.post("/api/v1/deployments", &body).await;
    let path = format!("/api/v1/deployments/{}", created["executionId"].as_str().unwrap());
    let (status, body) = server.post(&format!("{path}/rollback"), &json!({})).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert!(
        body["error"].as_str().unwrap().contains("abort it instead"),
        "{body:#}"
    );
    let (status, body) = read(
        server
            .request(Method::POST, &format!("{path}/abort"))
            .send()
            .await
            .unwrap(),
    )
    .await;
    assert_eq!(
        (status, &body["status"]),
        (StatusCode::ACCEPTED, &json!("Cancelled")),
        "{body:#}"
    );
    let (status, _) = server.post(&format!("{path}/abort"), &json!({})).await;
    assert_eq!(status, StatusCode::BAD_REQUEST, "it has ended");
}
