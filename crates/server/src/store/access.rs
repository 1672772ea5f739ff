//! Users, sessions, tokens and keys: records by identity.

use rusqlite::{Connection, Transaction, params};
use serde::de::DeserializeOwned;
use uuid::Uuid;

use super::audit::Chain;
use super::writer::encode;
use super::{FirstAnswer, StoreError};
use crate::access::{ApiToken, Session, SigningKey, User};
use crate::audit::{AuditEntry, Head, head_message};

/// Everything that is kept of who may do what.
#[derive(Debug, Default)]
pub struct AccessRecords {
    /// Users.
    pub users: Vec<User>,
    /// Sessions.
    pub sessions: Vec<Session>,
    /// API tokens.
    pub tokens: Vec<ApiToken>,
    /// Signing keys, forgotten ones included.
    pub keys: Vec<SigningKey>,
}

/// One change of it.
#[derive(Clone, Debug)]
pub enum AccessChange {
    /// A user, new or changed.
    PutUser(Box<User>),
    /// A session, new or changed.
    PutSession(Session),
    /// A session ends.
    EndSession(Uuid),
    /// An API token, new.
    PutToken(ApiToken),
    /// An API token is revoked.
    RevokeToken(Uuid),
    /// A signing key, new or changed.
    PutKey(SigningKey),
    /// The first answer to the request that the other changes are for.
    PutAnswer(FirstAnswer),
}

/// A head, signed.
#[derive(Clone, Debug)]
pub struct SignedHead {
    /// The head.
    pub head: Head,
    /// The key's name.
    pub kid: String,
    /// The signature over [`SignedHead::message`].
    pub signature: Vec<u8>,
}

impl SignedHead {
    /// What is signed.
    pub fn message(head: &Head) -> Vec<u8> {
        head_message(head.seq, &head.hash)
    }
}

pub(super) fn load(connection: &Connection) -> Result<AccessRecords, StoreError> {
    Ok(AccessRecords {
        users: records(
            connection,
            "a user",
            "select record from account order by username",
        )?,
        sessions: records(connection, "a session", "select record from session")?,
        tokens: records(connection, "an API token", "select record from api_token")?,
        keys: records(connection, "a signing key", "select record from signing_key")?,
    })
}

pub(super) fn records<T: DeserializeOwned>(
    connection: &Connection,
    what: &'static str,
    sql: &str,
) -> Result<Vec<T>, StoreError> {
    let mut select = connection.prepare(sql)?;
    let rows = select.query_map([], |row| row.get::<_, String>(0))?;
    let decode = |text: rusqlite::Result<String>| {
        serde_json::from_str(&text?).map_err(|source| StoreError::Encoding { what, source })
    };
    rows.map(decode).collect()
}

/// Changes and their entries, or none of them.
pub(super) fn change(
    transaction: &Transaction<'_>,
    changes: &[AccessChange],
    audit: &[AuditEntry],
) -> Result<(), StoreError> {
    for change in changes {
        put(transaction, change)?;
    }
    let mut chain = Chain::open(transaction)?;
    audit.iter().try_for_each(|entry| chain.append(entry))
}

fn put(transaction: &Transaction<'_>, change: &AccessChange) -> Result<(), StoreError> {
    let written = match change {
        AccessChange::PutUser(user) => transaction.execute(
            "insert into account (id, username, record) values (?1, ?2, ?3)
             on conflict (id) do update set record = excluded.record",
            params![user.id.to_string(), user.username, encode("a user", user)?],
        ),
        AccessChange::PutSession(session) => transaction.execute(
            "insert or replace into session (id, account, record) values (?1, ?2, ?3)",
            params![
                session.id.to_string(),
                session.user.to_string(),
                encode("a session", session)?
            ],
        ),
        AccessChange::EndSession(id) => {
            transaction.execute("delete from session where id = ?1", [id.to_string()])
        }
        AccessChange::PutToken(token) => transaction.execute(
            "insert or replace into api_token (id, account, record) values (?1, ?2, ?3)",
            params![
                token.id.to_string(),
                token.user.to_string(),
                encode("an API token", token)?
            ],
        ),
        AccessChange::RevokeToken(id) => {
            transaction.execute("delete from api_token where id = ?1", [id.to_string()])
        }
        AccessChange::PutKey(key) => transaction.execute(
            "insert or replace into signing_key (kid, record) values (?1, ?2)",
            params![key.kid, encode("a signing key", key)?],
        ),
        AccessChange::PutAnswer(first) => {
            return super::writer::put_answers(transaction, std::slice::from_ref(first));
        }
    };
    written?;
    Ok(())
}

pub(super) fn keep_head(transaction: &Transaction<'_>, signed: &SignedHead) -> Result<(), StoreError> {
    transaction.execute(
        "insert or replace into audit_head (seq, hash, kid, signature) values (?1, ?2, ?3, ?4)",
        params![
            super::writer::signed(signed.head.seq),
            signed.head.hash,
            signed.kid,
            signed.signature
        ],
    )?;
    Ok(())
}
