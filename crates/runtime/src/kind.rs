//! The traits that a kind of module implements.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hotswap_core::ids::{Digest, ModuleName};
use hotswap_package::{Kind, Manifest, Package};

use crate::body::Body;
use crate::failure::Failure;

/// A boxed future that may be sent to another thread.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The answer to a request, or why there is none.
pub type ResponseFuture = BoxFuture<'static, Result<http::Response<Body>, Failure>>;

/// A release as a runtime gets it: the caller has verified that `content` is what `digest` stands for.
#[derive(Clone, Debug)]
pub struct Artifact {
    /// The release's identity: the digest of its package file.
    pub digest: Digest,
    /// What it is and what it may use.
    pub manifest: Arc<Manifest>,
    /// The artifact's bytes, without the package around them.
    pub content: Bytes,
}

impl Artifact {
    /// Refuses an artifact of another kind than `runs`.
    pub(crate) fn must_be(&self, runs: Kind) -> Result<(), PrepareError> {
        match self.manifest.kind {
            is if is == runs => Ok(()),
            is => Err(PrepareError::WrongKind { runs, is }),
        }
    }
}

impl From<Package> for Artifact {
    fn from(package: Package) -> Self {
        Self {
            digest: package.digest,
            manifest: Arc::new(package.manifest),
            content: package.artifact,
        }
    }
}

/// Runs modules of one kind. A node has one of each kind that it can run.
pub trait Runtime: Send + Sync + 'static {
    /// The kind that it runs.
    fn kind(&self) -> Kind;

    /// Makes an artifact ready to start: parses, checks and compiles it. Costs time once; afterwards it is cheap,
    /// across restarts too, so it also serves to prefetch.
    ///
    /// # Errors
    /// What is wrong with the artifact, in words that its author can act on.
    fn prepare(&self, artifact: Artifact) -> BoxFuture<'_, Result<Arc<dyn Prepared>, PrepareError>>;

    /// A node has these modules and no others: what others kept outside of this process goes, unless they are loaded.
    /// So goes too what a release had left that this process could not load, and that no instance stands for.
    fn retain(&self, _node: &str, _modules: &BTreeSet<ModuleName>) -> BoxFuture<'static, ()> {
        Box::pin(std::future::ready(()))
    }

    /// Another process may take the node over from here on: what is kept outside of this one is noted, and not touched
    /// any more, unless something is started again.
    fn release(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::ready(()))
    }
}

/// As what a prepared artifact starts.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Launch {
    /// The number of its configuration; 0 for none. A package may run under several.
    pub config: u64,
    /// What it is given, by variable; it finds of these what its manifest asks for. Secrets are among them.
    pub values: BTreeMap<String, String>,
    /// The node that it runs on, for its log; none in a sandbox.
    pub node: Option<String>,
}

impl std::fmt::Debug for Launch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Launch")
            .field("config", &self.config)
            .field("keys", &self.values.keys())
            .finish()
    }
}

/// A release's version, with the number of its configuration where it has one.
pub(crate) fn label(manifest: &Manifest, config: u64) -> String {
    match config {
        0 => manifest.version.to_string(),
        config => format!("{}@{config}", manifest.version),
    }
}

/// An artifact that can start without further checks.
pub trait Prepared: Send + Sync + 'static {
    /// The release's identity.
    fn digest(&self) -> Digest;

    /// What the release is and may use.
    fn manifest(&self) -> &Manifest;

    /// Loads the release and warms it; the instance is ready to serve when this returns.
    ///
    /// # Errors
    /// Why it does not start here.
    fn start(&self, launch: Launch) -> BoxFuture<'_, Result<Arc<dyn Instance>, StartError>>;
}

/// One loaded release: active, preview or standby, it is the same.
pub trait Instance: Send + Sync + 'static {
    /// What names it: its package's digest under its configuration, see [`Digest::under`].
    fn digest(&self) -> Digest;

    /// Its version, and its configuration where it has one: `2.1.0@3`.
    fn label(&self) -> &str;

    /// What the release is and may use.
    fn manifest(&self) -> &Manifest;

    /// Answers one request. Dropping the future gives the request up and frees what it used. Kinds that don't route
    /// requests answer [`Failure::NotRouted`], as here.
    fn handle(&self, _request: http::Request<Body>) -> ResponseFuture {
        Box::pin(std::future::ready(Err(Failure::NotRouted)))
    }

    /// Puts it where it acts, in place of whichever release of its module is there, for kinds to which no requests
    /// are routed. How it went is its [`Instance::readiness`]. Done when this returns, after some ms at most, or, where
    /// that may take long, when the returned future ends; no other release of the module is to be engaged before.
    fn engage(&self) -> Option<BoxFuture<'static, ()>> {
        None
    }

    /// It won't be wanted again on this node: what it keeps outside of this process goes when it is closed. Without
    /// this word it stays, for whoever comes after this process.
    fn dismiss(&self) {}

    /// What it counted by itself, for kinds to which no requests are routed; asked for a few times a second, which is
    /// also when it sees to what it holds.
    fn tally(&self) -> Option<Tally> {
        None
    }

    /// What its own counters say against it, while it is on trial.
    fn complaint(&self) -> Option<String> {
        None
    }

    /// Whether it can serve, by its own judgement.
    fn readiness(&self) -> Readiness;

    /// What it used and how it fared since it started.
    fn usage(&self) -> Usage;

    /// Ends it: new requests are refused with [`Failure::Closed`], what is idle is freed at once, requests in flight
    /// may finish within the deadline and are cut after it. Closing twice is harmless.
    fn close(&self, deadline: Duration) -> BoxFuture<'static, Closed>;
}

