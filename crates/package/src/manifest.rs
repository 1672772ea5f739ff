//! `module.toml`: what a module is and what it asks for.

use std::collections::BTreeMap;
use std::fmt;

use hotswap_core::ids::ModuleName;
use semver::Version;
use serde::{Deserialize, Serialize};

use crate::ebpf::Ebpf;
use crate::kernel::Kernel;
use crate::process::Process;
use crate::units::{ByteSize, HumanDuration};

/// The manifest's file name, in the author's folder and in the package.
pub const MANIFEST_FILE: &str = "module.toml";
/// Largest manifest, in bytes.
pub const MANIFEST_BYTES_MAX: u64 = 64 << 10;

/// A module's manifest, validated. [`Manifest::parse`] makes it from `module.toml`; its serde form is the
/// same in other notations, for APIs and stores, and is not validated again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Manifest {
    /// The module's name.
    pub name: ModuleName,
    /// The release's version.
    pub version: Version,
    /// What kind of code it is.
    #[serde(default)]
    pub kind: Kind,
    /// The artifact's file name.
    pub entry: String,
    /// A sentence for people.
    #[serde(default)]
    pub description: String,
    /// Whether requests may share an instance.
    #[serde(default)]
    pub isolation: Isolation,
    /// How long requests in flight may go on after a switch before they are cut.
    #[serde(default = "default_drain_deadline")]
    pub drain_deadline: HumanDuration,
    /// Which requests it serves; empty for kinds that don't route.
    #[serde(default)]
    pub routes: Vec<Route>,
    /// What it may use.
    #[serde(default)]
    pub limits: Limits,
    /// Requests that show that it works; also the judge's probes.
    #[serde(default)]
    pub smoke: Vec<SmokeCheck>,
    /// What it asks for beyond serving requests; nothing by default.
    #[serde(default)]
    pub capabilities: Capabilities,
    /// When a node leaves it by itself.
    #[serde(default)]
    pub health: Health,
    /// How it is run, if it is a process; nothing for other kinds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub process: Option<Process>,
    /// How it is attached and read, if it is an eBPF object; nothing for other kinds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ebpf: Option<Ebpf>,
    /// How it is loaded, replaced and read, if it is a kernel module; nothing for other kinds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernel: Option<Kernel>,
}

impl Manifest {
    /// The package's customary file name, `NAME-VERSION.hsm`.
    pub fn package_file_name(&self) -> String {
        format!("{}-{}.{}", self.name, self.version, crate::PACKAGE_EXTENSION)
    }
}

/// What kind of code a module is, which decides the runtime that loads it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A WebAssembly component that exports `wasi:http/incoming-handler`.
    #[default]
    Wasm,
    /// A native server that is given its listening sockets.
    Process,
    /// An eBPF object for the running kernel.
    Ebpf,
    /// A Linux kernel module or livepatch.
    Kernel,
}

impl Kind {
    /// Whether requests are routed to it, so that weights and smoke checks by HTTP make sense.
    pub const fn routes(self) -> bool {
        matches!(self, Self::Wasm | Self::Process)
    }

    /// What an artifact's first bytes say against this kind, and what would be right. A full check is admission's.
    pub fn artifact_problem(self, artifact: &[u8]) -> Option<String> {
        let (right, should_be) = match self {
            Self::Wasm => (
                artifact.starts_with(b"\0asm\x0d\0\x01\0"),
                "a WebAssembly component (binary format)",
            ),
            Self::Process => (
                artifact.starts_with(b"\x7fELF") || artifact.starts_with(b"#!"),
                "an ELF file or a script",
            ),
            Self::Ebpf => (artifact.starts_with(b"\x7fELF"), "an ELF object file"),
            Self::Kernel => (
                artifact.get(257..262) == Some(b"ustar"),
                "the builds' files in one archive, which packing makes",
            ),
        };
        let is = match artifact {
            [] => "empty",
            [b'\0', b'a', b's', b'm', 1, 0, 0, 0, ..] => "a core WebAssembly module",
            [b'\0', b'a', b's', b'm', ..] => "WebAssembly of another layer or version",
            [0x7f, b'E', b'L', b'F', ..] => "an ELF file",
            _ => "something else",
        };
        (!right).then(|| format!("a module of kind {self} needs {should_be}; this is {is}"))
    }

    /// The kind as manifests write it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Wasm => "wasm",
            Self::Process => "process",
            Self::Ebpf => "ebpf",
            Self::Kernel => "kernel",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Whether an instance serves one request or many.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Isolation {
    /// Instances are reused, so a module may keep state between requests.
    #[default]
    Reuse,
    /// Each request gets a fresh instance: nothing leaks, and throughput is some five times lower.
    Request,
}

/// A route: requests for `host` (any, if there is none) whose path is `prefix` or below it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Route {
    /// Host name without a port, in lower case.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// Path prefix by whole segments: `/pay` covers `/pay` and `/pay/x`, not `/payments`.
    pub prefix: String,
}

