//! The package file: an uncompressed tar of exactly `module.toml` and the artifact, written in one way only.
//!
//! Owner, time and mode are fixed, so packing twice gives equal bytes; and since a reader accepts nothing
//! but what [`Package::assemble`] would have written, no two different files mean the same package.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use hotswap_core::ids::Digest;
use sha2::{Digest as _, Sha256};

use crate::faults::ManifestError;
use crate::manifest::{MANIFEST_BYTES_MAX, MANIFEST_FILE, Manifest};

/// Largest package file by default, in bytes: a JavaScript or Python component is some 20 MB.
pub const PACKAGE_BYTES_MAX: u64 = 256 << 20;
/// A package file's customary extension.
pub const PACKAGE_EXTENSION: &str = "hsm";

/// Tar's unit: headers are one block, contents are padded to whole ones, two zero ones are the end.
const BLOCK: usize = 512;

/// What a reader accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PackageLimits {
    /// Largest package file, in bytes.
    pub package_bytes_max: u64,
}

impl Default for PackageLimits {
    fn default() -> Self {
        Self {
            package_bytes_max: PACKAGE_BYTES_MAX,
        }
    }
}

/// One release as a file, with what it holds. Clones share the bytes.
#[derive(Debug, Clone, PartialEq)]
pub struct Package {
    /// What the module is and asks for.
    pub manifest: Manifest,
    /// The artifact: a part of `file`.
    pub artifact: Bytes,
    /// SHA-256 of the whole file: the release's identity.
    pub digest: Digest,
    /// The whole file, which a signature covers.
    pub file: Bytes,
}

/// Why bytes are not a package.
#[derive(Debug, thiserror::Error)]
pub enum PackageError {
    /// No bytes at all.
    #[error("the file is empty; a package is what `hotswap module pack` writes")]
    Empty,
    /// More bytes than the reader accepts.
    #[error("the file has more than {max} bytes, the most that is accepted")]
    TooLarge {
        /// Most bytes accepted.
        max: u64,
    },
    /// Some other kind of file.
    #[error("the file is not a package but {0}; make one with `hotswap module pack`")]
    NotAPackage(&'static str),
    /// The file ends too early.
    #[error("the file is cut off: {what} needs {needed} bytes and {left} are left; send it again")]
    Truncated {
        /// The part that is cut.
        what: &'static str,
        /// Bytes that the part needs.
        needed: u64,
        /// Bytes that are left for it.
        left: u64,
    },
    /// A header whose checksum is wrong.
    #[error("the header of {what} is damaged (its checksum is wrong); send the file again")]
    Damaged {
        /// Whose header it is.
        what: &'static str,
    },
    /// A link, folder, device or extension where a file belongs.
    #[error("{name:?} is {kind}; a package has plain files only")]
    NotAFile {
        /// The entry's name, shortened.
        name: String,
        /// What it is.
        kind: &'static str,
    },
    /// The first entry is not the manifest.
    #[error("the first entry is {found:?}; a package begins with {MANIFEST_FILE}")]
    MissingManifest {
        /// The entry's name, shortened.
        found: String,
    },
    /// The manifest is faulty.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// The second entry is not the artifact that the manifest names.
    #[error("the entry after the manifest is {found:?}; the manifest's entry is {expected:?}")]
    WrongEntry {
        /// The entry's name, shortened.
        found: String,
        /// The name in the manifest.
        expected: String,
    },
    /// There is no second entry.
    #[error("the artifact {expected:?}, which the manifest names, is not in the package")]
    MissingEntry {
        /// The name in the manifest.
        expected: String,
    },
    /// An artifact of no bytes.
    #[error("the artifact {0:?} is empty")]
    EmptyEntry(String),
    /// A third entry.
    #[error("there is another entry, {0:?}; a package has the manifest and the artifact only")]
    ExtraEntry(String),
    /// Bytes after the end.
    #[error("{0} bytes follow the end of the package; nothing may")]
    TrailingBytes(u64),
    /// A tar file, but not as it is written here.
    #[error(
        "{what} is not written as `hotswap module pack` writes it (owner, time, mode or padding); pack it anew"
    )]
    NotCanonical {
        /// The part that differs.
        what: &'static str,
    },
    /// The reader failed.
    #[error("failed to read the package")]
    Io(#[from] io::Error),
}

