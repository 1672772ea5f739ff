//! What this machine has, in words that releases may need.

use std::fs;
use std::path::Path;

use hotswap_runtime::{Runtimes, ebpf};

/// Longest release of a kernel that is told, in characters.
const KERNEL_LEN_MAX: usize = 64;
/// Where the system says what its own types are.
const BTF: &str = "/sys/kernel/btf/vmlinux";

/// The kinds that run here, then what the machine is: its processor, its kernel, how control groups are kept there,
/// whether the agent is root, whether the kernel's types are known (BTF), whether eBPF programs can be pinned, whether
/// the kernel tells its tracepoints.
pub(crate) fn capabilities(runtimes: &Runtimes) -> Vec<String> {
    let mut words: Vec<String> = runtimes.kinds().map(|kind| kind.as_str().to_owned()).collect();
    words.push(format!("arch:{}", std::env::consts::ARCH));
    if let Ok(kernel) = fs::read_to_string("/proc/sys/kernel/osrelease") {
        let kernel: String = kernel.trim().chars().take(KERNEL_LEN_MAX).collect();
        words.push(format!("kernel:{kernel}"));
    }
    words.push(format!("cgroup:{}", cgroup()));
    let is_root = rustix::process::geteuid().is_root();
    let user = if is_root { "root" } else { "user" };
    words.push(format!("privileges:{user}"));
    if Path::new(BTF).exists() {
        words.push("btf".to_owned());
    }
    if ebpf::has_tracefs() {
        words.push("tracefs".to_owned());
    }
    if ebpf::is_bpffs(Path::new(ebpf::BPFFS)) {
        words.push("bpffs".to_owned());
    }
    words
}

/// Which version of control groups the machine has: `v2`, `v1`, both (`hybrid`) or `none`.
fn cgroup() -> &'static str {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let has = |kind: &str| mounts.lines().any(|line| line.split(' ').nth(2) == Some(kind));
    match (has("cgroup"), has("cgroup2")) {
        (true, true) => "hybrid",
        (true, false) => "v1",
        (false, true) => "v2",
        (false, false) => "none",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_is_described_in_words_without_blanks() {
        let words = capabilities(&Runtimes::new());
        for begins in ["arch:", "kernel:", "cgroup:", "privileges:"] {
            assert!(
                words.iter().any(|word| word.starts_with(begins)),
                "{begins} in {words:?}"
            );
        }
        assert!(words.iter().all(|word| !word.contains(' ')), "{words:?}");
    }
}
