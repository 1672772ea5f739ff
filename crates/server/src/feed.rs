//! Live events: the committed log, as clients see it.
//!
//! Nothing is told that isn't durable, and everything in the log's order: what is told is read back from the store. One
//! reader follows the log while anybody listens and keeps the newest events at hand; whoever is further behind reads the
//! store itself. A client's place is the last number that it saw, so that it can go on where it was cut.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hotswap_core::ids::DeploymentId;
use parking_lot::RwLock;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::driver::World;
use crate::store::{FeedQuery, Store, StoreError};
use crate::views::live::{LiveEvent, live};

/// Clients that listen at once.
pub const CLIENTS_MAX: usize = 256;
/// Events that wait for one client. Beyond it the client is waited for, and then cut.
pub const CLIENT_WAITING_MAX: usize = 256;
/// How long a client is waited for that takes nothing.
const SLOW_MAX: Duration = Duration::from_secs(15);
/// Events kept at hand, and the bytes of them: whoever is further behind reads the store.
const AT_HAND_MAX: usize = 4_096;
const AT_HAND_BYTES_MAX: usize = 16 << 20;
/// Events of one read.
const PAGE: usize = 512;
/// How long reading rests where the store failed.
const FAILED_PAUSE: Duration = Duration::from_secs(1);

/// Which events a client wants; an empty field wants all.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Names of types.
    pub types: BTreeSet<String>,
    /// A module.
    pub module: Option<String>,
    /// An environment.
    pub environment: Option<String>,
    /// A node.
    pub node: Option<String>,
    /// A deployment.
    pub deployment: Option<DeploymentId>,
}

impl Filter {
    fn wants(&self, event: &LiveEvent) -> bool {
        let same = |wanted: &Option<String>, is: &Option<String>| wanted.is_none() || wanted == is;
        (self.types.is_empty() || self.types.contains(&event.kind))
            && same(&self.module, &event.module)
            && same(&self.environment, &event.environment)
            && same(&self.node, &event.node)
            && (self.deployment.is_none() || self.deployment == event.deployment)
    }
}

/// Tells committed events to whoever listens.
pub struct Feed {
    store: Arc<dyn Store>,
    world: Arc<World>,
    at_hand: RwLock<AtHand>,
    /// The newest event that may be told.
    told: watch::Sender<u64>,
    clients: Arc<Semaphore>,
    shutdown: CancellationToken,
}

#[derive(Default)]
struct AtHand {
    events: VecDeque<Arc<LiveEvent>>,
    bytes: usize,
}

impl AtHand {
    fn keep(&mut self, event: Arc<LiveEvent>) {
        self.bytes += event.json.len();
        self.events.push_back(event);
        while self.events.len() > AT_HAND_MAX || self.bytes > AT_HAND_BYTES_MAX {
            let Some(oldest) = self.events.pop_front() else {
                return;
            };
            self.bytes -= oldest.json.len();
        }
    }

    /// Those after a number, if none before them is missing.
    fn after(&self, seq: u64) -> Option<Vec<Arc<LiveEvent>>> {
        let first = self.events.front()?.seq;
        if first > seq + 1 {
            return None;
        }
        let from = self.events.partition_point(|event| event.seq <= seq);
        Some(self.events.range(from..).take(PAGE).cloned().collect())
    }
}

/// What a client listens to.
pub struct Listener {
    /// Events, in order. It ends with the server, with the log's end where it isn't followed, or where the client is cut.
    pub events: mpsc::Receiver<Arc<LiveEvent>>,
    /// Whether the client was cut for taking nothing.
    pub cut: Arc<AtomicBool>,
    _place: OwnedSemaphorePermit,
}

impl Feed {
    /// A feed of what is committed from now on, and of the log before.
    pub fn new(store: Arc<dyn Store>, world: Arc<World>, shutdown: CancellationToken) -> Self {
        let head = world.state().seq;
        Self {
            store,
            world,
            at_hand: RwLock::default(),
            told: watch::Sender::new(head),
            clients: Arc::new(Semaphore::new(CLIENTS_MAX)),
            shutdown,
        }
    }

    /// The newest event that is committed.
    pub fn head(&self) -> u64 {
        self.world.state().seq
    }

    /// Follows the log until the server ends.
    pub async fn keep(self: Arc<Self>) {
        let mut committed = self.world.subscribe();
        let mut at = self.head();
        loop {
            tokio::select! {
                () = self.shutdown.cancelled() => return,
                changed = committed.changed() => if changed.is_err() { return },
            }
            let head = *committed.borrow_and_update();
            if self.clients.available_permits() == CLIENTS_MAX {
                // Nobody listens: whoever comes next begins here, or reads the store.
                *self.at_hand.write() = AtHand::default();
                at = head;
                self.told.send_replace(head);
                continue;
            }
            while at < head {
                match self.read(at, None).await {
                    Ok(events) => {
                        at = events.last().map_or(head, |event| event.seq);
                        let mut at_hand = self.at_hand.write();
                        events.into_iter().for_each(|event| at_hand.keep(event));
                    }
                    Err(error) => {
                        tracing::warn!(error = &error as &dyn std::error::Error, "live events are late");
                        tokio::time::sleep(FAILED_PAUSE).await;
                    }
                }
                self.told.send_replace(at);
            }
        }
    }

