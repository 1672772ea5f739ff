//! Spans for an OTLP receiver, by gRPC or HTTP.
//!
//! Spans are made from facts whose beginning and end are known: a deployment lasts longer than a process, so nothing
//! is held open in memory for one. The endpoint, headers, timeout, protocol and compression are the standard
//! `OTEL_EXPORTER_OTLP_*` variables'; what is said here wins over them.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use opentelemetry::trace::{SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState};
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_otlp::{ExporterBuildError, Protocol, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkError;
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanExporter as _, SpanLinks};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::receiver;

/// Spans that wait to be sent; more are dropped and counted. What runs never waits for a receiver.
const WAITING_MAX: usize = 8_192;
/// Spans of one request.
const BATCH_MAX: usize = 512;
/// How long a span may wait for others to go with it.
const LINGER: Duration = Duration::from_millis(500);
/// How long what is left at the end may take.
pub(crate) const LAST_TIME_MAX: Duration = Duration::from_secs(3);

/// Where spans go.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct OtlpConfig {
    /// The receiver's address, as `http://HOST:4317` for gRPC or `http://HOST:4318` for HTTP; by
    /// `OTEL_EXPORTER_OTLP_ENDPOINT` where it is not said.
    pub endpoint: Option<String>,
    /// How; by `OTEL_EXPORTER_OTLP_PROTOCOL` where it is not said, and HTTP where that isn't either, as the standard
    /// has it.
    pub transport: Option<Transport>,
}

/// How spans travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// OTLP over gRPC.
    Grpc,
    /// OTLP over HTTP, in protobuf.
    Http,
}

/// Why spans can't be sent.
#[derive(Debug, thiserror::Error)]
pub enum OtlpError {
    /// The settings.
    #[error("failed to set up the export of traces; look at the OTEL_EXPORTER_OTLP_… variables")]
    Setup(#[from] ExporterBuildError),
    /// The client.
    #[error("failed to set up the export of traces: {0}; look at the OTEL_EXPORTER_OTLP_… variables")]
    Client(String),
    /// The receiver did not take them.
    #[error("the receiver of traces did not take {spans} spans")]
    Export {
        /// How many.
        spans: usize,
        /// Why.
        source: OTelSdkError,
    },
}

/// Who somebody is in a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Kind {
    /// Work of its own.
    #[default]
    Internal,
    /// Answers a request.
    Server,
}

/// A span that has ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Span {
    /// The trace.
    pub trace_id: u128,
    /// Itself.
    pub span_id: u64,
    /// What it is a part of.
    pub parent: Option<u64>,
    /// Whether the parent is another process's.
    pub parent_is_remote: bool,
    /// Its name: one of few.
    pub name: Cow<'static, str>,
    /// Who it is.
    pub kind: Kind,
    /// When it began.
    pub start: SystemTime,
    /// When it ended.
    pub end: SystemTime,
    /// What it is about.
    pub attributes: Vec<(&'static str, String)>,
    /// What went wrong, if something did.
    pub error: Option<String>,
}

impl Span {
    fn into_data(self, scope: &InstrumentationScope) -> SpanData {
        let context = SpanContext::new(
            TraceId::from_bytes(self.trace_id.to_be_bytes()),
            SpanId::from_bytes(self.span_id.to_be_bytes()),
            TraceFlags::SAMPLED,
            false,
            TraceState::NONE,
        );
        SpanData {
            span_context: context,
            parent_span_id: SpanId::from_bytes(self.parent.unwrap_or(0).to_be_bytes()),
            parent_span_is_remote: self.parent_is_remote,
            span_kind: match self.kind {
                Kind::Internal => SpanKind::Internal,
                Kind::Server => SpanKind::Server,
            },
            name: self.name,
            start_time: self.start,
            end_time: self.end.max(self.start),
            attributes: self
                .attributes
                .into_iter()
                .map(|(key, value)| KeyValue::new(key, value))
                .collect(),
            dropped_attributes_count: 0,
            events: SpanEvents::default(),
            links: SpanLinks::default(),
            status: self.error.map_or(Status::Unset, Status::error),
            instrumentation_scope: scope.clone(),
        }
    }
}

/// Sends spans to a receiver.
#[derive(Debug)]
pub struct Exporter {
    inner: opentelemetry_otlp::SpanExporter,
    scope: InstrumentationScope,
}

