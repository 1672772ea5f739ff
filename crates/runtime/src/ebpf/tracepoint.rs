//! Which tracepoints this node's kernel has.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use aya::Btf;
use aya_obj::btf::BtfKind;

/// Where the kernel tells its tracepoints, where that is mounted.
const EVENTS: [&str; 2] = ["/sys/kernel/tracing/events", "/sys/kernel/debug/tracing/events"];

/// Whether the kernel tells its tracepoints.
pub fn has_tracefs() -> bool {
    events().is_some()
}

fn events() -> Option<&'static Path> {
    EVENTS.into_iter().map(Path::new).find(|events| events.is_dir())
}

/// Whether the kernel has one, by `CATEGORY:NAME` or by its name alone.
pub(super) fn exists(text: &str) -> Result<(), String> {
    let missing = || format!("this node's kernel has no tracepoint {text}");
    if text.contains(':') {
        return id(text).map(drop).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => missing(),
            _ => format!("the tracepoint {text} can't be looked up: {error}"),
        });
    }
    if is_event(text) {
        return Ok(());
    }
    // Those that have no event are known by their type only.
    match Btf::from_sys_fs() {
        Ok(kernel) => kernel
            .id_by_type_name_kind(&format!("btf_trace_{text}"), BtfKind::Typedef)
            .map(drop)
            .map_err(|_| missing()),
        // Then attaching says it.
        Err(_) => Ok(()),
    }
}

/// Whether there is an event of that name in any category.
fn is_event(name: &str) -> bool {
    let categories = events().and_then(|events| fs::read_dir(events).ok());
    let mut categories = categories.into_iter().flatten().flatten();
    categories.any(|category| category.path().join(name).is_dir())
}

/// The kernel's number of a tracepoint.
pub(super) fn id(text: &str) -> io::Result<u64> {
    let (category, name) = text.split_once(':').unwrap_or_default();
    let events: PathBuf = events()
        .ok_or_else(|| {
            io::Error::other("tracefs is not mounted; mount -t tracefs tracefs /sys/kernel/tracing")
        })?
        .to_owned();
    let id = fs::read_to_string(events.join(category).join(name).join("id"))?;
    id.trim().parse().map_err(io::Error::other)
}
