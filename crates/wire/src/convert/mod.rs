//! Between the core's types and what travels.

mod parts;
mod report;
mod session;
mod spec;

#[cfg(test)]
mod tests;

/// Longest text of a host name, an address, a label or a capability, in characters.
const TEXT_LEN_MAX: usize = 512;
/// Most capabilities that a node names.
const CAPABILITIES_MAX: usize = 64;
/// Most releases of one module in a status or a spec.
const RELEASES_MAX: usize = 64;
/// Most failed checks that a smoke run names.
const FAILURES_MAX: usize = 64;
/// Most vetoes in a message.
const VETOES_MAX: usize = 4_096;
/// Most intervals in a message.
const INTERVALS_MAX: usize = 16_384;
