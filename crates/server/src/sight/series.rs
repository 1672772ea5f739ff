//! Measurements over time: of each environment, node and release, every ten seconds for hours, by minutes for days and
//! by quarters of an hour for weeks.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use hotswap_core::ids::{EnvName, ModuleName, NodeId};
use hotswap_core::time::{Millis, WallTime};
use parking_lot::Mutex;
use rusqlite::{Connection, params};
use tokio_util::sync::CancellationToken;

use super::db::{SightDb, SightError};
use super::sampling::{self, Sample};
use crate::driver::World;
use crate::views::cluster::{ClusterMetrics, rounded};

/// Time between two samples, in s.
const FINE_S: i64 = 10;
/// Nodes of a larger fleet are sampled once a minute: it bounds the finest table to so many rows a round.
pub const NODES_FINE_MAX: usize = 2_000;
/// Most environments, nodes and releases that are followed.
const ENTITIES_MAX: usize = 120_000;
/// Pages given back at a time.
const VACUUM_PAGES: i64 = 256;
const DAY_S: i64 = 86_400;

/// One resolution.
struct Level {
    table: &'static str,
    step_s: i64,
    kept_s: i64,
}

/// From fine to coarse; each is made from the one before.
static LEVELS: [Level; 3] = [
    Level {
        table: "fine",
        step_s: FINE_S,
        kept_s: 6 * 3_600,
    },
    Level {
        table: "minute",
        step_s: 60,
        kept_s: 3 * DAY_S,
    },
    Level {
        table: "quarter",
        step_s: 900,
        kept_s: 35 * DAY_S,
    },
];

/// What is measured.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Entity {
    /// An environment's nodes together.
    Environment(EnvName),
    /// A node, in the environment that it belonged to.
    Node(EnvName, NodeId),
    /// A release on all nodes of an environment: requests, errors and latency.
    Release(EnvName, ModuleName, String),
}

impl Entity {
    fn key(&self) -> (i64, &str, &str, &str) {
        match self {
            Self::Environment(environment) => (0, environment.as_str(), "", ""),
            Self::Node(environment, node) => (1, environment.as_str(), node.as_str(), ""),
            Self::Release(environment, module, version) => {
                (2, environment.as_str(), module.as_str(), version.as_str())
            }
        }
    }
}

/// Averages over one stretch of time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    /// Where the stretch begins.
    pub at: WallTime,
    /// Averages of its samples; latency and errors weighted by requests.
    pub metrics: ClusterMetrics,
}

/// The stored measurements.
pub struct Series {
    db: SightDb,
    known: Arc<Mutex<Known>>,
}

/// Entities' numbers in the tables.
#[derive(Default)]
struct Known {
    ids: HashMap<Entity, (i64, i64)>,
    is_full: bool,
}

impl Series {
    /// Keeps them in a file.
    pub fn new(db: SightDb) -> Self {
        Self {
            db,
            known: Arc::default(),
        }
    }

    /// Samples until the server ends.
    pub async fn keep(self: Arc<Self>, world: Arc<World>, shutdown: CancellationToken) {
        let mut ticks = tokio::time::interval(Duration::from_secs(FINE_S.unsigned_abs()));
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        let mut failing = false;
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                _ = ticks.tick() => {}
            }
            let at = seconds(world.now().wall);
            let minute = at / 60 * 60 > (at - FINE_S) / 60 * 60;
            let samples = sampling::samples(&world, minute);
            let result = self.record(at, samples).await;
            match &result {
                Err(SightError::Closed) => return,
                Err(error) if !failing => {
                    let error = error as &dyn std::error::Error;
                    tracing::warn!(error, "measurements can't be stored; charts will have a gap");
                }
                Ok(()) if failing => tracing::info!("measurements are stored again"),
                _ => {}
            }
            failing = result.is_err();
        }
    }

    /// Stores a round of samples, makes the coarser tables from the finer ones, and forgets what is old.
    ///
    /// # Errors
    /// Those of the database; the round is lost then.
    pub async fn record(&self, at: i64, samples: Vec<(Entity, Sample)>) -> Result<(), SightError> {
        let known = Arc::clone(&self.known);
        let round = at / FINE_S * FINE_S;
        self.db
            .write(move |connection| {
                put(connection, &mut known.lock(), round, &samples)?;
                for coarse in [1, 2] {
                    roll_up(connection, coarse, round)?;
                }
                forget(connection, round)
            })
            .await?;
        // On its own: the pragma moves pages as it is read, and wants no transaction of ours around it.
        self.db
            .read(|connection| {
                let mut freed =
                    connection.prepare_cached(&format!("pragma incremental_vacuum({VACUUM_PAGES})"))?;
                let mut rows = freed.query([])?;
                while rows.next()?.is_some() {}
                Ok(())
            })
            .await
    }

    /// Averages over each interval from `from` to before `to` that has samples, oldest first. Where an interval is
    /// finer than what is still kept of that time, the coarser points stand.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn points(
        &self,
        entity: Entity,
        from: WallTime,
        to: WallTime,
        interval: Millis,
        now: WallTime,
    ) -> Result<Vec<Point>, SightError> {
        let interval_s = i64::try_from(interval.0 / 1_000).unwrap_or(i64::MAX).max(1);
        let (from, to, now) = (seconds(from), seconds(to), seconds(now));
        let rows = self
            .db
            .read(move |connection| {
                let Some(id) = id_of(connection, &entity)? else {
                    return Ok(Vec::new());
                };
                rows(connection, id, from, to, interval_s, now)
            })
            .await?;
        Ok(points_of(&rows, interval_s))
    }
}

