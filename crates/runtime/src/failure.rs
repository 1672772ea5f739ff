//! Why a request got no answer from a module.

use std::time::Duration;

use http::{Request, StatusCode};

use crate::body::Body;

/// Why a request got no answer. Each costs that request alone.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The release was closed before the request began; it comes back whole, for another release.
    #[error("the release is closed")]
    Closed(Box<Request<Body>>),
    /// As many requests as allowed are being served and waiting.
    #[error("too many requests at once")]
    Overloaded {
        /// When to try again.
        retry_after: Duration,
    },
    /// No sandbox could be started for the request.
    #[error("no instance could be started: {0}")]
    NotStarted(String),
    /// The code trapped.
    #[error("the module trapped: {0}")]
    Trapped(String),
    /// It took longer than allowed.
    #[error("the module took longer than {limit:?}")]
    TimedOut {
        /// The limit.
        limit: Duration,
    },
    /// It wanted more memory than allowed.
    #[error("the module wanted more than {limit_bytes} bytes of memory")]
    OutOfMemory {
        /// The limit.
        limit_bytes: u64,
    },
    /// It ended without an answer, or with an answer that isn't one.
    #[error("the module gave no answer: {0}")]
    NoAnswer(String),
    /// The drain's deadline passed.
    #[error("the request was cut when its release was drained")]
    Cut,
    /// Modules of this kind don't answer requests.
    #[error("modules of this kind don't answer requests")]
    NotRouted,
}

impl Failure {
    /// The status that tells a client.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Closed(_) | Self::Overloaded { .. } | Self::NotStarted(_) | Self::Cut => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Self::Trapped(_) | Self::TimedOut { .. } | Self::OutOfMemory { .. } | Self::NoAnswer(_) => {
                StatusCode::INTERNAL_SERVER_ERROR
            }
            Self::NotRouted => StatusCode::NOT_FOUND,
        }
    }

    /// Whether the module's code is to blame and its sandbox was lost.
    pub fn is_trap(&self) -> bool {
        matches!(
            self,
            Self::Trapped(_) | Self::TimedOut { .. } | Self::OutOfMemory { .. }
        )
    }
}
