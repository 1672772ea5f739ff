//! One endpoint's way through the log.

use std::collections::{BTreeMap, btree_map};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use hotswap_core::causes::with_causes;
use hotswap_core::ids::DeploymentId;
use hotswap_core::stage::Deployment;
use hotswap_core::time::{Millis, WallTime};
use http::{Request, StatusCode, header};
use http_body_util::Full;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use super::{Format, Message, NotifierParts, SIGNATURE_HEADER, TIMESTAMP_HEADER, Webhook, message, sign};
use crate::clock::{millis, wall_now};
use crate::driver::World;
use crate::sight::{Cursor, DeadLetter, Follower, SightDb, SightError};
use crate::store::{Entry, Store};

/// Carries the event's identity.
const ID_HEADER: &str = "hotswap-event-id";
/// How long an endpoint may take to answer.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(10);
/// Longest reason kept of a failure, in characters.
const ERROR_LEN_MAX: usize = 300;
/// How long to rest after the cursor could not be read or written.
const STORE_PAUSE: Duration = Duration::from_secs(1);

/// How failures are tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pauses {
    /// The pause after the first failure; each next one is twice as long.
    pub first: Duration,
    /// The longest pause.
    pub longest: Duration,
    /// After so many attempts an event is a dead letter.
    pub attempts_max: u32,
}

impl Default for Pauses {
    /// From 1 s to 10 min: 16 attempts over about an hour and a quarter.
    fn default() -> Self {
        Self {
            first: Duration::from_secs(1),
            longest: Duration::from_secs(600),
            attempts_max: 16,
        }
    }
}

impl Pauses {
    /// The pause after so many failures.
    fn after(self, attempts: u32) -> Duration {
        let doublings = attempts.saturating_sub(1).min(20);
        self.first.saturating_mul(1 << doublings).min(self.longest)
    }
}

/// How an endpoint fares.
#[derive(Debug)]
pub struct Standing {
    /// Its name.
    pub name: String,
    /// How it is told.
    pub format: Format,
    delivered: AtomicU64,
    failed: AtomicU64,
    dead: AtomicU64,
    at: Mutex<Cursor>,
}

impl Standing {
    pub(super) fn new(name: String, format: Format) -> Self {
        Self {
            name,
            format,
            delivered: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            dead: AtomicU64::new(0),
            at: Mutex::new(Cursor::at(0)),
        }
    }

    /// Messages that were taken, attempts that failed, and dead letters, since the process started.
    pub fn counts(&self) -> [u64; 3] {
        [&self.delivered, &self.failed, &self.dead].map(|count| count.load(Ordering::Relaxed))
    }

    /// Where it stands.
    pub fn cursor(&self) -> Cursor {
        self.at.lock().clone()
    }
}

/// One endpoint at work.
pub(super) struct Endpoint {
    webhook: Webhook,
    pauses: Pauses,
    store: Arc<dyn Store>,
    db: SightDb,
    world: Arc<World>,
    standing: Arc<Standing>,
    sender: Sender,
}

impl Endpoint {
    pub(super) fn new(webhook: Webhook, pauses: Pauses, parts: &NotifierParts) -> Self {
        Self {
            sender: Sender::new(&webhook),
            standing: Arc::new(Standing::new(webhook.name(), webhook.format)),
            webhook,
            pauses,
            store: Arc::clone(&parts.store),
            db: parts.db.clone(),
            world: Arc::clone(&parts.world),
        }
    }

