//! Sessions with agents that do what they should not.

use std::collections::BTreeMap;

use hotswap_core::analysis::Block;
use hotswap_core::ids::{Incarnation, RolloutId};
use hotswap_core::report::{Hello, Interval, NodeReport};
use hotswap_core::spec::Generation;
use hotswap_server::RunningServer;
use hotswap_wire::pb::agent_service_client::AgentServiceClient;
use hotswap_wire::{FetchRequest, ServerMessage, pb};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status, Streaming};

use crate::agent::{FakeNode, Fares, hello};
use crate::harness::{TestServer, package};

pub(crate) fn report(node: &str, seq: u64, hello: Option<Hello>, highest: Generation) -> pb::AgentMessage {
    pb::AgentMessage::from(&node_report(node, seq, hello, highest))
}

fn node_report(node: &str, seq: u64, hello: Option<Hello>, highest: Generation) -> NodeReport {
    NodeReport {
        node: node.parse().unwrap(),
        incarnation: Incarnation(1),
        seq,
        hello,
        highest,
        modules: BTreeMap::new(),
        vetoes: Vec::new(),
        intervals: Vec::new(),
        health: None,
        loads: Vec::new(),
    }
}

async fn client(server: &RunningServer) -> AgentServiceClient<Channel> {
    let endpoint = Endpoint::from_shared(format!("http://{}", server.agents_addr())).unwrap();
    AgentServiceClient::new(endpoint.connect().await.unwrap())
}

type Session = (mpsc::Sender<pb::AgentMessage>, Streaming<pb::ServerMessage>);

async fn session(server: &TestServer, first: pb::AgentMessage) -> Result<Session, Status> {
    let (reports, outgoing) = mpsc::channel(8);
    reports.send(first).await.unwrap();
    let mut client = client(&server.running).await;
    let messages = client.session(ReceiverStream::new(outgoing)).await?.into_inner();
    Ok((reports, messages))
}

/// The status that a session ends with.
pub(crate) async fn end(mut messages: Streaming<pb::ServerMessage>) -> Status {
    loop {
        match messages.message().await {
            Ok(Some(_)) => {}
            Ok(None) => return Status::ok(""),
            Err(status) => return status,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_begins_with_who_the_node_is_and_where_it_belongs() {
    let server = TestServer::start().await;
    let nobody = report("n1", 1, None, Generation::default());
    assert_eq!(
        session(&server, nobody).await.unwrap_err().code(),
        Code::FailedPrecondition
    );
    let nowhere = report("n1", 1, Some(hello("Moon")), Generation::default());
    let status = session(&server, nowhere).await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition);
    assert!(
        status.message().contains("Moon") && status.message().contains("Production"),
        "{}",
        status.message()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_session_takes_an_older_ones_place() {
    let server = TestServer::start().await;
    let (_old, messages) = session(&server, report("n1", 1, Some(hello("QA")), Generation::default()))
        .await
        .unwrap();
    let (_new, _messages) = session(&server, report("n1", 2, Some(hello("QA")), Generation::default()))
        .await
        .unwrap();
    let status = end(messages).await;
    assert_eq!(status.code(), Code::Aborted);
    assert!(status.message().contains("newer session"), "{}", status.message());
    let node = server
        .until("/api/v1/nodes/n1", |node| node["status"] == "Running")
        .await;
    assert_eq!(
        (&node["environment"], &node["hostname"]),
        (&"QA".into(), &"host".into())
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_reports_for_one_node() {
    let server = TestServer::start().await;
    let (reports, messages) = session(&server, report("n1", 1, Some(hello("QA")), Generation::default()))
        .await
        .unwrap();
    reports
        .send(report("n2", 2, None, Generation::default()))
        .await
        .unwrap();
    assert_eq!(end(messages).await.code(), Code::Aborted);
    assert_eq!(server.get("/api/v1/nodes/n2").await.0.as_u16(), 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_knows_newer_specs_gets_none() {
    let server = TestServer::start().await;
    let _other = FakeNode::join(server.running.agents_addr(), "n2", "Development", Fares::Well).await;
    let ahead = Generation {
        epoch: 999_999,
        seq: 1,
    };
    let first = report("n1", 1, Some(hello("Development")), ahead);
    let (reports, mut messages) = session(&server, first).await.unwrap();
    server.push(&package("pay", "1.0.0")).await;
    server.deploy("1.0.0", "Development").await;
    let runs = |node: &serde_json::Value| node["modules"][0]["routes"][0]["version"] == "1.0.0";
    server.until("/api/v1/nodes/n2", runs).await;
    // What the server says to n1 by then: settings and acknowledgements, no spec.
    let mut asks = node_report("n1", 2, None, ahead);
    asks.intervals.push(Interval {
        module: "pay".parse().unwrap(),
        rollout: RolloutId(1),
        step: 0,
        number: 1,
        block: Block::default(),
    });
    reports.send((&asks).into()).await.unwrap();
    loop {
        let message = messages
            .message()
            .await
            .unwrap()
            .unwrap()
            .read()
            .unwrap()
            .unwrap();
        match message {
            ServerMessage::Spec(spec) => panic!("a spec for a node that is ahead: {spec:?}"),
            ServerMessage::Ack(ack) if ack.seq == 2 => break,
            ServerMessage::Ack(_) | ServerMessage::Settings(_) => {}
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_releases_are_given_out() {
    let server = TestServer::start().await;
    let package = package("pay", "1.0.0");
    let mut client = client(&server.running).await;
    let request = |offset| {
        pb::FetchRequest::from(&FetchRequest {
            digest: package.digest,
            offset,
            signature: false,
        })
    };
    assert_eq!(
        client.fetch_artifact(request(0)).await.unwrap_err().code(),
        Code::NotFound
    );
    server.push(&package).await;
    assert_eq!(
        crate::agent::fetch(&mut client, package.digest).await,
        package.file
    );
    let beyond = package.file.len() as u64 + 1;
    assert_eq!(
        client.fetch_artifact(request(beyond)).await.unwrap_err().code(),
        Code::OutOfRange
    );
}
