//! The host: whether this machine can load modules, and the way from an artifact to a version.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hotswap_core::ids::Digest;
use hotswap_package::{Kind, Manifest, Style};
use tokio::task::spawn_blocking;

use super::blame::{RECORD, judge};
use super::config::KernelHostConfig;
use super::counting::Counting;
use super::instance::{KernelInstance, Loaded, State};
use super::module::{Module, Node};
use super::object::{Inspected, inspect};
use super::record::Record;
use super::swap::Version;
use super::sysfs::Sysfs;
use super::system::{Linux, System};
use super::watchdog::Watchdog;
use super::work::{Ended, work};
use crate::kind::{
    Artifact, BoxFuture, Instance, Launch, PrepareError, Prepared, Runtime, StartError, label,
};
use crate::shared::Shared;

const CAP_DAC_OVERRIDE: u32 = 1;
const CAP_SYS_MODULE: u32 = 16;
/// Longest wait for a load that is under way when another process takes the node over.
const RELEASE_TIME_MAX: Duration = Duration::from_secs(5);

/// Loads kernel modules. Cheap to clone; the clones are one host.
#[derive(Clone, Debug)]
pub struct KernelHost {
    shared: Arc<HostShared>,
}

/// Why there is no host.
#[derive(Debug, thiserror::Error)]
pub enum KernelHostError {
    /// This process may not load modules.
    #[error(
        "a privilege lacks: run as root, or with CAP_SYS_MODULE (and CAP_DAC_OVERRIDE for gates and livepatches)"
    )]
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
    node: Node,
    modules: Shared<String, Module>,
    /// The number of the node's newest load, once it was judged what other boots left.
    newest: Mutex<Option<Arc<AtomicU64>>>,
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
        let mut host = Self::with(config, Arc::new(Linux))?;
        if let Some(shared) = Arc::get_mut(&mut host.shared) {
            let is_root = fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0);
            let overrides = crate::process::capabilities() & (1 << CAP_DAC_OVERRIDE) != 0;
            shared.node.has_roots_files = is_root || overrides;
        }
        Ok(host)
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
                dir: config.dir,
                node: Node {
                    watchdog: Arc::new(Watchdog::new(config.watchdog.as_deref(), Sysfs(&*system))),
                    system,
                    boot,
                    release,
                    turn: Arc::default(),
                    watched: Arc::default(),
                    has_roots_files: true,
                },
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
        let judged = judge(dir, &self.node.boot, &self.node.release)?;
        Ok(Arc::clone(newest.insert(Arc::new(AtomicU64::new(judged)))))
    }

    fn module(&self, dir: &Path, name: &str) -> io::Result<Arc<Module>> {
        let newest = self.newest(dir)?;
        self.modules.get_or_make(name.to_owned(), || {
            let dir = dir.join(name);
            let record = Record::read(&dir.join(RECORD), &self.node.boot)?;
            Ok(Module::new(dir, self.node.clone(), newest, record))
        })
    }
}

impl Runtime for KernelHost {
    fn kind(&self) -> Kind {
        Kind::Kernel
    }

    fn release(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.release_all())
    }

    fn prepare(&self, artifact: Artifact) -> BoxFuture<'_, Result<Arc<dyn Prepared>, PrepareError>> {
        let shared = Arc::clone(&self.shared);
        Box::pin(async move {
            artifact.must_be(Kind::Kernel)?;
            let inspected =
                inspect(&artifact.manifest, &artifact.content).map_err(PrepareError::WrongFormat)?;
            if shared.dir.is_some() {
                inspected
                    .for_kernel(&shared.node.release)
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

impl KernelHost {
    /// Has each module noted, and left alone from then on.
    async fn release_all(&self) {
        let modules = self.shared.modules.all();
        let released = work(move |until| {
            until.within(RELEASE_TIME_MAX);
            for module in modules {
                module.release();
            }
        });
        if released.await != Ended::Done {
            tracing::warn!("a kernel module is still being loaded while another agent takes this node over");
            for module in self.shared.modules.all() {
                module.leave_to_others();
            }
        }
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
        if self.shared.dir.is_some() && kernel.style != Style::Plain && !self.shared.node.has_roots_files {
            return Err(failed(format!(
                "this agent may not write to the kernel's files, by which modules of style {} are switched: run it as root, \
                 or with CAP_DAC_OVERRIDE",
                kernel.style
            )));
        }
        let mut turn = 0;
        let at = match &self.shared.dir {
            None => None,
            Some(dir) => {
                let shared = &self.shared;
                let build = self.inspected.for_kernel(&shared.node.release).map_err(failed)?;
                let module = shared.module(dir, manifest.name.as_str()).map_err(|error| {
                    failed(format!(
                        "what is remembered of earlier loads can't be read: {error}"
                    ))
                })?;
                let release = digest.hex();
                let mut users = module.lock().map_err(failed)?;
                module
                    .reclaim(&mut users)
                    .map_err(|error| failed(format!("what another agent left can't be read: {error}")))?;
                turn = users.turn;
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
            turn,
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
