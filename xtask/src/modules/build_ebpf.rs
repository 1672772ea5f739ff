//! From C to an eBPF object, by clang.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use super::{Example, build};
use crate::run;

/// Names of the compiler, the one first that made what is committed.
const CLANG: [&str; 2] = ["clang-14", "clang"];
const STRIP: [&str; 2] = ["llvm-strip-14", "llvm-strip"];

pub(super) fn build(dir: &Path, examples: &[Example]) -> Result<()> {
    let (clang, version) = find(&CLANG)?;
    let (strip, _) = find(&STRIP)?;
    println!("building with {version}");
    for example in examples {
        let folder = dir.join(example.home());
        let output = tempfile(&example.name, &example.version);
        // 1.2.0 is 120 in the source.
        let number: String = example.version.chars().filter(char::is_ascii_digit).collect();
        let include = format!("-I/usr/include/{}-linux-gnu", std::env::consts::ARCH);
        let mut compile = Command::new(clang);
        compile
            .current_dir(&folder)
            .args(["-O2", "-g", "-Wall", "-Werror", "-target", "bpf", &include]);
        compile.args([
            &format!("-DVERSION={number}"),
            "-ffile-prefix-map=./=",
            "-fdebug-compilation-dir=.",
        ]);
        compile.args(["-c", "src/limiter.bpf.c", "-o"]).arg(&output);
        run::run(&mut compile)?;
        // Debug information goes, BTF stays.
        run::run(Command::new(strip).arg("-g").arg(&output))?;
        let object = fs::read(&output).with_context(|| format!("failed to read {}", output.display()))?;
        build::keep(dir, example, &object, &version)?;
    }
    Ok(())
}

fn tempfile(name: &str, version: &str) -> std::path::PathBuf {
    std::env::temp_dir().join(format!("{name}-{version}-{}.o", std::process::id()))
}

fn find(names: &[&'static str]) -> Result<(&'static str, String)> {
    for name in names {
        if let Ok(told) = Command::new(name).arg("--version").output() {
            let told = String::from_utf8_lossy(&told.stdout);
            let version = told.lines().find(|line| line.contains("version")).unwrap_or(name);
            return Ok((name, version.trim().to_owned()));
        }
    }
    bail!(
        "there is no {}: apt-get install clang-14 llvm-14 libbpf-dev",
        names.join(" or ")
    )
}
