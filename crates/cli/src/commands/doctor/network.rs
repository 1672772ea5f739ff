//! Ports, and the server.

use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use hotswap_config::Loaded;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{Finding, certificates};
use crate::args::Global;
use crate::client::Client;
use crate::credentials::Credentials;

/// Longest wait for the server.
const SERVER_TIME_MAX: Duration = Duration::from_secs(3);

/// Everything about the network.
pub(super) async fn look(loaded: &Loaded, global: &Global) -> Vec<Finding> {
    let config = &loaded.config;
    let mut findings = vec![
        port("API's port", config.server.http, "server.http"),
        port("agents' port", config.server.agents, "server.agents"),
        port("ingress's port", config.agent.ingress, "agent.ingress"),
    ];
    let kept = crate::credentials::Store::of_this_user().and_then(|store| store.read().ok());
    let kept = kept.unwrap_or_default();
    findings.extend(server(global, &kept).await);
    if config.agent.node.is_some() {
        findings.push(agents_door(&config.agent.server).await);
    }
    findings
}

/// Whether somebody could listen there.
fn port(what: &'static str, address: SocketAddr, key: &str) -> Finding {
    match TcpListener::bind(address) {
        Ok(_) => Finding::ok(what, format!("{address} is free")),
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => Finding::warn(
            what,
            format!("{address} is in use"),
            format!("fine if that is hotswap itself; else give {key} another port"),
        ),
        Err(error) => Finding::fail(
            what,
            format!("{address}: {error}"),
            format!("give {key} another address"),
        ),
    }
}

async fn server(global: &Global, kept: &Credentials) -> Vec<Finding> {
    let what = "server";
    let url = global.server_url(kept.current_server());
    let client = global.authorities(kept).map_err(|problem| problem.to_string());
    let client = client.and_then(|trusted| Client::new(&url, &trusted).map_err(|error| error.to_string()));
    match client {
        Ok(client) => {
            let mut findings = vec![answered(what, &url, &client).await];
            let shown = timeout(SERVER_TIME_MAX, client.shown()).await;
            findings.extend(
                shown
                    .ok()
                    .flatten()
                    .map(|shown| certificates::shown(&url, &shown)),
            );
            findings
        }
        Err(error) => vec![Finding::fail(
            what,
            error,
            "give its address: --server or HOTSWAP_SERVER, and for https:// its authority: --ca or HOTSWAP_CA",
        )],
    }
}

async fn answered(what: &'static str, url: &str, client: &Client) -> Finding {
    match timeout(SERVER_TIME_MAX, client.health()).await {
        Ok(Ok((health, skew))) => reached(url, &health, skew),
        Ok(Err(error)) => Finding::warn(
            what,
            format!("{url}: {error}"),
            "fine if none should run here; else start it, or give its address: --server or HOTSWAP_SERVER",
        ),
        Err(_) => Finding::fail(what, format!("{url} doesn't answer"), "see the server's log"),
    }
}

fn reached(url: &str, health: &Value, skew: Option<Duration>) -> Finding {
    /// Above this, times in logs and approvals confuse.
    const SKEW_MAX: Duration = Duration::from_secs(5);
    let what = "server";
    let (status, version) = (
        health["status"].as_str().unwrap_or("unknown"),
        health["version"].as_str().unwrap_or("unknown"),
    );
    let told = format!("{url} is {status}, version {version}, {} nodes", health["nodes"]);
    if status != "Healthy" {
        let why = health["reason"].as_str().unwrap_or("it does not say why");
        return Finding::fail(what, format!("{told}: {why}"), "see the server's log");
    }
    if let Some(skew) = skew.filter(|skew| *skew > SKEW_MAX) {
        return Finding::warn(
            what,
            format!("{told}; its clock is {} s from this one", skew.as_secs()),
            "keep both clocks by a time service",
        );
    }
    if version != env!("CARGO_PKG_VERSION") {
        return Finding::warn(
            what,
            told,
            format!(
                "this is {}: upgrade whichever is older",
                env!("CARGO_PKG_VERSION")
            ),
        );
    }
    Finding::ok(what, told)
}

async fn agents_door(url: &str) -> Finding {
    let what = "server's door for agents";
    let address = url
        .split_once("://")
        .map_or(url, |(_, rest)| rest)
        .trim_end_matches('/');
    match timeout(SERVER_TIME_MAX, TcpStream::connect(address)).await {
        Ok(Ok(_)) => Finding::ok(what, format!("{url} can be reached")),
        Ok(Err(error)) => Finding::fail(
            what,
            format!("{url}: {error}"),
            "the node serves what it served meanwhile; start the server, or mend agent.server",
        ),
        Err(_) => Finding::fail(
            what,
            format!("{url} doesn't answer"),
            "see the network between here and there",
        ),
    }
}
