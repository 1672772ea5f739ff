//! The host: where processes are started from, as whom, and with what.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use hotswap_core::ids::Digest;
use hotswap_package::{Kind, Manifest, needs};

use super::cgroup::Cgroup;
use super::config::{ProcessHostConfig, User};
use super::instance::ProcessInstance;
use super::notify::Notify;
use super::output::Log;
use super::pool::{Door, Pool};
use super::start::Starter;
use super::state::Serving;
use super::sweep;
use crate::grants::Ungranted;
use crate::kind::{
    Artifact, BoxFuture, Instance, Launch, PrepareError, Prepared, Runtime, StartError, label,
};

/// Longest path of a socket, in bytes, with the zero at its end: the system's limit.
const SOCKET_PATH_BYTES_MAX: usize = 108;
/// What a socket's path has behind its host's folder at most.
const SOCKET_PATH_REST: usize = "/18446744073709551615/notify".len();
/// Where sockets go if the folder for temporary files has too long a name.
const SHORT_DIR: &str = "/tmp";
/// Names that are tried for the folder of sockets, which others may make folders beside.
const NAMES_MAX: u32 = 16;
/// Folders that others may pass through but not list.
const PASSABLE: u32 = 0o711;
/// What makes it possible to change users, and to make networks.
const CAP_SETGID: u32 = 6;
const CAP_SETUID: u32 = 7;
const CAP_SYS_ADMIN: u32 = 21;

/// Runs process modules. Cheap to clone; the clones are one host.
#[derive(Clone, Debug)]
pub struct ProcessHost {
    shared: Arc<HostShared>,
}

