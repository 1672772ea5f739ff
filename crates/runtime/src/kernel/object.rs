//! What module files are, and whether the manifest tells the truth about them. No privilege is needed.

use std::collections::BTreeMap;

use bytes::Bytes;
use hotswap_package::{Manifest, Style};
use object::{Object as _, ObjectKind, ObjectSection as _};

/// Largest module file, in bytes: the largest of distributions have some MiB, without debug information.
const FILE_BYTES_MAX: usize = 64 << 20;
const MODINFO: &str = ".modinfo";
/// What is read of it.
const KEYS: [&str; 5] = ["name", "vermagic", "license", "livepatch", "depends"];
/// Largest `.modinfo`, in bytes, and most entries: a driver with thousands of aliases has some 100 kB.
const MODINFO_BYTES_MAX: usize = 4 << 20;
const MODINFO_ENTRIES_MAX: usize = 100_000;
/// What ends a file that is signed.
const SIGNED: &[u8] = b"~Module signature appended~\n";

/// A module file for one kernel.
#[derive(Clone, Debug)]
pub(super) struct Build {
    pub(super) release: String,
    pub(super) file: Bytes,
    pub(super) depends: Vec<String>,
}

/// The builds of a module.
#[derive(Clone, Debug)]
pub struct Inspected {
    /// The license that the kernel is told.
    pub license: String,
    /// Whether each build has a signature for the kernel; whose, the node's kernel says.
    pub signed: bool,
    pub(super) builds: Vec<Build>,
}

impl Inspected {
    /// A sentence's part about it.
    pub fn summary(&self) -> String {
        let releases: Vec<&str> = self.builds.iter().map(|build| build.release.as_str()).collect();
        let signed = if self.signed { "signed" } else { "not signed" };
        format!(
            "{} build(s), for {}, licensed {}, {signed} for the kernel",
            releases.len(),
            releases.join(", "),
            self.license
        )
    }

    /// The build for a kernel.
    ///
    /// # Errors
    /// There is none.
    pub(super) fn for_kernel(&self, release: &str) -> Result<&Build, String> {
        let found = self.builds.iter().find(|build| build.release == release);
        found.ok_or_else(|| {
            let there: Vec<&str> = self.builds.iter().map(|build| build.release.as_str()).collect();
            format!(
                "there is no build for this node's kernel {release}; there are builds for {}",
                there.join(", ")
            )
        })
    }
}

/// Looks at all builds of an artifact as its manifest describes them.
///
/// # Errors
/// What is wrong with them, in words that their author can act on.
pub fn inspect(manifest: &Manifest, artifact: &Bytes) -> Result<Inspected, String> {
    let kernel = manifest.kernel.as_ref().ok_or("the manifest has no [kernel]")?;
    let files = kernel.files(artifact).map_err(|error| error.to_string())?;
    let mut builds = Vec::new();
    let mut license = String::new();
    let mut signed = true;
    let mut machine = None;
    for (said, file) in kernel.builds.iter().zip(files) {
        let of = |problem: String| format!("{}: {problem}", said.file);
        if file.len() > FILE_BYTES_MAX {
            return Err(of(format!(
                "it has {} bytes; at most {FILE_BYTES_MAX}",
                file.len()
            )));
        }
        let (info, its_machine) = modinfo(&file).map_err(of)?;
        let get = |key: &str| info.get(key).map(String::as_str);
        let name = get("name").unwrap_or_default();
        if name != kernel.module {
            return Err(of(format!(
                "the file is of a module called {name:?}, and the manifest's module is {:?}",
                kernel.module
            )));
        }
        let vermagic = get("vermagic").unwrap_or_default();
        let built_for = vermagic.split(' ').next().unwrap_or_default();
        if built_for != said.release {
            return Err(of(format!(
                "the file is built for the kernel {built_for:?} (its vermagic is {vermagic:?}), and the manifest says {:?}",
                said.release
            )));
        }
        let its_license = get("license").unwrap_or_default();
        if its_license.is_empty() {
            return Err(of(
                "the file names no license; give one, such as MODULE_LICENSE(\"GPL\")".to_owned(),
            ));
        }
        match (kernel.style, get("livepatch") == Some("Y")) {
            (Style::Livepatch, false) => {
                return Err(of(
                    "the file is no livepatch; it would say MODULE_INFO(livepatch, \"Y\")".to_owned(),
                ));
            }
            (Style::Plain | Style::Gated, true) => {
                return Err(of(format!(
                    "the file is a livepatch, and the manifest's style is {}; make it livepatch",
                    kernel.style
                )));
            }
            _ => {}
        }
        if *machine.get_or_insert(its_machine) != its_machine {
            return Err(of("it is for another processor than the first build".to_owned()));
        }
        license = its_license.to_owned();
        signed &= file.ends_with(SIGNED);
        let depends = get("depends").unwrap_or_default();
        builds.push(Build {
            release: said.release.clone(),
            depends: depends
                .split(',')
                .filter(|name| !name.is_empty())
                .map(|name| name.replace('-', "_"))
                .collect(),
            file,
        });
    }
    Ok(Inspected {
        license,
        signed,
        builds,
    })
}

/// What a module file says of itself.
fn modinfo(file: &[u8]) -> Result<(BTreeMap<&'static str, String>, object::Architecture), String> {
    // A copy of its own is aligned, as its structures must be.
    let bytes = file.to_vec();
    let parsed = object::File::parse(&*bytes).map_err(|error| format!("the file is no ELF file: {error}"))?;
    if parsed.kind() != ObjectKind::Relocatable {
        return Err("the file is no module but a program or a library".to_owned());
    }
    let section = parsed
        .section_by_name(MODINFO)
        .ok_or("the file is no kernel module: it has no .modinfo")?;
    let data = section.data().map_err(|error| error.to_string())?;
    if data.len() > MODINFO_BYTES_MAX {
        return Err(format!(
            "its {MODINFO} has {} bytes; at most {MODINFO_BYTES_MAX}",
            data.len()
        ));
    }
    let mut info = BTreeMap::new();
    for (number, entry) in data.split(|&byte| byte == 0).enumerate() {
        if number >= MODINFO_ENTRIES_MAX {
            return Err(format!(
                "its {MODINFO} has more than {MODINFO_ENTRIES_MAX} entries"
            ));
        }
        for key in KEYS {
            let value = entry.strip_prefix(key.as_bytes());
            if let Some(value) = value.and_then(|rest| rest.strip_prefix(b"=")) {
                let value = || String::from_utf8_lossy(value).into_owned();
                info.entry(key).or_insert_with(value);
            }
        }
    }
    Ok((info, parsed.architecture()))
}
