//! The host: one engine for the process, its compiler, its clock.

use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use hotswap_core::ids::Digest;
use hotswap_package::{Kind, Manifest};
use tokio::sync::{OnceCell, Semaphore};
use wasmtime::component::{Component, Linker};
use wasmtime::{Config, Enabled, Engine, EngineWeak, InstanceAllocationStrategy, PoolingAllocationConfig};
use wasmtime_wasi_http::p2::bindings::ProxyPre;

use super::cache::Cache;
use super::check;
use super::config::WasmHostConfig;
use super::guest::Guest;
use super::instance::{Serving, WasmInstance};
use crate::grants::Ungranted;
use crate::kind::{Artifact, BoxFuture, Instance, Launch, PrepareError, Prepared, Runtime, StartError};

/// How long a guest runs before it lets others: an epoch. Short, because a worker thread of tokio looks for new
/// input only every 61 such turns while it is busy.
const EPOCH: Duration = Duration::from_millis(2);
/// How often idle instances that were not needed are freed.
const TRIM_PERIOD: Duration = Duration::from_secs(10);
/// Largest linear memory that a manifest may ask for; an instance's reservation covers it.
const MEMORY_BYTES_MAX: usize = 4 << 30;
/// Core instances, memories and tables for each instance of the pool, on average: a component of Rust has 3, 1 and
/// 2; one that bundles an interpreter has more, and fewer of those run.
const CORE_INSTANCES_PER_INSTANCE: u32 = 4;
const MEMORIES_PER_INSTANCE: u32 = 1;
const TABLES_PER_INSTANCE: u32 = 3;
/// Elements of a table, and bytes of an instance's own data.
const TABLE_ELEMENTS_MAX: usize = 100_000;
const INSTANCE_BYTES_MAX: usize = 4 << 20;
/// Memory of a freed instance that is cleared and kept, instead of given back, in bytes.
const KEEP_RESIDENT_BYTES: usize = 128 << 10;
/// Compilations at once: each uses all cores, which requests need too.
const COMPILATIONS_MAX: usize = 1;

/// Runs WebAssembly modules. Cheap to clone; the clones are one host.
#[derive(Clone)]
pub struct WasmHost {
    shared: Arc<HostShared>,
}

/// Why there is no host.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// wasmtime refuses to run here.
    #[error("the WebAssembly engine cannot start: {0}")]
    Engine(String),
    /// The cache's folder cannot be used.
    #[error(
        "the folder for compiled modules {path} cannot be used; it must be writable: mend that, or give another \
         data folder"
    )]
    CacheDir {
        /// The folder.
        path: String,
        /// What the system said.
        source: io::Error,
    },
    /// No thread for the clock.
    #[error("the epoch thread cannot start")]
    Thread(#[source] io::Error),
}

pub(super) struct HostShared {
    pub(super) config: WasmHostConfig,
    engine: Engine,
    linker: Linker<Guest>,
    cache: Option<Cache>,
    compilations: Semaphore,
    compilations_done: AtomicU64,
    compiled: Mutex<HashMap<Digest, Weak<CompiledCell>>>,
    serving: Mutex<Vec<Weak<Serving>>>,
}

type CompiledCell = OnceCell<Arc<Compiled>>;

/// A linked component.
pub(super) struct Compiled {
    pub(super) pre: ProxyPre<Guest>,
    component: Component,
}

impl WasmHost {
    /// Starts the engine and its clock.
    ///
    /// # Errors
    /// Where the machine or the cache's folder doesn't allow it.
    pub fn new(config: WasmHostConfig) -> Result<Self, HostError> {
        let engine = engine(&config)?;
        let linker = check::linker(&engine).map_err(|error| HostError::Engine(format!("{error:#}")))?;
        let cache = match &config.cache_dir {
            Some(dir) => Some(Cache::open(dir, &engine).map_err(|source| HostError::CacheDir {
                path: dir.display().to_string(),
                source,
            })?),
            None => None,
        };
        let shared = Arc::new(HostShared {
            config,
            linker,
            cache,
            compilations: Semaphore::new(COMPILATIONS_MAX),
            compilations_done: AtomicU64::new(0),
            compiled: Mutex::default(),
            serving: Mutex::default(),
            engine,
        });
        start_clock(&shared)?;
        Ok(Self { shared })
    }

