//! Reads, each on a connection of its own.

use hotswap_core::event::{Event, Logged};
use hotswap_core::ids::DeploymentId;
use hotswap_core::stage::Deployment;
use hotswap_core::state::State;
use hotswap_core::time::{CoreTime, WallTime};
use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension as _, Row, params, params_from_iter};

use super::writer::{signed, unsigned};
use super::{
    DEPLOYMENTS_PAGE_MAX, DeploymentQuery, DeploymentRow, EVENTS_READ_MAX, Entry, FeedEntry, FeedQuery,
    FirstAnswer, IdempotencyKey, StoreError,
};

pub(super) fn snapshot(connection: &Connection) -> Result<Option<State>, StoreError> {
    let mut select = connection.prepare("select seq, state from snapshot order by seq desc")?;
    let mut rows = select.query([])?;
    while let Some(row) = rows.next()? {
        match serde_json::from_str(&row.get::<_, String>(1)?) {
            Ok(state) => return Ok(Some(state)),
            // The log has everything that the snapshot has; folding it takes longer, no more.
            Err(error) => {
                let seq: i64 = row.get(0)?;
                tracing::warn!(seq, %error, "a snapshot can't be read; folding more of the log");
            }
        }
    }
    Ok(None)
}

pub(super) fn events_after(connection: &Connection, seq: u64) -> Result<Vec<Logged>, StoreError> {
    let mut select = connection.prepare_cached(
        "select seq, epoch, at, wall, type, body from event where seq > ?1 order by seq limit ?2",
    )?;
    let events = read_events(select.query(params![signed(seq), limit(EVENTS_READ_MAX)])?)?;
    let mut last = seq;
    for event in &events {
        if event.seq != last + 1 {
            return Err(StoreError::Gap {
                expected_after: last,
                found: event.seq,
            });
        }
        last = event.seq;
    }
    Ok(events)
}

pub(super) fn events_of(
    connection: &Connection,
    id: DeploymentId,
    after: u64,
) -> Result<Vec<Logged>, StoreError> {
    let mut select = connection.prepare_cached(
        "select seq, epoch, at, wall, type, body from event where deployment = ?1 and seq > ?2 order by seq limit ?3",
    )?;
    read_events(select.query(params![id.to_string(), signed(after), limit(EVENTS_READ_MAX)])?)
}

pub(super) fn entries_after(connection: &Connection, seq: u64) -> Result<Vec<Entry>, StoreError> {
    let mut select = connection.prepare_cached(
        "select seq, epoch, at, wall, type, body, deployment from event where seq > ?1 order by seq limit ?2",
    )?;
    let mut rows = select.query(params![signed(seq), limit(EVENTS_READ_MAX)])?;
    let mut entries = Vec::new();
    while let Some(row) = rows.next()? {
        let deployment: Option<String> = row.get(6)?;
        entries.push(Entry {
            logged: read_event(row)?,
            deployment: deployment.and_then(|id| id.parse().ok()),
        });
    }
    Ok(entries)
}

fn read_events(mut rows: rusqlite::Rows<'_>) -> Result<Vec<Logged>, StoreError> {
    let mut events = Vec::new();
    while let Some(row) = rows.next()? {
        events.push(read_event(row)?);
    }
    Ok(events)
}

fn read_event(row: &Row<'_>) -> Result<Logged, StoreError> {
    let seq = unsigned(row.get(0)?);
    let body: String = row.get(5)?;
    let event: Event = match serde_json::from_str(&body) {
        Ok(event) => event,
        Err(source) => {
            return Err(StoreError::UnknownEvent {
                seq,
                kind: row.get(4)?,
                source,
            });
        }
    };
    Ok(Logged {
        seq,
        epoch: unsigned(row.get(1)?),
        at: CoreTime(unsigned(row.get(2)?)),
        wall: WallTime(unsigned(row.get(3)?)),
        event,
    })
}

