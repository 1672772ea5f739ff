//! The one thread that writes.

use hotswap_core::desired::EPOCH_STEP_MAX;
use hotswap_core::ids::DeploymentId;
use hotswap_core::stage::{Deployment, DeploymentStatus};
use hotswap_core::time::WallTime;
use rusqlite::{Connection, OptionalExtension as _, Transaction, TransactionBehavior, params};
use tokio::sync::{mpsc, oneshot};

use super::access::{self, AccessChange, SignedHead};
use super::audit::Chain;
use super::{Batch, Entry, FirstAnswer, Leadership, StoreError, enrolment};
use crate::audit::AuditEntry;
use crate::enrolment::EnrolmentChange;

/// Work that waits for the writer. The driver waits for each batch, so there is never more than a few.
pub(super) const QUEUE_MAX: usize = 16;
/// Snapshots kept: the newest, and one before it in case that one can't be read.
const SNAPSHOTS_KEPT: i64 = 2;

/// A State, encoded already: the writer is kept free for batches.
pub(super) struct Snapshot {
    pub(super) seq: u64,
    pub(super) wall: WallTime,
    pub(super) text: String,
}

/// Something to write.
pub(super) enum Job {
    Lead(oneshot::Sender<Result<Leadership, StoreError>>),
    Commit(Box<Batch>, oneshot::Sender<Result<(), StoreError>>),
    Snapshot(Snapshot, oneshot::Sender<Result<(), StoreError>>),
    Access(
        Vec<AccessChange>,
        Vec<AuditEntry>,
        oneshot::Sender<Result<(), StoreError>>,
    ),
    Enrolment(
        Vec<EnrolmentChange>,
        Vec<AuditEntry>,
        oneshot::Sender<Result<(), StoreError>>,
    ),
    Head(Box<SignedHead>, oneshot::Sender<Result<(), StoreError>>),
    ForgetEvents(WallTime, oneshot::Sender<Result<usize, StoreError>>),
}

/// Works until every sender is gone. An answer that nobody waits for any more is dropped.
pub(super) fn run(mut connection: Connection, mut jobs: mpsc::Receiver<Job>) {
    while let Some(job) = jobs.blocking_recv() {
        match job {
            Job::Lead(reply) => drop(reply.send(lead(&mut connection))),
            Job::Commit(batch, reply) => drop(reply.send(commit(&mut connection, &batch))),
            Job::ForgetEvents(before, reply) => drop(reply.send(forget_events(&mut connection, before))),
            Job::Snapshot(snapshot, reply) => drop(reply.send(keep_snapshot(&mut connection, &snapshot))),
            Job::Access(changes, audit, reply) => {
                let change = |transaction: &Transaction<'_>| access::change(transaction, &changes, &audit);
                drop(reply.send(within(&mut connection, change)));
            }
            Job::Enrolment(changes, audit, reply) => {
                let change = |transaction: &Transaction<'_>| enrolment::change(transaction, &changes, &audit);
                drop(reply.send(within(&mut connection, change)));
            }
            Job::Head(head, reply) => {
                let keep = |transaction: &Transaction<'_>| access::keep_head(transaction, &head);
                drop(reply.send(within(&mut connection, keep)));
            }
        }
    }
}

fn begin(connection: &mut Connection) -> Result<Transaction<'_>, StoreError> {
    Ok(connection.transaction_with_behavior(TransactionBehavior::Immediate)?)
}