    /// Components compiled since the start; those that were found compiled don't count.
    pub fn compilations(&self) -> u64 {
        self.shared.compilations_done.load(Ordering::Relaxed)
    }

    async fn prepare_artifact(&self, artifact: Artifact) -> Result<PreparedWasm, PrepareError> {
        artifact.must_be(Kind::Wasm)?;
        let Artifact {
            digest,
            manifest,
            content,
        } = artifact;
        let (bytes, max) = (content.len() as u64, self.shared.config.component_bytes_max);
        if bytes > max {
            return Err(PrepareError::TooLarge { bytes, max });
        }
        check::check_format(&content)?;
        if self.shared.config.ungranted == Ungranted::Refuse {
            let missing = self.shared.config.grants.missing_hosts(&manifest.capabilities);
            if !missing.is_empty() {
                return Err(PrepareError::NotGranted(missing));
            }
        }
        let cell = self.shared.cell(digest);
        let compiled = cell
            .get_or_try_init(|| Arc::clone(&self.shared).compile(digest, content))
            .await?;
        check::check_memory(&compiled.component, manifest.limits.memory.0)?;
        Ok(PreparedWasm {
            host: Arc::clone(&self.shared),
            compiled: Arc::clone(compiled),
            _cell: cell,
            digest,
            manifest,
        })
    }
}

impl HostShared {
    /// The one place where a digest's compiled code is, for as long as anybody uses it.
    fn cell(&self, digest: Digest) -> Arc<CompiledCell> {
        let mut compiled = lock(&self.compiled);
        if let Some(cell) = compiled.get(&digest).and_then(Weak::upgrade) {
            return cell;
        }
        compiled.retain(|_, cell| cell.strong_count() > 0);
        let cell = Arc::new(CompiledCell::new());
        compiled.insert(digest, Arc::downgrade(&cell));
        cell
    }

    async fn compile(self: Arc<Self>, digest: Digest, content: Bytes) -> Result<Arc<Compiled>, PrepareError> {
        let _permit = self
            .compilations
            .acquire()
            .await
            .expect("the semaphore is never closed");
        let shared = Arc::clone(&self);
        tokio::task::spawn_blocking(move || shared.compile_here(digest, &content))
            .await
            .map_err(|error| PrepareError::Host(error.to_string()))?
    }

    fn compile_here(&self, digest: Digest, content: &[u8]) -> Result<Arc<Compiled>, PrepareError> {
        let begun = Instant::now();
        let cached = self
            .cache
            .as_ref()
            .and_then(|cache| cache.load(&self.engine, digest));
        let was_cached = cached.is_some();
        let component = match cached {
            Some(component) => component,
            None => {
                self.compilations_done.fetch_add(1, Ordering::Relaxed);
                Component::new(&self.engine, content)
                    .map_err(|error| PrepareError::Invalid(format!("{error:#}")))?
            }
        };
        let pre = check::link(&self.linker, &component)?;
        if !was_cached && let Some(cache) = &self.cache {
            cache.store(digest, &component);
        }
        let micros = begun.elapsed().as_micros();
        tracing::debug!(%digest, was_cached, micros, "component ready");
        Ok(Arc::new(Compiled { pre, component }))
    }

    /// Has the clock free a release's unneeded instances from time to time.
    pub(super) fn keep_trimmed(&self, serving: &Arc<Serving>) {
        let mut all = lock(&self.serving);
        all.retain(|serving| serving.strong_count() > 0);
        all.push(Arc::downgrade(serving));
    }

    fn each_serving(&self, act: impl Fn(&Serving)) {
        let all: Vec<_> = lock(&self.serving).iter().filter_map(Weak::upgrade).collect();
        all.iter().for_each(|serving| act(serving));
    }

