//! Runs the real binary.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// What a run of the binary came to.
pub(crate) struct Ran {
    /// Its exit code.
    pub(crate) code: i32,
    /// What it wrote to stdout.
    pub(crate) stdout: String,
    /// What it wrote to stderr.
    pub(crate) stderr: String,
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().expect("it ended by itself"),
            stdout: String::from_utf8(output.stdout).expect("stdout is text"),
            stderr: String::from_utf8(output.stderr).expect("stderr is text"),
        }
    }
}

impl Ran {
    /// Asserts its exit code; shows all it wrote otherwise.
    #[track_caller]
    pub(crate) fn exits(self, code: i32) -> Self {
        assert_eq!(
            self.code, code,
            "stdout: {}\nstderr: {}",
            self.stdout, self.stderr
        );
        self
    }

    /// Asserts that stderr has each of these texts.
    #[track_caller]
    pub(crate) fn says(self, texts: &[&str]) -> Self {
        for text in texts {
            assert!(self.stderr.contains(text), "{text:?} is not in: {}", self.stderr);
        }
        self
    }

    /// Asserts that stdout has each of these texts.
    #[track_caller]
    pub(crate) fn shows(self, texts: &[&str]) -> Self {
        for text in texts {
            assert!(self.stdout.contains(text), "{text:?} is not in: {}", self.stdout);
        }
        self
    }

    /// Stdout as JSON.
    #[track_caller]
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout).expect("stdout is JSON")
    }
}

/// The first admin's password of servers that tests start.
pub(crate) const PASSWORD: &str = "correct horse battery";

/// The binary, with nothing of this machine's environment that would change what it does. A server that it starts has
/// the user admin with [`PASSWORD`]; nobody is logged in.
pub(crate) fn hotswap() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hotswap"));
    command.env_remove("NO_COLOR");
    for (variable, _) in std::env::vars_os() {
        if variable.to_str().is_some_and(|name| name.starts_with("HOTSWAP_")) {
            command.env_remove(variable);
        }
    }
    command.env("HOTSWAP_CONFIG_DIR", "/nonexistent/hotswap");
    command.env("HOTSWAP_ADMIN_PASSWORD", PASSWORD);
    command.stdin(Stdio::null());
    command
}

/// Runs it to its end.
pub(crate) fn run(args: &[&str]) -> Ran {
    hotswap().args(args).output().expect("the binary starts").into()
}

/// A folder of this repository's example modules.
pub(crate) fn example(name: &str, version: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../modules")
        .join(name)
        .join(version)
}
