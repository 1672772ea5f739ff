//! A server with a long past, beside one with a short past.

use anyhow::{Context as _, Result, ensure};

use super::Setting;
use super::create::creation;
use super::past::make;
use crate::load::{closed, median, open};
use crate::processes::{Api, Server, ServerOptions};
use crate::report::{Figure, Report, Target as Wanted};

/// Deployments of the short past.
const SHORT: u64 = 10;
/// Starts of each; the first one also reads the files from disk.
const STARTS: usize = 5;
/// Creations a second, in turns: few, as the cost of one is what is compared.
const PER_SECOND: f64 = 40.0;

pub(super) async fn measure(setting: &Setting, report: &mut Report) -> Result<()> {
    let long = setting.pick(10_000, 100_000);
    report.section(&format!("{long} past deployments in the log"));
    let binary = setting.hotswap();
    let options = |name: &str| ServerOptions::plain(&binary, setting.dir.join(name));
    let (past, other) = (options("past"), options("short-past"));
    let events = make(&past.data, long).await?;
    make(&other.data, SHORT).await?;
    let bytes = std::fs::metadata(past.data.join("hotswap.db")).map_or(0, |file| file.len());
    report.say(&format!("{events} events, {:.0} MB", bytes as f64 / 1e6));
    // The first start of all makes the users, and the environments where others are given.
    Server::start(&past).await?.child.stop()?;
    let mut ready = Vec::new();
    for _ in 0..STARTS {
        let server = Server::start(&past).await?;
        ready.push(server.ready_in.as_secs_f64() * 1e3);
        server.child.stop()?;
    }
    report.add(Figure::new("start to ready, median", median(&ready), "ms").wants(Wanted::AtMost(500.0)));
    let server = Server::start(&past).await?;
    report.add(Figure::new(
        "memory after the start",
        server.child.memory_mib()?,
        "MiB",
    ));
    let api = server.api().await?;
    lists(setting, report, &api).await?;
    report.add(Figure::new(
        "memory after the lists",
        server.child.memory_mib()?,
        "MiB",
    ));
    let short = Server::start(&other).await?;
    commands(setting, report, &api, &short.api().await?).await
}

async fn lists(setting: &Setting, report: &mut Report, api: &Api) -> Result<()> {
    let page = api.get("/api/v1/deployments?limit=1000").await?;
    let rows = page.as_array().context("a list of deployments")?;
    let id = rows.last().and_then(|row| row["executionId"].as_str());
    let id = id.context("there are deployments")?;
    let time = setting.seconds(0.2, 1.5);
    for (name, path, target) in [
        ("get one, long ended", format!("/api/v1/deployments/{id}"), None),
        ("list, newest 100", "/api/v1/deployments".to_owned(), None),
        (
            "list, newest 1000",
            "/api/v1/deployments?limit=1000".to_owned(),
            None,
        ),
        (
            "list of a module, 100",
            "/api/v1/deployments?module=module-07".to_owned(),
            None,
        ),
        (
            "list of a status that none has",
            "/api/v1/deployments?status=Failed".to_owned(),
            None,
        ),
        (
            "why, one long ended",
            format!("/api/v1/deployments/{id}/why"),
            None,
        ),
        (
            "cluster metrics",
            "/api/v1/clusters/Development/metrics".to_owned(),
            Some(5.0),
        ),
        ("health", "/health".to_owned(), Some(1.0)),
    ] {
        let load = closed(&api.target("GET", &path, None, 200), 1, time).await?;
        ensure!(load.failed == 0, "{path}: {:?}", load.first_failure);
        report.add(Figure::new(format!("{name}, median"), load.latency_ms(0.5), "ms"));
        let p99 = Figure::new(format!("{name}, p99"), load.latency_ms(0.99), "ms");
        report.add(match target {
            Some(target) => p99.wants(Wanted::AtMost(target)),
            None => p99,
        });
    }
    Ok(())
}

/// A command costs the same after many deployments as after few.
async fn commands(setting: &Setting, report: &mut Report, long: &Api, short: &Api) -> Result<()> {
    let time = setting.seconds(0.5, 2.0);
    let (mut many, mut few) = (Vec::new(), Vec::new());
    for _ in 0..setting.pick(2, 5) {
        for (api, medians) in [(long, &mut many), (short, &mut few)] {
            let load = open(&creation(api, "module-07", "1.7.0"), 4, PER_SECOND, time).await?;
            ensure!(load.failed == 0, "a creation: {:?}", load.first_failure);
            medians.push(load.latency_ms(0.5));
        }
    }
    report.add(Figure::new("create, after many, median", median(&many), "ms"));
    report.add(Figure::new(
        format!("create, after {SHORT}, median"),
        median(&few),
        "ms",
    ));
    let ratios: Vec<f64> = few.iter().zip(&many).map(|(few, many)| few / many).collect();
    report.add(
        Figure::ratio(
            "create few/many",
            "a command after few, of one after many",
            median(&ratios),
        )
        .wants(Wanted::AtLeast(0.8)),
    );
    Ok(())
}
