//! Managing users, API tokens and signing keys.

use hotswap_core::time::{Millis, WallTime};
use secrecy::{ExposeSecret as _, SecretString};
use uuid::Uuid;

use super::jwt::{KEYS_MAX, SigningKey, forget_at};
use super::model::{ApiToken, User};
use super::secret::{TokenDigest, one_time_password, random_text};
use super::{API_TOKEN_PREFIX, Access, AccessError, Actor, Role, Scope, Source, entry, password};
use crate::audit::{AuditEntry, AuditKind};
use crate::clock::wall_now;
use crate::store::{AccessChange, FirstAnswer};

/// Most users, disabled ones included: all of them are in memory.
pub const USERS_MAX: usize = 10_000;
/// Most API tokens of one user.
pub const TOKENS_PER_USER_MAX: usize = 64;
/// Longest life of an API token, in days.
pub const TOKEN_DAYS_MAX: u32 = 366;
/// A day.
const DAY: Millis = Millis::from_secs(24 * 3_600);

/// A user to be made.
#[derive(Debug)]
pub struct NewUser {
    /// The name that it logs in by.
    pub username: String,
    /// An e-mail address.
    pub email: String,
    /// The name that people call it.
    pub full_name: String,
    /// What it may do.
    pub role: Role,
    /// Its first password; `None` makes one. Either has to be changed at the first login.
    pub password: Option<SecretString>,
}

/// What to change about a user.
#[derive(Clone, Debug, Default)]
pub struct UserChange {
    /// Another e-mail address.
    pub email: Option<String>,
    /// Another name.
    pub full_name: Option<String>,
    /// Another role.
    pub role: Option<Role>,
    /// Whether it may log in.
    pub disabled: Option<bool>,
    /// Whether a lock is lifted.
    pub unlock: bool,
}

/// An API token to be made.
#[derive(Clone, Debug)]
pub struct NewToken {
    /// What it is for.
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// What its commands may concern.
    pub scope: Scope,
    /// How long it lasts, in days.
    pub days: u32,
}

/// An API token that was made: the only time that it is told.
#[derive(Debug)]
pub struct IssuedToken {
    /// The token.
    pub token: SecretString,
    /// What is kept of it.
    pub record: ApiToken,
}

/// Makes the first answer, which is kept with what was made: a retry under the same key gets it.
pub type Once<T> = Box<dyn FnOnce(&T) -> FirstAnswer + Send>;

impl Access {
    /// All users, by username.
    pub fn users(&self) -> Vec<User> {
        self.people.read().users().cloned().collect()
    }

    /// A user.
    ///
    /// # Errors
    /// There is none of this name.
    pub fn user(&self, username: &str) -> Result<User, AccessError> {
        let shown: String = username.chars().take(100).collect();
        let people = self.people.read();
        let user = people.user(&username.to_lowercase()).cloned();
        user.ok_or_else(|| AccessError::NotFound(format!("there is no user {shown:?}")))
    }

    /// Makes a user; returns its first password where none was given.
    ///
    /// # Errors
    /// The name is taken, for good: the log names people by it.
    pub async fn create_user(
        &self,
        actor: &Actor,
        new: NewUser,
        from: &Source,
        once: Option<Once<User>>,
    ) -> Result<(User, Option<SecretString>), AccessError> {
        // Whom a token could make would outlive its revocation, and reach further.
        actor.person()?;
        let username = new.username.to_lowercase();
        if let Some(password) = &new.password {
            password::check_new(password, &username)
                .map_err(|fault| AccessError::Invalid(vec![format!("password: {fault}")]))?;
        }
        let made = new.password.is_none().then(one_time_password);
        let password = new.password.or_else(|| made.clone());
        let password = self.passwords.hash(password.expect("given or made")).await?;
        let _change = self.changing.lock().await;
        let now = wall_now();
        {
            let people = self.people.read();
            if people.user(&username).is_some() {
                return Err(AccessError::Conflict(format!(
                    "there is a user {username} already; a username is never given to another, so choose a new one"
                )));
            }
            if people.users().count() >= USERS_MAX {
                return Err(AccessError::Conflict(format!(
                    "there are {USERS_MAX} users, the most there may be"
                )));
            }
        }
        let user = User {
            id: Uuid::new_v4(),
            username,
            email: new.email,
            full_name: new.full_name,
            role: new.role,
            password,
            must_change: true,
            disabled: false,
            demo: false,
            failures: 0,
            locked_until: None,
            created: now,
            password_changed: now,
            password_given: Some(now),
        };
        let said = entry(now, AuditKind::Account, "createUser", Some(actor), from)
            .detail(format!("{}, {}", user.username, user.role));
        let mut changes = vec![AccessChange::PutUser(Box::new(user.clone()))];
        changes.extend(once.map(|once| AccessChange::PutAnswer(once(&user))));
        self.change(changes, vec![said]).await?;
        Ok((user, made))
    }

