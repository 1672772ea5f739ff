//! Where the two sets of a `SignedData` lie in its bytes.
//!
//! Their elements' order is the one thing that may differ between an encoding and its re-encoding here: `der` sorts
//! by meaning, DER by bytes, and openssl leaves certificates as they were given. So these are looked at as they came.

use std::ops::Range;

/// A constructed element of class "context", number 0.
const CONTEXT_0: u8 = 0xa0;
const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Layout {
    /// The certificates, one after the other; empty without any.
    pub(crate) certificates: Range<usize>,
    /// The signed attributes with their tag and length; empty without any.
    pub(crate) attributes: Range<usize>,
}

struct Element {
    tag: u8,
    start: usize,
    value: Range<usize>,
}

impl Layout {
    /// Of bytes that `der` has read as a `SignedData` of one signer; `None` where they are none.
    pub(crate) fn of(bytes: &[u8]) -> Option<Self> {
        let whole = element(bytes, 0).filter(|whole| whole.tag == SEQUENCE)?;
        let parts = elements(bytes, whole.value)?;
        let certificates = parts.get(3).filter(|part| part.tag == CONTEXT_0);
        let infos = parts.last().filter(|part| part.tag == SET)?;
        let info = element(bytes, infos.value.start).filter(|info| info.tag == SEQUENCE)?;
        let parts = elements(bytes, info.value)?;
        let attributes = parts.get(3).filter(|part| part.tag == CONTEXT_0);
        Some(Self {
            certificates: certificates.map_or(0..0, |part| part.value.clone()),
            attributes: attributes.map_or(0..0, |part| part.start..part.value.end),
        })
    }

    /// The certificates' bytes, each.
    pub(crate) fn certificates<'a>(&self, bytes: &'a [u8]) -> Option<Vec<&'a [u8]>> {
        let parts = elements(bytes, self.certificates.clone())?;
        Some(
            parts
                .iter()
                .map(|part| &bytes[part.start..part.value.end])
                .collect(),
        )
    }

    /// The attributes' bytes, each.
    pub(crate) fn attributes<'a>(&self, bytes: &'a [u8]) -> Option<Vec<&'a [u8]>> {
        let value = element(bytes, self.attributes.start)?.value;
        let parts = elements(bytes, value)?;
        Some(
            parts
                .iter()
                .map(|part| &bytes[part.start..part.value.end])
                .collect(),
        )
    }

    /// What the signature covers: the attributes, with the tag of a set.
    pub(crate) fn signed(&self, bytes: &[u8]) -> Vec<u8> {
        let mut signed = bytes[self.attributes.clone()].to_vec();
        if let Some(tag) = signed.first_mut() {
            *tag = SET;
        }
        signed
    }

    /// Whether two encodings agree outside of these sets.
    pub(crate) fn agrees(&self, one: &[u8], other: &[u8]) -> bool {
        let (first, second) = (&self.certificates, &self.attributes);
        let outside = |bytes: &[u8]| {
            [
                bytes[..first.start].to_vec(),
                bytes[first.end..second.start.max(first.end)].to_vec(),
                bytes[second.end.max(first.end)..].to_vec(),
            ]
        };
        one.len() == other.len() && outside(one) == outside(other)
    }
}

fn elements(bytes: &[u8], within: Range<usize>) -> Option<Vec<Element>> {
    let (mut at, mut all) = (within.start, Vec::new());
    while at < within.end {
        let next = element(bytes, at).filter(|next| next.value.end <= within.end)?;
        at = next.value.end;
        all.push(next);
    }
    Some(all)
}

/// The element that begins at a place; its length is that of DER, at most three bytes long.
fn element(bytes: &[u8], start: usize) -> Option<Element> {
    let (tag, first) = (*bytes.get(start)?, usize::from(*bytes.get(start + 1)?));
    let (length, from) = match first {
        0..=0x7f => (first, start + 2),
        0x81..=0x83 => {
            let from = start + 2 + (first & 0x7f);
            let digits = bytes.get(start + 2..from)?;
            let length = digits.iter().fold(0, |sum, digit| sum << 8 | usize::from(*digit));
            (length, from)
        }
        _ => return None,
    };
    let value = from..from + length;
    (value.end <= bytes.len()).then_some(Element { tag, start, value })
}
