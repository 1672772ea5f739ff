//! The releases that are shown: in the binary, but for kernel modules, which every kernel needs built for it.

use std::fs;

use anyhow::Context as _;
use hotswap_package::{Kind, Package};

use super::machine::Machine;

/// A module as it is shown: its first release, and the one that takes its place.
#[derive(Clone, Copy, Debug)]
pub(super) struct Example {
    pub(super) name: &'static str,
    pub(super) from: &'static str,
    pub(super) to: &'static str,
    /// Another module that must be there first.
    pub(super) needs: Option<(&'static str, &'static str)>,
}

/// What is shown of a kind.
pub(super) fn example(kind: Kind) -> Example {
    let (name, from, to, needs) = match kind {
        Kind::Wasm => ("payment-processor", "2.0.0", "2.1.0", None),
        Kind::Process => ("greetings", "1.0.0", "1.1.0", None),
        Kind::Ebpf => ("packet-limiter", "1.0.0", "1.1.0", None),
        Kind::Kernel => ("greeter", "1.0.0", "1.1.0", Some(("request-gate", "1.0.0"))),
    };
    Example {
        name,
        from,
        to,
        needs,
    }
}

macro_rules! file {
    ($path:literal) => {
        include_bytes!(concat!("../../../../../modules/", $path)).as_slice()
    };
}

/// The packages of a kind.
///
/// # Errors
/// A file is not there any more, or is no module.
pub(super) fn packages(kind: Kind, machine: &Machine) -> anyhow::Result<Vec<Package>> {
    let assembled = |files: [(&[u8], &[u8]); 2]| {
        let packages = files.map(|(manifest, artifact)| Package::assemble(manifest, artifact));
        packages.into_iter().collect::<Result<Vec<_>, _>>()
    };
    let packages = match kind {
        Kind::Wasm => assembled([
            (
                file!("payment-processor/2.0.0/module.toml"),
                file!("payment-processor/2.0.0/payment-processor.wasm"),
            ),
            (
                file!("payment-processor/2.1.0/module.toml"),
                file!("payment-processor/2.1.0/payment-processor.wasm"),
            ),
        ])?,
        Kind::Process => {
            // It says which release it is by what its node tells it.
            let manifest = String::from_utf8_lossy(file!("native/greetings/module.toml"));
            let next = manifest.replacen("version = \"1.0.0\"", "version = \"1.1.0\"", 1);
            let server = file!("native/greetings/server.py");
            assembled([(manifest.as_bytes(), server), (next.as_bytes(), server)])?
        }
        Kind::Ebpf => assembled([
            (
                file!("ebpf/packet-limiter/1.0.0/module.toml"),
                file!("ebpf/packet-limiter/1.0.0/packet-limiter.o"),
            ),
            (
                file!("ebpf/packet-limiter/1.1.0/module.toml"),
                file!("ebpf/packet-limiter/1.1.0/packet-limiter.o"),
            ),
        ])?,
        Kind::Kernel => kernel(machine)?,
    };
    Ok(packages)
}

/// The gate's own counts of calls and of those that nobody answered.
const GATE: &str = "style = \"gated\"\ngate = \"hotswap_gate\"\n\
    [[kernel.counters]]\ncounts = \"requests\"\nfile = \"/sys/module/hotswap_gate/parameters/requests\"\n\
    [[kernel.counters]]\ncounts = \"errors\"\nfile = \"/sys/module/hotswap_gate/parameters/errors\"\n";

fn kernel(machine: &Machine) -> anyhow::Result<Vec<Package>> {
    let dir = machine
        .kernel_modules
        .as_ref()
        .context("kernel modules are not allowed here")?;
    [
        ("request-gate", "1.0.0", "hotswap_gate", ""),
        ("greeter", "1.0.0", "greeter_1_0_0", GATE),
        ("greeter", "1.1.0", "greeter_1_1_0", GATE),
    ]
    .into_iter()
    .map(|(name, version, module, style)| {
        let release = &machine.release;
        let file = format!("{module}.ko");
        let manifest = format!(
            "name = \"{name}\"\nversion = \"{version}\"\nkind = \"kernel\"\nentry = \"builds.tar\"\n[kernel]\n\
             module = \"{module}\"\n{style}[[kernel.builds]]\nrelease = \"{release}\"\nfile = \"{file}\"\n"
        );
        let folder = tempfile::tempdir().context("failed to make a folder for a package")?;
        fs::copy(dir.join(&file), folder.path().join(&file)).with_context(|| format!("failed to read {file}"))?;
        fs::write(folder.path().join("module.toml"), manifest).context("failed to write a manifest")?;
        hotswap_package::pack(folder.path()).with_context(|| format!("failed to pack {name} {version}"))
    })
    .collect()
}
