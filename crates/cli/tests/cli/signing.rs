//! Signing, verifying and pushing by the command line, with plain openssl beside it.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::fleet::Server;
use crate::support::{example, run};

/// A packed example in a folder.
fn packed(dir: &Path, version: &str) -> PathBuf {
    let file = dir.join(format!("payment-processor-{version}.hsm"));
    let folder = example("payment-processor", version);
    run(&["module", "pack", text(&folder), "-o", text(&file)]).exits(0);
    file
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn signed_by_openssl(package: &Path, signer: &Path) {
    let signature = format!("{}.p7s", text(package));
    let output = Command::new("openssl")
        .args(["cms", "-sign", "-binary", "-md", "sha256", "-outform", "DER"])
        .args(["-in", text(package), "-out", &signature])
        .args(["-signer", text(&signer.join("signer.pem"))])
        .args(["-inkey", text(&signer.join("signer.key"))])
        .output()
        .expect("openssl is installed (apt-get install openssl)");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn a_package_is_signed_and_verified_without_a_server() {
    let dir = tempfile::tempdir().unwrap();
    let trust = dir.path().join("trust");
    run(&["trust", "init", text(&trust)])
        .exits(0)
        .shows(&["--trust", "--signer", "keep it secret"]);
    run(&["trust", "init", text(&trust)])
        .exits(2)
        .says(&["has a trust.toml already"]);
    let package = packed(dir.path(), "2.0.0");
    let verify = |more: &[&str]| {
        let args = [&["module", "verify", text(&package)], more].concat();
        run(&args)
    };
    let trust_file = trust.join("trust.toml");
    verify(&["--trust", text(&trust_file)])
        .exits(2)
        .says(&["can't be read", "hotswap module sign"]);
    run(&["module", "sign", text(&package)])
        .exits(2)
        .says(&["nobody is named to sign", "hotswap trust init"]);
    run(&["module", "sign", text(&package), "--signer", text(&trust)])
        .exits(0)
        .shows(&["signed by CN=Hotswap development signer"]);
    verify(&["--trust", text(&trust_file)])
        .exits(0)
        .shows(&["good: signed by CN=Hotswap development signer"]);
    verify(&["--roots", text(&trust.join("root.pem"))]).exits(0);
    signed_by_openssl(&package, &trust);
    let json = verify(&["--trust", text(&trust_file), "-o", "json"])
        .exits(0)
        .json();
    assert_eq!(json["root"], "CN=Hotswap development root");

    let other = dir.path().join("other");
    run(&["trust", "init", text(&other)]).exits(0);
    verify(&["--roots", text(&other.join("root.pem"))])
        .exits(1)
        .says(&["[unknown_root]", "CN=Hotswap development signer"]);
    // A byte of the artifact: the package is one still, and another.
    let mut bytes = std::fs::read(&package).unwrap();
    let at = bytes.len() - 2_000;
    bytes[at] ^= 1;
    std::fs::write(&package, bytes).unwrap();
    verify(&["--trust", text(&trust_file)])
        .exits(1)
        .says(&["[content_altered]"]);
}

#[test]
fn a_server_takes_what_is_signed_by_whom_it_trusts_and_nothing_else() {
    let server = Server::start(&[]);
    let signer = server.dir.path().join("trust");
    let package = packed(server.dir.path(), "2.0.0");
    server
        .run(&["module", "push", text(&package)])
        .exits(2)
        .says(&["[unsigned]", "--signer"]);
    signed_by_openssl(&package, &signer);
    server.run(&["module", "push", text(&package)]).exits(0).shows(&[
        "pushed payment-processor 2.0.0",
        "signed by CN=Hotswap development signer",
    ]);
    let signature = format!("{}.p7s", text(&package));
    let other = packed(server.dir.path(), "2.1.0");
    server
        .run(&["module", "push", text(&other), "--signature", &signature])
        .exits(2)
        .says(&["[content_altered]"]);
    server.push(text(&other)).exits(0);
    server
        .run(&["module", "minimum", "payment-processor", "2.1.0"])
        .exits(0);
    server
        .run(&[
            "deploy",
            "payment-processor",
            "2.0.0",
            "--to",
            "Development",
            "--allow-downgrade",
        ])
        .exits(2)
        .says(&["older than 2.1.0"]);
    server
        .run(&[
            "module",
            "revoke",
            "payment-processor",
            "2.1.0",
            "--reason",
            "a stolen key",
        ])
        .exits(0);
    server
        .run(&["deploy", "payment-processor", "2.1.0", "--to", "Development"])
        .exits(2)
        .says(&["is revoked (a stolen key)"]);
}
