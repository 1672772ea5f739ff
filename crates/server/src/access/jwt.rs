//! Access tokens: JWTs signed by Ed25519, and the keys that sign them.
//!
//! The newest key signs. A rotated one stays known, and published, until every token that it signed has long expired,
//! so that a rotation is seen by nobody.

use std::sync::{Arc, Once};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::crypto::{CryptoProvider, JwtSigner, JwtVerifier, KeyUtils};
use jsonwebtoken::errors::{ErrorKind, Result as JwtResult};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use ring::rand::SystemRandom;
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use signature::{Error as SignatureError, Signer, Verifier};
use uuid::Uuid;
use zeroize::Zeroizing;

use super::AccessError;
use crate::clock::millis;
use hotswap_core::time::{Millis, WallTime};

/// A rotated key is known for this much longer than the tokens that it signed: for clocks that differ, and for caches
/// of the published keys.
pub const KEY_OVERLAP: Millis = Millis::from_secs(24 * 3_600);
/// Keys known at once. Rotating beyond it forgets the oldest, and whoever holds a token of it logs in again.
pub(super) const KEYS_MAX: usize = 8;
/// Longest token that is looked at, in bytes; ours have about 400.
pub(super) const TOKEN_BYTES_MAX: usize = 2_048;
/// Whom our tokens are for.
const AUDIENCE: &str = "hotswap";

/// A signing key as it is kept.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SigningKey {
    /// Its name: the digest of its public half.
    pub kid: String,
    /// The public half, in base64url. It stays for good: what the key has signed can always be checked.
    public: String,
    /// The private half, PKCS#8 in base64url, until the key is forgotten.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    secret: Option<String>,
    /// When it began to sign.
    pub created: WallTime,
    /// When it ceased to.
    pub retired: Option<WallTime>,
}

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SigningKey({})", self.kid)
    }
}

impl Drop for SigningKey {
    fn drop(&mut self) {
        self.forget();
    }
}

impl SigningKey {
    /// A new key.
    ///
    /// # Errors
    /// There is no randomness.
    pub fn generate(now: WallTime) -> Result<Self, AccessError> {
        let failed = |_| AccessError::Internal("a signing key could not be made");
        let pkcs8 = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).map_err(failed)?;
        let pair = Ed25519KeyPair::from_pkcs8(pkcs8.as_ref())
            .map_err(|_| AccessError::Internal("a signing key could not be made"))?;
        let digest = Sha256::digest(pair.public_key().as_ref());
        Ok(Self {
            kid: URL_SAFE_NO_PAD.encode(&digest[..12]),
            public: URL_SAFE_NO_PAD.encode(pair.public_key().as_ref()),
            secret: Some(URL_SAFE_NO_PAD.encode(pkcs8.as_ref())),
            created: now,
            retired: None,
        })
    }

    /// The public half.
    pub fn public(&self) -> Option<Vec<u8>> {
        URL_SAFE_NO_PAD.decode(&self.public).ok()
    }

    /// Whether it has been forgotten: its private half is gone, and no token by it is taken any more.
    pub fn is_forgotten(&self) -> bool {
        self.secret.is_none()
    }

    /// Forgets the private half.
    pub fn forget(&mut self) {
        if let Some(mut secret) = self.secret.take() {
            zeroize::Zeroize::zeroize(&mut secret);
        }
    }

    fn open(&self) -> Result<Opened, AccessError> {
        let damaged = AccessError::Internal("a kept signing key is damaged");
        let secret = self.secret.as_deref().unwrap_or_default();
        let Ok(pkcs8) = URL_SAFE_NO_PAD.decode(secret).map(Zeroizing::new) else {
            return Err(damaged);
        };
        let Ok(pair) = Ed25519KeyPair::from_pkcs8(&pkcs8) else {
            return Err(damaged);
        };
        let public = pair.public_key().as_ref().to_vec();
        Ok(Opened {
            kid: self.kid.clone(),
            encoding: EncodingKey::from_ed_der(&pkcs8),
            decoding: DecodingKey::from_ed_der(&public),
            pair: Arc::new(pair),
            public,
        })
    }
}

/// What an access token says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// Issuer: the fleet.
    iss: String,
    /// Audience.
    aud: String,
    /// Whose: the username.
    pub sub: String,
    /// The session that it belongs to.
    pub sid: Uuid,
    /// When it was issued, in s since 1970.
    iat: u64,
    /// When it expires, in s since 1970.
    pub exp: u64,
    /// Its own identity.
    jti: Uuid,
}

struct Opened {
    kid: String,
    encoding: EncodingKey,
    decoding: DecodingKey,
    pair: Arc<Ed25519KeyPair>,
    public: Vec<u8>,
}

/// The keys that are known, the signing one first.
pub(super) struct Keys {
    issuer: String,
    opened: Vec<Opened>,
    records: Vec<SigningKey>,
}

/// A signed statement of the server's own: see the audit log's heads.
#[derive(Clone)]
pub(super) struct Seal {
    /// The key's name.
    pub(super) kid: String,
    pair: Arc<Ed25519KeyPair>,
}

