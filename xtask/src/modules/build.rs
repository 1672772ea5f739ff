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
        let Example { name, version, .. } = example;
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
        keep(dir, example, &component, &toolchain.to_string())?;
    }
    Ok(())
}

/// Puts what was made into its place, with the hashes of what it was made of.
pub(super) fn keep(dir: &Path, example: &Example, made: &[u8], toolchain: &str) -> Result<()> {
    let path = dir.join(example.artifact());
    let before = fs::read(&path).ok();
    fs::write(&path, made).with_context(|| format!("failed to write {}", path.display()))?;
    sums::write(dir, example, toolchain)?;
    let change = match before {
        None => "new",
        Some(before) if before == made => "unchanged",
        Some(_) => "changed",
    };
    println!(
        "{} {}: {} bytes, {change}",
        example.name,
        example.version,
        made.len()
    );
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