    /// Tells what is to be told until the server ends.
    pub(super) async fn run(self: Arc<Self>, shutdown: CancellationToken) {
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = self.work(&shutdown) => {}
        }
    }

    async fn work(&self, shutdown: &CancellationToken) {
        let mut cursor = self.begin().await;
        let mut entries = Follower::after(cursor.seq, &self.store, &self.world, shutdown);
        while let Some(next) = entries.next().await {
            let mut records = BTreeMap::new();
            for entry in &next {
                if let Some(message) = self.message(entry, &mut records).await {
                    cursor = self.tell(entry.logged.seq, &message, cursor).await;
                } else {
                    cursor.seq = entry.logged.seq;
                }
            }
            self.note(&cursor, None).await;
        }
    }

    /// Where it left off; a new endpoint is told what happens from now on.
    async fn begin(&self) -> Cursor {
        let now = self.world.state().seq;
        loop {
            match self.db.cursor(self.cursor_name(), now).await {
                Ok(cursor) => {
                    *self.standing.at.lock() = cursor.clone();
                    return cursor;
                }
                Err(error) => {
                    tracing::warn!(
                        endpoint = self.standing.name,
                        error = &error as &dyn std::error::Error,
                        "where the endpoint stands can't be read"
                    );
                    tokio::time::sleep(STORE_PAUSE).await;
                }
            }
        }
    }

    fn cursor_name(&self) -> String {
        format!("webhook {}", self.standing.name)
    }

    /// What is told about an entry, if anything is.
    async fn message(
        &self,
        entry: &Entry,
        records: &mut BTreeMap<DeploymentId, Deployment>,
    ) -> Option<Message> {
        message::kind(&entry.logged.event)?;
        let id = entry.deployment?;
        if let btree_map::Entry::Vacant(unknown) = records.entry(id) {
            let record = loop {
                match self.store.deployment(id).await {
                    Ok(record) => break record?,
                    Err(error) => {
                        tracing::warn!(
                            error = &error as &dyn std::error::Error,
                            "a deployment can't be read; trying again"
                        );
                        tokio::time::sleep(STORE_PAUSE).await;
                    }
                }
            };
            unknown.insert(record);
        }
        let fleet = self.world.state().fleet?;
        Message::of(fleet, &entry.logged, records.get(&id)?)
    }

    /// Sends until it is taken or given up; returns where the endpoint stands then.
    async fn tell(&self, seq: u64, message: &Message, mut cursor: Cursor) -> Cursor {
        let body = message.body(self.webhook.format);
        loop {
            let wait = cursor.due.since(wall_now()).0.min(millis(self.pauses.longest).0);
            tokio::time::sleep(Duration::from_millis(wait)).await;
            let Err(error) = self.send(&message.id, body.clone()).await else {
                self.standing.delivered.fetch_add(1, Ordering::Relaxed);
                cursor = Cursor::at(seq);
                self.note(&cursor, None).await;
                return cursor;
            };
            self.standing.failed.fetch_add(1, Ordering::Relaxed);
            cursor.attempts += 1;
            if cursor.attempts >= self.pauses.attempts_max {
                tracing::error!(
                    endpoint = self.standing.name,
                    id = message.id,
                    attempts = cursor.attempts,
                    error,
                    trace_id = message.trace_id,
                    "a message is given up; see the dead letters"
                );
                self.standing.dead.fetch_add(1, Ordering::Relaxed);
                let dead = DeadLetter {
                    id: message.id.clone(),
                    endpoint: self.standing.name.clone(),
                    kind: message.kind.to_owned(),
                    wall: wall_now(),
                    attempts: cursor.attempts,
                    error,
                    body,
                };
                cursor = Cursor::at(seq);
                self.note(&cursor, Some(dead)).await;
                return cursor;
            }
            let pause = self.pauses.after(cursor.attempts);
            tracing::warn!(
                endpoint = self.standing.name,
                id = message.id,
                attempts = cursor.attempts,
                ?pause,
                error,
                "a message was not taken; it is sent again"
            );
            cursor.due = WallTime(wall_now().0) + Millis(millis(pause).0);
            cursor.error = error;
            self.note(&cursor, None).await;
        }
    }

    async fn send(&self, id: &str, body: String) -> Result<(), String> {
        let timestamp = wall_now().0 / 1_000;
        let mut request = Request::post(&self.webhook.url)
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::USER_AGENT, concat!("hotswap/", env!("CARGO_PKG_VERSION")))
            .header(ID_HEADER, id)
            .header(TIMESTAMP_HEADER, timestamp);
        if let Some(secret) = &self.webhook.secret {
            request = request.header(SIGNATURE_HEADER, sign(secret, timestamp, &body));
        }
        let request = request
            .body(Full::from(body))
            .map_err(|error| error.to_string())?;
        let answer = tokio::time::timeout(ANSWER_TIME_MAX, self.sender.send(request)).await;
        // A redirect is not followed: it would carry what is signed to somebody who was not named.
        match answer {
            Ok(Ok(status)) if status.is_success() => Ok(()),
            Ok(Ok(status)) => Err(format!("answered {status}")),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(format!("no answer within {ANSWER_TIME_MAX:?}")),
        }
    }

    /// How it fares.
    pub(super) fn standing(&self) -> &Arc<Standing> {
        &self.standing
    }

    /// Sends a dead letter once more, beside what is told in the log's order, and forgets it where it is taken.
    pub(super) async fn resend(&self, dead: DeadLetter) -> Result<Result<(), String>, SightError> {
        let DeadLetter {
            id, endpoint, body, ..
        } = dead;
        let sent = self.send(&id, body).await;
        match &sent {
            Ok(()) => {
                self.standing.delivered.fetch_add(1, Ordering::Relaxed);
                self.db.forget_dead_letter(id, endpoint).await?;
            }
            Err(error) => {
                self.standing.failed.fetch_add(1, Ordering::Relaxed);
                self.db.note_failed_again(id, endpoint, error.clone()).await?;
            }
        }
        Ok(sent)
    }

    /// Makes it durable where the endpoint stands. Where that fails, a restart tells some of it again.
    async fn note(&self, cursor: &Cursor, dead: Option<DeadLetter>) {
        *self.standing.at.lock() = cursor.clone();
        if let Err(error) = self
            .db
            .move_cursor(self.cursor_name(), cursor.clone(), dead)
            .await
        {
            tracing::warn!(
                endpoint = self.standing.name,
                error = &error as &dyn std::error::Error,
                "where the endpoint stands can't be noted"
            );
        }
    }
}

