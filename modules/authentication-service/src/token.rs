//! Tokens: `subject.role.HMAC`, in plain sight and not to be forged.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// An example's key, in public.
const KEY: &[u8] = b"hotswap example key: nothing real is signed with it";

pub(crate) fn issue(subject: &str, role: &str) -> String {
    use std::fmt::Write as _;
    let mut token = format!("{subject}.{role}");
    let seal = mac(&token).finalize().into_bytes();
    token.push('.');
    for byte in seal {
        write!(token, "{byte:02x}").expect("writing to a string cannot fail");
    }
    token
}

/// Subject and role of a token that was issued here.
pub(crate) fn verified(token: &str) -> Option<(&str, &str)> {
    let (content, seal) = token.rsplit_once('.')?;
    let seal = from_hex(seal)?;
    mac(content).verify_slice(&seal).ok()?;
    content.split_once('.')
}

fn mac(content: &str) -> Hmac<Sha256> {
    let mut mac = Hmac::new_from_slice(KEY).expect("HMAC takes a key of any length");
    mac.update(content.as_bytes());
    mac
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digit = |b: &u8| {
        char::from(*b)
            .to_digit(16)
            .and_then(|digit| u8::try_from(digit).ok())
    };
    let pairs = text.as_bytes().chunks(2);
    pairs
        .map(|pair| Some(digit(pair.first()?)? << 4 | digit(pair.get(1)?)?))
        .collect()
}
