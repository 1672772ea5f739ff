//! eBPF objects as modules: their programs are loaded, pinned, and swapped at their hooks without a packet that neither
//! version sees.
//!
//! Everything that must outlive the agent is a file under `bpffs/hotswap/NODE/MODULE/`: a link for each hook, the maps
//! that versions carry on, and in a folder of each loaded version its programs. A swap is one update of a link, which
//! names the program that it replaces. Whoever comes after an agent that was killed or replaced finds the links, and
//! the programs in them, where they were.

mod config;
mod counting;
mod elf;
mod hook;
mod host;
mod instance;
mod load;
mod migrate;
mod netlink;
mod object;
mod pins;
mod probe;
mod sys;
mod tracepoint;

use hotswap_core::causes::with_causes as told;

pub use config::{BPFFS, EbpfHostConfig};
pub use host::{EbpfHost, EbpfHostError, is_bpffs};
pub use object::{Inspected, inspect};
pub use tracepoint::has_tracefs;
