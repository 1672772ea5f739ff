//! People and programs: who they are, what they may do, and how they prove it.
//!
//! Users, sessions, API tokens and signing keys are records beside the log, changed in one transaction with their
//! entry in the audit log. All of them are also in memory: a request is let in without a query, and a change of role,
//! a lock or a revocation holds from the next request on.

mod admin;
mod config;
mod jwt;
mod login;
mod maintain;
mod model;
mod people;
mod role;
mod secret;
mod start;

pub mod password;

use std::net::IpAddr;
use std::sync::Arc;

use hotswap_core::time::WallTime;
use parking_lot::RwLock;
use tokio::sync::{Mutex, mpsc};
use uuid::Uuid;

use crate::audit::{AuditEntry, AuditKind};
use crate::clock::wall_now;
use crate::store::{AccessChange, AccessStore, StoreError};

pub use admin::{
    IssuedToken, NewToken, NewUser, Once, TOKEN_DAYS_MAX, TOKENS_PER_USER_MAX, USERS_MAX, UserChange,
};
pub use config::AccessConfig;
pub use jwt::{Claims, Jwk, KEY_OVERLAP, SigningKey};
pub use login::Issued;
pub use maintain::maintain;
pub use model::{ApiToken, Attempt, FAILURES_MAX, LOCKED_FOR, Session, User};
pub(crate) use role::matches as fits;
pub use role::{Role, SCOPE_ENTRIES_MAX, Scope};
pub use secret::TokenDigest;
pub(crate) use secret::random_text;
pub use start::{DEMO_ACCOUNTS, DemoAccount, FirstAdmin};

use jwt::Keys;
use maintain::Notes;
use password::Passwords;
use people::People;

/// What API tokens begin with: a leaked one is recognised by scanners.
const API_TOKEN_PREFIX: &str = "hst_";

/// Why something about users or tokens was not done.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// The username or the password was wrong, or the user is locked or disabled: which, stays unsaid.
    #[error("wrong username or password; after {FAILURES_MAX} failures a user is locked for 15 minutes")]
    BadCredentials,
    /// The token is not taken.
    #[error("{0}")]
    Unauthenticated(String),
    /// Whoever asks may not.
    #[error("{0}")]
    Forbidden(String),
    /// The request is faulty.
    #[error("the request is not valid: {}", .0.join("; "))]
    Invalid(Vec<String>),
    /// There is no such thing.
    #[error("{0}")]
    NotFound(String),
    /// It contradicts what is there.
    #[error("{0}")]
    Conflict(String),
    /// Too many passwords are being checked.
    #[error("too many logins are being checked; try again in a moment")]
    Busy,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// What should not happen.
    #[error("{0}")]
    Internal(&'static str),
}

/// How an actor proved who it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Via {
    /// By a login.
    Session(Uuid),
    /// By an API token.
    Token {
        /// Which.
        id: Uuid,
        /// What it is for.
        name: String,
    },
}

/// Somebody who proved who they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Actor {
    /// Which user.
    pub user: Uuid,
    /// The username: what the log names, and what separates requester and approver. An API token has its owner's.
    pub subject: String,
    /// What they may do.
    pub role: Role,
    /// What their commands may concern.
    pub scope: Scope,
    /// How they proved it.
    pub via: Via,
    /// Whether they have to choose a new password before anything else.
    pub must_change: bool,
}

impl Actor {
    /// The API token's name, where one speaks.
    pub fn token(&self) -> Option<&str> {
        match &self.via {
            Via::Token { name, .. } => Some(name),
            Via::Session(_) => None,
        }
    }

    /// Refuses API tokens, for what a person does. Returns the session.
    ///
    /// # Errors
    /// An API token speaks.
    pub fn person(&self) -> Result<Uuid, AccessError> {
        match &self.via {
            Via::Session(session) => Ok(*session),
            Via::Token { .. } => Err(AccessError::Forbidden(
                "an API token can't do this; log in as a person".to_owned(),
            )),
        }
    }
}

/// Where a request came from, for the audit log.
#[derive(Clone, Debug, Default)]
pub struct Source {
    /// Its address.
    pub address: Option<IpAddr>,
    /// Its trace.
    pub trace_id: Option<String>,
}

/// Who may do what.
pub struct Access {
    config: AccessConfig,
    store: Arc<dyn AccessStore>,
    passwords: Passwords,
    issuer: String,
    keys: RwLock<Keys>,
    people: RwLock<People>,
    /// One change at a time: what it is based on is still so when it is made.
    changing: Mutex<()>,
    notes: Notes,
}

impl Access {
    /// How it is configured.
    pub fn config(&self) -> &AccessConfig {
        &self.config
    }

    /// Where the audit log is.
    pub fn store(&self) -> &Arc<dyn AccessStore> {
        &self.store
    }

    /// Lets a bearer's token in, or says why not.
    ///
    /// # Errors
    /// [`AccessError::Unauthenticated`], in words that help its owner and nobody else.
    pub fn authenticate(&self, token: &str) -> Result<Actor, AccessError> {
        let refused = |why: &str| AccessError::Unauthenticated(why.to_owned());
        let now = wall_now();
        if token.starts_with(API_TOKEN_PREFIX) {
            let people = self.people.read();
            return people
                .by_token(token, now)
                .ok_or_else(|| refused("the API token is unknown, expired or revoked"));
        }
        let claims = self.keys.read().verify(token).map_err(refused)?;
        let people = self.people.read();
        people
            .by_session(&claims.sub, claims.sid, now)
            .ok_or_else(|| refused("the session has ended"))
    }

    /// Whether somebody who was let in still is: for what goes on after a request was let through.
    pub fn stands(&self, actor: &Actor) -> bool {
        self.people.read().stands(actor, wall_now())
    }

    /// The public halves of the signing keys.
    pub fn published_keys(&self) -> Vec<Jwk> {
        self.keys.read().published()
    }

    /// Records something for the audit log soon; a flood is counted instead of written out.
    pub fn note(&self, entry: AuditEntry) {
        self.notes.send(entry);
    }

    /// Changes and their entries, durable first, then in memory.
    async fn change(&self, changes: Vec<AccessChange>, audit: Vec<AuditEntry>) -> Result<(), AccessError> {
        let keys_changed = changes
            .iter()
            .any(|change| matches!(change, AccessChange::PutKey(_)));
        self.store.change_access(changes.clone(), audit).await?;
        if keys_changed {
            let mut keys = self.keys.write();
            let mut records = keys.records().to_vec();
            for change in &changes {
                if let AccessChange::PutKey(key) = change {
                    records.retain(|known| known.kid != key.kid);
                    records.push(key.clone());
                }
            }
            *keys = Keys::new(self.issuer.clone(), records)?;
        }
        let mut people = self.people.write();
        for change in changes {
            people.apply(change);
        }
        Ok(())
    }
}

/// The beginning of an entry about what somebody did.
pub(crate) fn entry(
    now: WallTime,
    kind: AuditKind,
    action: &str,
    actor: Option<&Actor>,
    from: &Source,
) -> AuditEntry {
    let done = AuditEntry::done(now, kind, action);
    AuditEntry {
        actor: actor.map(|actor| actor.subject.clone()),
        token: actor.and_then(Actor::token).map(str::to_owned),
        trace_id: from.trace_id.clone(),
        address: from.address,
        ..done
    }
}

fn channel() -> (Notes, mpsc::Receiver<AuditEntry>) {
    Notes::new()
}