/// What requests go out by.
enum Sender {
    Plain(Client<HttpConnector, Full<Bytes>>),
    Tls(Client<HttpsConnector<HttpConnector>, Full<Bytes>>),
    /// This machine knows no certificates to check others' by.
    Never(String),
}

impl Sender {
    fn new(webhook: &Webhook) -> Self {
        let builder = Client::builder(TokioExecutor::new());
        if !webhook.url.starts_with("https:") {
            return Self::Plain(builder.build_http());
        }
        match HttpsConnectorBuilder::new().with_native_roots() {
            Ok(tls) => Self::Tls(builder.build(tls.https_only().enable_http1().build())),
            Err(error) => Self::Never(format!("this machine's root certificates can't be read: {error}")),
        }
    }

    async fn send(&self, request: Request<Full<Bytes>>) -> Result<StatusCode, String> {
        let answer = match self {
            Self::Plain(client) => client.request(request).await,
            Self::Tls(client) => client.request(request).await,
            Self::Never(why) => return Err(why.clone()),
        };
        answer.map(|answer| answer.status()).map_err(|error| told(&error))
    }
}

/// An error with its causes, cut to a length that logs and tables bear.
fn told(error: &(dyn std::error::Error + 'static)) -> String {
    with_causes(error).chars().take(ERROR_LEN_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest() {
        let pauses = Pauses::default();
        let seconds = |attempts| pauses.after(attempts).as_secs();
        assert_eq!([1, 2, 5, 10, 11, 16].map(seconds), [1, 2, 16, 512, 600, 600]);
        assert_eq!(pauses.after(u32::MAX), pauses.longest);
    }
}