impl Seal {
    /// Signs a message.
    pub(super) fn sign(&self, message: &[u8]) -> Vec<u8> {
        self.pair.sign(message).as_ref().to_vec()
    }
}

impl Keys {
    /// Keys, newest first.
    ///
    /// # Errors
    /// One is damaged.
    pub(super) fn new(issuer: String, mut records: Vec<SigningKey>) -> Result<Self, AccessError> {
        install_provider();
        records.sort_by_key(|key| std::cmp::Reverse(key.created));
        let known = records.iter().filter(|key| !key.is_forgotten());
        let opened = known.map(SigningKey::open).collect::<Result<_, _>>()?;
        Ok(Self {
            issuer,
            opened,
            records,
        })
    }

    /// As they are kept, newest first.
    pub(super) fn records(&self) -> &[SigningKey] {
        &self.records
    }

    /// What signs for the server itself.
    pub(super) fn seal(&self) -> Option<Seal> {
        self.opened.first().map(|key| Seal {
            kid: key.kid.clone(),
            pair: Arc::clone(&key.pair),
        })
    }

    /// Issues a token.
    ///
    /// # Errors
    /// There is no key.
    pub(super) fn issue(
        &self,
        subject: &str,
        session: Uuid,
        now: WallTime,
        expires: WallTime,
    ) -> Result<SecretString, AccessError> {
        let key = self
            .opened
            .first()
            .ok_or(AccessError::Internal("there is no signing key"))?;
        let claims = Claims {
            iss: self.issuer.clone(),
            aud: AUDIENCE.to_owned(),
            sub: subject.to_owned(),
            sid: session,
            iat: now.0 / 1_000,
            exp: expires.0 / 1_000,
            jti: Uuid::new_v4(),
        };
        let mut header = Header::new(Algorithm::EdDSA);
        header.kid = Some(key.kid.clone());
        jsonwebtoken::encode(&header, &claims, &key.encoding)
            .map(Into::into)
            .map_err(|_| AccessError::Internal("a token could not be signed"))
    }

    /// What a token says, if one of our keys signed it for us and it has not expired.
    ///
    /// # Errors
    /// Why it is not taken, in words that give nothing away.
    pub(super) fn verify(&self, token: &str) -> Result<Claims, &'static str> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err("the token is too long to be one of this server's");
        }
        let header =
            jsonwebtoken::decode_header(token).map_err(|_| "the token is not one of this server's")?;
        let key = self
            .opened
            .iter()
            .find(|key| Some(&key.kid) == header.kid.as_ref())
            .ok_or("the token was signed by a key that this server does not know (any more)")?;
        let mut rules = Validation::new(Algorithm::EdDSA);
        rules.set_audience(&[AUDIENCE]);
        rules.set_issuer(&[&self.issuer]);
        rules.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        // The clock that issued is the one that checks.
        rules.leeway = 0;
        match jsonwebtoken::decode::<Claims>(token, &key.decoding, &rules) {
            Ok(token) => Ok(token.claims),
            Err(error) if matches!(error.kind(), ErrorKind::ExpiredSignature) => Err("the token has expired"),
            Err(_) => Err("the token is not one of this server's"),
        }
    }

    /// The public halves, as RFC 8037 writes them.
    pub(super) fn published(&self) -> Vec<Jwk> {
        let publish = |key: &Opened| Jwk {
            kty: "OKP",
            crv: "Ed25519",
            usage: "sig",
            alg: "EdDSA",
            kid: key.kid.clone(),
            x: URL_SAFE_NO_PAD.encode(&key.public),
        };
        self.opened.iter().map(publish).collect()
    }
}

/// A public key (RFC 7517, RFC 8037).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct Jwk {
    /// OKP.
    pub kty: &'static str,
    /// Ed25519.
    pub crv: &'static str,
    /// sig.
    #[serde(rename = "use")]
    pub usage: &'static str,
    /// EdDSA.
    pub alg: &'static str,
    /// The name that tokens give.
    pub kid: String,
    /// The key, in base64url.
    pub x: String,
}

/// When a record can be forgotten: no token by it is valid any more.
pub(super) fn forget_at(key: &SigningKey, access: std::time::Duration) -> Option<WallTime> {
    Some(key.retired? + millis(access) + KEY_OVERLAP)
}

/// The tokens' library is given the one algorithm that we use, by the library that TLS uses, too: its own choices
/// would bring in two more.
fn install_provider() {
    static PROVIDER: CryptoProvider = CryptoProvider {
        signer_factory,
        verifier_factory,
        key_utils: KeyUtils::new_unimplemented(),
    };
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // Only this module uses the library in this process.
        PROVIDER.install_default().ok();
    });
}

struct EdSigner(Ed25519KeyPair);

impl Signer<Vec<u8>> for EdSigner {
    fn try_sign(&self, message: &[u8]) -> Result<Vec<u8>, SignatureError> {
        Ok(self.0.sign(message).as_ref().to_vec())
    }
}

impl JwtSigner for EdSigner {
    fn algorithm(&self) -> Algorithm {
        Algorithm::EdDSA
    }
}

