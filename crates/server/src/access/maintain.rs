//! What goes on in the background: notes for the audit log, keys that rotate, sessions that end.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hotswap_core::time::WallTime;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::{Access, AccessError};
use crate::audit::{AuditEntry, AuditKind};
use crate::clock::{millis, wall_now};
use crate::store::{AccessChange, SignedHead};

/// Notes that wait to be written. Beyond it they are counted.
const NOTES_WAITING_MAX: usize = 1_024;
/// Notes of one transaction.
const NOTES_BATCH_MAX: usize = 256;
/// Denials written out a minute. Whoever sends more of them fills no disk: the rest is one entry with their number.
const NOTES_PER_MINUTE_MAX: u64 = 600;
/// The minute.
const NOTES_WINDOW: Duration = Duration::from_secs(60);
/// How often keys and sessions are looked after.
const MAINTAIN_PAUSE: Duration = Duration::from_secs(60);
/// How often the audit log's end is signed, if it moved.
const HEAD_PAUSE: Duration = Duration::from_secs(3_600);

/// Where notes are left.
#[derive(Debug)]
pub(super) struct Notes {
    sender: mpsc::Sender<AuditEntry>,
    left_out: Arc<AtomicU64>,
}

impl Notes {
    pub(super) fn new() -> (Self, mpsc::Receiver<AuditEntry>) {
        let (sender, receiver) = mpsc::channel(NOTES_WAITING_MAX);
        let left_out = Arc::default();
        (Self { sender, left_out }, receiver)
    }

    pub(super) fn send(&self, entry: AuditEntry) {
        if self.sender.try_send(entry).is_err() {
            self.left_out.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Looks after access until the shutdown; what was noted before it is written.
pub async fn maintain(
    access: Arc<Access>,
    mut noted: mpsc::Receiver<AuditEntry>,
    shutdown: CancellationToken,
) {
    let mut window = Window::new();
    let mut chores = interval(MAINTAIN_PAUSE);
    chores.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut head_at: Option<Instant> = None;
    let mut batch = Vec::new();
    loop {
        tokio::select! {
            () = shutdown.cancelled() => break,
            _ = noted.recv_many(&mut batch, NOTES_BATCH_MAX) => {
                write_notes(&access, &mut batch, &mut window).await;
            }
            _ = chores.tick() => {
                write_notes(&access, &mut batch, &mut window).await;
                report("keys and sessions", access.chores().await);
                if head_at.is_none_or(|at| at.elapsed() >= HEAD_PAUSE) {
                    head_at = Some(Instant::now());
                    report("the audit log's end", access.sign_head().await);
                }
            }
        }
    }
    noted.close();
    while let Ok(entry) = noted.try_recv() {
        batch.push(entry);
    }
    write_notes(&access, &mut batch, &mut window).await;
    report("the audit log's end", access.sign_head().await);
}

fn report(what: &str, result: Result<(), AccessError>) {
    if let Err(error) = result {
        tracing::warn!(
            what,
            error = &error as &dyn std::error::Error,
            "not looked after; tried again later"
        );
    }
}

/// How many denials were written in this minute.
struct Window {
    began: Instant,
    written: u64,
}

impl Window {
    fn new() -> Self {
        Self {
            began: Instant::now(),
            written: 0,
        }
    }

    /// How many more there may be.
    fn room(&mut self) -> u64 {
        if self.began.elapsed() >= NOTES_WINDOW {
            *self = Self::new();
        }
        NOTES_PER_MINUTE_MAX.saturating_sub(self.written)
    }
}

async fn write_notes(access: &Access, batch: &mut Vec<AuditEntry>, window: &mut Window) {
    let room = window.room();
    let kept = usize::try_from(room).unwrap_or(usize::MAX).min(batch.len());
    let surplus = (batch.len() - kept) as u64;
    let left_out = &access.notes.left_out;
    left_out.fetch_add(surplus, Ordering::Relaxed);
    batch.truncate(kept);
    window.written += kept as u64;
    let mut entries = std::mem::take(batch);
    // Told once there is room again, so that the number is whole.
    let counted = if room > 0 {
        left_out.swap(0, Ordering::Relaxed)
    } else {
        0
    };
    if counted > 0 {
        entries.push(
            AuditEntry::done(wall_now(), AuditKind::Denial, "moreDenials")
                .detail(format!("{counted} more requests were not let through")),
        );
    }
    if entries.is_empty() {
        return;
    }
    let lost = entries.len();
    if let Err(error) = access.store.change_access(Vec::new(), entries).await {
        tracing::error!(
            lost,
            error = &error as &dyn std::error::Error,
            "denials could not be written to the audit log"
        );
    }
}

impl Access {
    async fn chores(&self) -> Result<(), AccessError> {
        let now = wall_now();
        let due = |created: WallTime| created + millis(self.config.key_lifetime) <= now;
        if self.keys().first().is_some_and(|key| due(key.created)) {
            let said = AuditEntry::done(now, AuditKind::Key, "rotateKey");
            let key = self.rotate(said, None).await?;
            tracing::info!(kid = key.kid, "a new key signs tokens");
        }
        self.forget_keys(now).await?;
        self.end_expired(now).await
    }

    async fn end_expired(&self, now: WallTime) -> Result<(), AccessError> {
        let _change = self.changing.lock().await;
        let changes: Vec<AccessChange> = {
            let people = self.people.read();
            let sessions = people.sessions().filter(|session| session.expires <= now);
            let sessions = sessions.map(|session| AccessChange::EndSession(session.id));
            let tokens = people.tokens().filter(|token| token.expires <= now);
            sessions
                .chain(tokens.map(|token| AccessChange::RevokeToken(token.id)))
                .collect()
        };
        if changes.is_empty() {
            return Ok(());
        }
        self.change(changes, Vec::new()).await
    }

    /// Signs the audit log's end.
    async fn sign_head(&self) -> Result<(), AccessError> {
        let head = self.store.audit_head().await?;
        let Some(seal) = self.keys.read().seal().filter(|_| head.seq > 0) else {
            return Ok(());
        };
        let signature = seal.sign(&SignedHead::message(&head));
        let kid = seal.kid.clone();
        self.store
            .keep_audit_head(SignedHead { head, kid, signature })
            .await?;
        Ok(())
    }
}
