//! Begin a module, and make a component of what a compiler gave.

mod bindings;
mod templates;

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use anyhow::Context as _;
use hotswap_core::ids::ModuleName;
use serde_json::json;
use wasi_preview1_component_adapter_provider::{
    WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME, WASI_SNAPSHOT_PREVIEW1_REACTOR_ADAPTER,
};
use wit_component::ComponentEncoder;

use crate::args::{BeginKind, Lang};
use crate::exit::Exit;
use crate::output::Output;
use crate::problem::Problem;
use templates::{C, EBPF, File, JS, KERNEL, NATIVE_PYTHON, NATIVE_RUST, PYTHON, RUST, WIT};

/// Where `hotswap trust init` puts what signs.
const TRUST_DIR: &str = "hotswap-trust";
/// A server and a node on this machine; the two in the middle run until they are stopped.
const SET_UP: [&str; 4] = [
    "hotswap trust init",
    "hotswap server --trust hotswap-trust/trust.toml     # tells the first password",
    "hotswap agent --node dev-1 --environment Development --trust hotswap-trust/trust.toml",
    "hotswap login admin",
];

/// Writes a module that builds, tests and packs with the commands it prints.
pub(super) fn init(kind: BeginKind, lang: Lang, name: &str, output: &Output) -> anyhow::Result<Exit> {
    let name: ModuleName = name.parse().map_err(|error| Problem::usage(format!("{error}")))?;
    let template = match (kind, lang) {
        (BeginKind::Wasm, Lang::Rust) => &RUST,
        (BeginKind::Wasm, Lang::Js) => &JS,
        (BeginKind::Wasm, Lang::Python) => &PYTHON,
        (BeginKind::Wasm, Lang::C) => &C,
        (BeginKind::Process, Lang::Rust) => &NATIVE_RUST,
        (BeginKind::Process, Lang::Python) => &NATIVE_PYTHON,
        (BeginKind::Process, Lang::Js | Lang::C) => {
            return Err(
                Problem::usage("there are templates for native servers in Rust and Python only")
                    .next("give --lang rust or --lang python, or --kind wasm")
                    .into(),
            );
        }
        (BeginKind::Ebpf, Lang::C) => &EBPF,
        (BeginKind::Kernel, Lang::C) => &KERNEL,
        (BeginKind::Kernel, _) => {
            return Err(Problem::usage("there is a template for kernel modules in C only")
                .next("give --lang c, or --kind wasm")
                .into());
        }
        (BeginKind::Ebpf, _) => {
            return Err(Problem::usage("there is a template for eBPF programs in C only")
                .next("give --lang c, or --kind wasm")
                .into());
        }
    };
    let folder = Path::new(name.as_str());
    fs::create_dir(folder).map_err(|error| match error.kind() {
        ErrorKind::AlreadyExists => anyhow::Error::from(
            Problem::usage(format!("{name} is there already")).next("give another name, or move it away"),
        ),
        _ => anyhow::Error::from(error).context(format!("failed to create {name}")),
    })?;
    let fill = |text: &str| {
        text.replace("{{ENTRY}}", template.entry)
            .replace("{{NAME}}", name.as_str())
            .replace("{{MEMORY}}", template.memory)
            .replace("{{TIME}}", template.time)
    };
    let wit: &[File] = if template.wit { &WIT } else { &[] };
    let manifest = [("module.toml", template.manifest)];
    let files = manifest.iter().chain(template.files).chain(wit);
    for (path, text) in files.clone() {
        let path = folder.join(path);
        let written = path.parent().map_or(Ok(()), fs::create_dir_all);
        written
            .and_then(|()| fs::write(&path, fill(text)))
            .with_context(|| format!("failed to write {}", path.display()))?;
    }
    if template.bindings {
        bindings::write(folder).context("failed to write the bindings")?;
    }
    let mut commands = vec![format!("cd {name}")];
    commands.extend(template.commands.iter().map(|command| fill(command)));
    commands.push(format!("hotswap module push . --signer ../{TRUST_DIR}"));
    commands.push(format!("hotswap plan {name} 0.1.0 --to Development"));
    commands.push(format!("hotswap deploy {name} 0.1.0 --to Development --watch"));
    let take_away = format!("hotswap undeploy {name} --from Development --watch");
    if output.is_json() {
        let files: Vec<&str> = files.map(|(path, _)| *path).collect();
        output.json(&json!({
            "module": name.as_str(), "files": files, "setUp": SET_UP, "commands": commands, "takeAway": take_away,
        }))?;
        return Ok(Exit::Done);
    }
    output.line(format!("{name} is begun. Where there is no server yet, once:"))?;
    for command in SET_UP {
        output.line(format!("  {command}"))?;
    }
    match kind {
        BeginKind::Wasm => {}
        BeginKind::Process => output.line(
            "A native server runs only where that is granted: with kinds = [\"process\"] in its environment's grants, and \
             on agents that are started with --native-kind process.",
        )?,
        BeginKind::Ebpf => output.line(
            "An eBPF program runs only where that is granted: with kinds = [\"ebpf\"] in its environment's grants, and on \
             agents that are started, as root, with --native-kind ebpf and --grant-variable UPLINK=INTERFACE.",
        )?,
        BeginKind::Kernel => output.line(
            "A kernel module runs only where that is granted: with kinds = [\"kernel\"] in its environment's grants, and on \
             agents that are started, as root, with --native-kind kernel.",
        )?,
    }
    output.line("From here to a node:")?;
    for command in &commands {
        output.line(format!("  {command}"))?;
    }
    let where_it_is = match kind {
        BeginKind::Wasm | BeginKind::Process => format!("It answers at http://127.0.0.1:8080/{name}."),
        BeginKind::Ebpf => "It counts at the interface then.".to_owned(),
        BeginKind::Kernel => "It is /sys/module/new_module then.".to_owned(),
    };
    output.line(format!(
        "{where_it_is} After a change, with another version in {}: build, push, deploy.",
        template.versions
    ))?;
    output.line("To take it away:")?;
    output.line(format!("  {take_away}"))?;
    Ok(Exit::Done)
}

/// Makes a component of a core module whose bindings carry its types (`wit-bindgen`).
pub(super) fn component(from: &Path, to: &Path, output: &Output) -> anyhow::Result<Exit> {
    let module = fs::read(from).map_err(|error| Problem::usage(format!("{}: {error}", from.display())))?;
    let encoded = ComponentEncoder::default()
        .validate(true)
        .module(&module)
        // Used only where the module imports of it.
        .and_then(|encoder| {
            encoder.adapter(
                WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME,
                WASI_SNAPSHOT_PREVIEW1_REACTOR_ADAPTER,
            )
        })
        .and_then(|mut encoder| encoder.encode());
    let component = encoded.map_err(|error| {
        Problem::usage(format!(
            "no component can be made of {}: {error:#}",
            from.display()
        ))
        .next(
            "it should be a core module that was compiled with wit-bindgen's bindings, as a reactor where it uses WASI \
             preview 1",
        )
    })?;
    fs::write(to, &component).with_context(|| format!("failed to write {}", to.display()))?;
    output.line(format!("{}: {} bytes", to.display(), component.len()))?;
    Ok(Exit::Done)
}