    /// Frees all idle instances of all releases.
    pub(super) fn free_idle(&self) {
        self.each_serving(Serving::free_idle);
    }
}

/// These locks guard maps that are sound after every step, so a panic elsewhere doesn't spoil them.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An engine with a pool of instances, or without where the address space is too small for one.
fn engine(config: &WasmHostConfig) -> Result<Engine, HostError> {
    let base = || {
        let mut base = Config::new();
        base.epoch_interruption(true)
            // Guests of WASI 0.2 run one call at a time; what serves concurrent ones costs each call.
            .concurrency_support(false)
            .wasm_backtrace_max_frames(None);
        base
    };
    let instances = config.instances_max.max(1);
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(instances)
        .total_core_instances(instances.saturating_mul(CORE_INSTANCES_PER_INSTANCE))
        .total_memories(instances.saturating_mul(MEMORIES_PER_INSTANCE))
        .total_tables(instances.saturating_mul(TABLES_PER_INSTANCE))
        .total_stacks(instances)
        .max_memory_size(MEMORY_BYTES_MAX)
        .max_component_instance_size(INSTANCE_BYTES_MAX)
        .max_core_instance_size(INSTANCE_BYTES_MAX)
        .table_elements(TABLE_ELEMENTS_MAX)
        .linear_memory_keep_resident(KEEP_RESIDENT_BYTES)
        .table_keep_resident(KEEP_RESIDENT_BYTES)
        .pagemap_scan(Enabled::Auto);
    let mut pooled = base();
    pooled.allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
    Engine::new(&pooled)
        .or_else(|error| {
            tracing::warn!("no pool of instances, so starting each costs more: {error:#}");
            Engine::new(&base())
        })
        .map_err(|error| HostError::Engine(format!("{error:#}")))
}

/// The clock: ends epochs, and trims. It ends with the host.
fn start_clock(shared: &Arc<HostShared>) -> Result<(), HostError> {
    let engine: EngineWeak = shared.engine.weak();
    let host = Arc::downgrade(shared);
    let run = move || {
        let mut trimmed = Instant::now();
        loop {
            thread::sleep(EPOCH);
            let Some(engine) = engine.upgrade() else { return };
            engine.increment_epoch();
            drop(engine);
            if trimmed.elapsed() >= TRIM_PERIOD {
                trimmed = Instant::now();
                let Some(host) = host.upgrade() else { return };
                host.each_serving(Serving::trim);
            }
        }
    };
    thread::Builder::new()
        .name("wasm-epochs".to_owned())
        .spawn(run)
        .map(drop)
        .map_err(HostError::Thread)
}

impl Runtime for WasmHost {
    fn kind(&self) -> Kind {
        Kind::Wasm
    }

    fn prepare(&self, artifact: Artifact) -> BoxFuture<'_, Result<Arc<dyn Prepared>, PrepareError>> {
        Box::pin(async move { Ok(Arc::new(self.prepare_artifact(artifact).await?) as Arc<dyn Prepared>) })
    }
}

/// A component that can start.
struct PreparedWasm {
    host: Arc<HostShared>,
    compiled: Arc<Compiled>,
    /// Keeps the compiled code known to the host.
    _cell: Arc<CompiledCell>,
    digest: Digest,
    manifest: Arc<Manifest>,
}

impl Prepared for PreparedWasm {
    fn digest(&self) -> Digest {
        self.digest
    }

    fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    fn start(&self, launch: Launch) -> BoxFuture<'_, Result<Arc<dyn Instance>, StartError>> {
        Box::pin(async move {
            let (host, compiled) = (Arc::clone(&self.host), Arc::clone(&self.compiled));
            let instance =
                WasmInstance::start(host, compiled, self.digest, Arc::clone(&self.manifest), launch).await?;
            Ok(Arc::new(instance) as Arc<dyn Instance>)
        })
    }
}
