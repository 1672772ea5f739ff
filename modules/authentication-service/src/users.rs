//! The users, with salted and stretched passwords.

use sha2::{Digest as _, Sha256};

/// Rounds of stretching: an example's few, since guests are to answer in microseconds.
const ROUNDS: u32 = 32;

/// Somebody who may sign in.
pub(crate) struct User {
    pub(crate) name: &'static str,
    pub(crate) role: &'static str,
    password: &'static str,
}

/// Built-in users of the example; a real service would look them up.
static USERS: [User; 3] = [
    User {
        name: "alice",
        role: "admin",
        password: "wonderland",
    },
    User {
        name: "bob",
        role: "clerk",
        password: "builder",
    },
    User {
        name: "carol",
        role: "viewer",
        password: "christmas",
    },
];

pub(crate) fn signed_in(name: &str, password: &str) -> Option<&'static User> {
    let user = USERS.iter().find(|user| user.name == name);
    // An unknown user costs as much as a known one.
    let right = stretched(name, user.map_or("", |user| user.password));
    let given = stretched(name, password);
    let differ = right.iter().zip(given).fold(0, |differ, (a, b)| differ | (a ^ b));
    user.filter(|_| differ == 0)
}

fn stretched(salt: &str, password: &str) -> [u8; 32] {
    let first = Sha256::new()
        .chain_update(salt)
        .chain_update([0])
        .chain_update(password)
        .finalize();
    (1..ROUNDS).fold(first.into(), |hash: [u8; 32], _| Sha256::digest(hash).into())
}
