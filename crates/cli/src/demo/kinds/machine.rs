//! What this machine lacks for which kind.

use std::fs;
use std::path::{Path, PathBuf};

use hotswap_package::Kind;
use hotswap_runtime::{EbpfHost, EbpfHostConfig, Grants};

/// A kind, and what this machine lacks for it.
#[derive(Clone, Debug)]
pub(super) struct Shown {
    pub(super) kind: Kind,
    /// For people.
    pub(super) title: &'static str,
    /// `None`: nothing.
    pub(super) lacks: Option<String>,
}

/// What this machine can show.
#[derive(Clone, Debug)]
pub(super) struct Machine {
    kinds: Vec<Shown>,
    /// The kernel's release.
    pub(super) release: String,
    /// Where built kernel modules are, if they may be loaded.
    pub(super) kernel_modules: Option<PathBuf>,
}

impl Machine {
    /// Looks what there is. `no_network`: why this process has no network of its own, if it hasn't.
    pub(super) fn look(no_network: Option<String>, kernel_modules: Option<&Path>) -> Self {
        let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let release = release.trim().to_owned();
        let ebpf = no_network.or_else(|| {
            let host = EbpfHost::new(EbpfHostConfig::new(Grants::default()));
            host.err().map(|error| error.to_string())
        });
        let shown = |kind, title, lacks| Shown { kind, title, lacks };
        let kernel = kernel_lacks(Path::new("/"), &release, kernel_modules);
        Self {
            kinds: vec![
                shown(Kind::Wasm, "WebAssembly", None),
                shown(Kind::Process, "native process", native_lacks()),
                shown(Kind::Ebpf, "eBPF", ebpf),
                shown(Kind::Kernel, "kernel module", kernel),
            ],
            release,
            kernel_modules: kernel_modules.map(Path::to_path_buf),
        }
    }

    /// All kinds, in the order of the show.
    pub(super) fn kinds(&self) -> &[Shown] {
        &self.kinds
    }

    /// Whether a kind can be shown.
    pub(super) fn can(&self, kind: Kind) -> bool {
        self.kinds
            .iter()
            .any(|shown| shown.kind == kind && shown.lacks.is_none())
    }
}

/// The example is a script: where processes look for programs there must be its interpreter.
fn native_lacks() -> Option<String> {
    let places = ["/usr/local/bin", "/usr/bin", "/bin"];
    let found = places
        .iter()
        .any(|place| Path::new(place).join("python3").exists());
    (!found).then(|| {
        format!(
            "the example is a script, and there is no python3 in {}: install it",
            places.join(", ")
        )
    })
}

/// Files that the example consists of, as its makefile builds them.
pub(super) const KERNEL_FILES: [&str; 3] = ["hotswap_gate.ko", "greeter_1_0_0.ko", "greeter_1_1_0.ko"];

/// What lacks for kernel modules under this root of the file system.
fn kernel_lacks(root: &Path, release: &str, allowed: Option<&Path>) -> Option<String> {
    let at = |path: &str| root.join(path);
    if !at("proc/modules").exists() {
        return Some(format!(
            "this machine's kernel, {release}, is built without loadable modules; a kernel of a distribution has them"
        ));
    }
    let disabled = fs::read_to_string(at("proc/sys/kernel/modules_disabled")).unwrap_or_default();
    if disabled.trim() == "1" {
        return Some("kernel.modules_disabled is set until the machine is started again".to_owned());
    }
    let status = fs::read_to_string(at("proc/self/status")).unwrap_or_default();
    let held = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let held = held.and_then(|held| u64::from_str_radix(held.trim(), 16).ok());
    if held.is_none_or(|held| held & (1 << CAP_SYS_MODULE) == 0) {
        return Some("it needs CAP_SYS_MODULE: run it as root".to_owned());
    }
    let build = format!(
        "make -C /lib/modules/{release}/build M=DIR modules, DIR being modules/kernel/src of the repository, \
         and linux-headers-{release} installed"
    );
    let Some(dir) = allowed else {
        return Some(format!(
            "it would be loaded into this machine's own kernel: --allow-kernel-modules DIR permits that. DIR has the \
             example built for {release}: {build}"
        ));
    };
    let missing: Vec<&str> = KERNEL_FILES
        .into_iter()
        .filter(|file| !dir.join(file).is_file())
        .collect();
    if !missing.is_empty() {
        return Some(format!(
            "{} has no {}: {build}",
            dir.display(),
            missing.join(", ")
        ));
    }
    let wrong = KERNEL_FILES.into_iter().find_map(|file| {
        let built_for = built_for(&dir.join(file))?;
        (built_for != release)
            .then(|| format!("{file} is built for {built_for}, and this kernel is {release}: {build}"))
    });
    wrong.or_else(|| {
        let there = ["hotswap_gate", "greeter_1_0_0", "greeter_1_1_0"];
        let there = there
            .into_iter()
            .find(|name| at("sys/module").join(name).exists())?;
        Some(format!(
            "a module called {there} is loaded already: rmmod {there}"
        ))
    })
}

const CAP_SYS_MODULE: u32 = 16;

/// The kernel that a module says it is built for.
fn built_for(file: &Path) -> Option<String> {
    const KEY: &[u8] = b"vermagic=";
    let content = fs::read(file).ok()?;
    let at = content.windows(KEY.len()).position(|part| part == KEY)? + KEY.len();
    let rest = content[at..].split(|byte| matches!(byte, 0 | b' ')).next()?;
    Some(String::from_utf8_lossy(rest).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_kernel_module_lacks_is_told_with_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        let write = |path: &str, text: &str| {
            let path = root.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        let builds = root.join("builds");
        let lacks = |allowed: bool| {
            kernel_lacks(root, "6.1.0-56", allowed.then_some(builds.as_path())).unwrap_or_default()
        };
        assert!(
            lacks(true).contains("without loadable modules"),
            "{}",
            lacks(true)
        );
        write("proc/modules", "");
        write("proc/sys/kernel/modules_disabled", "1\n");
        assert!(lacks(true).contains("modules_disabled"), "{}", lacks(true));
        write("proc/sys/kernel/modules_disabled", "0\n");
        write("proc/self/status", "CapEff:\t0000000000000000\n");
        assert!(lacks(true).contains("CAP_SYS_MODULE"), "{}", lacks(true));
        write("proc/self/status", "CapEff:\t0000000000010000\n");
        assert!(
            lacks(false).contains("--allow-kernel-modules DIR"),
            "{}",
            lacks(false)
        );
        assert!(
            lacks(true).contains("has no hotswap_gate.ko, greeter_1_0_0.ko"),
            "{}",
            lacks(true)
        );
        for file in KERNEL_FILES {
            write(&format!("builds/{file}"), "\0vermagic=6.1.0-55 SMP\0");
        }
        assert!(
            lacks(true).contains("is built for 6.1.0-55, and this kernel is 6.1.0-56"),
            "{}",
            lacks(true)
        );
        for file in KERNEL_FILES {
            write(&format!("builds/{file}"), "\0vermagic=6.1.0-56 SMP\0");
        }
        assert_eq!(lacks(true), "");
        write("sys/module/greeter_1_0_0/refcnt", "0");
        assert!(lacks(true).contains("rmmod greeter_1_0_0"), "{}", lacks(true));
    }
}
