//! Real agents that serve users: how long until every one is back on the former release.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use super::Setting;
use crate::load::{Connection, Endpoint, Target, median};
use crate::modules;
use crate::processes::{Agent, Server, ServerOptions};
use crate::report::{Figure, Report, Target as Wanted};

/// How long a node may take to serve what it was told to.
const SERVES_MAX: Duration = Duration::from_secs(30);

pub(super) async fn measure(setting: &Setting, report: &mut Report) -> Result<()> {
    let nodes = setting.pick(3, 8);
    report.section(&format!("{nodes} real agents, rolled back"));
    let binary = setting.hotswap();
    let server = Server::start(&ServerOptions::plain(&binary, setting.dir.join("rollback"))).await?;
    let api = server.api().await?;
    let mut agents = Vec::new();
    for number in 0..nodes {
        agents.push(Agent::start(&binary, &setting.dir, &format!("node-{number}"), &server).await?);
    }
    api.push(&modules::package(&setting.root, modules::MODULE, "1.0.0")?)
        .await?;
    let id = api.deploy(modules::MODULE, "1.0.0").await?;
    api.succeeded(&id).await?;
    let (mut forth, mut back) = (Vec::new(), Vec::new());
    for round in 1..=setting.pick(2, 7) {
        // Each release can be rolled back once: then it is held.
        let version = format!("1.{round}.0");
        api.push(&modules::package(&setting.root, modules::MODULE, &version)?)
            .await?;
        let began = Instant::now();
        let id = api.deploy(modules::MODULE, &version).await?;
        all_serve(&agents, &version).await?;
        forth.push(began.elapsed().as_secs_f64() * 1e3);
        api.succeeded(&id).await?;
        let began = Instant::now();
        let path = format!("/api/v1/deployments/{id}/rollback");
        let rollback = api.post(&path, &serde_json::json!({})).await?;
        all_serve(&agents, "1.0.0").await?;
        back.push(began.elapsed().as_secs_f64() * 1e3);
        let rollback = rollback["rollbackId"].as_str().unwrap_or_default().to_owned();
        api.succeeded(&rollback).await?;
    }
    report.add(Figure::new(
        "from the command until every node serves a new release, median",
        median(&forth),
        "ms",
    ));
    report.add(
        Figure::new(
            "from the word to go back until every node serves the former, median",
            median(&back),
            "ms",
        )
        .wants(Wanted::AtMost(1_000.0)),
    );
    report.add(Figure::new(
        "… slowest of the rounds",
        back.iter().copied().fold(0.0, f64::max),
        "ms",
    ));
    Ok(())
}

/// Asks every node until it serves this version.
async fn all_serve(agents: &[Agent], version: &str) -> Result<()> {
    let wanted = format!("x-hotswap-release: {}/{version}", modules::MODULE);
    let end = Instant::now() + SERVES_MAX;
    for agent in agents {
        let mut connection = Connection::open(&Endpoint::plain(agent.ingress)).await?;
        let target = Target::get(agent.ingress, modules::PATH);
        loop {
            let answer = connection.ask(&target.request).await?;
            if connection.head(&answer).contains(&wanted) {
                break;
            }
            if Instant::now() > end {
                bail!("a node does not serve {version} after {SERVES_MAX:?}");
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    Ok(())
}
