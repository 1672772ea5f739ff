//! Approvals by several people, timeouts and freezes, over restarts.

use hotswap_core::freeze::FreezeWindow;
use hotswap_core::time::Millis;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::agent::{FakeNode, Fares};
use crate::harness::{TestServer, config, deployment, package, read};

async fn created(server: &TestServer, token: &str, approval: bool) -> String {
    let mut body = deployment("pay", "1.0.0", "Development");
    body["requireApproval"] = json!(approval);
    let (status, body) = server.post_as(token, "/api/v1/deployments", &body).await;
    assert_eq!(status, StatusCode::ACCEPTED, "{body:#}");
    body["executionId"].as_str().unwrap().to_owned()
}

async fn decide(server: &TestServer, token: &str, id: &str, verb: &str) -> (StatusCode, Value) {
    let body = json!({ "approverEmail": "somebody@example.com" });
    let path = format!("/api/v1/approvals/deployments/{id}/{verb}");
    server.post_as(token, &path, &body).await
}

#[tokio::test(flavor = "multi_thread")]
async fn two_of_three_must_approve_also_over_a_restart() {
    let dir = TempDir::new().unwrap();
    let mut wanted = config(dir.path());
    let development = &mut wanted.environments.as_mut().unwrap()[0];
    development.approval_required = true;
    development.approvers.needed = 2;
    development.approvers.subjects = vec!["bob".to_owned(), "eve".to_owned(), "ada".to_owned()];
    let server = TestServer::start_with(dir, wanted.clone()).await;
    let ada = server.user("ada", "Admin").await;
    let bob = server.user("bob", "Admin").await;
    let eve = server.user("eve", "Admin").await;
    let deployer = server.user("dan", "Deployer").await;
    server.push(&package("pay", "1.0.0")).await;
    let id = created(&server, &ada, false).await;
    let (_, pending) = server.get("/api/v1/approvals/pending").await;
    assert_eq!(
        (&pending[0]["approvalsNeeded"], &pending[0]["approvedBy"]),
        (&json!(2), &json!([]))
    );
    assert_eq!(
        decide(&server, &ada, &id, "approve").await.0,
        StatusCode::FORBIDDEN,
        "the requester"
    );
    assert_eq!(
        decide(&server, &server.token, &id, "approve").await.0,
        StatusCode::FORBIDDEN,
        "not named"
    );
    assert_eq!(
        decide(&server, &deployer, &id, "approve").await.0,
        StatusCode::FORBIDDEN,
        "the role"
    );
    let (status, body) = decide(&server, &bob, &id, "approve").await;
    assert_eq!(
        (status, &body["status"], &body["approvedBy"]),
        (StatusCode::OK, &json!("Pending"), &json!(["bob"]))
    );
    assert_eq!(
        decide(&server, &bob, &id, "approve").await.0,
        StatusCode::CONFLICT,
        "once each"
    );

    let TestServer { running, dir, .. } = server;
    running.shutdown().await.unwrap();
    let server = TestServer::start_with(dir, wanted).await;
    let (_, why) = server.get(&format!("/api/v1/deployments/{id}/why")).await;
    assert_eq!(
        why["waits"][0]["message"], "waits for approvals: 1 of 2 given",
        "{why:#}"
    );
    let (status, body) = decide(&server, &eve, &id, "approve").await;
    assert_eq!(
        (status, &body["status"], &body["approvedBy"]),
        (StatusCode::OK, &json!("Approved"), &json!(["bob", "eve"]))
    );
    let (status, _) = decide(&server, &bob, &id, "reject").await;
    assert_eq!(status, StatusCode::CONFLICT);
    // Every transition has its entry, with who made it.
    let (_, entries) = server
        .get(&format!("/api/v1/audit?deployment={id}&limit=1000"))
        .await;
    let made = |action: &str| -> Vec<Value> {
        let entries = entries.as_array().unwrap().iter();
        let of = entries.filter(|entry| entry["action"] == action && entry["kind"] == "event");
        of.map(|entry| entry["actor"].clone()).collect()
    };
    assert_eq!(made("deploymentRequested"), [json!("ada")]);
    assert_eq!(made("approvalGiven"), [json!("bob")]);
    assert_eq!(made("approvalDecided"), [json!("eve")]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_needs_no_approval_says_so_and_what_nobody_decides_expires() {
    let dir = TempDir::new().unwrap();
    let mut wanted = config(dir.path());
    wanted.environments.as_mut().unwrap()[0].approval_timeout = Millis(300);
    let server = TestServer::start_with(dir, wanted).await;
    let bob = server.user("bob", "Admin").await;
    server.push(&package("pay", "1.0.0")).await;
    let id = created(&server, &server.token, false).await;
    let (_, approval) = server.get(&format!("/api/v1/approvals/deployments/{id}")).await;
    assert_eq!(approval["status"], "AutoApproved");
    let id = created(&server, &server.token, true).await;
    let ended = server.ended(&id).await;
    assert_eq!(ended["status"], "Failed", "{ended:#}");
    let (_, approval) = server.get(&format!("/api/v1/approvals/deployments/{id}")).await;
    assert_eq!(approval["status"], "Expired");
    assert_eq!(
        decide(&server, &bob, &id, "approve").await.0,
        StatusCode::CONFLICT
    );
    assert_eq!(
        decide(&server, &bob, "none", "approve").await.0,
        StatusCode::NOT_FOUND
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_freeze_holds_says_so_and_ends_when_it_is_no_longer_configured() {
    let dir = TempDir::new().unwrap();
    let mut wanted = config(dir.path());
    let development = &mut wanted.environments.as_mut().unwrap()[0];
    development.freezes = vec![FreezeWindow {
        name: "always".to_owned(),
        starts: "* * * * *".parse().unwrap(),
        lasts: Millis::from_secs(3_600),
        reason: "the quarter's end".to_owned(),
    }];
    let server = TestServer::start_with(dir, wanted).await;
    let node = FakeNode::join(server.running.agents_addr(), "dev-a", "Development", Fares::Well).await;
    server
        .until("/api/v1/clusters", |clusters| clusters[0]["healthyNodes"] == 1)
        .await;
    server.push(&package("pay", "1.0.0")).await;
    let id = created(&server, &server.token, false).await;
    let why = format!("/api/v1/deployments/{id}/why");
    let frozen = server
        .until(&why, |why| why["waits"][0]["data"]["for"] == "freeze")
        .await;
    let message = frozen["waits"][0]["message"].as_str().unwrap();
    assert!(message.contains("always: the quarter's end"), "{message}");
    drop(node);
    // The harness's own configuration has no freeze.
    let server = server.restart().await;
    let _node = FakeNode::join(server.running.agents_addr(), "dev-a", "Development", Fares::Well).await;
    let ended = server.ended(&id).await;
    assert_eq!(ended["status"], "Succeeded", "{ended:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn those_that_wait_come_in_pages() {
    let server = TestServer::start().await;
    server.push(&package("pay", "1.0.0")).await;
    let mut asked = Vec::new();
    for _ in 0..3 {
        let mut body = deployment("pay", "1.0.0", "Development");
        body["requireApproval"] = json!(true);
        let (status, body) = server.post("/api/v1/deployments", &body).await;
        assert_eq!(status, StatusCode::ACCEPTED, "{body:#}");
        asked.push(body["executionId"].clone());
    }
    let (mut path, mut seen) = ("/api/v1/approvals/pending?limit=2".to_owned(), Vec::new());
    for page in [2, 1] {
        let response = server.request(Method::GET, &path).send().await.unwrap();
        let link = response
            .headers()
            .get("link")
            .map(|link| link.to_str().unwrap().to_owned());
        let (_, body) = read(response).await;
        let ids = body
            .as_array()
            .unwrap()
            .iter()
            .map(|approval| approval["approvalId"].clone());
        seen.extend(ids);
        assert_eq!(body.as_array().unwrap().len(), page);
        match link {
            Some(link) => path = link[1..link.find('>').unwrap()].to_owned(),
            None => assert_eq!(page, 1, "the last page"),
        }
    }
    assert_eq!(seen, asked, "oldest first");
    let (status, body) = server.get("/api/v1/approvals/pending?limit=0&cursor=x").await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert_eq!(body["details"].as_array().unwrap().len(), 2, "{body:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_approval_is_a_persons_whom_nobody_made_for_it() {
    let server = TestServer::start().await;
    let bob = server.user("bob", "Admin").await;
    server.push(&package("pay", "1.0.0")).await;
    let id = created(&server, &server.token, true).await;
    let new = json!({ "name": "ci", "role": "Admin" });
    let (_, made) = server.post_as(&bob, "/api/v1/tokens", &new).await;
    let token = made["token"].as_str().unwrap();
    assert_eq!(
        decide(&server, token, &id, "approve").await.0,
        StatusCode::FORBIDDEN,
        "a token"
    );
    let late = server.user("late", "Admin").await;
    let (status, body) = decide(&server, &late, &id, "approve").await;
    assert_eq!(
        (status, &body["code"]),
        (StatusCode::FORBIDDEN, &json!("account_too_new")),
        "{body:#}"
    );
    let later = created(&server, &server.token, true).await;
    assert_eq!(
        decide(&server, &late, &later, "approve").await.0,
        StatusCode::OK,
        "what came after it"
    );
    assert_eq!(decide(&server, &bob, &id, "approve").await.0, StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn values_that_nobody_approved_ride_along_with_no_approval() {
    let server = TestServer::start().await;
    let bob = server.user("bob", "Admin").await;
    server.push(&package("pay", "1.0.0")).await;
    let set = |value: &str| {
        let body = json!({ "values": { "URL": value } });
        let request = server.request(Method::PUT, "/api/v1/modules/pay/config/Development");
        async move { request.json(&body).send().await.unwrap().status() }
    };
    assert_eq!(set("https://good").await, StatusCode::OK);
    let first = created(&server, &server.token, true).await;
    let (_, approval) = server
        .get(&format!("/api/v1/approvals/deployments/{first}"))
        .await;
    assert_eq!(approval["values"], json!({ "Development": 1 }), "{approval:#}");
    assert_eq!(set("https://evil").await, StatusCode::OK);
    let (status, body) = decide(&server, &bob, &first, "approve").await;
    assert_eq!(status, StatusCode::BAD_REQUEST, "{body:#}");
    assert!(body["error"].as_str().unwrap().contains("ask again"), "{body:#}");
    assert_eq!(decide(&server, &bob, &first, "reject").await.0, StatusCode::OK);

    // Changed between the approval and its environment: nothing is there that could take it, so it stays on the way.
    let second = created(&server, &server.token, true).await;
    assert_eq!(decide(&server, &bob, &second, "approve").await.0, StatusCode::OK);
    assert_eq!(set("https://worse").await, StatusCode::OK);
    let ended = server.ended(&second).await;
    let told = ended.to_string();
    assert!(
        ended["status"] == "Failed" && told.contains("number 2 when the approval was asked for"),
        "{ended:#}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_environment_on_the_way_asks_for_its_approval_too() {
    let dir = TempDir::new().unwrap();
    let mut wanted = config(dir.path());
    let environments = wanted.environments.as_mut().unwrap();
    environments[0].approval_required = true;
    environments[0].approvers.needed = 2;
    environments[0].freezes = Vec::new();
    let server = TestServer::start_with(dir, wanted).await;
    server.push(&package("pay", "1.0.0")).await;
    let body = deployment("pay", "1.0.0", "QA");
    let (status, body) = server.post("/api/v1/deployments", &body).await;
    assert_eq!(status, StatusCode::ACCEPTED, "{body:#}");
    let path = format!(
        "/api/v1/approvals/deployments/{}",
        body["executionId"].as_str().unwrap()
    );
    let (_, approval) = server.get(&path).await;
    assert_eq!(
        (&approval["status"], &approval["approvalsNeeded"]),
        (&json!("Pending"), &json!(2)),
        "{approval:#}"
    );
    // Nor does one person take away what two must let in.
    let dan = server.user("dan", "Deployer").await;
    let (status, body) = server
        .post_as(
            &dan,
            "/api/v1/modules/pay/undeploy",
            &json!({ "environment": "Development" }),
        )
        .await;
    assert_eq!(
        (status, &body["code"]),
        (StatusCode::FORBIDDEN, &json!("role_required")),
        "{body:#}"
    );
}
