//! What a manifest says of a `process` module: how it is started, known to be ready, and stopped.

use serde::{Deserialize, Serialize};

use crate::units::HumanDuration;

/// How a native server is run. Its listening socket is given to it as descriptor 3 (`LISTEN_FDS`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Process {
    /// What it is started with, after its own name.
    pub arguments: Vec<String>,
    /// How it says that it is ready.
    pub ready: Ready,
    /// The path that answers with a status below 400 once it is ready, where it is asked over HTTP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ready_path: Option<String>,
    /// How long it may take to be ready.
    pub ready_deadline: HumanDuration,
    /// How long it may take to end after SIGTERM, before SIGKILL.
    pub stop_deadline: HumanDuration,
    /// What its listening socket is.
    pub socket: SocketKind,
    /// Processes and threads at once, where the node has control groups.
    pub tasks: u32,
    /// Open files at once.
    pub open_files: u32,
}

/// How a process says that it is ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ready {
    /// It sends `READY=1` to the socket that `NOTIFY_SOCKET` names, as `sd_notify` does.
    #[default]
    Notify,
    /// It answers requests for `ready-path`.
    Http,
}

/// What a process's listening socket is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SocketKind {
    /// A Unix socket, which only the node can reach.
    #[default]
    Unix,
    /// A TCP socket on the loopback, which everybody on the node's machine can reach.
    Tcp,
}

impl Process {
    /// Most arguments.
    pub const ARGUMENTS_MAX: usize = 64;
    /// Longest argument, in bytes.
    pub const ARGUMENT_LEN_MAX: usize = 4_096;
    /// Least and most time to get ready.
    pub const READY_DEADLINE: (HumanDuration, HumanDuration) =
        (HumanDuration::millis(100), HumanDuration::secs(300));
    /// Least and most time to end.
    pub const STOP_DEADLINE: (HumanDuration, HumanDuration) =
        (HumanDuration::millis(10), HumanDuration::secs(60));
    /// Least and most processes and threads.
    pub const TASKS: (u32, u32) = (1, 4_096);
    /// Least and most open files.
    pub const OPEN_FILES: (u32, u32) = (16, 65_536);
}

impl Default for Process {
    fn default() -> Self {
        Self {
            arguments: Vec::new(),
            ready: Ready::default(),
            ready_path: None,
            ready_deadline: HumanDuration::secs(30),
            stop_deadline: HumanDuration::secs(5),
            socket: SocketKind::default(),
            tasks: 64,
            open_files: 1_024,
        }
    }
}
