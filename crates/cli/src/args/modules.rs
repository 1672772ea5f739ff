//! Words about modules: made, packed, signed, pushed, looked at.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::{OneVersion, VersionWithReason};

/// A language that modules are begun in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Lang {
    /// By rustup's target, or by Debian's rustc-web.
    Rust,
    /// By componentize-js, from npm.
    Js,
    /// By componentize-py, from PyPI.
    Python,
    /// By zig's C compiler, from PyPI.
    C,
}

/// A kind that modules are begun in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum BeginKind {
    /// A WebAssembly component: sandboxed, on any processor.
    Wasm,
    /// A native server, in Rust or Python.
    Process,
    /// eBPF programs, in C.
    Ebpf,
    /// A Linux kernel module, in C.
    Kernel,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Module {
    /// Begin a module: a folder that builds, tests and packs with the commands that are printed
    #[command(after_help = "Examples:
  hotswap module init --lang rust quotes
  hotswap module init --lang js greetings
  hotswap module init --lang c tariffs
  hotswap module init --kind process --lang python reports
  hotswap module init --kind ebpf --lang c packet-counter
  hotswap module init --kind kernel --lang c request-filter")]
    Init {
        /// The kind
        #[arg(long, default_value = "wasm")]
        kind: BeginKind,
        /// The language
        #[arg(long)]
        lang: Lang,
        /// The module's name; also the folder's
        name: String,
    },
    /// Make a component of a core WebAssembly module that has wit-bindgen's bindings
    #[command(after_help = "Examples:
  hotswap module component target/wasm32-unknown-unknown/release/quotes.wasm quotes.wasm")]
    Component {
        /// The core module
        from: PathBuf,
        /// The component to write
        to: PathBuf,
    },
    /// Pack a folder with module.toml and the artifact into one file
    #[command(after_help = "Examples:
  hotswap module pack modules/payment-processor/2.1.0
  hotswap module pack . -o /tmp/payments.hsm    the file to write; NAME-VERSION.hsm here without -o")]
    Pack {
        /// Folder with module.toml
        dir: PathBuf,
    },
    /// Push a package with its signature, or a folder that is packed and signed on the way
    #[command(after_help = "Examples:
  hotswap module push payment-processor-2.1.0.hsm     with payment-processor-2.1.0.hsm.p7s, if it lies beside it
  hotswap module push modules/payment-processor/2.1.0 --signer hotswap-trust")]
    Push(Push),
    /// Sign a package: writes NAME.hsm.p7s beside it
    #[command(after_help = "Examples:
  hotswap module sign payment-processor-2.1.0.hsm --signer hotswap-trust
  hotswap module sign payment-processor-2.1.0.hsm --key release.key --cert release.pem --chain issuing-ca.pem

The same by openssl:
  openssl cms -sign -binary -md sha256 -outform DER -in NAME.hsm -out NAME.hsm.p7s \\
    -signer release.pem -inkey release.key -certfile issuing-ca.pem")]
    Sign {
        /// Package file
        package: PathBuf,
        #[command(flatten)]
        identity: Identity,
    },
    /// Check a package's signature here, without a server; exits 1 if it is refused
    #[command(after_help = "Examples:
  hotswap module verify payment-processor-2.1.0.hsm --trust hotswap-trust/trust.toml
  hotswap module verify payment-processor-2.1.0.hsm --roots release-root.pem")]
    Verify(Verify),
    /// Let nothing take a version ever again; where it runs it stays until something else is rolled out
    #[command(after_help = "Examples:
  hotswap module revoke payment-processor 2.0.3 --reason 'its signing key was stolen'")]
    Revoke {
        /// The module's name
        name: String,
        /// Which of its versions
        version: String,
        /// Why, for people
        #[arg(long)]
        reason: String,
    },
    /// Set the oldest version that may be deployed; rollbacks may still go below it
    #[command(after_help = "Examples:
  hotswap module minimum payment-processor 2.1.0
  hotswap module minimum payment-processor none")]
    Minimum {
        /// The module's name
        name: String,
        /// The oldest version, or none
        version: String,
    },
    /// List modules and their versions
    #[command(after_help = "Examples:
  hotswap module list
  hotswap module list payment-processor -o json")]
    List {
        /// Only this module
        name: Option<String>,
    },
    /// Remove packages that nothing runs or may return to from the server now; it does so itself every hour
    #[command(after_help = "Examples:
  hotswap module collect --dry-run      only lists them
  hotswap module collect")]
    Collect {
        /// Remove nothing: list what would be removed
        #[arg(long)]
        dry_run: bool,
    },
    /// Show a module: its versions and where which is stable
    #[command(after_help = "Examples:
  hotswap module show payment-processor")]
    Show {
        /// The module's name
        name: String,
    },
    /// List a module's versions, newest first
    #[command(after_help = "Examples:
  hotswap module versions payment-processor --limit 5")]
    Versions {
        /// The module's name
        name: String,
        /// At most so many
        #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1000))]
        limit: u32,
    },
    /// Download a version's package, and check its digest
    #[command(after_help = "Examples:
  hotswap module download payment-processor 2.1.0
  hotswap module download payment-processor 2.1.0 -o /tmp/payments.hsm    the file to write")]
    Download(OneVersion),
    /// Put a version on hold: no promotion takes it
    #[command(after_help = "Examples:
  hotswap module hold payment-processor 2.1.0 --reason 'under investigation'")]
    Hold(VersionWithReason),
    /// Lift a version's hold, whoever put it there
    #[command(after_help = "Examples:
  hotswap module unhold payment-processor 2.1.0")]
    Unhold(OneVersion),
    /// Withdraw a version: it can't be deployed, and what runs it keeps it
    #[command(after_help = "Examples:
  hotswap module yank payment-processor 2.1.0 --reason 'leaks memory'")]
    Yank(VersionWithReason),
    /// Offer a withdrawn version again
    #[command(after_help = "Examples:
  hotswap module unyank payment-processor 2.1.0")]
    Unyank(OneVersion),
}

