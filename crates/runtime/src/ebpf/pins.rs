//! The files in bpffs that outlive an agent, of one module on one node.
//!
//! ```text
//! hotswap/NODE/MODULE/links/PROGRAM     the hook's link: as long as it is there, the hook is held
//!                     maps/MAP          maps that versions carry on,
//!                     maps/MAP-LAYOUT   and those that entries were moved into
//!                     origins/MAP…      the number of the map that one's entries come from, in a symbolic link
//!                     RELEASE/PROGRAM   a loaded version's programs,
//!                     RELEASE-maps/MAP  and the maps of its own that counters are in
//!                     RELEASE-former/…  programs that are at the hooks, of a version that had to be loaded anew
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError, Weak};

use aya::maps::MapInfo;
use aya::programs::ProgramInfo;

use super::instance::Loaded;
use super::{sys, told};

/// Our own directory in bpffs.
const OWN: &str = "hotswap";
const LINKS: &str = "links";
const MAPS: &str = "maps";
const ORIGINS: &str = "origins";
/// What is being made, and is not complete until it loses this.
const PART: &str = "-part";
/// Whose place another one of the same version is to take.
const FORMER: &str = "-former";

/// A module's files on a node, and who of this process's instances uses them.
#[derive(Debug)]
pub(super) struct Module {
    dir: PathBuf,
    users: Mutex<Users>,
    /// Held while a version is loaded: the verifier takes its time, and who looks after the hooks doesn't wait for it.
    loading: Mutex<()>,
}

/// Where a map's entries come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// The map of this number.
    Map(u32),
    /// No map was there when the version came to its hooks.
    Nothing,
}

/// Instances of this process.
#[derive(Debug, Default)]
pub(super) struct Users {
    /// Who is at the hooks.
    pub(super) active: Option<Arc<Loaded>>,
    /// Who is to be there.
    pub(super) wanted: Option<Weak<Loaded>>,
    /// How often each version is loaded, by its folder.
    pub(super) loaded: BTreeMap<String, usize>,
    /// The maps that each of them carries on.
    pub(super) maps: BTreeMap<String, Vec<PathBuf>>,
}

impl Users {
    /// A version is being loaded, or is loaded once more.
    pub(super) fn enter(&mut self, release: &str, maps: Vec<PathBuf>) {
        *self.loaded.entry(release.to_owned()).or_insert(0) += 1;
        self.maps.insert(release.to_owned(), maps);
    }

    /// It is no more; whether that was the last time.
    pub(super) fn leave(&mut self, release: &str) -> bool {
        let left = self.loaded.get(release).map_or(0, |count| count - 1);
        if left > 0 {
            self.loaded.insert(release.to_owned(), left);
            return false;
        }
        self.loaded.remove(release);
        self.maps.remove(release);
        true
    }
}

/// The modules of a node that have something here.
pub(super) fn modules(bpffs: &Path, node: &str) -> Vec<String> {
    let modules = children(&of_node(bpffs, node));
    modules.iter().map(|path| file_name(path)).collect()
}

fn of_node(bpffs: &Path, node: &str) -> PathBuf {
    // Names with dots are reserved in bpffs; no node has a plus in its name.
    bpffs.join(OWN).join(node.replace('.', "+"))
}

impl Module {
    pub(super) fn new(bpffs: &Path, node: &str, module: &str) -> Self {
        Self {
            dir: of_node(bpffs, node).join(module),
            users: Mutex::default(),
            loading: Mutex::default(),
        }
    }

