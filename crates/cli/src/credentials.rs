//! What this user's commands remember: contexts (names for servers) and logins, in a file of the user's alone.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize, Serializer};

use crate::problem::Problem;

/// Says where the folder is, for who doesn't want it in the home folder.
const FOLDER_VARIABLE: &str = "HOTSWAP_CONFIG_DIR";
/// The file in it.
const FILE: &str = "credentials.json";
/// Locked while somebody changes the file.
const LOCK: &str = "credentials.lock";

/// A login at a server.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Login {
    pub(crate) username: String,
    pub(crate) email: String,
    #[serde(serialize_with = "exposed")]
    pub(crate) token: SecretString,
    pub(crate) expires_at: String,
    #[serde(serialize_with = "exposed")]
    pub(crate) refresh_token: SecretString,
}

fn exposed<S: Serializer>(secret: &SecretString, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(secret.expose_secret())
}

/// A name for a server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Context {
    pub(crate) server: String,
}

/// All that is remembered.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Credentials {
    /// The context that commands use unless they are told otherwise.
    #[serde(default)]
    pub(crate) current: Option<String>,
    /// By name.
    #[serde(default)]
    pub(crate) contexts: BTreeMap<String, Context>,
    /// Whom to trust to be a server, in PEM, by its address.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) authorities: BTreeMap<String, String>,
    /// By the server's address.
    #[serde(default)]
    pub(crate) logins: BTreeMap<String, Login>,
}

impl Credentials {
    /// Remembers whom the user said to trust at this server, if anybody.
    pub(crate) fn trust(&mut self, server: &str, said: Option<Option<&str>>) {
        match said {
            Some(Some(text)) => drop(self.authorities.insert(server.to_owned(), text.to_owned())),
            Some(None) => drop(self.authorities.remove(server)),
            None => {}
        }
    }

    /// The server of the current context, if there is one.
    pub(crate) fn current_server(&self) -> Option<&str> {
        let context = self.contexts.get(self.current.as_ref()?)?;
        Some(&context.server)
    }
}

/// The file.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    folder: PathBuf,
}

impl Store {
    /// This user's; `None` where there is no home to keep it in.
    pub(crate) fn of_this_user() -> Option<Self> {
        let variable = |name: &str| {
            std::env::var_os(name)
                .filter(|value| !value.is_empty())
                .map(PathBuf::from)
        };
        let folder = variable(FOLDER_VARIABLE)
            .or_else(|| Some(variable("XDG_CONFIG_HOME")?.join("hotswap")))
            .or_else(|| Some(variable("HOME")?.join(".config/hotswap")))?;
        Some(Self { folder })
    }

    /// This user's, or what to do without one.
    ///
    /// # Errors
    /// There is no home folder.
    pub(crate) fn needed() -> anyhow::Result<Self> {
        let problem = || {
            Problem::usage("there is no home folder to remember a login in").next(format!(
                "say where with {FOLDER_VARIABLE}, or give a token with HOTSWAP_TOKEN"
            ))
        };
        Ok(Self::of_this_user().ok_or_else(problem)?)
    }

    fn file(&self) -> PathBuf {
        self.folder.join(FILE)
    }

