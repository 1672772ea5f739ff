//! What a host of processes may use, and as whom they run.

use std::path::PathBuf;
use std::str::FromStr;

use crate::grants::{Grants, Ungranted};

/// Where users are listed.
const USERS: &str = "/etc/passwd";

/// What a [`ProcessHost`](super::ProcessHost) does and may use.
#[derive(Clone, Debug)]
pub struct ProcessHostConfig {
    /// Where executables and notes about what runs are kept. A later host on the same folder ends what an earlier one
    /// left running.
    pub dir: PathBuf,
    /// As whom processes run, where this process is root; otherwise they run as this process's user.
    pub user: User,
    /// The control group (version 2) that was given to this process for its own; found out where it is not set.
    pub cgroup: Option<PathBuf>,
    /// Most lines per second that a release's output puts into the log; more are counted and dropped.
    pub log_lines_per_second_max: u32,
    /// What modules may use that ask for it.
    pub grants: Grants,
    /// What becomes of those that ask for more.
    pub ungranted: Ungranted,
}

impl ProcessHostConfig {
    /// The defaults, in a folder.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            user: User::default(),
            cgroup: None,
            log_lines_per_second_max: 50,
            grants: Grants::default(),
            ungranted: Ungranted::Refuse,
        }
    }
}

/// A user and a group by their numbers; by default nobody's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct User {
    /// The user.
    pub uid: u32,
    /// The group, which is the only one.
    pub gid: u32,
}

/// A text that names no user.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no user here; it should be UID:GID, as 990:990, or a name that {USERS} has")]
pub struct InvalidUser(String);

impl Default for User {
    fn default() -> Self {
        Self {
            uid: 65_534,
            gid: 65_534,
        }
    }
}

impl FromStr for User {
    type Err = InvalidUser;

    fn from_str(text: &str) -> Result<Self, InvalidUser> {
        let numbers = text
            .split_once(':')
            .and_then(|(uid, gid)| Some((uid.parse().ok()?, gid.parse().ok()?)));
        let found = numbers.or_else(|| {
            let users = std::fs::read_to_string(USERS).ok()?;
            users.lines().find_map(|line| {
                let mut fields = line.split(':');
                (fields.next()? == text).then_some(())?;
                Some((fields.nth(1)?.parse().ok()?, fields.next()?.parse().ok()?))
            })
        });
        let (uid, gid) = found.ok_or_else(|| InvalidUser(text.chars().take(80).collect()))?;
        Ok(Self { uid, gid })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_two_numbers_or_a_name_that_is_there() {
        assert_eq!("990:991".parse(), Ok(User { uid: 990, gid: 991 }));
        assert_eq!("root".parse(), Ok(User { uid: 0, gid: 0 }));
        for wrong in ["", "990", "990:", "a:b", "no such user"] {
            assert!(wrong.parse::<User>().is_err(), "{wrong}");
        }
    }
}
