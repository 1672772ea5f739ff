//! Releases as the core knows them: what decides, not what they contain.

use serde::{Deserialize, Serialize};

use crate::ids::{Digest, ReleaseRef};
use crate::time::WallTime;

/// Most versions of a module that are kept.
pub const RELEASES_PER_MODULE_MAX: usize = 10_000;

/// What a module is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Kind {
    /// A WebAssembly component that exports `wasi:http`.
    Wasm,
    /// A native server.
    Process,
    /// An eBPF object.
    Ebpf,
    /// A Linux kernel module or livepatch.
    Kernel,
}

impl Kind {
    /// Whether it answers requests that the ingress can share out. Others take no traffic weights.
    pub fn routes(self) -> bool {
        matches!(self, Self::Wasm | Self::Process)
    }

    /// As manifests and capabilities name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Wasm => "wasm",
            Self::Process => "process",
            Self::Ebpf => "ebpf",
            Self::Kernel => "kernel",
        }
    }
}

/// One immutable version of a module.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Release {
    /// Digest of its package file.
    pub digest: Digest,
    /// What it is.
    pub kind: Kind,
    /// Bytes of its package file.
    pub size: u64,
    /// When it was pushed.
    pub pushed_at: WallTime,
    /// The subject that pushed it.
    pub pushed_by: String,
    /// Whose signature it had when it was pushed: the certificate's subject and fingerprint. A record; every check
    /// judges the signature itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signed_by: Option<String>,
    /// What a node must have to run it, besides its kind: words as nodes name them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub needs: Vec<String>,
}

/// Why no promotion takes a release until a person releases it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReleaseHold {
    /// The release, with its configuration revision.
    pub release: ReleaseRef,
    /// Why.
    pub reason: String,
    /// Since when.
    pub since: WallTime,
    /// Whether it is for good: a revoked release is never taken again.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub revoked: bool,
}

impl ReleaseHold {
    /// Whether it is about a release with its configuration: an operator's and a revocation are about all of a
    /// package's, one that a rollout ended with is about that configuration.
    pub fn bars(&self, release: &ReleaseRef) -> bool {
        self.revoked || self.release.config == 0 || self.release.config == release.config
    }
}

/// Why a version is withdrawn. Unlike a hold it speaks of the version itself, and a later push doesn't end it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Yank {
    /// Who withdrew it.
    pub by: String,
    /// Why.
    pub reason: String,
    /// Since when.
    pub since: WallTime,
}
