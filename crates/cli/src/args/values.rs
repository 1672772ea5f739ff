//! Words about modules' values.

use clap::Args;

use super::fleet::pair;

#[derive(Debug, Args)]
pub(crate) struct GetValues {
    /// The module's name
    pub(crate) name: String,
    /// The environment, in any case
    #[arg(long, visible_alias = "environment", value_name = "ENV")]
    pub(crate) env: String,
}

#[derive(Debug, Args)]
pub(crate) struct SetValues {
    /// The module's name
    pub(crate) name: String,
    /// KEY=VALUE sets, KEY- takes back; env:NAME and file:NAME are secrets that each node puts in
    #[arg(required = true, value_name = "KEY=VALUE|KEY-", value_parser = pair)]
    pub(crate) values: Vec<(String, Option<String>)>,
    /// The environment, in any case
    #[arg(long, visible_alias = "environment", value_name = "ENV")]
    pub(crate) env: String,
}
