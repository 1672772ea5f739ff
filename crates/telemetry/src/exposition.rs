//! Metrics in the OpenMetrics text format, which Prometheus and everything that speaks to it reads.

use std::convert::Infallible;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

pub use prometheus_client;

/// What [`text`] is.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// Where metrics lie.
pub const PATH: &str = "/metrics";
/// Scrapers at once; more wait.
const CONNECTIONS_MAX: usize = 16;
/// How long a scraper may take to ask, idle time between two scrapes included.
const HEAD_TIMEOUT: Duration = Duration::from_secs(90);
/// How long accepting rests where the system refuses it (no file descriptors left).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Names and values of labels, in the order of their names.
pub type Labels = Vec<(&'static str, String)>;

/// All metrics of a registry as they stand now.
pub fn text(registry: &Registry) -> String {
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, registry).expect("a string takes everything");
    text
}

/// A metric that is listed also while it has no series: dashboards find its name from the beginning, and its first
/// series is an increase.
#[derive(Debug)]
pub struct Listed<M> {
    /// Its name, for counters without `_total`.
    pub name: &'static str,
    /// What it says, for people.
    pub help: &'static str,
    /// Itself.
    pub metric: M,
}

impl<M: EncodeMetric + fmt::Debug + Send + Sync + 'static> Collector for Listed<M> {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let kind = self.metric.metric_type();
        let metric = encoder.encode_descriptor(self.name, self.help, None, kind)?;
        self.metric.encode(metric)
    }
}

/// Writes metrics that are read at the time of the scrape.
#[derive(Debug)]
pub struct Readings<'a>(DescriptorEncoder<'a>);

impl<'a> Readings<'a> {
    /// Writes to a collector's encoder.
    pub fn new(encoder: DescriptorEncoder<'a>) -> Self {
        Self(encoder)
    }

    /// A value that goes up and down, by label.
    ///
    /// # Errors
    /// Those of the encoder.
    pub fn gauges<L: EncodeLabelSet>(
        &mut self,
        name: &str,
        help: &str,
        values: impl IntoIterator<Item = (L, f64)>,
    ) -> fmt::Result {
        let mut metric = self.0.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (labels, value) in values {
            metric.encode_family(&labels)?.encode_gauge(&value)?;
        }
        Ok(())
    }

    /// One value that goes up and down.
    ///
    /// # Errors
    /// Those of the encoder.
    pub fn gauge(&mut self, name: &str, help: &str, value: f64) -> fmt::Result {
        self.0
            .encode_descriptor(name, help, None, MetricType::Gauge)?
            .encode_gauge(&value)
    }

    /// A number that only grows, by label. `_total` is put behind the name.
    ///
    /// # Errors
    /// Those of the encoder.
    pub fn counters<L: EncodeLabelSet>(
        &mut self,
        name: &str,
        help: &str,
        values: impl IntoIterator<Item = (L, f64)>,
    ) -> fmt::Result {
        let mut metric = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (labels, value) in values {
            metric
                .encode_family(&labels)?
                .encode_counter::<NoLabelSet, _, f64>(&value, None)?;
        }
        Ok(())
    }

    /// A number that only grows. `_total` is put behind the name.
    ///
    /// # Errors
    /// Those of the encoder.
    pub fn counter(&mut self, name: &str, help: &str, value: f64) -> fmt::Result {
        self.0
            .encode_descriptor(name, help, None, MetricType::Counter)?
            .encode_counter::<NoLabelSet, _, f64>(&value, None)
    }

    /// Distributions, by label.
    ///
    /// # Errors
    /// Those of the encoder.
    pub fn histograms<L: EncodeLabelSet>(
        &mut self,
        name: &str,
        help: &str,
        values: impl IntoIterator<Item = (L, Distribution)>,
    ) -> fmt::Result {
        let mut metric = self
            .0
            .encode_descriptor(name, help, None, MetricType::Histogram)?;
        for (labels, value) in values {
            metric.encode_family(&labels)?.encode_histogram::<NoLabelSet>(
                value.sum,
                value.buckets.iter().map(|(_, count)| count).sum(),
                &value.buckets,
                None,
            )?;
        }
        Ok(())
    }
}

/// A distribution at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Distribution {
    /// Sum of all values.
    pub sum: f64,
    /// Upper bounds, ascending up to infinity, each with how many values are between the bound before and it.
    pub buckets: Vec<(f64, u64)>,
}

/// Serves metrics, and nothing else, until `stop` is cancelled.
pub async fn serve<F>(listener: TcpListener, read: F, stop: CancellationToken)
where
    F: Fn() -> String + Send + Sync + 'static,
{
    let read = Arc::new(read);
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else {
            return;
        };
        let stream = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "failed to accept a scraper's connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            },
        };
        let (read, stop) = (Arc::clone(&read), stop.clone());
        tokio::spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = connection(stream, &*read) => {}
            }
            drop(place);
        });
    }
}

async fn connection<F: Fn() -> String>(stream: TcpStream, read: &F) {
    let service = service_fn(|request| async move { Ok::<_, Infallible>(answer(&request, read)) });
    let served = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "a scraper's connection ended badly");
    }
}

fn answer<B>(request: &Request<B>, read: impl Fn() -> String) -> Response<Full<Bytes>> {
    if request.uri().path() == PATH {
        let mut response = Response::new(Full::from(read()));
        let kind = header::HeaderValue::from_static(CONTENT_TYPE);
        response.headers_mut().insert(header::CONTENT_TYPE, kind);
        response
    } else {
        let mut response = Response::new(Full::from("metrics are at /metrics\n"));
        *response.status_mut() = StatusCode::NOT_FOUND;
        response
    }
}
