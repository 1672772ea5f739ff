//! What an earlier host left behind when it ended without being asked to.
//!
//! Its processes are killed by the system as it ends. Their own children are not: they are known by a variable in their
//! environment.

use std::fs;
use std::path::{Path, PathBuf};

use rustix::process::{Pid, Signal, kill_process};

use super::cgroup::Cgroup;
use super::usage::start_time;

/// Which host a process belongs to.
pub(super) const RUN_VARIABLE: &str = "HOTSWAP_RUN";
/// Where a host notes the folder of its sockets.
const SOCKETS_NOTE: &str = "sockets";

/// A host's name, by which later ones know whether it still is: its process's number, when that began, and a count.
pub(super) fn owner(count: u64) -> String {
    let pid = std::process::id();
    format!("hotswap-{pid}-{}-{count}", start_time(pid).unwrap_or(0))
}

/// Notes where a host's sockets are.
pub(super) fn note(folder: &Path, sockets: &Path) -> std::io::Result<()> {
    fs::write(folder.join(SOCKETS_NOTE), sockets.as_os_str().as_encoded_bytes())
}

/// Ends and removes what hosts left whose processes are no more.
pub(super) fn sweep(dir: &Path, cgroup: Option<&Cgroup>) -> std::io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if is_gone(&name) {
            if let Some(cgroup) = cgroup {
                cgroup.sweep(&name);
            }
            let killed = kill_all(&name);
            if killed > 0 {
                tracing::warn!(
                    killed,
                    run = name,
                    "processes of an earlier run were still there and were ended"
                );
            }
            if let Ok(sockets) = fs::read_to_string(entry.path().join(SOCKETS_NOTE)).map(PathBuf::from)
                && sockets
                    .file_name()
                    .is_some_and(|folder| folder.to_string_lossy().starts_with(&name))
            {
                // It may be on a disk that was emptied meanwhile.
                let _ = fs::remove_dir_all(sockets);
            }
            fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
}

/// Whether a name is a host's whose process is no more.
fn is_gone(owner: &str) -> bool {
    let Some(rest) = owner.strip_prefix("hotswap-") else {
        return false;
    };
    let mut parts = rest.split('-');
    let pid = parts.next().and_then(|pid| pid.parse().ok());
    let start = parts.next().and_then(|start| start.parse().ok());
    pid.zip(start)
        .is_some_and(|(pid, start): (u32, u64)| start_time(pid) != Some(start))
}

fn kill_all(owner: &str) -> u32 {
    let variable = format!("{RUN_VARIABLE}={owner}");
    let mut killed = 0;
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let pid = entry.file_name().to_str().and_then(|name| name.parse().ok());
        let Some(pid) = pid.and_then(Pid::from_raw) else {
            continue;
        };
        let environment = fs::read(entry.path().join("environ")).unwrap_or_default();
        let is_its = environment
            .split(|byte| *byte == 0)
            .any(|one| one == variable.as_bytes());
        if is_its && kill_process(pid, Signal::KILL).is_ok() {
            killed += 1;
        }
    }
    killed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_gone_when_its_process_is_or_is_another() {
        let me = owner(3);
        assert!(!is_gone(&me), "{me}");
        let pid = std::process::id();
        assert!(is_gone(&format!("hotswap-{pid}-1-0")));
        assert!(is_gone(&format!("hotswap-{}-5-0", i32::MAX)));
        for other in ["hotswap", "hotswap-x-1-2", "notes", "other-1-2-3"] {
            assert!(!is_gone(other), "{other}");
        }
    }
}
