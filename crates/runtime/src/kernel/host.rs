//! The host: whether this machine can load modules, and the way from an artifact to a version.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use hotswap_core::ids::Digest;
use hotswap_package::{Kind, Manifest};
use tokio::sync::Mutex as AsyncMutex;
use tokio::task::spawn_blocking;

use super::blame::{RECORD, judge};
use super::config::KernelHostConfig;
use super::counting::Counting;
use super::instance::{KernelInstance, Loaded, State};
use super::object::{Inspected, inspect};
use super::record::Record;
use super::swap::{Place, Version};
use super::sysfs::Sysfs;
use super::system::{Linux, System};
use super::watchdog::Watchdog;
use crate::kind::{
    Artifact, BoxFuture, Instance, Launch, PrepareError, Prepared, Runtime, StartError, label,
};
use crate::shared::Shared;

const CAP_SYS_MODULE: u32 = 16;
const FILE_EXTENSION: &str = "ko";

/// Loads kernel modules. Cheap to clone; the clones are one host.
#[derive(Clone, Debug)]
pub struct KernelHost {
    shared: Arc<HostShared>,
}

/// Why there is no host.
#[derive(Debug, thiserror::Error)]
pub enum KernelHostError {
    /// This process may not load modules.
    #[error("a privilege lacks: run as root, or with CAP_SYS_MODULE")]
    NoPrivilege,
    /// This kernel loads no modules until it is started again.
    #[error("this kernel loads no modules any more: kernel.modules_disabled is set")]
    Disabled,
    /// The kernel's files can't be read.
    #[error("{0}")]
    NoKernel(String),
}

#[derive(Debug)]
struct HostShared {
    dir: Option<PathBuf>,
    system: Arc<dyn System>,
    boot: String,
    release: String,
    watchdog: Arc<Watchdog>,
    /// Whose turn it is to load: one at a time, so that it is known who was if the node goes down.
    turn: Arc<AsyncMutex<()>>,
    modules: Shared<String, Module>,
    /// The number of the node's newest load, once it was judged what other boots left.
    newest: Mutex<Option<Arc<AtomicU64>>>,
}

/// A module's files on the node, and its place in the kernel, shared by all its versions.
#[derive(Debug)]
pub(super) struct Module {
    dir: PathBuf,
    pub(super) system: Arc<dyn System>,
    boot: String,
    release: String,
    pub(super) watchdog: Arc<Watchdog>,
    newest: Arc<AtomicU64>,
    pub(super) turn: Arc<AsyncMutex<()>>,
    users: Mutex<Users>,
    /// Who is to be in the place, also while somebody else is being put there.
    wanted: Mutex<Weak<Loaded>>,
}

/// What is known of a module in this process.
#[derive(Debug)]
pub(super) struct Users {
    pub(super) record: Record,
    /// Who put or found what is in the place.
    pub(super) active: Option<Arc<Loaded>>,
    /// How often each version is loaded, by its release.
    pub(super) loaded: BTreeMap<String, usize>,
    /// Whether the watchdog was told of an attempt.
    pub(super) watched: bool,
    /// A release that was dismissed while somebody was on the way to its place.
    pub(super) dismissed: Option<String>,
}

impl Module {
    pub(super) fn lock(&self) -> MutexGuard<'_, Users> {
        self.users.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn try_lock(&self) -> Option<MutexGuard<'_, Users>> {
        match self.users.try_lock() {
            Ok(users) => Some(users),
            Err(std::sync::TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(std::sync::TryLockError::WouldBlock) => None,
        }
    }

    fn wanted(&self) -> MutexGuard<'_, Weak<Loaded>> {
        self.wanted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An instance is to be in the place from now on, and no other one.
    pub(super) fn want(&self, loaded: &Arc<Loaded>) {
        *self.wanted() = Arc::downgrade(loaded);
    }

    /// An instance ends.
    pub(super) fn want_no_more(&self, loaded: &Loaded) {
        let mut wanted = self.wanted();
        if std::ptr::eq(wanted.as_ptr(), loaded) {
            *wanted = Weak::new();
        }
    }