/// Why there is no host.
#[derive(Debug, thiserror::Error)]
pub enum ProcessHostError {
    /// Its folder can't be used.
    #[error("the folder for processes {} can't be used; it must be writable: mend that, or give another data folder", path.display())]
    Dir {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The control group can't be used.
    #[error("the control group {} can't be used; name one of version 2 that is this agent's own, or none", path.display())]
    Cgroup {
        /// The group.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// What all releases of a host share.
#[derive(Debug)]
pub(super) struct HostShared {
    pub(super) config: ProcessHostConfig,
    /// The host's name, in folders, groups and environments.
    pub(super) owner: String,
    /// As whom processes run, if that is another user.
    pub(super) user: Option<User>,
    /// Whether processes can get networks of their own.
    pub(super) may_own_network: bool,
    pub(super) cgroup: Option<Cgroup>,
    /// Held while files for execution are written, and while processes are started.
    pub(super) forks: Arc<Mutex<()>>,
    /// Where executables are.
    folder: PathBuf,
    /// Where sockets and the processes' own folders are.
    sockets: PathBuf,
    numbers: AtomicU64,
    /// Keeps the number that a process finds its socket at from being one that is needed to start it.
    _third: OwnedFd,
}

/// What a module asked for and gets.
#[derive(Debug, Default)]
pub(super) struct Given {
    /// The machine's network, where it could have one of its own.
    pub(super) network: bool,
    pub(super) variables: Vec<(String, String)>,
}

/// A release's executable, removed when nothing needs it any more.
#[derive(Debug)]
pub(super) struct Files {
    pub(super) folder: PathBuf,
}

impl Drop for Files {
    fn drop(&mut self) {
        // The host's own end takes what is left.
        let _ = fs::remove_dir_all(&self.folder);
    }
}

impl ProcessHost {
    /// Makes a host, after it has ended what an earlier one left running.
    ///
    /// # Errors
    /// Its folder or its control group can't be used.
    pub fn new(config: ProcessHostConfig) -> Result<Self, ProcessHostError> {
        static HOSTS: AtomicU64 = AtomicU64::new(0);
        let cgroup = Cgroup::open(config.cgroup.as_deref()).map_err(|source| ProcessHostError::Cgroup {
            path: config.cgroup.clone().unwrap_or_default(),
            source,
        })?;
        let owner = sweep::owner(HOSTS.fetch_add(1, Ordering::Relaxed));
        let dir = config.dir.clone();
        let made = || {
            passable(true).create(&dir)?;
            sweep::sweep(&dir, cgroup.as_ref())?;
            let folder = dir.join(&owner);
            passable(false).create(&folder)?;
            let sockets = sockets(&owner)?;
            sweep::note(&folder, &sockets)?;
            Ok((folder, sockets, fs::File::open("/dev/null")?.into()))
        };
        let (folder, sockets, third) = made().map_err(|source| ProcessHostError::Dir {
            path: dir.clone(),
            source,
        })?;
        let capabilities = capabilities();
        let has = |capability: u32| capabilities & (1 << capability) != 0;
        let is_root = rustix::process::geteuid().is_root();
        let may_change_user = is_root && has(CAP_SETUID) && has(CAP_SETGID) && config.user.uid != 0;
        Ok(Self {
            shared: Arc::new(HostShared {
                user: may_change_user.then_some(config.user),
                may_own_network: has(CAP_SYS_ADMIN),
                config,
                owner,
                cgroup,
                forks: Arc::default(),
                folder,
                sockets,
                numbers: AtomicU64::new(0),
                _third: third,
            }),
        })
    }

    async fn prepare_artifact(&self, artifact: Artifact) -> Result<PreparedProcess, PrepareError> {
        artifact.must_be(Kind::Process)?;
        let Artifact {
            digest,
            manifest,
            content,
        } = artifact;
        if let Some(problem) = Kind::Process.artifact_problem(&content) {
            return Err(PrepareError::WrongFormat(problem));
        }
        let here = format!("arch:{}", std::env::consts::ARCH);
        if let Some(other) = needs(&manifest, &content)
            .into_iter()
            .find(|need| need.starts_with("arch:") && *need != here)
        {
            return Err(PrepareError::WrongFormat(format!(
                "it needs {other}, and this node is {here}"
            )));
        }
        let config = &self.shared.config;
        let missing = config.grants.missing_hosts(&manifest.capabilities);
        if config.ungranted == Ungranted::Refuse && !missing.is_empty() {
            return Err(PrepareError::NotGranted(missing));
        }
        let (shared, entry) = (Arc::clone(&self.shared), manifest.entry.clone());
        let written = tokio::task::spawn_blocking(move || shared.write(&entry, &content)).await;
        let files = written
            .map_err(io::Error::other)
            .and_then(|written| written)
            .map_err(|error| PrepareError::Host(format!("the executable can't be written: {error}")))?;
        Ok(PreparedProcess {
            host: Arc::clone(&self.shared),
            files: Arc::new(files),
            digest,
            manifest,
        })
    }
}

impl HostShared {
    fn next_number(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::Relaxed)
    }

    fn write(&self, entry: &str, content: &[u8]) -> io::Result<Files> {
        use std::io::Write as _;
        let files = Files {
            folder: self.folder.join(format!("release-{}", self.next_number())),
        };
        passable(false).create(&files.folder)?;
        let path = files.folder.join(entry);
        // No process is started meanwhile, which would inherit the open file and keep it from being executed.
        let _forks = self.forks.lock().unwrap_or_else(PoisonError::into_inner);
        let mut file = fs::File::options()
            .create_new(true)
            .write(true)
            .mode(0o755)
            .open(&path)?;
        file.write_all(content)?;
        // Whatever the mask took away: the process may be another user's.
        file.set_permissions(fs::Permissions::from_mode(0o755))?;
        Ok(files)
    }

    /// What a module asks for and gets: all of it, or nothing, since half of it is what nobody has tried.
    ///
    /// # Errors
    /// A variable is given nowhere, where that matters.
    fn given(&self, manifest: &Manifest, launch: &Launch) -> Result<Given, StartError> {
        let (asked, grants) = (&manifest.capabilities, &self.config.grants);
        let missing = grants.missing_variables(asked, &launch.values);
        if !missing.is_empty() && self.config.ungranted == Ungranted::Refuse {
            return Err(StartError::NotGiven(missing));
        }
        if !missing.is_empty() || !grants.missing_hosts(asked).is_empty() {
            return Ok(Given::default());
        }
        let value = |name: &String| launch.values.get(name).or_else(|| grants.variables.get(name));
        let variables = asked.environment.iter();
        Ok(Given {
            network: !asked.outbound_hosts.is_empty(),
            variables: variables
                .filter_map(|name| Some((name.clone(), value(name)?.clone())))
                .collect(),
        })
    }

    /// A folder of one loaded release: its sockets, and a folder of its process's own.
    fn room(&self, number: u64) -> io::Result<(PathBuf, PathBuf)> {
        let room = self.sockets.join(number.to_string());
        passable(false).create(&room)?;
        let home = room.join("home");
        fs::DirBuilder::new().mode(0o700).create(&home)?;
        self.give(&home)?;
        Ok((room, home))
    }

    /// Gives a file to the user that processes run as.
    fn give(&self, path: &Path) -> io::Result<()> {
        match self.user {
            Some(user) => std::os::unix::fs::chown(path, Some(user.uid), Some(user.gid)),
            None => Ok(()),
        }
    }
}

impl Drop for HostShared {
    fn drop(&mut self) {
        // What can't be removed is the next host's to sweep.
        let _ = fs::remove_dir_all(&self.sockets);
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn passable(parents: bool) -> fs::DirBuilder {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(parents).mode(PASSABLE);
    builder
}

/// A new folder whose path is short enough for sockets, and open for other users to pass.
fn sockets(owner: &str) -> io::Result<PathBuf> {
    let temporary = std::env::temp_dir();
    let length = temporary.as_os_str().len() + 1 + owner.len() + "-99".len();
    let parent = if length + SOCKET_PATH_REST < SOCKET_PATH_BYTES_MAX {
        temporary
    } else {
        PathBuf::from(SHORT_DIR)
    };
    let mut last = io::Error::other("no name was tried");
    for number in 0..NAMES_MAX {
        let path = parent.join(format!("{owner}-{number}"));
        match passable(false).create(&path) {
            Ok(()) => {
                fs::set_permissions(&path, fs::Permissions::from_mode(PASSABLE))?;
                return Ok(path);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// What this process may do, a bit for each.
pub(crate) fn capabilities() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    effective
        .and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok())
        .unwrap_or(0)
}

impl Runtime for ProcessHost {
    fn kind(&self) -> Kind {
        Kind::Process
    }

    fn prepare(&self, artifact: Artifact) -> BoxFuture<'_, Result<Arc<dyn Prepared>, PrepareError>> {
        Box::pin(async move { Ok(Arc::new(self.prepare_artifact(artifact).await?) as Arc<dyn Prepared>) })
    }
}

/// An executable that can start.
struct PreparedProcess {
    host: Arc<HostShared>,
    files: Arc<Files>,
    digest: Digest,
    manifest: Arc<Manifest>,
}

impl PreparedProcess {
    fn starter(&self, launch: Launch) -> Result<Starter, StartError> {
        let given = self.host.given(&self.manifest, &launch)?;
        self.room(launch, given)
            .map_err(|error| StartError::Failed(error.to_string()))
    }

    fn room(&self, launch: Launch, given: Given) -> io::Result<Starter> {
        let (host, manifest) = (&self.host, &self.manifest);
        let number = host.next_number();
        let settings = manifest.process.clone().unwrap_or_default();
        let (room, home) = host.room(number)?;
        let door = Door::open(settings.socket, &room.join("http"))?;
        let notify = Notify::bind(&room.join("notify"))?;
        host.give(notify.path())?;
        let log = Log::new(
            manifest,
            label(manifest, launch.config),
            launch.node.unwrap_or_default(),
            host.config.log_lines_per_second_max,
        );
        let pool = Pool::new(door, manifest.limits.concurrency as usize);
        Ok(Starter {
            host: Arc::clone(host),
            files: Arc::clone(&self.files),
            serving: Serving::new(self.digest.under(launch.config), Arc::clone(manifest), pool, log),
            settings,
            given,
            notify,
            home,
            room,
            number,
            starts: AtomicU64::new(0),
        })
    }
}

impl Prepared for PreparedProcess {
    fn digest(&self) -> Digest {
        self.digest
    }

    fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    fn start(&self, launch: Launch) -> BoxFuture<'_, Result<Arc<dyn Instance>, StartError>> {
        Box::pin(async move {
            let starter = self.starter(launch)?;
            Ok(Arc::new(ProcessInstance::start(starter).await?) as Arc<dyn Instance>)
        })
    }
}
