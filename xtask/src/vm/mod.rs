//! What the tests of kernel modules in a virtual machine are given: a kernel of the distribution's, an initramfs, and the
//! example modules built for that kernel.

mod boot;
mod build;
mod provide;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

pub(crate) use provide::Missing;

use crate::run;

/// A kernel to boot.
pub(crate) struct Machine {
    dir: PathBuf,
    release: String,
    image: PathBuf,
    /// What makes firmware that trusts a key; or why there is none, and no test of signatures.
    pub(crate) virt_fw_vars: Result<PathBuf, String>,
}

/// Runs the tests and nothing else; the first run fetches the kernel.
pub(crate) fn test() -> Result<()> {
    let machine = Machine::get(Missing::Tell).map_err(anyhow::Error::msg)?;
    if let Err(why) = &machine.virt_fw_vars {
        println!("left out: kernel modules that are signed by a key of the machine's: {why}");
    }
    machine.test()
}

impl Machine {
    /// Gets what is needed.
    ///
    /// # Errors
    /// It can't be had, and why.
    pub(crate) fn get(missing: Missing) -> Result<Self, String> {
        let release = provide::kernel(missing)?;
        let target = run::root().join("target");
        let dir = target.join("vm").join(&release);
        let image = fs::create_dir_all(&dir)
            .map_err(anyhow::Error::from)
            .and_then(|()| boot::image(&dir, &release))
            .map_err(|error| format!("the kernel {release} could not be fetched: {error:#}"))?;
        Ok(Self {
            virt_fw_vars: provide::virt_fw_vars(missing, &target),
            dir,
            release,
            image,
        })
    }

    /// Builds what is booted and loaded, and runs the tests with it.
    pub(crate) fn test(&self) -> Result<()> {
        let (dir, release) = (&self.dir, &self.release);
        fs::write(dir.join("release"), release)?;
        fs::copy(
            self.image.join(format!("boot/vmlinuz-{release}")),
            dir.join("vmlinuz"),
        )?;
        boot::initramfs(dir, &self.image.join("lib/modules").join(release))?;
        build::modules(dir, release)?;
        boot::forget_firmware(dir)?;
        if let Ok(virt_fw_vars) = &self.virt_fw_vars {
            build::sign(dir, release)?;
            boot::firmware(dir, virt_fw_vars)?;
        }
        let mut test = run::cargo();
        // Machines that are started again wait for a watchdog, and not for a processor: two beside each other.
        test.env("HOTSWAP_VM", dir).args([
            "test",
            "--release",
            "--locked",
            "--workspace",
            "--test",
            "cli",
            "kernel::",
            "--",
            "--nocapture",
            "--test-threads=2",
        ]);
        run::run(&mut test)
    }
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
