//! The audit log: who did what, chained so that any change shows.
//!
//! Every event of the log has its entry, written in the event's own transaction and with the event's digest in it; so
//! has every command, taken or refused. Logins, denials, and what is done to users, tokens and keys have theirs. An
//! entry's hash is that of the entry before and its own text: to change one is to change all after it.

mod entry;
mod of_core;
mod verify;

pub use entry::{AuditEntry, AuditKind, AuditQuery, AuditRow, GENESIS, Head, PAGE_MAX, hash_of, record_of};
pub use of_core::{command_named, of_event};
pub(crate) use verify::head_message;
pub use verify::{FAULTS_MAX, Fault, Report, event_digest, verify, verify_file};
