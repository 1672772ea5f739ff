//! The hash of the source beside a component: shows without a toolchain that both belong together.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use sha2::{Digest as _, Sha256};

use super::{Example, Made};

/// In the form of sha256sum, paths from `modules/`.
const FILE: &str = "SOURCE.sha256";

/// What an example is made of: for a component the workspace, the shared crate, and its own crate.
fn sources(dir: &Path, example: &Example) -> Result<BTreeSet<PathBuf>> {
    if example.made == Made::Object {
        let mut paths = BTreeSet::new();
        collect(dir, &example.home().join("src"), &mut paths)?;
        return Ok(paths);
    }
    let mut paths = BTreeSet::from(["Cargo.toml".into(), "Cargo.lock".into()]);
    for name in ["guest", &example.name] {
        paths.insert(Path::new(name).join("Cargo.toml"));
        collect(dir, &Path::new(name).join("src"), &mut paths)?;
    }
    Ok(paths)
}

fn collect(dir: &Path, folder: &Path, paths: &mut BTreeSet<PathBuf>) -> Result<()> {
    let full = dir.join(folder);
    for entry in fs::read_dir(&full).with_context(|| format!("failed to list {}", full.display()))? {
        let entry = entry?;
        let path = folder.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            collect(dir, &path, paths)?;
        } else {
            paths.insert(path);
        }
    }
    Ok(())
}

fn sums(dir: &Path, example: &Example) -> Result<String> {
    let mut lines = String::new();
    for path in sources(dir, example)?.into_iter().chain([example.artifact()]) {
        let full = dir.join(&path);
        let bytes = fs::read(&full).with_context(|| format!("failed to read {}", full.display()))?;
        for byte in Sha256::digest(&bytes) {
            write!(lines, "{byte:02x}").expect("writing to a string cannot fail");
        }
        writeln!(lines, "  {}", path.display()).expect("writing to a string cannot fail");
    }
    Ok(lines)
}

/// Records what a component was made of, and with what.
pub(crate) fn write(dir: &Path, example: &Example, toolchain: &str) -> Result<()> {
    let path = dir.join(example.dir()).join(FILE);
    let text = format!(
        "# made by `cargo xtask modules` with {toolchain}\n{}",
        sums(dir, example)?
    );
    fs::write(&path, text).with_context(|| format!("failed to write {}", path.display()))
}

/// Fails where a source or a component is another than was recorded.
pub(crate) fn check(dir: &Path, examples: &[Example]) -> Result<()> {
    let mut stale = Vec::new();
    for example in examples {
        let path = dir.join(example.dir()).join(FILE);
        let recorded =
            fs::read_to_string(&path).with_context(|| format!("failed to read {}", path.display()))?;
        let recorded: BTreeSet<&str> = recorded.lines().filter(|line| !line.starts_with('#')).collect();
        let found = sums(dir, example)?;
        let found: BTreeSet<&str> = found.lines().collect();
        let differ = recorded
            .symmetric_difference(&found)
            .filter_map(|line| line.split_once("  "));
        let differ: BTreeSet<&str> = differ.map(|(_, path)| path).collect();
        if !differ.is_empty() {
            let paths = differ.into_iter().collect::<Vec<_>>().join(", ");
            stale.push(format!("{} {}: {paths}", example.name, example.version));
        }
    }
    if !stale.is_empty() {
        bail!(
            "modules are out of date; run `cargo xtask modules` and commit the result\n  {}",
            stale.join("\n  ")
        );
    }
    println!("{} example modules match their sources", examples.len());
    Ok(())
}
