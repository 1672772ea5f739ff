//! Sends metrics, every so often.

use std::time::{Duration, SystemTime};

use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue};
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_client::MetricsServiceClient;
use opentelemetry_sdk::Resource;
use prost::Message as _;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use tonic::metadata::MetadataMap;
use tonic::transport::{Channel, ClientTlsConfig, Endpoint};

use super::{model, read};
use crate::otlp::{LAST_TIME_MAX, OtlpConfig, Transport, resource, said, transport};
use crate::receiver;

/// The standard's interval.
const INTERVAL: Duration = Duration::from_secs(60);
/// Shortest interval that is taken.
const INTERVAL_MIN: Duration = Duration::from_millis(100);

/// Why metrics can't be sent.
#[derive(Debug, thiserror::Error)]
pub enum MetricsOtlpError {
    /// The settings.
    #[error("failed to set up the export of metrics: {0}; look at the OTEL_EXPORTER_OTLP_… variables")]
    Setup(String),
    /// The receiver did not take them.
    #[error("the receiver of metrics did not take them: {0}")]
    Export(String),
}

/// Sends what a registry shows to a receiver.
#[derive(Debug)]
pub struct MetricsExporter {
    way: Way,
    headers: HeaderMap,
    timeout: Duration,
    interval: Duration,
    resource: Resource,
    start: SystemTime,
}

#[derive(Debug)]
enum Way {
    Http(reqwest::Client, String),
    Grpc(Channel),
}

impl MetricsExporter {
    /// An exporter for one process; call it where tokio runs. `None` where `OTEL_METRICS_EXPORTER` is `none`.
    ///
    /// # Errors
    /// Settings that can't be.
    pub fn new(
        config: &OtlpConfig,
        service: &'static str,
        instance: &str,
    ) -> Result<Option<Self>, MetricsOtlpError> {
        if said("OTEL_METRICS_EXPORTER").as_deref() == Some("none") {
            return Ok(None);
        }
        let setup = |problem: &dyn std::fmt::Display| MetricsOtlpError::Setup(problem.to_string());
        let timeout = receiver::timeout("METRICS")
            .map_err(MetricsOtlpError::Setup)?
            .max(INTERVAL_MIN);
        let way = match transport(config, "METRICS") {
            Transport::Grpc => {
                let address = config
                    .endpoint
                    .clone()
                    .or_else(|| receiver::of_signal("METRICS", "ENDPOINT"));
                let address = address.unwrap_or_else(|| "http://localhost:4317".to_owned());
                let secure = address.starts_with("https");
                let mut endpoint = Endpoint::from_shared(address).map_err(|error| setup(&error))?;
                if secure {
                    let tls = ClientTlsConfig::new().with_enabled_roots();
                    endpoint = endpoint.tls_config(tls).map_err(|error| setup(&error))?;
                }
                Way::Grpc(endpoint.timeout(timeout).connect_lazy())
            }
            Transport::Http => {
                let address = address(config);
                let client = receiver::http_client(&address, timeout).map_err(MetricsOtlpError::Setup)?;
                Way::Http(client, address)
            }
        };
        Ok(Some(Self {
            way,
            headers: headers(&receiver::of_signal("METRICS", "HEADERS").unwrap_or_default())?,
            timeout,
            interval: said("OTEL_METRIC_EXPORT_INTERVAL").map_or(Ok(INTERVAL), |text| interval(&text))?,
            resource: resource(service, instance),
            start: SystemTime::now(),
        }))
    }

    /// Sends what is read until `stop` is cancelled, and then once more. What a receiver doesn't take comes again with the
    /// next reading: sums are cumulative.
    pub async fn run(self, read: impl Fn() -> String, stop: CancellationToken) {
        let mut failing = false;
        let mut due = tokio::time::interval(self.interval);
        due.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while stop.run_until_cancelled(due.tick()).await.is_some() {
            let result = self.export(&read()).await;
            match &result {
                Err(error) if !failing => tracing::warn!(%error, "metrics are not taken"),
                Ok(()) if failing => tracing::info!("metrics are taken again"),
                _ => {}
            }
            failing = result.is_err();
        }
        // What can't be sent by then is lost with the process.
        let _ = tokio::time::timeout(LAST_TIME_MAX, self.export(&read())).await;
    }

