//! What is booted: a kernel of the distribution's, an initramfs around it, and UEFI variables that name a key.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use super::provide::{FIRMWARE, VARIABLES};
use super::{files, fresh};
use crate::run;

const DRIVERS: [&str; 11] = [
    "virtio_ring",
    "virtio",
    "virtio_pci_modern_dev",
    "virtio_pci_legacy_dev",
    "virtio_pci",
    "virtio_blk",
    "failover",
    "net_failover",
    "virtio_net",
    "watchdog",
    "softdog",
];
/// Whose key it is, for the firmware.
const KEY_OWNER: &str = "0c0f8d1a-4b6e-4f0e-9a53-6d1f0a8a7a11";

/// Fetches and unpacks a kernel; returns where it is unpacked.
pub(super) fn image(dir: &Path, release: &str) -> Result<PathBuf> {
    let image = dir.join("image");
    if image.exists() {
        return Ok(image);
    }
    let package = format!("linux-image-{release}");
    run::run(
        Command::new("apt-get")
            .args(["download", &package])
            .current_dir(dir),
    )?;
    let deb = files(dir)?
        .into_iter()
        .find(|path| path.extension() == Some(OsStr::new("deb")))
        .context("apt-get downloaded nothing")?;
    let part = dir.join("image.part");
    fresh(&part)?;
    run::run(Command::new("dpkg-deb").arg("-x").arg(deb).arg(&part))?;
    fs::rename(part, &image)?;
    Ok(image)
}

/// Makes the initramfs; its init is the only program there but for BusyBox.
pub(super) fn initramfs(dir: &Path, modules: &Path) -> Result<()> {
    let root = dir.join("root");
    fresh(&root)?;
    for folder in ["bin", "proc", "sys", "dev", "data", "tmp", "drivers"] {
        fs::create_dir(root.join(folder))?;
    }
    fs::write(root.join("init"), include_str!("init.sh"))?;
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

const STORE: &str = "variables.fd";

/// Without it, nothing that needs a key is tried.
pub(super) fn forget_firmware(dir: &Path) -> Result<()> {
    match fs::remove_file(dir.join(STORE)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}

/// Firmware whose variables trust `key.pem`: Debian's kernel takes modules by keys that its machine trusts.
pub(super) fn firmware(dir: &Path, virt_fw_vars: &Path) -> Result<()> {
    fs::copy(FIRMWARE, dir.join("firmware.fd"))?;
    run::output(
        Command::new(virt_fw_vars)
            .args(["--loglevel", "error", "-i", VARIABLES])
            .args(["--add-db", KEY_OWNER, "key.pem", "-o", STORE])
            .current_dir(dir),
    )?;
    Ok(())
}
