//! What a host of kernel modules may use.

use std::path::PathBuf;

/// Where a machine's watchdog is.
pub const WATCHDOG: &str = "/dev/watchdog";

/// What a [`KernelHost`](super::KernelHost) does and may use.
#[derive(Clone, Debug)]
pub struct KernelHostConfig {
    /// Folder of module files and of what is remembered of them. `None`: nothing is loaded, files are only looked at.
    pub dir: Option<PathBuf>,
    /// The device that restarts the machine when nobody speaks to it, where it is there: used while something new is
    /// loaded and watched.
    pub watchdog: Option<PathBuf>,
}

impl KernelHostConfig {
    /// A node's.
    pub fn new(dir: PathBuf) -> Self {
        Self {
            dir: Some(dir),
            watchdog: None,
        }
    }

    /// That of who only looks at files.
    pub fn for_checks() -> Self {
        Self {
            dir: None,
            watchdog: None,
        }
    }
}
