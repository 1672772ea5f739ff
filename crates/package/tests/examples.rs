//! The example modules are what a user packs first: each must pack, and its folder must say what it is.

use std::fs;
use std::path::{Path, PathBuf};

use hotswap_package::{MANIFEST_FILE, Package, PackageLimits, pack};

/// Native servers: one folder each, whose artifact may have to be built.
const NATIVE: &str = "native";
/// eBPF objects, committed as they are built.
const EBPF: &str = "ebpf";

fn module_folders() -> Vec<PathBuf> {
    let modules = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../modules");
    let below = |dir: &Path| {
        fs::read_dir(dir)
            .into_iter()
            .flatten()
            .map(|entry| entry.unwrap().path())
    };
    let versions = below(&modules)
        .chain(below(&modules.join(EBPF)))
        .filter(|dir| !dir.ends_with(NATIVE) && !dir.ends_with(EBPF))
        .flat_map(|module| below(&module).collect::<Vec<_>>());
    versions.filter(|dir| dir.join(MANIFEST_FILE).is_file()).collect()
}

#[test]
fn each_example_packs_and_reads_back() {
    let folders = module_folders();
    assert_eq!(folders.len(), 11, "{folders:?}");
    for folder in folders {
        let package = pack(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        let named = Path::new(package.manifest.name.as_str()).join(package.manifest.version.to_string());
        assert!(
            folder.ends_with(&named),
            "{} holds {}",
            folder.display(),
            named.display()
        );
        assert_eq!(
            Package::read(package.file.clone(), &PackageLimits::default()).unwrap(),
            package
        );
    }
}

#[test]
fn native_examples_are_described_and_the_script_packs_as_it_is() {
    let native = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../modules")
        .join(NATIVE);
    let text = fs::read_to_string(native.join("quotes").join(MANIFEST_FILE)).unwrap();
    assert!(hotswap_package::Manifest::parse(&text).is_ok());
    let package = pack(&native.join("greetings")).unwrap();
    assert_eq!(
        hotswap_package::needs(&package.manifest, &package.artifact),
        ["process"]
    );
}

#[test]
fn an_ebpf_example_says_what_it_needs_of_a_node() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../modules/ebpf/packet-limiter/1.1.0");
    let package = pack(&folder).unwrap();
    assert_eq!(
        hotswap_package::needs(&package.manifest, &package.artifact),
        ["ebpf", "kernel>=5.9", "btf"]
    );
}
