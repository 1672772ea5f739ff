//! What a host of eBPF programs may use.

use std::path::PathBuf;

use crate::grants::{Grants, Ungranted};

/// Where the file system for pins is, as systems mount it.
pub const BPFFS: &str = "/sys/fs/bpf";

/// What an [`EbpfHost`](super::EbpfHost) does and may use.
#[derive(Clone, Debug)]
pub struct EbpfHostConfig {
    /// Where the file system for pins is mounted. `None`: nothing is attached, programs are only loaded for a check.
    pub bpffs: Option<PathBuf>,
    /// What modules may use that ask for it.
    pub grants: Grants,
    /// What becomes of those that ask for more.
    pub ungranted: Ungranted,
}

impl EbpfHostConfig {
    /// A node's.
    pub fn new(grants: Grants) -> Self {
        Self {
            bpffs: Some(PathBuf::from(BPFFS)),
            grants,
            ungranted: Ungranted::Refuse,
        }
    }

    /// That of who only tries whether programs load.
    pub fn for_checks() -> Self {
        Self {
            bpffs: None,
            grants: Grants::default(),
            ungranted: Ungranted::Withhold,
        }
    }
}