    /// Changes a user. Disabling ends its sessions and revokes its API tokens.
    ///
    /// # Errors
    /// Nobody could manage users afterwards.
    pub async fn change_user(
        &self,
        actor: &Actor,
        username: &str,
        change: UserChange,
        from: &Source,
    ) -> Result<User, AccessError> {
        actor.person()?;
        let _change = self.changing.lock().await;
        let mut user = self.user(username)?;
        let before = user.clone();
        let now = wall_now();
        user.role = change.role.unwrap_or(user.role);
        user.disabled = change.disabled.unwrap_or(user.disabled);
        if let Some(email) = change.email {
            user.email = email;
        }
        if let Some(full_name) = change.full_name {
            user.full_name = full_name;
        }
        if change.unlock {
            user.locked_until = None;
            user.failures = 0;
        }
        let rules = |user: &User| user.role == Role::Admin && !user.disabled;
        if rules(&before) && !rules(&user) {
            let people = self.people.read();
            if !people.users().any(|other| other.id != user.id && rules(other)) {
                return Err(AccessError::Conflict(format!(
                    "{username} is the only Admin that can log in; make another one first"
                )));
            }
        }
        let mut changes = Vec::new();
        if user.disabled && !before.disabled {
            changes = self.shut_out(&user);
        }
        changes.push(AccessChange::PutUser(Box::new(user.clone())));
        let mut said = Vec::new();
        if user.role != before.role {
            said.push(format!("role {} instead of {}", user.role, before.role));
        }
        if user.disabled != before.disabled {
            said.push(if user.disabled { "disabled" } else { "enabled" }.to_owned());
        }
        if change.unlock {
            said.push("unlocked".to_owned());
        }
        if user.email != before.email || user.full_name != before.full_name {
            said.push("described anew".to_owned());
        }
        let said = entry(now, AuditKind::Account, "changeUser", Some(actor), from).detail(format!(
            "{}: {}",
            user.username,
            said.join(", ")
        ));
        self.change(changes, vec![said]).await?;
        Ok(user)
    }

    /// Gives a user a one-time password; its sessions end, its API tokens are revoked, a lock is lifted.
    ///
    /// # Errors
    /// There is no such user.
    pub async fn reset_password(
        &self,
        actor: &Actor,
        username: &str,
        from: &Source,
    ) -> Result<SecretString, AccessError> {
        actor.person()?;
        self.user(username)?;
        let made = one_time_password();
        let hash = self.passwords.hash(made.clone()).await?;
        let _change = self.changing.lock().await;
        let mut user = self.user(username)?;
        let now = wall_now();
        user.password = hash;
        user.must_change = true;
        user.password_changed = now;
        user.password_given = Some(now);
        user.failures = 0;
        user.locked_until = None;
        let said = entry(now, AuditKind::Account, "resetPassword", Some(actor), from).detail(&user.username);
        let mut changes = self.shut_out(&user);
        changes.push(AccessChange::PutUser(Box::new(user)));
        self.change(changes, vec![said]).await?;
        Ok(made)
    }

    /// API tokens that an actor may see, newest first, with their owners: an Admin's all, others' their own.
    pub fn tokens(&self, actor: &Actor) -> Vec<(ApiToken, String)> {
        let people = self.people.read();
        let mut tokens: Vec<_> = people
            .tokens()
            .filter(|token| actor.role == Role::Admin || token.user == actor.user)
            .filter_map(|token| Some((token.clone(), people.user_of(token.user)?.username.clone())))
            .collect();
        tokens.sort_by_key(|(token, _)| std::cmp::Reverse((token.created, token.id)));
        tokens
    }

