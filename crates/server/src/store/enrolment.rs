//! Join tokens, nodes' certificates, and revocations.

use hotswap_core::event::Event;
use hotswap_core::ids::NodeId;
use hotswap_core::time::WallTime;
use hotswap_transport::{KeyId, Serial};
use rusqlite::types::Type;
use rusqlite::{Connection, OptionalExtension as _, Row, Transaction, params};

use super::audit::Chain;
use super::writer::{encode, signed, unsigned};
use super::{Entry, StoreError};
use crate::audit::AuditEntry;
use crate::enrolment::{EnrolmentChange, EnrolmentRecords, NodeCertificate, Origin};

pub(super) fn load(connection: &Connection) -> Result<EnrolmentRecords, StoreError> {
    let mut select = connection.prepare(
        "select serial, node, environment, key, token, issued, expires, revoked from node_certificate",
    )?;
    let certificates = select.query_map([], certificate)?.collect::<Result<_, _>>()?;
    let mut select = connection.prepare("select node, at from node_revocation")?;
    let revocations = select
        .query_map([], |row| Ok((text(row, 0)?, WallTime(unsigned(row.get(1)?)))))?
        .collect::<Result<_, _>>()?;
    Ok(EnrolmentRecords {
        tokens: super::access::records(connection, "a join token", "select record from join_token")?,
        certificates,
        revocations,
    })
}

fn certificate(row: &Row<'_>) -> rusqlite::Result<NodeCertificate> {
    Ok(NodeCertificate {
        serial: text(row, 0)?,
        node: text(row, 1)?,
        environment: text(row, 2)?,
        key: KeyId::known(row.get::<_, String>(3)?),
        token: row
            .get::<_, Option<String>>(4)?
            .map(|token| token.parse().map_err(|error| damaged(4, error)))
            .transpose()?,
        issued: WallTime(unsigned(row.get(5)?)),
        expires: WallTime(unsigned(row.get(6)?)),
        revoked: row.get::<_, Option<i64>>(7)?.map(|at| WallTime(unsigned(at))),
    })
}

fn text<T: std::str::FromStr>(row: &Row<'_>, column: usize) -> rusqlite::Result<T>
where
    T::Err: std::error::Error + Send + Sync + 'static,
{
    let text: String = row.get(column)?;
    text.parse().map_err(|error| damaged(column, error))
}

fn damaged(column: usize, error: impl std::error::Error + Send + Sync + 'static) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(column, Type::Text, Box::new(error))
}

/// Changes and their entries, or none of them.
pub(super) fn change(
    transaction: &Transaction<'_>,
    changes: &[EnrolmentChange],
    audit: &[AuditEntry],
) -> Result<(), StoreError> {
    for change in changes {
        put(transaction, change)?;
    }
    let mut chain = Chain::open(transaction)?;
    audit.iter().try_for_each(|entry| chain.append(entry))
}

fn put(transaction: &Transaction<'_>, change: &EnrolmentChange) -> Result<(), StoreError> {
    match change {
        EnrolmentChange::PutToken(token) => {
            transaction.execute(
                "insert or replace into join_token (id, record) values (?1, ?2)",
                params![token.id.to_string(), encode("a join token", token)?],
            )?;
        }
        EnrolmentChange::EndToken(id) => {
            transaction.execute("delete from join_token where id = ?1", [id.to_string()])?;
        }
        EnrolmentChange::PutCertificate(of, origin) => {
            let revoked = match origin {
                Origin::Join { knowing } => {
                    let knowing = knowing.map(|at| signed(at.0));
                    revocation_of(transaction, &of.node)?.filter(|at| Some(*at) != knowing)
                }
                Origin::Renewal(former) => revoked_with(transaction, former, &of.node)?,
                Origin::Unrecorded => revocation_of(transaction, &of.node)?,
            };
            transaction.execute(
                "insert into node_certificate (serial, node, environment, key, token, issued, expires, revoked)
                 values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
                params![
                    of.serial.to_string(),
                    of.node.as_str(),
                    of.environment.as_str(),
                    of.key.as_str(),
                    of.token.map(|token| token.to_string()),
                    signed(of.issued.0),
                    signed(of.expires.0),
                    revoked,
                ],
            )?;
        }
        EnrolmentChange::Revoke(node, at) => revoke(transaction, node, *at)?,
        EnrolmentChange::Forget(expired, revoked) => {
            transaction.execute(
                "delete from node_certificate where expires < ?1",
                [signed(expired.0)],
            )?;
            transaction.execute("delete from node_revocation where at < ?1", [signed(revoked.0)])?;
        }
        EnrolmentChange::PutAnswer(first) => {
            super::writer::put_answers(transaction, std::slice::from_ref(first))?;
        }
    }
    Ok(())
}

/// Since when a certificate is refused that follows another.
fn revoked_with(
    transaction: &Transaction<'_>,
    former: &Serial,
    node: &NodeId,
) -> Result<Option<i64>, StoreError> {
    let known = transaction
        .query_row(
            "select revoked from node_certificate where serial = ?1",
            [former.to_string()],
            |row| row.get(0),
        )
        .optional()?;
    match known {
        Some(revoked) => Ok(revoked),
        None => revocation_of(transaction, node),
    }
}

/// When a node's certificates were last revoked.
fn revocation_of(transaction: &Transaction<'_>, node: &NodeId) -> Result<Option<i64>, StoreError> {
    let at = transaction.query_row(
        "select at from node_revocation where node = ?1",
        [node.as_str()],
        |row| row.get(0),
    );
    Ok(at.optional()?)
}

/// A node that is removed is let in by none of its certificates again: in the removal's own transaction.
pub(super) fn revoke_removed(transaction: &Transaction<'_>, events: &[Entry]) -> Result<(), StoreError> {
    for Entry { logged, .. } in events {
        if let Event::NodeRemoved { node, .. } = &logged.event {
            revoke(transaction, node, logged.wall)?;
        }
    }
    Ok(())
}

fn revoke(transaction: &Transaction<'_>, node: &NodeId, at: WallTime) -> Result<(), StoreError> {
    transaction.execute(
        "update node_certificate set revoked = ?2 where node = ?1 and revoked is null",
        params![node.as_str(), signed(at.0)],
    )?;
    transaction.execute(
        "insert into node_revocation (node, at) values (?1, ?2)
         on conflict (node) do update set at = max(at, excluded.at)",
        params![node.as_str(), signed(at.0)],
    )?;
    Ok(())
}
