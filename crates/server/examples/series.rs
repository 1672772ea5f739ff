//! What measurements over time cost on disk: a simulated day of a fleet's samples into the real tables.
//!
//! `cargo run --release -p hotswap-server --example series -- [NODES] [HOURS]` (38 and 24 by default).

use std::time::Instant;

use hotswap_core::time::{Millis, WallTime};
use hotswap_server::sight::{Entity, NODES_FINE_MAX, Sample, Series, SightDb};

/// Releases with requests, in each environment.
const RELEASES: usize = 3;
const BEGIN_S: i64 = 1_700_006_400;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1).map(|argument| argument.parse::<i64>());
    let mut number = |standard| arguments.next().unwrap_or(Ok(standard));
    let (nodes, hours) = (number(38)?, number(24)?);
    let dir = tempfile::tempdir()?;
    let series = Series::new(SightDb::open(dir.path())?);
    let environments = ["Development", "QA", "Staging", "Production"];
    let production: Entity = Entity::Environment("Production".parse()?);
    let mut others = Vec::new();
    for environment in environments {
        others.push(Entity::Environment(environment.parse()?));
        for n in 0..RELEASES {
            others.push(Entity::Release(
                environment.parse()?,
                "pay".parse()?,
                format!("1.{n}.0"),
            ));
        }
    }
    let of_nodes = (0..nodes).map(|n| {
        Ok(Entity::Node(
            "Production".parse()?,
            format!("node-{n:05}").parse()?,
        ))
    });
    let of_nodes: Vec<Entity> = of_nodes.collect::<Result<_, Box<dyn std::error::Error>>>()?;
    let is_small = of_nodes.len() <= NODES_FINE_MAX;
    let (mut rounds, mut slowest) = (0_u32, 0.0_f64);
    let begun = Instant::now();
    let mut at = BEGIN_S;
    while at < BEGIN_S + hours * 3_600 {
        let mut round = Vec::new();
        let minute = at % 60 == 0;
        let seen = others
            .iter()
            .chain(of_nodes.iter().filter(|_| is_small || minute));
        for (n, entity) in seen.enumerate() {
            // Neither constant nor regular, so that numbers have the lengths that real ones have.
            let noise = ((at as f64 + n as f64 * 7.0).sin() + 1.0) / 2.0;
            round.push((
                entity.clone(),
                Sample {
                    cpu_percent: 20.0 + 60.0 * noise,
                    memory_percent: 30.0 + noise,
                    latency_ms: 1.0 + 5.0 * noise,
                    error_percent: noise,
                    requests_per_second: 2_000.0 * noise,
                },
            ));
        }
        let one = Instant::now();
        series.record(at, round).await?;
        slowest = slowest.max(one.elapsed().as_secs_f64());
        rounds += 1;
        at += 10;
    }
    let took = begun.elapsed().as_secs_f64();
    let size = |name: &str| std::fs::metadata(dir.path().join(name)).map_or(0, |file| file.len());
    println!(
        "{nodes} nodes, {hours} h: {:.1} MB (and {:.1} MB of write-ahead log); a round {:.2} ms on average, {:.1} ms at most",
        size("sight.db") as f64 / 1e6,
        size("sight.db-wal") as f64 / 1e6,
        1e3 * took / f64::from(rounds),
        1e3 * slowest,
    );
    let wall = |at: i64| WallTime(at.unsigned_abs() * 1_000);
    for (what, back, interval) in [("an hour by 10 s", 3_600, 10), ("a day by 5 min", 86_400, 300)] {
        let begun = Instant::now();
        let points = series
            .points(
                production.clone(),
                wall(at - back),
                wall(at),
                Millis::from_secs(interval),
                wall(at),
            )
            .await?;
        println!(
            "{what}: {} points in {:.2} ms",
            points.len(),
            1e3 * begun.elapsed().as_secs_f64()
        );
    }
    Ok(())
}
