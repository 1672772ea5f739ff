//! C's bindings to `wasi:http`, made of the WIT files that a module begins with.

use std::fs;
use std::path::Path;

use anyhow::Context as _;
use wit_bindgen_c::Opts;
use wit_bindgen_core::Files;
use wit_parser::Resolve;

/// Where they are written, in the module's folder.
const FOLDER: &str = "bindings";

/// Writes them: a header, its source, and an object file that carries the world's types into what is linked with it.
pub(super) fn write(folder: &Path) -> anyhow::Result<()> {
    let mut resolve = Resolve::default();
    let (package, _) = resolve.push_dir(folder.join("wit"))?;
    let world = resolve.select_world(&[package], None)?;
    let mut files = Files::default();
    Opts::default()
        .build()
        .generate(&mut resolve, world, &mut files)?;
    let into = folder.join(FOLDER);
    fs::create_dir(&into).with_context(|| format!("failed to create {}", into.display()))?;
    for (name, contents) in files.iter() {
        let path = into.join(name);
        fs::write(&path, contents).with_context(|| format!("failed to write {}", path.display()))?;
    }
    Ok(())
}
