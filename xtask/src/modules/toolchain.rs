//! A Rust that compiles to WebAssembly: rustup's target where it can be had, else Debian's rustc-web.

use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use super::build::TARGET;
use crate::run;

/// Names a folder into which Debian's packages were extracted, and asks for them; the system's otherwise.
const DEBIAN_ROOT: &str = "HOTSWAP_RUSTC_WEB";

/// How guests are compiled.
pub(crate) struct Toolchain {
    compiler: Compiler,
    version: String,
    /// Set where the standard library has to be built, too.
    debian: bool,
}

/// A rustc with what it needs to start.
struct Compiler {
    rustc: PathBuf,
    /// Folder of shared libraries, for one that is not installed but extracted.
    libraries: Option<PathBuf>,
}

impl fmt::Display for Toolchain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { version, debian, .. } = self;
        match debian {
            false => write!(f, "{version}, rustup target {TARGET}"),
            true => write!(
                f,
                "{version}, Debian rustc-web with the standard library of rust-web-src for {TARGET}"
            ),
        }
    }
}

impl Toolchain {
    /// The first that there is; asks rustup for the target if it isn't installed.
    pub(crate) fn find() -> Result<Self> {
        let extracted = std::env::var_os(DEBIAN_ROOT).map(PathBuf::from);
        if extracted.is_none() {
            let installed = Compiler::installed();
            if !installed.has_target() && run::there_is("rustup", &["--version"]) {
                println!("asking rustup for {TARGET}");
                // Without a network this fails, and Debian's way is left.
                let _ = run::run(Command::new("rustup").args(["target", "add", TARGET]));
            }
            if installed.has_target() {
                return Ok(Self {
                    version: installed.version()?,
                    compiler: installed,
                    debian: false,
                });
            }
        }
        let debian = Compiler::debian(extracted.as_deref());
        if debian.rustc.is_file() && debian.has_library_source() {
            return Ok(Self {
                version: debian.version()?,
                compiler: debian,
                debian: true,
            });
        }
        bail!(
            "no Rust here compiles to {TARGET}: run `rustup target add {TARGET}`; or install Debian's rustc-web and \
             rust-web-src; or extract these, libstd-rust-web-dev, libstd-rust-web and libllvm into a folder and name \
             it in {DEBIAN_ROOT} (looked for {})",
            debian.rustc.display()
        )
    }

    /// A cargo that compiles with it.
    pub(crate) fn cargo(&self) -> Result<Command> {
        let mut cargo = run::cargo();
        if self.debian {
            cargo
                .env("RUSTC", &self.compiler.rustc)
                .env("RUSTC_BOOTSTRAP", "1");
            if let Some(path) = self.compiler.library_path() {
                cargo.env("LD_LIBRARY_PATH", path);
            }
            cargo.env(
                "CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER",
                linker(&self.compiler)?,
            );
            cargo.arg("-Zbuild-std=std,panic_abort");
        }
        Ok(cargo)
    }

    /// Flags that keep this machine's folders out of the component, so that it is the same from any.
    pub(crate) fn flags(&self, dir: &Path) -> Result<String> {
        let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
        let home = home.or_else(|| std::env::home_dir().map(|home| home.join(".cargo")));
        let mut maps = vec![(dir.to_owned(), "/modules")];
        maps.extend(home.map(|home| (home, "/cargo")));
        if self.debian {
            // The source is behind a link, and its true place is what the compiler sees.
            let source = self.compiler.library_source()?;
            let source =
                fs::canonicalize(&source).with_context(|| format!("failed to find {}", source.display()))?;
            maps.push((source, "/rust/library"));
            maps.push((self.compiler.sysroot()?, "/rust"));
        }
        let flags = maps
            .iter()
            .map(|(from, to)| format!("--remap-path-prefix={}={to}", from.display()));
        Ok(flags.collect::<Vec<_>>().join(" "))
    }
}

impl Compiler {
    /// The one that builds Hotswap.
    fn installed() -> Self {
        Self {
            rustc: std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()).into(),
            libraries: None,
        }
    }

    /// Debian's, installed or extracted.
    fn debian(extracted: Option<&Path>) -> Self {
        let rustc = extracted.unwrap_or(Path::new("/")).join("usr/bin/rustc");
        let lib = extracted.map(|root| root.join("usr/lib"));
        let entries = lib
            .and_then(|lib| fs::read_dir(lib).ok())
            .into_iter()
            .flatten()
            .flatten();
        let multiarch = entries
            .map(|entry| entry.path())
            .find(|path| path.to_string_lossy().ends_with("-linux-gnu"));
        Self {
            rustc,
            libraries: multiarch,
        }
    }

    fn library_path(&self) -> Option<OsString> {
        let before = std::env::var_os("LD_LIBRARY_PATH").unwrap_or_default();
        let libraries = self.libraries.clone()?;
        std::env::join_paths(std::iter::once(libraries).chain(std::env::split_paths(&before))).ok()
    }

    fn ask(&self, args: &[&str]) -> Result<String> {
        let mut rustc = Command::new(&self.rustc);
        rustc.args(args);
        if let Some(path) = self.library_path() {
            rustc.env("LD_LIBRARY_PATH", path);
        }
        Ok(run::output(&mut rustc)?.trim().to_owned())
    }

    fn version(&self) -> Result<String> {
        self.ask(&["--version"])
    }

    fn sysroot(&self) -> Result<PathBuf> {
        self.ask(&["--print", "sysroot"]).map(PathBuf::from)
    }

    fn has_target(&self) -> bool {
        self.sysroot()
            .is_ok_and(|sysroot| sysroot.join("lib/rustlib").join(TARGET).join("lib").is_dir())
    }

    /// Source and compiler are of one version or don't fit: so only the compiler's own is looked for.
    fn library_source(&self) -> Result<PathBuf> {
        Ok(self.sysroot()?.join("lib/rustlib/src/rust/library"))
    }

    fn has_library_source(&self) -> bool {
        self.library_source()
            .is_ok_and(|library| library.join("std").is_dir())
    }
}

/// rustc-web comes without a linker: the installed Rust's will do, or LLVM's.
fn linker(compiler: &Compiler) -> Result<PathBuf> {
    for of in [&Compiler::installed(), compiler] {
        let (Ok(sysroot), Ok(about)) = (of.sysroot(), of.ask(&["-vV"])) else {
            continue;
        };
        let host = about
            .lines()
            .find_map(|line| line.strip_prefix("host: "))
            .unwrap_or_default();
        let linker = sysroot.join("lib/rustlib").join(host).join("bin/rust-lld");
        if linker.is_file() {
            return Ok(linker);
        }
    }
    let names = ["wasm-ld".to_owned()]
        .into_iter()
        .chain((14..=30).rev().map(|version| format!("wasm-ld-{version}")));
    for name in names {
        if run::there_is(&name, &["--version"]) {
            return Ok(name.into());
        }
    }
    bail!("no linker for {TARGET}: install Debian's lld, or a Rust that brings rust-lld")
}
