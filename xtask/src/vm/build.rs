//! The example modules, built for the virtual machine's kernel, and one of them signed.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};

use super::{files, fresh};
use crate::run;

/// The versions of the plain module, and how each is built.
const PLAIN: [(&str, &str); 5] = [
    ("1.0.0", ""),
    ("1.1.0", ""),
    ("1.2.0", " -DFAULT_FAIL"),
    ("1.3.0", " -DFAULT_PANIC"),
    ("1.4.0", " -DFAULT_HANG"),
];
const PLAIN_MODULE: &str = "hotswap_plain.ko";

/// Builds all of them; of the plain one each version.
pub(super) fn modules(dir: &Path, release: &str) -> Result<()> {
    let built = dir.join("modules");
    fresh(&built)?;
    let work = dir.join("work");
    fresh(&work)?;
    for file in files(&run::root().join("modules/kernel/src"))? {
        fs::copy(&file, work.join(file.file_name().context("a file has a name")?))?;
    }
    for (version, fault) in PLAIN {
        let mut make = Command::new("make");
        make.arg("-C")
            .arg(Path::new("/lib/modules").join(release).join("build"))
            .arg(format!("M={}", work.display()))
            .arg(format!("HOTSWAP_PLAIN=-DVERSION='\"{version}\"'{fault}"));
        run::output(make.arg("modules"))?;
        fs::copy(
            work.join(PLAIN_MODULE),
            built.join(format!("hotswap_plain-{version}.ko")),
        )?;
    }
    for file in files(&work)? {
        if file.extension().is_some_and(|extension| extension == "ko") {
            fs::copy(&file, built.join(file.file_name().context("a file has a name")?))?;
        }
    }
    Ok(())
}

/// Signs a copy of the plain module as `hotswap_plain-signed.ko`, by a new key whose certificate is `key.pem`.
pub(super) fn sign(dir: &Path, release: &str) -> Result<()> {
    let script = "\
        set -e
        openssl req -new -x509 -newkey rsa:2048 -noenc -sha256 -days 3650 -subj '/CN=a key of the machine/' \
            -addext basicConstraints=critical,CA:FALSE -addext keyUsage=digitalSignature \
            -addext extendedKeyUsage=codeSigning -keyout key.secret -out key.pem 2> /dev/null
        openssl x509 -in key.pem -outform DER -out key.der
        cp modules/hotswap_plain-1.1.0.ko modules/hotswap_plain-signed.ko
        \"$BUILD/scripts/sign-file\" sha256 key.secret key.der modules/hotswap_plain-signed.ko";
    run::run(
        Command::new("sh")
            .args(["-c", script])
            .env("BUILD", Path::new("/lib/modules").join(release).join("build"))
            .current_dir(dir),
    )
}
