//! Errors for people: what happened, the details, and what to do next.

use std::fmt::Write as _;
use std::io::{self, Write as _};

use hotswap_transport::UntrustedServer;

use crate::client::ApiError;
use crate::exit::Exit;
use crate::output::{Colour, Output};

/// Something that went wrong, with a next step.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Problem {
    /// What, as a sentence without its end.
    message: String,
    /// Single faults, where there are several.
    details: Vec<String>,
    /// What to do about it.
    next: Vec<String>,
    exit: Exit,
}

impl Problem {
    /// The request itself is at fault.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::new(message, Exit::Usage)
    }

    /// The server or this machine failed.
    pub(crate) fn failed(message: impl Into<String>) -> Self {
        Self::new(message, Exit::Failed)
    }

    /// The server is out of reach.
    pub(crate) fn unreachable(message: impl Into<String>) -> Self {
        Self::new(message, Exit::Unreachable)
    }

    fn new(message: impl Into<String>, exit: Exit) -> Self {
        Self {
            message: message.into(),
            details: Vec::new(),
            next: Vec::new(),
            exit,
        }
    }

    /// With single faults.
    pub(crate) fn details(mut self, details: Vec<String>) -> Self {
        self.details = details;
        self
    }

    /// With a next step.
    pub(crate) fn next(mut self, step: impl Into<String>) -> Self {
        self.next.push(step.into());
        self
    }
}

impl Problem {
    /// Its single faults.
    pub(crate) fn faults(&self) -> &[String] {
        &self.details
    }
}

impl From<&ApiError> for Problem {
    fn from(error: &ApiError) -> Self {
        let message = error.to_string();
        match error {
            ApiError::Address { .. } => {
                Self::usage(message).next("give the server's address: --server URL or HOTSWAP_SERVER")
            }
            ApiError::Unreachable { .. } => Self::unreachable(message)
                .next("is it running? `hotswap server` starts one, `hotswap demo` a whole fleet with it")
                .next("is it elsewhere? --server URL or HOTSWAP_SERVER says where"),
            ApiError::Authorities { .. } => Self::usage(message).next(
                "name the file with the certificate of the server's authority, in PEM: --ca FILE or HOTSWAP_CA",
            ),
            ApiError::Untrusted { untrusted, .. } => distrusted(message, untrusted),
            ApiError::Broken { .. } => Self::unreachable(message)
                .next("`hotswap deployments` shows whether the request was carried out"),
            ApiError::Refused {
                status,
                details,
                trace_id,
                retry_after,
                code,
                ..
            } => {
                let problem = match status.as_u16() {
                    400 if code.as_deref() == Some("https_required") => {
                        Self::usage(message).next("give its address as https://…: --server or HOTSWAP_SERVER")
                    }
                    401 if code.as_deref() == Some("bad_credentials") => Self::usage(message),
                    401 => Self::usage(message)
                        .next("log in with: hotswap login")
                        .next("programs give a token: HOTSWAP_TOKEN=…"),
                    403 if code.as_deref() == Some("password_change_required") => {
                        Self::usage(message).next("log in and choose one with: hotswap login")
                    }
                    403 => {
                        Self::usage(message).next("`hotswap whoami` shows who you are here, and your role")
                    }
                    429 => Self::failed(message).next(format!(
                        "try again in {} s",
                        retry_after.as_deref().unwrap_or("some")
                    )),
                    400..=499 => Self::usage(message),
                    _ => {
                        let problem = Self::failed(message);
                        match trace_id {
                            Some(trace) => {
                                problem.next(format!("the server's log tells more of trace {trace}"))
                            }
                            None => problem,
                        }
                    }
                };
                problem.details(details.clone())
            }
            ApiError::Unexpected { .. } => {
                Self::failed(message).next("the API's address is needed, by default http://127.0.0.1:5000")
            }
            ApiError::Shape(_) => Self::failed(message).next("`-o json` shows the answer as it is"),
        }
    }
}

/// A server whose certificate isn't trusted, and how it may come to be.
fn distrusted(message: String, untrusted: &UntrustedServer) -> Problem {
    let problem = Problem::unreachable(message);
    if !untrusted.unknown_authority() {
        return problem
            .next("if this is the server that you mean, whoever runs it has to give it another certificate");
    }
    let problem = match &untrusted.authority {
        Some(authority) => problem.details(vec![format!(
            "the authority's certificate that came with it has the SHA-256 fingerprint {authority}"
        )]),
        None => problem,
    };
    problem
        .next("a fleet's own authority: copy ca/authority.pem from the server's data folder; the server shows its fingerprint when it starts")
        .next("then trust it: --ca FILE or HOTSWAP_CA; `hotswap login` and `hotswap context set` remember it")
}

/// Whether whoever read our output went away, e.g. `hotswap deployments | head -1`.
pub(crate) fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<io::Error>())
        .any(|cause| cause.kind() == io::ErrorKind::BrokenPipe)
}

/// Writes an error to stderr and says how to exit.
pub(crate) fn show(error: &anyhow::Error, output: &Output) -> Exit {
    let of_api = error
        .chain()
        .find_map(|cause| cause.downcast_ref::<ApiError>())
        .map(Problem::from);
    let problem = error
        .chain()
        .find_map(|cause| cause.downcast_ref::<Problem>())
        .or(of_api.as_ref());
    let mut text = format!("{}{error}\n", output.error_style().paint("error: ", Colour::Red));
    let mut said = error.to_string();
    for cause in error.chain().skip(1) {
        // A cause that is already told adds nothing.
        let cause = cause.to_string();
        if !said.contains(&cause) {
            writeln!(text, "  because: {cause}").expect("writing to a string cannot fail");
            said = cause;
        }
    }
    if let Some(problem) = problem {
        for detail in &problem.details {
            writeln!(text, "  - {detail}").expect("writing to a string cannot fail");
        }
        for step in &problem.next {
            writeln!(
                text,
                "{}{step}",
                output.error_style().paint("next: ", Colour::Cyan)
            )
            .expect("writing to a string cannot fail");
        }
    }
    // With stderr gone there is nobody left to tell.
    drop(io::stderr().write_all(text.as_bytes()));
    problem.map_or(Exit::Failed, |problem| problem.exit)
}
