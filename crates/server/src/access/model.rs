//! Users, their sessions and tokens, as they are kept.

use hotswap_core::time::{Millis, WallTime};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::password::PasswordHash;
use super::role::{Role, Scope};
use super::secret::TokenDigest;

/// Failed logins in a row that lock a user.
pub const FAILURES_MAX: u32 = 5;
/// For how long.
pub const LOCKED_FOR: Millis = Millis::from_secs(15 * 60);

/// Somebody who may log in. A username is never given to another: the log names people by it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct User {
    /// Its identity.
    pub id: Uuid,
    /// The name that it logs in by, in lower case.
    pub username: String,
    /// An e-mail address.
    pub email: String,
    /// The name that people call it.
    pub full_name: String,
    /// What it may do.
    pub role: Role,
    /// Its password.
    pub password: PasswordHash,
    /// Whether it has to choose a new password before anything else.
    #[serde(default)]
    pub must_change: bool,
    /// Whether it may not log in any more.
    #[serde(default)]
    pub disabled: bool,
    /// Whether it is one of the demo's, whose passwords everybody knows.
    #[serde(default)]
    pub demo: bool,
    /// Failed logins since the last good one, or the last lock.
    #[serde(default)]
    pub failures: u32,
    /// Until when every login fails.
    #[serde(default)]
    pub locked_until: Option<WallTime>,
    /// When it was made.
    pub created: WallTime,
    /// When its password was last changed.
    pub password_changed: WallTime,
    /// When somebody else last gave it a password, who could have spoken for it since.
    #[serde(default)]
    pub password_given: Option<WallTime>,
}

/// What came of a login.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attempt {
    /// It is in.
    Good,
    /// The password was wrong.
    Wrong,
    /// The password was wrong once too often: the user is locked from now on.
    WrongAndLocked,
    /// The user is locked; whether the password was right stays unsaid.
    Locked,
    /// The user may not log in any more.
    Disabled,
}

impl User {
    /// Counts a login. `right` says whether the password was.
    pub fn attempt(&mut self, right: bool, now: WallTime) -> Attempt {
        if self.disabled {
            return Attempt::Disabled;
        }
        if self.is_locked(now) {
            return Attempt::Locked;
        }
        self.locked_until = None;
        if right {
            self.failures = 0;
            return Attempt::Good;
        }
        self.failures += 1;
        if self.failures < FAILURES_MAX {
            return Attempt::Wrong;
        }
        self.failures = 0;
        self.locked_until = Some(now + LOCKED_FOR);
        Attempt::WrongAndLocked
    }

    /// Whether every login fails now.
    pub fn is_locked(&self, now: WallTime) -> bool {
        self.locked_until.is_some_and(|until| now < until)
    }
}

/// A login that goes on: access tokens belong to it, and its refresh token brings the next one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Session {
    /// Its identity.
    pub id: Uuid,
    /// Whose.
    pub user: Uuid,
    /// When it began.
    pub created: WallTime,
    /// When it ends at the latest.
    pub expires: WallTime,
    /// The refresh token that brings the next access token.
    pub refresh: TokenDigest,
    /// The one before it, and when it was used: an answer that got lost may be asked for again.
    #[serde(default)]
    pub former: Option<(TokenDigest, WallTime)>,
}

/// A token for programs. It speaks as its owner.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ApiToken {
    /// Its identity.
    pub id: Uuid,
    /// Whose.
    pub user: Uuid,
    /// What it is for.
    pub name: String,
    /// What it is known by.
    pub digest: TokenDigest,
    /// What it may do; never more than its owner.
    pub role: Role,
    /// What its commands may concern.
    #[serde(default)]
    pub scope: Scope,
    /// When it was made.
    pub created: WallTime,
    /// When it expires.
    pub expires: WallTime,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user() -> User {
        User {
            id: Uuid::nil(),
            username: "ada".to_owned(),
            email: String::new(),
            full_name: String::new(),
            role: Role::Viewer,
            password: super::super::password::hash(&"correct horse battery".into()).unwrap(),
            must_change: false,
            disabled: false,
            demo: false,
            failures: 0,
            locked_until: None,
            created: WallTime(0),
            password_changed: WallTime(0),
            password_given: None,
        }
    }

    #[test]
    fn five_failures_lock_for_fifteen_minutes_also_for_the_right_password() {
        let (mut user, at) = (user(), WallTime(1_000_000));
        for _ in 0..4 {
            assert_eq!(user.attempt(false, at), Attempt::Wrong);
        }
        assert_eq!(user.attempt(false, at), Attempt::WrongAndLocked);
        let last = at + Millis::from_secs(15 * 60 - 1);
        assert_eq!(user.attempt(true, last), Attempt::Locked);
        assert_eq!(
            user.attempt(false, last),
            Attempt::Locked,
            "and it is not prolonged"
        );
        assert_eq!(user.attempt(true, at + LOCKED_FOR), Attempt::Good);
    }

    #[test]
    fn a_good_login_begins_the_count_anew() {
        let (mut user, at) = (user(), WallTime(1));
        for _ in 0..3 {
            for _ in 0..4 {
                assert_eq!(user.attempt(false, at), Attempt::Wrong);
            }
            assert_eq!(user.attempt(true, at), Attempt::Good);
        }
        user.disabled = true;
        assert_eq!(user.attempt(true, at), Attempt::Disabled);
    }
}
