//! State that goes over from a map of another layout into this version's: its own program is given every entry, before
//! the switch and once more, where it changed meanwhile, after it.
//!
//! What the program reads, as a packet, in fields that each begin at a multiple of eight bytes:
//!
//! ```text
//! u32 pass         1 before the switch, 2 after it
//! u32 processor    whose value it is, in a map that has one for each; the program runs on that one then
//! key              as in both maps
//! value            in the former version's map
//! former           the same when it was given the time before; zeros the first time
//! ```

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::PathBuf;
use std::time::Duration;

use aya::maps::MapInfo;

use super::object::Layout;
use super::pins::{self, Module, Origin};
use super::{load, sys, told};

/// Most entries that are moved: each value costs some microseconds, during which the node's other switches wait.
pub(super) const ENTRIES_MAX: u32 = 65_536;
/// Most bytes that the program is given at once.
pub(super) const FRAME_BYTES_MAX: usize = 3_072;
/// Most values that are moved, of all processors: what the program is called for.
const VALUES_MAX: u64 = 65_536;
/// Most bytes of all keys and values, which are kept while the move is under way, and read twice.
const BYTES_MAX: u64 = 32 << 20;
/// How long programs that ran at the switch have to end where the kernel can't say that they have: one with processors
/// that nothing interrupts (`nohz_full`) has no `membarrier`. They run for some µs.
const READERS_PAUSE: Duration = Duration::from_millis(50);
/// What the program returns when it has taken an entry over.
const XDP_PASS: i32 = 2;

/// How many bytes a program is given of a map with such keys and values.
pub(super) fn frame_bytes(layout: Layout) -> usize {
    let (key, value) = (layout.key_size as usize, layout.value_size as usize);
    8 + key.next_multiple_of(8) + 2 * value.next_multiple_of(8)
}

/// A map of this version and the program that moves entries into it.
#[derive(Debug)]
pub(super) struct Move {
    pub(super) name: String,
    pub(super) to: OwnedFd,
    pub(super) path: PathBuf,
    pub(super) layout: Layout,
    pub(super) program: OwnedFd,
}

/// Entries by their keys; of a map that has a value for each processor, all of them one after the other.
type Entries = BTreeMap<Vec<u8>, Vec<u8>>;

/// A move whose switch is under way.
#[derive(Debug)]
pub(super) struct Moving<'a> {
    by: &'a Move,
    from: Map,
    given: Entries,
}

/// A map whose entries can be read.
#[derive(Debug)]
pub(super) struct Map {
    /// The kernel's number of it.
    pub(super) id: u32,
    fd: OwnedFd,
    layout: Layout,
    processors: usize,
}

impl Move {
    /// Moves what the map has that is at work at the module's hooks; nothing where it is this version's own.
    pub(super) fn begin(&self, module: &Module) -> Result<Option<Moving<'_>>, String> {
        let failed = |error: io::Error| format!("the map {} can't be moved: {error}", self.name);
        let own = pins::number(&self.path)?;
        if module.maps_at_work()?.contains(&own) {
            return Ok(None);
        }
        let from = at_work(module, &self.name)?;
        let is = from.as_ref().map_or(Origin::Nothing, |from| Origin::Map(from.id));
        match module.origin(&self.path).map_err(failed)? {
            // A way back from a later version, or from one that has no such map: the program knows nothing of its layout.
            Some(noted) if noted != is => return Ok(None),
            Some(_) => {}
            None => module.note_origin(&self.path, is).map_err(failed)?,
        }
        let Some(from) = from else { return Ok(None) };
        if from.layout.key_size != self.layout.key_size {
            return Err(format!(
                "the map {} can't be moved: its keys have {} bytes at work and {} in this version; give the new one another name",
                self.name, from.layout.key_size, self.layout.key_size
            ));
        }
        if !from.layout.is_movable() {
            return Err(format!(
                "the map {} can't be moved: the one at work is a {}; entries are moved out of arrays and hash tables, also \
                 those per CPU; give the new one another name",
                self.name, from.layout
            ));
        }
        if let Some(problem) = from.is_too_large() {
            return Err(format!(
                "the map {} can't be moved: the one at work is a {}; {problem}",
                self.name, from.layout
            ));
        }
        // It may have been at work before, until a way back.
        let to = self.to.try_clone().and_then(|to| Map::new(own, to, self.layout));
        to.map_err(failed)?.clear().map_err(failed)?;
        let given = from.entries().map_err(failed)?;
        let moving = Moving {
            by: self,
            from,
            given: Entries::new(),
        };
        moving.give(1, &given)?;
        Ok(Some(Moving { given, ..moving }))
    }
}

/// The map of that name that programs at the module's hooks use.
pub(super) fn at_work(module: &Module, name: &str) -> Result<Option<Map>, String> {
    let ids = module.maps_at_work()?;
    let (pinned, named) = module.pinned_maps(name);
    if let Some((id, path)) = named.into_iter().find(|(id, _)| ids.contains(id)) {
        let info = MapInfo::from_pin(&path).map_err(|error| told(&error))?;
        let map = sys::get(&path).and_then(|fd| Map::new(id, fd, load::layout(&info)));
        return map.map(Some).map_err(|error| error.to_string());
    }
    unpinned(ids.difference(&pinned), name)
}

