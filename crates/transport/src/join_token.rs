//! What lets a new node join: who it is told by, and which authority the server must have.

use std::fmt;
use std::str::FromStr;

use rustls_pki_types::CertificateDer;
use zeroize::Zeroizing;

/// What join tokens begin with: a leaked one is recognised by scanners.
pub const JOIN_TOKEN_PREFIX: &str = "hsj_";
/// Longest join token, in bytes.
pub const JOIN_TOKEN_BYTES_MAX: usize = 256;

/// The SHA-256 of an authority's certificate, as 64 hexadecimal digits: what a join token pins.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct AuthorityPin([u8; 32]);

impl AuthorityPin {
    /// Of a certificate.
    pub fn of(certificate: &CertificateDer<'_>) -> Self {
        let digest = ring::digest::digest(&ring::digest::SHA256, certificate);
        let mut bytes = [0; 32];
        bytes.copy_from_slice(digest.as_ref());
        Self(bytes)
    }
}

impl fmt::Display for AuthorityPin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for AuthorityPin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AuthorityPin({self})")
    }
}

impl FromStr for AuthorityPin {
    type Err = InvalidJoinToken;

    fn from_str(text: &str) -> Result<Self, InvalidJoinToken> {
        let digits: &[u8; 64] = text.as_bytes().try_into().map_err(|_| InvalidJoinToken)?;
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            let nibble = |digit: u8| char::from(digit).to_digit(16).ok_or(InvalidJoinToken);
            *byte = u8::try_from(nibble(pair[0])? << 4 | nibble(pair[1])?).map_err(|_| InvalidJoinToken)?;
        }
        Ok(Self(bytes))
    }
}

/// A join token: `hsj_<id>.<secret>.<SHA-256 of the authority's certificate>`.
#[derive(Clone)]
pub struct JoinToken {
    /// Which one; no secret.
    pub id: String,
    /// What proves it.
    pub secret: Zeroizing<String>,
    /// The authority that the server's certificate must be by.
    pub authority: AuthorityPin,
}

/// Text that is no join token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "not a join token: {JOIN_TOKEN_PREFIX}<id>.<secret>.<64 hexadecimal digits> is one, as `hotswap node token create` tells it"
)]
pub struct InvalidJoinToken;

impl JoinToken {
    /// The whole token: a secret.
    pub fn text(&self) -> Zeroizing<String> {
        Zeroizing::new(format!(
            "{JOIN_TOKEN_PREFIX}{}.{}.{}",
            self.id,
            self.secret.as_str(),
            self.authority
        ))
    }
}

impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinToken")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

impl FromStr for JoinToken {
    type Err = InvalidJoinToken;

    fn from_str(text: &str) -> Result<Self, InvalidJoinToken> {
        if text.len() > JOIN_TOKEN_BYTES_MAX {
            return Err(InvalidJoinToken);
        }
        let rest = text.strip_prefix(JOIN_TOKEN_PREFIX).ok_or(InvalidJoinToken)?;
        let mut parts = rest.split('.');
        let (Some(id), Some(secret), Some(authority), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(InvalidJoinToken);
        };
        let plain = |part: &str| {
            !part.is_empty()
                && part
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
        };
        if !plain(id) || !plain(secret) {
            return Err(InvalidJoinToken);
        }
        Ok(Self {
            id: id.to_owned(),
            secret: Zeroizing::new(secret.to_owned()),
            authority: authority.parse()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_reads_back_and_shows_no_secret() {
        let token = JoinToken {
            id: "7f3a".to_owned(),
            secret: Zeroizing::new("s3cret-_".to_owned()),
            authority: AuthorityPin([0xab; 32]),
        };
        let text = token.text();
        assert_eq!(text.as_str(), format!("hsj_7f3a.s3cret-_.{}", "ab".repeat(32)));
        let read: JoinToken = text.parse().unwrap();
        assert_eq!(
            (&read.id, &read.secret, read.authority),
            (&token.id, &token.secret, token.authority)
        );
        assert!(!format!("{read:?}").contains("s3cret"));
        for wrong in [
            "",
            "hsj_",
            "hsj_a.b",
            &format!("hsj_a.b.{}", "a".repeat(63)),
            &format!("hsj_a..{}", "a".repeat(64)),
            &format!("hsj_a.b.{}.c", "a".repeat(64)),
            &format!("hst_a.b.{}", "a".repeat(64)),
            &format!("hsj_a.b c.{}", "a".repeat(64)),
        ] {
            assert!(wrong.parse::<JoinToken>().is_err(), "{wrong}");
        }
    }
}