/// Whose signature it is to be.
#[derive(Debug, Args)]
pub(crate) struct Identity {
    /// Folder with signer.key, signer.pem and maybe chain.pem, as `hotswap trust init` makes it
    #[arg(long, value_name = "DIR", conflicts_with_all = ["key", "cert", "chain"])]
    pub(crate) signer: Option<PathBuf>,
    /// Private key in PEM: RSA with at least 2048 bits, or ECDSA P-256
    #[arg(long, value_name = "FILE", requires = "cert")]
    pub(crate) key: Option<PathBuf>,
    /// The key's certificate
    #[arg(long, value_name = "FILE", requires = "key")]
    pub(crate) cert: Option<PathBuf>,
    /// Certificates between that one and the root
    #[arg(long, value_name = "FILE", requires = "cert")]
    pub(crate) chain: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Push {
    /// Package file, or folder with module.toml
    pub(crate) path: PathBuf,
    /// Its signature [default: the package's file name with .p7s behind it, if that is there]
    #[arg(long, value_name = "FILE", conflicts_with_all = ["signer", "key"])]
    pub(crate) signature: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) identity: Identity,
}

#[derive(Debug, Args)]
pub(crate) struct Verify {
    /// Package file
    pub(crate) package: PathBuf,
    /// Its signature [default: the package's file name with .p7s behind it]
    #[arg(long, value_name = "FILE")]
    pub(crate) signature: Option<PathBuf>,
    /// Trusted root certificates: any signer under them, for any module
    #[arg(
        long,
        value_name = "FILE",
        required_unless_present = "trust",
        conflicts_with = "trust"
    )]
    pub(crate) roots: Option<PathBuf>,
    /// Revocation lists
    #[arg(long, value_name = "FILE", requires = "roots")]
    pub(crate) crls: Option<PathBuf>,
    /// Trust file, as servers and nodes have it
    #[arg(long, value_name = "FILE")]
    pub(crate) trust: Option<PathBuf>,
}
