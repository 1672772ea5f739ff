//! The first start: who may log in where nobody could before.

use std::sync::Arc;

use hotswap_core::time::WallTime;
use parking_lot::RwLock;
use secrecy::SecretString;
use tokio::sync::{Mutex, mpsc};
use uuid::Uuid;

use super::jwt::{Keys, SigningKey};
use super::model::User;
use super::password::{self, Passwords};
use super::people::People;
use super::secret::one_time_password;
use super::{Access, AccessConfig, AccessError, Role, channel};
use crate::audit::{AuditEntry, AuditKind};
use crate::clock::wall_now;
use crate::store::{AccessChange, AccessRecords, AccessStore};

/// The first admin's name.
const ADMIN: &str = "admin";

/// An account of the demo. No other mode has them.
#[derive(Clone, Copy, Debug)]
pub struct DemoAccount {
    /// The name that it logs in by.
    pub username: &'static str,
    /// Its password, which everybody knows.
    pub password: &'static str,
    /// The name that people call it.
    pub full_name: &'static str,
    /// What it may do.
    pub role: Role,
}

/// The demo's accounts.
pub const DEMO_ACCOUNTS: [DemoAccount; 3] = [
    DemoAccount {
        username: "admin",
        password: "Admin123!",
        full_name: "Demo Admin",
        role: Role::Admin,
    },
    DemoAccount {
        username: "deployer",
        password: "Deploy123!",
        full_name: "Demo Deployer",
        role: Role::Deployer,
    },
    DemoAccount {
        username: "viewer",
        password: "Viewer123!",
        full_name: "Demo Viewer",
        role: Role::Viewer,
    },
];

/// The admin that the first start made.
#[derive(Clone, Debug)]
pub struct FirstAdmin {
    /// Its name.
    pub username: String,
    /// Its one-time password, to be told once; `None` where it was given.
    pub password: Option<SecretString>,
}

impl Access {
    /// Everybody who is kept, or the first ones.
    ///
    /// # Errors
    /// The store failed, the given password is not good enough, or the data are not a demo's.
    pub async fn start(
        store: Arc<dyn AccessStore>,
        config: AccessConfig,
        issuer: String,
    ) -> Result<(Self, Option<FirstAdmin>, mpsc::Receiver<AuditEntry>), AccessError> {
        let records = store.load_access().await?;
        let now = wall_now();
        let passwords = Passwords::new()?;
        let (mut changes, mut audit) = (Vec::new(), Vec::new());
        let mut first = None;
        if config.demo {
            demo(&records.users, now, &mut changes, &mut audit)?;
        } else {
            leave_demo(&records, &mut changes, &mut audit, now);
            if !records.users.iter().any(|user| !user.demo) {
                first = Some(first_admin(
                    &records.users,
                    &config,
                    now,
                    &mut changes,
                    &mut audit,
                )?);
            }
        }
        if !records.keys.iter().any(|key| key.retired.is_none()) {
            let key = SigningKey::generate(now)?;
            audit.push(
                AuditEntry::done(now, AuditKind::Key, "makeKey").detail(format!("{} signs now", key.kid)),
            );
            changes.push(AccessChange::PutKey(key));
        }
        audit.push(AuditEntry::done(now, AuditKind::Server, "start").detail(env!("CARGO_PKG_VERSION")));
        let (notes, noted) = channel();
        let keys = Keys::new(issuer.clone(), records.keys.clone())?;
        let access = Self {
            config,
            store,
            passwords,
            issuer,
            keys: RwLock::new(keys),
            people: RwLock::new(People::new(records)),
            changing: Mutex::new(()),
            notes,
        };
        access.change(changes, audit).await?;
        Ok((access, first, noted))
    }
}

/// The demo's accounts, where they are not there yet.
fn demo(
    users: &[User],
    now: WallTime,
    changes: &mut Vec<AccessChange>,
    audit: &mut Vec<AuditEntry>,
) -> Result<(), AccessError> {
    if users.iter().any(|user| !user.demo) {
        return Err(AccessError::Conflict(
            "this folder is a server's with users of its own; the demo, whose passwords everybody knows, needs another"
                .to_owned(),
        ));
    }
    for account in DEMO_ACCOUNTS {
        if users.iter().any(|user| user.username == account.username) {
            continue;
        }
        let password = password::hash(&account.password.into())?;
        let mut user = new_user(account.username, account.full_name, account.role, password, now);
        user.demo = true;
        audit.push(
            AuditEntry::done(now, AuditKind::Account, "createUser")
                .detail(format!("{}, of the demo", user.username)),
        );
        changes.push(AccessChange::PutUser(Box::new(user)));
    }
    Ok(())
}

/// A demo's data under a server: whoever everybody knows the password of is out.
fn leave_demo(
    records: &AccessRecords,
    changes: &mut Vec<AccessChange>,
    audit: &mut Vec<AuditEntry>,
    now: WallTime,
) {
    for user in records.users.iter().filter(|user| user.demo && !user.disabled) {
        let sessions = records.sessions.iter().filter(|session| session.user == user.id);
        changes.extend(sessions.map(|session| AccessChange::EndSession(session.id)));
        let tokens = records.tokens.iter().filter(|token| token.user == user.id);
        changes.extend(tokens.map(|token| AccessChange::RevokeToken(token.id)));
        let mut user = user.clone();
        user.disabled = true;
        let said = format!("{}: disabled, since it is an account of the demo", user.username);
        audit.push(AuditEntry::done(now, AuditKind::Account, "changeUser").detail(said));
        changes.push(AccessChange::PutUser(Box::new(user)));
    }
}

fn first_admin(
    users: &[User],
    config: &AccessConfig,
    now: WallTime,
    changes: &mut Vec<AccessChange>,
    audit: &mut Vec<AuditEntry>,
) -> Result<FirstAdmin, AccessError> {
    let given = config.admin_password.clone();
    if let Some(given) = &given {
        password::check_new(given, ADMIN)
            .map_err(|fault| AccessError::Invalid(vec![format!("the first admin's password {fault}")]))?;
    }
    let made = given.is_none().then(one_time_password);
    let password = password::hash(given.as_ref().or(made.as_ref()).expect("given or made"))?;
    let mut user = new_user(ADMIN, "Administrator", Role::Admin, password, now);
    user.must_change = made.is_some();
    // The demo's admin becomes the first one: under a new password it is somebody else's.
    if let Some(former) = users.iter().find(|user| user.username == ADMIN) {
        user.id = former.id;
    }
    audit.push(
        AuditEntry::done(now, AuditKind::Account, "createUser").detail(format!("{ADMIN}, {}", user.role)),
    );
    changes.push(AccessChange::PutUser(Box::new(user)));
    Ok(FirstAdmin {
        username: ADMIN.to_owned(),
        password: made,
    })
}

fn new_user(
    username: &str,
    full_name: &str,
    role: Role,
    password: password::PasswordHash,
    now: WallTime,
) -> User {
    User {
        id: Uuid::new_v4(),
        username: username.to_owned(),
        email: format!("{username}@example.com"),
        full_name: full_name.to_owned(),
        role,
        password,
        must_change: false,
        disabled: false,
        demo: false,
        failures: 0,
        locked_until: None,
        created: now,
        password_changed: now,
        password_given: None,
    }
}