    /// Waits until no other version of the module is being loaded.
    pub(super) fn loading(&self) -> MutexGuard<'_, ()> {
        self.loading.lock().unwrap_or_else(PoisonError::into_inner)
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
        let mut paths = children(&self.dir.join(MAPS));
        paths.retain(|path| file_name(path).split('-').next() == Some(map));
        paths
    }

    /// The layout of a map, of those that are carried on, which is among the maps of these numbers.
    pub(super) fn carried_of(&self, map: &str, ids: &BTreeSet<u32>) -> Result<Option<PathBuf>, String> {
        for path in self.all_carried(map) {
            if ids.contains(&number(&path)?) {
                return Ok(Some(path));
            }
        }
        Ok(None)
    }

    /// The numbers of all maps that are pinned here by their whole names, and of those of that name where they are.
    pub(super) fn pinned_maps(&self, map: &str) -> (BTreeSet<u32>, BTreeMap<u32, PathBuf>) {
        let (mut all, mut named) = (BTreeSet::new(), BTreeMap::new());
        for folder in children(&self.dir) {
            let name = file_name(&folder);
            if name != MAPS && !name.ends_with("-maps") {
                continue;
            }
            for path in children(&folder) {
                let Ok(id) = number(&path) else { continue };
                all.insert(id);
                if file_name(&path).split('-').next() == Some(map) {
                    named.insert(id, path);
                }
            }
        }
        (all, named)
    }

    /// The kernel's numbers of the maps that the programs at the hooks use.
    pub(super) fn maps_at_work(&self) -> Result<BTreeSet<u32>, String> {
        let mut maps = BTreeSet::new();
        for link in self.held() {
            let program = self.find(link.program).map_err(|error| error.to_string())?;
            // Another one's has nothing that is carried on.
            let Some(program) = program else { continue };
            maps.extend(sys::maps_of(program).map_err(|error| error.to_string())?);
        }
        Ok(maps)
    }

    /// The kernel's numbers of the maps that a version's programs use.
    pub(super) fn maps_of(&self, release: &str) -> Result<BTreeSet<u32>, String> {
        let mut maps = BTreeSet::new();
        for program in children(&self.dir.join(release)) {
            let of = sys::get(&program).and_then(sys::maps_of);
            maps.extend(of.map_err(|error| format!("{} can't be read: {error}", program.display()))?);
        }
        Ok(maps)
    }

    /// Where a map's entries come from; nothing where that wasn't noted yet.
    pub(super) fn origin(&self, map: &Path) -> io::Result<Option<Origin>> {
        match fs::read_link(self.origin_path(map)) {
            Ok(text) => Ok(Some(match text.to_string_lossy().parse() {
                Ok(id) => Origin::Map(id),
                Err(_) => Origin::Nothing,
            })),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Notes where a map's entries come from, for as long as the map is there.
    pub(super) fn note_origin(&self, map: &Path, origin: Origin) -> io::Result<()> {
        self.forget_origin(map);
        fs::create_dir_all(self.dir.join(ORIGINS))?;
        let text = match origin {
            Origin::Map(id) => id.to_string(),
            Origin::Nothing => "nothing".to_owned(),
        };
        symlink(text, self.origin_path(map))
    }

    /// Forgets where the entries of a map come from that is gone, or not made yet.
    pub(super) fn forget_origin(&self, map: &Path) {
        // There may be none.
        let _ = fs::remove_file(self.origin_path(map));
    }

    fn origin_path(&self, map: &Path) -> PathBuf {
        self.dir.join(ORIGINS).join(map.file_name().unwrap_or_default())
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
    fn find_pin(&self, id: u32) -> io::Result<Option<PathBuf>> {
        for folder in fs::read_dir(&self.dir)? {
            let folder = folder?.path();
            let name = file_name(&folder);
            if !is_release(name.strip_suffix(FORMER).unwrap_or(&name)) {
                continue;
            }
            for file in fs::read_dir(folder)? {
                let path = file?.path();
                if ProgramInfo::from_pin(&path).is_ok_and(|info| info.id() == id) {
                    return Ok(Some(path));
                }
            }
        }
        Ok(None)
    }

    /// Whether a program that is pinned in a folder is at a hook.
    fn is_held(&self, folder: &Path) -> bool {
        let held: BTreeSet<u32> = self.held().map(|link| link.program).collect();
        children(folder)
            .iter()
            .any(|path| ProgramInfo::from_pin(path).is_ok_and(|info| held.contains(&info.id())))
    }

    /// The links that can be read.
    fn held(&self) -> impl Iterator<Item = sys::Link> {
        let links = self.links().into_iter().map(|name| self.link(&name));
        links.filter_map(|path| sys::get(&path).and_then(sys::link).ok())
    }

    /// The hooks that are held.
    pub(super) fn links(&self) -> Vec<String> {
        let links = children(&self.dir.join(LINKS));
        links.iter().map(|path| file_name(path)).collect()
    }

    /// Removes versions that nobody uses any more, and the layouts of maps that only they had: what a killed agent had
    /// left behind.
    pub(super) fn sweep(&self, users: &Users) {
        for folder in children(&self.dir) {
            let name = file_name(&folder);
            let release = name.split('-').next().unwrap_or_default();
            if !is_release(release) {
                continue;
            }
            if !users.loaded.contains_key(release) {
                self.forget(release);
            } else if name.ends_with(FORMER) && !self.is_held(&folder) {
                removed(&folder);
            }
        }
        self.forget_layouts(users);
    }

    /// Removes a version's files, unless a program of its own is at a hook: who comes next has to name it. What is
    /// attached stays anyway, as links hold their program.
    pub(super) fn forget(&self, release: &str) {
        let folder = |end: &str| self.dir.join(format!("{release}{end}"));
        if self.is_held(&folder("")) || self.is_held(&folder(FORMER)) {
            return;
        }
        for end in ["", PART, "-maps", FORMER] {
            removed(&folder(end));
        }
    }

    /// Makes room for a version that is loaded anew; those of its programs that are at hooks stay to be found.
    pub(super) fn set_aside(&self, release: &str) -> io::Result<()> {
        // Nobody looks for a program meanwhile.
        let _users = self.lock();
        let folder = self.dir.join(release);
        if self.is_held(&folder) {
            return fs::rename(&folder, self.dir.join(format!("{release}{FORMER}")));
        }
        remove(&folder)
    }

    /// Removes maps that were to be carried on, where no version is left.
    pub(super) fn forget_maps(&self, maps: &[PathBuf]) {
        for map in maps {
            // It may not have been made.
            let _ = fs::remove_file(map);
            self.forget_origin(map);
        }
    }

    /// Removes layouts of maps that no version has any more, where another one goes on with another layout.
    pub(super) fn forget_layouts(&self, users: &Users) {
        let used: BTreeSet<&PathBuf> = users.maps.values().flatten().collect();
        for path in children(&self.dir.join(MAPS)) {
            let name = file_name(&path);
            let map = name.split('-').next().unwrap_or_default();
            let is_left = !used.contains(&path);
            if is_left && self.all_carried(map).iter().any(|other| used.contains(other)) {
                self.forget_maps(&[path]);
            }
        }
    }

    /// Lets go of everything, unless a version is loaded, or about to be; whether it did.
    pub(super) fn clear_unused(&self) -> bool {
        let _loading = match self.loading.try_lock() {
            Err(TryLockError::WouldBlock) => return false,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Ok(loading) => loading,
        };
        let is_unused = self.lock().loaded.is_empty();
        if is_unused {
            self.clear();
        }
        is_unused
    }

    /// Lets go of all hooks, and removes everything.
    pub(super) fn clear(&self) {
        // Links first: a program that is at a hook can be found as long as it is pinned, should this end half-way.
        removed(&self.dir.join(LINKS));
        if let Err(error) = remove(&self.dir) {
            tracing::warn!(%error, path = %self.dir.display(), "a module's pins could not be removed");
        }
        self.remove_empty();
    }

    /// Removes the folders around a module of which nothing is left.
    pub(super) fn remove_empty(&self) {
        let own = [LINKS, MAPS, ORIGINS].map(|folder| self.dir.join(folder));
        let around = self.dir.ancestors().take(3).map(Path::to_owned);
        for folder in own.into_iter().chain(around) {
            // It is another's while something is in it.
            let _ = fs::remove_dir(folder);
        }
    }
}

fn is_release(name: &str) -> bool {
    name.len() == 64 && name.bytes().all(|b| b.is_ascii_hexdigit())
}

/// The kernel's number of a map that is pinned.
pub(super) fn number(map: &Path) -> Result<u32, String> {
    let info = MapInfo::from_pin(map);
    info.map(|info| info.id()).map_err(|error| told(&error))
}

/// What is in a folder, in order; nothing where it isn't there.
fn children(folder: &Path) -> Vec<PathBuf> {
    let files = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut paths: Vec<PathBuf> = files.map(|file| file.path()).collect();
    paths.sort();
    paths
}

fn file_name(path: &Path) -> String {
    path.file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}

fn removed(folder: &Path) {
    if let Err(error) = remove(folder) {
        tracing::warn!(%error, path = %folder.display(), "a version's pins could not be removed");
    }
}

/// Removes a folder of pins with everything in it, if it is there.
fn remove(dir: &Path) -> io::Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