fn within(
    connection: &mut Connection,
    work: impl FnOnce(&Transaction<'_>) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let transaction = begin(connection)?;
    work(&transaction)?;
    transaction.commit()?;
    Ok(())
}

fn lead(connection: &mut Connection) -> Result<Leadership, StoreError> {
    let transaction = begin(connection)?;
    let leadership = transaction.query_row(
        "update log_head set epoch = case epoch when 0 then 1 else epoch + 1 + (random() & ?1) end returning epoch, next_seq",
        [signed(EPOCH_STEP_MAX - 1)],
        |row| {
            Ok(Leadership {
                epoch: unsigned(row.get(0)?),
                next_seq: unsigned(row.get(1)?),
            })
        },
    )?;
    transaction.commit()?;
    Ok(leadership)
}

fn commit(connection: &mut Connection, batch: &Batch) -> Result<(), StoreError> {
    let transaction = begin(connection)?;
    take_numbers(&transaction, batch)?;
    let mut chain = Chain::open(&transaction)?;
    append(&transaction, &mut chain, &batch.events)?;
    enrolment::revoke_removed(&transaction, &batch.events)?;
    batch.audit.iter().try_for_each(|entry| chain.append(entry))?;
    put_deployments(&transaction, &batch.deployments)?;
    mark_undone(&transaction, &batch.undone)?;
    put_answers(&transaction, &batch.answers)?;
    if let Some(before) = batch.forget_answers_before {
        transaction.execute("delete from answer where wall < ?1", [signed(before.0)])?;
    }
    transaction.commit()?;
    Ok(())
}

/// The fence: the head moves on only under the writer's own epoch.
fn take_numbers(transaction: &Transaction<'_>, batch: &Batch) -> Result<(), StoreError> {
    let next: Option<i64> = transaction
        .query_row(
            "update log_head set next_seq = next_seq + ?1, epoch = ?2 where epoch = ?3 returning next_seq",
            params![
                count(batch.events.len()),
                signed(batch.epoch_after),
                signed(batch.epoch)
            ],
            |row| row.get(0),
        )
        .optional()?;
    let next = next.ok_or(StoreError::Fenced { mine: batch.epoch })?;
    let first = unsigned(next).saturating_sub(batch.events.len() as u64);
    for (expected, entry) in (first..).zip(&batch.events) {
        if entry.logged.seq != expected {
            return Err(StoreError::Gap {
                expected_after: expected.saturating_sub(1),
                found: entry.logged.seq,
            });
        }
    }
    Ok(())
}

fn append(transaction: &Transaction<'_>, chain: &mut Chain<'_>, events: &[Entry]) -> Result<(), StoreError> {
    let mut insert = transaction.prepare_cached(
        "insert into event (seq, epoch, at, wall, type, deployment, body) values (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
    )?;
    for entry @ Entry { logged, deployment } in events {
        let body = encode("an event", &logged.event)?;
        insert.execute(params![
            signed(logged.seq),
            signed(logged.epoch),
            signed(logged.at.0),
            signed(logged.wall.0),
            type_of(&body),
            deployment.map(|id| id.to_string()),
            body,
        ])?;
        chain.append_event(entry, type_of(&body), &body)?;
    }
    Ok(())
}

/// The event's tag, which its JSON begins with: `{"type":"stageStarted",…`.
fn type_of(body: &str) -> &str {
    body.strip_prefix("{\"type\":\"")
        .and_then(|rest| rest.split('"').next())
        .unwrap_or("event")
}

fn put_deployments(transaction: &Transaction<'_>, deployments: &[Deployment]) -> Result<(), StoreError> {
    let mut put = transaction.prepare_cached(
        "insert into deployment (ord, id, module, version, environment, status, started, ended, record)
         values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)
         on conflict (ord) do update set status = excluded.status, ended = excluded.ended, record = excluded.record",
    )?;
    for deployment in deployments {
        put.execute(params![
            signed(deployment.order),
            deployment.id.to_string(),
            deployment.module.as_str(),
            crate::views::deployment::version_of(deployment),
            deployment.target.as_str(),
            crate::views::deployment::status_name(deployment.status),
            signed(deployment.requested.wall.0),
            deployment.ended.map(|ended| signed(ended.wall.0)),
            encode("a deployment", deployment)?,
        ])?;
    }
    Ok(())
}

/// Deployments that State no longer holds can still be undone; only their record says so then.
fn mark_undone(transaction: &Transaction<'_>, undone: &[DeploymentId]) -> Result<(), StoreError> {
    for id in undone {
        transaction.execute(
            "update deployment set status = ?2, record = json_set(record, '$.status', ?2) where id = ?1",
            params![
                id.to_string(),
                crate::views::deployment::status_name(DeploymentStatus::RolledBack)
            ],
        )?;
    }
    Ok(())
}

pub(super) fn put_answers(transaction: &Transaction<'_>, answers: &[FirstAnswer]) -> Result<(), StoreError> {
    let mut put = transaction.prepare_cached(
        "insert into answer (scope, key, fingerprint, wall, answer) values (?1, ?2, ?3, ?4, ?5)",
    )?;
    for first in answers {
        let answer = encode("an answer", &first.answer)?;
        put.execute(params![
            first.key.scope,
            first.key.key,
            first.key.fingerprint,
            signed(first.wall.0),
            answer
        ])?;
    }
    Ok(())
}

fn keep_snapshot(connection: &mut Connection, snapshot: &Snapshot) -> Result<(), StoreError> {
    let transaction = begin(connection)?;
    transaction.execute(
        "insert or replace into snapshot (seq, wall, state) values (?1, ?2, ?3)",
        params![signed(snapshot.seq), signed(snapshot.wall.0), snapshot.text],
    )?;
    transaction.execute(
        "delete from snapshot where seq not in (select seq from snapshot order by seq desc limit ?1)",
        [SNAPSHOTS_KEPT],
    )?;
    transaction.commit()?;
    Ok(())
}

/// A prefix of the log, so that what is left has no gaps. Where there is no snapshot, or a deployment of old isn't
/// finished, that is the limit.
fn forget_events(connection: &mut Connection, before: WallTime) -> Result<usize, StoreError> {
    let transaction = begin(connection)?;
    let unfinished = [
        DeploymentStatus::Running,
        DeploymentStatus::PendingApproval,
        DeploymentStatus::Paused,
    ];
    let unfinished = encode("names", &unfinished.map(crate::views::deployment::status_name))?;
    let forgotten = transaction.execute(
        "delete from event where seq in (
             select seq from event
             where seq <= (select coalesce(min(seq), 0) from snapshot)
               and seq < (select coalesce(min(ord), 9223372036854775807) from deployment
                          where status in (select value from json_each(?2)))
               and seq < coalesce((select seq from event where wall >= ?1 order by seq limit 1), 9223372036854775807)
             order by seq limit ?3)",
        params![signed(before.0), unfinished, count(super::EVENTS_FORGOTTEN_MAX)],
    )?;
    transaction.commit()?;
    Ok(forgotten)
}

pub(super) fn encode<T: serde::Serialize>(what: &'static str, value: &T) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|source| StoreError::Encoding { what, source })
}

/// SQLite's integers are signed; ours stay far below.
pub(crate) fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// What [`signed`] wrote.
pub(crate) fn unsigned(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}

fn count(len: usize) -> i64 {
    i64::try_from(len).unwrap_or(i64::MAX)
}