fn seconds(at: WallTime) -> i64 {
    i64::try_from(at.0 / 1_000).unwrap_or(i64::MAX)
}

fn id_of(connection: &Connection, entity: &Entity) -> rusqlite::Result<Option<i64>> {
    use rusqlite::OptionalExtension as _;
    let (kind, environment, name, version) = entity.key();
    connection
        .prepare_cached(
            "select id from entity where kind = ?1 and environment = ?2 and name = ?3 and version = ?4",
        )?
        .query_row(params![kind, environment, name, version], |row| row.get(0))
        .optional()
}

fn put(
    connection: &Connection,
    known: &mut Known,
    at: i64,
    samples: &[(Entity, Sample)],
) -> rusqlite::Result<()> {
    let mut insert = connection.prepare_cached(
        "insert or replace into fine (at, entity, count, cpu, memory, latency, errors, rate)
         values (?1, ?2, 1, ?3, ?4, ?5, ?6, ?7)",
    )?;
    for (entity, sample) in samples {
        let Some(id) = number(connection, known, entity, at / DAY_S)? else {
            continue;
        };
        insert.execute(params![
            at,
            id,
            scaled(sample.cpu_percent, 100.0),
            scaled(sample.memory_percent, 100.0),
            scaled(sample.latency_ms, 1_000.0),
            scaled(sample.error_percent, 100.0),
            scaled(sample.requests_per_second, FINE_S as f64),
        ])?;
    }
    Ok(())
}

/// A measure in whole units of a fraction.
#[expect(clippy::cast_possible_truncation, reason = "clamped to what an integer holds")]
fn scaled(value: f64, by: f64) -> i64 {
    (value * by).round().clamp(0.0, 1e15) as i64
}

/// An entity's number; a new one where it is new. `None` where there are too many.
fn number(
    connection: &Connection,
    known: &mut Known,
    entity: &Entity,
    day: i64,
) -> rusqlite::Result<Option<i64>> {
    if let Some((id, seen)) = known.ids.get_mut(entity) {
        if *seen < day {
            *seen = day;
            connection
                .prepare_cached("update entity set seen = ?2 where id = ?1")?
                .execute(params![*id, day])?;
        }
        return Ok(Some(*id));
    }
    if known.ids.len() >= ENTITIES_MAX {
        if !std::mem::replace(&mut known.is_full, true) {
            tracing::warn!(
                ENTITIES_MAX,
                "too many nodes and releases for charts: new ones are left out"
            );
        }
        return Ok(None);
    }
    let (kind, environment, name, version) = entity.key();
    let id = connection
        .prepare_cached(
            "insert into entity (kind, environment, name, version, seen) values (?1, ?2, ?3, ?4, ?5)
             on conflict (kind, environment, name, version) do update set seen = excluded.seen returning id",
        )?
        .query_row(params![kind, environment, name, version, day], |row| row.get(0))?;
    known.ids.insert(entity.clone(), (id, day));
    Ok(Some(id))
}

/// Where the coarser table ends: everything before it was made from the finer one.
fn rolled_until(connection: &Connection, coarse: usize) -> rusqlite::Result<Option<i64>> {
    let Level { table, step_s, .. } = LEVELS[coarse];
    connection
        .prepare_cached(&format!("select max(at) + {step_s} from {table}"))?
        .query_row([], |row| row.get(0))
}

