//! Build is admission: the artifact parses, is of its kind, keeps to its limits, and compiles. The compiled code is a
//! proof and stays in the host's cache; nodes compile verified modules themselves.

use std::time::Instant;

use hotswap_core::ids::ModuleName;
use hotswap_package::Package;

use super::Bench;

pub(super) async fn build(bench: &Bench, module: &ModuleName, package: Package) -> Result<String, String> {
    let kind = package.manifest.kind;
    if let Some(problem) = kind.artifact_problem(&package.artifact) {
        return Err(problem);
    }
    if kind != bench.runtime.kind() {
        return Err(format!(
            "{module} is of kind {kind}, and this server admits {} only",
            bench.runtime.kind()
        ));
    }
    let bytes = package.artifact.len();
    let started = Instant::now();
    let prepared = bench
        .runtime
        .prepare(package.into())
        .await
        .map_err(|error| error.to_string())?;
    let manifest = prepared.manifest();
    Ok(format!(
        "compiled {bytes} bytes in {} ms; {}, {}, {} of memory at most",
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
