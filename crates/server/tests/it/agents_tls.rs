//! Who is let in as a node, and who is not: each for a reason of its own.

use std::time::Duration;

use hotswap_core::spec::Generation;
use hotswap_transport::{Refusal, request};
use hotswap_wire::{FetchRequest, pb};
use reqwest::{Method, StatusCode};
use serde_json::json;
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Code, Status, Streaming};

use crate::agent::{FakeNode, Fares, fetch, hello};
use crate::certified::{
    self, Certificate, anonymous, audited, code, join, secured, start, start_with, token, token_for,
};
use crate::fleet::{end, report};
use crate::harness::{TestServer, package};

/// How long what is to happen at once may take on a busy machine.
const SOON: Duration = Duration::from_secs(20);

type Client = pb::agent_service_client::AgentServiceClient<Channel>;
type Session = (mpsc::Sender<pb::AgentMessage>, Streaming<pb::ServerMessage>);

/// A session that begins with a node's word about itself.
async fn session(client: &mut Client, node: &str, environment: &str) -> Result<Session, Status> {
    let (reports, outgoing) = mpsc::channel(8);
    let first = report(node, 1, Some(hello(environment)), Generation::default());
    reports.send(first).await.unwrap();
    let messages = client.session(ReceiverStream::new(outgoing)).await?.into_inner();
    Ok((reports, messages))
}

fn package_of(digest: hotswap_core::ids::Digest) -> pb::FetchRequest {
    pb::FetchRequest::from(&FetchRequest {
        digest,
        offset: 0,
        signature: false,
    })
}

