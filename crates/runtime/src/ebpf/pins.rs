//! The files in bpffs that outlive an agent, of one module on one node.
//!
//! ```text
//! hotswap/NODE/MODULE/links/PROGRAM     the hook's link: as long as it is there, the hook is held
//!                     maps/MAP          maps that versions carry on,
//!                     maps/MAP-LAYOUT   and those that entries were moved into
//!                     RELEASE/PROGRAM   a loaded version's programs,
//!                     RELEASE-maps/MAP  and the maps of its own that counters are in
//! ```

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aya::programs::ProgramInfo;

use super::instance::Loaded;
use super::sys;

/// Our own directory in bpffs.
const OWN: &str = "hotswap";
const LINKS: &str = "links";
const MAPS: &str = "maps";
/// What is being made, and is not complete until it loses this.
const PART: &str = "-part";

/// A module's files on a node, and who of this process's instances uses them.
#[derive(Debug)]
pub(super) struct Module {
    dir: PathBuf,
    users: Mutex<Users>,
}

/// Instances of this process.
#[derive(Debug, Default)]
pub(super) struct Users {
    /// Who is at the hooks.
    pub(super) active: Option<Arc<Loaded>>,
    /// How often each version is loaded, by its folder.
    pub(super) loaded: BTreeMap<String, usize>,
    /// The maps that each of them carries on.
    pub(super) maps: BTreeMap<String, Vec<PathBuf>>,
}

impl Module {
    pub(super) fn new(bpffs: &Path, node: &str, module: &str) -> Self {
        // Names with dots are reserved in bpffs; no node has a plus in its name.
        let node = node.replace('.', "+");
        Self {
            dir: bpffs.join(OWN).join(node).join(module),
            users: Mutex::default(),
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Users> {
        self.users.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn link(&self, program: &str) -> PathBuf {
        self.dir.join(LINKS).join(program)
    }

    /// The same while another one takes its place.
    pub(super) fn next_link(&self, program: &str) -> PathBuf {
        self.dir.join(LINKS).join(format!("{program}{PART}"))
    }

    pub(super) fn carried(&self, map: &str) -> PathBuf {
        self.dir.join(MAPS).join(map)
    }

    /// All layouts of a map that are carried on: the first one, and those that have theirs in the name.
    pub(super) fn all_carried(&self, map: &str) -> Vec<PathBuf> {
        let files = fs::read_dir(self.dir.join(MAPS)).into_iter().flatten().flatten();
        let is_of = |name: &str| name.split('-').next() == Some(map);
        let mut paths: Vec<PathBuf> = files
            .filter(|file| is_of(&file.file_name().to_string_lossy()))
            .map(|file| file.path())
            .collect();
        paths.sort();
        paths
    }

    pub(super) fn program(&self, release: &str, program: &str) -> PathBuf {
        self.dir.join(release).join(program)
    }

    pub(super) fn own_map(&self, release: &str, map: &str) -> PathBuf {
        self.dir.join(format!("{release}-{MAPS}")).join(map)
    }

    /// Whether a version's programs are all there.
    pub(super) fn has(&self, release: &str) -> bool {
        self.dir.join(release).is_dir()
    }

    /// Makes the folders that every version needs.
    pub(super) fn make(&self) -> io::Result<()> {
        fs::create_dir_all(self.dir.join(LINKS))?;
        fs::create_dir_all(self.dir.join(MAPS))
    }

    /// Begins a version's folders anew; its programs are put in the first of them.
    pub(super) fn begin(&self, release: &str) -> io::Result<PathBuf> {
        let part = self.dir.join(format!("{release}{PART}"));
        let maps = self.dir.join(format!("{release}-{MAPS}"));
        for folder in [&part, &maps] {
            remove(folder)?;
            fs::create_dir_all(folder)?;
        }
        Ok(part)
    }

    /// A version's programs are all there from now on.
    pub(super) fn complete(&self, release: &str, part: &Path) -> io::Result<()> {
        fs::rename(part, self.dir.join(release))
    }

    /// A program that is pinned here, by the kernel's number.
    pub(super) fn find(&self, id: u32) -> io::Result<Option<OwnedFd>> {
        self.find_pin(id)?.map(|pin| sys::get(&pin)).transpose()
    }

    /// Where a program is pinned here, by the kernel's number.
    pub(super) fn find_pin(&self, id: u32) -> io::Result<Option<PathBuf>> {
        for folder in fs::read_dir(&self.dir)? {
            let folder = folder?;
            let name = folder.file_name().to_string_lossy().into_owned();
            if !is_release(&name) {
                continue;
            }
            for file in fs::read_dir(folder.path())? {
                let path = file?.path();
                if ProgramInfo::from_pin(&path).is_ok_and(|info| info.id() == id) {
                    return Ok(Some(path));
                }
            }
        }
        Ok(None)
    }

    /// The hooks that are held.
    pub(super) fn links(&self) -> Vec<String> {
        let files = fs::read_dir(self.dir.join(LINKS)).into_iter().flatten().flatten();
        files
            .map(|file| file.file_name().to_string_lossy().into_owned())
            .collect()
    }

    /// Removes versions that nobody uses any more: what a killed agent had left behind.
    pub(super) fn sweep(&self, users: &Users) {
        for folder in fs::read_dir(&self.dir).into_iter().flatten().flatten() {
            let name = folder.file_name().to_string_lossy().into_owned();
            let release = name.split('-').next().unwrap_or_default();
            if is_release(release) && !users.loaded.contains_key(release) {
                self.forget(release);
            }
        }
    }

    /// Removes a version's files. What is attached stays, as links hold their program.
    pub(super) fn forget(&self, release: &str) {
        for folder in ["", PART, "-maps"] {
            let path = self.dir.join(format!("{release}{folder}"));
            if let Err(error) = remove(&path) {
                tracing::warn!(%error, path = %path.display(), "a version's pins could not be removed");
            }
        }
    }

    /// Removes the maps that versions carry on, where no version is left.
    pub(super) fn forget_maps(&self, maps: &[PathBuf]) {
        for map in maps {
            // It may not have been made.
            let _ = fs::remove_file(map);
        }
    }

    /// Removes layouts of maps that only a version had that is gone, where another one goes on with another layout.
    pub(super) fn forget_layouts(&self, users: &Users, gone: &[PathBuf]) {
        let used: Vec<&PathBuf> = users.maps.values().flatten().collect();
        for path in gone.iter().filter(|path| !used.contains(path)) {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let map = name.split('-').next().unwrap_or_default();
            if self.all_carried(map).iter().any(|other| used.contains(&other)) {
                let _ = fs::remove_file(path);
            }
        }
    }

    /// Lets go of all hooks, and removes everything.
    pub(super) fn clear(&self) {
        if let Err(error) = remove(&self.dir) {
            tracing::warn!(%error, path = %self.dir.display(), "a module's pins could not be removed");
        }
        self.remove_empty();
    }

    /// Removes the folders around a module of which nothing is left.
    pub(super) fn remove_empty(&self) {
        let (links, maps) = (self.dir.join(LINKS), self.dir.join(MAPS));
        let around = self.dir.ancestors().take(3).map(Path::to_owned);
        for folder in [links, maps].into_iter().chain(around) {
            // It is another's while something is in it.
            let _ = fs::remove_dir(folder);
        }
    }
}

fn is_release(name: &str) -> bool {
    name.len() == 64 && name.bytes().all(|b| b.is_ascii_hexdigit())
}

/// Removes a folder of pins with everything in it, if it is there.
fn remove(dir: &Path) -> io::Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
