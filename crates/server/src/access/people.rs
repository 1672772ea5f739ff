//! Everybody, in memory.

use std::collections::{BTreeMap, HashMap};

use hotswap_core::time::WallTime;
use uuid::Uuid;

use super::model::{ApiToken, Session, User};
use super::secret::TokenDigest;
use super::{Actor, Scope, Via};
use crate::store::{AccessChange, AccessRecords};

/// Users, sessions and API tokens by what they are asked for by.
#[derive(Debug, Default)]
pub(super) struct People {
    users: BTreeMap<String, User>,
    names: HashMap<Uuid, String>,
    sessions: HashMap<Uuid, Session>,
    tokens: HashMap<TokenDigest, ApiToken>,
    /// Tokens' digests by their identities.
    digests: HashMap<Uuid, TokenDigest>,
}

impl People {
    pub(super) fn new(records: AccessRecords) -> Self {
        let mut people = Self::default();
        for user in records.users {
            people.apply(AccessChange::PutUser(Box::new(user)));
        }
        for session in records.sessions {
            people.apply(AccessChange::PutSession(session));
        }
        for token in records.tokens {
            people.apply(AccessChange::PutToken(token));
        }
        people
    }

    /// By username.
    pub(super) fn user(&self, username: &str) -> Option<&User> {
        self.users.get(username)
    }

    /// By identity.
    pub(super) fn user_of(&self, id: Uuid) -> Option<&User> {
        self.users.get(self.names.get(&id)?)
    }

    /// All of them, by username.
    pub(super) fn users(&self) -> impl Iterator<Item = &User> {
        self.users.values()
    }

    pub(super) fn session(&self, id: Uuid) -> Option<&Session> {
        self.sessions.get(&id)
    }

    pub(super) fn sessions(&self) -> impl Iterator<Item = &Session> {
        self.sessions.values()
    }

    pub(super) fn tokens(&self) -> impl Iterator<Item = &ApiToken> {
        self.tokens.values()
    }

    /// Whom a session's token speaks for.
    pub(super) fn by_session(&self, subject: &str, session: Uuid, now: WallTime) -> Option<Actor> {
        let session = self
            .sessions
            .get(&session)
            .filter(|session| now < session.expires)?;
        let user = self
            .user(subject)
            .filter(|user| !user.disabled && user.id == session.user)?;
        Some(Actor {
            user: user.id,
            subject: user.username.clone(),
            role: user.role,
            scope: Scope::default(),
            via: Via::Session(session.id),
            must_change: user.must_change,
        })
    }

    /// Whom an API token speaks for: its owner, with no more than the owner's role now.
    pub(super) fn by_token(&self, token: &str, now: WallTime) -> Option<Actor> {
        self.spoken_for(self.tokens.get(&TokenDigest::of(token))?, now)
    }

    fn spoken_for(&self, token: &ApiToken, now: WallTime) -> Option<Actor> {
        if token.expires <= now {
            return None;
        }
        let user = self.user_of(token.user).filter(|user| !user.disabled)?;
        Some(Actor {
            user: user.id,
            subject: user.username.clone(),
            role: token.role.min(user.role),
            scope: token.scope.clone(),
            via: Via::Token {
                id: token.id,
                name: token.name.clone(),
            },
            must_change: user.must_change,
        })
    }

    /// Whether somebody who was let in would be let in again.
    pub(super) fn stands(&self, actor: &Actor, now: WallTime) -> bool {
        let again = match &actor.via {
            Via::Session(id) => self.by_session(&actor.subject, *id, now),
            Via::Token { id, .. } => {
                let token = self.digests.get(id).and_then(|digest| self.tokens.get(digest));
                token.and_then(|token| self.spoken_for(token, now))
            }
        };
        again.is_some()
    }

    pub(super) fn apply(&mut self, change: AccessChange) {
        match change {
            AccessChange::PutUser(user) => {
                self.names.insert(user.id, user.username.clone());
                self.users.insert(user.username.clone(), *user);
            }
            AccessChange::PutSession(session) => drop(self.sessions.insert(session.id, session)),
            AccessChange::EndSession(id) => drop(self.sessions.remove(&id)),
            AccessChange::PutToken(token) => {
                self.digests.insert(token.id, token.digest);
                self.tokens.insert(token.digest, token);
            }
            AccessChange::RevokeToken(id) => {
                if let Some(digest) = self.digests.remove(&id) {
                    self.tokens.remove(&digest);
                }
            }
            // Keys are kept apart: they are opened. Answers are read where they are stored.
            AccessChange::PutKey(_) | AccessChange::PutAnswer(_) => {}
        }
    }
}
