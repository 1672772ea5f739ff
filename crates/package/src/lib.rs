//! Module manifests and the package file they travel in.
//!
//! A module's author writes `module.toml` ([`Manifest`]) beside the artifact, [`pack`]s the folder into
//! `NAME-VERSION.hsm`, and from then on the file is one opaque sequence of bytes: its SHA-256 is the
//! release's identity, and a signature over it travels beside it. [`Package::read`] takes such a file
//! from anybody and either gives the one package that it can mean or says what is wrong with it.

mod ebpf;
mod faults;
mod file;
mod kernel;
mod manifest;
mod needs;
mod parse;
mod parse_ebpf;
mod parse_kernel;
mod process;
mod rules;
mod units;

pub use ebpf::{
    Attached, Counter, Counts, Ebpf, Hook, InvalidKernelRelease, Invariants, KernelRelease, MapUse, On,
    Probe, XdpMode,
};
pub use faults::{Fault, ManifestError};
pub use file::{
    PACKAGE_BYTES_MAX, PACKAGE_EXTENSION, PackError, Package, PackageError, PackageLimits, digest_of, pack,
};
pub use kernel::{FileCheck, FileCounter, Kernel, KernelBuild, Style};
pub use manifest::{
    Capabilities, Health, Isolation, Kind, Limits, MANIFEST_BYTES_MAX, MANIFEST_FILE, Manifest, Route,
    SmokeCheck,
};
pub use needs::needs;
pub use process::{Process, Ready, SocketKind};
pub use units::{ByteSize, HumanDuration, InvalidUnit};