impl Route {
    /// Whether a path, without its query, is the prefix or below it.
    pub fn covers_path(&self, path: &str) -> bool {
        let prefix = self.prefix.trim_end_matches('/');
        path.strip_prefix(prefix)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }
}

/// What a module may use on a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Limits {
    /// Memory of one instance.
    pub memory: ByteSize,
    /// Time for one request, from its head to the end of the answer.
    pub time: HumanDuration,
    /// Requests served at once on one node; more wait, briefly, then get a 503.
    pub concurrency: u32,
    /// Requests that one instance serves before a fresh one takes its place.
    pub instance_reuse: u32,
    /// Largest request body.
    pub body: ByteSize,
}

impl Limits {
    /// Least and most memory of an instance.
    pub const MEMORY: (ByteSize, ByteSize) = (ByteSize::mib(1), ByteSize::mib(4096));
    /// Least and most time for a request.
    pub const TIME: (HumanDuration, HumanDuration) = (HumanDuration::millis(1), HumanDuration::secs(300));
    /// Least and most requests at once.
    pub const CONCURRENCY: (u32, u32) = (1, 10_000);
    /// Least and most requests to an instance.
    pub const INSTANCE_REUSE: (u32, u32) = (1, 1_000_000);
    /// Least and most bytes of a request body.
    pub const BODY: (ByteSize, ByteSize) = (ByteSize(0), ByteSize::mib(64));
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            memory: ByteSize::mib(64),
            time: HumanDuration::secs(2),
            concurrency: 256,
            instance_reuse: 10_000,
            body: ByteSize::mib(1),
        }
    }
}

/// A request with the answer that shows that a release works.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct SmokeCheck {
    /// What it shows; unique in its manifest.
    pub name: String,
    /// Request method.
    #[serde(default = "default_method")]
    pub method: String,
    /// Path with query, under one of the routes.
    pub path: String,
    /// Request headers.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// Request body.
    #[serde(default)]
    pub body: String,
    /// The status that is right.
    #[serde(default = "default_status")]
    pub expect_status: u16,
    /// Text that a right body has in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expect_body_contains: Option<String>,
    /// How long the answer may take.
    #[serde(default = "default_smoke_timeout")]
    pub timeout: HumanDuration,
}

impl SmokeCheck {
    /// Most checks of a manifest.
    pub const COUNT_MAX: usize = 32;
    /// Least and most time that an answer may take.
    pub const TIMEOUT: (HumanDuration, HumanDuration) = (HumanDuration::millis(1), HumanDuration::secs(60));
}

/// What a module asks for. An environment's policy grants it or refuses the release.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Capabilities {
    /// Hosts that it sends requests to: `api.example.com`, `api.example.com:8443` or `*.example.com`. A process asks
    /// for `*`, the network, or for nothing: native code can't be held to single hosts.
    pub outbound_hosts: Vec<String>,
    /// Environment variables that it reads.
    pub environment: Vec<String>,
}

impl Capabilities {
    /// Most entries in each list.
    pub const COUNT_MAX: usize = 64;

    /// Whether it asks for nothing.
    pub fn is_empty(&self) -> bool {
        self.outbound_hosts.is_empty() && self.environment.is_empty()
    }
}

/// When a node leaves a candidate by itself: finer differences are the judge's.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Health {
    /// Share of errors among the last requests that is gross.
    pub gross_error_share: f64,
    /// How many last requests count.
    pub window: u32,
}

impl Health {
    /// Least and most share of errors.
    pub const GROSS_ERROR_SHARE: (f64, f64) = (0.05, 1.0);
    /// Least and most requests in the window.
    pub const WINDOW: (u32, u32) = (5, 10_000);
}

impl Default for Health {
    fn default() -> Self {
        Self {
            gross_error_share: 0.5,
            window: 20,
        }
    }
}

/// Least and most time that a drain may take.
pub(crate) const DRAIN_DEADLINE: (HumanDuration, HumanDuration) =
    (HumanDuration(std::time::Duration::ZERO), HumanDuration::secs(600));

pub(crate) const fn default_drain_deadline() -> HumanDuration {
    HumanDuration::secs(10)
}

pub(crate) const fn default_smoke_timeout() -> HumanDuration {
    HumanDuration::secs(5)
}

pub(crate) fn default_method() -> String {
    "GET".to_owned()
}

pub(crate) const fn default_status() -> u16 {
    200
}
