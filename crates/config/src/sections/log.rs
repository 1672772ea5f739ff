//! What is logged.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::section::section;

section! {
    /// What is logged.
    pub struct Log {
        /// How much: a level (`error`, `warn`, `info`, `debug`, `trace`), or levels by crate, as in
        /// `info,hotswap_agent=debug`.
        #[schemars(extend("x-live" = true, "x-variable" = "HOTSWAP_LOG"))]
        filter: String = "info".to_owned(),
        /// Lines for people, or JSON for programs; `auto` writes lines to a terminal and JSON elsewhere.
        format: LogFormat = LogFormat::Auto,
    }
}

/// How a line of the log is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum LogFormat {
    /// Lines to a terminal, JSON elsewhere.
    Auto,
    /// Lines for people.
    Text,
    /// One JSON object a line.
    Json,
}