/// Whether an instance can serve.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// It can.
    Ready,
    /// It cannot now, for this reason.
    Failing(String),
    /// It was closed.
    Closed,
}

/// What an instance used since it started, and how it fared. All but `instances`, `in_flight` and `memory_bytes`
/// only grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Time on the processor, in the module's code and in the host's on its behalf.
    pub guest_time: Duration,
    /// Memory that it holds now, idle instances included.
    pub memory_bytes: u64,
    /// Most memory that it ever held.
    pub memory_bytes_peak: u64,
    /// Sandboxes or processes alive now.
    pub instances: u64,
    /// Sandboxes or processes ever started.
    pub instances_started: u64,
    /// Requests begun and not ended.
    pub in_flight: u64,
    /// Requests that ended in a trap of any cause, limits included.
    pub traps: u64,
    /// Requests refused because too many were being served.
    pub overloads: u64,
    /// Requests cut by a drain's deadline.
    pub cut: u64,
}

/// What an instance counted that no requests are routed to, while it was where it acts. All numbers only grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// All that came to it, such as packets.
    pub requests: u64,
    /// Those of them that went wrong.
    pub errors: u64,
    /// Those of them that were dropped on purpose.
    pub drops: u64,
    /// Time on the processor for them.
    pub busy: Duration,
}

impl Tally {
    /// The sum of both.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            requests: self.requests + other.requests,
            errors: self.errors + other.errors,
            drops: self.drops + other.drops,
            busy: self.busy + other.busy,
        }
    }

    /// What was counted after an earlier moment.
    #[must_use]
    pub fn since(self, earlier: Self) -> Self {
        Self {
            requests: self.requests.saturating_sub(earlier.requests),
            errors: self.errors.saturating_sub(earlier.errors),
            drops: self.drops.saturating_sub(earlier.drops),
            busy: self.busy.saturating_sub(earlier.busy),
        }
    }
}

/// How a close went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Closed {
    /// Requests cut by the deadline.
    pub cut: u64,
}

/// Why an artifact cannot be prepared; reads after "cannot prepare …:".
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    /// The runtime runs another kind.
    #[error("this runtime runs modules of kind {runs}, and this one is of kind {is}")]
    WrongKind {
        /// What it runs.
        runs: Kind,
        /// What it got.
        is: Kind,
    },
    /// The bytes are of another format.
    #[error("{0}")]
    WrongFormat(String),
    /// More bytes than the runtime accepts.
    #[error("the artifact has {bytes} bytes, more than the {max} that are accepted")]
    TooLarge {
        /// Bytes of the artifact.
        bytes: u64,
        /// Most that are accepted.
        max: u64,
    },
    /// The bytes don't parse, validate or compile.
    #[error("the component is not valid: {0}")]
    Invalid(String),
    /// It doesn't offer what requests are handed to.
    #[error("the component does not export {wanted}; it exports {}", listed(.exports))]
    MissingExport {
        /// What it must export.
        wanted: &'static str,
        /// What it does.
        exports: Vec<String>,
    },
    /// It wants what the host doesn't give.
    #[error("the component imports {import}, which this host does not provide{detail}")]
    UnknownImport {
        /// What it wants.
        import: String,
        /// More, where there is: begins with ": ".
        detail: String,
    },
    /// Its own needs exceed its limits or the host's.
    #[error("the component needs more than it may have: {0}")]
    OverLimit(String),
    /// It asks for what isn't granted here.
    #[error("the module asks for what is not granted here: {}", .0.join(", "))]
    NotGranted(Vec<String>),
    /// The host itself failed.
    #[error("the host failed: {0}")]
    Host(String),
}

fn listed(names: &[String]) -> String {
    if names.is_empty() {
        return "nothing".to_owned();
    }
    names.join(", ")
}

/// Why a prepared release does not start here; reads after "cannot start …:".
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// No room: the host runs as many sandboxes as it can.
    #[error("the host has no room: {0}")]
    NoRoom(String),
    /// It asks for what it is given nowhere.
    #[error("the module asks for what it is not given here: {}", .0.join(", "))]
    NotGiven(Vec<String>),
    /// The module's own start failed or exceeded its limits.
    #[error("the module failed to start: {0}")]
    Failed(String),
    /// It didn't get ready in time.
    #[error("the module was not ready within {0:?}")]
    TimedOut(Duration),
}
