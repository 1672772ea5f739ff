//! Customers: each node gets requests for every module all the time, and every failure counts.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::fleet::{Component, lock};
use crate::http::{Answer, Connection, request};
use crate::operator::MODULES;
use crate::policy::Place;
use crate::run::Run;

/// Longest wait for an answer: well above the longest pause of a node.
const ANSWER_MAX: Duration = Duration::from_secs(30);
/// Time between two requests to a node.
const PACE: Duration = Duration::from_millis(8);
/// Wait before a new connection to a node that is away.
const AWAY_PAUSE: Duration = Duration::from_millis(50);

/// What customers counted.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) answered: AtomicU64,
    /// Wrong or no answers of a node that should have served.
    pub(crate) failed: AtomicU64,
    /// Those of a node that a fault had taken away.
    pub(crate) away: AtomicU64,
    /// Slowest answer of a node that was there, in µs.
    pub(crate) slowest_us: AtomicU64,
    /// By node and module: how often the release that answers changed, and which ones there were.
    pub(crate) releases: Mutex<BTreeMap<(String, &'static str), Releases>>,
}

/// How often the release changed, and which ones there were.
type Releases = (u64, BTreeSet<String>);

/// One node's customer.
pub(crate) struct Customer<'a> {
    run: &'a Run,
    node: &'a Component,
    place: &'a Place,
    last: BTreeMap<&'static str, String>,
}

impl<'a> Customer<'a> {
    pub(crate) fn new(run: &'a Run, node: &'a Component, place: &'a Place) -> Self {
        Self {
            run,
            node,
            place,
            last: BTreeMap::new(),
        }
    }

    /// Sends requests until the run is over.
    pub(crate) fn buy(&mut self) {
        let requests: Vec<(&'static str, Vec<u8>)> = MODULES
            .iter()
            .map(|module| (module.name, request("GET", module.path, &[], b"")))
            .collect();
        let mut connection: Option<Connection> = None;
        for (module, request) in requests.iter().cycle() {
            if self.run.is_over() {
                return;
            }
            let began = Instant::now();
            let mut open = match connection.take() {
                Some(open) => open,
                None => match Connection::open(self.node.http, ANSWER_MAX) {
                    Ok(open) => open,
                    Err(error) => {
                        self.failed(began, &format!("no connection: {error}"));
                        std::thread::sleep(AWAY_PAUSE);
                        continue;
                    }
                },
            };
            match open.ask(request) {
                Ok(answer) if answer.status == 200 => {
                    self.answered(module, &answer, began);
                    if answer.keep_alive {
                        connection = Some(open);
                    }
                }
                Ok(answer) => {
                    let what = format!("{module}: {} {}", answer.status, answer.text());
                    self.failed(began, &what);
                }
                // A connection that stood before its node went is told only now.
                Err(error) => self.failed(open.since, &format!("{module}: {error}")),
            }
            std::thread::sleep(PACE.saturating_sub(began.elapsed()));
        }
    }

    fn answered(&mut self, module: &'static str, answer: &Answer, began: Instant) {
        let counts = &self.run.tally.traffic;
        counts.answered.fetch_add(1, Ordering::Relaxed);
        if !self.node.was_away(began, Instant::now()) {
            let took = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
            counts.slowest_us.fetch_max(took, Ordering::Relaxed);
        }
        let last = self.last.entry(module).or_default();
        if *last != answer.release {
            last.clone_from(&answer.release);
            let mut releases = lock(&counts.releases);
            let seen = releases.entry((self.place.node.clone(), module)).or_default();
            seen.0 += 1;
            seen.1.insert(answer.release.clone());
        }
    }

    fn failed(&self, since: Instant, what: &str) {
        let counts = &self.run.tally.traffic;
        if self.node.was_away(since, Instant::now()) {
            counts.away.fetch_add(1, Ordering::Relaxed);
            return;
        }
        counts.failed.fetch_add(1, Ordering::Relaxed);
        self.run
            .violation(&format!("a request to {} failed: {what}", self.node.name));
    }
}
