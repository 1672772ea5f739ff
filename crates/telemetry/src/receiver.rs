//! How receivers are spoken to by HTTP.

use std::time::Duration;

use hotswap_transport::{Roots, client_config};

use crate::otlp::said;

/// The standard's timeout.
const TIMEOUT: Duration = Duration::from_secs(10);

/// A client for the receiver at this address, which is trusted by the system's authorities where it speaks HTTPS.
///
/// # Errors
/// A system without authorities where one is needed, in words.
pub(crate) fn http_client(address: &str, timeout: Duration) -> Result<reqwest::Client, String> {
    let roots = if address.starts_with("https:") {
        Roots::System
    } else {
        Roots::Nobody
    };
    let tls = client_config(roots, None, &[]).map_err(|error| error.to_string())?;
    reqwest::Client::builder()
        .timeout(timeout)
        .tls_backend_preconfigured(tls)
        .build()
        .map_err(|error| error.to_string())
}

/// A signal's variable (`TRACES` or `METRICS`), or the one for everything.
pub(crate) fn of_signal(signal: &str, name: &str) -> Option<String> {
    said(&format!("OTEL_EXPORTER_OTLP_{signal}_{name}"))
        .or_else(|| said(&format!("OTEL_EXPORTER_OTLP_{name}")))
}

/// How long a receiver of a signal may take.
///
/// # Errors
/// What is no number of milliseconds.
pub(crate) fn timeout(signal: &str) -> Result<Duration, String> {
    of_signal(signal, "TIMEOUT").map_or(Ok(TIMEOUT), |text| millis(&text))
}

/// A number of milliseconds, as the standard's variables have it.
///
/// # Errors
/// What is none.
pub(crate) fn millis(text: &str) -> Result<Duration, String> {
    let millis = text.trim().parse().map(Duration::from_millis);
    millis.map_err(|_| format!("{text:?} is no number of milliseconds"))
}
