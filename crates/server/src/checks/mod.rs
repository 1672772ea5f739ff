//! The server's own checks of a release: Build, Test, Security Scan. Real work on the stored bytes, outside the
//! driver; results come back to it as inputs. Nothing is remembered here: what is outstanding after a restart is
//! derived from State and done again.

mod build;
mod scan;
mod signature;
mod smoke;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use hotswap_core::checks::CheckRequest;
use hotswap_core::decide::CheckResult;
use hotswap_core::ids::ModuleName;
use hotswap_core::stage::StageKind;
use hotswap_package::{Package, PackageLimits};
use hotswap_runtime::{Prepared, Runtime, Runtimes};
use hotswap_trust::Gate;
use parking_lot::Mutex;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::timeout;

use crate::config::Grants;
use crate::driver::World;
use crate::registry::{Registry, RegistryError};

/// Checks that work at once; more wait. Compiling takes every core anyway.
const WORKERS_MAX: usize = 2;
/// Prepared releases that are kept: each holds its compiled code in memory.
const PREPARED_MAX: usize = 2;
/// Longest time for one check: the largest components compile in some 20 s on two busy cores.
const CHECK_TIMEOUT: Duration = Duration::from_secs(180);

/// Carries checks out.
pub struct Checks {
    bench: Arc<Bench>,
    results: mpsc::Sender<CheckResult>,
}

/// What checks work with.
pub(crate) struct Bench {
    pub(crate) world: Arc<World>,
    pub(crate) registry: Arc<Registry>,
    pub(crate) runtimes: Runtimes,
    pub(crate) grants: Arc<Grants>,
    pub(crate) gate: Gate,
    workers: Semaphore,
    prepared: Mutex<VecDeque<Arc<dyn Prepared>>>,
}

impl Checks {
    /// Works with what is given; results go to `results`.
    pub fn new(
        world: Arc<World>,
        registry: Arc<Registry>,
        runtimes: Runtimes,
        grants: Arc<Grants>,
        gate: Gate,
        results: mpsc::Sender<CheckResult>,
    ) -> Self {
        let workers = Semaphore::new(WORKERS_MAX);
        Self {
            bench: Arc::new(Bench {
                world,
                registry,
                runtimes,
                grants,
                gate,
                workers,
                prepared: Mutex::default(),
            }),
            results,
        }
    }

    /// Starts a check; its result comes, whatever happens.
    pub fn start(&self, request: CheckRequest) {
        let (bench, results) = (Arc::clone(&self.bench), self.results.clone());
        tokio::spawn(async move {
            let (deployment, stage, attempt) = (request.deployment, request.stage, request.attempt);
            let name = request.kind.name();
            // A task of its own, so that a panic in a check is one failed check.
            let outcome = tokio::spawn(async move { bench.carry_out(&request).await }).await;
            let outcome = outcome.unwrap_or_else(|error| {
                tracing::error!(%deployment, check = name, %error, "a check panicked");
                Err("the server failed to carry out this check; see its log, then deploy again".to_owned())
            });
            tracing::info!(%deployment, check = name, passed = outcome.is_ok(), message = outcome.as_ref().unwrap_or_else(|message| message), "checked");
            // The driver is gone only when the process is.
            drop(
                results
                    .send(CheckResult {
                        deployment,
                        stage,
                        attempt,
                        outcome,
                    })
                    .await,
            );
        });
    }
}

impl Bench {
    async fn carry_out(&self, request: &CheckRequest) -> Result<String, String> {
        let _worker = self
            .workers
            .acquire()
            .await
            .map_err(|_| "the server is shutting down".to_owned())?;
        let work = async {
            let package = self.package(request).await?;
            match request.kind {
                StageKind::Build => build::build(self, package).await,
                StageKind::Test => smoke::test(self, request, package).await,
                StageKind::SecurityScan => scan::scan(self, request, &package).await,
                StageKind::Approval | StageKind::Deploy(_) | StageKind::Validation => {
                    Err(format!("{} is no check", request.kind.name()))
                }
            }
        };
        timeout(CHECK_TIMEOUT, work).await.unwrap_or_else(|_| {
            Err(format!(
                "not done within {} s; deploy again",
                CHECK_TIMEOUT.as_secs()
            ))
        })
    }

    /// Prepares a package to be started. The last few are kept until others take their place: a release's next check and
    /// the next deployments of it find its code loaded.
    async fn prepare(&self, runtime: &dyn Runtime, package: Package) -> Result<Arc<dyn Prepared>, String> {
        let prepared = runtime.prepare(package.into()).await;
        let prepared = prepared.map_err(|error| error.to_string())?;
        let mut kept = self.prepared.lock();
        kept.retain(|kept| kept.digest() != prepared.digest());
        kept.truncate(PREPARED_MAX - 1);
        kept.push_front(Arc::clone(&prepared));
        Ok(prepared)
    }

    /// The release's package from the stored bytes, which are verified to be what the digest says.
    async fn package(&self, request: &CheckRequest) -> Result<Package, String> {
        let release = &request.release;
        let bytes = self
            .registry
            .read(&release.digest)
            .await
            .map_err(|error| match error {
                RegistryError::Io(cause) => {
                    tracing::error!(
                        error = &cause as &dyn std::error::Error,
                        "failed to read a package"
                    );
                    "the server failed to read the package; see its log, then deploy again".to_owned()
                }
                error => error.to_string(),
            })?;
        let limits = PackageLimits {
            package_bytes_max: bytes.len() as u64,
        };
        let parse = move || Package::read(bytes, &limits);
        let package = tokio::task::spawn_blocking(parse)
            .await
            .map_err(|error| error.to_string())?;
        let package = package.map_err(|error| error.to_string())?;
        belongs(&package, &request.module, &release.version)?;
        Ok(package)
    }
}

fn belongs(package: &Package, module: &ModuleName, version: &semver::Version) -> Result<(), String> {
    let manifest = &package.manifest;
    if manifest.name == *module && manifest.version == *version {
        return Ok(());
    }
    Err(format!(
        "the package is {} {}, not {module} {version}; push the right one under a new version",
        manifest.name, manifest.version
    ))
}