    async fn read(
        &self,
        after: u64,
        deployment: Option<DeploymentId>,
    ) -> Result<Vec<Arc<LiveEvent>>, StoreError> {
        let query = FeedQuery {
            after,
            deployment,
            limit: PAGE,
        };
        let entries = self.store.feed(query).await?;
        Ok(entries.iter().map(|entry| Arc::new(live(entry))).collect())
    }

    /// Begins to tell a client what comes after a number. `None`: too many listen already.
    pub fn listen(self: &Arc<Self>, after: u64, filter: Filter, follow: bool) -> Option<Listener> {
        let place = Arc::clone(&self.clients).try_acquire_owned().ok()?;
        let (sender, events) = mpsc::channel(CLIENT_WAITING_MAX);
        let cut = Arc::new(AtomicBool::new(false));
        let told = self.told.subscribe();
        let client = Client {
            feed: Arc::clone(self),
            filter,
            at: after,
            sender,
            cut: Arc::clone(&cut),
        };
        tokio::spawn(client.run(told, follow));
        Some(Listener {
            events,
            cut,
            _place: place,
        })
    }
}

/// One client's way through the log.
struct Client {
    feed: Arc<Feed>,
    filter: Filter,
    at: u64,
    sender: mpsc::Sender<Arc<LiveEvent>>,
    cut: Arc<AtomicBool>,
}

impl Client {
    async fn run(mut self, mut told: watch::Receiver<u64>, follow: bool) {
        let shutdown = self.feed.shutdown.clone();
        let end = self.feed.head();
        loop {
            // What is told now is committed: whatever the store has up to there may be read.
            let head = (*told.borrow_and_update()).max(end);
            while self.at < head {
                match self.next_page().await {
                    Some(events) if events.is_empty() => self.at = head,
                    Some(events) => {
                        if !self.tell(events).await {
                            return;
                        }
                    }
                    None => tokio::time::sleep(FAILED_PAUSE).await,
                }
                if self.sender.is_closed() || shutdown.is_cancelled() {
                    return;
                }
            }
            if !follow {
                return;
            }
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = self.sender.closed() => return,
                changed = told.changed() => if changed.is_err() { return },
            }
        }
    }

    async fn next_page(&self) -> Option<Vec<Arc<LiveEvent>>> {
        let at_hand = self.feed.at_hand.read().after(self.at);
        if let Some(events) = at_hand.filter(|events| !events.is_empty()) {
            return Some(events);
        }
        let read = self.feed.read(self.at, self.filter.deployment).await;
        read.map_err(|error| tracing::warn!(error = &error as &dyn std::error::Error, "live events are late"))
            .ok()
    }

    /// `false`: the client is gone, or was cut.
    async fn tell(&mut self, events: Vec<Arc<LiveEvent>>) -> bool {
        for event in events {
            self.at = event.seq;
            if !self.filter.wants(&event) {
                continue;
            }
            match tokio::time::timeout(SLOW_MAX, self.sender.send(event)).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return false,
                Err(_) => {
                    self.cut.store(true, Ordering::Release);
                    return false;
                }
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(seq: u64) -> Arc<LiveEvent> {
        Arc::new(LiveEvent {
            seq,
            kind: "StepStarted".to_owned(),
            deployment: None,
            module: Some("pay".to_owned()),
            environment: None,
            node: None,
            json: "{}".to_owned(),
        })
    }

    #[test]
    fn what_is_at_hand_has_no_gap() {
        let mut at_hand = AtHand::default();
        assert!(at_hand.after(0).is_none());
        (5..10).for_each(|seq| at_hand.keep(event(seq)));
        assert!(at_hand.after(3).is_none(), "event 4 is not at hand");
        assert_eq!(at_hand.after(4).unwrap().len(), 5);
        assert_eq!(at_hand.after(7).unwrap()[0].seq, 8);
        assert!(at_hand.after(9).unwrap().is_empty());
        (10..20_000).for_each(|seq| at_hand.keep(event(seq)));
        assert_eq!(at_hand.events.len(), AT_HAND_MAX);
    }

    #[test]
    fn a_filter_wants_what_it_names() {
        let mut filter = Filter::default();
        assert!(filter.wants(&event(1)));
        filter.module = Some("pay".to_owned());
        assert!(filter.wants(&event(1)));
        filter.environment = Some("QA".to_owned());
        assert!(!filter.wants(&event(1)));
    }
}
