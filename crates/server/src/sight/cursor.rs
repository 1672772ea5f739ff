//! How far each reader of the log has come, and what was given up on.

use hotswap_core::time::WallTime;
use rusqlite::{Connection, OptionalExtension as _, Row, params};

use super::db::{SightDb, SightError};
use crate::store::{signed, unsigned};

/// Dead letters kept of each endpoint; older ones go.
pub const DEAD_LETTERS_MAX: u32 = 1_000;

/// Where a reader stands: everything up to `seq` is done with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// The last event that is done with.
    pub seq: u64,
    /// Failed attempts at the next one.
    pub attempts: u32,
    /// When it is tried again.
    pub due: WallTime,
    /// Why the last attempt failed.
    pub error: String,
}

impl Cursor {
    /// A reader that is done with everything up to an event.
    pub fn at(seq: u64) -> Self {
        Self {
            seq,
            attempts: 0,
            due: WallTime(0),
            error: String::new(),
        }
    }
}

/// A message that was given up on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    /// The event's identity.
    pub id: String,
    /// For whom.
    pub endpoint: String,
    /// What it was about.
    pub kind: String,
    /// When it was given up on.
    pub wall: WallTime,
    /// How often it was tried.
    pub attempts: u32,
    /// Why the last attempt failed.
    pub error: String,
    /// What was to be sent.
    pub body: String,
}

impl SightDb {
    /// Where a reader stands; one that is new begins at `seq`.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn cursor(&self, name: String, seq: u64) -> Result<Cursor, SightError> {
        self.write(move |connection| {
            if let Some(found) = find(connection, &name)? {
                return Ok(found);
            }
            let new = Cursor::at(seq);
            put(connection, &name, &new)?;
            Ok(new)
        })
        .await
    }

    /// Notes where a reader stands, with what it gave up on, if anything.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn move_cursor(
        &self,
        name: String,
        cursor: Cursor,
        dead: Option<DeadLetter>,
    ) -> Result<(), SightError> {
        self.write(move |connection| {
            if let Some(dead) = &dead {
                bury(connection, dead)?;
            }
            put(connection, &name, &cursor)
        })
        .await
    }

    /// What was given up on, newest first, at most `limit`.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn dead_letters(&self, limit: u32) -> Result<Vec<DeadLetter>, SightError> {
        self.read(move |connection| {
            let mut select = connection.prepare_cached(
                "select id, endpoint, type, wall, attempts, error, body from dead_letter
                 order by wall desc, endpoint, id limit ?1",
            )?;
            select.query_map([limit], letter)?.collect()
        })
        .await
    }

    /// The dead letters of one event: at most one for each endpoint.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn dead_letters_of(&self, id: String) -> Result<Vec<DeadLetter>, SightError> {
        self.read(move |connection| {
            let mut select = connection.prepare_cached(
                "select id, endpoint, type, wall, attempts, error, body from dead_letter
                 where id = ?1 order by endpoint",
            )?;
            select.query_map([id], letter)?.collect()
        })
        .await
    }

    /// Forgets a dead letter that was taken after all.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn forget_dead_letter(&self, id: String, endpoint: String) -> Result<(), SightError> {
        self.write(move |connection| {
            connection
                .prepare_cached("delete from dead_letter where id = ?1 and endpoint = ?2")?
                .execute([id, endpoint])?;
            Ok(())
        })
        .await
    }

    /// Notes one more attempt that failed. A letter that is gone by now stays gone.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn note_failed_again(
        &self,
        id: String,
        endpoint: String,
        error: String,
    ) -> Result<(), SightError> {
        self.write(move |connection| {
            connection
                .prepare_cached(
                    "update dead_letter set attempts = attempts + 1, error = ?3 where id = ?1 and endpoint = ?2",
                )?
                .execute([id, endpoint, error])?;
            Ok(())
        })
        .await
    }

    /// How many messages for an endpoint were given up on and are still kept.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn dead_letter_count(&self, endpoint: String) -> Result<u32, SightError> {
        self.read(move |connection| {
            connection
                .prepare_cached("select count(*) from dead_letter where endpoint = ?1")?
                .query_row([endpoint], |row| row.get(0))
        })
        .await
    }
}

fn letter(row: &Row<'_>) -> rusqlite::Result<DeadLetter> {
    Ok(DeadLetter {
        id: row.get(0)?,
        endpoint: row.get(1)?,
        kind: row.get(2)?,
        wall: WallTime(unsigned(row.get(3)?)),
        attempts: row.get(4)?,
        error: row.get(5)?,
        body: row.get(6)?,
    })
}

fn find(connection: &Connection, name: &str) -> rusqlite::Result<Option<Cursor>> {
    connection
        .prepare_cached("select seq, attempts, due, error from cursor where name = ?1")?
        .query_row([name], |row| {
            Ok(Cursor {
                seq: unsigned(row.get(0)?),
                attempts: row.get(1)?,
                due: WallTime(unsigned(row.get(2)?)),
                error: row.get(3)?,
            })
        })
        .optional()
}

fn put(connection: &Connection, name: &str, cursor: &Cursor) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "insert or replace into cursor (name, seq, attempts, due, error) values (?1, ?2, ?3, ?4, ?5)",
        )?
        .execute(params![
            name,
            signed(cursor.seq),
            cursor.attempts,
            signed(cursor.due.0),
            cursor.error
        ])?;
    Ok(())
}

fn bury(connection: &Connection, dead: &DeadLetter) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "insert or replace into dead_letter (id, endpoint, type, wall, attempts, error, body)
             values (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        )?
        .execute(params![
            dead.id,
            dead.endpoint,
            dead.kind,
            signed(dead.wall.0),
            dead.attempts,
            dead.error,
            dead.body
        ])?;
    connection
        .prepare_cached(
            "delete from dead_letter where endpoint = ?1 and id not in
                 (select id from dead_letter where endpoint = ?1 order by wall desc limit ?2)",
        )?
        .execute(params![dead.endpoint, DEAD_LETTERS_MAX])?;
    Ok(())
}
