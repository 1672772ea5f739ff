//! Starting a release's process, again and again if need be, until it is ready.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hotswap_package::{Process, Ready};
use http::{Method, Request, header};
use rustix::process::Signal;

use super::cgroup::Group;
use super::host::{Files, Given, HostShared};
use super::keeper::{Child, Exit};
use super::launch::Launch;
use super::notify::Notify;
use super::output::Pumps;
use super::state::Serving;
use super::usage::{self, Used};
use crate::body::Body;
use crate::kind::StartError;

/// Pause between two questions whether a process is ready.
const PROBE_PAUSE: Duration = Duration::from_millis(20);
/// How much more memory may be mapped than used, where the system counts only what is mapped: room for stacks and
/// reserves that are never touched. What is used is looked at by the host.
const MAPPED_PER_USED: u64 = 4;
/// Where programs are found, scripts' interpreters among them.
const PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// What a release's processes are started from.
#[derive(Debug)]
pub(super) struct Starter {
    pub(super) host: Arc<HostShared>,
    pub(super) files: Arc<Files>,
    pub(super) serving: Arc<Serving>,
    pub(super) settings: Process,
    pub(super) given: Given,
    pub(super) notify: Notify,
    /// A folder of the process's own, in `room`.
    pub(super) home: PathBuf,
    /// Where the release's sockets are; it goes with the release.
    pub(super) room: PathBuf,
    /// The release's number on this host.
    pub(super) number: u64,
    pub(super) starts: AtomicU64,
}

/// A process that is ready, or was.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) child: Child,
    pumps: Pumps,
    group: Option<Group>,
}

impl Starter {
    /// Starts a process and waits until it is ready.
    pub(super) async fn start(&self) -> Result<Running, StartError> {
        self.notify.clear();
        let mut running = self
            .spawn()
            .await
            .map_err(|error| StartError::Failed(error.to_string()))?;
        self.serving.meters.started();
        let deadline = self.settings.ready_deadline.0;
        let mut status = String::new();
        let ready = async {
            match self.settings.ready {
                Ready::Notify => self.notify.ready(&mut status).await,
                Ready::Http => self.answers().await,
            }
        };
        let ready = tokio::select! {
            ready = ready => Some(ready),
            exit = running.child.ended() => {
                let why = running.why(exit, " before it was ready").await;
                self.serving.meters.ended(exit.cpu);
                return Err(StartError::Failed(format!("its process {why}")));
            }
            () = tokio::time::sleep(deadline) => None,
        };
        match ready {
            Some(Ok(())) => Ok(running),
            Some(Err(error)) => Err(StartError::Failed(format!(
                "it can't be told whether it is ready: {error}"
            ))),
            None => {
                let pid = running.child.pid();
                running.child.signal(Signal::KILL);
                let exit = running.child.ended().await;
                self.serving.meters.ended(exit.cpu);
                let said = match self.settings.ready {
                    Ready::Http => "it did not answer its ready-path well in time".to_owned(),
                    Ready::Notify if status.is_empty() => "it sent no READY=1 in time".to_owned(),
                    Ready::Notify => format!("it sent no READY=1 in time, and said {status:?} last"),
                };
                self.serving.log.say(pid, &said);
                Err(StartError::TimedOut(deadline))
            }
        }
    }

    async fn spawn(&self) -> io::Result<Running> {
        let start = self.starts.fetch_add(1, Ordering::Relaxed);
        let manifest = &self.serving.manifest;
        let group = match &self.host.cgroup {
            Some(cgroup) => {
                let name = format!("{}-{}-{start}", self.host.owner, self.number);
                Some(cgroup.group(&name, manifest)?)
            }
            None => None,
        };
        let memory = manifest.limits.memory.0;
        let has_memory_group = self
            .host
            .cgroup
            .as_ref()
            .is_some_and(|cgroup| cgroup.limits_memory());
        let ((stdout, stdout_in), (stderr, stderr_in)) = (io::pipe()?, io::pipe()?);
        let launch = Launch {
            entry: manifest.entry.clone(),
            folder: self.files.folder.clone(),
            arguments: self.settings.arguments.clone(),
            variables: self.variables(),
            socket: self.serving.pool.door.socket()?,
            user: self.host.user,
            own_network: self.host.may_own_network && !self.given.network,
            open_files_max: self.settings.open_files.into(),
            data_bytes_max: (!has_memory_group).then(|| memory.saturating_mul(MAPPED_PER_USED)),
            cgroup: group.as_ref().map(Group::entrance).transpose()?,
            stdout: stdout_in.into(),
            stderr: stderr_in.into(),
        };
        let child = Child::start(launch, Arc::clone(&self.host.forks)).await?;
        let pumps = Pumps::start(&self.serving.log, child.pid(), stdout.into(), stderr.into())?;
        Ok(Running { child, pumps, group })
    }

