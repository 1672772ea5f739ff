//! The real binary, from outside: what it writes, and how it exits.

mod console;
mod demo;
mod ebpf;
mod faults;
mod fleet;
mod kernel;
mod native;
mod operation;
mod people;
mod secrets;
mod sight;
mod signing;
mod support;
mod tls;
mod values;
mod with_a_server;
mod without_a_server;