struct EdVerifier(UnparsedPublicKey<Vec<u8>>);

impl Verifier<Vec<u8>> for EdVerifier {
    fn verify(&self, message: &[u8], signature: &Vec<u8>) -> Result<(), SignatureError> {
        self.0
            .verify(message, signature)
            .map_err(|_| SignatureError::new())
    }
}

impl JwtVerifier for EdVerifier {
    fn algorithm(&self) -> Algorithm {
        Algorithm::EdDSA
    }
}

fn signer_factory(algorithm: &Algorithm, key: &EncodingKey) -> JwtResult<Box<dyn JwtSigner>> {
    if *algorithm != Algorithm::EdDSA {
        return Err(ErrorKind::InvalidAlgorithm.into());
    }
    let pair = Ed25519KeyPair::from_pkcs8(key.as_bytes()).map_err(|_| ErrorKind::InvalidEddsaKey)?;
    Ok(Box::new(EdSigner(pair)))
}

fn verifier_factory(algorithm: &Algorithm, key: &DecodingKey) -> JwtResult<Box<dyn JwtVerifier>> {
    if *algorithm != Algorithm::EdDSA {
        return Err(ErrorKind::InvalidAlgorithm.into());
    }
    let public = key.try_get_as_bytes()?.to_vec();
    Ok(Box::new(EdVerifier(UnparsedPublicKey::new(&ED25519, public))))
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret as _;

    use super::*;
    use crate::clock::wall_now;

    fn keys(count: u64) -> Keys {
        let now = wall_now();
        let records = (0..count).map(|i| SigningKey::generate(now + Millis(i)).unwrap());
        Keys::new("fleet".to_owned(), records.collect()).unwrap()
    }

    fn token(keys: &Keys, lifetime: Millis) -> String {
        let now = wall_now();
        let token = keys.issue("ada", Uuid::nil(), now, now + lifetime).unwrap();
        token.expose_secret().to_owned()
    }

    #[test]
    fn a_token_is_taken_as_it_was_issued_and_no_other() {
        let keys = keys(1);
        let good = token(&keys, Millis::from_secs(60));
        let claims = keys.verify(&good).unwrap();
        assert_eq!((claims.sub.as_str(), claims.sid), ("ada", Uuid::nil()));
        // Any character changed: header, claims or signature.
        for at in 0..good.len() {
            let mut bytes = good.clone().into_bytes();
            bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
            let bad = String::from_utf8(bytes).unwrap();
            // The last character of base64 has bits that say nothing; a strict decoder refuses them all the same.
            assert!(keys.verify(&bad).is_err(), "character {at}");
        }
        assert!(keys.verify("").is_err());
        assert!(keys.verify(&"x".repeat(TOKEN_BYTES_MAX + 1)).is_err());
    }

    #[test]
    fn other_algorithms_are_refused_whatever_the_token_says() {
        let keys = keys(1);
        let good = token(&keys, Millis::from_secs(60));
        let claims = good.split('.').nth(1).unwrap();
        let kid = &keys.records()[0].kid;
        for alg in ["none", "None", "HS256", "RS256"] {
            let header = format!(r#"{{"alg":"{alg}","typ":"JWT","kid":"{kid}"}}"#);
            let header = URL_SAFE_NO_PAD.encode(header);
            // As HMAC by the public key, which everybody knows.
            for signature in ["", "AAAA"] {
                assert!(
                    keys.verify(&format!("{header}.{claims}.{signature}")).is_err(),
                    "{alg}"
                );
            }
        }
    }

    #[test]
    fn expired_tokens_and_those_of_other_fleets_are_refused() {
        let keys = keys(1);
        let now = wall_now();
        let expired = keys
            .issue("ada", Uuid::nil(), now, WallTime(now.0 - 2_000))
            .unwrap();
        assert_eq!(keys.verify(expired.expose_secret()), Err("the token has expired"));
        let other = Keys::new("other fleet".to_owned(), keys.records().to_vec()).unwrap();
        assert!(keys.verify(&token(&other, Millis::from_secs(60))).is_err());
    }

    #[test]
    fn a_rotated_key_is_known_until_it_is_forgotten() {
        let one = keys(1);
        let good = token(&one, Millis::from_secs(60));
        let mut records = one.records().to_vec();
        records.push(SigningKey::generate(wall_now() + Millis(10)).unwrap());
        let both = Keys::new("fleet".to_owned(), records.clone()).unwrap();
        assert!(both.verify(&good).is_ok());
        assert_eq!(both.published().len(), 2);
        let newer = token(&both, Millis::from_secs(60));
        assert!(one.verify(&newer).is_err(), "the newest signs");
        let after = Keys::new("fleet".to_owned(), records.split_off(1)).unwrap();
        assert!(after.verify(&good).is_err());
        assert!(after.verify(&newer).is_ok());
    }

    #[test]
    fn a_key_shows_its_name_only() {
        let key = SigningKey::generate(wall_now()).unwrap();
        assert!(!format!("{key:?}").contains(key.secret.as_deref().unwrap()));
    }
}
