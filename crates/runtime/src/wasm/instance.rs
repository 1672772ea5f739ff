//! One loaded release.

use std::sync::Arc;
use std::time::Duration;

use hotswap_core::ids::Digest;
use hotswap_package::Manifest;
use http::{Request, Response};
use wasmtime::{PoolConcurrencyLimitError, Store};

use super::call::Call;
use super::guest::Guest;
use super::host::{Compiled, HostShared};
use super::pool::{Pool, Worker};
use super::release::ReleaseState;
use crate::body::Body;
use crate::failure::Failure;
use crate::kind::{BoxFuture, Closed, Instance, Launch, Readiness, ResponseFuture, StartError, Usage};

/// A WebAssembly release, loaded: many sandboxes, one face.
pub struct WasmInstance {
    serving: Arc<Serving>,
}

/// What serves the requests of a release.
pub(super) struct Serving {
    pub(super) release: Arc<ReleaseState>,
    pool: Pool,
    compiled: Arc<Compiled>,
    host: Arc<HostShared>,
}

impl WasmInstance {
    /// Loads a release: its first worker is instantiated before this returns.
    pub(super) async fn start(
        host: Arc<HostShared>,
        compiled: Arc<Compiled>,
        digest: Digest,
        manifest: Arc<Manifest>,
        launch: Launch,
    ) -> Result<Self, StartError> {
        let time_max = host.config.start_time_max;
        let release = Arc::new(ReleaseState::new(digest, manifest, launch, &host.config)?);
        let serving = Arc::new(Serving {
            pool: Pool::new(Arc::clone(&release)),
            release,
            compiled,
            host,
        });
        let worker = tokio::time::timeout(time_max, serving.new_worker())
            .await
            .map_err(|_| StartError::TimedOut(time_max))??;
        serving.pool.put(worker);
        serving.host.keep_trimmed(&serving);
        Ok(Self { serving })
    }
}

impl Serving {
    /// Serves one request.
    async fn serve(self: Arc<Self>, request: Request<Body>) -> Result<Response<Body>, Failure> {
        let result = self.run(request).await;
        if let Err(failure) = &result {
            self.failed(failure);
        }
        result
    }

    async fn run(self: &Arc<Self>, request: Request<Body>) -> Result<Response<Body>, Failure> {
        let Some(place) = self.release.places.enter().await? else {
            return Err(Failure::Closed(Box::new(request)));
        };
        let worker = match self.pool.take() {
            Some(worker) => worker,
            None => {
                let started =
                    tokio::time::timeout(self.release.limits.request_time_max, self.new_worker()).await;
                match started {
                    Ok(Ok(worker)) => worker,
                    Ok(Err(error)) => return Err(Failure::NotStarted(error.to_string())),
                    Err(_) => return Err(Failure::NotStarted("it took too long".to_owned())),
                }
            }
        };
        Call::new(Arc::clone(self), place, worker, request)?
            .answer()
            .await
    }

    async fn new_worker(self: &Arc<Self>) -> Result<Box<Worker>, StartError> {
        let error = match self.instantiate().await {
            Ok(worker) => return Ok(worker),
            Err(error) => error,
        };
        if !error.is::<PoolConcurrencyLimitError>() {
            return Err(StartError::Failed(error.root_cause().to_string()));
        }
        // The host is full: idle instances make room.
        self.host.free_idle();
        self.instantiate().await.map_err(|error| {
            if error.is::<PoolConcurrencyLimitError>() {
                StartError::NoRoom(error.root_cause().to_string())
            } else {
                StartError::Failed(error.root_cause().to_string())
            }
        })
    }

    async fn instantiate(self: &Arc<Self>) -> wasmtime::Result<Box<Worker>> {
        let limits = self.release.limits;
        let guest = Guest::new(&self.release, limits.memory_bytes_max);
        let mut store = Store::new(self.compiled.pre.engine(), guest);
        store.limiter(|guest| &mut guest.memory);
        store.set_epoch_deadline(1);
        let limit_ns = u64::try_from(limits.request_time_max.as_nanos()).unwrap_or(u64::MAX);
        store.epoch_deadline_callback(move |store| store.data().clock.on_epoch(limit_ns));
        store.data().clock.enter(std::time::Instant::now());
        let proxy = self.compiled.pre.instantiate_async(&mut store).await?;
        Ok(Box::new(Worker::new(store, proxy, Arc::clone(&self.release))))
    }

    /// Keeps a worker whose request ended well, unless it has served enough.
    pub(super) fn put(&self, worker: Box<Worker>) {
        if worker.served < self.release.limits.reuse_max {
            self.pool.put(worker);
        }
    }

    /// Counts and logs a failure, unless the module had no part in it.
    pub(super) fn failed(&self, failure: &Failure) {
        if matches!(failure, Failure::Closed(_) | Failure::Overloaded { .. }) {
            return;
        }
        if failure.is_trap() {
            self.release.trapped();
        }
        if let Some(dropped) = self.release.log_lines.pass() {
            tracing::warn!(
                module = %self.release.manifest.name,
                version = self.release.label,
                dropped,
                "a request failed: {failure}"
            );
        }
    }

    pub(super) fn trim(&self) {
        self.pool.trim();
    }

    pub(super) fn free_idle(&self) {
        self.pool.clear();
    }
}

impl Instance for WasmInstance {
    fn digest(&self) -> Digest {
        self.serving.release.digest
    }

    fn label(&self) -> &str {
        &self.serving.release.label
    }

    fn manifest(&self) -> &Manifest {
        &self.serving.release.manifest
    }

    fn handle(&self, request: Request<Body>) -> ResponseFuture {
        Box::pin(Arc::clone(&self.serving).serve(request))
    }

    fn readiness(&self) -> Readiness {
        if self.serving.release.places.is_closed() {
            Readiness::Closed
        } else {
            Readiness::Ready
        }
    }

    fn usage(&self) -> Usage {
        self.serving.release.usage()
    }

    fn close(&self, deadline: Duration) -> BoxFuture<'static, Closed> {
        let serving = Arc::clone(&self.serving);
        serving.release.places.close();
        serving.pool.clear();
        Box::pin(async move { serving.release.places.drain(deadline).await })
    }
}

impl Drop for WasmInstance {
    fn drop(&mut self) {
        // Without a drain, requests in flight finish; nothing new can come.
        self.serving.release.places.close();
        self.serving.pool.clear();
    }
}
