//! Whether the log still says what was written.

use std::path::Path;

use hotswap_core::time::WallTime;
use ring::signature::{ED25519, UnparsedPublicKey};
use rusqlite::{Connection, OpenFlags, OptionalExtension as _, params};
use sha2::{Digest as _, Sha256};

use super::entry::read_record;
use super::{GENESIS, hash_of};
use crate::access::SigningKey;

/// Most faults that are named; where there are more, the log is no longer one.
pub const FAULTS_MAX: usize = 100;

/// Something that was changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Which entry, if one.
    pub seq: Option<u64>,
    /// What is wrong with it.
    pub what: String,
}

/// What a verification came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Entries looked at.
    pub entries: u64,
    /// Events of the log that were compared with their entries.
    pub events: u64,
    /// Signed heads that were compared.
    pub heads: u64,
    /// The last entry's hash, in hexadecimal digits.
    pub head: String,
    /// When the last entry was written.
    pub last: Option<WallTime>,
    /// What was changed. Empty: nothing was.
    pub faults: Vec<Fault>,
}

impl Report {
    fn fault(&mut self, seq: impl Into<Option<u64>>, what: impl Into<String>) {
        if self.faults.len() < FAULTS_MAX {
            self.faults.push(Fault {
                seq: seq.into(),
                what: what.into(),
            });
        }
    }
}

/// The digest of an event's row: all that the log says of it.
pub fn event_digest(
    seq: i64,
    epoch: i64,
    at: i64,
    wall: i64,
    deployment: Option<&str>,
    body: &[u8],
) -> [u8; 32] {
    let mut hasher = Sha256::new();
    for number in [seq, epoch, at, wall] {
        hasher.update(number.to_le_bytes());
    }
    let deployment = deployment.unwrap_or_default();
    hasher.update((deployment.len() as u64).to_le_bytes());
    hasher.update(deployment);
    hasher.update(body);
    hasher.finalize().into()
}

/// Verifies the log of a database file, with the server running or not.
///
/// # Errors
/// The file can't be read as a database at all.
pub fn verify_file(path: &Path) -> rusqlite::Result<Report> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(path, flags)?;
    // One view of everything, whatever the server writes meanwhile.
    let view = connection.transaction()?;
    verify(&view)
}

/// Verifies the whole log: the chain, the events that it covers, and its signed heads.
///
/// # Errors
/// The database can't be read.
pub fn verify(connection: &Connection) -> rusqlite::Result<Report> {
    let mut report = Report::default();
    let mut covered = Covered::default();
    let mut heads = Heads::read(connection)?;
    let mut rows =
        connection.prepare("select seq, cast(record as blob), cast(hash as blob) from audit order by seq")?;
    let mut event = connection
        .prepare("select epoch, at, wall, cast(deployment as blob), cast(body as blob), cast(type as blob) from event where seq = ?1")?;
    let first_event: Option<i64> =
        connection.query_row("select min(seq) from event", [], |row| row.get(0))?;
    // After a fault the chain may go on from what is stored, or from what should be.
    let mut former = vec![GENESIS];
    let mut rows = rows.query([])?;
    while let Some(row) = rows.next()? {
        let seq = u64::try_from(row.get::<_, i64>(0)?).unwrap_or(0);
        let (record, stored): (Vec<u8>, Vec<u8>) = (row.get(1)?, row.get(2)?);
        report.entries += 1;
        if seq != report.entries {
            report.fault(seq, format!("entry {} is missing", report.entries));
            report.entries = seq;
        }
        let computed: Vec<[u8; 32]> = former.iter().map(|former| hash_of(former, &record)).collect();
        let stored: Option<[u8; 32]> = stored.try_into().ok();
        former = match stored {
            Some(stored) if computed.contains(&stored) => vec![stored],
            stored => {
                report.fault(
                    seq,
                    "it is not what was written: its hash is not that of its text and the entry before",
                );
                stored.into_iter().chain(computed).collect()
            }
        };
        heads.compare(seq, &former, &mut report);
        let Some((said, entry)) = read_record(&record) else {
            report.fault(seq, "its text can't be read");
            continue;
        };
        if said != seq {
            report.fault(seq, format!("its text is that of entry {said}"));
        }
        report.last = Some(entry.at);
        if let (Some(number), Some(digest)) = (entry.event, &entry.digest) {
            covered.next(number, seq, &mut report);
            let compacted = first_event.is_none_or(|first| number < u64::try_from(first).unwrap_or(0));
            let found = event_row(&mut event, number, &entry.action)?;
            match found {
                Some(found) if found == *digest => report.events += 1,
                Some(_) => report.fault(seq, format!("event {number} of the log is not what was written")),
                None if compacted => {}
                None => report.fault(seq, format!("event {number} is missing from the log")),
            }
        }
    }
    covered.end(connection, &mut report)?;
    heads.rest(&mut report);
    report.head = former
        .first()
        .map(|hash| hotswap_core::ids::Digest(*hash).hex())
        .unwrap_or_default();
    Ok(report)
}

