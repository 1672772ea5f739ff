//! A large fleet's sessions on one server.

use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::time::Instant;

use super::Setting;
use crate::agents::{Lines, Swarm, raise_open_files};
use crate::load::median;
use crate::modules;
use crate::processes::{Api, Server, ServerOptions, Speaks};
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
    raise_open_files(nodes as u64 + FILES_BESIDE)?;
    let plain = side(setting, report, nodes, Speaks::Plainly).await?;
    let tls = side(setting, report, nodes, Speaks::Tls).await?;
    report.section("What mutual TLS adds for each node");
    for (what, unit, plain, tls) in [
        ("memory of a session", "KiB", plain.session_kib, tls.session_kib),
        (
            "the server's processor time to open a session",
            "µs",
            plain.opening_us,
            tls.opening_us,
        ),
        (
            "the server's processor time for a spec and its report",
            "µs",
            plain.spec_us,
            tls.spec_us,
        ),
        (
            "the server's processor time for a heartbeat",
            "µs",
            plain.beat_us,
            tls.beat_us,
        ),
    ] {
        report.add(Figure::new(format!("TLS adds to {what}"), tls - plain, unit));
    }
    report.add(Figure::ratio(
        "heartbeat plain/mutual TLS",
        "the server's processor time for a heartbeat, plain, of that over TLS",
        plain.beat_us / tls.beat_us,
    ));
    Ok(())
}

/// What is compared.
struct Costs {
    session_kib: f64,
    opening_us: f64,
    spec_us: f64,
    beat_us: f64,
}

/// The whole fleet, with its lines secured in one way. One after the other: both at once would need twice the open
/// files, and be twice as much for the cores.
async fn side(setting: &Setting, report: &mut Report, nodes: usize, speaks: Speaks) -> Result<Costs> {
    let how = match speaks {
        Speaks::Plainly => "plain",
        Speaks::Tls => "mutual TLS",
    };
    report.section(&format!(
        "{nodes} agents' sessions on one server, {MODULES} modules, {how}"
    ));
    let binary = setting.hotswap();
    let server = Server::start(&ServerOptions {
        agents: speaks,
        ..ServerOptions::plain(&binary, setting.dir.join(format!("fleet {how}")))
    })
    .await?;
    let api = server.api().await?;
    let lines = match speaks {
        Speaks::Plainly => Lines::plain(server.agents),
        Speaks::Tls => joined(report, &server, &api, nodes).await?,
    };
    let (bare, cpu) = (server.child.memory_mib()?, server.child.cpu_seconds()?);
    let began = Instant::now();
    let swarm = Swarm::open(lines, nodes).await?;
    report.add(Figure::new(
        "all sessions stand after (client and server on the same cores)",
        began.elapsed().as_secs_f64(),
        "s",
    ));
    let opening_us = (server.child.cpu_seconds()? - cpu) * 1e6 / nodes as f64;
    report.add(Figure::new(
        "the server's processor time to open one",
        opening_us,
        "µs",
    ));
    let memory = server.child.memory_mib()?;
    report.add(Figure::new(
        format!("memory with all connected, where it was {bare:.0} MiB with none"),
        memory,
        "MiB",
    ));
    swarm.beat(Some(BEAT));
    let spec_us = deploy_all(setting, report, &server, &api, &swarm).await?;
    back(report, &api, &swarm).await?;
    let beat_us = beats(setting, report, &server, &swarm, nodes).await?;
    report.add(
        Figure::new("memory with all of it", server.child.memory_mib()?, "MiB")
            .wants(Target::AtMost(1_024.0)),
    );
    Ok(Costs {
        session_kib: (memory - bare) * 1024.0 / nodes as f64,
        opening_us,
        spec_us,
        beat_us,
    })
}

/// All nodes join by one token, as agents do, before anything is measured that both sides have.
async fn joined(report: &mut Report, server: &Server, api: &Api, nodes: usize) -> Result<Lines> {
    let asked = serde_json::json!({ "environment": "Development", "uses": nodes });
    let made = api.post("/api/v1/join-tokens", &asked).await?;
    let token = made["token"].as_str().context("a join token is told")?;
    let (began, cpu) = (Instant::now(), server.child.cpu_seconds()?);
    let lines = Lines::join(server.agents, token, nodes).await?;
    report.add(Figure::new(
        "all have joined after, each durable (their keys are made on the same cores)",
        began.elapsed().as_secs_f64(),
        "s",
    ));
    report.add(Figure::new(
        "the server's processor time for a join",
        (server.child.cpu_seconds()? - cpu) * 1e6 / nodes as f64,
        "µs",
    ));
    Ok(lines)
}

fn module(number: usize) -> String {
    format!("module-{number:02}")
}

/// Brings modules onto every node, one after the other. The server's processor time for a spec, in µs.
async fn deploy_all(
    setting: &Setting,
    report: &mut Report,
    server: &Server,
    api: &Api,
    swarm: &Swarm,
) -> Result<f64> {
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
    let spec = median(&cpu);
    report.add(Figure::new(
        "the server's processor time for a spec and its report",
        spec,
        "µs",
    ));
    Ok(spec)
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

/// What a heartbeat costs the server, in µs: its processor time with them, less that without.
async fn beats(
    setting: &Setting,
    report: &mut Report,
    server: &Server,
    swarm: &Swarm,
    nodes: usize,
) -> Result<f64> {
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
    Ok(each)
}