pub(super) fn feed(connection: &Connection, query: FeedQuery) -> Result<Vec<FeedEntry>, StoreError> {
    let only = if query.deployment.is_some() {
        "e.deployment = ?3 and"
    } else {
        ""
    };
    let mut select = connection.prepare_cached(&format!(
        "select e.seq, e.epoch, e.at, e.wall, e.type, e.body, e.deployment, d.module, d.version, d.environment
         from event e left join deployment d on d.id = e.deployment
         where {only} e.seq > ?1 order by e.seq limit ?2"
    ))?;
    let (after, most) = (signed(query.after), limit(query.limit.min(EVENTS_READ_MAX)));
    let mut rows = match query.deployment {
        Some(id) => select.query(params![after, most, id.to_string()])?,
        None => select.query(params![after, most])?,
    };
    let mut entries = Vec::new();
    while let Some(row) = rows.next()? {
        let deployment: Option<String> = row.get(6)?;
        entries.push(FeedEntry {
            logged: read_event(row)?,
            deployment: deployment.and_then(|id| id.parse().ok()),
            module: row.get(7)?,
            version: row.get(8)?,
            target: row.get(9)?,
        });
    }
    Ok(entries)
}

pub(super) fn deployment(
    connection: &Connection,
    id: DeploymentId,
) -> Result<Option<Deployment>, StoreError> {
    let mut select = connection.prepare_cached("select record from deployment where id = ?1")?;
    let record: Option<String> = select.query_row([id.to_string()], |row| row.get(0)).optional()?;
    let decode = |text: String| {
        serde_json::from_str(&text).map_err(|source| StoreError::Encoding {
            what: "a deployment",
            source,
        })
    };
    record.map(decode).transpose()
}

pub(super) fn deployments(
    connection: &Connection,
    query: &DeploymentQuery,
) -> Result<Vec<DeploymentRow>, StoreError> {
    let mut wheres = Vec::new();
    let mut values: Vec<Value> = Vec::new();
    let mut only = |column: &str, value: Option<Value>| {
        if let Some(value) = value {
            values.push(value);
            wheres.push(format!("{column} ?{}", values.len()));
        }
    };
    let text = |text: &str| Value::Text(text.to_owned());
    only(
        "status =",
        query
            .status
            .map(|status| text(crate::views::deployment::status_name(status))),
    );
    only(
        "module =",
        query.module.as_ref().map(|module| text(module.as_str())),
    );
    only(
        "environment =",
        query
            .environment
            .as_ref()
            .map(|environment| text(environment.as_str())),
    );
    only("ord <", query.before.map(|before| Value::Integer(signed(before))));
    let filter = if wheres.is_empty() {
        String::new()
    } else {
        format!("where {}", wheres.join(" and "))
    };
    values.push(Value::Integer(limit(query.limit.min(DEPLOYMENTS_PAGE_MAX))));
    let mut select = connection.prepare_cached(&format!(
        "select ord, id, module, version, environment, status, started, ended
         from deployment {filter} order by ord desc limit ?{}",
        values.len()
    ))?;
    let rows = select.query_map(params_from_iter(values), deployment_row)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

fn deployment_row(row: &Row<'_>) -> rusqlite::Result<DeploymentRow> {
    let broken = |column, error: Box<dyn std::error::Error + Send + Sync>| {
        rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Text, error)
    };
    Ok(DeploymentRow {
        order: unsigned(row.get(0)?),
        id: row
            .get::<_, String>(1)?
            .parse()
            .map_err(|error: uuid::Error| broken(1, error.into()))?,
        module: row.get(2)?,
        version: row.get(3)?,
        environment: row.get(4)?,
        status: serde_json::from_value(row.get::<_, String>(5)?.into())
            .map_err(|error| broken(5, error.into()))?,
        started: WallTime(unsigned(row.get(6)?)),
        ended: row
            .get::<_, Option<i64>>(7)?
            .map(|ended| WallTime(unsigned(ended))),
    })
}

pub(super) fn first_answer(
    connection: &Connection,
    scope: String,
    key: String,
) -> Result<Option<FirstAnswer>, StoreError> {
    let mut select = connection
        .prepare_cached("select fingerprint, wall, answer from answer where scope = ?1 and key = ?2")?;
    let found = select
        .query_row([&scope, &key], |row| {
            Ok((row.get::<_, String>(0)?, row.get(1)?, row.get::<_, String>(2)?))
        })
        .optional()?;
    let Some((fingerprint, wall, text)) = found else {
        return Ok(None);
    };
    let answer = serde_json::from_str(&text).map_err(|source| StoreError::Encoding {
        what: "an answer",
        source,
    })?;
    let key = IdempotencyKey {
        scope,
        key,
        fingerprint,
    };
    Ok(Some(FirstAnswer {
        key,
        wall: WallTime(unsigned(wall)),
        answer,
    }))
}

fn limit(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
