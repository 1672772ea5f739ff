//! Build is admission: the artifact parses, is of its kind, keeps to its limits, and compiles. The compiled code is a
//! proof and stays in the host's cache; nodes compile verified modules themselves. Native code is only looked at, unless
//! this server runs its kind.

use std::time::Instant;

use hotswap_package::{Kind, Package, needs};
use hotswap_runtime::{ebpf, kernel};
use tokio::task::spawn_blocking;

use super::Bench;

pub(super) async fn build(bench: &Bench, package: Package) -> Result<String, String> {
    let (kind, bytes) = (package.manifest.kind, package.artifact.len());
    if let Some(problem) = kind.artifact_problem(&package.artifact) {
        return Err(problem);
    }
    let Some(runtime) = bench.runtimes.get(kind) else {
        let needs = needs(&package.manifest, &package.artifact).join(", ");
        if kind == Kind::Ebpf {
            let inspected = spawn_blocking(move || ebpf::inspect(&package.manifest, &package.artifact)).await;
            let inspected = inspected.map_err(|panic| panic.to_string())??;
            return Ok(format!(
                "{bytes} bytes: {}; the nodes' kernels verify it; a node that runs it needs {needs}",
                inspected.summary()
            ));
        }
        if kind == Kind::Kernel {
            let inspected = kernel::inspect(&package.manifest, &package.artifact)?;
            return Ok(format!(
                "{bytes} bytes: {}; the nodes' kernels load it; a node that runs it needs {}",
                inspected.summary(),
                needs.replace('|', " or ")
            ));
        }
        return Ok(format!(
            "{bytes} bytes that are what a module of kind {kind} is made of; a node that runs it needs {needs}"
        ));
    };
    let started = Instant::now();
    let prepared = bench.prepare(runtime.as_ref(), package).await?;
    let manifest = prepared.manifest();
    Ok(format!(
        "{} {bytes} bytes in {} ms; {}, {}, {} of memory at most",
        if kind == Kind::Wasm {
            "compiled"
        } else {
            "prepared"
        },
        started.elapsed().as_millis(),
        counted(manifest.routes.len(), "route"),
        counted(manifest.smoke.len(), "smoke check"),
        manifest.limits.memory
    ))
}

fn counted(number: usize, what: &str) -> String {
    let s = if number == 1 { "" } else { "s" };
    format!("{number} {what}{s}")
}
