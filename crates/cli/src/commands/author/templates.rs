//! What a new module consists of, by kind and language.

/// A file of a new module: where, and what is in it. `{{NAME}}` stands for the module's name.
pub(super) type File = (&'static str, &'static str);

/// What a language needs.
pub(super) struct Template {
    pub(super) manifest: &'static str,
    /// The artifact's file name.
    pub(super) entry: &'static str,
    pub(super) files: &'static [File],
    /// Whether the WIT files of `wasi:http` lie beside: the others' toolchains bring their own.
    pub(super) wit: bool,
    /// Whether C's bindings to `wasi:http` are written, too.
    pub(super) bindings: bool,
    pub(super) memory: &'static str,
    pub(super) time: &'static str,
    /// The files that a version is in.
    pub(super) versions: &'static str,
    /// From the folder to a package, in order.
    pub(super) commands: &'static [&'static str],
}

const MANIFEST: &str = include_str!("../../../templates/module.toml.in");
const NATIVE_MANIFEST: &str = include_str!("../../../templates/process/module.toml.in");
const EBPF_MANIFEST: &str = include_str!("../../../templates/ebpf/module.toml.in");
const KERNEL_MANIFEST: &str = include_str!("../../../templates/kernel/module.toml.in");
const WASM_ENTRY: &str = "{{NAME}}.wasm";
pub(super) const WIT: [File; 4] = [
    ("wit/world.wit", include_str!("../../../templates/wit/world.wit")),
    (
        "wit/deps/http.wit",
        include_str!("../../../templates/wit/deps/http.wit"),
    ),
    (
        "wit/deps/io.wit",
        include_str!("../../../templates/wit/deps/io.wit"),
    ),
    (
        "wit/deps/clocks.wit",
        include_str!("../../../templates/wit/deps/clocks.wit"),
    ),
];
pub(super) const RUST: Template = Template {
    manifest: MANIFEST,
    entry: WASM_ENTRY,
    files: &[
        (
            "Cargo.toml",
            include_str!("../../../templates/rust/Cargo.toml.in"),
        ),
        (
            "src/lib.rs",
            include_str!("../../../templates/rust/src/lib.rs.in"),
        ),
        (
            "src/module.rs",
            include_str!("../../../templates/rust/src/module.rs.in"),
        ),
        ("build.sh", include_str!("../../../templates/rust/build.sh")),
        (".gitignore", "/target\n*.wasm\n*.hsm\n"),
    ],
    wit: false,
    bindings: false,
    memory: "16MiB",
    time: "1s",
    versions: "module.toml and Cargo.toml",
    commands: &["cargo test", "sh build.sh"],
};
pub(super) const JS: Template = Template {
    manifest: MANIFEST,
    entry: WASM_ENTRY,
    files: &[
        (
            "package.json",
            include_str!("../../../templates/js/package.json.in"),
        ),
        ("build.mjs", include_str!("../../../templates/js/build.mjs")),
        ("module.js", include_str!("../../../templates/js/module.js")),
        ("answer.js", include_str!("../../../templates/js/answer.js")),
        (
            "answer.test.js",
            include_str!("../../../templates/js/answer.test.js"),
        ),
        (".gitignore", "/node_modules\n*.wasm\n*.hsm\n"),
    ],
    wit: true,
    bindings: false,
    memory: "128MiB",
    time: "10s",
    versions: "module.toml and answer.js",
    commands: &["npm install", "npm test", "npm run build"],
};
pub(super) const PYTHON: Template = Template {
    manifest: MANIFEST,
    entry: WASM_ENTRY,
    files: &[
        (
            "requirements.txt",
            include_str!("../../../templates/python/requirements.txt"),
        ),
        ("app.py", include_str!("../../../templates/python/app.py")),
        ("answer.py", include_str!("../../../templates/python/answer.py")),
        (
            "test_answer.py",
            include_str!("../../../templates/python/test_answer.py"),
        ),
        (".gitignore", "/.venv\n__pycache__\n*.wasm\n*.hsm\n"),
    ],
    wit: true,
    bindings: false,
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

pub(super) const C: Template = Template {
    manifest: MANIFEST,
    entry: WASM_ENTRY,
    files: &[
        ("handler.c", include_str!("../../../templates/c/handler.c")),
        ("answer.h", include_str!("../../../templates/c/answer.h")),
        ("answer.c", include_str!("../../../templates/c/answer.c")),
        (
            "test_answer.c",
            include_str!("../../../templates/c/test_answer.c"),
        ),
        (
            "requirements.txt",
            include_str!("../../../templates/c/requirements.txt"),
        ),
        ("test.sh", include_str!("../../../templates/c/test.sh")),
        ("build.sh", include_str!("../../../templates/c/build.sh")),
        (".gitignore", "/.venv\n/build\n*.wasm\n*.hsm\n"),
    ],
    wit: true,
    bindings: true,
    memory: "16MiB",
    time: "1s",
    versions: "module.toml and answer.h",
    commands: &[
        "python3 -m venv .venv",
        ".venv/bin/pip install -r requirements.txt",
        "sh test.sh",
        "sh build.sh",
    ],
};

pub(super) const NATIVE_RUST: Template = Template {
    manifest: NATIVE_MANIFEST,
    entry: "{{NAME}}.bin",
    files: &[
        (
            "Cargo.toml",
            include_str!("../../../templates/process/rust/Cargo.toml.in"),
        ),
        (
            "src/main.rs",
            include_str!("../../../templates/process/rust/src/main.rs.in"),
        ),
        (
            "src/http.rs",
            include_str!("../../../templates/process/rust/src/http.rs.in"),
        ),
        (
            "build.sh",
            include_str!("../../../templates/process/rust/build.sh"),
        ),
        (".gitignore", "/target\n*.bin\n*.hsm\n"),
    ],
    wit: false,
    bindings: false,
    memory: "64MiB",
    time: "2s",
    versions: "module.toml and Cargo.toml",
    commands: &["cargo test", "sh build.sh"],
};
pub(super) const NATIVE_PYTHON: Template = Template {
    manifest: NATIVE_MANIFEST,
    entry: "server.py",
    files: &[
        (
            "server.py",
            include_str!("../../../templates/process/python/server.py"),
        ),
        (
            "test_server.py",
            include_str!("../../../templates/process/python/test_server.py"),
        ),
        (".gitignore", "__pycache__\n*.hsm\n"),
    ],
    wit: false,
    bindings: false,
    memory: "128MiB",
    time: "2s",
    versions: "module.toml and server.py",
    commands: &["python3 -m unittest"],
};
pub(super) const EBPF: Template = Template {
    manifest: EBPF_MANIFEST,
    entry: "{{NAME}}.o",
    files: &[
        (
            "module.bpf.c",
            include_str!("../../../templates/ebpf/module.bpf.c"),
        ),
        ("build.sh", include_str!("../../../templates/ebpf/build.sh")),
        (".gitignore", "*.o\n*.hsm\n"),
    ],
    wit: false,
    bindings: false,
    memory: "",
    time: "",
    versions: "module.toml",
    commands: &["sh build.sh"],
};
pub(super) const KERNEL: Template = Template {
    manifest: KERNEL_MANIFEST,
    entry: "builds.tar",
    files: &[
        ("module.c", include_str!("../../../templates/kernel/module.c")),
        ("Makefile", include_str!("../../../templates/kernel/Makefile")),
        (
            ".gitignore",
            "*.o\n*.ko\n*.mod\n*.mod.c\n.*.cmd\nmodules.order\nModule.symvers\n*.hsm\n",
        ),
    ],
    wit: false,
    bindings: false,
    memory: "",
    time: "",
    versions: "module.toml",
    commands: &["make"],
};
