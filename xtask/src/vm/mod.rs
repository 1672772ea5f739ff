//! What the tests of kernel modules in a virtual machine are given: a kernel of the distribution's, an initramfs, and the
//! example modules built for that kernel.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::run;

/// What must be installed, each with a Debian package that has it.
const TOOLS: [(&str, &[&str], &str); 7] = [
    ("qemu-system-x86_64", &["--version"], "qemu-system-x86"),
    ("busybox", &["true"], "busybox-static"),
    ("cpio", &["--version"], "cpio"),
    ("mke2fs", &["-V"], "e2fsprogs"),
    ("dpkg-deb", &["--version"], "dpkg"),
    ("make", &["--version"], "make"),
    ("gcc", &["--version"], "gcc"),
];
/// Of which kernels the headers are taken.
const FLAVOUR: &str = "-cloud-amd64";
const DRIVERS: [&str; 9] = [
    "virtio_ring",
    "virtio",
    "virtio_pci_modern_dev",
    "virtio_pci_legacy_dev",
    "virtio_pci",
    "virtio_blk",
    "failover",
    "net_failover",
    "virtio_net",
];
/// The versions of the plain module, and how each is built.
const PLAIN: [(&str, &str); 4] = [
    ("1.0.0", ""),
    ("1.1.0", ""),
    ("1.2.0", " -DFAULT_FAIL"),
    ("1.3.0", " -DFAULT_PANIC"),
];

/// Runs the tests; the first run fetches the kernel.
pub(crate) fn test() -> Result<()> {
    let dir = prepare()?;
    let mut test = run::cargo();
    test.env("HOTSWAP_VM", &dir).args([
        "test",
        "--release",
        "--locked",
        "--workspace",
        "--test",
        "cli",
        "kernel::",
        "--",
        "--nocapture",
        "--test-threads=1",
    ]);
    run::run(&mut test)
}

fn prepare() -> Result<PathBuf> {
    let missing: Vec<&str> = TOOLS
        .iter()
        .filter(|(program, args, _)| !run::there_is(program, args))
        .map(|(_, _, package)| *package)
        .collect();
    let headers = newest_headers();
    let Some(release) = headers.filter(|_| missing.is_empty()) else {
        bail!(
            "something is missing: apt-get install --no-install-recommends {} linux-headers{FLAVOUR}",
            missing.join(" ")
        );
    };
    let dir = run::root().join("target/vm").join(&release);
    fs::create_dir_all(&dir)?;
    fs::write(dir.join("release"), &release)?;
    let image = dir.join("image");
    if !image.exists() {
        let package = format!("linux-image-{release}");
        run::run(
            Command::new("apt-get")
                .args(["download", &package])
                .current_dir(&dir),
        )?;
        let deb = files(&dir)?
            .into_iter()
            .find(|path| path.extension() == Some(OsStr::new("deb")))
            .context("apt-get downloaded nothing")?;
        let part = dir.join("image.part");
        run::run(Command::new("dpkg-deb").arg("-x").arg(deb).arg(&part))?;
        fs::rename(part, &image)?;
    }
    fs::copy(image.join(format!("boot/vmlinuz-{release}")), dir.join("vmlinuz"))?;
    initramfs(&dir, &image.join("lib/modules").join(&release))?;
    modules(&dir, &release)?;
    Ok(dir)
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

fn files(dir: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(dir).with_context(|| format!("failed to read {}", dir.display()))?;
    entries.map(|entry| Ok(entry?.path())).collect()
}

fn fresh(dir: &Path) -> Result<()> {
    if dir.exists() {
        fs::remove_dir_all(dir)?;
    }
    Ok(fs::create_dir_all(dir)?)
}

fn initramfs(dir: &Path, modules: &Path) -> Result<()> {
    let root = dir.join("root");
    fresh(&root)?;
    for folder in ["bin", "proc", "sys", "dev", "data", "tmp", "drivers"] {
        fs::create_dir(root.join(folder))?;
    }
    let init = root.join("init");
    fs::write(&init, include_str!("init.sh"))?;
    let shell = "\
        set -e
        cp \"$(command -v busybox)\" bin/busybox
        chmod +x init
        for name in \"$@\"; do find \"$MODULES\" -name \"$name.ko\" -exec cp {} drivers/ \\; ; done
        find . | cpio --quiet -o -H newc > ../initramfs";
    run::run(
        Command::new("sh")
            .args(["-c", shell, "sh"])
            .args(DRIVERS)
            .env("MODULES", modules)
            .current_dir(&root),
    )
}

/// Builds the example modules; of the plain one each version.
fn modules(dir: &Path, release: &str) -> Result<()> {
    let sources = run::root().join("modules/kernel/src");
    let built = dir.join("modules");
    fresh(&built)?;
    for (version, fault) in PLAIN {
        let work = dir.join("work");
        fresh(&work)?;
        for file in files(&sources)? {
            fs::copy(&file, work.join(file.file_name().context("a file has a name")?))?;
        }
        run::output(
            Command::new("make")
                .arg("-C")
                .arg(Path::new("/lib/modules").join(release).join("build"))
                .arg(format!("M={}", work.display()))
                .arg(format!("HOTSWAP_PLAIN=-DVERSION='\"{version}\"'{fault}"))
                .arg("modules"),
        )?;
        fs::copy(
            work.join("hotswap_plain.ko"),
            built.join(format!("hotswap_plain-{version}.ko")),
        )?;
        for other in ["hotswap_gate", "greeter_1_0_0", "greeter_1_1_0", "hotswap_patch"] {
            let name = format!("{other}.ko");
            fs::copy(work.join(&name), built.join(&name))?;
        }
    }
    Ok(())
}
