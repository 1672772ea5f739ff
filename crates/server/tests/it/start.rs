//! Starting, and what stands in the way.

use hotswap_core::desired::EPOCH_STEP_MAX;
use hotswap_server::{Server, StartError};
use tempfile::TempDir;

use crate::harness::{TestServer, config, host};

#[tokio::test(flavor = "multi_thread")]
async fn a_port_in_use_is_named_with_what_to_do() {
    let server = TestServer::start().await;
    let taken = server.running.http_addr();
    let other = TempDir::new().unwrap();
    let mut wanted = config(other.path());
    wanted.http = taken;
    let error = Server::start(wanted, host().await).await.unwrap_err();
    assert!(matches!(error, StartError::Listen { .. }));
    let text = error.to_string();
    assert!(
        text.contains(&format!("port {} is in use", taken.port())) && text.contains("give another port"),
        "{text}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_data_directory_that_cannot_be_written_is_named() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let error = Server::start(config(&file.path().join("data")), host().await)
        .await
        .unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains("not writable") && text.contains("give another one"),
        "{text}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn faulty_environments_are_told_before_anything_is_served() {
    let dir = TempDir::new().unwrap();
    let mut wanted = config(dir.path());
    if let Some(environments) = &mut wanted.environments {
        environments[0].policy.control_percent = 0;
    }
    let text = Server::start(wanted, host().await).await.unwrap_err().to_string();
    assert!(text.contains("control_percent"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_goes_on_in_a_new_epoch() {
    let server = TestServer::start().await;
    let (_, before) = server.get("/health").await;
    let server = server.restart().await;
    let (_, after) = server.get("/health").await;
    let by = after["epoch"].as_u64().unwrap() - before["epoch"].as_u64().unwrap();
    assert!((1..=EPOCH_STEP_MAX).contains(&by), "{by}");
    assert_eq!(
        after["events"].as_u64(),
        before["events"].as_u64().map(|events| events + 1),
        "the epoch's own event"
    );
    server.running.shutdown().await.unwrap();
}
