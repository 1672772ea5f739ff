//! Deployments created at a rate, each durable before it is acknowledged, and reads meanwhile.

use std::time::Duration;

use anyhow::{Result, ensure};
use hotswap_core::time::Millis;

use super::Setting;
use crate::load::{Measured, Target, closed, open};
use crate::modules;
use crate::processes::{Api, Server, ServerOptions};
use crate::report::{Figure, Report, Target as Wanted};

/// Creations a second.
const PER_SECOND: f64 = 500.0;
const CONNECTIONS: usize = 64;
/// Reads a second while deployments are created.
const READS_PER_SECOND: f64 = 50.0;

pub(super) async fn measure(setting: &Setting, report: &mut Report) -> Result<()> {
    report.section(&format!(
        "Creating {PER_SECOND:.0} deployments a second on SQLite, by a user with a token"
    ));
    let binary = setting.hotswap();
    let server = Server::start(&ServerOptions {
        binary: &binary,
        data: setting.dir.join("create"),
        settle: Millis(0),
    })
    .await?;
    let api = server.api().await?;
    let package = modules::package(&setting.root, modules::MODULE, modules::VERSION)?;
    api.push(&package).await?;
    reads(&api, setting, report, "idle").await?;
    // Below the most that may be unfinished at once.
    let time = setting.seconds(2.0, 15.0);
    let create = creation(&api, modules::MODULE, modules::VERSION);
    let cpu = server.child.cpu_seconds()?;
    let (creating, health, metrics) = tokio::join!(
        open(&create, CONNECTIONS, PER_SECOND, time),
        read(&api, HEALTH, time),
        read(&api, METRICS, time),
    );
    let created = creating?;
    let cpu = server.child.cpu_seconds()? - cpu;
    tell_created(report, &created);
    report.add(Figure::new(
        "the server's processor time for one, its checks among it",
        cpu * 1e6 / created.answered as f64,
        "µs",
    ));
    tell_read(report, "health", "while creating", &health?, 1.0);
    tell_read(report, "cluster metrics", "while creating", &metrics?, 5.0);
    report.add(Figure::new("memory then", server.child.memory_mib()?, "MiB"));
    Ok(())
}

const HEALTH: &str = "/health";
const METRICS: &str = "/api/v1/clusters/Development/metrics";

/// A creation, over and over.
pub(super) fn creation(api: &Api, module: &str, version: &str) -> Target {
    let body = Api::deployment(module, version);
    api.target("POST", "/api/v1/deployments", Some(&body), 202)
}

/// Tells creations at the target's rate.
pub(super) fn tell_created(report: &mut Report, created: &Measured) {
    report.say(&format!(
        "{} created in {:.1} s",
        created.answered, created.seconds
    ));
    if let Some(failure) = &created.first_failure {
        report.say(&format!("{} refused, the first: {failure}", created.failed));
    }
    report.add(Figure::new("create, median", created.latency_ms(0.5), "ms"));
    report.add(Figure::new("create, p99", created.latency_ms(0.99), "ms").wants(Wanted::AtMost(10.0)));
}

async fn read(api: &Api, path: &str, time: Duration) -> Result<Measured> {
    open(&api.target("GET", path, None, 200), 4, READS_PER_SECOND, time).await
}

/// Reads of a server that does nothing else.
async fn reads(api: &Api, setting: &Setting, report: &mut Report, when: &str) -> Result<()> {
    let time = setting.seconds(0.3, 2.0);
    for (name, path, target) in [("health", HEALTH, 1.0), ("cluster metrics", METRICS, 5.0)] {
        let load = closed(&api.target("GET", path, None, 200), 1, time).await?;
        ensure!(load.failed == 0, "{path}: {:?}", load.first_failure);
        tell_read(report, name, when, &load, target);
    }
    Ok(())
}

fn tell_read(report: &mut Report, name: &str, when: &str, load: &Measured, target: f64) {
    report.add(Figure::new(
        format!("{name}, {when}, median"),
        load.latency_ms(0.5),
        "ms",
    ));
    report.add(
        Figure::new(format!("{name}, {when}, p99"), load.latency_ms(0.99), "ms")
            .wants(Wanted::AtMost(target)),
    );
}