    /// Makes an API token that speaks for the actor.
    ///
    /// # Errors
    /// More is asked for than the actor may do.
    pub async fn create_token(
        &self,
        actor: &Actor,
        new: NewToken,
        from: &Source,
        once: Option<Once<ApiToken>>,
    ) -> Result<IssuedToken, AccessError> {
        // One that a token could make would outlive its revocation.
        actor.person()?;
        if new.role > actor.role {
            return Err(AccessError::Forbidden(format!(
                "a token may do no more than its owner: {} is a {}",
                actor.subject, actor.role
            )));
        }
        let _change = self.changing.lock().await;
        let now = wall_now();
        {
            let people = self.people.read();
            let mut own = people.tokens().filter(|token| token.user == actor.user);
            if people
                .tokens()
                .any(|token| token.user == actor.user && token.name == new.name)
            {
                return Err(AccessError::Conflict(format!(
                    "{} has a token {:?} already",
                    actor.subject, new.name
                )));
            }
            if own.by_ref().count() >= TOKENS_PER_USER_MAX {
                return Err(AccessError::Conflict(format!(
                    "{} has {TOKENS_PER_USER_MAX} tokens, the most there may be; revoke some",
                    actor.subject
                )));
            }
        }
        let token: SecretString = format!("{API_TOKEN_PREFIX}{}", random_text().expose_secret()).into();
        let record = ApiToken {
            id: Uuid::new_v4(),
            user: actor.user,
            name: new.name,
            digest: TokenDigest::of(token.expose_secret()),
            role: new.role,
            scope: new.scope,
            created: now,
            expires: now + Millis(DAY.0 * u64::from(new.days)),
        };
        let said = entry(now, AuditKind::Token, "createToken", Some(actor), from)
            .detail(format!("{}, {}, {} days", record.name, record.role, new.days));
        let mut changes = vec![AccessChange::PutToken(record.clone())];
        changes.extend(once.map(|once| AccessChange::PutAnswer(once(&record))));
        self.change(changes, vec![said]).await?;
        Ok(IssuedToken { token, record })
    }

    /// Revokes an API token.
    ///
    /// # Errors
    /// There is none, or it is another's and the actor is no Admin: which, stays unsaid.
    pub async fn revoke_token(&self, actor: &Actor, id: Uuid, from: &Source) -> Result<(), AccessError> {
        let _change = self.changing.lock().await;
        let found = self.tokens(actor).into_iter().find(|(token, _)| token.id == id);
        let (token, owner) =
            found.ok_or_else(|| AccessError::NotFound(format!("there is no API token {id}")))?;
        let said = entry(wall_now(), AuditKind::Token, "revokeToken", Some(actor), from)
            .detail(format!("{} of {owner}", token.name));
        self.change(vec![AccessChange::RevokeToken(id)], vec![said]).await
    }

    /// Ends a user's sessions and revokes its API tokens: somebody else may have begun or made them.
    fn shut_out(&self, user: &User) -> Vec<AccessChange> {
        let mut changes = self.end_sessions(user, None);
        let people = self.people.read();
        let tokens = people.tokens().filter(|token| token.user == user.id);
        changes.extend(tokens.map(|token| AccessChange::RevokeToken(token.id)));
        changes
    }

    /// The signing keys that are known, newest first.
    pub fn keys(&self) -> Vec<SigningKey> {
        let keys = self.keys.read();
        keys.records()
            .iter()
            .filter(|key| !key.is_forgotten())
            .cloned()
            .collect()
    }

    /// Signs by a new key from now on; the former ones stay known until their tokens have long expired.
    ///
    /// # Errors
    /// The store failed.
    pub async fn rotate_keys(
        &self,
        actor: &Actor,
        from: &Source,
        once: Option<Once<SigningKey>>,
    ) -> Result<SigningKey, AccessError> {
        // Every session depends on it.
        actor.person()?;
        let said = entry(wall_now(), AuditKind::Key, "rotateKey", Some(actor), from);
        self.rotate(said, once).await
    }

    pub(super) async fn rotate(
        &self,
        said: AuditEntry,
        once: Option<Once<SigningKey>>,
    ) -> Result<SigningKey, AccessError> {
        let _change = self.changing.lock().await;
        let now = wall_now();
        let new = SigningKey::generate(now)?;
        let mut changes = Vec::new();
        for (place, mut key) in self.keys().into_iter().enumerate() {
            if place + 1 >= KEYS_MAX {
                key.forget();
            }
            key.retired.get_or_insert(now);
            changes.push(AccessChange::PutKey(key));
        }
        changes.push(AccessChange::PutKey(new.clone()));
        let detail = format!("{} signs now", new.kid);
        changes.extend(once.map(|once| AccessChange::PutAnswer(once(&new))));
        self.change(changes, vec![said.detail(detail)]).await?;
        Ok(new)
    }

    /// Forgets keys whose tokens have long expired.
    pub(super) async fn forget_keys(&self, now: WallTime) -> Result<(), AccessError> {
        let _change = self.changing.lock().await;
        let over = |key: &SigningKey| forget_at(key, self.config.access_lifetime).is_some_and(|at| at <= now);
        let (mut changes, mut audit) = (Vec::new(), Vec::new());
        for mut key in self.keys().into_iter().filter(over) {
            key.forget();
            audit.push(AuditEntry::done(now, AuditKind::Key, "forgetKey").detail(&key.kid));
            changes.push(AccessChange::PutKey(key));
        }
        if changes.is_empty() {
            return Ok(());
        }
        self.change(changes, audit).await
    }
}