/// The map of that name among those of these numbers, which are pinned nowhere.
fn unpinned<'a>(ids: impl Iterator<Item = &'a u32>, name: &str) -> Result<Option<Map>, String> {
    let mut found = None;
    for id in ids {
        let info = MapInfo::from_id(*id).map_err(|error| {
            format!(
                "whether the former version has a map {name} can't be told without CAP_SYS_ADMIN, since it doesn't carry it \
                 on: {}",
                told(&error)
            )
        })?;
        if !info.name_as_str().is_some_and(|kept| is_named(kept, name)) {
            continue;
        }
        if found.is_some() {
            return Err(format!(
                "which of the former version's maps is {name} can't be told: the kernel keeps {NAME_LEN_MAX} characters of \
                 their names, and those of several are the same; have it carry the map on, or give them other names"
            ));
        }
        found = Some(info);
    }
    let Some(info) = found else { return Ok(None) };
    let fd = info.fd().map_err(|error| told(&error))?;
    let fd = fd.as_fd().try_clone_to_owned();
    let map = fd.and_then(|fd| Map::new(info.id(), fd, load::layout(&info)));
    map.map(Some).map_err(|error| error.to_string())
}

/// How many characters of a name the kernel keeps.
const NAME_LEN_MAX: usize = 15;

fn is_named(kept: &str, name: &str) -> bool {
    kept == name || (kept.len() == NAME_LEN_MAX && name.starts_with(kept))
}

impl Moving<'_> {
    /// After the switch, when the former version runs no more: gives the program what changed since. How much that was.
    pub(super) fn finish(&self) -> Result<usize, String> {
        if let Err(error) = sys::wait_for_readers() {
            tracing::warn!(%error, pause = ?READERS_PAUSE, "the kernel's readers can't be waited for; a pause has to do");
            std::thread::sleep(READERS_PAUSE);
        }
        let now = self
            .from
            .entries()
            .map_err(|error| format!("the map {} can't be read: {error}", self.by.name))?;
        let changed: Entries = now
            .into_iter()
            .filter(|(key, value)| self.given.get(key) != Some(value))
            .collect();
        self.give(2, &changed)?;
        Ok(changed.len())
    }

    /// How many entries were moved before the switch.
    pub(super) fn moved(&self) -> usize {
        self.given.len()
    }

    pub(super) fn name(&self) -> &str {
        &self.by.name
    }

    fn give(&self, pass: u32, entries: &Entries) -> Result<(), String> {
        // A thread of its own, since it is bound to one processor after the other.
        let given = std::thread::scope(|scope| scope.spawn(|| self.give_here(pass, entries)).join());
        given.unwrap_or_else(|_| Err("the move panicked".to_owned()))
    }

    fn give_here(&self, pass: u32, entries: &Entries) -> Result<(), String> {
        let zeros = vec![0; self.from.layout.value_size as usize];
        let (mut frame, mut left) = (Vec::with_capacity(FRAME_BYTES_MAX), vec![0; FRAME_BYTES_MAX]);
        for processor in 0..self.from.values() {
            if self.from.values() > 1 {
                // One that is off runs nothing: its value goes to another's.
                let _ = sys::run_on(processor);
            }
            for (key, value) in entries {
                let former = self.given.get(key);
                let former = former.map_or(&zeros[..], |value| self.from.value(value, processor));
                let parts = [key, self.from.value(value, processor), former];
                fill(&mut frame, pass, processor, parts);
                self.give_one(&frame, &mut left)?;
            }
        }
        Ok(())
    }

    fn give_one(&self, frame: &[u8], left: &mut [u8]) -> Result<(), String> {
        let returned = sys::test_run(&self.by.program, frame, left);
        match returned {
            Ok((XDP_PASS, _)) => Ok(()),
            Ok((other, _)) => Err(format!(
                "the map {} can't be moved: its program returned {other} to an entry, and not XDP_PASS",
                self.by.name
            )),
            Err(error) => Err(format!("the map {} can't be moved: {error}", self.by.name)),
        }
    }
}

/// Makes a frame of an entry: its key, its value, and the value that was given before.
fn fill(frame: &mut Vec<u8>, pass: u32, processor: usize, parts: [&[u8]; 3]) {
    frame.clear();
    frame.extend(pass.to_ne_bytes());
    frame.extend(u32::try_from(processor).unwrap_or(u32::MAX).to_ne_bytes());
    for part in parts {
        frame.extend(part);
        frame.resize(frame.len().next_multiple_of(8), 0);
    }
}

impl Map {
    fn new(id: u32, fd: OwnedFd, layout: Layout) -> io::Result<Self> {
        let processors = aya::util::nr_cpus().map_err(|(_, error)| error)?;
        Ok(Self {
            id,
            fd,
            layout,
            processors,
        })
    }

