//! The embedded store: SQLite with a write-ahead log, one writer thread and a pool of readers.

use std::fs::{self, File, TryLockError};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;

use async_trait::async_trait;
use hotswap_core::event::Logged;
use hotswap_core::ids::DeploymentId;
use hotswap_core::stage::Deployment;
use hotswap_core::state::State;
use hotswap_core::time::WallTime;
use parking_lot::Mutex;
use rusqlite::Connection;
use tokio::sync::{Semaphore, mpsc, oneshot};

use super::access::{self, AccessChange, AccessRecords, SignedHead};
use super::writer::{self, Job, Snapshot};
use super::{
    AccessStore, Batch, DeploymentQuery, DeploymentRow, EnrolmentStore, Entry, FeedEntry, FeedQuery,
    FirstAnswer, Leadership, Store, StoreError, audit, enrolment, reader, schema,
};
use crate::audit::{AuditEntry, AuditQuery, AuditRow, Head, Report};
use crate::enrolment::{EnrolmentChange, EnrolmentRecords};

/// The database's file in the data directory.
pub const DATABASE_FILE: &str = "hotswap.db";
/// Locked while a server has the data directory open.
pub(crate) const LOCK_FILE: &str = "lock";
/// Reads at once; more wait. SQLite reads are short and mostly from the page cache.
const READERS_MAX: usize = 8;

/// The embedded store. Clones share it; the data directory is free again once all are gone.
#[derive(Clone)]
pub struct SqliteStore {
    jobs: mpsc::Sender<Job>,
    readers: Arc<Readers>,
    _lock: Arc<File>,
}

struct Readers {
    path: PathBuf,
    permits: Semaphore,
    idle: Mutex<Vec<Connection>>,
}

impl SqliteStore {
    /// Opens the store of a data directory, makes it where there is none, and brings its schema up to date.
    ///
    /// # Errors
    /// A directory that can't be written, is in use, or is of another version; each says what to do.
    pub fn open(data_dir: &Path) -> Result<Self, StoreError> {
        let not_writable = |source| StoreError::NotWritable {
            path: data_dir.to_owned(),
            source,
        };
        fs::create_dir_all(data_dir).map_err(not_writable)?;
        let lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(data_dir.join(LOCK_FILE))
            .map_err(not_writable)?;
        lock.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => StoreError::InUse(data_dir.to_owned()),
            TryLockError::Error(source) => not_writable(source),
        })?;
        let path = data_dir.join(DATABASE_FILE);
        keep_private(&path).map_err(not_writable)?;
        let connection = schema::open_writer(&path).map_err(|error| unwritable(data_dir, error))?;
        let (jobs, queue) = mpsc::channel(writer::QUEUE_MAX);
        thread::Builder::new()
            .name("store-writer".to_owned())
            .spawn(move || writer::run(connection, queue))
            .map_err(not_writable)?;
        let readers = Readers {
            path,
            permits: Semaphore::new(READERS_MAX),
            idle: Mutex::default(),
        };
        Ok(Self {
            jobs,
            readers: Arc::new(readers),
            _lock: Arc::new(lock),
        })
    }

    async fn write<T>(
        &self,
        job: impl FnOnce(oneshot::Sender<Result<T, StoreError>>) -> Job,
    ) -> Result<T, StoreError> {
        let (reply, answer) = oneshot::channel();
        self.jobs.send(job(reply)).await.map_err(|_| StoreError::Closed)?;
        answer.await.map_err(|_| StoreError::Closed)?
    }

    async fn read<T: Send + 'static>(
        &self,
        query: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let readers = Arc::clone(&self.readers);
        let _permit = self
            .readers
            .permits
            .acquire()
            .await
            .map_err(|_| StoreError::Closed)?;
        let work = move || {
            let idle = readers.idle.lock().pop();
            let connection = idle.map_or_else(|| schema::open_reader(&readers.path), Ok)?;
            let found = query(&connection)?;
            readers.idle.lock().push(connection);
            Ok(found)
        };
        tokio::task::spawn_blocking(work)
            .await
            .map_err(|_| StoreError::Closed)?
    }
}

/// Signing keys and digests of tokens are in it: nobody but its owner reads it. What SQLite makes beside it has its
/// permissions.
fn keep_private(path: &Path) -> std::io::Result<()> {
    let private = fs::Permissions::from_mode(0o600);
    File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(path)?
        .set_permissions(private)
}

