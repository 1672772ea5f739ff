//! The machine and its kernel.

use std::fs;
use std::path::Path;

use hotswap_runtime::kernel::WATCHDOG;

use super::Finding;

/// Fewer open files than this may not be enough under load.
const OPEN_FILES_WANTED: u64 = 4_096;
/// Less memory than this holds a few modules only.
const MEMORY_WANTED_KIB: u64 = 512 << 10;
/// There where systemd's time service has set the clock.
const CLOCK_SYNCHRONISED: &str = "/run/systemd/timesync/synchronized";

/// Everything about the machine.
pub(super) fn look() -> Vec<Finding> {
    vec![
        Finding::ok("version", format!("hotswap {}", env!("CARGO_PKG_VERSION"))),
        kernel(),
        cpus(),
        memory(),
        open_files(),
        clock(),
        btf(),
        bpffs(),
        cgroups(),
        kernel_modules(),
        watchdog(),
        virtualisation(),
    ]
}

fn text(path: &str) -> Option<String> {
    Some(fs::read_to_string(path).ok()?.trim().to_owned())
}

fn kernel() -> Finding {
    let release = text("/proc/sys/kernel/osrelease").unwrap_or_else(|| "unknown".to_owned());
    let system = std::env::consts::OS;
    if system == "linux" {
        Finding::ok("kernel", format!("Linux {release}, {}", std::env::consts::ARCH))
    } else {
        Finding::warn(
            "kernel",
            system,
            "modules of kind ebpf and kernel need Linux; wasm runs everywhere",
        )
    }
}

fn cpus() -> Finding {
    match std::thread::available_parallelism() {
        Ok(cpus) => Finding::ok("processors", format!("{cpus} to be used")),
        Err(error) => Finding::warn("processors", error.to_string(), "see what limits this process"),
    }
}

fn memory() -> Finding {
    let available = text("/proc/meminfo").and_then(|info| {
        let line = info.lines().find(|line| line.starts_with("MemAvailable:"))?;
        line.split_whitespace().nth(1)?.parse::<u64>().ok()
    });
    match available {
        Some(kib) if kib < MEMORY_WANTED_KIB => Finding::warn(
            "memory",
            format!("{} MiB available", kib >> 10),
            "a node wants 512 MiB at least: free some, or give modules lower limits",
        ),
        Some(kib) => Finding::ok("memory", format!("{} MiB available", kib >> 10)),
        None => Finding::warn("memory", "unknown: /proc/meminfo can't be read", "mount /proc"),
    }
}

fn open_files() -> Finding {
    match rlimit::getrlimit(rlimit::Resource::NOFILE) {
        Ok((_, hard)) if hard < OPEN_FILES_WANTED => Finding::warn(
            "open files",
            format!("at most {hard}"),
            format!(
                "raise the hard limit to {OPEN_FILES_WANTED} or more: LimitNOFILE= of the unit, or ulimit -Hn"
            ),
        ),
        Ok((_, hard)) => Finding::ok("open files", format!("up to {hard}")),
        Err(error) => Finding::warn("open files", error.to_string(), "see ulimit -n"),
    }
}

/// Approvals, holds and certificates go by the wall clock.
fn clock() -> Finding {
    /// 2024-01-01, before which this program was not written.
    const EARLIEST_S: u64 = 1_704_067_200;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let seconds = now.map_or(0, |now| now.as_secs());
    if seconds < EARLIEST_S {
        return Finding::fail(
            "clock",
            "it stands before this program was written",
            "set it, and keep it so: timedatectl set-ntp true",
        );
    }
    let keepers = [
        "/run/chrony/chronyd.pid",
        "/run/ntpd.pid",
        "/run/chronyd.pid",
        CLOCK_SYNCHRONISED,
    ];
    match keepers.iter().find(|path| Path::new(path).exists()) {
        Some(keeper) => Finding::ok("clock", format!("plausible, kept by a time service ({keeper})")),
        None => Finding::ok(
            "clock",
            "plausible; no time service was seen here, perhaps the host keeps it",
        ),
    }
}

fn btf() -> Finding {
    if Path::new("/sys/kernel/btf/vmlinux").exists() {
        Finding::ok("BTF", "the kernel describes its types")
    } else {
        Finding::warn(
            "BTF",
            "/sys/kernel/btf/vmlinux is missing",
            "eBPF modules that are relocated need a kernel with CONFIG_DEBUG_INFO_BTF",
        )
    }
}

fn mounts() -> String {
    text("/proc/self/mounts").unwrap_or_default()
}

fn bpffs() -> Finding {
    let mounts = mounts();
    let mut at = mounts.lines().filter_map(|line| {
        let mut parts = line.split(' ').skip(1);
        let (path, kind) = (parts.next()?, parts.next()?);
        (kind == "bpf").then_some(path)
    });
    // The mount on top of the others.
    match at.next_back() {
        Some(path) => Finding::ok("bpffs", format!("mounted at {path}")),
        None => Finding::warn(
            "bpffs",
            "not mounted",
            "eBPF modules are pinned there: mount -t bpf bpf /sys/fs/bpf",
        ),
    }
}

fn cgroups() -> Finding {
    if Path::new("/sys/fs/cgroup/cgroup.controllers").exists() {
        return Finding::ok("cgroups", "version 2");
    }
    let next = "process modules are metered by version 2: boot with systemd.unified_cgroup_hierarchy=1";
    if Path::new("/sys/fs/cgroup/unified/cgroup.controllers").exists() || mounts().contains(" cgroup2 ") {
        Finding::warn("cgroups", "hybrid: versions 1 and 2", next)
    } else {
        Finding::warn("cgroups", "version 2 is not mounted", next)
    }
}

fn watchdog() -> Finding {
    if Path::new(WATCHDOG).exists() {
        Finding::ok(
            "watchdog",
            format!("{WATCHDOG} is there; agents use it where agent.watchdog names it"),
        )
    } else {
        Finding::warn(
            "watchdog",
            format!("there is no {WATCHDOG}"),
            "only for modules of kind kernel: one whose load hangs the machine is ended by whoever runs it; the module softdog \
             makes a watchdog of software",
        )
    }
}

fn kernel_modules() -> Finding {
    if !Path::new("/proc/modules").exists() {
        return Finding::warn(
            "kernel modules",
            "the kernel loads none",
            "modules of kind kernel need CONFIG_MODULES",
        );
    }
    let enforced = text("/sys/module/module/parameters/sig_enforce");
    match enforced.as_deref() {
        Some("Y" | "1") => Finding::ok("kernel modules", "loadable, and only signed ones"),
        _ => Finding::warn(
            "kernel modules",
            "loadable, also unsigned ones",
            "a node for modules of kind kernel should boot with module.sig_enforce=1",
        ),
    }
}

fn virtualisation() -> Finding {
    match fs::OpenOptions::new().read(true).write(true).open("/dev/kvm") {
        Ok(_) => Finding::ok("KVM", "usable; only tests of kernel modules need it"),
        Err(_) => Finding::ok(
            "KVM",
            "not usable; only tests of kernel modules would need it, and are slower without",
        ),
    }
}
