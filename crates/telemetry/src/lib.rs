//! What server and agent show of themselves.
//!
//! [`exposition`] is for whoever scrapes: metrics are read when they are asked for, so that what runs counts in plain
//! atomics and knows nothing of names and labels. [`process`] is what the operating system says of this process.
//! [`otlp`] sends spans to a receiver of OpenTelemetry's protocol, [`metrics`] what a scrape would show.

pub mod exposition;
pub mod metrics;
pub mod otlp;
pub mod process;
mod receiver;
