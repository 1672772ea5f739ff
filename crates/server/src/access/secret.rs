//! Secrets of the server's own making, and how they are kept: by their digest.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::{SecureRandom as _, SystemRandom};
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

/// Random bytes of a secret: beyond guessing.
const RANDOM_BYTES: usize = 32;
/// Letters and digits of a one-time password: none that look alike.
const ONE_TIME_ALPHABET: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
/// Characters of a one-time password, five bits each.
const ONE_TIME_LEN: usize = 20;

/// What is kept of a token: enough to know it again, nothing to make it from.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TokenDigest([u8; 32]);

impl TokenDigest {
    /// Of a token.
    pub fn of(token: &str) -> Self {
        Self(Sha256::digest(token.as_bytes()).into())
    }
}

impl std::fmt::Debug for TokenDigest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TokenDigest(…)")
    }
}

impl From<TokenDigest> for String {
    fn from(digest: TokenDigest) -> Self {
        hotswap_core::ids::Digest(digest.0).hex()
    }
}

impl TryFrom<String> for TokenDigest {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        let digest: hotswap_core::ids::Digest = text.parse().map_err(|_| "a token's digest is damaged")?;
        Ok(Self(digest.0))
    }
}

fn random<const N: usize>() -> Zeroizing<[u8; N]> {
    let mut bytes = Zeroizing::new([0; N]);
    SystemRandom::new()
        .fill(bytes.as_mut_slice())
        .expect("the operating system has randomness");
    bytes
}

/// 256 random bits, as text that fits into headers and addresses.
pub(crate) fn random_text() -> SecretString {
    URL_SAFE_NO_PAD.encode(random::<RANDOM_BYTES>().as_slice()).into()
}

/// A password to be typed once: 100 random bits in groups of five.
pub(super) fn one_time_password() -> SecretString {
    let bytes = random::<ONE_TIME_LEN>();
    let mut text = String::with_capacity(ONE_TIME_LEN + ONE_TIME_LEN / 5);
    for (i, byte) in bytes.iter().enumerate() {
        if i > 0 && i.is_multiple_of(5) {
            text.push('-');
        }
        text.push(ONE_TIME_ALPHABET[usize::from(byte % 32)].into());
    }
    text.into()
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret as _;

    use super::*;

    #[test]
    fn one_time_passwords_are_their_own() {
        let (one, other) = (one_time_password(), one_time_password());
        assert_ne!(one.expose_secret(), other.expose_secret());
        assert_eq!(one.expose_secret().len(), 23);
        assert_eq!(super::super::password::check_new(&one, "admin"), Ok(()));
    }

    #[test]
    fn a_digest_reads_back_and_shows_nothing() {
        let digest = TokenDigest::of("secret");
        let text = serde_json::to_string(&digest).unwrap();
        assert_eq!(serde_json::from_str::<TokenDigest>(&text).unwrap(), digest);
        assert_eq!(format!("{digest:?}"), "TokenDigest(…)");
    }
}