    /// What is remembered; nothing where there is no file.
    ///
    /// # Errors
    /// The file can't be read, or others may read it, too.
    pub(crate) fn read(&self) -> anyhow::Result<Credentials> {
        let path = self.file();
        let shown = path.display();
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Credentials::default()),
            Err(error) => return Err(error).with_context(|| format!("failed to read {shown}")),
        };
        let mode = fs::metadata(&path)?.permissions().mode();
        if mode & 0o077 != 0 {
            return Err(
                Problem::usage(format!("{shown} holds tokens, and others may read it"))
                    .next(format!("chmod 600 {shown}"))
                    .into(),
            );
        }
        serde_json::from_str(&text).map_err(|error| {
            Problem::usage(format!("{shown} can't be understood: {error}"))
                .next(format!("remove it and log in anew: rm {shown}"))
                .into()
        })
    }

    /// Changes what is remembered; commands that run at once take turns.
    ///
    /// # Errors
    /// The folder can't be written.
    pub(crate) fn change<T>(&self, change: impl FnOnce(&mut Credentials) -> T) -> anyhow::Result<T> {
        let _turn = self.lock()?;
        self.change_locked(change)
    }

    fn change_locked<T>(&self, change: impl FnOnce(&mut Credentials) -> T) -> anyhow::Result<T> {
        let mut credentials = self.read()?;
        let changed = change(&mut credentials);
        self.write(&credentials)?;
        Ok(changed)
    }

    /// Waits for the turn; it ends when the file is dropped.
    ///
    /// # Errors
    /// The folder can't be written.
    pub(crate) fn lock(&self) -> anyhow::Result<File> {
        let shown = self.folder.display();
        let failed = || format!("failed to write in {shown}");
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.folder)
            .with_context(failed)?;
        let lock = private(&self.folder.join(LOCK), false).with_context(failed)?;
        lock.lock().with_context(failed)?;
        Ok(lock)
    }

    fn write(&self, credentials: &Credentials) -> anyhow::Result<()> {
        let path = self.file();
        let failed = || format!("failed to write {}", path.display());
        let text = serde_json::to_vec_pretty(credentials)?;
        // Beside it, then in its place: a reader sees the one or the other.
        let beside = self.folder.join(format!("{FILE}.{}", std::process::id()));
        let mut file = private(&beside, true).with_context(failed)?;
        file.write_all(&text).with_context(failed)?;
        file.sync_all().with_context(failed)?;
        fs::rename(&beside, &path).with_context(failed)
    }
}

/// A file that nobody else may read.
fn private(path: &Path, empty: bool) -> io::Result<File> {
    OpenOptions::new()
        .create(true)
        .write(true)
        .truncate(empty)
        .mode(0o600)
        .open(path)
}

/// Keeps a login up to date.
#[derive(Debug)]
pub(crate) struct Keeper {
    pub(crate) store: Store,
    /// The server that it is a login at.
    pub(crate) server: String,
}

impl Keeper {
    /// Takes the turn to renew it: two commands that use up one refresh token would end the session.
    ///
    /// # Errors
    /// The folder can't be written.
    pub(crate) fn turn(&self) -> anyhow::Result<File> {
        self.store.lock()
    }

    /// The login as another command may have left it.
    pub(crate) fn look(&self) -> Option<Login> {
        self.store.read().ok()?.logins.remove(&self.server)
    }

    /// Remembers the next one. The turn must be taken.
    ///
    /// # Errors
    /// The file can't be written.
    pub(crate) fn keep(&self, login: &Login) -> anyhow::Result<()> {
        self.store
            .change_locked(|credentials| credentials.logins.insert(self.server.clone(), login.clone()))?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store() -> (Store, tempfile::TempDir) {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("config");
        (Store { folder }, dir)
    }

    fn login() -> Login {
        Login {
            username: "ada".to_owned(),
            email: "ada@example.com".to_owned(),
            token: "secret token".into(),
            expires_at: "2026-01-01T00:00:00Z".to_owned(),
            refresh_token: "secret refresh".into(),
        }
    }

    #[test]
    fn what_is_kept_is_this_users_alone() {
        let (store, _dir) = store();
        assert!(store.read().unwrap().logins.is_empty(), "nothing yet");
        store
            .change(|credentials| credentials.logins.insert("http://a".to_owned(), login()))
            .unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&store.file()), mode(&store.folder)), (0o600, 0o700));
        let kept = store.read().unwrap().logins.remove("http://a").unwrap();
        assert_eq!(kept.token.expose_secret(), "secret token");
        assert!(!format!("{kept:?}").contains("secret token"));
        fs::set_permissions(store.file(), fs::Permissions::from_mode(0o644)).unwrap();
        assert!(store.read().unwrap_err().to_string().contains("others may read"));
    }

    #[test]
    fn the_current_context_names_the_server() {
        let mut credentials = Credentials::default();
        assert_eq!(credentials.current_server(), None);
        let server = "http://10.0.0.1:5000".to_owned();
        credentials.contexts.insert("eu".to_owned(), Context { server });
        credentials.current = Some("eu".to_owned());
        assert_eq!(credentials.current_server(), Some("http://10.0.0.1:5000"));
    }
}
