//! The audit log's rows.

use hotswap_core::time::WallTime;
use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension as _, Transaction, params, params_from_iter};

use super::writer::{signed, unsigned};
use super::{Entry, StoreError};
use crate::audit::{
    AuditEntry, AuditQuery, AuditRow, GENESIS, Head, PAGE_MAX, event_digest, hash_of, of_event, record_of,
};

/// Appends to the chain in one transaction.
pub(super) struct Chain<'a> {
    transaction: &'a Transaction<'a>,
    head: Head,
}

impl<'a> Chain<'a> {
    /// Goes on from the end.
    pub(super) fn open(transaction: &'a Transaction<'a>) -> Result<Self, StoreError> {
        Ok(Self {
            head: head(transaction)?,
            transaction,
        })
    }

    /// One more entry.
    pub(super) fn append(&mut self, entry: &AuditEntry) -> Result<(), StoreError> {
        let seq = self.head.seq + 1;
        let record = record_of(seq, entry).map_err(|source| StoreError::Encoding {
            what: "an audit entry",
            source,
        })?;
        let hash = hash_of(&self.head.hash, record.as_bytes());
        let mut insert = self
            .transaction
            .prepare_cached("insert into audit (seq, record, hash) values (?1, ?2, ?3)")?;
        insert.execute(params![signed(seq), record, hash])?;
        self.head = Head { seq, hash };
        Ok(())
    }

    /// The entry of an event, whose row says this.
    pub(super) fn append_event(&mut self, entry: &Entry, action: &str, body: &str) -> Result<(), StoreError> {
        let logged = &entry.logged;
        let deployment = entry.deployment.map(|id| id.to_string());
        let digest = event_digest(
            signed(logged.seq),
            signed(logged.epoch),
            signed(logged.at.0),
            signed(logged.wall.0),
            deployment.as_deref(),
            body.as_bytes(),
        );
        self.append(&of_event(entry, action, digest))
    }
}

/// The chain's end.
pub(super) fn head(connection: &Connection) -> Result<Head, StoreError> {
    let mut select = connection.prepare_cached("select seq, hash from audit order by seq desc limit 1")?;
    let last = select
        .query_row([], |row| Ok((unsigned(row.get(0)?), row.get::<_, [u8; 32]>(1)?)))
        .optional()?;
    Ok(last.map_or(
        Head {
            seq: 0,
            hash: GENESIS,
        },
        |(seq, hash)| Head { seq, hash },
    ))
}

/// A page, newest first.
pub(super) fn page(connection: &Connection, query: &AuditQuery) -> Result<Vec<AuditRow>, StoreError> {
    let mut wheres: Vec<String> = Vec::new();
    let mut values: Vec<Value> = Vec::new();
    let mut only = |condition: &str, value: Option<Value>| {
        if let Some(value) = value {
            values.push(value);
            wheres.push(format!("{condition} ?{}", values.len()));
        }
    };
    let text = |text: &Option<String>| text.clone().map(Value::Text);
    let time = |time: Option<WallTime>| time.map(|time| Value::Integer(signed(time.0)));
    only("actor =", text(&query.actor));
    only("kind =", text(&query.kind));
    only("action =", text(&query.action));
    only("outcome =", text(&query.outcome));
    only(
        "deployment =",
        query.deployment.map(|id| Value::Text(id.to_string())),
    );
    only("at >=", time(query.from));
    only("at <", time(query.to));
    only("seq <", query.before.map(|before| Value::Integer(signed(before))));
    let filter = if wheres.is_empty() {
        String::new()
    } else {
        format!("where {}", wheres.join(" and "))
    };
    values.push(Value::Integer(signed(query.limit.min(PAGE_MAX) as u64)));
    let mut select = connection.prepare_cached(&format!(
        "select seq, cast(record as blob), hash from audit {filter} order by seq desc limit ?{}",
        values.len()
    ))?;
    let rows = select.query_map(params_from_iter(values), |row| {
        Ok(AuditRow::new(
            unsigned(row.get(0)?),
            &row.get::<_, Vec<u8>>(1)?,
            row.get(2)?,
        ))
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}
