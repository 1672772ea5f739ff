//! Control groups of version 2: a group for each process, where one was given to this program for its own.

use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hotswap_package::Manifest;

/// Where this process moves, so that its group may be shared out: groups with processes have no shares.
const OWN_LEAF: &str = "hotswap-agent";
/// What is wanted of the system: a limit on memory and one on processes.
const CONTROLLERS: [&str; 2] = ["memory", "pids"];

/// The group that was given to this program.
#[derive(Debug)]
pub(super) struct Cgroup {
    base: PathBuf,
    /// Whether groups in it limit memory.
    memory: bool,
    /// Whether they limit how many processes there are.
    pids: bool,
}

/// One process's group. It is emptied and removed when this is dropped.
#[derive(Debug)]
pub(super) struct Group {
    path: PathBuf,
    limits_memory: bool,
}

impl Cgroup {
    /// Takes a group as given, or finds out whether the one that this process is in is its own to share out.
    ///
    /// # Errors
    /// The given one can't be used.
    pub(super) fn open(given: Option<&Path>) -> io::Result<Option<Self>> {
        let Some(base) = given.map(Path::to_owned).or_else(delegated) else {
            return Ok(None);
        };
        let available = fs::read_to_string(base.join("cgroup.controllers"))?;
        let mut cgroup = Self {
            base,
            memory: false,
            pids: false,
        };
        let wanted = CONTROLLERS.map(|name| available.split_ascii_whitespace().any(|there| there == name));
        if wanted.contains(&true) {
            cgroup.make_room();
        }
        for (name, is_there) in CONTROLLERS.into_iter().zip(wanted) {
            if !is_there {
                continue;
            }
            let enabled = fs::write(cgroup.base.join("cgroup.subtree_control"), format!("+{name}"));
            match (enabled, name) {
                (Ok(()), "memory") => cgroup.memory = true,
                (Ok(()), _) => cgroup.pids = true,
                (Err(error), _) => {
                    tracing::warn!(group = %cgroup.base.display(), controller = name, %error, "a controller can't be used: the system's own limits hold instead");
                }
            }
        }
        Ok(Some(cgroup))
    }

    /// Leaves the group itself, if nobody else is in it.
    fn make_room(&self) {
        let me = std::process::id().to_string();
        let procs = fs::read_to_string(self.base.join("cgroup.procs")).unwrap_or_default();
        if procs.split_ascii_whitespace().eq([me.as_str()]) {
            let leaf = self.base.join(OWN_LEAF);
            let moved = fs::create_dir(&leaf)
                .or_else(|error| match error.kind() {
                    io::ErrorKind::AlreadyExists => Ok(()),
                    _ => Err(error),
                })
                .and_then(|()| fs::write(leaf.join("cgroup.procs"), me));
            if let Err(error) = moved {
                tracing::warn!(group = %self.base.display(), %error, "this process can't leave its control group");
            }
        }
    }

    /// Whether memory is limited by groups.
    pub(super) fn limits_memory(&self) -> bool {
        self.memory
    }

    /// A group for one process, with the manifest's limits.
    pub(super) fn group(&self, name: &str, manifest: &Manifest) -> io::Result<Group> {
        let path = self.base.join(name);
        fs::create_dir(&path)?;
        let group = Group {
            path,
            limits_memory: self.memory,
        };
        if self.memory {
            group.set("memory.max", manifest.limits.memory.0)?;
            // Where there is no swap there is no such file.
            let _ = group.set("memory.swap.max", 0);
        }
        if let (true, Some(process)) = (self.pids, &manifest.process) {
            group.set("pids.max", process.tasks.into())?;
        }
        Ok(group)
    }

    /// Ends what an earlier program left in groups whose names begin so.
    pub(super) fn sweep(&self, prefix: &str) {
        for entry in fs::read_dir(&self.base).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().starts_with(prefix) {
                drop(Group {
                    path: entry.path(),
                    limits_memory: false,
                });
            }
        }
    }
}

impl Group {
    /// The file by which a process enters.
    pub(super) fn entrance(&self) -> io::Result<OwnedFd> {
        let file = File::options().write(true).open(self.path.join("cgroup.procs"))?;
        Ok(file.into())
    }

    /// Processor time of all that ever was in it.
    pub(super) fn cpu(&self) -> Option<Duration> {
        let stat = fs::read_to_string(self.path.join("cpu.stat")).ok()?;
        number_after(&stat, "usage_usec").map(Duration::from_micros)
    }

    /// Whether the system ended something in it for want of memory.
    pub(super) fn ran_out_of_memory(&self) -> bool {
        self.limits_memory
            && fs::read_to_string(self.path.join("memory.events"))
                .is_ok_and(|events| number_after(&events, "oom_kill").is_some_and(|count| count > 0))
    }

    /// Ends everything in it.
    pub(super) fn kill(&self) {
        // Systems before 5.14 have no such file; the process group is killed anyway.
        let _ = fs::write(self.path.join("cgroup.kill"), "1");
    }

    fn set(&self, file: &str, value: u64) -> io::Result<()> {
        fs::write(self.path.join(file), value.to_string())
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.kill();
        // A process that is still ending keeps it; the next host's sweep takes it.
        let _ = fs::remove_dir(&self.path);
    }
}

/// The group that this process is in, if it may share it out.
fn delegated() -> Option<PathBuf> {
    let own = fs::read_to_string("/proc/self/cgroup").ok()?;
    let path = own.lines().find_map(|line| line.strip_prefix("0::/"))?;
    // The root is the machine's, unless it is given by name.
    if path.is_empty() {
        return None;
    }
    let mounts = fs::read_to_string("/proc/self/mounts").ok()?;
    let mount = mounts.lines().find_map(|line| {
        let mut fields = line.split(' ');
        let place = fields.nth(1)?;
        (fields.next()? == "cgroup2").then(|| place.to_owned())
    })?;
    let base = Path::new(&mount).join(path);
    let may = |file: &str| File::options().write(true).open(base.join(file)).is_ok();
    (may("cgroup.procs") && may("cgroup.subtree_control")).then_some(base)
}

fn number_after(text: &str, name: &str) -> Option<u64> {
    let mut lines = text.lines().filter_map(|line| line.split_once(' '));
    lines.find(|(key, _)| *key == name)?.1.trim().parse().ok()
}
