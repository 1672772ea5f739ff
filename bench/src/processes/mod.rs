//! Processes beside this one: servers under measurement, each ended with its owner.

mod api;
mod child;
mod peers;
mod product;

pub(crate) use api::Api;
pub(crate) use child::{Child, free_address};
pub(crate) use peers::Wasmtime;
pub(crate) use product::{Agent, Server, ServerOptions, Speaks};
