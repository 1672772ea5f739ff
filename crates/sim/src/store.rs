//! The server's disk: the store's contract (fenced, gapless, a batch wholly or not at all) over bytes that a crash
//! tears where it likes.

use std::collections::BTreeMap;

use hotswap_core::apply::apply;
use hotswap_core::event::Logged;
use hotswap_core::ids::DeploymentId;
use hotswap_core::mutants::{Mutant, is_on};
use hotswap_core::state::State;
use serde::{Deserialize, Serialize};

/// Before each frame: its length and its checksum.
const HEADER: usize = 4 + 8;

/// The first answer to a command, kept with what the command did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// The deployment that it made or concerns.
    pub deployment: Option<DeploymentId>,
    /// Why it was refused, if it was.
    pub refused: Option<String>,
}

/// What becomes durable together.
#[derive(Clone, Debug, Default)]
pub struct Draft {
    /// Its events.
    pub events: Vec<Logged>,
    /// First answers, by key.
    pub answers: Vec<(u64, Answer)>,
    /// The events, encoded.
    bytes: Vec<u8>,
}

/// The end of a batch: what the log's head says after it.
#[derive(Serialize, Deserialize)]
struct Head {
    epoch: u64,
    next_seq: u64,
    answers: Vec<(u64, Answer)>,
}

/// Why a batch didn't become durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refused {
    /// Another writer leads.
    Fenced,
    /// There is no room; nothing was changed.
    Full,
    /// The numbers don't go on from the log's.
    Gap(String),
}

/// What a start finds.
#[derive(Debug)]
pub struct Recovered {
    /// The fold of the log.
    pub state: State,
    /// The epoch that the new leader writes under.
    pub epoch: u64,
    /// Whether half a batch was thrown away.
    pub torn: bool,
    /// Whether it was folded from a snapshot.
    pub from_snapshot: bool,
}

/// A disk with a log on it.
#[derive(Debug)]
pub struct Store {
    disk: Vec<u8>,
    /// Bytes of whole batches.
    good: usize,
    epoch: u64,
    next_seq: u64,
    answers: BTreeMap<u64, Answer>,
    /// A State as it was kept, encoded, with the length of the log that it stands for.
    snapshot: Option<(usize, Vec<u8>)>,
    /// Whether there is no room.
    pub full: bool,
}

impl Default for Store {
    fn default() -> Self {
        Self {
            disk: Vec::new(),
            good: 0,
            epoch: 0,
            next_seq: 1,
            answers: BTreeMap::new(),
            snapshot: None,
            full: false,
        }
    }
}

impl Draft {
    /// Adds an event.
    pub fn push(&mut self, logged: Logged) {
        frame(&mut self.bytes, b'e', &logged);
        self.events.push(logged);
    }

    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.events.is_empty() && self.answers.is_empty()
    }
}

impl Store {
    /// The number that the next event gets.
    pub fn next_seq(&self) -> u64 {
        self.next_seq
    }

    /// The epoch that appends are fenced by.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The first answer under a key.
    pub fn answer(&self, key: u64) -> Option<&Answer> {
        self.answers.get(&key)
    }

    /// Makes a batch of the leader of `epoch` durable; afterwards the head carries `epoch_after`.
    ///
    /// # Errors
    /// As the contract says; nothing was changed then.
    pub fn commit(&mut self, draft: &Draft, epoch: u64, epoch_after: u64) -> Result<(), Refused> {
        if self.epoch != epoch && !is_on(Mutant::LostFence) {
            return Err(Refused::Fenced);
        }
        if self.full {
            return Err(Refused::Full);
        }
        for (expected, logged) in (self.next_seq..).zip(&draft.events) {
            if logged.seq != expected {
                return Err(Refused::Gap(format!(
                    "event {} comes where {expected} is due",
                    logged.seq
                )));
            }
        }
        self.disk.truncate(self.good);
        self.disk.extend_from_slice(&draft.bytes);
        self.next_seq += draft.events.len() as u64;
        self.epoch = epoch_after;
        self.end_batch(draft.answers.clone());
        Ok(())
    }

    fn end_batch(&mut self, answers: Vec<(u64, Answer)>) {
        let head = Head {
            epoch: self.epoch,
            next_seq: self.next_seq,
            answers,
        };
        frame(&mut self.disk, b'h', &head);
        self.good = self.disk.len();
        self.answers.extend(head.answers);
    }

    /// The power fails while a batch is written: a part of its bytes is there.
    pub fn tear(&mut self, draft: &Draft, thousandths: u64) {
        self.disk.truncate(self.good);
        let part = draft.bytes.len() as u64 * thousandths / 1_000;
        let part = usize::try_from(part).expect("a part of a batch fits");
        self.disk.extend_from_slice(&draft.bytes[..part]);
    }

    /// How much of the log there is: a backup taken now.
    pub fn backup(&self) -> usize {
        self.good
    }

