//! Why a request did not do what it should.

use hotswap_transport::UntrustedServer;
use reqwest::StatusCode;
use reqwest::header::{HeaderMap, RETRY_AFTER};
use serde::Deserialize;

/// Most characters of an answer that is no error document.
const ECHO_CHARS_MAX: usize = 200;

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ApiError {
    /// The address is wrong.
    #[error("{url:?} is no server address: {why}")]
    Address { url: String, why: String },
    /// Whom to trust.
    #[error("{which} can't be used: {why}")]
    Authorities { which: String, why: String },
    /// Somebody answers there who isn't trusted.
    #[error("the server at {url} is not trusted: {untrusted}")]
    Untrusted {
        url: String,
        untrusted: Box<UntrustedServer>,
    },
    /// Nobody answers there.
    #[error("the server at {url} is out of reach: {why}")]
    Unreachable { url: String, why: String },
    /// The connection broke under way: the request may have been carried out or not.
    #[error("the connection to the server at {url} broke: {why}")]
    Broken { url: String, why: String },
    /// The server said no.
    #[error("{message}")]
    Refused {
        status: StatusCode,
        message: String,
        /// The server's word for programs.
        code: Option<String>,
        details: Vec<String>,
        /// For the server's log.
        trace_id: Option<String>,
        retry_after: Option<String>,
    },
    /// Something else answered.
    #[error("{url} answered with {what}; is it a hotswap server?")]
    Unexpected { url: String, what: String },
    /// JSON of another shape.
    #[error("the server's answer has another shape than this client knows; are their versions the same?")]
    Shape(#[source] serde_json::Error),
}

/// The contract's error document.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    error: String,
    #[serde(default)]
    details: Option<Vec<String>>,
    #[serde(default)]
    trace_id: Option<String>,
    #[serde(default)]
    code: Option<String>,
}

impl ApiError {
    /// An error of the transport, told in the innermost cause's words.
    pub(super) fn of_transport(url: &str, error: &reqwest::Error) -> Self {
        let url = url.to_owned();
        if let Some(untrusted) = hotswap_transport::untrusted(error) {
            let untrusted = Box::new(untrusted.clone());
            return Self::Untrusted { url, untrusted };
        }
        if hotswap_transport::speaks_no_tls(error) {
            let why = "it doesn't speak HTTPS; perhaps its address begins with http://".to_owned();
            return Self::Unreachable { url, why };
        }
        let connect = error.is_connect();
        let why = if error.is_timeout() {
            "no answer in time".to_owned()
        } else {
            let mut cause: &dyn std::error::Error = error;
            while let Some(inner) = cause.source() {
                cause = inner;
            }
            cause.to_string()
        };
        if connect {
            Self::Unreachable { url, why }
        } else {
            Self::Broken { url, why }
        }
    }

    pub(super) fn refused(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Self {
        let retry_after = headers
            .get(RETRY_AFTER)
            .and_then(|value| value.to_str().ok())
            .map(str::to_owned);
        match serde_json::from_slice::<Document>(body) {
            Ok(document) => Self::Refused {
                status,
                message: document.error,
                code: document.code,
                details: document.details.unwrap_or_default(),
                trace_id: document.trace_id,
                retry_after,
            },
            Err(_) => {
                let text: String = String::from_utf8_lossy(body)
                    .trim()
                    .chars()
                    .take(ECHO_CHARS_MAX)
                    .collect();
                let colon = if text.is_empty() { "" } else { ": " };
                let message = format!("the server answered {status}{colon}{text}");
                Self::Refused {
                    status,
                    message,
                    code: None,
                    details: Vec::new(),
                    trace_id: None,
                    retry_after,
                }
            }
        }
    }

    /// Whether the server may be back soon.
    pub(crate) fn is_out_of_reach(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::Broken { .. })
    }

    /// The status of a refusal.
    pub(crate) fn status(&self) -> Option<u16> {
        match self {
            Self::Refused { status, .. } => Some(status.as_u16()),
            _ => None,
        }
    }
}