/// The digest of an event's row as it is now; its type's column must be that of its entry.
fn event_row(
    event: &mut rusqlite::Statement<'_>,
    number: u64,
    action: &str,
) -> rusqlite::Result<Option<String>> {
    let seq = i64::try_from(number).unwrap_or(i64::MAX);
    event
        .query_row(params![seq], |row| {
            let (epoch, at, wall) = (row.get(0)?, row.get(1)?, row.get(2)?);
            let (deployment, body): (Option<Vec<u8>>, Vec<u8>) = (row.get(3)?, row.get(4)?);
            let kind: Vec<u8> = row.get(5)?;
            let deployment = deployment.map(|text| String::from_utf8_lossy(&text).into_owned());
            let digest = event_digest(seq, epoch, at, wall, deployment.as_deref(), &body);
            let right = kind == action.as_bytes();
            Ok(if right {
                hotswap_core::ids::Digest(digest).hex()
            } else {
                String::new()
            })
        })
        .optional()
}

/// Every event from the first one covered on has one entry.
#[derive(Default)]
struct Covered {
    last: Option<u64>,
}

impl Covered {
    fn next(&mut self, number: u64, seq: u64, report: &mut Report) {
        if let Some(last) = self.last
            && number != last + 1
        {
            report.fault(seq, format!("after event {last} it tells of event {number}"));
        }
        self.last = Some(number);
    }

    fn end(&self, connection: &Connection, report: &mut Report) -> rusqlite::Result<()> {
        let next: i64 = connection.query_row("select next_seq from log_head", [], |row| row.get(0))?;
        let next = u64::try_from(next).unwrap_or(0);
        if let Some(last) = self.last
            && last + 1 != next
        {
            report.fault(
                None,
                format!(
                    "the log goes to event {}, and the entries to event {last}: the end was cut off",
                    next - 1
                ),
            );
        }
        Ok(())
    }
}

struct SignedHead {
    seq: u64,
    hash: Vec<u8>,
    kid: String,
    signature: Vec<u8>,
}

/// The heads that are still to come.
struct Heads {
    heads: std::iter::Peekable<std::vec::IntoIter<SignedHead>>,
    keys: Vec<(String, Vec<u8>)>,
}

impl Heads {
    fn read(connection: &Connection) -> rusqlite::Result<Self> {
        let mut select = connection
            .prepare("select seq, cast(hash as blob), cast(kid as blob), cast(signature as blob) from audit_head order by seq")?;
        let heads = select.query_map([], |row| {
            Ok(SignedHead {
                seq: u64::try_from(row.get::<_, i64>(0)?).unwrap_or(0),
                hash: row.get(1)?,
                kid: String::from_utf8_lossy(&row.get::<_, Vec<u8>>(2)?).into_owned(),
                signature: row.get(3)?,
            })
        })?;
        let heads: Vec<SignedHead> = heads.collect::<Result<_, _>>()?;
        let mut select = connection.prepare("select cast(record as blob) from signing_key")?;
        let records = select.query_map([], |row| row.get::<_, Vec<u8>>(0))?;
        let mut keys = Vec::new();
        for record in records {
            let key: Option<SigningKey> = serde_json::from_slice(&record?).ok();
            keys.extend(key.and_then(|key| Some((key.kid.clone(), key.public()?))));
        }
        Ok(Self {
            heads: heads.into_iter().peekable(),
            keys,
        })
    }

    fn compare(&mut self, seq: u64, hashes: &[[u8; 32]], report: &mut Report) {
        let Some(head) = self.heads.next_if(|head| head.seq == seq) else {
            return;
        };
        report.heads += 1;
        if !hashes.iter().any(|hash| hash.as_slice() == head.hash) {
            report.fault(seq, "the signed head says another hash");
        }
        let Some((_, public)) = self.keys.iter().find(|(kid, _)| *kid == head.kid) else {
            return report.fault(seq, "the signed head names a key that this server never had");
        };
        let message = head_message(head.seq, &head.hash);
        if UnparsedPublicKey::new(&ED25519, public)
            .verify(&message, &head.signature)
            .is_err()
        {
            report.fault(seq, "the head's signature is not by the server's key");
        }
    }

    fn rest(self, report: &mut Report) {
        for head in self.heads {
            report.fault(
                head.seq,
                "a signed head names it, and it is not there: the end was cut off",
            );
        }
    }
}

/// What the signature of a head is over.
pub(crate) fn head_message(seq: u64, hash: &[u8]) -> Vec<u8> {
    let mut message = b"hotswap audit head\0".to_vec();
    message.extend_from_slice(&seq.to_le_bytes());
    message.extend_from_slice(hash);
    message
}
