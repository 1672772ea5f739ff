//! What is run: the repository's example modules, also under other names and versions.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, Result};
use hotswap_package::{Manifest, Package};
use hotswap_runtime::Artifact;

/// The module under load; its answer is small, so that what carries it is what is measured.
pub(crate) const MODULE: &str = "smoke-test-module";
/// Its version.
pub(crate) const VERSION: &str = "1.0.0";
/// A request that it answers with 200.
pub(crate) const PATH: &str = "/smoke";

/// The folder of the module under load.
pub(crate) fn folder(root: &Path) -> PathBuf {
    root.join("modules").join(MODULE).join(VERSION)
}

/// Its component.
pub(crate) fn component(root: &Path) -> PathBuf {
    folder(root).join(format!("{MODULE}.wasm"))
}

/// What a module's folder holds, as the runtime wants it.
pub(crate) fn artifact(folder: &Path) -> Result<Artifact> {
    let text = std::fs::read_to_string(folder.join("module.toml"))
        .with_context(|| format!("{} has no module.toml", folder.display()))?;
    let manifest = Manifest::parse(&text)?;
    let content = std::fs::read(folder.join(&manifest.entry))?;
    Ok(Artifact {
        digest: hotswap_package::digest_of(&content),
        manifest: Arc::new(manifest),
        content: content.into(),
    })
}

/// The module under another name, route and version, as a package.
pub(crate) fn package(root: &Path, name: &str, version: &str) -> Result<Package> {
    let text = std::fs::read_to_string(folder(root).join("module.toml"))?;
    let text = text
        .replacen(&format!("name = \"{MODULE}\""), &format!("name = \"{name}\""), 1)
        .replacen(
            &format!("version = \"{VERSION}\""),
            &format!("version = \"{version}\""),
            1,
        );
    let artifact = std::fs::read(component(root))?;
    Package::assemble(text.as_bytes(), &artifact).context("the example is a package")
}
