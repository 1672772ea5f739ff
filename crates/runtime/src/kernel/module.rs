//! A module on a node: its files, its place in the kernel, and who is to be there.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::mem;
use std::ops::{Deref, DerefMut};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};

use tokio::sync::Mutex as AsyncMutex;

use super::blame::RECORD;
use super::instance::Loaded;
use super::record::Record;
use super::swap::Place;
use super::sysfs::Sysfs;
use super::system::System;
use super::watchdog::Watchdog;

const FILE_EXTENSION: &str = "ko";

/// What all modules of a node share.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) system: Arc<dyn System>,
    pub(super) boot: String,
    /// The kernel's release.
    pub(super) release: String,
    pub(super) watchdog: Arc<Watchdog>,
    /// Whose turn it is to load: one at a time, so that it is known who was if the node goes down.
    pub(super) turn: Arc<AsyncMutex<()>>,
    /// The numbers of the loads that are watched.
    pub(super) watched: Arc<Mutex<BTreeSet<u64>>>,
    /// Whether the kernel's files that are root's may be written to.
    pub(super) has_roots_files: bool,
}

/// A module's files on the node, and its place in the kernel, shared by all its versions.
#[derive(Debug)]
pub(super) struct Module {
    pub(super) dir: PathBuf,
    pub(super) node: Node,
    newest: Arc<AtomicU64>,
    /// Whether the record is another process's by now.
    is_released: AtomicBool,
    desk: Mutex<Desk>,
    is_free: Condvar,
    /// Who is to be in the place, also while somebody else is being put there.
    wanted: Mutex<Weak<Loaded>>,
}

/// Where what is known of a module lies while nobody works on it. A thread that the kernel kills amid its work never gives
/// it back, and no lock of the standard library's could be told of that.
#[derive(Debug)]
struct Desk {
    users: Option<Users>,
    /// Why whoever works on it won't come back.
    stuck: Option<String>,
}

/// What is known of a module in this process.
#[derive(Debug, Default)]
pub(super) struct Users {
    pub(super) record: Record,
    /// Who put or found what is in the place.
    pub(super) active: Option<Arc<Loaded>>,
    /// How often each version is loaded, by its release.
    pub(super) loaded: BTreeMap<String, usize>,
    /// Whether the watchdog was told of an attempt.
    pub(super) is_guarded: bool,
    /// The number of the load that is watched.
    watched: Option<u64>,
    /// How often the module was released to another process and came back.
    pub(super) turn: u32,
    /// A release that was dismissed while somebody was on the way to its place.
    pub(super) dismissed: Option<String>,
}

/// What is known of a module, for one alone.
#[derive(Debug)]
pub(super) struct Held<'a> {
    module: &'a Module,
    users: Users,
}

impl Deref for Held<'_> {
    type Target = Users;

    fn deref(&self) -> &Users {
        &self.users
    }
}

impl DerefMut for Held<'_> {
    fn deref_mut(&mut self) -> &mut Users {
        &mut self.users
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        *self.module.desk() = Desk {
            users: Some(mem::take(&mut self.users)),
            stuck: None,
        };
        self.module.is_free.notify_all();
    }
}

impl Module {
    pub(super) fn new(dir: PathBuf, node: Node, newest: Arc<AtomicU64>, record: Record) -> Self {
        let users = Users {
            record,
            ..Users::default()
        };
        Self {
            dir,
            node,
            newest,
            is_released: AtomicBool::new(false),
            desk: Mutex::new(Desk {
                users: Some(users),
                stuck: None,
            }),
            is_free: Condvar::new(),
            wanted: Mutex::default(),
        }
    }

    fn desk(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until nobody else works on the module.
    ///
    /// # Errors
    /// Somebody does who won't come back, for this reason.
    pub(super) fn lock(&self) -> Result<Held<'_>, String> {
        let mut desk = self.desk();
        loop {
            if let Some(users) = desk.users.take() {
                return Ok(Held { module: self, users });
            }
            if let Some(stuck) = &desk.stuck {
                return Err(stuck.clone());
            }
            desk = self.is_free.wait(desk).unwrap_or_else(PoisonError::into_inner);
        }
    }

