//! The server and the agents, each a process of its own, and the lines between them.

use std::collections::BTreeMap;
use std::fs::Permissions;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::acks::ADMIN_PASSWORD;
use crate::disk;
use crate::policy::{self, Place};
use crate::process::{NotReady, Process, READY_MAX};
use crate::proxy::Line;

/// Room of the server's and of an agent's data folder, where they have file systems of their own, in MiB.
const SERVER_DISK_MIB: u64 = 64;
const AGENT_DISK_MIB: u64 = 24;
/// Longest wait for a refused start to succeed.
const RESTART_MAX: Duration = Duration::from_secs(60);

/// Lets agents connect without TLS.
const PLAIN: &str = "--plain-agents";
/// Lets modules without a signature be run, where signatures are asked for.
const UNSIGNED: &str = "--allow-unsigned";

/// The help of one of the binary's commands: what it can be told.
fn offers(binary: &Path, command: &str) -> Result<String> {
    let help = Command::new(binary).args([command, "--help"]).output()?;
    Ok(String::from_utf8_lossy(&help.stdout).into_owned())
}

/// Locks, whatever a panic elsewhere left: all that is locked here is sound after every step.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One process's place: its folder, its addresses, and whether it is meant to be there.
pub(crate) struct Component {
    pub(crate) name: String,
    pub(crate) data: PathBuf,
    log: PathBuf,
    /// Where it takes requests.
    pub(crate) http: SocketAddr,
    command: Vec<String>,
    /// The file by which its clock is set, if it can be.
    pub(crate) clock: Option<PathBuf>,
    pub(crate) process: Mutex<Option<Process>>,
    claimed: AtomicBool,
    pub(crate) restarts: AtomicU64,
    /// When it was away or paused by the run's doing; the last may go on.
    outages: Mutex<Vec<(Instant, Option<Instant>)>>,
}

/// A component that one fault has for itself.
pub(crate) struct Claim<'a>(pub(crate) &'a Component);

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        self.0.claimed.store(false, Ordering::Release);
    }
}

impl std::ops::Deref for Claim<'_> {
    type Target = Component;
    fn deref(&self) -> &Component {
        self.0
    }
}

impl Component {
    /// Takes it for one fault, if no other has it.
    pub(crate) fn claim(&self) -> Option<Claim<'_>> {
        let free = self
            .claimed
            .compare_exchange(false, true, Ordering::AcqRel, Ordering::Relaxed);
        // Not `then_some`: a claim that was not taken must not be given back.
        free.is_ok().then(|| Claim(self))
    }

    pub(crate) fn outage_begins(&self) {
        lock(&self.outages).push((Instant::now(), None));
    }

    pub(crate) fn outage_ends(&self) {
        if let Some((_, end)) = lock(&self.outages).last_mut() {
            end.get_or_insert_with(Instant::now);
        }
    }

    /// Whether it was away at any time between two.
    pub(crate) fn was_away(&self, from: Instant, to: Instant) -> bool {
        lock(&self.outages)
            .iter()
            .rev()
            .any(|(began, ended)| *began <= to && ended.is_none_or(|ended| ended >= from))
    }

    fn command(&self, binary: &Path, faketime: Option<&Path>) -> Command {
        let mut command = Command::new(binary);
        command.args(&self.command);
        // Nothing of this machine's configuration: no variables, and no file beside it.
        for (variable, _) in std::env::vars_os() {
            if variable.to_string_lossy().starts_with("HOTSWAP_") {
                command.env_remove(variable);
            }
        }
        command.current_dir(self.log.parent().unwrap_or(Path::new("/")));
        if let (Some(clock), Some(library)) = (&self.clock, faketime) {
            command.env("LD_PRELOAD", library);
            command.env("FAKETIME_TIMESTAMP_FILE", clock);
            command.env("FAKETIME_CACHE_DURATION", "1");
            // Elapsed time is not what a clock step changes.
            command.env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
            command.env("DONT_FAKE_MONOTONIC", "1");
        }
        command
    }

    /// Runs something with its process, if it has one.
    pub(crate) fn with<T>(&self, work: impl FnOnce(&mut Process) -> T) -> Option<T> {
        lock(&self.process).as_mut().map(work)
    }

    pub(crate) fn kill(&self) {
        self.with(Process::kill);
        lock(&self.process).take();
    }

    /// Asks it to end; it must, in order.
    pub(crate) fn stop(&self) -> Result<()> {
        let Some(status) = self.with(Process::stop) else {
            return Ok(());
        };
        let tail = self.with(|process| process.log_tail()).unwrap_or_default();
        lock(&self.process).take();
        let status = status?;
        if !status.success() {
            bail!(
                "{} ended with {status} when it was asked to stop: {tail}",
                self.name
            );
        }
        Ok(())
    }
}

