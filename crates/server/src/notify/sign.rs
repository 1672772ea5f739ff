//! How a receiver knows that a message is ours, and new.

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

/// Carries `v1=` and the signature in hexadecimal digits.
pub const SIGNATURE_HEADER: &str = "hotswap-signature";
/// Carries the time of the attempt, in s since 1970. A receiver refuses what is older than some minutes.
pub const TIMESTAMP_HEADER: &str = "hotswap-timestamp";

/// HMAC-SHA256 of `TIMESTAMP.BODY` under a secret, in hexadecimal digits after `v1=`.
pub fn sign(secret: &str, timestamp: u64, body: &str) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("a key of any length will do");
    mac.update(timestamp.to_string().as_bytes());
    mac.update(b".");
    mac.update(body.as_bytes());
    let digits = mac.finalize().into_bytes();
    let hex: String = digits.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("v1={hex}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_body_time_or_secret_is_another_signature() {
        // `printf '1700000000.{}' | openssl dgst -sha256 -hmac 0123456789abcdef`
        let known = "v1=e4f8e2ecae2295b2ddb2f0b5584c8275e226c0ebe9b3b819e70156bb67122e3e";
        assert_eq!(sign("0123456789abcdef", 1_700_000_000, "{}"), known);
        assert_ne!(sign("0123456789abcdef", 1_700_000_001, "{}"), known);
        assert_ne!(sign("0123456789abcdef", 1_700_000_000, "{ }"), known);
        assert_ne!(sign("0123456789abcdeg", 1_700_000_000, "{}"), known);
    }
}