    /// Values to a key.
    fn values(&self) -> usize {
        if self.layout.has_value_per_processor() {
            self.processors
        } else {
            1
        }
    }

    /// What there is more of than can be moved.
    fn is_too_large(&self) -> Option<String> {
        let (entries, processors) = (self.layout.entries_max, self.values());
        if entries > ENTRIES_MAX || frame_bytes(self.layout) > FRAME_BYTES_MAX {
            return Some(format!(
                "at most {ENTRIES_MAX} entries are moved, of which the program gets {FRAME_BYTES_MAX} bytes each"
            ));
        }
        let values = u64::from(entries) * processors as u64;
        if values > VALUES_MAX {
            return Some(format!(
                "with {processors} processors that is {values} values, and at most {VALUES_MAX} are moved"
            ));
        }
        let bytes = u64::from(entries) * (self.layout.key_size as usize + self.value_bytes()) as u64;
        (bytes > BYTES_MAX)
            .then(|| format!("that is {bytes} bytes in all, and at most {BYTES_MAX} are moved"))
    }

    /// Bytes that the kernel copies for a key: of a value for each processor it rounds each one up, on a machine that has
    /// only one, too.
    fn value_bytes(&self) -> usize {
        let size = self.layout.value_size as usize;
        if self.layout.has_value_per_processor() {
            self.processors * size.next_multiple_of(8)
        } else {
            size
        }
    }

    fn value<'a>(&self, values: &'a [u8], processor: usize) -> &'a [u8] {
        let size = self.layout.value_size as usize;
        let from = processor * size.next_multiple_of(8);
        &values[from..from + size]
    }

    fn keys(&self) -> io::Result<Vec<Vec<u8>>> {
        let mut keys: Vec<Vec<u8>> = Vec::new();
        let mut key = vec![0; self.layout.key_size as usize];
        // The walk begins anew where an entry is removed under it.
        for _ in 0..2 * u64::from(self.layout.entries_max) + 1 {
            if !sys::next_key(&self.fd, keys.last().map(Vec::as_slice), &mut key)? {
                break;
            }
            keys.push(key.clone());
        }
        Ok(keys)
    }

    fn entries(&self) -> io::Result<Entries> {
        let mut entries = Entries::new();
        for key in self.keys()? {
            let mut value = vec![0; self.value_bytes()];
            match sys::lookup_bytes(&self.fd, &key, &mut value) {
                Ok(()) => drop(entries.insert(key, value)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(entries)
    }

    /// Removes all entries; those of an array become zeros.
    fn clear(&self) -> io::Result<()> {
        let zeros = vec![0; self.value_bytes()];
        for key in self.keys()? {
            if self.layout.is_array() {
                sys::set(&self.fd, &key, &zeros)?;
            } else {
                match sys::remove(&self.fd, &key) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                    _ => {}
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use aya_obj::generated::bpf_map_type;

    use super::*;

    fn map(kind: bpf_map_type, processors: usize) -> Map {
        let layout = Layout {
            kind: kind as u32,
            key_size: 4,
            value_size: 12,
            entries_max: 1,
        };
        Map {
            id: 1,
            fd: std::fs::File::open("/dev/null").unwrap().into(),
            layout,
            processors,
        }
    }

    #[test]
    fn what_is_moved_is_bounded_with_all_processors_values() {
        let too_large = |kind, processors, [entries_max, value_size]: [u32; 2]| {
            let mut map = map(kind, processors);
            map.layout.entries_max = entries_max;
            map.layout.value_size = value_size;
            map.is_too_large()
        };
        let (of_all, of_each) = (
            bpf_map_type::BPF_MAP_TYPE_HASH,
            bpf_map_type::BPF_MAP_TYPE_PERCPU_HASH,
        );
        assert_eq!(too_large(of_all, 128, [65_536, 8]), None);
        assert_eq!(too_large(of_each, 128, [512, 8]), None);
        let why = |answer: Option<String>| answer.expect("it is too large");
        assert!(why(too_large(of_all, 1, [65_537, 8])).contains("at most 65536 entries"));
        assert_eq!(
            why(too_large(of_each, 128, [513, 8])),
            "with 128 processors that is 65664 values, and at most 65536 are moved"
        );
        assert_eq!(
            why(too_large(of_all, 1, [65_536, 1_024])),
            "that is 67371008 bytes in all, and at most 33554432 are moved"
        );
    }

    #[test]
    fn a_buffer_has_room_for_all_that_the_kernel_copies() {
        let bytes = |kind, processors| map(kind, processors).value_bytes();
        assert_eq!(bytes(bpf_map_type::BPF_MAP_TYPE_HASH, 4), 12);
        for kind in [
            bpf_map_type::BPF_MAP_TYPE_PERCPU_ARRAY,
            bpf_map_type::BPF_MAP_TYPE_PERCPU_HASH,
            bpf_map_type::BPF_MAP_TYPE_LRU_PERCPU_HASH,
        ] {
            assert_eq!(
                bytes(kind, 1),
                16,
                "a single processor's value is rounded up, too"
            );
            assert_eq!(bytes(kind, 4), 64);
        }
    }
}