/// Why a folder could not be packed.
#[derive(Debug, thiserror::Error)]
pub enum PackError {
    /// A file that can't be read.
    #[error("failed to read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Something other than a plain file.
    #[error("{} is not a plain file", .0.display())]
    NotAFile(PathBuf),
    /// The manifest is faulty.
    #[error("{}: {source}", path.display())]
    Manifest {
        /// The manifest.
        path: PathBuf,
        /// Its faults.
        source: ManifestError,
    },
    /// The artifact isn't of the manifest's kind.
    #[error("{}: {problem}", path.display())]
    WrongKind {
        /// The artifact.
        path: PathBuf,
        /// What it is and what would be right.
        problem: String,
    },
    /// The parts don't make a package.
    #[error(transparent)]
    Package(#[from] PackageError),
}

/// Packs a folder with `module.toml` and the artifact that it names. Equal contents give equal bytes.
///
/// # Errors
/// A file that is missing or not plain, a faulty manifest, an artifact that is not of the manifest's kind, or
/// more than [`PACKAGE_BYTES_MAX`].
pub fn pack(dir: &Path) -> Result<Package, PackError> {
    let path = dir.join(MANIFEST_FILE);
    let text = read_plain(&path, MANIFEST_BYTES_MAX)?;
    let manifest = Manifest::from_slice(&text).map_err(|source| PackError::Manifest { path, source })?;
    let path = dir.join(&manifest.entry);
    let artifact = match &manifest.kernel {
        // Its entry is made here.
        Some(kernel) => {
            let files = kernel.builds.iter().map(|build| {
                let path = dir.join(&build.file);
                let file = read_plain(&path, PACKAGE_BYTES_MAX)?;
                if !file.starts_with(b"\x7fELF") {
                    let problem = "a build is a module file as the kernel's makefiles make it (.ko), not compressed; this is something else".to_owned();
                    return Err(PackError::WrongKind { path, problem });
                }
                Ok(Bytes::from(file))
            });
            kernel.artifact(&files.collect::<Result<Vec<_>, PackError>>()?)?
        }
        None => read_plain(&path, PACKAGE_BYTES_MAX)?,
    };
    if let Some(problem) = manifest.kind.artifact_problem(&artifact) {
        return Err(PackError::WrongKind { path, problem });
    }
    Ok(Package::assemble(&text, &artifact)?)
}

fn read_plain(path: &Path, bytes_max: u64) -> Result<Vec<u8>, PackError> {
    let failed = |source| PackError::Read {
        path: path.to_owned(),
        source,
    };
    if !fs::symlink_metadata(path).map_err(failed)?.is_file() {
        return Err(PackError::NotAFile(path.to_owned()));
    }
    let mut bytes = Vec::new();
    fs::File::open(path)
        .and_then(|file| file.take(bytes_max + 1).read_to_end(&mut bytes))
        .map_err(failed)?;
    Ok(bytes)
}

impl Package {
    /// Makes a package of a manifest's text and an artifact's bytes, whatever these are.
    ///
    /// # Errors
    /// A faulty manifest, an empty artifact, or more than [`PACKAGE_BYTES_MAX`].
    pub fn assemble(manifest_text: &[u8], artifact: &[u8]) -> Result<Self, PackageError> {
        let manifest = Manifest::from_slice(manifest_text)?;
        if artifact.is_empty() {
            return Err(PackageError::EmptyEntry(manifest.entry));
        }
        let size =
            4 * BLOCK + manifest_text.len().next_multiple_of(BLOCK) + artifact.len().next_multiple_of(BLOCK);
        if size as u64 > PACKAGE_BYTES_MAX {
            return Err(PackageError::TooLarge {
                max: PACKAGE_BYTES_MAX,
            });
        }
        let mut file = Vec::with_capacity(size);
        for (name, content) in [(MANIFEST_FILE, manifest_text), (&manifest.entry, artifact)] {
            file.extend_from_slice(header(name, content.len() as u64).as_bytes());
            file.extend_from_slice(content);
            file.resize(file.len().next_multiple_of(BLOCK), 0);
        }
        let artifact_end = file.len() - (artifact.len().next_multiple_of(BLOCK) - artifact.len());
        file.resize(file.len() + 2 * BLOCK, 0);
        let file = Bytes::from(file);
        let artifact = file.slice(artifact_end - artifact.len()..artifact_end);
        Ok(Self {
            manifest,
            artifact,
            digest: digest_of(&file),
            file,
        })
    }