    /// Puts a backup back.
    ///
    /// # Errors
    /// The bytes don't read back.
    pub fn restore(&mut self, backup: usize) -> Result<(), String> {
        self.disk.truncate(backup);
        if self.snapshot.as_ref().is_some_and(|(len, _)| *len > backup) {
            self.snapshot = None;
        }
        self.full = false;
        self.reread()
    }

    /// Keeps a snapshot of what is durable.
    pub fn keep_snapshot(&mut self, state: &State) {
        let bytes = serde_json::to_vec(state).expect("a State is plain data");
        self.snapshot = Some((self.good, bytes));
    }

    /// Takes the lead, so that nobody else appends, and folds what is durable; from the snapshot, if asked. The new epoch
    /// exceeds the one before by `step`.
    ///
    /// # Errors
    /// The bytes don't read back.
    pub fn lead(&mut self, use_snapshot: bool, step: u64) -> Result<Recovered, String> {
        let torn = self.disk.len() > self.good;
        self.reread()?;
        self.epoch += step;
        self.end_batch(Vec::new());
        let snapshot = self.snapshot.as_ref().filter(|_| use_snapshot);
        let (state, from_snapshot) = match snapshot {
            Some((len, bytes)) => {
                let mut state = serde_json::from_slice(bytes)
                    .map_err(|error| format!("a snapshot does not read back: {error}"))?;
                fold(&mut state, &self.disk[*len..])?;
                (state, true)
            }
            None => (self.fold()?, false),
        };
        Ok(Recovered {
            state,
            epoch: self.epoch,
            torn,
            from_snapshot,
        })
    }

    /// The fold of everything durable.
    ///
    /// # Errors
    /// The bytes don't read back.
    pub fn fold(&self) -> Result<State, String> {
        let mut state = State::default();
        fold(&mut state, &self.disk[..self.good])?;
        Ok(state)
    }

    /// Every durable event, in order.
    ///
    /// # Errors
    /// The bytes don't read back.
    pub fn events(&self) -> Result<Vec<Logged>, String> {
        let mut events = Vec::new();
        for (kind, payload) in frames(&self.disk[..self.good]) {
            if kind == b'e' {
                events.push(decode(payload)?);
            }
        }
        Ok(events)
    }

    /// Reads the head anew, and throws away what comes after the last whole batch.
    fn reread(&mut self) -> Result<(), String> {
        let (mut good, mut at) = (0, 0);
        let mut head = Head {
            epoch: 0,
            next_seq: 1,
            answers: Vec::new(),
        };
        let mut answers = BTreeMap::new();
        for (kind, payload) in frames(&self.disk) {
            at += HEADER + 1 + payload.len();
            if kind == b'h' {
                head = serde_json::from_slice(payload)
                    .map_err(|error| format!("a batch's end does not read back: {error}"))?;
                answers.extend(head.answers.iter().cloned());
                good = at;
            }
        }
        self.disk.truncate(good);
        (self.good, self.epoch, self.next_seq, self.answers) = (good, head.epoch, head.next_seq, answers);
        Ok(())
    }
}

fn decode(payload: &[u8]) -> Result<Logged, String> {
    serde_json::from_slice(payload).map_err(|error| format!("an event does not read back: {error}"))
}

fn fold(state: &mut State, bytes: &[u8]) -> Result<(), String> {
    for (kind, payload) in frames(bytes) {
        if kind == b'e' {
            apply(state, &decode(payload)?);
        }
    }
    Ok(())
}

/// Writes a frame: length, checksum, kind, JSON.
pub(crate) fn frame(to: &mut Vec<u8>, kind: u8, what: &impl Serialize) {
    let start = to.len();
    to.extend_from_slice(&[0; HEADER]);
    to.push(kind);
    serde_json::to_writer(&mut *to, what).expect("it is plain data");
    let payload = &to[start + HEADER..];
    let (len, sum) = (
        u32::try_from(payload.len()).expect("a frame is small"),
        checksum(payload),
    );
    to[start..start + 4].copy_from_slice(&len.to_le_bytes());
    to[start + 4..start + HEADER].copy_from_slice(&sum.to_le_bytes());
}

/// The whole frames at the beginning of these bytes, up to the first that is not.
pub(crate) fn frames(mut bytes: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    std::iter::from_fn(move || {
        let len = u32::from_le_bytes(bytes.get(..4)?.try_into().ok()?) as usize;
        let sum = u64::from_le_bytes(bytes.get(4..HEADER)?.try_into().ok()?);
        let payload = bytes.get(HEADER..HEADER + len)?;
        if checksum(payload) != sum {
            return None;
        }
        bytes = &bytes[HEADER + len..];
        payload.split_first().map(|(kind, rest)| (*kind, rest))
    })
}

/// Eight bytes at a time, in the manner of FNV-1a: enough to tell a torn write.
fn checksum(bytes: &[u8]) -> u64 {
    let mut sum = 0xcbf2_9ce4_8422_2325_u64 ^ bytes.len() as u64;
    for chunk in bytes.chunks(8) {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        sum = (sum ^ u64::from_le_bytes(word))
            .wrapping_mul(0x0000_0100_0000_01b3)
            .rotate_left(23);
    }
    sum
}
