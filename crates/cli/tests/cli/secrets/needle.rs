//! Secrets, and the shapes that they take where somebody writes them by mistake.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use bytes::Bytes;

/// A shorter needle would be found by chance.
const NEEDLE_BYTES_MIN: usize = 8;
/// Bytes of a private key's secret part: P-256's scalar, Ed25519's seed.
const KEY_BYTES: usize = 32;

/// What nobody may find but where it belongs.
#[derive(Clone, Debug)]
pub(super) struct Secret {
    /// What it is.
    pub(super) name: String,
    /// Every shape, with its name.
    pub(super) shapes: Vec<(&'static str, Vec<u8>)>,
    /// The places that hold it by right. Each must: a search that can't find it there finds it nowhere.
    pub(super) homes: Vec<String>,
}

impl Secret {
    /// A password or a token.
    pub(super) fn text(name: impl Into<String>, text: &str) -> Self {
        Self::new(name, text.as_bytes())
    }

    /// A private key, by the PKCS #8 in which it was made. Its secret part is searched for: every encoding has that.
    pub(super) fn key(name: impl Into<String>, pkcs8: &[u8]) -> Self {
        Self::new(name, private_part(pkcs8))
    }

    /// A private key in PEM.
    pub(super) fn pem(name: impl Into<String>, pem: &str) -> Self {
        let body: String = pem
            .lines()
            .skip_while(|line| !line.contains("PRIVATE KEY"))
            .skip(1)
            .take_while(|line| !line.starts_with('-'))
            .collect();
        Self::key(name, &STANDARD.decode(body).expect("a key in PEM"))
    }

    fn new(name: impl Into<String>, bytes: &[u8]) -> Self {
        let name = name.into();
        assert!(
            bytes.len() >= NEEDLE_BYTES_MIN,
            "{name} is too short to be searched for"
        );
        let mut shapes = vec![("as it is", bytes.to_vec())];
        let digits = |byte: &u8| format!("{byte:02x}");
        let hex: String = bytes.iter().map(digits).collect();
        shapes.push(("in hexadecimal digits", hex.to_uppercase().into_bytes()));
        shapes.push(("in hexadecimal digits", hex.into_bytes()));
        for separator in [", ", ","] {
            let list: Vec<String> = bytes.iter().map(u8::to_string).collect();
            shapes.push(("as a list of numbers", list.join(separator).into_bytes()));
        }
        for shift in 0..3 {
            let [standard, url] = base64_within(bytes, shift);
            shapes.push(("in base64", standard));
            shapes.push(("in base64url", url));
        }
        // As the debug format of buffers writes it, without the quotes.
        let shown = format!("{:?}", Bytes::copy_from_slice(bytes));
        shapes.push(("with escapes", shown.as_bytes()[2..shown.len() - 1].to_vec()));
        let mut known = std::collections::BTreeSet::new();
        shapes.retain(|(_, shape)| known.insert(shape.clone()));
        let homes = Vec::new();
        Self { name, shapes, homes }
    }

    /// Says where it belongs.
    pub(super) fn belongs_in(mut self, homes: &[&str]) -> Self {
        self.homes.extend(homes.iter().map(|&home| home.to_owned()));
        self
    }
}

/// What base64 makes of bytes that begin at this place of a group of three, whatever is around them.
fn base64_within(bytes: &[u8], shift: usize) -> [Vec<u8>; 2] {
    let mut padded = vec![0; shift];
    padded.extend(bytes);
    // Digits that hold bits of the bytes alone.
    let (first, end) = ((shift * 8).div_ceil(6), padded.len() * 8 / 6);
    [STANDARD.encode(&padded), URL_SAFE_NO_PAD.encode(&padded)]
        .map(|text| text.as_bytes()[first..end].to_vec())
}

/// The secret part of a PKCS #8 key: the first octet string of that length.
fn private_part(pkcs8: &[u8]) -> &[u8] {
    let head = [0x04, 0x20];
    let at = pkcs8.windows(2).position(|window| window == head);
    let at = at.expect("a P-256 or an Ed25519 key") + head.len();
    &pkcs8[at..at + KEY_BYTES]
}

#[test]
fn a_secret_is_known_in_base64_wherever_it_lies_in_it() {
    let secret = Secret::text("it", "s3cret-\u{fc}\u{fe}-s3cret");
    for before in ["", "a", "ab", "abc"] {
        let whole = format!("{before}s3cret-\u{fc}\u{fe}-s3cret and more");
        for text in [STANDARD.encode(&whole), URL_SAFE_NO_PAD.encode(&whole)] {
            let found = secret
                .shapes
                .iter()
                .any(|(_, shape)| text.as_bytes().windows(shape.len()).any(|window| window == shape));
            assert!(found, "{before:?} in {text}");
        }
    }
}