/// Makes a coarser table's whole stretches from the finer one, up to `now`: after a restart also those that the server
/// didn't see the end of.
fn roll_up(connection: &Connection, coarse: usize, now: i64) -> rusqlite::Result<()> {
    let (Level { table, step_s, .. }, fine) = (&LEVELS[coarse], LEVELS[coarse - 1].table);
    let whole = now / step_s * step_s;
    let from = rolled_until(connection, coarse)?.unwrap_or(0);
    if from >= whole {
        return Ok(());
    }
    // Rates and machines are averaged over time, latency and errors over requests.
    connection
        .prepare_cached(&format!(
            "insert or ignore into {table} (at, entity, count, cpu, memory, latency, errors, rate)
             select at / {step_s} * {step_s}, entity, sum(count), sum(cpu * count) / sum(count),
                 sum(memory * count) / sum(count),
                 coalesce(sum(latency * rate * count) / nullif(sum(rate * count), 0), 0),
                 coalesce(sum(errors * rate * count) / nullif(sum(rate * count), 0), 0),
                 (sum(rate * count) + sum(count) / 2) / sum(count)
             from {fine} where at >= ?1 and at < ?2 group by at / {step_s}, entity"
        ))?
        .execute(params![from, whole])?;
    Ok(())
}

fn forget(connection: &Connection, now: i64) -> rusqlite::Result<()> {
    for Level { table, kept_s, .. } in &LEVELS {
        connection
            .prepare_cached(&format!("delete from {table} where at < ?1"))?
            .execute([now - kept_s])?;
    }
    let oldest = (now - LEVELS[2].kept_s) / DAY_S - 1;
    connection
        .prepare_cached("delete from entity where seen < ?1")?
        .execute([oldest])?;
    Ok(())
}

/// A stored stretch.
struct Row {
    at: i64,
    count: f64,
    cpu: f64,
    memory: f64,
    latency: f64,
    errors: f64,
    rate: f64,
}

/// What is stored of a time, each moment in the coarsest table that is fine enough, or the finest that still has it.
fn rows(
    connection: &Connection,
    id: i64,
    from: i64,
    to: i64,
    interval_s: i64,
    now: i64,
) -> rusqlite::Result<Vec<Row>> {
    let wanted = LEVELS
        .iter()
        .rposition(|level| level.step_s <= interval_s)
        .unwrap_or(0);
    let mut rows = Vec::new();
    let mut begin = from;
    for at in (0..LEVELS.len()).rev() {
        let end = if at == 0 {
            to
        } else if at > wanted {
            // Finer ones took this time over: only what they no longer have is read here.
            now - LEVELS[at - 1].kept_s
        } else {
            rolled_until(connection, at)?.unwrap_or(i64::MIN)
        };
        let end = end.min(to);
        if begin < end {
            read_level(connection, at, id, begin, end, &mut rows)?;
            begin = end;
        }
    }
    Ok(rows)
}

fn read_level(
    connection: &Connection,
    level: usize,
    id: i64,
    from: i64,
    to: i64,
    rows: &mut Vec<Row>,
) -> rusqlite::Result<()> {
    let Level { table, step_s, .. } = &LEVELS[level];
    // The tables are ordered by time, so an entity's rows are looked up one by one: as many as there are points.
    let mut select = connection.prepare_cached(&format!(
        "with recursive moment (at) as (
             select ?2 union all select at + {step_s} from moment where at + {step_s} < ?3)
         select {table}.at, count, cpu, memory, latency, errors, rate
         from moment cross join {table} on {table}.at = moment.at and {table}.entity = ?1"
    ))?;
    // Aligned as rows are; the oldest row that is kept bounds how many moments there are.
    let oldest: Option<i64> = connection
        .prepare_cached(&format!("select min(at) from {table}"))?
        .query_row([], |row| row.get(0))?;
    let Some(oldest) = oldest else { return Ok(()) };
    let aligned = (from.max(oldest) + step_s - 1) / step_s * step_s;
    if aligned >= to {
        return Ok(());
    }
    let found = select.query_map(params![id, aligned, to], |row| {
        let value = |column| row.get::<_, i64>(column).map(|value| value as f64);
        Ok(Row {
            at: row.get(0)?,
            count: value(1)?,
            cpu: value(2)?,
            memory: value(3)?,
            latency: value(4)?,
            errors: value(5)?,
            rate: value(6)?,
        })
    })?;
    for row in found {
        rows.push(row?);
    }
    Ok(())
}

fn points_of(rows: &[Row], interval_s: i64) -> Vec<Point> {
    let mut stretches: BTreeMap<i64, Vec<&Row>> = BTreeMap::new();
    for row in rows {
        stretches
            .entry(row.at / interval_s * interval_s)
            .or_default()
            .push(row);
    }
    let point = |(at, rows): (i64, Vec<&Row>)| Point {
        at: WallTime(at.unsigned_abs() * 1_000),
        metrics: average(&rows),
    };
    stretches.into_iter().map(point).collect()
}

