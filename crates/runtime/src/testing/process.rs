//! A native server for tests, built by the installed `rustc` when it is first needed.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::process::Command;
use std::sync::OnceLock;

use bytes::Bytes;
use hotswap_package::{Kind, Manifest, Process};

use super::artifact;
use crate::kind::Artifact;

const SOURCE: &str = include_str!("../../testing/server.rs");

/// The server's executable; what it does is told in its source, `testing/server.rs`.
///
/// # Panics
/// If `rustc` can't build it.
pub fn server() -> Bytes {
    static SERVER: OnceLock<Bytes> = OnceLock::new();
    SERVER.get_or_init(build).clone()
}

/// A release of the server, with these arguments.
pub fn release(version: &str, arguments: &[&str], change: impl FnOnce(&mut Manifest)) -> Artifact {
    artifact("native", version, server(), |manifest| {
        manifest.kind = Kind::Process;
        "server".clone_into(&mut manifest.entry);
        manifest.process = Some(Process {
            arguments: arguments.iter().map(|&argument| argument.to_owned()).collect(),
            ..Process::default()
        });
        change(manifest);
    })
}

/// Builds it once for all test processes of a source.
fn build() -> Bytes {
    let mut hasher = DefaultHasher::new();
    SOURCE.hash(&mut hasher);
    // Beside the test's own executable, which the same user may write.
    let here = std::env::current_exe().expect("this program's path");
    let folder = here.parent().expect("it is in a folder").join("test-server");
    std::fs::create_dir_all(&folder).expect("a folder for it");
    let built = folder.join(format!("{:016x}", hasher.finish()));
    if let Ok(bytes) = std::fs::read(&built) {
        return bytes.into();
    }
    // The compiler's own files lie beside what it writes: several test processes may build at once.
    let own = folder.join(std::process::id().to_string());
    std::fs::create_dir_all(&own).expect("a folder for this process");
    let (source, output) = (own.join("server.rs"), own.join("server"));
    std::fs::write(&source, SOURCE).expect("its source is written");
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let status = Command::new(rustc)
        .args([
            "--edition=2024",
            "--crate-name=server",
            "-Copt-level=2",
            "-Cstrip=symbols",
            "-o",
        ])
        .arg(&output)
        .arg(&source)
        .status()
        .expect("rustc runs");
    assert!(status.success(), "rustc can't build {}", source.display());
    std::fs::rename(&output, &built).expect("it is kept");
    let _ = std::fs::remove_dir_all(own);
    std::fs::read(&built).expect("it is there").into()
}
