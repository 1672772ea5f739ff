//! A process's output: lines of the log that name the release, and the last of them for whoever asks why it ended.

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hotswap_package::Manifest;
use tokio::io::AsyncReadExt as _;
use tokio::net::unix::pipe;
use tokio::task::JoinHandle;

use crate::lines::{LineLimit, Lines, Output};

/// Bytes that are read at once.
const READ_BYTES: usize = 16 << 10;
/// Lines of standard error that are kept to explain an end.
const LAST_LINES_MAX: usize = 5;
/// Longest of these, in characters.
const LAST_LINE_LEN_MAX: usize = 200;
/// How long the rest of an ended process's output is waited for.
const REST_TIME_MAX: Duration = Duration::from_millis(500);

/// Where a release's output goes.
#[derive(Debug)]
pub(super) struct Log {
    module: String,
    pub(super) version: String,
    pub(super) node: String,
    limit: LineLimit,
}

impl Log {
    pub(super) fn new(manifest: &Manifest, version: String, node: String, per_second_max: u32) -> Arc<Self> {
        Arc::new(Self {
            module: manifest.name.to_string(),
            version,
            node,
            limit: LineLimit::new(per_second_max),
        })
    }

    /// Says something of the process in the host's own words.
    pub(super) fn say(&self, pid: i32, words: &str) {
        let Self {
            module,
            version,
            node,
            ..
        } = self;
        tracing::warn!(%module, %version, %node, process = pid, "{words}");
    }

    fn line(&self, pid: i32, output: Output, line: &str) {
        let Some(dropped) = self.limit.pass() else { return };
        let Self {
            module,
            version,
            node,
            ..
        } = self;
        if dropped > 0 {
            let limit = self.limit.per_second_max();
            tracing::warn!(
                target: "module", module, version, node, dropped, limit,
                "lines of output were dropped: more than agent.module-log-lines a second"
            );
        }
        match output {
            Output::Stdout => {
                tracing::info!(target: "module", module, version, node, process = pid, stream = "stdout", "{line}");
            }
            Output::Stderr => {
                tracing::warn!(target: "module", module, version, node, process = pid, stream = "stderr", "{line}");
            }
        }
    }
}

/// The readers of one process's output.
#[derive(Debug)]
pub(super) struct Pumps {
    tasks: [JoinHandle<()>; 2],
    last: Arc<Mutex<VecDeque<String>>>,
}

impl Pumps {
    pub(super) fn start(log: &Arc<Log>, pid: i32, stdout: OwnedFd, stderr: OwnedFd) -> io::Result<Self> {
        let last = Arc::new(Mutex::new(VecDeque::new()));
        let [stdout, stderr] = [stdout, stderr].map(pipe::Receiver::from_owned_fd);
        let pump = |from, output| tokio::spawn(pump(Arc::clone(log), pid, from, output, Arc::clone(&last)));
        Ok(Self {
            tasks: [pump(stdout?, Output::Stdout), pump(stderr?, Output::Stderr)],
            last,
        })
    }

    /// The last that an ended process said on standard error, to be put behind other words; empty if it said nothing.
    pub(super) async fn last_words(&mut self) -> String {
        for task in &mut self.tasks {
            // A descendant that got away may hold the other end for as long as it likes.
            let _ = tokio::time::timeout(REST_TIME_MAX, task).await;
        }
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if last.is_empty() {
            return String::new();
        }
        format!(
            "; it said: {}",
            last.iter().cloned().collect::<Vec<_>>().join(" / ")
        )
    }
}

impl Drop for Pumps {
    fn drop(&mut self) {
        // They end by themselves with the process; what it wrote last is still read.
        let tasks = self.tasks.each_ref().map(JoinHandle::abort_handle);
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                tokio::time::sleep(REST_TIME_MAX).await;
                tasks.iter().for_each(tokio::task::AbortHandle::abort);
            });
        }
    }
}

async fn pump(
    log: Arc<Log>,
    pid: i32,
    mut from: pipe::Receiver,
    output: Output,
    last: Arc<Mutex<VecDeque<String>>>,
) {
    let tell = |line: &str| {
        log.line(pid, output, line);
        if matches!(output, Output::Stderr) {
            let mut last = last.lock().unwrap_or_else(PoisonError::into_inner);
            if last.len() == LAST_LINES_MAX {
                last.pop_front();
            }
            last.push_back(line.chars().take(LAST_LINE_LEN_MAX).collect());
        }
    };
    let (mut lines, mut bytes) = (Lines::default(), vec![0; READ_BYTES]);
    while let Ok(length @ 1..) = from.read(&mut bytes).await {
        lines.take(&bytes[..length], tell);
    }
    lines.finish(tell);
}
