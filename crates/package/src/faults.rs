//! What can be wrong with a manifest.

use std::fmt;

/// One fault: the key it is at, what is wrong there, and what would be right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The key as its author would look for it, e.g. `routes[1].prefix`.
    pub key: String,
    /// What is wrong and what would be right.
    pub problem: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.key, self.problem)
    }
}

/// Why a manifest was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// More bytes than a manifest may have.
    #[error("the manifest has {size} bytes; at most {max} are read")]
    TooLarge {
        /// Bytes that there are.
        size: u64,
        /// Bytes that there may be.
        max: u64,
    },
    /// Not text.
    #[error("the manifest is not UTF-8 text (first bad byte at {offset})")]
    NotText {
        /// Where the first bad byte is.
        offset: usize,
    },
    /// Text that is not TOML; the message shows the line.
    #[error("the manifest is not TOML: {0}")]
    NotToml(String),
    /// Every fault that was found, never none.
    #[error("the manifest has {}: {}", count(.0.len()), join(.0))]
    Faults(Vec<Fault>),
}

fn count(faults: usize) -> String {
    if faults == 1 {
        "1 fault".to_owned()
    } else {
        format!("{faults} faults")
    }
}

fn join(faults: &[Fault]) -> String {
    faults.iter().map(Fault::to_string).collect::<Vec<_>>().join("; ")
}