    /// Reads a package file's bytes, from anybody.
    ///
    /// # Errors
    /// What the bytes are instead of the one package that they could be.
    pub fn read(file: impl Into<Bytes>, limits: &PackageLimits) -> Result<Self, PackageError> {
        let file = file.into();
        if file.is_empty() {
            return Err(PackageError::Empty);
        }
        if file.len() as u64 > limits.package_bytes_max {
            return Err(PackageError::TooLarge {
                max: limits.package_bytes_max,
            });
        }
        if file.len() < BLOCK {
            return Err(PackageError::NotAPackage("something else (it is too short)"));
        }
        if let Some(other) = other_kind_of_file(&file) {
            return Err(PackageError::NotAPackage(other));
        }
        let mut cursor = Cursor { file: &file, at: 0 };

        let entry = cursor
            .header("the manifest")?
            .ok_or(PackageError::NotAPackage("an empty archive"))?;
        if entry.name != MANIFEST_FILE {
            return Err(PackageError::MissingManifest { found: entry.name });
        }
        if entry.size > MANIFEST_BYTES_MAX {
            return Err(ManifestError::TooLarge {
                size: entry.size,
                max: MANIFEST_BYTES_MAX,
            }
            .into());
        }
        let text = cursor.content("the manifest", entry.size)?;
        let manifest = Manifest::from_slice(&text)?;

        let missing = || PackageError::MissingEntry {
            expected: manifest.entry.clone(),
        };
        let entry = cursor.header("the artifact")?.ok_or_else(missing)?;
        if entry.name != manifest.entry {
            return Err(PackageError::WrongEntry {
                found: entry.name,
                expected: manifest.entry,
            });
        }
        if entry.size == 0 {
            return Err(PackageError::EmptyEntry(manifest.entry));
        }
        let artifact = cursor.content("the artifact", entry.size)?;

        if let Some(extra) = cursor.header("the end")? {
            return Err(PackageError::ExtraEntry(extra.name));
        }
        cursor.end()?;
        Ok(Self {
            manifest,
            artifact,
            digest: digest_of(&file),
            file,
        })
    }

    /// Reads a package file from a stream, never more than the limit.
    ///
    /// # Errors
    /// Those of [`Package::read`], and the stream's.
    pub fn read_from(reader: impl Read, limits: &PackageLimits) -> Result<Self, PackageError> {
        let mut file = Vec::new();
        reader
            .take(limits.package_bytes_max.saturating_add(1))
            .read_to_end(&mut file)?;
        Self::read(file, limits)
    }
}

/// Files in one archive, written in one way only.
pub(crate) fn tar_of(names: &[&str], files: &[Bytes]) -> Result<Vec<u8>, PackageError> {
    let mut tar = Vec::new();
    for (i, name) in names.iter().enumerate() {
        let content = files.get(i).filter(|content| !content.is_empty());
        let content = content.ok_or_else(|| PackageError::EmptyEntry((*name).to_owned()))?;
        tar.extend_from_slice(header(name, content.len() as u64).as_bytes());
        tar.extend_from_slice(content);
        tar.resize(tar.len().next_multiple_of(BLOCK), 0);
    }
    tar.resize(tar.len() + 2 * BLOCK, 0);
    Ok(tar)
}

/// The files of an archive that [`tar_of`] wrote with these names.
pub(crate) fn files_of(names: &[&str], tar: &Bytes) -> Result<Vec<Bytes>, PackageError> {
    let mut cursor = Cursor { file: tar, at: 0 };
    let mut files = Vec::with_capacity(names.len());
    for name in names {
        let entry = cursor
            .header("a build")?
            .ok_or_else(|| PackageError::MissingEntry {
                expected: (*name).to_owned(),
            })?;
        if entry.name != *name {
            return Err(PackageError::WrongEntry {
                found: entry.name,
                expected: (*name).to_owned(),
            });
        }
        if entry.size == 0 {
            return Err(PackageError::EmptyEntry(entry.name));
        }
        files.push(cursor.content("a build", entry.size)?);
    }
    if let Some(extra) = cursor.header("the end")? {
        return Err(PackageError::ExtraEntry(extra.name));
    }
    cursor.end()?;
    Ok(files)
}

/// The identity of a package file's bytes.
pub fn digest_of(file: &[u8]) -> Digest {
    Digest(Sha256::digest(file).into())
}

/// The one header that an entry may have.
fn header(name: &str, size: u64) -> tar::Header {
    let mut header = tar::Header::new_ustar();
    header
        .set_path(name)
        .expect("an entry's name was checked to be plain and to fit a header");
    header.set_entry_type(tar::EntryType::Regular);
    header.set_size(size);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_cksum();
    header
}

struct Entry {
    name: String,
    size: u64,
}

struct Cursor<'a> {
    file: &'a Bytes,
    at: usize,
}

