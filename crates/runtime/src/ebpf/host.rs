//! The host: whether this machine can run eBPF modules, and the way from an artifact to a loaded version.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::fs;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use hotswap_core::ids::{Digest, ModuleName};
use hotswap_package::{Ebpf, Kind, Manifest, On};
use tokio::task::spawn_blocking;

use super::config::EbpfHostConfig;
use super::counting::Counting;
use super::hook::Place;
use super::instance::{EbpfInstance, Loaded, Pinned, State};
use super::load::{self, Carried};
use super::object::{Inspected, inspect};
use super::pins::{self, Module};
use crate::grants::Ungranted;
use crate::kind::{
    Artifact, BoxFuture, Instance, Launch, PrepareError, Prepared, Runtime, StartError, label,
};
use crate::shared::Shared;

/// What programs can't be loaded and attached without; the first of them stands for both others.
const CAP_SYS_ADMIN: u32 = 21;
const CAP_NET_ADMIN: u32 = 12;
const CAP_BPF: u32 = 39;

/// Runs eBPF modules. Cheap to clone; the clones are one host.
#[derive(Clone, Debug)]
pub struct EbpfHost {
    shared: Arc<HostShared>,
}

/// Why there is no host.
#[derive(Debug, thiserror::Error)]
pub enum EbpfHostError {
    /// There is no file system for pins.
    #[error("{} is no mounted bpffs, where programs are pinned; mount it: mount -t bpf bpf {}", .0.display(), .0.display())]
    NoBpffs(PathBuf),
    /// This process may not load programs.
    #[error("a privilege lacks: run as root, or with CAP_BPF and CAP_NET_ADMIN")]
    NoPrivilege,
}

/// Whether a file system for pins is mounted there.
pub fn is_bpffs(path: &Path) -> bool {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    mounts.lines().any(|line| {
        let mut fields = line.split(' ').skip(1);
        fields.next().is_some_and(|mounted| path.as_os_str() == mounted) && fields.next() == Some("bpf")
    })
}

#[derive(Debug)]
struct HostShared {
    config: EbpfHostConfig,
    modules: Shared<(String, String), Module>,
    /// As long as it is open, the kernel counts how often and how long programs run.
    _stats: Option<OwnedFd>,
}

impl EbpfHost {
    /// Makes a host.
    ///
    /// # Errors
    /// This process may not load programs, or there is nowhere to pin them.
    pub fn new(config: EbpfHostConfig) -> Result<Self, EbpfHostError> {
        let capabilities = crate::process::capabilities();
        let has = |capability: u32| capabilities & (1 << capability) != 0;
        let may_load = has(CAP_SYS_ADMIN) || (has(CAP_BPF) && has(CAP_NET_ADMIN));
        if !may_load {
            return Err(EbpfHostError::NoPrivilege);
        }
        if let Some(bpffs) = config.bpffs.as_ref().filter(|path| !is_bpffs(path)) {
            return Err(EbpfHostError::NoBpffs(bpffs.clone()));
        }
        // Without them the declared counters still count.
        let stats = config.bpffs.as_ref().and_then(|_| {
            aya::sys::enable_stats(aya::sys::Stats::RunTime)
                .inspect_err(|error| tracing::warn!(%error, "the kernel doesn't say how long programs run"))
                .ok()
        });
        Ok(Self {
            shared: Arc::new(HostShared {
                config,
                modules: Shared::default(),
                _stats: stats,
            }),
        })
    }
}

impl HostShared {
    /// The module's files on a node, shared by all its versions.
    fn module(&self, node: &str, module: &str) -> Option<Arc<Module>> {
        let bpffs = self.config.bpffs.as_ref()?;
        let key = (node.to_owned(), module.to_owned());
        let new = || Ok::<_, Infallible>(Module::new(bpffs, node, module));
        let Ok(module) = self.modules.get_or_make(key, new);
        Some(module)
    }

    /// Lets go of all modules of a node but these, and but those that are loaded.
    fn retain(&self, node: &str, modules: &BTreeSet<ModuleName>) {
        let bpffs = self.config.bpffs.as_deref();
        let there = bpffs.map(|bpffs| pins::modules(bpffs, node)).unwrap_or_default();
        let gone = there
            .iter()
            .filter(|name| modules.iter().all(|kept| kept.as_str() != *name));
        for name in gone {
            if self
                .module(node, name)
                .is_some_and(|module| module.clear_unused())
            {
                tracing::info!(
                    module = name,
                    "what was left of a module that is no more on this node is gone"
                );
            }
        }
    }
}

impl Runtime for EbpfHost {
    fn kind(&self) -> Kind {
        Kind::Ebpf
    }

    fn retain(&self, node: &str, modules: &BTreeSet<ModuleName>) -> BoxFuture<'static, ()> {
        let (shared, node, modules) = (Arc::clone(&self.shared), node.to_owned(), modules.clone());
        Box::pin(async move {
            // Removing a link waits for the programs that run.
            if let Err(panic) = spawn_blocking(move || shared.retain(&node, &modules)).await {
                tracing::error!(%panic, "what was left of modules could not be removed");
            }
        })
    }

    fn prepare(&self, artifact: Artifact) -> BoxFuture<'_, Result<Arc<dyn Prepared>, PrepareError>> {
        let shared = Arc::clone(&self.shared);
        Box::pin(async move {
            artifact.must_be(Kind::Ebpf)?;
            let (manifest, content) = (Arc::clone(&artifact.manifest), artifact.content.clone());
            // An object of some MiB takes its time to read.
            let inspected = spawn_blocking(move || inspect(&manifest, &content)).await;
            let inspected = inspected
                .map_err(|panic| PrepareError::Host(panic.to_string()))?
                .map_err(PrepareError::WrongFormat)?;
            Ok(Arc::new(PreparedEbpf {
                shared,
                artifact,
                inspected,
            }) as Arc<dyn Prepared>)
        })
    }
}

