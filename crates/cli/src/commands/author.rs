//! Begin a module, and make a component of what a compiler gave.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use anyhow::Context as _;
use hotswap_core::ids::ModuleName;
use serde_json::json;
use wit_component::ComponentEncoder;

use crate::args::{BeginKind, Lang};
use crate::exit::Exit;
use crate::output::Output;
use crate::problem::Problem;

/// A file of a new module: where, and what is in it. `{{NAME}}` stands for the module's name.
type File = (&'static str, &'static str);

/// Where `hotswap trust init` puts what signs.
const TRUST_DIR: &str = "hotswap-trust";
/// A server and a node on this machine; the two in the middle run until they are stopped.
const SET_UP: [&str; 4] = [
    "hotswap trust init",
    "hotswap server --trust hotswap-trust/trust.toml     # tells the first password",
    "hotswap agent --node dev-1 --environment Development --trust hotswap-trust/trust.toml",
    "hotswap login admin",
];

/// What a language needs.
struct Template {
    manifest: &'static str,
    /// The artifact's file name.
    entry: &'static str,
    files: &'static [File],
    /// Whether the WIT files of `wasi:http` lie beside: the others' toolchains bring their own.
    wit: bool,
    memory: &'static str,
    time: &'static str,
    /// The files that a version is in.
    versions: &'static str,
    /// From the folder to a package, in order.
    commands: &'static [&'static str],
}

const MANIFEST: &str = include_str!("../../templates/module.toml.in");
const NATIVE_MANIFEST: &str = include_str!("../../templates/process/module.toml.in");
const WASM_ENTRY: &str = "{{NAME}}.wasm";
const WIT: [File; 4] = [
    ("wit/world.wit", include_str!("../../templates/wit/world.wit")),
    (
        "wit/deps/http.wit",
        include_str!("../../templates/wit/deps/http.wit"),
    ),
    ("wit/deps/io.wit", include_str!("../../templates/wit/deps/io.wit")),
    (
        "wit/deps/clocks.wit",
        include_str!("../../templates/wit/deps/clocks.wit"),
    ),
];
const RUST: Template = Template {
    manifest: MANIFEST,
    entry: WASM_ENTRY,
    files: &[
        ("Cargo.toml", include_str!("../../templates/rust/Cargo.toml.in")),
        ("src/lib.rs", include_str!("../../templates/rust/src/lib.rs.in")),
        (
            "src/module.rs",
            include_str!("../../templates/rust/src/module.rs.in"),
        ),
        ("build.sh", include_str!("../../templates/rust/build.sh")),
        (".gitignore", "/target\n*.wasm\n*.hsm\n"),
    ],
    wit: false,
    memory: "16MiB",
    time: "1s",
    versions: "module.toml and Cargo.toml",
    commands: &["cargo test", "sh build.sh"],
};
const JS: Template = Template {
    manifest: MANIFEST,
    entry: WASM_ENTRY,
    files: &[
        ("package.json", include_str!("../../templates/js/package.json.in")),
        ("build.mjs", include_str!("../../templates/js/build.mjs")),
        ("module.js", include_str!("../../templates/js/module.js")),
        ("answer.js", include_str!("../../templates/js/answer.js")),
        (
            "answer.test.js",
            include_str!("../../templates/js/answer.test.js"),
        ),
        (".gitignore", "/node_modules\n*.wasm\n*.hsm\n"),
    ],
    wit: true,
    memory: "128MiB",
    time: "10s",
    versions: "module.toml and answer.js",
    commands: &["npm install", "npm test", "npm run build"],
};
const PYTHON: Template = Template {
    manifest: MANIFEST,
    entry: WASM_ENTRY,
    files: &[
        (
            "requirements.txt",
            include_str!("../../templates/python/requirements.txt"),
        ),
        ("app.py", include_str!("../../templates/python/app.py")),
        ("answer.py", include_str!("../../templates/python/answer.py")),
        (
            "test_answer.py",
            include_str!("../../templates/python/test_answer.py"),
        ),
        (".gitignore", "/.venv\n__pycache__\n*.wasm\n*.hsm\n"),
    ],
    wit: true,
    memory: "128MiB",
    time: "10s",
    versions: "module.toml and answer.py",
    commands: &[
        "python3 -m venv .venv",
        ".venv/bin/pip install -r requirements.txt",
        "python3 -m unittest",
        ".venv/bin/componentize-py -d wit -w module componentize app -o {{NAME}}.wasm",
    ],
};