/// What a certificate's handshakes are refused with, once they are: certificates count in whole seconds.
async fn no_more(server: &TestServer, certificate: &Certificate) -> Refusal {
    let refused = async {
        loop {
            if let Err(refusal) = certificate.line(&server.running).await {
                return refusal;
            }
        }
    };
    timeout(SOON, refused)
        .await
        .expect("the certificate is refused at some time")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_joins_by_a_token_and_is_known_by_its_certificate_from_then_on() {
    let server = start().await;
    let token = token_for(&server, "QA").await;
    let certificate = join(&server.running, &token, "qa-1").await.unwrap();
    let mut client = certificate.line(&server.running).await.unwrap();
    let (_reports, mut messages) = session(&mut client, "qa-1", "QA").await.unwrap();
    let settings = messages
        .message()
        .await
        .unwrap()
        .unwrap()
        .read()
        .unwrap()
        .unwrap();
    let hotswap_wire::ServerMessage::Settings(settings) = settings else {
        panic!("a session begins with settings: {settings:?}");
    };
    // Two thirds of seven days.
    let due = settings.renew_in.unwrap().0;
    assert!((400_000_000..=403_200_000).contains(&due), "{due}");
    let node = server
        .until("/api/v1/nodes/qa-1", |node| node["status"] == "Running")
        .await;
    assert_eq!(node["certificate"]["state"], "Valid", "{node:#}");
    assert_eq!(
        node["certificate"]["serial"],
        certificate.identity.serial().to_string()
    );
    let entries = audited(&server, "join", "done").await;
    let detail = entries[0]["detail"].as_str().unwrap();
    assert!(detail.contains("qa-1") && detail.contains("QA"), "{detail}");
    let metrics = server.bare(Method::GET, "/metrics").send().await.unwrap();
    let metrics = metrics.text().await.unwrap();
    assert!(metrics.contains("hotswap_node_certificates 1"), "{metrics}");
    let expiry = metrics
        .lines()
        .find_map(|line| line.strip_prefix("hotswap_node_certificate_expires_seconds "));
    let expiry: f64 = expiry.unwrap().parse().unwrap();
    assert!((600_000.0..=604_800.0).contains(&expiry), "{expiry}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_certificate_one_may_join_and_nothing_else() {
    let server = start().await;
    let token = token_for(&server, "QA").await;
    let mut nobody = anonymous(&server.running, &token).await.unwrap();
    let refused = session(&mut nobody, "qa-1", "QA").await.unwrap_err();
    assert_eq!(
        (refused.code(), code(&refused)),
        (Code::Unauthenticated, "certificate_required")
    );
    assert!(
        refused.message().contains("--join-token-file"),
        "{}",
        refused.message()
    );
    let package = package("pay", "1.0.0");
    server.push(&package).await;
    let refused = nobody
        .fetch_artifact(package_of(package.digest))
        .await
        .unwrap_err();
    assert_eq!(code(&refused), "certificate_required");
    let csr = request().unwrap().csr_der;
    let refused = nobody.renew(pb::RenewRequest { request: csr }).await.unwrap_err();
    assert_eq!(code(&refused), "certificate_required");
    audited(&server, "session", "certificate_required").await;
    // Without TLS nobody is even listened to.
    let plain =
        tonic::transport::Endpoint::from_shared(format!("http://{}", server.running.agents_addr())).unwrap();
    let mut plain = Client::new(plain.connect_lazy());
    session(&mut plain, "qa-1", "QA").await.unwrap_err();
    assert_eq!(server.get("/api/v1/nodes/qa-1").await.0, StatusCode::NOT_FOUND);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_speaks_for_itself_only_and_a_new_one_for_its_environment_only() {
    let server = start().await;
    let (token, _) = token(&server, &json!({ "environment": "QA", "uses": 2 })).await;
    let certificate = join(&server.running, &token, "qa-1").await.unwrap();
    let mut client = certificate.line(&server.running).await.unwrap();
    let refused = session(&mut client, "qa-2", "QA").await.unwrap_err();
    assert_eq!(
        (refused.code(), code(&refused)),
        (Code::PermissionDenied, "other_node")
    );
    assert!(refused.message().contains("qa-1") && refused.message().contains("qa-2"));
    let refused = session(&mut client, "qa-1", "Production").await.unwrap_err();
    assert_eq!(code(&refused), "other_environment");
    // In the midst of a session, too.
    let (reports, messages) = session(&mut client, "qa-1", "QA").await.unwrap();
    let other = report("qa-2", 2, None, Generation::default());
    reports.send(other).await.unwrap();
    assert_eq!(end(messages).await.code(), Code::Aborted);
    assert_eq!(server.get("/api/v1/nodes/qa-2").await.0, StatusCode::NOT_FOUND);
    // The server's record of a known node wins: it was moved, and its certificate is of before.
    server
        .until("/api/v1/nodes/qa-1", |node| node["environment"] == "QA")
        .await;
    let (status, _) = server
        .post("/api/v1/nodes/qa-1/move", &json!({ "environment": "Staging" }))
        .await;
    assert_eq!(status, StatusCode::OK);
    session(&mut client, "qa-1", "QA").await.unwrap();
    // But a token of its former environment lets nobody in under its name.
    let refused = join(&server.running, &token, "qa-1").await.err().unwrap();
    assert_eq!(code(&refused), "node_elsewhere", "{}", refused.message());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_nodes_second_word_changes_its_environment_no_more_than_its_first() {
    let server = start().await;
    let token = token_for(&server, "QA").await;
    let certificate = join(&server.running, &token, "qa-1").await.unwrap();
    let mut client = certificate.line(&server.running).await.unwrap();
    // Both are there before the server makes anything of either.
    let (reports, outgoing) = mpsc::channel(8);
    for (seq, environment) in [(1, "QA"), (2, "Production")] {
        let said = report("qa-1", seq, Some(hello(environment)), Generation::default());
        reports.send(said).await.unwrap();
    }
    let messages = client.session(ReceiverStream::new(outgoing)).await.unwrap();
    timeout(SOON, end(messages.into_inner()))
        .await
        .expect("the session ends");
    let (status, node) = server.get("/api/v1/nodes/qa-1").await;
    assert!(
        status == StatusCode::NOT_FOUND || node["environment"] == "QA",
        "{node:#}"
    );
    let (_reports, _messages) = session(&mut client, "qa-1", "QA").await.unwrap();
    let node = server
        .until("/api/v1/nodes/qa-1", |node| node["status"] == "Running")
        .await;
    assert_eq!(node["environment"], "QA");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_node_is_out_at_once_and_for_good() {
    let server = start().await;
    let token = token_for(&server, "QA").await;
    let other = token_for(&server, "QA").await;
    let certificate = join(&server.running, &token, "qa-1").await.unwrap();
    let mut client = certificate.line(&server.running).await.unwrap();
    let (_reports, messages) = session(&mut client, "qa-1", "QA").await.unwrap();
    server
        .until("/api/v1/nodes/qa-1", |node| node["status"] == "Running")
        .await;
    let (status, answer) = server.post("/api/v1/nodes/qa-1/revoke", &json!({})).await;
    assert_eq!(status, StatusCode::OK, "{answer:#}");
    assert_eq!(
        answer["revoked"],
        json!([certificate.identity.serial().to_string()])
    );
    let ended = timeout(SOON, end(messages)).await.expect("the session ends");
    assert_eq!(
        (ended.code(), code(&ended)),
        (Code::Unauthenticated, "certificate_revoked")
    );
    assert!(
        ended.message().contains("hotswap node token create"),
        "{}",
        ended.message()
    );
    // The connection stands, and gives nothing.
    let refused = session(&mut client, "qa-1", "QA").await.unwrap_err();
    assert_eq!(code(&refused), "certificate_revoked");
    assert_eq!(
        code(&Certificate::renewed(&mut client).await.err().unwrap()),
        "certificate_revoked"
    );
    let package = package("pay", "1.0.0");
    let refused = client
        .fetch_artifact(package_of(package.digest))
        .await
        .unwrap_err();
    assert_eq!(code(&refused), "certificate_revoked");
    assert_eq!(
        certificate.line(&server.running).await.err(),
        Some(Refusal::Revoked)
    );
    // Nor by the token that it joined by, and others may, which may be on it; nor by one that it may have seen.
    for former in [&token, &other] {
        let refused = join(&server.running, former, "qa-1").await.err().unwrap();
        assert_eq!(code(&refused), "join_token_barred", "{refused}");
    }
    join(&server.running, &other, "qa-2").await.unwrap();
    audited(&server, "revoke", "done").await;
    audited(&server, "connect", "certificate_revoked").await;
    let (_, node) = server.get("/api/v1/nodes/qa-1").await;
    assert_eq!(node["certificate"]["state"], "Revoked", "{node:#}");
    // Also by the next process on this data.
    let TestServer { running, dir, .. } = server;
    running.shutdown().await.unwrap();
    let config = secured(&dir);
    let server = TestServer::start_with(dir, config).await;
    assert_eq!(
        certificate.line(&server.running).await.err(),
        Some(Refusal::Revoked)
    );
    // A new token lets the node in again, by a new key.
    let token = token_for(&server, "QA").await;
    let again = join(&server.running, &token, "qa-1").await.unwrap();
    let mut client = again.line(&server.running).await.unwrap();
    session(&mut client, "qa-1", "QA").await.unwrap();
    assert_eq!(
        certificate.line(&server.running).await.err(),
        Some(Refusal::Revoked)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_nodes_certificates_are_revoked_with_it() {
    let server = start().await;
    let token = token_for(&server, "QA").await;
    let certificate = join(&server.running, &token, "qa-1").await.unwrap();
    let mut client = certificate.line(&server.running).await.unwrap();
    let (_reports, messages) = session(&mut client, "qa-1", "QA").await.unwrap();
    server
        .until("/api/v1/nodes/qa-1", |node| node["status"] == "Running")
        .await;
    let removed = server
        .request(Method::DELETE, "/api/v1/nodes/qa-1")
        .send()
        .await
        .unwrap();
    assert_eq!(removed.status(), StatusCode::OK);
    timeout(SOON, end(messages)).await.expect("the session ends");
    let refused = session(&mut client, "qa-1", "QA").await.unwrap_err();
    assert_eq!(code(&refused), "certificate_revoked");
    let TestServer { running, dir, .. } = server;
    running.shutdown().await.unwrap();
    let config = secured(&dir);
    let server = TestServer::start_with(dir, config).await;
    assert_eq!(
        certificate.line(&server.running).await.err(),
        Some(Refusal::Revoked)
    );
    assert_eq!(server.get("/api/v1/nodes/qa-1").await.0, StatusCode::NOT_FOUND);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_is_not_renewed_ends_its_session_and_one_that_is_does_not() {
    let server = start_with(|config| config.node_certificate_lifetime = Duration::from_secs(4)).await;
    let (token, _) = token(&server, &json!({ "environment": "QA", "uses": 2 })).await;
    let lazy = join(&server.running, &token, "qa-1").await.unwrap();
    let keen = join(&server.running, &token, "qa-2").await.unwrap();
    assert!(
        (1_000..=2_700).contains(&keen.renew_in_ms),
        "{}",
        keen.renew_in_ms
    );
    let mut of_lazy = lazy.line(&server.running).await.unwrap();
    let mut of_keen = keen.line(&server.running).await.unwrap();
    let keen_due = keen.renew_in_ms;
    let (_reports, ends) = session(&mut of_lazy, "qa-1", "QA").await.unwrap();
    let (_keen_reports, goes_on) = session(&mut of_keen, "qa-2", "QA").await.unwrap();
    // Renewed again and again over the session's own line, as agents do.
    let renewals = tokio::spawn(async move {
        let mut due = Duration::from_millis(keen_due);
        loop {
            tokio::time::sleep(due).await;
            let renewed = Certificate::renewed(&mut of_keen).await.unwrap();
            due = Duration::from_millis(renewed.renew_in_ms);
        }
    });
    let ended = timeout(SOON, end(ends)).await.expect("the session ends");
    assert_eq!(
        (ended.code(), code(&ended)),
        (Code::Unauthenticated, "certificate_expired")
    );
    assert_eq!(no_more(&server, &lazy).await, Refusal::Expired);
    audited(&server, "connect", "certificate_expired").await;
    // The other session goes on beyond the life of the certificate that it was opened with.
    assert_eq!(no_more(&server, &keen).await, Refusal::Expired);
    let going_on = timeout(Duration::from_secs(1), end(goes_on)).await;
    assert!(going_on.is_err() && !renewals.is_finished(), "{going_on:?}");
    renewals.abort();
    // Without a token that still lets it in, the other one can't come back; with one it can.
    let back = join(&server.running, &token_for(&server, "QA").await, "qa-1")
        .await
        .unwrap();
    session(&mut back.line(&server.running).await.unwrap(), "qa-1", "QA")
        .await
        .unwrap();
    audited(&server, "renew", "done").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_fleets_nodes_and_servers_are_not_taken() {
    let (ours, theirs) = tokio::join!(start(), start());
    let foreign = join(&theirs.running, &token_for(&theirs, "QA").await, "qa-1")
        .await
        .unwrap();
    let token = token_for(&ours, "QA").await;
    let own = join(&ours.running, &token, "qa-2").await.unwrap();
    // Their node doesn't take our server; and if it did, our server doesn't take it.
    assert_eq!(foreign.line(&ours.running).await.err(), Some(Refusal::Untrusted));
    let credulous = Certificate {
        authority: own.authority.clone(),
        ..foreign
    };
    assert_eq!(
        credulous.line(&ours.running).await.err(),
        Some(Refusal::OtherAuthority)
    );
    audited(&ours, "connect", "other_authority").await;
    // A token of ours at their server: its hash is not theirs. Nothing of its secret is sent there.
    assert_eq!(
        anonymous(&theirs.running, &token).await.err(),
        Some(Refusal::Untrusted)
    );
    // And where only the hash was changed, our own server isn't taken either.
    let mut twisted = token_for(&ours, "QA").await;
    twisted.authority = token_for(&theirs, "QA").await.authority;
    assert_eq!(
        anonymous(&ours.running, &twisted).await.err(),
        Some(Refusal::Untrusted)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_is_given_the_packages_that_its_spec_names_and_no_others() {
    let server = start().await;
    let (token, _) = token(&server, &json!({ "environment": "Development", "uses": 2 })).await;
    let named = join(&server.running, &token, "dev-1").await.unwrap();
    let (qa, _) = certified::token(&server, &json!({ "environment": "Production" })).await;
    let other = join(&server.running, &qa, "prod-1").await.unwrap();
    let _node = FakeNode::join_as(&server.running, &named, "dev-1", "Development", Fares::Well).await;
    let mut of_other = other.line(&server.running).await.unwrap();
    let (_reports, _messages) = session(&mut of_other, "prod-1", "Production").await.unwrap();
    let package = package("pay", "1.0.0");
    server.push(&package).await;
    let mut of_named = named.line(&server.running).await.unwrap();
    let refused = of_named
        .fetch_artifact(package_of(package.digest))
        .await
        .unwrap_err();
    assert_eq!(
        (refused.code(), code(&refused)),
        (Code::PermissionDenied, "package_not_named")
    );
    let id = server.deploy("1.0.0", "Development").await;
    let deployment = server.ended(&id).await;
    assert_eq!(deployment["status"], "Succeeded", "{deployment:#}");
    assert_eq!(fetch(&mut of_named, package.digest).await, package.file);
    let refused = of_other
        .fetch_artifact(package_of(package.digest))
        .await
        .unwrap_err();
    assert_eq!(
        (refused.code(), code(&refused)),
        (Code::PermissionDenied, "package_not_named")
    );
    assert!(refused.message().contains("prod-1"), "{}", refused.message());
    audited(&server, "fetchArtifact", "package_not_named").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_not_of_the_records_is_taken_and_noted_unless_it_was_revoked() {
    let server = start().await;
    let (token, _) = token(&server, &json!({ "environment": "QA", "uses": 2 })).await;
    let known = join(&server.running, &token, "qa-1").await.unwrap();
    // A backup is made now; what follows it is lost.
    let aside = TempDir::new().unwrap();
    let data = server.dir.path().to_owned();
    let file = aside.path().join("backup.tar");
    hotswap_server::backup::backup(&data, &file).unwrap();
    let later = join(&server.running, &token, "qa-2").await.unwrap();
    server.running.shutdown().await.unwrap();
    let restored = TempDir::new().unwrap();
    hotswap_server::backup::restore(&file, &restored.path().join("data")).unwrap();
    let mut config = secured(&restored);
    config.data_dir = restored.path().join("data");
    let server = TestServer::start_with(restored, config).await;
    for (certificate, node) in [(&known, "qa-1"), (&later, "qa-2")] {
        let mut client = certificate.line(&server.running).await.unwrap();
        session(&mut client, node, "QA").await.unwrap();
        let path = format!("/api/v1/nodes/{node}");
        let shown = server
            .until(&path, |node| node["certificate"]["state"] == "Valid")
            .await;
        assert_eq!(
            shown["certificate"]["serial"],
            certificate.identity.serial().to_string()
        );
    }
    audited(&server, "seeCertificate", "done").await;
    // The token's use is lost with the records, but not the revocation of what they don't know.
    let unseen = join(&server.running, &token, "qa-3").await.unwrap();
    drop(unseen);
    let (status, _) = server.post("/api/v1/nodes/qa-2/revoke", &json!({})).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(later.line(&server.running).await.err(), Some(Refusal::Revoked));
}