/// All of it.
pub(crate) struct Fleet {
    binary: PathBuf,
    faketime: Option<PathBuf>,
    pub(crate) server: Component,
    pub(crate) agents: Vec<Component>,
    pub(crate) places: Vec<Place>,
    pub(crate) lines: Vec<Line>,
    pub(crate) has_disks: bool,
    /// The file with each environment's join token; empty where agents speak without TLS.
    pub(crate) join_tokens: BTreeMap<&'static str, PathBuf>,
}

impl Fleet {
    /// Prepares folders, addresses and lines; starts nothing. Nodes' certificates hold for so long; `None`: agents speak
    /// without TLS.
    pub(crate) fn prepare(
        dir: &Path,
        binary: PathBuf,
        faketime: Option<PathBuf>,
        seed: u64,
        certificates: Option<&str>,
    ) -> Result<Self> {
        let has_disks = disk::may_mount();
        // Loopback addresses of this run's own: ports below the ephemeral range, and nobody else's.
        let [high, low] = {
            let id = std::process::id().to_be_bytes();
            [64 + id[2] % 128, id[3]]
        };
        let at = |host: u8, port: u16| SocketAddr::from((Ipv4Addr::new(127, high, low, host), port));
        let (http, agents_at) = (at(1, 21_000), at(1, 21_001));
        let environments = dir.join("environments.json");
        std::fs::write(&environments, policy::environments_json())?;
        let folder = |name: &str, room: u64| -> Result<PathBuf> {
            let data = dir.join(name);
            if has_disks {
                disk::mount_small(&data, room)?;
            }
            Ok(data)
        };
        let text = |path: &Path| path.to_str().map(str::to_owned).context("paths are text");
        let clock = |name: &str| -> Result<Option<PathBuf>> {
            let file = dir.join(format!("{name}.clock"));
            std::fs::write(&file, "+0\n")?;
            Ok(faketime.is_some().then_some(file))
        };
        let component = |name: &str, data: PathBuf, http, command, clock| Component {
            name: name.to_owned(),
            log: dir.join(format!("{name}.log")),
            data,
            http,
            command,
            clock,
            process: Mutex::new(None),
            claimed: AtomicBool::new(false),
            restarts: AtomicU64::new(0),
            outages: Mutex::default(),
        };
        let words = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect::<Vec<_>>();
        let data = folder("server", SERVER_DISK_MIB)?;
        let mut command = words(&[
            "server",
            "--data",
            &text(&data)?,
            "--http",
            &http.to_string(),
            "--agents",
            &agents_at.to_string(),
            "--environments",
            &text(&environments)?,
        ]);
        // What a version asks for before it takes commands from anybody, and modules without a signature.
        let offered = offers(&binary, "server")?;
        if offered.contains("--admin-password-file") {
            let password = dir.join("password");
            std::fs::write(&password, ADMIN_PASSWORD)?;
            std::fs::set_permissions(&password, Permissions::from_mode(0o600))?;
            command.extend(["--admin-password-file".to_owned(), text(&password)?]);
        }
        for flag in ["--no-rate-limit-on-loopback", UNSIGNED] {
            command.extend(offered.contains(flag).then(|| flag.to_owned()));
        }
        // A version without the flag speaks without TLS in any case.
        let certificates = certificates.filter(|_| offered.contains(PLAIN));
        match certificates {
            Some(lifetime) => command.extend(words(&["--node-certificate-lifetime", lifetime])),
            None => command.extend(offered.contains(PLAIN).then(|| PLAIN.to_owned())),
        }
        let server = component("server", data, http, command, clock("server")?);
        let unsigned = offers(&binary, "agent")?.contains(UNSIGNED);
        let places = policy::places();
        let (mut agents, mut lines) = (Vec::new(), Vec::new());
        let mut join_tokens = BTreeMap::new();
        let scheme = if certificates.is_some() { "https" } else { "http" };
        for (number, place) in (0_u16..).zip(&places) {
            let data = folder(&place.node, AGENT_DISK_MIB)?;
            let line = Line::open(at(1, 22_000 + number), agents_at, seed ^ u64::from(number))
                .context("failed to open a line")?;
            let ingress = at(2, 23_000 + number);
            let mut command = words(&[
                "agent",
                "--node",
                &place.node,
                "--environment",
                place.environment,
                "--server",
                &format!("{scheme}://{}", line.address),
                "--data",
                &text(&data)?,
                "--ingress",
                &ingress.to_string(),
            ]);
            command.extend(unsigned.then(|| UNSIGNED.to_owned()));
            if certificates.is_some() {
                let file = dir.join(format!("{}.token", place.environment));
                command.extend(words(&["--join-token-file", &text(&file)?]));
                join_tokens.insert(place.environment, file);
            }
            // One node of each environment can be given another time.
            let clock = if place.first { clock(&place.node)? } else { None };
            agents.push(component(&place.node, data, ingress, command, clock));
            lines.push(line);
        }
        Ok(Self {
            binary,
            faketime,
            server,
            agents,
            places,
            lines,
            has_disks,
            join_tokens,
        })
    }

