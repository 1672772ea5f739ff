//! Requests that guests send: to hosts that were asked for and granted, and so many at once and so long at most.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::Uri;
use http_body::Frame;
use http_body_util::BodyExt as _;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use wasmtime_wasi_http::{Error as HttpError, RequestOptions, WasiBody};

/// Requests of a release that are under way at once; more fail at once, so that a module that calls itself ends by
/// its own failures.
const REQUESTS_MAX: usize = 32;
/// Longest times that a guest may ask for.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(5);
const SILENCE_MAX: Duration = Duration::from_secs(30);

/// A response and what drives its connection.
pub(super) type Answer = (
    http::Response<WasiBody>,
    Box<dyn Future<Output = Result<(), HttpError>> + Send>,
);

/// What one release may send.
#[derive(Debug)]
pub(super) struct Outbound {
    hosts: Vec<String>,
    places: Arc<Semaphore>,
}

impl Outbound {
    /// Lets requests to these hosts out, as manifests write them.
    pub(super) fn new(hosts: Vec<String>) -> Self {
        Self {
            hosts,
            places: Arc::new(Semaphore::new(REQUESTS_MAX)),
        }
    }

    /// A place for a request to this address, or why there is none.
    pub(super) fn admit(&self, uri: &Uri) -> Result<OwnedSemaphorePermit, HttpError> {
        if !self.hosts.iter().any(|pattern| covers(pattern, uri)) {
            return Err(HttpError::HttpRequestDenied);
        }
        Arc::clone(&self.places)
            .try_acquire_owned()
            .map_err(|_| HttpError::ConnectionLimitReached)
    }
}

/// Sends a request that was admitted. The place is held until the answer's body is gone.
pub(super) async fn send(
    request: http::Request<WasiBody>,
    options: Option<RequestOptions>,
    place: OwnedSemaphorePermit,
) -> Result<Answer, HttpError> {
    let options = options.unwrap_or_default();
    let within = |asked: Option<Duration>, max: Duration| Some(asked.map_or(max, |asked| asked.min(max)));
    let options = RequestOptions {
        connect_timeout: within(options.connect_timeout, CONNECT_TIME_MAX),
        first_byte_timeout: within(options.first_byte_timeout, SILENCE_MAX),
        between_bytes_timeout: within(options.between_bytes_timeout, SILENCE_MAX),
    };
    let (response, connection) = wasmtime_wasi_http::default_send_request(request, Some(options)).await?;
    let response = response.map(|body| {
        let body = body.boxed_unsync();
        Placed { body, _place: place }.boxed_unsync()
    });
    Ok((response, Box::new(connection)))
}

/// Whether a manifest's pattern covers an address: `host` and `*.domain` at the scheme's own port, `host:port` at that.
fn covers(pattern: &str, uri: &Uri) -> bool {
    let Some(authority) = uri.authority() else {
        return false;
    };
    let own_port = if uri.scheme_str() == Some("https") {
        443
    } else {
        80
    };
    let port = authority.port_u16().unwrap_or(own_port);
    let (name, wanted_port) = match pattern.rsplit_once(':') {
        Some((name, port)) => (name, port.parse().ok()),
        None => (pattern, Some(own_port)),
    };
    let host = authority.host().to_ascii_lowercase();
    let named = match name.strip_prefix("*.") {
        Some(domain) => host
            .strip_suffix(domain)
            .is_some_and(|before| before.len() > 1 && before.ends_with('.')),
        None => host == name,
    };
    named && wanted_port == Some(port)
}

/// A body that holds a place.
struct Placed {
    body: WasiBody,
    _place: OwnedSemaphorePermit,
}

impl http_body::Body for Placed {
    type Data = Bytes;
    type Error = HttpError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, HttpError>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_cover_hosts_and_ports_and_nothing_else() {
        for (pattern, uri, fits) in [
            ("api.example.com", "https://api.example.com/x", true),
            ("api.example.com", "http://API.Example.com/x", true),
            ("api.example.com", "https://api.example.com:8443/x", false),
            ("api.example.com", "http://user@api.example.com/", true),
            ("api.example.com", "http://api.example.com@evil.example/", false),
            ("api.example.com", "http://api.example.com.evil.example/", false),
            ("api.example.com", "http://api.example.com./", false),
            ("api.example.com:8443", "https://api.example.com:8443/x", true),
            ("api.example.com:8443", "https://api.example.com/x", false),
            ("*.example.com", "https://a.example.com/", true),
            ("*.example.com", "https://a.b.example.com/", true),
            ("*.example.com", "https://example.com/", false),
            ("*.example.com", "https://.example.com/", false),
            ("*.example.com", "https://evilexample.com/", false),
            ("127.0.0.1:8080", "http://127.0.0.1:8080/", true),
            ("127.0.0.1:8080", "http://127.0.0.1:8081/", false),
        ] {
            match uri.parse() {
                Ok(parsed) => assert_eq!(covers(pattern, &parsed), fits, "{pattern} {uri}"),
                Err(_) => assert!(!fits, "{uri} does not parse"),
            }
        }
    }

    #[test]
    fn so_many_requests_at_once_and_no_more() {
        let outbound = Outbound::new(vec!["a.example".to_owned()]);
        let uri: Uri = "http://a.example/".parse().unwrap();
        let mut places: Vec<_> = (0..REQUESTS_MAX).map(|_| outbound.admit(&uri).unwrap()).collect();
        assert!(matches!(
            outbound.admit(&uri),
            Err(HttpError::ConnectionLimitReached)
        ));
        places.pop();
        assert!(outbound.admit(&uri).is_ok());
        let other: Uri = "http://b.example/".parse().unwrap();
        assert!(matches!(
            outbound.admit(&other),
            Err(HttpError::HttpRequestDenied)
        ));
    }
}
