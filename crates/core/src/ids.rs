//! Names and identities, validated where they are made.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Longest module name, in characters.
pub const MODULE_NAME_LEN_MAX: usize = 64;
/// Shortest module name, in characters.
pub const MODULE_NAME_LEN_MIN: usize = 3;
/// Longest environment name, in characters.
pub const ENVIRONMENT_NAME_LEN_MAX: usize = 64;
/// Longest node id, in characters: the longest DNS name.
pub const NODE_ID_LEN_MAX: usize = 253;

/// Why a name or an id was refused; reads after "invalid …:".
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidName {
    /// A module name outside 3–64 of `a-z 0-9 -`, starting and ending alphanumeric.
    #[error(
        "module name {0:?} must be {MODULE_NAME_LEN_MIN} to {MODULE_NAME_LEN_MAX} characters of a-z, 0-9 and -, \
         starting and ending with a letter or digit"
    )]
    Module(String),
    /// An environment name that is empty, too long or not plain.
    #[error(
        "environment name {0:?} must be 1 to {ENVIRONMENT_NAME_LEN_MAX} characters of letters, digits, - and _, \
         starting with a letter"
    )]
    Environment(String),
    /// A node id that is empty, too long or not plain.
    #[error(
        "node id {0:?} must be 1 to {NODE_ID_LEN_MAX} characters of letters, digits, '.', - and _, \
         starting with a letter or digit"
    )]
    Node(String),
    /// A digest that is not 64 hexadecimal digits.
    #[error("digest {0:?} must be sha256: and 64 hexadecimal digits")]
    Digest(String),
}

macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident, $variant:ident, $check:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = InvalidName;
            fn from_str(text: &str) -> Result<Self, InvalidName> {
                let check: fn(&str) -> bool = $check;
                if check(text) { Ok(Self(text.to_owned())) } else { Err(InvalidName::$variant(shorten(text))) }
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidName;
            fn try_from(text: String) -> Result<Self, InvalidName> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

/// An error message repeats at most this much of a bad name.
const ECHO_LEN_MAX: usize = 80;

fn shorten(text: &str) -> String {
    text.chars().take(ECHO_LEN_MAX).collect()
}

name_type!(
    /// The name of a module, e.g. `payment-processor`.
    ModuleName,
    Module,
    |text| {
        let alphanumeric = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        let bytes = text.as_bytes();
        (MODULE_NAME_LEN_MIN..=MODULE_NAME_LEN_MAX).contains(&bytes.len())
            && bytes.iter().all(|&b| alphanumeric(b) || b == b'-')
            && alphanumeric(bytes[0])
            && alphanumeric(bytes[bytes.len() - 1])
    }
);

name_type!(
    /// The name of an environment, e.g. `Production`. Looked up in any case, shown as configured.
    EnvName,
    Environment,
    |text| {
        (1..=ENVIRONMENT_NAME_LEN_MAX).contains(&text.len())
            && text.starts_with(|c: char| c.is_ascii_alphabetic())
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    }
);

name_type!(
    /// The identity of a node, e.g. its host name.
    NodeId,
    Node,
    |text| {
        (1..=NODE_ID_LEN_MAX).contains(&text.len())
            && text.starts_with(|c: char| c.is_ascii_alphanumeric())
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
    }
);

/// The SHA-256 digest of a package file.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// The first twelve hexadecimal digits, for people.
    pub fn short(&self) -> String {
        self.hex()[..12].to_owned()
    }

    /// The 64 hexadecimal digits, without the `sha256:`.
    pub fn hex(&self) -> String {
        use fmt::Write as _;
        let mut hex = String::with_capacity(64);
        for byte in self.0 {
            write!(hex, "{byte:02x}").expect("writing to a string cannot fail");
        }
        hex
    }
}

/// The part of a digest that a configuration's number goes into, see [`ReleaseRef::id`].
const NUMBERED: std::ops::Range<usize> = 24..32;