    /// Whether it is this instance that is to be in the place.
    pub(super) fn wants(&self, loaded: &Loaded) -> bool {
        std::ptr::eq(self.wanted().as_ptr(), loaded)
    }

    /// Whether who is to be in the place is on the way there.
    pub(super) fn is_awaiting(&self) -> bool {
        let wanted = self.wanted().upgrade();
        wanted.is_some_and(|wanted| wanted.is_on_its_way())
    }

    /// Works on the module's place.
    pub(super) fn at<T>(&self, record: &mut Record, work: impl FnOnce(&mut Place<'_>) -> T) -> T {
        work(&mut Place {
            system: &*self.system,
            record,
            path: &self.dir.join(RECORD),
            boot: &self.boot,
            release: &self.release,
            next_number: &|| self.newest.fetch_add(1, Ordering::Relaxed) + 1,
        })
    }

    pub(super) fn sysfs(&self) -> Sysfs<'_> {
        Sysfs(&*self.system)
    }

    /// The module's name on the node.
    pub(super) fn name(&self) -> &str {
        self.dir
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default()
    }

    pub(super) fn release(&self) -> &str {
        &self.release
    }

    fn file(&self, release: &str) -> PathBuf {
        self.dir.join(format!("{release}.{FILE_EXTENSION}"))
    }

    /// Removes files of versions that nobody uses any more.
    pub(super) fn sweep(&self, users: &Users) {
        let active = users.record.active.as_ref().map(|active| active.release.as_str());
        for entry in fs::read_dir(&self.dir).into_iter().flatten().flatten() {
            let path = entry.path();
            let release = path.file_stem().map(|stem| stem.to_string_lossy().into_owned());
            let is_file = path
                .extension()
                .is_some_and(|extension| extension == FILE_EXTENSION);
            let Some(release) = release.filter(|_| is_file) else {
                continue;
            };
            if active != Some(&release)
                && !users.loaded.contains_key(&release)
                && let Err(error) = fs::remove_file(&path)
            {
                tracing::warn!(%error, path = %path.display(), "a version's file could not be removed");
            }
        }
    }
}

impl KernelHost {
    /// Makes a host.
    ///
    /// # Errors
    /// This process may not load modules, or its kernel doesn't any more.
    pub fn new(config: KernelHostConfig) -> Result<Self, KernelHostError> {
        if config.dir.is_some() && crate::process::capabilities() & (1 << CAP_SYS_MODULE) == 0 {
            return Err(KernelHostError::NoPrivilege);
        }
        Self::with(config, Arc::new(Linux))
    }

    pub(super) fn with(config: KernelHostConfig, system: Arc<dyn System>) -> Result<Self, KernelHostError> {
        let sysfs = Sysfs(&*system);
        if config.dir.is_some() && sysfs.number("/proc/sys/kernel/modules_disabled") == Ok(1) {
            return Err(KernelHostError::Disabled);
        }
        let release = sysfs.release().map_err(KernelHostError::NoKernel)?;
        let boot = sysfs.boot().map_err(KernelHostError::NoKernel)?;
        Ok(Self {
            shared: Arc::new(HostShared {
                watchdog: Arc::new(Watchdog::new(config.watchdog.as_deref())),
                dir: config.dir,
                system,
                boot,
                release,
                turn: Arc::default(),
                modules: Shared::default(),
                newest: Mutex::default(),
            }),
        })
    }
}

impl HostShared {
    /// The count of the node's loads; whom another boot's end is blamed on is settled before.
    fn newest(&self, dir: &Path) -> io::Result<Arc<AtomicU64>> {
        let mut newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(newest) = &*newest {
            return Ok(Arc::clone(newest));
        }
        let judged = judge(dir, &self.boot, &self.release)?;
        Ok(Arc::clone(newest.insert(Arc::new(AtomicU64::new(judged)))))
    }

