//! The package file: what is written, what is read back, and what is refused.

use hotswap_package::{MANIFEST_FILE, ManifestError, Package, PackageError, PackageLimits, digest_of, pack};
use proptest::prelude::*;

const MANIFEST: &str = r#"
name = "payment-processor"
version = "2.0.0"
entry = "payment-processor.wasm"

[[routes]]
prefix = "/payments"

[[smoke]]
name = "is up"
path = "/payments/health"
"#;
const ARTIFACT: &[u8] = b"\0asm\x0d\0\x01\0and the rest of a component";

fn package() -> Package {
    Package::assemble(MANIFEST.as_bytes(), ARTIFACT).unwrap()
}

fn read(bytes: impl Into<bytes::Bytes>) -> Result<Package, PackageError> {
    Package::read(bytes, &PackageLimits::default())
}

/// A tar of the given entries as the tar crate writes it, for what no package may be.
fn tar_of(entries: &[(&str, tar::EntryType, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, kind, content) in entries {
        let mut header = tar::Header::new_ustar();
        // By hand, since the crate refuses the names that a hostile file would have.
        header.as_ustar_mut().unwrap().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_entry_type(*kind);
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_cksum();
        builder.append(&header, *content).unwrap();
    }
    builder.into_inner().unwrap()
}

const FILE: tar::EntryType = tar::EntryType::Regular;

#[test]
fn a_folder_packs_to_equal_bytes_each_time_and_reads_back() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join(MANIFEST_FILE), MANIFEST).unwrap();
    std::fs::write(dir.path().join("payment-processor.wasm"), ARTIFACT).unwrap();
    let first = pack(dir.path()).unwrap();
    std::fs::write(dir.path().join("payment-processor.wasm"), ARTIFACT).unwrap();
    let second = pack(dir.path()).unwrap();
    assert_eq!(first.file, second.file);
    assert_eq!(first.digest, digest_of(&first.file));
    let back = Package::read_from(&first.file[..], &PackageLimits::default()).unwrap();
    assert_eq!(back, first);
    assert_eq!(&back.artifact[..], ARTIFACT);
    assert_eq!(back.manifest.package_file_name(), "payment-processor-2.0.0.hsm");
}

#[test]
fn an_ordinary_tar_of_the_same_parts_is_the_same_file() {
    let plain = tar_of(&[
        (MANIFEST_FILE, FILE, MANIFEST.as_bytes()),
        ("payment-processor.wasm", FILE, ARTIFACT),
    ]);
    assert_eq!(plain, package().file);
}

#[test]
fn a_folder_that_is_not_a_module_is_refused_with_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let said = |dir: &std::path::Path| pack(dir).unwrap_err().to_string();
    assert!(said(dir.path()).contains("module.toml"));
    std::fs::write(dir.path().join(MANIFEST_FILE), MANIFEST).unwrap();
    assert!(said(dir.path()).contains("payment-processor.wasm"));
    std::fs::write(dir.path().join("payment-processor.wasm"), b"\0asm\x01\0\0\0").unwrap();
    assert!(said(dir.path()).contains("core WebAssembly module"));
    std::fs::remove_file(dir.path().join("payment-processor.wasm")).unwrap();
    std::os::unix::fs::symlink("/etc/hostname", dir.path().join("payment-processor.wasm")).unwrap();
    assert!(said(dir.path()).contains("not a plain file"));
}

