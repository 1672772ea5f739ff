//! Passwords: what they must be, how they are kept, and how they are checked without holding anything else up.

use std::sync::Arc;

use argon2::password_hash::phc::PasswordHash as Phc;
use argon2::password_hash::{PasswordHasher as _, PasswordVerifier as _};
use argon2::{Algorithm, Argon2, Params, Version};
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;

use super::AccessError;

/// Memory of one hash, in KiB: OWASP's first choice for argon2id.
const MEMORY_KIB: u32 = 19_456;
/// Passes over it.
const PASSES: u32 = 2;
/// Lanes.
const LANES: u32 = 1;
/// Hashes at once: each takes a core for some 20 ms and 19 MiB. More wait.
const HASHES_AT_ONCE_MAX: usize = 2;
/// Checks that wait. Beyond it somebody who logs in is told to come back: a flood of logins holds nothing else up.
const WAITING_MAX: usize = 64;
/// Shortest password, in characters.
pub const PASSWORD_LEN_MIN: usize = 12;
/// Longest password, in bytes: hashing must not become work without a bound.
pub const PASSWORD_BYTES_MAX: usize = 256;

/// A password as it is kept: an argon2id hash in PHC's notation.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PasswordHash(String);

impl std::fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PasswordHash(…)")
    }
}

/// Hashes and checks, a bounded number at once, off the threads that serve.
#[derive(Debug)]
pub struct Passwords {
    working: Arc<Semaphore>,
    waiting: Arc<Semaphore>,
    /// Of a password that nobody knows: an unknown user costs the same time as a wrong password.
    nobody: PasswordHash,
}

impl Passwords {
    /// Makes the hash that unknown users are checked against.
    ///
    /// # Errors
    /// There is no randomness.
    pub fn new() -> Result<Self, AccessError> {
        let nobody = hash(&super::secret::random_text())?;
        Ok(Self {
            working: Arc::new(Semaphore::new(HASHES_AT_ONCE_MAX)),
            waiting: Arc::new(Semaphore::new(HASHES_AT_ONCE_MAX + WAITING_MAX)),
            nobody,
        })
    }

    /// Hashes a password.
    ///
    /// # Errors
    /// Too many wait.
    pub async fn hash(&self, password: SecretString) -> Result<PasswordHash, AccessError> {
        self.work(move || hash(&password)).await?
    }

    /// Whether a password is the one of a user; `None` is a user that there isn't, and takes as long.
    ///
    /// # Errors
    /// Too many wait.
    pub async fn check(
        &self,
        password: SecretString,
        kept: Option<&PasswordHash>,
    ) -> Result<bool, AccessError> {
        let (known, kept) = (kept.is_some(), kept.unwrap_or(&self.nobody).clone());
        let right = self
            .work(move || {
                let phc =
                    Phc::new(&kept.0).map_err(|_| AccessError::Internal("a kept password is damaged"))?;
                Ok::<_, AccessError>(
                    argon()
                        .verify_password(password.expose_secret().as_bytes(), &phc)
                        .is_ok(),
                )
            })
            .await??;
        Ok(right && known)
    }

    async fn work<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, AccessError> {
        let _place = Arc::clone(&self.waiting)
            .try_acquire_owned()
            .map_err(|_| AccessError::Busy)?;
        let turn = Arc::clone(&self.working)
            .acquire_owned()
            .await
            .map_err(|_| AccessError::Busy)?;
        // The turn goes with the work, which nobody can cut short: a caller that gives up frees no core.
        tokio::task::spawn_blocking(move || {
            let _turn = turn;
            work()
        })
        .await
        .map_err(|_| AccessError::Internal("a password's check panicked"))
    }
}

fn argon() -> Argon2<'static> {
    let params =
        Params::new(MEMORY_KIB, PASSES, LANES, None).expect("the parameters are within argon2's limits");
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
}

/// Hashes at once, for a start.
pub(super) fn hash(password: &SecretString) -> Result<PasswordHash, AccessError> {
    let hash: Phc = argon()
        .hash_password(password.expose_secret().as_bytes())
        .map_err(|_| AccessError::Internal("a password could not be hashed"))?;
    Ok(PasswordHash(hash.to_string()))
}

/// What is wrong with a new password, if anything is.
///
/// # Errors
/// The fault, without the password.
pub fn check_new(password: &SecretString, username: &str) -> Result<(), String> {
    let text = password.expose_secret();
    if text.chars().count() < PASSWORD_LEN_MIN {
        return Err(format!("must be at least {PASSWORD_LEN_MIN} characters"));
    }
    if text.len() > PASSWORD_BYTES_MAX {
        return Err(format!("must be at most {PASSWORD_BYTES_MAX} bytes"));
    }
    if text.to_lowercase().contains(&username.to_lowercase()) {
        return Err("must not contain the username".to_owned());
    }
    let mut chars: Vec<char> = text.chars().collect();
    chars.sort_unstable();
    chars.dedup();
    if chars.len() < 5 {
        return Err("must have at least 5 different characters".to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_password_is_known_by_its_hash_only() {
        let passwords = Passwords::new().unwrap();
        let kept = passwords.hash("correct horse battery".into()).await.unwrap();
        assert!(
            kept.0.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"),
            "{}",
            kept.0
        );
        assert_eq!(format!("{kept:?}"), "PasswordHash(…)");
        assert!(
            passwords
                .check("correct horse battery".into(), Some(&kept))
                .await
                .unwrap()
        );
        assert!(
            !passwords
                .check("correct horse".into(), Some(&kept))
                .await
                .unwrap()
        );
        assert!(
            !passwords
                .check("correct horse battery".into(), None)
                .await
                .unwrap()
        );
        let again = passwords.hash("correct horse battery".into()).await.unwrap();
        assert_ne!(kept, again, "each has a salt of its own");
    }

    #[tokio::test]
    async fn a_flood_of_checks_is_told_to_come_back() {
        let passwords = Passwords::new().unwrap();
        let places = HASHES_AT_ONCE_MAX + WAITING_MAX;
        let checks = (0..places + 1).map(|_| passwords.check("x".into(), None));
        let ended = futures::future::join_all(checks).await;
        let busy = ended
            .iter()
            .filter(|end| matches!(end, Err(AccessError::Busy)))
            .count();
        assert_eq!(busy, 1, "{places} fit, one does not");
    }

    #[test]
    fn new_passwords() {
        let check = |text: &str| check_new(&text.into(), "ada");
        assert_eq!(check("correct horse battery"), Ok(()));
        for bad in ["short", "aaaaaaaaaaaaaaaa", "adaadaadaADA1", &"x1y2z3".repeat(60)] {
            assert!(check(bad).is_err(), "{bad}");
        }
    }
}
