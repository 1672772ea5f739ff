//! Deployments' spans on their way to the receiver.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use hotswap_core::ids::DeploymentId;
use hotswap_core::time::Millis;
use hotswap_telemetry::otlp::{Exporter, Span};
use tokio_util::sync::CancellationToken;

use super::cursor::Cursor;
use super::db::SightDb;
use super::follow::Follower;
use super::spans::{ends_some, spans};
use crate::clock::wall_now;
use crate::driver::World;
use crate::store::{EVENTS_READ_MAX, Entry, Store, StoreError};

/// How far the log was told to the receiver.
const CURSOR: &str = "traces";
/// What happened longer ago is not told: the export was off, or its receiver away.
const AGE_MAX: Millis = Millis::from_secs(24 * 3_600);
/// Spans of one request.
const BATCH_MAX: usize = 512;
/// First and longest pause before a batch is sent again.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// Follows the log and sends the spans that its events end.
pub(crate) struct Tracer {
    pub(crate) exporter: Exporter,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) db: SightDb,
    pub(crate) world: Arc<World>,
}

impl Tracer {
    /// Sends until the server ends. Each span is sent once, but where the process ends between a receiver's yes and
    /// the note of it.
    pub(crate) async fn run(self, shutdown: CancellationToken) {
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = self.work(&shutdown) => {}
        }
    }

    async fn work(&self, shutdown: &CancellationToken) {
        let now = self.world.state().seq;
        let begun = self.db.cursor(CURSOR.to_owned(), now).await;
        let mut at = match begun {
            Ok(cursor) => cursor.seq,
            Err(error) => {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "where traces ended can't be read; going on from now"
                );
                now
            }
        };
        let mut entries = Follower::after(at, &self.store, &self.world, shutdown);
        while let Some(next) = entries.next().await {
            let Some(last) = next.last().map(|entry| entry.logged.seq) else {
                continue;
            };
            let spans = self.ended(&next, at, last).await;
            self.send(spans).await;
            at = last;
            if let Err(error) = self.db.move_cursor(CURSOR.to_owned(), Cursor::at(at), None).await {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "how far traces are can't be noted"
                );
            }
        }
    }

    /// The spans that ended after `from` and up to `to`.
    async fn ended(&self, entries: &[Entry], from: u64, to: u64) -> Vec<Span> {
        let recent = wall_now() - AGE_MAX;
        let deployments: BTreeSet<DeploymentId> = entries
            .iter()
            .filter(|entry| entry.logged.wall > recent && ends_some(&entry.logged.event))
            .filter_map(|entry| entry.deployment)
            .collect();
        let mut all = Vec::new();
        for id in deployments {
            match self.of_deployment(id).await {
                Ok(ended) => {
                    let new = ended
                        .into_iter()
                        .filter(|ended| (from + 1..=to).contains(&ended.seq));
                    all.extend(new.map(|ended| ended.span));
                }
                Err(error) => {
                    tracing::warn!(deployment = %id, error = &error as &dyn std::error::Error, "a deployment's trace can't be made");
                }
            }
        }
        all
    }

    async fn of_deployment(&self, id: DeploymentId) -> Result<Vec<super::spans::Ended>, StoreError> {
        let Some(deployment) = self.store.deployment(id).await? else {
            return Ok(Vec::new());
        };
        let (mut events, mut after) = (Vec::new(), 0);
        loop {
            let more = self.store.events_of(id, after).await?;
            let whole = more.len() < EVENTS_READ_MAX;
            after = more.last().map_or(after, |last| last.seq);
            events.extend(more);
            if whole {
                return Ok(spans(&deployment, &events));
            }
        }
    }

    /// Sends until they are taken.
    async fn send(&self, mut spans: Vec<Span>) {
        let mut pause = PAUSES.0;
        while !spans.is_empty() {
            let batch: Vec<Span> = spans.iter().take(BATCH_MAX).cloned().collect();
            let count = batch.len();
            match self.exporter.export(batch).await {
                Ok(()) => {
                    spans.drain(..count);
                    pause = PAUSES.0;
                }
                Err(error) => {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        ?pause,
                        "traces were not taken; they are sent again"
                    );
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(PAUSES.1);
                }
            }
        }
    }
}
