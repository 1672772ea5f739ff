//! What can be wrong with a configuration.

use std::fmt;
use std::path::PathBuf;

use crate::tree::Origin;

/// Names less alike than this (Jaro-Winkler) are no slip of the keyboard.
const ALIKE_MIN: f64 = 0.8;

/// One fault: the key, where it was given, what is wrong, and what would be right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The key, such as `server.http`, or a variable's or flag's name where that is what is wrong.
    pub key: String,
    /// Where it was given.
    pub origin: Origin,
    /// What is wrong, and what would be right.
    pub problem: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.origin {
            Origin::Default => write!(f, "{}: {}", self.key, self.problem),
            Origin::Variable(name) if *name == self.key => write!(f, "{}: {}", self.key, self.problem),
            origin => write!(f, "{} ({origin}): {}", self.key, self.problem),
        }
    }
}

/// Why a configuration was refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file can't be read.
    #[error("{} can't be read", path.display())]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// More bytes than a configuration may have.
    #[error("{} has {size} bytes; at most {max} are read", path.display())]
    TooLarge {
        /// Which file.
        path: PathBuf,
        /// Bytes that there are.
        size: u64,
        /// Bytes that there may be.
        max: u64,
    },
    /// Not TOML; the message shows the line.
    #[error("{} is not TOML: {message}", path.display())]
    NotToml {
        /// Which file.
        path: PathBuf,
        /// What is wrong, and where.
        message: String,
    },
    /// Every fault that was found, never none.
    #[error("the configuration has {}", count(.0.len()))]
    Faults(Vec<Fault>),
}

impl ConfigError {
    /// Every single fault, where there are several kinds of value at fault.
    pub fn faults(&self) -> &[Fault] {
        match self {
            Self::Faults(faults) => faults,
            _ => &[],
        }
    }
}

fn count(faults: usize) -> String {
    match faults {
        1 => "a fault".to_owned(),
        many => format!("{many} faults"),
    }
}

/// The name that is most like what was written, if one is.
pub(crate) fn closest<'a>(written: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    names
        .into_iter()
        .map(|name| (strsim::jaro_winkler(written, name), name))
        .filter(|(alike, _)| *alike >= ALIKE_MIN)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, name)| name)
}