    /// Whether nodes show certificates.
    pub(crate) fn has_certificates(&self) -> bool {
        !self.join_tokens.is_empty()
    }

    /// Starts a component once.
    pub(crate) fn start(&self, component: &Component) -> Result<std::result::Result<(), NotReady>> {
        let mut command = component.command(&self.binary, self.faketime.as_deref());
        match Process::start(&mut command, &component.log)? {
            Ok(process) => {
                *lock(&component.process) = Some(process);
                Ok(Ok(()))
            }
            Err(not_ready) => Ok(Err(not_ready)),
        }
    }

    /// Starts one again that was ended by a fault; it must be ready.
    pub(crate) fn restart(&self, component: &Component) -> Result<()> {
        component.restarts.fetch_add(1, Ordering::Relaxed);
        match self.start(component)? {
            Ok(()) => Ok(()),
            Err(not_ready) => bail!("{} does not start again: {not_ready}", component.name),
        }
    }

    /// Starts one again, as a supervisor does, until it is ready.
    pub(crate) fn restart_until_ready(&self, component: &Component) -> Result<()> {
        let end = Instant::now() + RESTART_MAX;
        loop {
            match self.restart(component) {
                Ok(()) => return Ok(()),
                Err(error) if Instant::now() >= end => return Err(error),
                Err(_) => std::thread::sleep(Duration::from_millis(500)),
            }
        }
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = &Component> {
        std::iter::once(&self.server).chain(&self.agents)
    }

    pub(crate) fn unmount(&self) {
        if self.has_disks {
            for component in self.all() {
                component.kill();
                disk::unmount(&component.data);
            }
        }
    }
}

impl std::fmt::Display for NotReady {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.status {
            Some(status) => write!(f, "it ended with {status}: {}", self.log.trim()),
            None => write!(f, "it was not ready within {READY_MAX:?}: {}", self.log.trim()),
        }
    }
}
