//! All nodes of a fleet, in one process.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use hotswap_core::ids::ModuleName;
use hotswap_core::spec::NodeSpec;
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;

use super::line::{Lines, name};
use super::node::Node;
use super::session::Session;

/// Sessions that are opened at once: a fleet that returns together would be shed by backoff.
const OPENING_MAX: usize = 64;
/// How often a wait looks.
const LOOK_EVERY: Duration = Duration::from_millis(2);
/// Longest wait for all to be told.
const TOLD_MAX: Duration = Duration::from_secs(120);

/// Thousands of sessions.
pub(crate) struct Swarm {
    nodes: usize,
    shared: Arc<Shared>,
    pace: watch::Sender<Option<Duration>>,
}

/// What all sessions share.
pub(super) struct Shared {
    pace: watch::Receiver<Option<Duration>>,
    beats: AtomicU64,
    specs: AtomicU64,
    fell: AtomicBool,
    question: Mutex<Question>,
    told: AtomicUsize,
}

/// Which node was told what, when.
struct Question {
    number: u64,
    module: Option<ModuleName>,
    /// The version that is to serve; `None`: none is.
    version: Option<semver::Version>,
    first: Option<Instant>,
    last: Option<Instant>,
}

impl Shared {
    pub(super) fn pace(&self) -> watch::Receiver<Option<Duration>> {
        self.pace.clone()
    }

    pub(super) fn beaten(&self) {
        self.beats.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a node once for what is asked now, if its spec has it serve that.
    pub(super) fn told(&self, spec: &NodeSpec, node: &mut Node) {
        self.specs.fetch_add(1, Ordering::Relaxed);
        let mut question = self.question.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(module) = &question.module else { return };
        if node.counted == question.number || question.version != serves(spec, module) {
            return;
        }
        node.counted = question.number;
        let now = Instant::now();
        question.first.get_or_insert(now);
        question.last = Some(now);
        self.told.fetch_add(1, Ordering::Relaxed);
    }
}

/// The version that a spec gives all of a module's requests.
fn serves(spec: &NodeSpec, module: &ModuleName) -> Option<semver::Version> {
    let module = spec.modules.get(module)?;
    let [(digest, 100)] = module.routes[..] else {
        return None;
    };
    let release = module.releases.iter().find(|release| release.id() == digest)?;
    Some(release.version.clone())
}

impl Swarm {
    /// Opens so many sessions.
    pub(crate) async fn open(lines: Lines, nodes: usize) -> Result<Self> {
        let lines = Arc::new(lines);
        let (pace, paced) = watch::channel(None);
        let shared = Arc::new(Shared {
            pace: paced,
            beats: AtomicU64::new(0),
            specs: AtomicU64::new(0),
            fell: AtomicBool::new(false),
            question: Mutex::new(Question {
                number: 0,
                module: None,
                version: None,
                first: None,
                last: None,
            }),
            told: AtomicUsize::new(0),
        });
        let places = Arc::new(Semaphore::new(OPENING_MAX));
        let mut opening = Vec::new();
        for number in 0..nodes {
            let place = Arc::clone(&places).acquire_owned().await?;
            let node = Node::new(name(number).parse()?, number as f64 / nodes as f64);
            let (shared, lines) = (Arc::clone(&shared), Arc::clone(&lines));
            opening.push(tokio::spawn(async move {
                let session = Session::open(lines.open(number).await?, node).await;
                drop(place);
                let session = session?;
                tokio::spawn(async move {
                    // What fell is noticed by whoever waits.
                    let _ = session.run(Arc::clone(&shared)).await;
                    shared.fell.store(true, Ordering::Relaxed);
                });
                anyhow::Ok(())
            }));
        }
        for one in opening {
            one.await.context("a session's task panicked")??;
        }
        Ok(Self { nodes, shared, pace })
    }

    /// Has every node beat at this pace from now on, spread over it; or not at all.
    pub(crate) fn beat(&self, pace: Option<Duration>) {
        self.pace.send_replace(pace);
    }

    /// Heartbeats so far.
    pub(crate) fn beats(&self) -> u64 {
        self.shared.beats.load(Ordering::Relaxed)
    }

    /// Specs so far.
    pub(crate) fn specs(&self) -> u64 {
        self.shared.specs.load(Ordering::Relaxed)
    }

    /// Begins to count who is told to serve a version of a module.
    pub(crate) fn expect(&self, module: &str, version: &str) -> Result<()> {
        let mut question = self
            .shared
            .question
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *question = Question {
            number: question.number + 1,
            module: Some(module.parse()?),
            version: Some(version.parse()?),
            first: None,
            last: None,
        };
        self.shared.told.store(0, Ordering::Relaxed);
        Ok(())
    }

    /// Waits until all were told; when the first and the last were.
    pub(crate) async fn all_told(&self) -> Result<(Instant, Instant)> {
        let end = Instant::now() + TOLD_MAX;
        loop {
            ensure!(
                !self.shared.fell.load(Ordering::Relaxed),
                "a session fell; the server's log says why"
            );
            let told = self.shared.told.load(Ordering::Relaxed);
            if told == self.nodes {
                let question = self
                    .shared
                    .question
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner);
                return question.first.zip(question.last).context("all were told");
            }
            if Instant::now() > end {
                bail!("after {TOLD_MAX:?} {told} of {} nodes were told", self.nodes);
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

/// Raises this process's limit of open files, which its children inherit; `Err`: it is below what is needed.
pub(crate) fn raise_open_files(needed: u64) -> Result<()> {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit)?;
    if let Some(most) = limit.maximum.filter(|most| *most < needed) {
        bail!("{needed} open files are needed and {most} allowed: raise the hard limit (ulimit -Hn)");
    }
    Ok(())
}
