//! What must be installed, from Debian's packages and PyPI, and how it gets there.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::files;
use crate::run;

/// Programs, each with a Debian package that has it.
const PROGRAMS: [(&str, &[&str], &str); 8] = [
    ("qemu-system-x86_64", &["--version"], "qemu-system-x86"),
    ("busybox", &["true"], "busybox-static"),
    ("cpio", &["--version"], "cpio"),
    ("mke2fs", &["-V"], "e2fsprogs"),
    ("dpkg-deb", &["--version"], "dpkg"),
    ("make", &["--version"], "make"),
    ("gcc", &["--version"], "gcc"),
    ("strip", &["--version"], "binutils"),
];
/// Of which kernels the headers are taken.
const FLAVOUR: &str = "-cloud-amd64";
const HEADERS: &str = "linux-headers-cloud-amd64";
/// UEFI for the virtual machine, and its store of variables.
pub(super) const FIRMWARE: &str = "/usr/share/OVMF/OVMF_CODE_4M.fd";
pub(super) const VARIABLES: &str = "/usr/share/OVMF/OVMF_VARS_4M.fd";
/// Changes that store.
const VIRT_FIRMWARE: &str = "virt-firmware>=24,<27";
/// A mirror that is slow is left, and another run asked.
const APT: [&str; 4] = ["-o", "Acquire::http::Timeout=30", "-o", "Acquire::Retries=2"];

/// Whether what is missing may be installed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Missing {
    /// Where this runs as root of a Debian.
    Install,
    Tell,
}

/// The newest kernel whose headers are there, where everything is there that the tests need.
///
/// # Errors
/// What is missing, and how one gets it.
pub(super) fn kernel(missing: Missing) -> Result<String, String> {
    if std::env::consts::ARCH != "x86_64" {
        return Err("kernel modules are tried on x86-64 only".to_owned());
    }
    let lacking = lacking();
    if !lacking.is_empty() {
        get(missing, &lacking)?;
    }
    newest_headers().ok_or_else(|| format!("{HEADERS} is installed and has no kernel's headers"))
}

fn lacking() -> Vec<&'static str> {
    let programs = PROGRAMS
        .iter()
        .filter(|(program, args, _)| !run::there_is(program, args))
        .map(|(_, _, package)| *package);
    let headers = newest_headers().is_none().then_some(HEADERS);
    programs.chain(headers).collect()
}

/// The program that puts a key into the store of variables, where UEFI is there too.
///
/// # Errors
/// What is missing, and how one gets it.
pub(super) fn virt_fw_vars(missing: Missing, target: &Path) -> Result<PathBuf, String> {
    if !Path::new(FIRMWARE).exists() || !Path::new(VARIABLES).exists() {
        get(missing, &["ovmf"])?;
    }
    let venv = target.join("vm/venv");
    let program = venv.join("bin/virt-fw-vars");
    if run::there_is(&program, &["--help"]) {
        return Ok(program);
    }
    if !run::there_is("python3", &["-c", "import ensurepip"]) {
        get(missing, &["python3-venv"])?;
    }
    let install = || {
        run::run(Command::new("python3").args(["-m", "venv"]).arg(&venv))?;
        run::run(Command::new(venv.join("bin/pip")).args(["install", "--quiet", VIRT_FIRMWARE]))
    };
    install().map_err(|error| format!("virt-firmware could not be installed: {error:#}"))?;
    Ok(program)
}

fn get(missing: Missing, packages: &[&str]) -> Result<(), String> {
    let by_hand = format!("apt-get install --no-install-recommends {}", packages.join(" "));
    let can = missing == Missing::Install && is_root() && run::there_is("apt-get", &["--version"]);
    if !can {
        return Err(format!("something is missing: {by_hand}"));
    }
    let failed = |error: anyhow::Error| format!("{by_hand}: {error:#}");
    run::run(apt().arg("update")).map_err(failed)?;
    let install = |more: &[&str]| run::run(apt().args(INSTALL).args(packages).args(more));
    install(&[]).or_else(|error| {
        // A newer qemu-utils than the distribution's keeps the distribution's QEMU out.
        let version =
            run::output(Command::new("apt-cache").args(["show", "--no-all-versions", "qemu-system-x86"]))
                .ok()
                .and_then(|shown| Some(shown.split("\nVersion: ").nth(1)?.lines().next()?.to_owned()));
        match version {
            Some(version) if packages.contains(&"qemu-system-x86") => {
                install(&["--allow-downgrades", &format!("qemu-utils={version}")])
            }
            _ => Err(error),
        }
        .map_err(failed)
    })
}

const INSTALL: [&str; 3] = ["install", "--yes", "--no-install-recommends"];

fn apt() -> Command {
    let mut apt = Command::new("apt-get");
    apt.args(APT).env("DEBIAN_FRONTEND", "noninteractive");
    apt
}

fn is_root() -> bool {
    run::output(Command::new("id").arg("-u")).is_ok_and(|id| id.trim() == "0")
}

/// The newest kernel whose headers are installed.
fn newest_headers() -> Option<String> {
    let releases = files(Path::new("/lib/modules")).ok()?.into_iter();
    let mut releases: Vec<String> = releases
        .filter(|path| path.join("build/Makefile").exists())
        .filter_map(|path| Some(path.file_name()?.to_str()?.to_owned()))
        .filter(|release| release.ends_with(FLAVOUR))
        .collect();
    releases.sort_by_key(|release| numbers(release));
    releases.pop()
}

fn numbers(release: &str) -> Vec<u64> {
    let numbers = release.split(|c: char| !c.is_ascii_digit());
    numbers.filter_map(|number| number.parse().ok()).collect()
}