#[test]
fn other_files_are_told_apart() {
    let m = MANIFEST.as_bytes();
    let wasm = "payment-processor.wasm";
    let extra = [
        (MANIFEST_FILE, FILE, m),
        (wasm, FILE, ARTIFACT),
        ("more", FILE, b"x".as_slice()),
    ];
    let good = package().file;
    let with_tail = [&good[..], b"tail"].concat();
    let cases: Vec<(&str, Vec<u8>, &str)> = vec![
        ("nothing", vec![], "empty"),
        ("text", b"hello".to_vec(), "not a package"),
        ("long text", vec![b'x'; 4096], "not a package"),
        ("zeros", vec![0; 4096], "empty archive"),
        ("bare wasm", [ARTIFACT, &[0; 1024]].concat(), "bare WebAssembly"),
        ("gzip", [&b"\x1f\x8b"[..], &[7; 1024]].concat(), "gzip"),
        (
            "no manifest",
            tar_of(&[(wasm, FILE, ARTIFACT)]),
            "begins with module.toml",
        ),
        (
            "no artifact",
            tar_of(&[(MANIFEST_FILE, FILE, m)]),
            "is not in the package",
        ),
        (
            "empty artifact",
            tar_of(&[(MANIFEST_FILE, FILE, m), (wasm, FILE, b"")]),
            "is empty",
        ),
        (
            "other artifact",
            tar_of(&[(MANIFEST_FILE, FILE, m), ("x.wasm", FILE, ARTIFACT)]),
            "the manifest's entry is",
        ),
        (
            "absolute",
            tar_of(&[(MANIFEST_FILE, FILE, m), ("/etc/passwd", FILE, b"x")]),
            "/etc/passwd",
        ),
        (
            "dots",
            tar_of(&[(MANIFEST_FILE, FILE, m), ("../x.wasm", FILE, b"x")]),
            "../x.wasm",
        ),
        ("extra", tar_of(&extra), "another entry"),
        (
            "link",
            tar_of(&[(MANIFEST_FILE, FILE, m), (wasm, tar::EntryType::Symlink, b"")]),
            "symbolic link",
        ),
        (
            "folder",
            tar_of(&[("module.toml", tar::EntryType::Directory, b"")]),
            "a folder",
        ),
        (
            "extension",
            tar_of(&[("module.toml", tar::EntryType::XHeader, b"")]),
            "a tar extension",
        ),
        (
            "huge manifest",
            tar_of(&[(MANIFEST_FILE, FILE, &[b'#'; 70_000])]),
            "at most 65536",
        ),
        (
            "binary manifest",
            tar_of(&[(MANIFEST_FILE, FILE, b"name = \xff")]),
            "not UTF-8",
        ),
        ("tail", with_tail, "follow the end"),
        ("cut", good[..good.len() - 600].to_vec(), "cut off"),
    ];
    for (name, bytes, expected) in cases {
        let error = read(bytes).expect_err(name).to_string();
        assert!(error.contains(expected), "{name}: {error}");
    }
}

#[test]
fn a_file_over_the_limit_is_refused_without_reading_on() {
    let limits = PackageLimits {
        package_bytes_max: 1000,
    };
    let endless = std::io::repeat(0);
    assert!(matches!(
        Package::read_from(endless, &limits),
        Err(PackageError::TooLarge { max: 1000 })
    ));
    assert!(matches!(
        Package::read(package().file, &limits),
        Err(PackageError::TooLarge { max: 1000 })
    ));
}

#[test]
fn a_header_that_claims_more_than_there_is_is_cut_off() {
    let mut file = package().file.to_vec();
    let mut header = tar::Header::new_ustar();
    header.set_path(MANIFEST_FILE).unwrap();
    for size in [u64::MAX, u64::MAX / 2, 60_000] {
        header.set_size(size);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_cksum();
        file[..512].copy_from_slice(header.as_bytes());
        let error = read(file.clone()).unwrap_err();
        let right = matches!(
            error,
            PackageError::Truncated { .. }
                | PackageError::NotCanonical { .. }
                | PackageError::Manifest(ManifestError::TooLarge { .. })
        );
        assert!(right, "{size}: {error}");
    }
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..4096)) {
        let _ = read(bytes);
    }

    #[test]
    fn every_cut_is_refused(keep in 0.0..1.0f64) {
        let file = package().file;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a position in a short file")]
        let keep = (file.len() as f64 * keep) as usize;
        prop_assert!(read(file.slice(..keep)).is_err());
    }

    #[test]
    fn a_flipped_bit_changes_the_digest_and_never_the_meaning_unseen(at in any::<prop::sample::Index>(), bit in 0..8u8) {
        let good = package();
        let mut file = good.file.to_vec();
        let at = at.index(file.len());
        file[at] ^= 1 << bit;
        prop_assert_ne!(digest_of(&file), good.digest);
        // What is accepted at all differs in the manifest's text or the artifact, never in the packaging.
        if let Ok(other) = read(file) {
            let text_end = 512 + MANIFEST.len();
            let artifact = 1024 + MANIFEST.len().next_multiple_of(512)..;
            prop_assert!((512..text_end).contains(&at) || artifact.contains(&at));
            prop_assert_ne!(other.digest, good.digest);
        }
    }

    #[test]
    fn whatever_is_read_is_what_assembling_its_parts_writes(
        comment in "[ -~]{0,200}",
        artifact in proptest::collection::vec(any::<u8>(), 1..2000),
    ) {
        let text = format!("{MANIFEST}\n# {comment}");
        let made = Package::assemble(text.as_bytes(), &artifact).unwrap();
        let back = read(made.file.clone()).unwrap();
        prop_assert_eq!(&back.artifact[..], &artifact[..]);
        prop_assert_eq!(back, made);
    }
}
