//! The example modules: found by their folders, `modules/NAME/VERSION/module.toml`, and for eBPF
//! `modules/ebpf/NAME/VERSION/module.toml`.

mod build;
mod build_ebpf;
mod sums;
mod toolchain;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use crate::run;

/// Rebuild the example modules, or say which are out of date.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Compare the sources and components with their recorded hashes; needs no toolchain.
    #[arg(long)]
    check: bool,
    /// Only these: `NAME` or `NAME@VERSION`.
    only: Vec<String>,
}

impl Args {
    /// To compare all.
    pub(crate) fn check() -> Self {
        Self {
            check: true,
            only: Vec::new(),
        }
    }
}

/// One version of one example.
pub(crate) struct Example {
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) made: Made,
}

/// What an example is made into.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Made {
    /// A component, from a crate.
    Component,
    /// An eBPF object, from C.
    Object,
}

/// Where the examples in eBPF are.
const EBPF: &str = "ebpf";

impl Example {
    /// The folder of all its versions, from `modules/`.
    fn home(&self) -> PathBuf {
        match self.made {
            Made::Component => PathBuf::from(&self.name),
            Made::Object => Path::new(EBPF).join(&self.name),
        }
    }

    /// Its folder, from `modules/`.
    fn dir(&self) -> PathBuf {
        self.home().join(&self.version)
    }

    /// What it is made into, from `modules/`.
    fn artifact(&self) -> PathBuf {
        let extension = match self.made {
            Made::Component => "wasm",
            Made::Object => "o",
        };
        self.dir().join(format!("{}.{extension}", self.name))
    }

    fn is_meant_by(&self, word: &str) -> bool {
        word == self.name || word.split_once('@') == Some((&self.name, &self.version))
    }
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let dir = run::root().join("modules");
    let mut examples = find(&dir)?;
    for word in &args.only {
        if !examples.iter().any(|example| example.is_meant_by(word)) {
            bail!("there is no module {word}; there are {}", names(&examples));
        }
    }
    examples.retain(|example| args.only.is_empty() || args.only.iter().any(|word| example.is_meant_by(word)));
    if args.check {
        sums::check(&dir, &examples)
    } else {
        let (components, objects): (Vec<_>, Vec<_>) = examples
            .into_iter()
            .partition(|example| example.made == Made::Component);
        if !components.is_empty() {
            build::build(&dir, &components)?;
        }
        if !objects.is_empty() {
            build_ebpf::build(&dir, &objects)?;
        }
        Ok(())
    }
}

fn names(examples: &[Example]) -> String {
    examples
        .iter()
        .map(|e| format!("{}@{}", e.name, e.version))
        .collect::<Vec<_>>()
        .join(", ")
}

fn find(dir: &Path) -> Result<Vec<Example>> {
    let mut examples = Vec::new();
    // Native examples are built by their own scripts, for the machine that they run on.
    let crates = |name: &String| dir.join(name).join("Cargo.toml").is_file();
    let components = folders(dir)?.into_iter().filter(crates);
    let components = components.map(|name| (name, Made::Component));
    let objects = folders(&dir.join(EBPF))?
        .into_iter()
        .map(|name| (name, Made::Object));
    for (name, made) in components.chain(objects) {
        let example = |version| Example {
            name: name.clone(),
            version,
            made,
        };
        let versions = folders(&dir.join(example(String::new()).home()))?;
        let versions = versions.into_iter().map(example);
        examples.extend(versions.filter(|example| dir.join(example.dir()).join("module.toml").is_file()));
    }
    Ok(examples)
}

/// Names of the folders in a folder, sorted.
fn folders(dir: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir).with_context(|| format!("failed to list {}", dir.display()))? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            names.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    names.sort();
    Ok(names)
}
