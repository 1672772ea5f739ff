//! What `hotswap module init --kind kernel` writes.

use std::fs;

use super::guest::sh;
use crate::support::{hotswap, run};

#[test]
fn what_init_writes_builds_for_each_kernel_whose_headers_are_here() {
    let installed = fs::read_dir("/lib/modules").into_iter().flatten().flatten();
    let releases: Vec<String> = installed
        .filter(|release| release.path().join("build/Makefile").exists())
        .map(|release| release.file_name().to_string_lossy().into_owned())
        .collect();
    if releases.is_empty() {
        println!("left out: no kernel's headers are installed (linux-headers-...)");
        return;
    }
    for release in releases {
        let folder = tempfile::tempdir().unwrap();
        let begin = [
            "module",
            "init",
            "--kind",
            "kernel",
            "--lang",
            "c",
            "request-filter",
        ];
        let begun = hotswap().args(begin).current_dir(folder.path()).output().unwrap();
        assert!(begun.status.success(), "{begun:?}");
        let folder = folder.path().join("request-filter");
        println!("{}", sh(&format!("make RELEASE={release} 2>&1"), &folder));
        let package = folder.join("request-filter.hsm");
        run(&[
            "module",
            "pack",
            folder.to_str().unwrap(),
            "-o",
            package.to_str().unwrap(),
        ])
        .exits(0);
        let manifest = fs::read_to_string(folder.join("module.toml")).unwrap();
        assert!(
            manifest.contains(&format!("release = \"{release}\"")),
            "{manifest}"
        );
    }
}
