//! What a host may use, and what one release may.

use std::path::PathBuf;
use std::time::Duration;

use hotswap_package::{Isolation, Manifest};

use crate::grants::{Grants, Ungranted};

/// What a [`WasmHost`](super::WasmHost) may use; one host serves all agents of a process.
#[derive(Clone, Debug)]
pub struct WasmHostConfig {
    /// Where compiled components are kept across restarts, in a folder that is made accessible to its owner only.
    /// Without one every start compiles anew.
    pub cache_dir: Option<PathBuf>,
    /// Most instances alive at once, over all releases. Each reserves 4 GiB of address space, not memory.
    pub instances_max: u32,
    /// Largest component, in bytes.
    pub component_bytes_max: u64,
    /// Longest time for a start, instantiation and warm-up together.
    pub start_time_max: Duration,
    /// Most lines per second that a release's output puts into the log; more are counted and dropped.
    pub log_lines_per_second_max: u32,
    /// What modules may use that ask for it.
    pub grants: Grants,
    /// What becomes of those that ask for more.
    pub ungranted: Ungranted,
}

impl Default for WasmHostConfig {
    fn default() -> Self {
        Self {
            cache_dir: None,
            instances_max: 2_000,
            component_bytes_max: 128 << 20,
            start_time_max: Duration::from_secs(20),
            log_lines_per_second_max: 50,
            grants: Grants::default(),
            ungranted: Ungranted::Refuse,
        }
    }
}

/// What an instance of a release may use, from its manifest.
#[derive(Clone, Copy, Debug)]
pub(super) struct GuestLimits {
    pub(super) memory_bytes_max: u64,
    pub(super) request_time_max: Duration,
    pub(super) concurrency_max: u32,
    pub(super) reuse_max: u32,
}

impl From<&Manifest> for GuestLimits {
    fn from(manifest: &Manifest) -> Self {
        let limits = manifest.limits;
        Self {
            memory_bytes_max: limits.memory.0,
            request_time_max: limits.time.0,
            concurrency_max: limits.concurrency.max(1),
            reuse_max: match manifest.isolation {
                Isolation::Reuse => limits.instance_reuse.max(1),
                Isolation::Request => 1,
            },
        }
    }
}