const NATIVE_RUST: Template = Template {
    manifest: NATIVE_MANIFEST,
    entry: "{{NAME}}.bin",
    files: &[
        (
            "Cargo.toml",
            include_str!("../../templates/process/rust/Cargo.toml.in"),
        ),
        (
            "src/main.rs",
            include_str!("../../templates/process/rust/src/main.rs.in"),
        ),
        (
            "src/http.rs",
            include_str!("../../templates/process/rust/src/http.rs.in"),
        ),
        ("build.sh", include_str!("../../templates/process/rust/build.sh")),
        (".gitignore", "/target\n*.bin\n*.hsm\n"),
    ],
    wit: false,
    memory: "64MiB",
    time: "2s",
    versions: "module.toml and Cargo.toml",
    commands: &["cargo test", "sh build.sh"],
};
const NATIVE_PYTHON: Template = Template {
    manifest: NATIVE_MANIFEST,
    entry: "server.py",
    files: &[
        (
            "server.py",
            include_str!("../../templates/process/python/server.py"),
        ),
        (
            "test_server.py",
            include_str!("../../templates/process/python/test_server.py"),
        ),
        (".gitignore", "__pycache__\n*.hsm\n"),
    ],
    wit: false,
    memory: "128MiB",
    time: "2s",
    versions: "module.toml and server.py",
    commands: &["python3 -m unittest"],
};

/// Writes a module that builds, tests and packs with the commands it prints.
pub(super) fn init(kind: BeginKind, lang: Lang, name: &str, output: &Output) -> anyhow::Result<Exit> {
    let name: ModuleName = name.parse().map_err(|error| Problem::usage(format!("{error}")))?;
    let template = match (kind, lang) {
        (BeginKind::Wasm, Lang::Rust) => &RUST,
        (BeginKind::Wasm, Lang::Js) => &JS,
        (BeginKind::Wasm, Lang::Python) => &PYTHON,
        (BeginKind::Process, Lang::Rust) => &NATIVE_RUST,
        (BeginKind::Process, Lang::Python) => &NATIVE_PYTHON,
        (BeginKind::Process, Lang::Js) => {
            return Err(
                Problem::usage("there is no template for native servers in JavaScript")
                    .next("give --lang rust or --lang python, or --kind wasm")
                    .into(),
            );
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
    if kind == BeginKind::Process {
        output.line(
            "A native server runs only where that is granted: with kinds = [\"process\"] in its environment's grants, and \
             on agents that are started with --native-kind process.",
        )?;
    }
    output.line("From here to a node:")?;
    for command in &commands {
        output.line(format!("  {command}"))?;
    }
    output.line(format!(
        "It answers at http://127.0.0.1:8080/{name}. After a change, with another version in {}: build, push, deploy.",
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
        .and_then(|mut encoder| encoder.encode());
    let component = encoded.map_err(|error| {
        Problem::usage(format!(
            "no component can be made of {}: {error:#}",
            from.display()
        ))
        .next(
            "it should be a core module that was compiled with wit-bindgen's bindings and no WASI preview 1",
        )
    })?;
    fs::write(to, &component).with_context(|| format!("failed to write {}", to.display()))?;
    output.line(format!("{}: {} bytes", to.display(), component.len()))?;
    Ok(Exit::Done)
}
