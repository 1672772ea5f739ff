//! What lets nodes join, and how often.

use std::time::Duration;

use futures::future::join_all;
use hotswap_core::time::WallTime;
use hotswap_server::enrolment::{Credentials, EnrolmentChange, EnrolmentRecords, NodeCertificate, Origin};
use hotswap_server::store::{EnrolmentStore as _, SqliteStore};
use hotswap_transport::{KeyId, request};
use hotswap_wire::pb;
use hotswap_wire::pb::agent_service_client::AgentServiceClient;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::certified::{audited, code, join, join_with, secured, start, token, token_for};
use crate::harness::{TestServer, config};

#[tokio::test(flavor = "multi_thread")]
async fn each_token_that_lets_nobody_in_says_why() {
    let server = start().await;
    let running = &server.running;
    let refused = async |token: &hotswap_transport::JoinToken, node: &str| {
        let refused = join(running, token, node).await.err().expect("it is refused");
        assert!(!refused.message().contains(token.secret.as_str()));
        code(&refused).to_owned()
    };
    let used = token_for(&server, "QA").await;
    join(running, &used, "qa-1").await.unwrap();
    assert_eq!(refused(&used, "qa-2").await, "join_token_used_up");
    let (expired, _) = token(&server, &json!({ "environment": "QA", "expiresIn": "PT0.001S" })).await;
    server
        .until("/api/v1/join-tokens", |tokens| {
            tokens
                .as_array()
                .is_some_and(|tokens| tokens.iter().any(|of| of["state"] == "Expired"))
        })
        .await;
    assert_eq!(refused(&expired, "qa-2").await, "join_token_expired");
    let (named, _) = token(&server, &json!({ "environment": "QA", "nodes": "qa-2*" })).await;
    assert_eq!(refused(&named, "qa-3").await, "join_token_for_others");
    assert_eq!(refused(&named, "a b").await, "invalid_node_name");
    // A refusal uses nothing up.
    join(running, &named, "qa-22").await.unwrap();
    let (revoked, id) = token(&server, &json!({ "environment": "QA" })).await;
    let path = format!("/api/v1/join-tokens/{id}");
    let gone = server.request(Method::DELETE, &path).send().await.unwrap();
    assert_eq!(gone.status(), StatusCode::NO_CONTENT);
    assert_eq!(refused(&revoked, "qa-4").await, "join_token_unknown");
    let mut guessed = token_for(&server, "QA").await;
    guessed.secret = "guessed".to_owned().into();
    assert_eq!(refused(&guessed, "qa-4").await, "join_token_unknown");
    let taken = token_for(&server, "QA").await;
    assert_eq!(refused(&taken, "qa-1").await, "node_name_taken");
    for outcome in [
        "join_token_used_up",
        "join_token_expired",
        "join_token_unknown",
        "node_name_taken",
    ] {
        audited(&server, "join", outcome).await;
    }
    let (_, tokens) = server.get("/api/v1/join-tokens").await;
    let states: Vec<&str> = tokens
        .as_array()
        .unwrap()
        .iter()
        .map(|of| of["state"].as_str().unwrap())
        .collect();
    assert!(
        states.contains(&"UsedUp") && states.contains(&"Expired") && states.contains(&"Active"),
        "{states:?}"
    );
    assert!(!tokens.to_string().contains("digest"), "{tokens}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_used_as_often_as_it_may_be_and_a_lost_answer_counts_once() {
    let server = start().await;
    let token = token_for(&server, "QA").await;
    let racers = (0..8).map(|racer| {
        let (running, token) = (&server.running, &token);
        async move { join(running, token, &format!("qa-{racer}")).await }
    });
    let outcomes = join_all(racers).await;
    let won = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
    let lost = outcomes.iter().filter_map(|outcome| outcome.as_ref().err());
    assert_eq!(won, 1, "exactly one of eight");
    assert!(lost.map(code).all(|code| code == "join_token_used_up"));
    // The same key may ask again: its answer was lost. Another one may not.
    let again = token_for(&server, "QA").await;
    let key = request().unwrap();
    let first = join_with(&server.running, &again, "qa-9", &key).await.unwrap();
    let second = join_with(&server.running, &again, "qa-9", &key).await.unwrap();
    assert_ne!(first.identity.serial(), second.identity.serial());
    let refused = join(&server.running, &again, "qa-9").await.err().unwrap();
    assert_eq!(code(&refused), "join_token_used_up");
}

#[tokio::test(flavor = "multi_thread")]
async fn join_tokens_are_admins_to_make_within_limits() {
    let server = start().await;
    let deployer = server.user("dora", "Deployer").await;
    let body = json!({ "environment": "QA" });
    let (status, _) = server.post_as(&deployer, "/api/v1/join-tokens", &body).await;
    assert_eq!(status, StatusCode::FORBIDDEN);
    for (body, fault) in [
        (json!({}), "environment"),
        (json!({ "environment": "Moon" }), "environment"),
        (json!({ "environment": "QA", "uses": 0 }), "uses"),
        (json!({ "environment": "QA", "uses": 10_001 }), "uses"),
        (json!({ "environment": "QA", "expiresIn": "P31D" }), "expiresIn"),
        (json!({ "environment": "QA", "expiresIn": "1h" }), "expiresIn"),
        (json!({ "environment": "QA", "nodes": "a b" }), "nodes"),
    ] {
        let (status, answer) = server.post("/api/v1/join-tokens", &body).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{body}");
        assert!(answer.to_string().contains(fault), "{answer:#}");
    }
    // A retry gets the first answer, without the token.
    let ask = || {
        let ask = server.request(Method::POST, "/api/v1/join-tokens").json(&body);
        ask.header("Idempotency-Key", "once").send()
    };
    let (first, second) = (ask().await.unwrap(), ask().await.unwrap());
    let (first, second): (Value, Value) = (first.json().await.unwrap(), second.json().await.unwrap());
    assert!(first["token"].is_string() && second["token"].is_null());
    assert_eq!(first["details"]["id"], second["details"]["id"]);
    let unknown = server.post("/api/v1/nodes/nobody/revoke", &json!({})).await.0;
    assert_eq!(unknown, StatusCode::NOT_FOUND);
    // A scoped token of an admin makes them for its environments only.
    let scoped = json!({ "name": "ci", "role": "Admin", "environments": ["QA"] });
    let (_, made) = server.post("/api/v1/tokens", &scoped).await;
    let scoped = made["token"].as_str().unwrap();
    let (status, _) = server.post_as(scoped, "/api/v1/join-tokens", &body).await;
    assert_eq!(status, StatusCode::CREATED);
    let elsewhere = json!({ "environment": "Production" });
    let (status, answer) = server.post_as(scoped, "/api/v1/join-tokens", &elsewhere).await;
    assert_eq!(
        (status, &answer["code"]),
        (StatusCode::FORBIDDEN, &"scope".into())
    );
}

#[tokio::test]
async fn plain_agents_are_for_one_machine_and_certificates_for_some_time() {
    let dir = TempDir::new().unwrap();
    let mut config = config(dir.path());
    config.agents.set_ip([0, 0, 0, 0].into());
    let refused = hotswap_server::Server::start(config, crate::harness::host().await).await;
    let refused = refused.unwrap_err().to_string();
    assert!(
        refused.contains("--plain-agents") && refused.contains("loopback"),
        "{refused}"
    );
    let mut config = secured(&dir);
    config.node_certificate_lifetime = Duration::from_secs(1);
    let refused = hotswap_server::Server::start(config, crate::harness::host().await).await;
    assert!(refused.unwrap_err().to_string().contains("between 2s and"));
    // Where agents are plain, nobody's token is asked for.
    let server = TestServer::start().await;
    let plain =
        tonic::transport::Endpoint::from_shared(format!("http://{}", server.running.agents_addr())).unwrap();
    let mut plain = AgentServiceClient::new(plain.connect_lazy());
    let ask = pb::JoinRequest {
        token: "hsj_a.b.c".to_owned(),
        node: "n".to_owned(),
        request: Vec::new(),
    };
    assert_eq!(code(&plain.join(ask).await.unwrap_err()), "plain_agents");
}

#[tokio::test]
async fn what_follows_a_revoked_certificate_is_revoked_whoever_came_first() {
    let certificate = |serial: &str, issued| NodeCertificate {
        serial: serial.parse().unwrap(),
        node: "qa-1".parse().unwrap(),
        environment: "QA".parse().unwrap(),
        key: KeyId::known("00"),
        token: None,
        issued: WallTime(issued),
        expires: WallTime(1_000),
        revoked: None,
    };
    let put = |serial: &str, issued, origin| {
        EnrolmentChange::PutCertificate(Box::new(certificate(serial, issued)), origin)
    };
    let renewal = |of: &str| Origin::Renewal(of.parse().unwrap());
    let knowing = Some(WallTime(20));
    let changes = vec![
        put("01", 10, Origin::Join { knowing: None }),
        EnrolmentChange::Revoke("qa-1".parse().unwrap(), WallTime(20)),
        // It was under way when the node was revoked; its time is of after that.
        put("02", 21, renewal("01")),
        put("03", 21, renewal("ff")),
        put("04", 21, Origin::Unrecorded),
        put("05", 22, Origin::Join { knowing }),
        put("06", 23, renewal("05")),
    ];
    let dir = TempDir::new().unwrap();
    let store = SqliteStore::open(dir.path()).unwrap();
    store.change_enrolment(changes.clone(), Vec::new()).await.unwrap();
    let records = store.load_enrolment().await.unwrap();
    let live_in = |credentials: &Credentials| -> Vec<String> {
        let live = credentials.live(&"qa-1".parse().unwrap(), WallTime(30));
        live.iter().map(|of| of.serial.to_string()).collect()
    };
    assert_eq!(
        live_in(&Credentials::new(records)),
        ["05", "06"],
        "as it is stored"
    );
    let in_memory = Credentials::new(EnrolmentRecords::default());
    in_memory.apply(changes);
    assert_eq!(live_in(&in_memory), ["05", "06"], "as it is remembered");
}