    fn module(&self, dir: &Path, name: &str) -> io::Result<Arc<Module>> {
        let newest = self.newest(dir)?;
        self.modules.get_or_make(name.to_owned(), || {
            let dir = dir.join(name);
            let record = Record::read(&dir.join(RECORD), &self.boot)?;
            Ok(Module {
                dir,
                system: Arc::clone(&self.system),
                boot: self.boot.clone(),
                release: self.release.clone(),
                watchdog: Arc::clone(&self.watchdog),
                newest,
                turn: Arc::clone(&self.turn),
                users: Mutex::new(Users {
                    record,
                    active: None,
                    loaded: BTreeMap::new(),
                    watched: false,
                    dismissed: None,
                }),
                wanted: Mutex::default(),
            })
        })
    }
}

impl Runtime for KernelHost {
    fn kind(&self) -> Kind {
        Kind::Kernel
    }

    fn prepare(&self, artifact: Artifact) -> BoxFuture<'_, Result<Arc<dyn Prepared>, PrepareError>> {
        let shared = Arc::clone(&self.shared);
        Box::pin(async move {
            artifact.must_be(Kind::Kernel)?;
            let inspected =
                inspect(&artifact.manifest, &artifact.content).map_err(PrepareError::WrongFormat)?;
            if shared.dir.is_some() {
                inspected
                    .for_kernel(&shared.release)
                    .map_err(PrepareError::WrongFormat)?;
            }
            Ok(Arc::new(PreparedKernel {
                shared,
                artifact,
                inspected,
            }) as Arc<dyn Prepared>)
        })
    }
}

/// Builds that are what their manifest says, one of them for this kernel.
#[derive(Clone)]
struct PreparedKernel {
    shared: Arc<HostShared>,
    artifact: Artifact,
    inspected: Inspected,
}

impl PreparedKernel {
    fn start(&self, launch: &Launch) -> Result<Loaded, StartError> {
        let failed = StartError::Failed;
        let manifest = &self.artifact.manifest;
        let kernel = manifest
            .kernel
            .as_ref()
            .ok_or_else(|| failed("the manifest has no [kernel]".to_owned()))?;
        let digest = self.artifact.digest.under(launch.config);
        let label = label(manifest, launch.config);
        let at = match &self.shared.dir {
            None => None,
            Some(dir) => {
                let shared = &self.shared;
                let build = self.inspected.for_kernel(&shared.release).map_err(failed)?;
                let module = shared.module(dir, manifest.name.as_str()).map_err(|error| {
                    failed(format!(
                        "what is remembered of earlier loads can't be read: {error}"
                    ))
                })?;
                let release = digest.hex();
                let mut users = module.lock();
                let file = module.file(&release);
                fs::create_dir_all(&module.dir)
                    .and_then(|()| fs::write(&file, &build.file))
                    .map_err(|error| failed(format!("{} can't be written: {error}", file.display())))?;
                *users.loaded.entry(release.clone()).or_insert(0) += 1;
                drop(users);
                let version = Version {
                    release,
                    label: label.clone(),
                    kernel: kernel.clone(),
                    file,
                    depends: build.depends.clone(),
                };
                Some((module, version))
            }
        };
        Ok(Loaded {
            digest,
            label,
            manifest: Arc::clone(manifest),
            at,
            counting: Mutex::new(Counting::new(kernel)),
            state: Mutex::new(State::default()),
        })
    }
}

impl Prepared for PreparedKernel {
    fn digest(&self) -> Digest {
        self.artifact.digest
    }

    fn manifest(&self) -> &Manifest {
        &self.artifact.manifest
    }

    fn start(&self, launch: Launch) -> BoxFuture<'_, Result<Arc<dyn Instance>, StartError>> {
        let prepared = self.clone();
        Box::pin(async move {
            let loaded = spawn_blocking(move || PreparedKernel::start(&prepared, &launch)).await;
            let loaded = loaded.map_err(|panic| StartError::Failed(panic.to_string()))??;
            Ok(Arc::new(KernelInstance {
                loaded: Arc::new(loaded),
            }) as Arc<dyn Instance>)
        })
    }
}