/// An object that is what its manifest says.
#[derive(Clone)]
struct PreparedEbpf {
    shared: Arc<HostShared>,
    artifact: Artifact,
    inspected: Inspected,
}

impl PreparedEbpf {
    fn load(&self, launch: &Launch) -> Result<Loaded, StartError> {
        let manifest = &self.artifact.manifest;
        let digest = self.artifact.digest.under(launch.config);
        let pinned = match launch
            .node
            .as_deref()
            .and_then(|node| self.shared.module(node, manifest.name.as_str()))
        {
            Some(module) => Some(self.pin(&module, digest, launch)?),
            None => {
                load::try_load(self.section()?, &self.artifact.content).map_err(StartError::Failed)?;
                None
            }
        };
        Ok(Loaded {
            digest,
            label: label(manifest, launch.config),
            manifest: Arc::clone(manifest),
            pinned,
            state: Mutex::new(State::default()),
        })
    }

    fn section(&self) -> Result<&Ebpf, StartError> {
        let section = self.artifact.manifest.ebpf.as_ref();
        section.ok_or_else(|| StartError::Failed("the manifest has no [ebpf]".to_owned()))
    }

    fn pin(&self, module: &Arc<Module>, digest: Digest, launch: &Launch) -> Result<Pinned, StartError> {
        let failed = StartError::Failed;
        let ebpf = self.section()?;
        let places = self.places(launch)?;
        // Before anything is loaded: an interface that isn't here needs no verifier to say so.
        for place in &places {
            place.exists().map_err(failed)?;
        }
        let release = digest.hex();
        let _loading = module.loading();
        let maps = {
            let mut users = module.lock();
            let maps = load::carried(module, &release, ebpf, &self.inspected).map_err(failed)?;
            // From here on nobody takes away what it finds and makes.
            users.enter(&release, maps.values().cloned().collect());
            maps
        };
        self.pin_all(module, &release, &maps, &places).map_err(|problem| {
            let mut users = module.lock();
            if users.leave(&release) {
                // What is half there would be taken for whole the next time.
                module.forget(&release);
            }
            if users.loaded.is_empty() {
                module.remove_empty();
            }
            StartError::Failed(problem)
        })
    }

    fn pin_all(
        &self,
        module: &Arc<Module>,
        release: &str,
        maps: &Carried,
        places: &[Place],
    ) -> Result<Pinned, String> {
        let ebpf = self.section().map_err(|error| error.to_string())?;
        let looked_at = (ebpf, &self.inspected);
        let hooks = load::programs(module, release, (ebpf, &self.artifact.content), maps, places)?;
        let sources = load::sources(module, release, looked_at, maps)?;
        let moves = load::moves(module, release, looked_at, maps)?;
        Ok(Pinned {
            module: Arc::clone(module),
            release: release.to_owned(),
            hooks,
            moves,
            counting: Counting::new(ebpf, sources),
        })
    }

    /// Where the programs are attached here: as the manifest says, or the variables that it names.
    fn places(&self, launch: &Launch) -> Result<Vec<Place>, StartError> {
        let config = &self.shared.config;
        let manifest = &self.artifact.manifest;
        let missing = config
            .grants
            .missing_variables(&manifest.capabilities, &launch.values);
        if !missing.is_empty() && config.ungranted == Ungranted::Refuse {
            return Err(StartError::NotGiven(missing));
        }
        let value = |text: &Option<String>| match text.as_deref().unwrap_or_default() {
            text if !text.starts_with('$') => Ok(text.to_owned()),
            variable => {
                let name = &variable[1..];
                let value = launch
                    .values
                    .get(name)
                    .or_else(|| config.grants.variables.get(name));
                value
                    .cloned()
                    .ok_or_else(|| StartError::NotGiven(vec![format!("the variable {name}")]))
            }
        };
        let programs = manifest.ebpf.iter().flat_map(|ebpf| &ebpf.programs);
        programs
            .map(|program| match program.attach.on() {
                On::Interface => Ok(Place::Interface(value(&program.interface)?)),
                On::Cgroup => Ok(Place::Cgroup(PathBuf::from(value(&program.cgroup)?))),
                On::Tracepoint => Ok(Place::Tracepoint(value(&program.tracepoint)?)),
            })
            .collect()
    }
}

impl Prepared for PreparedEbpf {
    fn digest(&self) -> Digest {
        self.artifact.digest
    }

    fn manifest(&self) -> &Manifest {
        &self.artifact.manifest
    }

    fn start(&self, launch: Launch) -> BoxFuture<'_, Result<Arc<dyn Instance>, StartError>> {
        let prepared = self.clone();
        Box::pin(async move {
            // The verifier takes its time.
            let loaded = spawn_blocking(move || prepared.load(&launch)).await;
            let loaded = loaded.map_err(|panic| StartError::Failed(panic.to_string()))??;
            Ok(Arc::new(EbpfInstance {
                loaded: Arc::new(loaded),
            }) as Arc<dyn Instance>)
        })
    }
}
