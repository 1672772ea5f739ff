//! The configuration of servers and agents.
//!
//! Four layers, each over the one before: defaults, `hotswap.toml`, `HOTSWAP_*` variables, flags. [`load`] merges
//! them into one typed [`Config`] that remembers where each value came from, or says everything that is wrong with
//! them at once. A key is a documented field of a section in [`sections`]; its name in the file, its variable, its
//! place in the schema, in `hotswap init`'s file and in `hotswap config show` all follow from that one line.

mod fault;
mod keys;
mod layers;
mod load;
mod section;
pub mod sections;
mod template;
mod tree;

pub use fault::{ConfigError, Fault};
pub use keys::{Key, Kind, keys, schema};
pub use layers::{FILE_BYTES_MAX, FILE_NAME, Flag, SYSTEM_FILE, Sources};
pub use load::{Changes, Effective, Loaded, load};
pub use sections::Config;
pub use template::template;
pub use tree::Origin;