impl Cursor<'_> {
    fn left(&self) -> usize {
        self.file.len() - self.at
    }

    fn take(&mut self, what: &'static str, count: u64) -> Result<Bytes, PackageError> {
        let left = self.left();
        match usize::try_from(count) {
            Ok(count) if count <= left => {
                self.at += count;
                Ok(self.file.slice(self.at - count..self.at))
            }
            _ => Err(PackageError::Truncated {
                what,
                needed: count,
                left: left as u64,
            }),
        }
    }

    /// The next header, or `None` at a block of zeros, which is left for [`Cursor::end`].
    fn header(&mut self, what: &'static str) -> Result<Option<Entry>, PackageError> {
        let block = self.take(what, BLOCK as u64)?;
        if block.iter().all(|&b| b == 0) {
            self.at -= BLOCK;
            return Ok(None);
        }
        let found = tar::Header::from_byte_slice(&block);
        let sum: u32 = block
            .iter()
            .enumerate()
            .map(|(i, &b)| if (148..156).contains(&i) { 32 } else { u32::from(b) })
            .sum();
        if !found.cksum().is_ok_and(|cksum| cksum == sum) {
            return Err(match self.at {
                BLOCK => PackageError::NotAPackage("something else"),
                _ => PackageError::Damaged { what },
            });
        }
        let name = shorten(&String::from_utf8_lossy(&found.path_bytes()));
        if let Some(kind) = special(found.entry_type()) {
            return Err(PackageError::NotAFile { name, kind });
        }
        let size = found.entry_size().map_err(|_| PackageError::Damaged { what })?;
        // A name that was refused by its owner is reported by name; only the two that may be there are compared.
        let plain = name == MANIFEST_FILE || crate::rules::entry_problem(&name).is_none();
        if plain && header(&name, size).as_bytes().as_slice() != block.as_ref() {
            return Err(PackageError::NotCanonical { what });
        }
        Ok(Some(Entry { name, size }))
    }

    fn content(&mut self, what: &'static str, size: u64) -> Result<Bytes, PackageError> {
        let content = self.take(what, size)?;
        let padding = self.take(what, size.next_multiple_of(BLOCK as u64) - size)?;
        if padding.iter().any(|&b| b != 0) {
            return Err(PackageError::NotCanonical { what });
        }
        Ok(content)
    }

    fn end(&mut self) -> Result<(), PackageError> {
        let end = self.take("the end", 2 * BLOCK as u64)?;
        if end.iter().any(|&b| b != 0) {
            return Err(PackageError::NotCanonical { what: "the end" });
        }
        match self.left() {
            0 => Ok(()),
            left => Err(PackageError::TrailingBytes(left as u64)),
        }
    }
}

fn special(kind: tar::EntryType) -> Option<&'static str> {
    use tar::EntryType as T;
    match kind {
        T::Regular => None,
        T::Link => Some("a hard link"),
        T::Symlink => Some("a symbolic link"),
        T::Directory => Some("a folder"),
        T::Char | T::Block | T::Fifo => Some("a device or a pipe"),
        _ => Some("a tar extension"),
    }
}

fn other_kind_of_file(file: &[u8]) -> Option<&'static str> {
    const MAGIC: [(&[u8], &str); 6] = [
        (b"\0asm", "a bare WebAssembly file"),
        (b"\x7fELF", "a bare ELF file"),
        (b"\x1f\x8b", "compressed with gzip"),
        (b"\x28\xb5\x2f\xfd", "compressed with zstd"),
        (b"PK", "a zip archive"),
        (b"BZh", "compressed with bzip2"),
    ];
    MAGIC
        .iter()
        .find(|(magic, _)| file.starts_with(magic))
        .map(|(_, name)| *name)
}

fn shorten(text: &str) -> String {
    const ECHO_LEN_MAX: usize = 256;
    text.chars().take(ECHO_LEN_MAX).collect()
}
