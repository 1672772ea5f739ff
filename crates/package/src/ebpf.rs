//! What a manifest says of an `ebpf` module: where its programs are attached, which maps outlive a version, which
//! counters tell how it fares, and what it needs of the kernel.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::units::HumanDuration;

mod hook;
mod probe;

pub use hook::{Hook, On, XdpMode};
pub use probe::Probe;

/// How an eBPF object is attached and read.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Ebpf {
    /// Least release of the kernel, where it needs a newer one than its hooks do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernel: Option<KernelRelease>,
    /// What else a node must name among what it has, such as `btf`.
    #[serde(default)]
    pub features: Vec<String>,
    /// What is attached, never nothing.
    pub programs: Vec<Attached>,
    /// Maps of which something is said.
    #[serde(default)]
    pub maps: Vec<MapUse>,
    /// What the programs count.
    #[serde(default)]
    pub counters: Vec<Counter>,
    /// What is sent through the programs before they get to their hooks, and while they are on trial there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub probes: Vec<Probe>,
    /// What holds of the counters while a version is on trial.
    #[serde(default)]
    pub invariants: Invariants,
}

/// A program of the object and where it is attached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Attached {
    /// The function's name in the object.
    pub name: String,
    /// The kind of hook.
    pub attach: Hook,
    /// The interface's name, or `$NAME` for the variable that names it; for hooks on interfaces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface: Option<String>,
    /// The control group's folder, or `$NAME` for the variable that names it; for hooks on control groups.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cgroup: Option<String>,
    /// `CATEGORY:NAME` for tracepoints, the name alone for raw ones and those by BTF.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tracepoint: Option<String>,
    /// Where on the interface's way XDP runs.
    #[serde(default)]
    pub mode: XdpMode,
}

/// What is said of a map.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct MapUse {
    /// Its name in the object.
    pub name: String,
    /// Whether the next version goes on with it. Its layout must be the same then, unless it is migrated.
    #[serde(default)]
    pub carry: bool,
    /// The program of the object that takes entries over from a map of another layout.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub migrate: Option<String>,
}

/// A number of 64 bits that programs count up, in an array or an array per processor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Counter {
    /// What it counts.
    pub counts: Counts,
    /// The map's name.
    pub map: String,
    /// Which of the map's values.
    #[serde(default)]
    pub index: u32,
    /// Which number of the value, each of eight bytes.
    #[serde(default)]
    pub field: u32,
}

/// What a counter counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Counts {
    /// All that came to the hook. Without such a counter the runs of the programs count.
    Requests,
    /// Those of them that went wrong: what the judge compares.
    Errors,
    /// Those of them that were dropped on purpose.
    Drops,
}

impl Counts {
    /// The name in manifests.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Requests => "requests",
            Self::Errors => "errors",
            Self::Drops => "drops",
        }
    }
}

/// What must hold of the counters while a version is on trial; a node leaves it by itself otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Invariants {
    /// Largest share of drops.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drops_share_max: Option<f64>,
    /// Largest share of errors.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub errors_share_max: Option<f64>,
    /// Of how long ago what is looked at may be.
    pub window: HumanDuration,
    /// Of fewer requests nothing is said.
    pub requests_min: u32,
}

impl Invariants {
    /// Least and most share.
    pub const SHARE: (f64, f64) = (0.0, 1.0);
    /// Least and most time that is looked at.
    pub const WINDOW: (HumanDuration, HumanDuration) = (HumanDuration::millis(200), HumanDuration::secs(60));
    /// Least and most requests.
    pub const REQUESTS_MIN: (u32, u32) = (1, 1_000_000);
}

impl Default for Invariants {
    fn default() -> Self {
        Self {
            drops_share_max: None,
            errors_share_max: None,
            window: HumanDuration::secs(2),
            requests_min: 100,
        }
    }
}

impl Ebpf {
    /// Most programs of a module.
    pub const PROGRAMS_MAX: usize = 8;
    /// Most maps of which something is said.
    pub const MAPS_MAX: usize = 32;
    /// Most counters.
    pub const COUNTERS_MAX: usize = 16;
    /// Most probes.
    pub const PROBES_MAX: usize = 32;
    /// Most features.
    pub const FEATURES_MAX: usize = 16;
    /// Largest index of a counter's value.
    pub const INDEX_MAX: u32 = 65_535;
    /// Largest field of a counter's value.
    pub const FIELD_MAX: u32 = 127;

    /// The least release of the kernel: the manifest's, or what the hooks need.
    pub fn kernel_min(&self) -> KernelRelease {
        let hooks = self.programs.iter().map(|program| program.attach.kernel());
        hooks.chain(self.kernel).max().unwrap_or(KernelRelease(5, 7))
    }

    /// Whether a map outlives the version.
    pub fn carries(&self, map: &str) -> bool {
        self.maps.iter().any(|used| used.carry && used.name == map)
    }
}

/// A release of the kernel, of which two numbers count: `6.6`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct KernelRelease(pub u16, pub u16);

/// A text that is no release of a kernel.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a release of the kernel; write two numbers, such as \"6.6\"")]
pub struct InvalidKernelRelease(String);

impl FromStr for KernelRelease {
    type Err = InvalidKernelRelease;

    fn from_str(text: &str) -> Result<Self, InvalidKernelRelease> {
        let numbers = text.split_once('.');
        let numbers = numbers.and_then(|(major, minor)| Some((major.parse().ok()?, minor.parse().ok()?)));
        numbers
            .map(|(major, minor)| Self(major, minor))
            .ok_or_else(|| InvalidKernelRelease(text.chars().take(80).collect()))
    }
}

impl TryFrom<String> for KernelRelease {
    type Error = InvalidKernelRelease;

    fn try_from(text: String) -> Result<Self, InvalidKernelRelease> {
        text.parse()
    }
}

impl From<KernelRelease> for String {
    fn from(release: KernelRelease) -> Self {
        release.to_string()
    }
}

impl fmt::Display for KernelRelease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0, self.1)
    }
}