fn average(rows: &[&Row]) -> ClusterMetrics {
    let sum = |value: &dyn Fn(&Row) -> f64| rows.iter().map(|row| value(row)).sum::<f64>();
    let count = sum(&|row| row.count);
    let requests = sum(&|row| row.rate * row.count);
    let share = |sum: f64, of: f64| if of > 0.0 { sum / of } else { 0.0 };
    ClusterMetrics {
        avg_cpu_usage: rounded(share(sum(&|row| row.cpu * row.count), count) / 100.0),
        avg_memory_usage: rounded(share(sum(&|row| row.memory * row.count), count) / 100.0),
        avg_latency: rounded(share(sum(&|row| row.latency * row.rate * row.count), requests) / 1_000.0),
        error_rate: rounded(share(sum(&|row| row.errors * row.rate * row.count), requests) / 100.0),
        requests_per_second: rounded(share(requests, count) / FINE_S as f64),
    }
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    fn sample(cpu: f64, rate: f64, latency: f64) -> Sample {
        Sample {
            cpu_percent: cpu,
            requests_per_second: rate,
            latency_ms: latency,
            ..Sample::default()
        }
    }

    fn qa() -> Entity {
        Entity::Environment("QA".parse().unwrap())
    }

    async fn read(series: &Series, from: i64, to: i64, interval: u64, now: i64) -> Vec<(i64, f64, f64)> {
        let wall = |at: i64| WallTime(at.unsigned_abs() * 1_000);
        let points = series
            .points(qa(), wall(from), wall(to), Millis::from_secs(interval), wall(now))
            .await
            .unwrap();
        points
            .iter()
            .map(|point| {
                (
                    i64::try_from(point.at.0 / 1_000).unwrap(),
                    point.metrics.avg_cpu_usage,
                    point.metrics.avg_latency,
                )
            })
            .collect()
    }

    /// A day on the hour, long after 1970.
    const BEGIN: i64 = 1_700_006_400;

    #[tokio::test]
    async fn samples_are_averaged_by_interval_and_survive_the_process() {
        let dir = TempDir::new().unwrap();
        let series = Series::new(SightDb::open(dir.path()).unwrap());
        for (at, cpu, rate, latency) in [
            (0, 10.0, 90.0, 10.0),
            (10, 30.0, 10.0, 20.0),
            (60, 50.0, 1.0, 5.0),
        ] {
            let round = vec![(qa(), sample(cpu, rate, latency))];
            series.record(BEGIN + at, round).await.unwrap();
        }
        let fine = read(&series, BEGIN, BEGIN + 100, 10, BEGIN + 100).await;
        assert_eq!(
            fine,
            [
                (BEGIN, 10.0, 10.0),
                (BEGIN + 10, 30.0, 20.0),
                (BEGIN + 60, 50.0, 5.0)
            ]
        );
        let minutes = [(BEGIN, 20.0, 11.0), (BEGIN + 60, 50.0, 5.0)];
        assert_eq!(read(&series, BEGIN, BEGIN + 100, 60, BEGIN + 100).await, minutes);
        drop(series);
        let series = Series::new(SightDb::open(dir.path()).unwrap());
        assert_eq!(read(&series, BEGIN, BEGIN + 100, 60, BEGIN + 100).await, minutes);
        assert_eq!(
            read(&series, BEGIN + 60, BEGIN + 100, 10, BEGIN + 100)
                .await
                .len(),
            1
        );
    }

    #[tokio::test]
    async fn what_is_old_is_kept_coarser_and_then_forgotten() {
        let dir = TempDir::new().unwrap();
        let series = Series::new(SightDb::open(dir.path()).unwrap());
        for at in 0..6 {
            let round = vec![(qa(), sample(10.0 * at as f64, 1.0, 1.0))];
            series.record(BEGIN + 10 * at, round).await.unwrap();
        }
        let later = async |after: i64| series.record(BEGIN + after, Vec::new()).await.unwrap();
        later(7 * 3_600).await;
        let now = BEGIN + 7 * 3_600;
        assert_eq!(
            read(&series, BEGIN, BEGIN + 100, 10, now).await,
            [(BEGIN, 25.0, 1.0)],
            "a minute is left of it"
        );
        later(4 * DAY_S).await;
        let now = BEGIN + 4 * DAY_S;
        assert_eq!(
            read(&series, BEGIN, BEGIN + 900, 10, now).await,
            [(BEGIN, 25.0, 1.0)]
        );
        assert_eq!(read(&series, BEGIN, BEGIN + 3_600, 3_600, now).await.len(), 1);
        later(40 * DAY_S).await;
        let now = BEGIN + 40 * DAY_S;
        assert_eq!(read(&series, BEGIN, BEGIN + 900, 900, now).await, []);
    }
}