    pub(super) fn try_lock(&self) -> Option<Held<'_>> {
        let users = self.desk().users.take()?;
        Some(Held { module: self, users })
    }

    /// Whoever works on the module now won't come back.
    pub(super) fn is_stuck(&self, why: &str) {
        self.desk().stuck = Some(why.to_owned());
        self.is_free.notify_all();
    }

    /// Another process has the module from here on. What it finds is written down, if nobody is amid a load; in any case
    /// nothing is any more by this process.
    pub(super) fn release(&self) {
        let Ok(mut users) = self.lock() else {
            self.leave_to_others();
            return;
        };
        if users.record.is_watching() {
            // The next agent goes on with it.
            users.record.end();
            if let Err(problem) = self.at(&mut users.record, |place| place.write()) {
                tracing::warn!(module = self.name(), problem, "the end of a load can't be noted");
            }
        }
        self.note_watched(&mut users);
        self.leave_to_others();
    }

    /// Nothing is written by this process any more, whoever is amid a load.
    pub(super) fn leave_to_others(&self) {
        self.is_released.store(true, Ordering::SeqCst);
    }

    /// Whether another process has the module.
    pub(super) fn has_been_released(&self) -> bool {
        self.is_released.load(Ordering::SeqCst)
    }

    /// The module is this process's again, as whoever had it meanwhile has left it.
    ///
    /// # Errors
    /// The record can't be read.
    pub(super) fn reclaim(&self, users: &mut Users) -> io::Result<()> {
        if self.is_released.load(Ordering::SeqCst) {
            *users = Users {
                record: Record::read(&self.dir.join(RECORD), &self.node.boot)?,
                turn: users.turn + 1,
                ..Users::default()
            };
            *self.wanted() = Weak::new();
            self.is_released.store(false, Ordering::SeqCst);
        }
        Ok(())
    }

    fn wanted(&self) -> MutexGuard<'_, Weak<Loaded>> {
        self.wanted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An instance is to be in the place from now on, and no other one.
    pub(super) fn want(&self, loaded: &Arc<Loaded>) {
        *self.wanted() = Arc::downgrade(loaded);
    }

    /// An instance ends.
    pub(super) fn want_no_more(&self, loaded: &Loaded) {
        let mut wanted = self.wanted();
        if std::ptr::eq(wanted.as_ptr(), loaded) {
            *wanted = Weak::new();
        }
    }

    /// Whether it is this instance that is to be in the place.
    pub(super) fn wants(&self, loaded: &Loaded) -> bool {
        std::ptr::eq(self.wanted().as_ptr(), loaded)
    }

    /// Whether who is to be in the place is on the way there.
    pub(super) fn is_awaiting(&self) -> bool {
        let wanted = self.wanted().upgrade();
        wanted.is_some_and(|wanted| wanted.is_on_its_way())
    }

    /// Works on the module's place.
    pub(super) fn at<T>(&self, record: &mut Record, work: impl FnOnce(&mut Place<'_>) -> T) -> T {
        work(&mut Place {
            system: &*self.node.system,
            record,
            path: &self.dir.join(RECORD),
            boot: &self.node.boot,
            release: &self.node.release,
            is_released: &self.is_released,
            next_number: &|| self.newest.fetch_add(1, Ordering::Relaxed) + 1,
        })
    }

    pub(super) fn sysfs(&self) -> Sysfs<'_> {
        Sysfs(&*self.node.system)
    }

    /// The module's name on the node.
    pub(super) fn name(&self) -> &str {
        self.dir
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default()
    }

    fn watched(&self) -> MutexGuard<'_, BTreeSet<u64>> {
        self.node.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The number of the newest load on the node that is watched.
    pub(super) fn newest_watched(&self) -> Option<u64> {
        self.watched().last().copied()
    }

    /// Tells the node which of the module's loads is watched by now, and the watchdog when none is any more.
    pub(super) fn note_watched(&self, users: &mut Users) {
        let number = users.record.number();
        let before = mem::replace(&mut users.watched, number);
        {
            let mut watched = self.watched();
            if let Some(before) = before {
                watched.remove(&before);
            }
            watched.extend(number);
        }
        if number.is_none() && mem::take(&mut users.is_guarded) {
            self.node.watchdog.end();
        }
    }

    pub(super) fn file(&self, release: &str) -> PathBuf {
        self.dir.join(format!("{release}.{FILE_EXTENSION}"))
    }

    /// Removes files of versions that nobody uses any more.
    pub(super) fn sweep(&self, users: &Users) {
        let active = users.record.active.as_ref().map(|active| active.release.as_str());
        for entry in fs::read_dir(&self.dir).into_iter().flatten().flatten() {
            let path = entry.path();
            let release = path.file_stem().map(|stem| stem.to_string_lossy().into_owned());
            let is_file = path
                .extension()
                .is_some_and(|extension| extension == FILE_EXTENSION);
            let Some(release) = release.filter(|_| is_file) else {
                continue;
            };
            if active != Some(&release)
                && !users.loaded.contains_key(&release)
                && let Err(error) = fs::remove_file(&path)
            {
                tracing::warn!(%error, path = %path.display(), "a version's file could not be removed");
            }
        }
    }
}