/// What SQLite says of a directory or a file without permission, in words that say what to do.
fn unwritable(data_dir: &Path, error: StoreError) -> StoreError {
    use rusqlite::ErrorCode as Code;
    let StoreError::Database(cause) = error else {
        return error;
    };
    match cause.sqlite_error_code() {
        Some(Code::CannotOpen | Code::ReadOnly | Code::PermissionDenied) => StoreError::NotWritable {
            path: data_dir.to_owned(),
            source: std::io::Error::other(cause),
        },
        _ => StoreError::Database(cause),
    }
}

#[async_trait]
impl Store for SqliteStore {
    async fn lead(&self) -> Result<Leadership, StoreError> {
        self.write(Job::Lead).await
    }

    async fn snapshot(&self) -> Result<Option<State>, StoreError> {
        self.read(reader::snapshot).await
    }

    async fn events_after(&self, seq: u64) -> Result<Vec<Logged>, StoreError> {
        self.read(move |connection| reader::events_after(connection, seq))
            .await
    }

    async fn entries_after(&self, seq: u64) -> Result<Vec<Entry>, StoreError> {
        self.read(move |connection| reader::entries_after(connection, seq))
            .await
    }

    async fn commit(&self, batch: Batch) -> Result<(), StoreError> {
        self.write(|reply| Job::Commit(Box::new(batch), reply)).await
    }

    async fn keep_snapshot(&self, state: State) -> Result<(), StoreError> {
        let encode = move || {
            let text = writer::encode("a snapshot", &state)?;
            Ok::<_, StoreError>(Snapshot {
                seq: state.seq,
                wall: state.wall,
                text,
            })
        };
        let snapshot = tokio::task::spawn_blocking(encode)
            .await
            .map_err(|_| StoreError::Closed)??;
        self.write(|reply| Job::Snapshot(snapshot, reply)).await
    }

    async fn forget_events(&self, before: WallTime) -> Result<usize, StoreError> {
        self.write(|reply| Job::ForgetEvents(before, reply)).await
    }

    async fn deployment(&self, id: DeploymentId) -> Result<Option<Deployment>, StoreError> {
        self.read(move |connection| reader::deployment(connection, id))
            .await
    }

    async fn deployments(&self, query: DeploymentQuery) -> Result<Vec<DeploymentRow>, StoreError> {
        self.read(move |connection| reader::deployments(connection, &query))
            .await
    }

    async fn events_of(&self, id: DeploymentId, after: u64) -> Result<Vec<Logged>, StoreError> {
        self.read(move |connection| reader::events_of(connection, id, after))
            .await
    }

    async fn feed(&self, query: FeedQuery) -> Result<Vec<FeedEntry>, StoreError> {
        self.read(move |connection| reader::feed(connection, query)).await
    }

    async fn first_answer(&self, scope: String, key: String) -> Result<Option<FirstAnswer>, StoreError> {
        self.read(move |connection| reader::first_answer(connection, scope, key))
            .await
    }
}

#[async_trait]
impl AccessStore for SqliteStore {
    async fn load_access(&self) -> Result<AccessRecords, StoreError> {
        self.read(access::load).await
    }

    async fn change_access(
        &self,
        changes: Vec<AccessChange>,
        audit: Vec<AuditEntry>,
    ) -> Result<(), StoreError> {
        self.write(|reply| Job::Access(changes, audit, reply)).await
    }

    async fn audit_page(&self, query: AuditQuery) -> Result<Vec<AuditRow>, StoreError> {
        self.read(move |connection| audit::page(connection, &query)).await
    }

    async fn audit_head(&self) -> Result<Head, StoreError> {
        self.read(audit::head).await
    }

    async fn keep_audit_head(&self, head: SignedHead) -> Result<(), StoreError> {
        self.write(|reply| Job::Head(Box::new(head), reply)).await
    }

    async fn verify_audit(&self) -> Result<Report, StoreError> {
        let path = self.readers.path.clone();
        let verify = move || crate::audit::verify_file(&path).map_err(StoreError::from);
        tokio::task::spawn_blocking(verify)
            .await
            .map_err(|_| StoreError::Closed)?
    }
}

#[async_trait]
impl EnrolmentStore for SqliteStore {
    async fn load_enrolment(&self) -> Result<EnrolmentRecords, StoreError> {
        self.read(enrolment::load).await
    }

    async fn change_enrolment(
        &self,
        changes: Vec<EnrolmentChange>,
        audit: Vec<AuditEntry>,
    ) -> Result<(), StoreError> {
        self.write(|reply| Job::Enrolment(changes, audit, reply)).await
    }
}
