//! What measurements over time cost on disk: a day of a fleet's samples into the real tables.

use std::path::Path;
use std::time::Instant;

use anyhow::Result;
use hotswap_core::time::{Millis, WallTime};
use hotswap_server::sight::{Entity, NODES_FINE_MAX, Sample, Series, SightDb};

use super::Setting;
use crate::load::{median, quantile};
use crate::report::{Figure, Report};

const ENVIRONMENTS: [&str; 4] = ["Development", "QA", "Staging", "Production"];
/// Releases with requests, in each environment.
const RELEASES: usize = 3;
/// A sampler's pace, in s.
const PACE_S: i64 = 10;
const BEGIN_S: i64 = 1_700_006_400;
const HOUR_S: i64 = 3_600;

pub(super) async fn measure(setting: &Setting, report: &mut Report) -> Result<()> {
    for nodes in [38, 10_000] {
        let hours = match nodes {
            38 => setting.pick(2, 24),
            _ => setting.pick(1, 24),
        };
        report.section(&format!("{hours} h of measurements of {nodes} nodes"));
        let dir = setting.dir.join(format!("series-{nodes}"));
        std::fs::create_dir_all(&dir)?;
        one(nodes, hours, &dir, report).await?;
    }
    Ok(())
}

async fn one(nodes: usize, hours: i64, dir: &Path, report: &mut Report) -> Result<()> {
    let series = Series::new(SightDb::open(dir)?);
    let mut others = Vec::new();
    for environment in ENVIRONMENTS {
        others.push(Entity::Environment(environment.parse()?));
        for n in 0..RELEASES {
            let version = format!("1.{n}.0");
            others.push(Entity::Release(environment.parse()?, "pay".parse()?, version));
        }
    }
    let of_node = |n: usize| -> Result<Entity> {
        Ok(Entity::Node(
            "Production".parse()?,
            format!("node-{n:05}").parse()?,
        ))
    };
    let of_nodes = (0..nodes).map(of_node).collect::<Result<Vec<_>>>()?;
    let (mut took, mut at) = (Vec::new(), BEGIN_S);
    while at < BEGIN_S + hours * HOUR_S {
        let fine = nodes <= NODES_FINE_MAX || at % 60 == 0;
        let seen = others.iter().chain(of_nodes.iter().filter(|_| fine));
        let round = seen
            .enumerate()
            .map(|(n, entity)| (entity.clone(), sample(at, n)))
            .collect();
        let began = Instant::now();
        series.record(at, round).await?;
        took.push(began.elapsed().as_secs_f64() * 1e3);
        at += PACE_S;
    }
    let size = std::fs::metadata(dir.join("sight.db"))?.len();
    report.add(Figure::new("on disk", size as f64 / 1e6, "MB"));
    report.add(Figure::new(
        "to store one round of samples, median",
        median(&took),
        "ms",
    ));
    report.add(Figure::new("… slowest", quantile(&took, 1.0), "ms"));
    let production = Entity::Environment("Production".parse()?);
    let wall = |at: i64| WallTime(at.unsigned_abs() * 1_000);
    let began = Instant::now();
    let day = (wall(at - 24 * HOUR_S), wall(at));
    series
        .points(production, day.0, day.1, Millis::from_secs(300), wall(at))
        .await?;
    report.add(Figure::new(
        "to read a day of an environment by 5 min",
        began.elapsed().as_secs_f64() * 1e3,
        "ms",
    ));
    Ok(())
}

/// Neither constant nor regular, so that numbers have the lengths that real ones have.
fn sample(at: i64, n: usize) -> Sample {
    let noise = ((at as f64 + n as f64 * 7.0).sin() + 1.0) / 2.0;
    Sample {
        cpu_percent: 20.0 + 60.0 * noise,
        memory_percent: 30.0 + noise,
        latency_ms: 1.0 + 5.0 * noise,
        error_percent: noise,
        requests_per_second: 2_000.0 * noise,
    }
}
