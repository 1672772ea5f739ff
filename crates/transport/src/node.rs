//! Who a node's certificate speaks for.

use std::fmt;
use std::str::FromStr;
use std::time::SystemTime;

use rustls_pki_types::CertificateDer;
use x509_parser::extensions::GeneralName;

use crate::certificate::{self, InvalidCertificate, Serial};

/// How a node's name begins.
const SCHEME: &str = "hotswap://node/";
/// Bytes of a node's and of an environment's name, before they are encoded.
const NAME_BYTES_MAX: usize = 253;

/// Who a node's certificate speaks for: `hotswap://node/<environment>/<node>`, with whatever a URI's segment can't hold
/// percent-encoded.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeIdentity {
    /// The node's name.
    pub node: String,
    /// The environment that it is in.
    pub environment: String,
}

/// What is no node's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidNodeIdentity {
    /// Empty or too long.
    #[error("the names of a node and of its environment have 1 to {NAME_BYTES_MAX} bytes")]
    Length,
    /// Not the form.
    #[error("a node is named as {SCHEME}<environment>/<node>")]
    Form,
}

impl NodeIdentity {
    /// As the URI that certificates carry.
    ///
    /// # Errors
    /// A name that is empty or too long.
    pub fn uri(&self) -> Result<String, InvalidNodeIdentity> {
        let mut uri = SCHEME.to_owned();
        encode(&mut uri, &self.environment)?;
        uri.push('/');
        encode(&mut uri, &self.node)?;
        Ok(uri)
    }
}

impl fmt::Display for NodeIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} in {}", self.node, self.environment)
    }
}

impl FromStr for NodeIdentity {
    type Err = InvalidNodeIdentity;

    fn from_str(uri: &str) -> Result<Self, InvalidNodeIdentity> {
        let path = uri.strip_prefix(SCHEME).ok_or(InvalidNodeIdentity::Form)?;
        let (environment, node) = path.split_once('/').ok_or(InvalidNodeIdentity::Form)?;
        let identity = Self {
            node: decode(node)?,
            environment: decode(environment)?,
        };
        // One spelling for each: whoever compares URIs and whoever compares names agree.
        if identity.uri()? == uri {
            Ok(identity)
        } else {
            Err(InvalidNodeIdentity::Form)
        }
    }
}

fn unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

fn encode(uri: &mut String, name: &str) -> Result<(), InvalidNodeIdentity> {
    if name.is_empty() || name.len() > NAME_BYTES_MAX {
        return Err(InvalidNodeIdentity::Length);
    }
    for byte in name.bytes() {
        if unreserved(byte) {
            uri.push(char::from(byte));
        } else {
            uri.push_str(&format!("%{byte:02X}"));
        }
    }
    Ok(())
}

fn decode(segment: &str) -> Result<String, InvalidNodeIdentity> {
    let mut bytes = Vec::with_capacity(segment.len());
    let mut rest = segment.bytes();
    while let Some(byte) = rest.next() {
        if unreserved(byte) {
            bytes.push(byte);
            continue;
        }
        let mut nibble = || rest.next().and_then(|digit| char::from(digit).to_digit(16));
        let (true, Some(high), Some(low)) = (byte == b'%', nibble(), nibble()) else {
            return Err(InvalidNodeIdentity::Form);
        };
        bytes.push(u8::try_from(high << 4 | low).map_err(|_| InvalidNodeIdentity::Form)?);
    }
    String::from_utf8(bytes).map_err(|_| InvalidNodeIdentity::Form)
}

/// What a node's certificate says. Whether it is valid, the handshake judged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerCertificate {
    /// Who it speaks for.
    pub identity: NodeIdentity,
    /// Its number.
    pub serial: Serial,
    /// Until when it holds.
    pub not_after: SystemTime,
}

/// Reads a node's certificate.
///
/// # Errors
/// It isn't one, or doesn't name exactly one node.
pub fn peer_certificate(der: &CertificateDer<'_>) -> Result<PeerCertificate, InvalidCertificate> {
    let certificate = certificate::parse(der)?;
    let names = certificate.subject_alternative_name();
    let names = names.ok().flatten().ok_or(InvalidCertificate::NotANode)?;
    let [GeneralName::URI(uri)] = names.value.general_names.as_slice() else {
        return Err(InvalidCertificate::NotANode);
    };
    Ok(PeerCertificate {
        identity: uri.parse().map_err(|_| InvalidCertificate::NotANode)?,
        serial: certificate::serial(&certificate)?,
        not_after: certificate::end_of(&certificate)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(environment: &str, node: &str) -> NodeIdentity {
        NodeIdentity {
            node: node.to_owned(),
            environment: environment.to_owned(),
        }
    }

    #[test]
    fn a_name_survives_its_way_through_a_uri() {
        for node in ["edge-1", "a/b", "..", "%41", "größe", "x y?#"] {
            let identity = identity("prod", node);
            let uri = identity.uri().unwrap();
            assert!(uri.is_ascii());
            assert_eq!(uri.matches('/').count(), 4, "{uri}");
            assert_eq!(uri.parse(), Ok(identity));
        }
    }

    #[test]
    fn what_names_no_node_or_names_it_otherwise_is_refused() {
        let long = "n".repeat(NAME_BYTES_MAX + 1);
        for (environment, node) in [("", "n"), ("e", ""), ("e", &*long)] {
            assert_eq!(
                identity(environment, node).uri(),
                Err(InvalidNodeIdentity::Length)
            );
        }
        for uri in [
            "hotswap://node/prod",
            "hotswap://node/prod/a/b",
            "hotswap://user/prod/a",
            "https://node/prod/a",
            "hotswap://node/prod/%4",
            "hotswap://node/prod/%+1",
            "hotswap://node/prod/%41",
            "hotswap://node/prod/%2f",
            "hotswap://node/prod/%FF",
            "hotswap://node/prod/a?b",
        ] {
            assert!(uri.parse::<NodeIdentity>().is_err(), "{uri}");
        }
    }
}
