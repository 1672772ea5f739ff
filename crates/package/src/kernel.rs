//! What a manifest says of a `kernel` module: its builds by the kernel's release, how it replaces its predecessor, what
//! it is given, and by which files of the kernel's it tells how it fares.

use std::collections::BTreeMap;
use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::ebpf::Counts;
use crate::file::{self, PackageError};
use crate::units::HumanDuration;

/// How a kernel module is loaded, replaced and read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Kernel {
    /// Its name in the kernel, as `/sys/module` has it.
    pub module: String,
    /// How a version takes its predecessor's place.
    #[serde(default)]
    pub style: Style,
    /// The gate's name in the kernel; for `gated`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gate: Option<String>,
    /// One for each kernel that it runs on, never nothing.
    pub builds: Vec<KernelBuild>,
    /// Parameters that it is loaded with.
    #[serde(default)]
    pub parameters: BTreeMap<String, String>,
    /// How long a load, a livepatch's transition or an unload may take.
    #[serde(default = "default_deadline")]
    pub deadline: HumanDuration,
    /// What holds of the kernel's files while it is loaded.
    #[serde(default)]
    pub checks: Vec<FileCheck>,
    /// Numbers that it counts up in files.
    #[serde(default)]
    pub counters: Vec<FileCounter>,
}

/// How a version takes its predecessor's place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Style {
    /// The former one is unloaded, then the new one is loaded: there is a gap, which is measured.
    #[default]
    Plain,
    /// The new one is loaded beside the former one and registers with the gate that both are called through.
    Gated,
    /// The new one patches functions of the running kernel.
    Livepatch,
}

impl Style {
    /// The name in manifests.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Gated => "gated",
            Self::Livepatch => "livepatch",
        }
    }
}

impl fmt::Display for Style {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A module file for one kernel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct KernelBuild {
    /// The kernel's release, as `uname -r` says it.
    pub release: String,
    /// The file, in the manifest's folder and in the artifact.
    pub file: String,
}

/// What must hold of a file's first line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct FileCheck {
    /// Under `/sys` or `/proc`, or else under the module's own folder in `/sys/module`.
    pub file: String,
    /// What it says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub equals: Option<String>,
    /// Least number that it says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at_least: Option<i64>,
    /// Largest number that it says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at_most: Option<i64>,
}

/// A file that holds a number that only grows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct FileCounter {
    /// What it counts.
    pub counts: Counts,
    /// Under `/sys` or `/proc`, or else under the module's own folder in `/sys/module`.
    pub file: String,
}

fn default_deadline() -> HumanDuration {
    Kernel::DEADLINE_DEFAULT
}

impl Kernel {
    /// Most builds of a module.
    pub const BUILDS_MAX: usize = 16;
    /// Most parameters.
    pub const PARAMETERS_MAX: usize = 64;
    /// Most checks.
    pub const CHECKS_MAX: usize = 16;
    /// Most counters.
    pub const COUNTERS_MAX: usize = 16;
    /// Least and most time for a load, a transition or an unload.
    pub const DEADLINE: (HumanDuration, HumanDuration) =
        (HumanDuration::millis(100), HumanDuration::secs(30));
    /// The same where nothing is said.
    pub const DEADLINE_DEFAULT: HumanDuration = HumanDuration::secs(5);

    /// Puts the builds' files together to the artifact, in the order in which the manifest names them.
    ///
    /// # Errors
    /// There are other than the manifest's builds, or an empty file.
    pub fn artifact(&self, files: &[Bytes]) -> Result<Vec<u8>, PackageError> {
        let names: Vec<&str> = self.builds.iter().map(|build| build.file.as_str()).collect();
        file::tar_of(&names, files)
    }

    /// The builds' files in an artifact, in the order in which the manifest names them.
    ///
    /// # Errors
    /// It is not what [`Kernel::artifact`] writes for this manifest.
    pub fn files(&self, artifact: &Bytes) -> Result<Vec<Bytes>, PackageError> {
        let names: Vec<&str> = self.builds.iter().map(|build| build.file.as_str()).collect();
        file::files_of(&names, artifact)
    }

    /// Where a file that a check or a counter names is, as an absolute path.
    pub fn path_of(&self, file: &str) -> String {
        if file.starts_with('/') {
            file.to_owned()
        } else {
            format!("/sys/module/{}/{file}", self.module)
        }
    }
}
