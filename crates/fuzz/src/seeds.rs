//! Real inputs: what the repository's modules, fixtures and commands write.

use std::fs;
use std::path::{Path, PathBuf};

use hotswap_core::ids::Digest;
use hotswap_package::{Manifest, Package};
use hotswap_trust::{Authority, SigningIdentity, UnixSeconds};

/// Seeds longer than this are left out: small ones are changed where it matters.
const SEED_LEN_MAX: usize = 32 * 1024;
/// The content of a small package.
const CONTENT: &[u8] = b"\0asm\x0d\0\x01\0";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Every file under a folder whose name ends so, in order.
fn files(folder: &Path, end: &str) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else {
        return Vec::new();
    };
    let mut found = Vec::new();
    for path in entries.flatten().map(|entry| entry.path()) {
        if path.is_dir() && !path.ends_with("target") {
            found.extend(files(&path, end));
        } else if path.to_string_lossy().ends_with(end) {
            found.push(path);
        }
    }
    found.sort();
    found
}

fn contents(folder: &str, end: &str) -> Vec<Vec<u8>> {
    let paths = files(&root().join(folder), end);
    paths.iter().filter_map(|path| fs::read(path).ok()).collect()
}

fn short(seeds: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    seeds
        .into_iter()
        .filter(|seed| seed.len() <= SEED_LEN_MAX)
        .collect()
}

pub(crate) fn manifests() -> Vec<Vec<u8>> {
    short(contents("modules", "module.toml"))
}

pub(crate) fn packages() -> Vec<Vec<u8>> {
    let package = |manifest: Vec<u8>| Some(Package::assemble(&manifest, CONTENT).ok()?.file.to_vec());
    manifests().into_iter().filter_map(package).collect()
}

/// What the example's builds say of themselves: all of them do the same.
pub(crate) fn ebpf_manifest() -> Manifest {
    let manifest = contents("modules/ebpf/packet-limiter/1.1.0", "module.toml");
    Manifest::from_slice(&manifest.concat()).expect("the example's manifest is read")
}

pub(crate) fn ebpf_objects() -> Vec<Vec<u8>> {
    short(contents("modules/ebpf", ".o"))
}

/// Events, a line each.
pub(crate) fn events() -> Vec<Vec<u8>> {
    let logs = contents("crates/core/tests/fixtures", ".jsonl");
    let lines = logs.iter().flat_map(|log| log.split(|byte| *byte == b'\n'));
    let mut lines: Vec<Vec<u8>> = lines.map(<[u8]>::to_vec).collect();
    lines.sort();
    lines.dedup();
    lines.retain(|line| !line.is_empty());
    short(lines)
}

/// The messages of a kind as they are sent: lines of a name and hexadecimal bytes.
pub(crate) fn messages(names: &[&str]) -> Vec<Vec<u8>> {
    let files = contents("crates/wire/tests/fixtures", "messages.txt");
    let texts = files.iter().filter_map(|file| std::str::from_utf8(file).ok());
    texts
        .flat_map(str::lines)
        .filter_map(|line| line.split_once(' '))
        .filter(|(name, _)| names.contains(name))
        .map(|(_, hex)| bytes(hex))
        .collect()
}

fn bytes(hex: &str) -> Vec<u8> {
    let pairs = hex
        .as_bytes()
        .chunks(2)
        .filter_map(|pair| std::str::from_utf8(pair).ok());
    pairs
        .filter_map(|pair| u8::from_str_radix(pair, 16).ok())
        .collect()
}

pub(crate) fn ledgers() -> Vec<Vec<u8>> {
    let empty = serde_json::to_vec(&hotswap_core::reconcile::Ledger::default());
    let mut ledgers = contents("crates/core/tests/fixtures", ".ledger.json");
    ledgers.extend(empty);
    ledgers
}

/// The template says nothing but comments; this says something.
const CONFIGURATION: &str = r#"
[log]
filter = "info,hotswap_agent=debug"

[server]
http = "127.0.0.1:5000"
heartbeat = "30s"
package-size-max = "256MiB"
snapshot-every = 10000

[agent]
node = "n1"
environment = "Production"
grant-hosts = ["*", "api.example"]

[agent.labels]
zone = "a"

[[environments]]
name = "Production"
strategy = { type = "Canary", by = "nodes", percents = [10, 30, 100] }
approval-timeout = "4h"

[environments.policy]
max-unavailable = 1
settle = "10s"

[environments.policy.judge]
alpha = 0.01
dry-run = ["cpu"]
"#;

pub(crate) fn configurations() -> Vec<Vec<u8>> {
    vec![
        hotswap_config::template().into_bytes(),
        CONFIGURATION.as_bytes().to_vec(),
    ]
}

/// A time at which the signer of [`signed`] is valid.
pub(crate) const NOW: UnixSeconds = UnixSeconds(1_800_000_000);

/// A digest, its signature, and the roots that are trusted.
pub(crate) fn signed() -> (Digest, Vec<u8>, Vec<u8>) {
    let digest = hotswap_package::digest_of(CONTENT);
    let authority = Authority::new("fuzz", NOW).expect("an authority is made");
    let signer = authority.issue_signer("signer").expect("a signer is issued");
    let identity = SigningIdentity::new(signer.key.as_bytes(), signer.certificate.as_bytes(), None);
    let signature = identity
        .and_then(|identity| identity.sign(&digest, NOW))
        .expect("it is signed");
    (
        digest,
        signature,
        authority.root().certificate.clone().into_bytes(),
    )
}

pub(crate) fn words(words: &[&str]) -> Vec<Vec<u8>> {
    words.iter().map(|word| word.as_bytes().to_vec()).collect()
}

/// What once failed.
pub(crate) fn found(target: &str) -> Vec<Vec<u8>> {
    let folder = folder(target);
    files(&folder, "")
        .iter()
        .filter_map(|path| fs::read(path).ok())
        .collect()
}

/// Where what fails is kept.
pub(crate) fn folder(target: &str) -> PathBuf {
    root().join("crates/fuzz/found").join(target)
}
