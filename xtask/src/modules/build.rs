//! From source to component: cargo for the core module, then wit-component around it.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use wit_component::ComponentEncoder;

use super::toolchain::Toolchain;
use super::{Example, sums};
use crate::run;

pub(crate) const TARGET: &str = "wasm32-unknown-unknown";

pub(crate) fn build(dir: &Path, examples: &[Example]) -> Result<()> {
    let toolchain = Toolchain::find()?;
    println!("building with {toolchain}");
    let target_dir = target_dir();
    for example in examples {
        let Example { name, version } = example;
        let mut cargo = toolchain.cargo()?;
        cargo.current_dir(dir).args([
            "build",
            "--release",
            "--locked",
            "--quiet",
            "--target",
            TARGET,
            "-p",
            name,
        ]);
        cargo
            .args(["--features", version])
            .arg("--target-dir")
            .arg(&target_dir);
        cargo
            .env("MODULE_VERSION", version)
            .env("RUSTFLAGS", toolchain.flags(dir)?);
        run::run(&mut cargo)?;
        let built = target_dir
            .join(TARGET)
            .join("release")
            .join(format!("{}.wasm", name.replace('-', "_")));
        let module = fs::read(&built).with_context(|| format!("failed to read {}", built.display()))?;
        let component =
            encode(&module).with_context(|| format!("failed to make a component of {name} {version}"))?;
        let path = dir.join(example.component());
        let before = fs::read(&path).ok();
        fs::write(&path, &component).with_context(|| format!("failed to write {}", path.display()))?;
        sums::write(dir, example, &toolchain.to_string())?;
        let change = match before {
            None => "new",
            Some(before) if before == component => "unchanged",
            Some(_) => "changed",
        };
        println!("{name} {version}: {} bytes, {change}", component.len());
    }
    Ok(())
}

fn encode(module: &[u8]) -> Result<Vec<u8>> {
    ComponentEncoder::default()
        .validate(true)
        .module(module)?
        .encode()
}

/// Beside what cargo builds for the host, so that `cargo clean` takes it away as well.
fn target_dir() -> std::path::PathBuf {
    let host = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| run::root().join("target"), Into::into);
    host.join("modules")
}
