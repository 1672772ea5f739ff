//! The work that takes time, each a task of its own that ends with one answer to the driver.

use std::net::SocketAddr;
use std::sync::Arc;

use hotswap_core::ids::{Digest, ModuleName, NodeId, ReleaseRef};
use hotswap_core::report::SmokeOutcome;
use hotswap_core::spec::{SmokeRun, SmokeVia};
use hotswap_core::values::Values;
use hotswap_package::{Package, PackageLimits};
use hotswap_runtime::{Artifact, Instance, Launch, Prepared, Runtimes};
use hotswap_trust::Gate;

use crate::admit::admit;
use crate::fetch::Packages;
use crate::ingress::Release;
use crate::secrets::Secrets;
use crate::smoke::{self, Door};

/// How a piece of work ended.
pub(super) enum Done {
    /// A ledger is durable.
    Written { version: u64 },
    Prepared {
        module: ModuleName,
        digest: Digest,
        result: Result<Arc<dyn Prepared>, String>,
    },
    Loaded {
        module: ModuleName,
        digest: Digest,
        result: Result<Arc<dyn Instance>, String>,
    },
    /// A release is where it acts, or can't be.
    Entered { module: ModuleName, digest: Digest },
    /// A release was drained and freed.
    Closed { module: ModuleName, digest: Digest },
    Smoked {
        module: ModuleName,
        outcome: SmokeOutcome,
    },
}

/// Fetches, verifies and compiles a package.
pub(super) async fn prepare(
    packages: Arc<Packages>,
    gate: Gate,
    runtimes: Runtimes,
    module: ModuleName,
    (digest, package_digest): (Digest, Digest),
) -> Done {
    let result = async {
        let bytes = packages
            .get(package_digest)
            .await
            .map_err(|error| format!("cannot fetch {package_digest}: {error}"))?;
        let read = tokio::task::spawn_blocking(move || Package::read(bytes, &PackageLimits::default())).await;
        let package = read
            .map_err(|_| "the agent is stopping".to_owned())?
            .map_err(|error| error.to_string())?;
        if package.manifest.name != module {
            return Err(format!(
                "the package {} is of module {}, not {module}",
                package_digest.short(),
                package.manifest.name
            ));
        }
        let kind = package.manifest.kind;
        let runtime = runtimes
            .get(kind)
            .ok_or_else(|| format!("this node does not run modules of kind {kind}"))?;
        let verdict = admit(&packages, &gate, package_digest, &module)
            .await
            .map_err(|refused| refused.to_string())?;
        tracing::info!(%module, version = %package.manifest.version, release = %package_digest, "{verdict}");
        runtime
            .prepare(Artifact::from(package))
            .await
            .map_err(|error| error.to_string())
    };
    let result = result.await;
    Done::Prepared {
        module,
        digest,
        result,
    }
}

/// Starts a prepared release with what it is given.
pub(super) async fn load(
    prepared: Option<Arc<dyn Prepared>>,
    (secrets, node): (Secrets, NodeId),
    module: ModuleName,
    release: ReleaseRef,
    values: Option<Values>,
) -> Done {
    let result = start(prepared, (secrets, node), (module.clone(), &release), values).await;
    Done::Loaded {
        module,
        digest: release.id(),
        result,
    }
}

async fn start(
    prepared: Option<Arc<dyn Prepared>>,
    (secrets, node): (Secrets, NodeId),
    (module, release): (ModuleName, &ReleaseRef),
    values: Option<Values>,
) -> Result<Arc<dyn Instance>, String> {
    let values = values.ok_or_else(|| {
        format!(
            "this node does not know the values of configuration {}; it is told when it reaches the server",
            release.config
        )
    })?;
    let values = tokio::task::spawn_blocking(move || secrets.resolve(&module, values))
        .await
        .map_err(|_| "the agent is stopping".to_owned())??;
    let config = release.config;
    match prepared {
        None => Err("it is not prepared any more".to_owned()),
        Some(prepared) if prepared.manifest().version != release.version => Err(format!(
            "the package {} is version {}, not {}",
            release.digest.short(),
            prepared.manifest().version,
            release.version
        )),
        Some(prepared) => prepared
            .start(Launch {
                config,
                values,
                node: Some(node.to_string()),
            })
            .await
            .map_err(|error| error.to_string()),
    }
}

/// Runs a release's smoke checks once.
pub(super) async fn smoke(
    release: Option<Arc<Release>>,
    ingress: SocketAddr,
    module: ModuleName,
    run: SmokeRun,
) -> Done {
    let (passed, failures) = match release {
        None => (0, vec!["the release is not loaded".to_owned()]),
        Some(release) => {
            let instance = release.instance();
            let door = match run.via {
                SmokeVia::Preview => Door::Instance(&**instance),
                SmokeVia::Ingress => Door::Ingress(ingress),
            };
            smoke::run_all(&door, instance.manifest()).await
        }
    };
    Done::Smoked {
        module,
        outcome: SmokeOutcome {
            run,
            passed,
            failures,
        },
    }
}