impl Digest {
    /// The name of what runs of this package under a configuration's number; with 0 it is the digest itself. Two such
    /// names are equal by chance only where two packages' digests agree in their first 24 bytes.
    pub fn under(self, config: u64) -> Self {
        let mut bytes = self.0;
        for (byte, number) in bytes[NUMBERED].iter_mut().zip(config.to_be_bytes()) {
            *byte ^= number;
        }
        Self(bytes)
    }

    /// The configuration's number, where `id` names what runs of this package.
    pub fn config_of(&self, id: &Self) -> Option<u64> {
        if self.0[..NUMBERED.start] != id.0[..NUMBERED.start] {
            return None;
        }
        let mut number = [0; 8];
        for ((number, ours), theirs) in number.iter_mut().zip(&self.0[NUMBERED]).zip(&id.0[NUMBERED]) {
            *number = ours ^ theirs;
        }
        Some(u64::from_be_bytes(number))
    }
}

impl FromStr for Digest {
    type Err = InvalidName;
    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let invalid = || InvalidName::Digest(shorten(text));
        let hex = text.strip_prefix("sha256:").unwrap_or(text);
        if hex.len() != 64 || !hex.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(invalid());
        }
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(hex.as_bytes().chunks_exact(2)) {
            let pair = std::str::from_utf8(pair).map_err(|_| invalid())?;
            *byte = u8::from_str_radix(pair, 16).map_err(|_| invalid())?;
        }
        Ok(Self(bytes))
    }
}

impl TryFrom<String> for Digest {
    type Error = InvalidName;
    fn try_from(text: String) -> Result<Self, InvalidName> {
        text.parse()
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> String {
        digest.to_string()
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.short())
    }
}

macro_rules! uuid_type {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub struct $name(pub Uuid);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = uuid::Error;
            fn from_str(text: &str) -> Result<Self, uuid::Error> {
                text.parse().map(Self)
            }
        }
    };
}

uuid_type!(
    /// The identity of a deployment: the contract's `executionId`.
    DeploymentId
);
uuid_type!(
    /// The identity of a fleet, made once when its store is made; nodes refuse specs of another.
    FleetId
);

/// The identity of a rollout, counted by the log: it names which rollout put a content on a node.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Default)]
#[serde(transparent)]
pub struct RolloutId(pub u64);

impl fmt::Display for RolloutId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "r{}", self.0)
    }
}

impl fmt::Debug for RolloutId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// One run of an agent process: its counters start from zero with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Default)]
#[serde(transparent)]
pub struct Incarnation(pub u64);

/// A release as the fleet knows it: version and bytes, with the configuration revision it runs under.
/// Stable, candidate, veto and hold name this, not a bare version.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ReleaseRef {
    /// Semantic version.
    pub version: semver::Version,
    /// Digest of the package file.
    pub digest: Digest,
    /// Configuration revision, 0 where none was ever set.
    #[serde(default)]
    pub config: u64,
}

impl ReleaseRef {
    /// What names this release, with its configuration, wherever it runs: in routes, reports and evidence. Without a
    /// configuration it is the package's digest.
    pub fn id(&self) -> Digest {
        self.digest.under(self.config)
    }

    /// The same release under another configuration.
    pub fn under(&self, config: u64) -> Self {
        Self {
            config,
            ..self.clone()
        }
    }

    /// Whether both are of one package, whatever their configurations.
    pub fn is_of_package(&self, other: &Self) -> bool {
        self.digest == other.digest && self.version == other.version
    }
}

impl fmt::Display for ReleaseRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.config {
            0 => write!(f, "{}", self.version),
            revision => write!(f, "{}@{revision}", self.version),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_runs_is_named_by_package_and_configuration() {
        let package = Digest([7; 32]);
        assert_eq!(package.under(0), package);
        let (first, second) = (package.under(1), package.under(u64::MAX));
        assert!(first != second && first != package);
        assert_eq!(package.config_of(&second), Some(u64::MAX));
        assert_eq!(package.config_of(&package), Some(0));
        assert_eq!(Digest([8; 32]).config_of(&first), None);
    }
}
