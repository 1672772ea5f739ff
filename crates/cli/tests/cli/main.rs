//! The real binary, from outside: what it writes, and how it exits.

mod faults;
mod fleet;
mod people;
mod signing;
mod operation;
mod support;
mod with_a_server;
mod without_a_server;
