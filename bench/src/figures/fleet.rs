//! A large fleet's sessions on one server.

use std::time::Duration;

use anyhow::Result;
use hotswap_core::time::Millis;
use tokio::time::Instant;

use super::Setting;
use crate::agents::{Swarm, raise_open_files};
use crate::load::median;
use crate::modules;
use crate::processes::{Api, Server, ServerOptions};
use crate::report::{Figure, Report, Target};

/// Modules that every node runs.
const MODULES: usize = 10;
/// Descriptors beside the sessions'.
const FILES_BESIDE: u64 = 1_000;
/// The pace of the product's own heartbeats, and one that is dense enough to be measured.
const BEAT: Duration = Duration::from_secs(30);
const DENSE_BEAT: Duration = Duration::from_secs(2);

pub(super) async fn measure(setting: &Setting, report: &mut Report) -> Result<()> {
    let nodes = setting.pick(1_000, 10_000);
    report.section(&format!(
        "{nodes} agents' sessions on one server, {MODULES} modules"
    ));
    raise_open_files(nodes as u64 + FILES_BESIDE)?;
    let binary = setting.hotswap();
    let server = Server::start(&ServerOptions {
        binary: &binary,
        data: setting.dir.join("fleet"),
        settle: Millis(0),
    })
    .await?;
    let api = server.api().await?;
    let bare = server.child.memory_mib()?;
    let began = Instant::now();
    let swarm = Swarm::open(server.agents, nodes).await?;
    report.add(Figure::new(
        "all sessions stand after (client and server on the same cores)",
        began.elapsed().as_secs_f64(),
        "s",
    ));
    let memory = server.child.memory_mib()?;
    report.add(Figure::new(
        format!("memory with all connected, where it was {bare:.0} MiB with none"),
        memory,
        "MiB",
    ));
    swarm.beat(Some(BEAT));
    deploy_all(setting, report, &server, &api, &swarm).await?;
    back(report, &api, &swarm).await?;
    beats(setting, report, &server, &swarm, nodes).await?;
    report.add(
        Figure::new("memory with all of it", server.child.memory_mib()?, "MiB")
            .wants(Target::AtMost(1_024.0)),
    );
    Ok(())
}

fn module(number: usize) -> String {
    format!("module-{number:02}")
}

/// Brings modules onto every node, one after the other.
async fn deploy_all(
    setting: &Setting,
    report: &mut Report,
    server: &Server,
    api: &Api,
    swarm: &Swarm,
) -> Result<()> {
    let (mut spread, mut told, mut done, mut cpu) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for number in 0..MODULES {
        let name = module(number);
        // The last one twice: the second has something to go back to.
        let versions: &[&str] = if number + 1 == MODULES {
            &["1.0.0", "1.1.0"]
        } else {
            &["1.0.0"]
        };
        for version in versions {
            api.push(&modules::package(&setting.root, &name, version)?)
                .await?;
            swarm.expect(&name, version)?;
            let (specs, before) = (swarm.specs(), server.child.cpu_seconds()?);
            let began = Instant::now();
            let id = api.deploy(&name, version).await?;
            let (first, last) = swarm.all_told().await?;
            api.succeeded(&id).await?;
            done.push(began.elapsed().as_secs_f64());
            spread.push((last - first).as_secs_f64() * 1e3);
            told.push((last - began).as_secs_f64());
            let specs = swarm.specs() - specs;
            cpu.push((server.child.cpu_seconds()? - before) * 1e6 / specs as f64);
        }
    }
    report.add(Figure::new(
        "from the first node told to the last, median",
        median(&spread),
        "ms",
    ));
    report.add(Figure::new(
        "from the command to the last node told, checks included",
        median(&told),
        "s",
    ));
    report.add(
        Figure::new(
            "Direct to all, from the command to Succeeded, median",
            median(&done),
            "s",
        )
        .wants(Target::AtMost(5.0)),
    );
    report.add(Figure::new(
        "the server's processor time for a spec and its report",
        median(&cpu),
        "µs",
    ));
    Ok(())
}

/// A person takes the last deployment back.
async fn back(report: &mut Report, api: &Api, swarm: &Swarm) -> Result<()> {
    let name = module(MODULES - 1);
    let path = format!("/api/v1/deployments?module={name}&limit=1");
    let newest = api.get(&path).await?;
    let id = newest[0]["executionId"].as_str().unwrap_or_default().to_owned();
    swarm.expect(&name, "1.0.0")?;
    let began = Instant::now();
    api.post(
        &format!("/api/v1/deployments/{id}/rollback"),
        &serde_json::json!({}),
    )
    .await?;
    let (_, last) = swarm.all_told().await?;
    report.add(
        Figure::new(
            "rollback: from the command to the last node told",
            (last - began).as_secs_f64(),
            "s",
        )
        .wants(Target::AtMost(1.0)),
    );
    Ok(())
}

/// What heartbeats cost the server: its processor time with them, less that without.
async fn beats(
    setting: &Setting,
    report: &mut Report,
    server: &Server,
    swarm: &Swarm,
    nodes: usize,
) -> Result<()> {
    let time = setting.seconds(2.0, 10.0);
    let costs = async |pace| {
        swarm.beat(pace);
        // What is under way comes to rest first.
        tokio::time::sleep(DENSE_BEAT).await;
        let (cpu, beats) = (server.child.cpu_seconds()?, swarm.beats());
        tokio::time::sleep(time).await;
        anyhow::Ok((server.child.cpu_seconds()? - cpu, swarm.beats() - beats))
    };
    let (rest, _) = costs(None).await?;
    let (busy, beats) = costs(Some(DENSE_BEAT)).await?;
    let each = (busy - rest) * 1e6 / beats as f64;
    report.say(&format!(
        "{beats} heartbeats of {nodes} nodes in {:.0} s: {busy:.2} s of processor time, {rest:.2} s without them",
        time.as_secs_f64()
    ));
    report.add(
        Figure::new("the server's processor time for a heartbeat", each, "µs").wants(Target::AtMost(20.0)),
    );
    Ok(())
}