    fn variables(&self) -> Vec<(String, String)> {
        let (manifest, home) = (&self.serving.manifest, self.home.display().to_string());
        let own = [
            ("PATH", PATH.to_owned()),
            ("LANG", "C.UTF-8".to_owned()),
            ("HOME", home.clone()),
            ("TMPDIR", home),
            ("NOTIFY_SOCKET", self.notify.path().display().to_string()),
            ("HOTSWAP_MODULE", manifest.name.to_string()),
            ("HOTSWAP_VERSION", manifest.version.to_string()),
            ("HOTSWAP_NODE", self.serving.log.node.clone()),
            (super::sweep::RUN_VARIABLE, self.host.owner.clone()),
        ];
        let own = own.map(|(name, value)| (name.to_owned(), value));
        own.into_iter().chain(self.given.variables.clone()).collect()
    }

    /// Waits until the process answers its path for that well.
    async fn answers(&self) -> io::Result<()> {
        let path = self.settings.ready_path.as_deref().unwrap_or("/");
        loop {
            if self.answers_once(path).await {
                return Ok(());
            }
            tokio::time::sleep(PROBE_PAUSE).await;
        }
    }

    async fn answers_once(&self, path: &str) -> bool {
        let Ok(mut sender) = self.serving.pool.connect().await else {
            return false;
        };
        let request = Request::builder()
            .method(Method::GET)
            .uri(path)
            .header(header::HOST, "localhost")
            .header(header::CONNECTION, "close")
            .body(Body::empty());
        let Ok(request) = request else { return false };
        match sender.send_request(request).await {
            Ok(answer) => answer.status().as_u16() < 400,
            Err(_) => false,
        }
    }
}

impl Drop for Starter {
    fn drop(&mut self) {
        // The host's own end takes what is left.
        let _ = std::fs::remove_dir_all(&self.room);
    }
}

impl Running {
    /// What it uses now.
    pub(super) fn used(&self) -> Used {
        let mut used = usage::of_tree(self.child.pid());
        if let Some(cpu) = self.group.as_ref().and_then(Group::cpu) {
            used.cpu = cpu;
        }
        used
    }

    /// How and when it ended, to be put behind "it".
    pub(super) async fn why(&mut self, exit: Exit, when: &str) -> String {
        use std::os::unix::process::ExitStatusExt as _;
        let out_of_memory = self.group.as_ref().is_some_and(Group::ran_out_of_memory);
        let ended = match (exit.status.signal(), exit.status.code()) {
            _ if out_of_memory => "was killed by the system: it used all the memory that it may".to_owned(),
            (Some(signal), _) => format!("was killed by signal {signal}"),
            (None, Some(code)) => format!("ended with status {code}"),
            (None, None) => "ended".to_owned(),
        };
        ended + when + &self.pumps.last_words().await
    }

    /// Ends it: it is asked to, then made to. Says whether it had to be.
    pub(super) async fn stop(&mut self, deadline: Duration) -> (Exit, bool) {
        self.child.signal(Signal::TERM);
        if let Ok(exit) = tokio::time::timeout(deadline, self.child.ended()).await {
            return (exit, false);
        }
        self.kill();
        (self.child.ended().await, true)
    }

    pub(super) fn kill(&self) {
        self.child.signal(Signal::KILL);
        if let Some(group) = &self.group {
            group.kill();
        }
    }
}
