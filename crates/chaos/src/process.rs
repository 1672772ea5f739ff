//! A process of the binary: started, signalled, waited for. It never outlives its owner.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

/// How long a process may take to be ready, or to end when it was asked to.
pub(crate) const READY_MAX: Duration = Duration::from_secs(60);
/// How often a process is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// How much of a log's end is shown.
const LOG_TAIL_BYTES: u64 = 2_000;

/// What a process is told.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Signal {
    Term,
    Stop,
    Continue,
}

/// A running process.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    log: PathBuf,
}

/// Why a start failed: the process ended before it was ready.
#[derive(Debug)]
pub(crate) struct NotReady {
    /// How it ended; `None`: it was not ready in time.
    pub(crate) status: Option<ExitStatus>,
    /// The end of its log.
    pub(crate) log: String,
}

impl Process {
    /// Starts a process whose log grows in a file, and waits for its ready line.
    pub(crate) fn start(command: &mut Command, log: &Path) -> Result<Result<Self, NotReady>> {
        let file = File::options().create(true).append(true).open(log)?;
        let begins_at = file.metadata()?.len();
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(file)
            .spawn()
            .context("failed to start the binary")?;
        let stdout = child.stdout.take().context("stdout is piped")?;
        let (said, ready) = mpsc::channel();
        std::thread::spawn(move || {
            let mut lines = BufReader::new(stdout).lines().map_while(Result::ok);
            let first = lines.next().is_some_and(|line| line.starts_with("ready: "));
            let _ = said.send(first);
            // Read on: a full pipe would block the process.
            lines.for_each(drop);
        });
        let is_ready = ready.recv_timeout(READY_MAX);
        let mut process = Self {
            child,
            log: log.to_owned(),
        };
        match is_ready {
            Ok(true) => Ok(Ok(process)),
            Ok(false) => {
                let status = process.wait(READY_MAX)?;
                let log = tail(log, begins_at);
                Ok(Err(NotReady { status, log }))
            }
            Err(_) => {
                process.kill();
                let log = tail(log, begins_at);
                Ok(Err(NotReady { status: None, log }))
            }
        }
    }

    /// Sends a signal; the number is its own until it was waited for.
    pub(crate) fn signal(&self, signal: Signal) {
        let name = match signal {
            Signal::Term => "-TERM",
            Signal::Stop => "-STOP",
            Signal::Continue => "-CONT",
        };
        let mut kill = Command::new("kill");
        kill.args([name, &self.child.id().to_string()]);
        // It may have ended by itself, which whoever waits for it finds.
        let _ = kill.stderr(Stdio::null()).status();
    }

    /// Kills it as `kill -9` does, and waits for its end.
    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// How it ended, if it has.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Waits for its end. `None`: it goes on after all that time.
    pub(crate) fn wait(&mut self, longest: Duration) -> Result<Option<ExitStatus>> {
        let end = Instant::now() + longest;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(Some(status));
            }
            if Instant::now() >= end {
                return Ok(None);
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }

    /// Asks it to end, as SIGTERM does; says how it ended.
    pub(crate) fn stop(&mut self) -> Result<ExitStatus> {
        self.signal(Signal::Term);
        match self.wait(READY_MAX)? {
            Some(status) => Ok(status),
            None => {
                self.kill();
                bail!("it did not end within {READY_MAX:?} of SIGTERM")
            }
        }
    }

    /// Descriptors that it has open.
    pub(crate) fn open_files(&self) -> u64 {
        fs::read_dir(format!("/proc/{}/fd", self.child.id())).map_or(0, |entries| entries.count() as u64)
    }

    /// Sets how many descriptors it may have; gives the former limit. The hard limit stays: raising it again would
    /// need a privilege.
    pub(crate) fn limit_files(&self, most: &str) -> Result<String> {
        let id = self.child.id().to_string();
        let limits = fs::read_to_string(format!("/proc/{id}/limits"))?;
        let line = limits.lines().find(|line| line.starts_with("Max open files"));
        let soft = line.and_then(|line| line.split_whitespace().nth(3));
        let soft = soft.context("the limit of open files is in no line")?;
        let limit = format!("--nofile={most}:");
        let output = Command::new("prlimit").args(["--pid", &id, &limit]).output()?;
        if !output.status.success() {
            bail!(
                "prlimit {limit}: {}",
                String::from_utf8_lossy(&output.stderr).trim()
            );
        }
        Ok(soft.to_owned())
    }

    /// The end of its log.
    pub(crate) fn log_tail(&self) -> String {
        tail(&self.log, 0)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

fn tail(path: &Path, from: u64) -> String {
    let read = || -> std::io::Result<String> {
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(from.max(length.saturating_sub(LOG_TAIL_BYTES))))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    read().unwrap_or_default()
}
