//! Exit codes that scripts may rely on.

use std::process::ExitCode;

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// What was asked for is done.
    Done,
    /// The deployment failed or was rolled back, or the server could not do it.
    Failed,
    /// The request itself is at fault, by the command line's rules or the server's.
    Usage,
    /// The server could not be reached.
    Unreachable,
    /// Somebody pressed Ctrl-C before the end was known.
    Interrupted,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(match exit {
            Exit::Done => 0,
            Exit::Failed => 1,
            // The code that clap uses.
            Exit::Usage => 2,
            Exit::Unreachable => 3,
            // As a shell reports a process that SIGINT ended.
            Exit::Interrupted => 130,
        })
    }
}

/// The part of `--help` about them.
pub(crate) const HELP: &str = "\
Exit codes:
  0  done
  1  the deployment failed or rolled back, or the server failed
  2  usage: the request itself is at fault
  3  the server is out of reach";
