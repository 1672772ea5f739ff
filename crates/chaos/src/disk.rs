//! Small file systems of the run's own, which can be filled and made read-only. They need mounts.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

/// Tells the run, once it is there, that it is in a mount namespace of its own.
const MARK: &str = "HOTSWAP_CHAOS_MOUNTS";

/// Whether this process may mount: it is in a namespace of its own.
pub(crate) fn may_mount() -> bool {
    std::env::var_os(MARK).is_some()
}

/// Starts this program anew in a mount namespace of its own, where that is allowed. Returns where it isn't.
pub(crate) fn enter_namespace() {
    use std::os::unix::process::CommandExt as _;
    if may_mount() {
        return;
    }
    let Ok(program) = std::env::current_exe() else {
        return;
    };
    // As root a mount namespace is enough; anybody else needs a user namespace around it.
    for flags in ["-m", "-Urm"] {
        let mut probe = Command::new("unshare");
        probe.args([flags, "mount", "-t", "tmpfs", "-o", "size=64k", "chaos", "/tmp"]);
        let allowed = probe.stdout(Stdio::null()).stderr(Stdio::null()).status();
        if allowed.is_ok_and(|status| status.success()) {
            let mut again = Command::new("unshare");
            again.arg(flags).arg(&program).args(std::env::args_os().skip(1));
            // Only returns where it failed; then the run goes on without mounts.
            let error = again.env(MARK, "1").exec();
            eprintln!("no mount namespace: {error}");
            return;
        }
    }
}

fn run(program: &str, args: &[&str], path: &Path) -> Result<()> {
    let output = Command::new(program).args(args).arg(path).output()?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!(
            "`{program} {} {}`: {}",
            args.join(" "),
            path.display(),
            said.trim()
        );
    }
    Ok(())
}

/// Mounts a small file system on a folder, made where there is none.
pub(crate) fn mount_small(folder: &Path, megabytes: u64) -> Result<()> {
    fs::create_dir_all(folder)?;
    let size = format!("size={megabytes}m,mode=0700");
    run("mount", &["-t", "tmpfs", "-o", &size, "chaos"], folder)
}

/// Unmounts it, also while files are open.
pub(crate) fn unmount(folder: &Path) {
    // What is left mounted goes with the namespace.
    let _ = run("umount", &["-l"], folder);
}

/// Makes a folder read-only: what is opened from now on can't be written. Files that are open still can.
pub(crate) fn make_read_only(folder: &Path) -> Result<()> {
    let shown = folder.to_str().context("the folder's name is text")?;
    run("mount", &["--bind", shown], folder)?;
    run("mount", &["-o", "remount,bind,ro"], folder).inspect_err(|_| unmount(folder))
}

/// Takes all the room there is.
pub(crate) fn fill(folder: &Path) -> Result<PathBuf> {
    let filler = folder.join("filler");
    let mut file = File::create(&filler)?;
    let block = [0; 4_096];
    while file.write_all(&block).is_ok() {}
    Ok(filler)
}