    /// Sends one reading; returns once the receiver has taken it.
    ///
    /// # Errors
    /// It did not, within the time that the settings give it.
    pub async fn export(&self, text: &str) -> Result<(), MetricsOtlpError> {
        let span = model::Span {
            start: self.start,
            now: SystemTime::now(),
        };
        let request = model::request(read::families(text), &self.resource, span);
        match &self.way {
            Way::Http(client, address) => self.post(client, address, &request).await,
            Way::Grpc(channel) => self.call(channel.clone(), request).await,
        }
    }

    async fn post(
        &self,
        client: &reqwest::Client,
        address: &str,
        request: &ExportMetricsServiceRequest,
    ) -> Result<(), MetricsOtlpError> {
        let sent = client
            .post(address)
            .headers(self.headers.clone())
            .header(CONTENT_TYPE, "application/x-protobuf")
            .body(request.encode_to_vec());
        let answer = sent.send().await.and_then(reqwest::Response::error_for_status);
        answer.map_err(|error| MetricsOtlpError::Export(error.to_string()))?;
        Ok(())
    }

    async fn call(
        &self,
        channel: Channel,
        request: ExportMetricsServiceRequest,
    ) -> Result<(), MetricsOtlpError> {
        let mut request = tonic::Request::new(request);
        *request.metadata_mut() = MetadataMap::from_headers(self.headers.clone());
        request.set_timeout(self.timeout);
        let answer = MetricsServiceClient::new(channel).export(request).await;
        answer.map_err(|status| MetricsOtlpError::Export(status.to_string()))?;
        Ok(())
    }
}

/// Where metrics go by HTTP: the variable for metrics is the whole address, the others are its beginning.
fn address(config: &OtlpConfig) -> String {
    let base = match &config.endpoint {
        Some(endpoint) => endpoint.clone(),
        None => match said("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT") {
            Some(whole) => return whole,
            None => said("OTEL_EXPORTER_OTLP_ENDPOINT").unwrap_or_else(|| "http://localhost:4318".to_owned()),
        },
    };
    format!("{}/v1/metrics", base.trim_end_matches('/'))
}

fn interval(text: &str) -> Result<Duration, MetricsOtlpError> {
    let interval = receiver::millis(text).map_err(MetricsOtlpError::Setup)?;
    Ok(interval.max(INTERVAL_MIN))
}

/// `name=value,name=value`, as the standard has it.
fn headers(text: &str) -> Result<HeaderMap, MetricsOtlpError> {
    let mut headers = HeaderMap::new();
    for pair in text.split(',').map(str::trim).filter(|pair| !pair.is_empty()) {
        // The value may be a secret: it isn't said.
        let wrong = || MetricsOtlpError::Setup("a header is not NAME=VALUE".to_owned());
        let (name, value) = pair.split_once('=').ok_or_else(wrong)?;
        let name = HeaderName::try_from(name.trim()).map_err(|_| wrong())?;
        let mut value = HeaderValue::try_from(value.trim()).map_err(|_| wrong())?;
        value.set_sensitive(true);
        headers.insert(name, value);
    }
    Ok(headers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_pairs_and_what_is_none_is_refused() {
        let read = headers("api-key=abc, x-team = blue ").unwrap();
        assert_eq!(
            (&read["api-key"], &read["x-team"]),
            (&"abc".parse().unwrap(), &"blue".parse().unwrap())
        );
        assert!(headers("").unwrap().is_empty());
        assert!(headers("abc").is_err() && headers("a b=c").is_err());
    }
}