impl Exporter {
    /// An exporter for one process; call it where tokio runs. `service` and `instance` are who sends; the standard
    /// `OTEL_SERVICE_NAME` and `OTEL_RESOURCE_ATTRIBUTES` add to it.
    ///
    /// # Errors
    /// Settings that can't be.
    pub fn new(config: &OtlpConfig, service: &'static str, instance: &str) -> Result<Self, OtlpError> {
        let builder = opentelemetry_otlp::SpanExporter::builder();
        let mut inner = match (transport(config, "TRACES"), &config.endpoint) {
            (Transport::Grpc, endpoint) => {
                let builder = builder.with_tonic().with_protocol(Protocol::Grpc);
                match endpoint {
                    Some(endpoint) => builder.with_endpoint(endpoint).build()?,
                    None => builder.build()?,
                }
            }
            (Transport::Http, endpoint) => {
                let address = endpoint
                    .clone()
                    .or_else(|| receiver::of_signal("TRACES", "ENDPOINT"));
                let client = receiver::timeout("TRACES")
                    .and_then(|timeout| receiver::http_client(&address.unwrap_or_default(), timeout))
                    .map_err(OtlpError::Client)?;
                let builder = builder
                    .with_http()
                    .with_http_client(client)
                    .with_protocol(Protocol::HttpBinary);
                match endpoint {
                    Some(endpoint) => {
                        let base = endpoint.trim_end_matches('/');
                        builder.with_endpoint(format!("{base}/v1/traces")).build()?
                    }
                    None => builder.build()?,
                }
            }
        };
        inner.set_resource(&resource(service, instance));
        Ok(Self {
            inner,
            scope: InstrumentationScope::builder("hotswap")
                .with_version(env!("CARGO_PKG_VERSION"))
                .build(),
        })
    }

    /// Sends spans; returns once the receiver has taken them.
    ///
    /// # Errors
    /// It did not, within the time that the settings give it.
    pub async fn export(&self, spans: Vec<Span>) -> Result<(), OtlpError> {
        let count = spans.len();
        if count == 0 {
            return Ok(());
        }
        let data = spans
            .into_iter()
            .map(|span| span.into_data(&self.scope))
            .collect();
        self.inner
            .export(data)
            .await
            .map_err(|source| OtlpError::Export { spans: count, source })
    }
}

/// Who sends. The standard `OTEL_SERVICE_NAME` and `OTEL_RESOURCE_ATTRIBUTES` add to it.
pub(crate) fn resource(service: &'static str, instance: &str) -> Resource {
    let mut resource = Resource::builder();
    if said("OTEL_SERVICE_NAME").is_none() {
        resource = resource.with_service_name(service);
    }
    let resource = resource.with_attributes([
        KeyValue::new("service.instance.id", instance.to_owned()),
        KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
    ]);
    resource.build()
}

/// What a variable says, if it says something.
pub(crate) fn said(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// How a signal travels: `TRACES` or `METRICS`.
pub(crate) fn transport(config: &OtlpConfig, signal: &str) -> Transport {
    config.transport.unwrap_or_else(|| {
        let said = said(&format!("OTEL_EXPORTER_OTLP_{signal}_PROTOCOL"))
            .or_else(|| said("OTEL_EXPORTER_OTLP_PROTOCOL"));
        match said.as_deref() {
            Some("grpc") => Transport::Grpc,
            _ => Transport::Http,
        }
    })
}

/// Takes spans from whoever has some and can't wait. Cheap to clone; the clones are one.
#[derive(Clone, Debug)]
pub struct Spans {
    waiting: mpsc::Sender<Span>,
    dropped: Arc<AtomicU64>,
}

/// What [`Spans`] took and nobody sent yet.
#[derive(Debug)]
pub struct WaitingSpans(mpsc::Receiver<Span>);

impl Spans {
    /// A queue, and its end.
    pub fn queue() -> (Self, WaitingSpans) {
        let (waiting, taken) = mpsc::channel(WAITING_MAX);
        let spans = Self {
            waiting,
            dropped: Arc::default(),
        };
        (spans, WaitingSpans(taken))
    }

    /// Gives a span away; where too many wait, it is dropped and counted.
    pub fn give(&self, span: Span) {
        if self.waiting.try_send(span).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Spans that were dropped because too many waited.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

impl WaitingSpans {
    /// Sends what is given until `stop` is cancelled, and then what is left. A batch that a receiver doesn't take is
    /// lost: these spans are of passing interest.
    pub async fn send(mut self, exporter: Exporter, stop: CancellationToken) {
        let mut failing = false;
        loop {
            let mut batch = Vec::new();
            tokio::select! {
                () = stop.cancelled() => break,
                taken = self.0.recv_many(&mut batch, BATCH_MAX) => if taken == 0 { return },
            }
            if batch.len() < BATCH_MAX {
                tokio::select! {
                    () = stop.cancelled() => {}
                    () = tokio::time::sleep(LINGER) => {}
                }
                while batch.len() < BATCH_MAX
                    && let Ok(span) = self.0.try_recv()
                {
                    batch.push(span);
                }
            }
            let result = exporter.export(batch).await;
            report(&result, &mut failing);
        }
        let rest = async {
            loop {
                let mut batch = Vec::new();
                while batch.len() < BATCH_MAX
                    && let Ok(span) = self.0.try_recv()
                {
                    batch.push(span);
                }
                if batch.is_empty() || exporter.export(batch).await.is_err() {
                    return;
                }
            }
        };
        // What can't be sent by then is lost with the process.
        let _ = tokio::time::timeout(LAST_TIME_MAX, rest).await;
    }
}

/// Says once that it fails, and once that it works again.
fn report(result: &Result<(), OtlpError>, failing: &mut bool) {
    match result {
        Err(error) if !*failing => {
            tracing::warn!(error = error as &dyn std::error::Error, "traces are lost");
        }
        Ok(()) if *failing => tracing::info!("traces are taken again"),
        _ => {}
    }
    *failing = result.is_err();
}
