//! Metrics for an OTLP receiver, by gRPC or HTTP: what a scrape would show, sent every so often.
//!
//! The registry is read as a scrape reads it ([`read`]), so that both tell the same, and turned into OpenTelemetry's
//! data model ([`model`]) with cumulative sums. Endpoint, headers, timeout and protocol are the standard
//! `OTEL_EXPORTER_OTLP_*` variables' where they aren't said; `OTEL_METRIC_EXPORT_INTERVAL` is the interval.

pub mod model;
pub mod read;
mod send;

pub use send::{MetricsExporter, MetricsOtlpError};
