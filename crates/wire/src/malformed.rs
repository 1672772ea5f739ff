//! What is wrong with a message, and where in it.

use std::fmt;

/// A message that can't be taken, with the path of the field at fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("malformed message: {path}: {fault}")]
pub struct Malformed {
    /// The field, as `modules[2].releases[0].digest`.
    pub path: String,
    /// What is wrong with it.
    #[source]
    pub fault: Fault,
}

/// What is wrong with a field.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// It has to be there.
    #[error("is missing")]
    Missing,
    /// It has a value that means nothing.
    #[error("{0}")]
    Invalid(String),
    /// Bytes of another length.
    #[error("has {is} bytes, expected {expected}")]
    Length {
        /// How many it has.
        is: usize,
        /// How many it should have.
        expected: usize,
    },
    /// It has more entries or characters than are taken.
    #[error("has {is} entries, at most {max} are taken")]
    TooMany {
        /// How many it has.
        is: usize,
        /// The limit.
        max: usize,
    },
    /// The same key twice.
    #[error("names {0:?} twice")]
    Twice(String),
    /// The other side is newer.
    #[error("is protocol {theirs}, this side speaks up to {ours}: upgrade this side first")]
    Protocol {
        /// What it speaks.
        theirs: u32,
        /// What this side speaks.
        ours: u32,
    },
}

impl Fault {
    /// An invalid value, by the error that parsing it gave.
    pub(crate) fn invalid(error: impl fmt::Display) -> Self {
        Self::Invalid(error.to_string())
    }

    /// This fault at a field.
    pub(crate) fn at(self, field: &str) -> Malformed {
        Malformed {
            path: field.to_owned(),
            fault: self,
        }
    }
}

impl From<Malformed> for tonic::Status {
    fn from(malformed: Malformed) -> Self {
        match malformed.fault {
            Fault::Protocol { .. } => Self::failed_precondition(malformed.to_string()),
            _ => Self::invalid_argument(malformed.to_string()),
        }
    }
}

/// Says where a fault was.
pub(crate) trait At<T> {
    fn at(self, field: &str) -> Result<T, Malformed>;
    fn at_index(self, field: &str, index: usize) -> Result<T, Malformed>;
}

impl<T> At<T> for Result<T, Fault> {
    fn at(self, field: &str) -> Result<T, Malformed> {
        self.map_err(|fault| fault.at(field))
    }
    fn at_index(self, field: &str, index: usize) -> Result<T, Malformed> {
        self.map_err(|fault| fault.at(&format!("{field}[{index}]")))
    }
}

impl<T> At<T> for Result<T, Malformed> {
    fn at(self, field: &str) -> Result<T, Malformed> {
        self.map_err(|inner| Malformed {
            path: format!("{field}.{}", inner.path),
            fault: inner.fault,
        })
    }
    fn at_index(self, field: &str, index: usize) -> Result<T, Malformed> {
        self.map_err(|inner| Malformed {
            path: format!("{field}[{index}].{}", inner.path),
            fault: inner.fault,
        })
    }
}
