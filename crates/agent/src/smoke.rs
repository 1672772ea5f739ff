//! A manifest's smoke checks: requests with the answers that show that a release works. Also the judge's probes.

use std::net::SocketAddr;

use bytes::Bytes;
use hotswap_package::{Manifest, SmokeCheck};
use hotswap_runtime::{Body, Instance};
use http::{Request, Response, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Most bytes of an answer that are looked at; a longer answer fails its check.
const ANSWER_BYTES_MAX: usize = 1 << 20;
/// Most bytes of a wrong answer that a failure repeats.
const ECHO_BYTES_MAX: usize = 120;

/// By which door a check goes.
pub(crate) enum Door<'a> {
    /// Straight to an instance.
    Instance(&'a dyn Instance),
    /// The ingress, by TCP, as a user's request would come.
    Ingress(SocketAddr),
}

/// Runs all checks of a manifest; says how many passed, and what failed, by check.
pub(crate) async fn run_all(door: &Door<'_>, manifest: &Manifest) -> (u32, Vec<String>) {
    let (mut passed, mut failures) = (0, Vec::new());
    for check in &manifest.smoke {
        match run(door, manifest, check).await {
            Ok(()) => passed += 1,
            Err(failure) => failures.push(format!("{}: {failure}", check.name)),
        }
    }
    (passed, failures)
}

/// Runs one check.
pub(crate) async fn run(door: &Door<'_>, manifest: &Manifest, check: &SmokeCheck) -> Result<(), String> {
    let answer = async {
        match door {
            Door::Instance(instance) => {
                let request = request(manifest, check, Body::from(check.body.clone()))?;
                let response = instance
                    .handle(request)
                    .await
                    .map_err(|failure| failure.to_string())?;
                whole(response).await
            }
            Door::Ingress(address) => by_tcp(*address, manifest, check).await,
        }
    };
    let limit = check.timeout.0;
    let answer = timeout(limit, answer)
        .await
        .map_err(|_| format!("no answer within {limit:?}"))??;
    judge(check, &answer)
}

async fn by_tcp(
    address: SocketAddr,
    manifest: &Manifest,
    check: &SmokeCheck,
) -> Result<Response<Bytes>, String> {
    let request = request(manifest, check, Full::new(Bytes::from(check.body.clone())))?;
    let stream = TcpStream::connect(address)
        .await
        .map_err(|error| format!("no connection to {address}: {error}"))?;
    let broken = |error: hyper::Error| format!("no answer: {error}");
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(broken)?;
    let exchange = async { whole(sender.send_request(request).await.map_err(broken)?).await };
    // The connection ends with the exchange, whichever way that ends.
    tokio::select! {
        answer = exchange => answer,
        ended = connection => Err(ended.map_or_else(broken, |()| "the connection ended without an answer".to_owned())),
    }
}

fn request<B>(manifest: &Manifest, check: &SmokeCheck, body: B) -> Result<Request<B>, String> {
    let mut request = Request::builder().method(check.method.as_str()).uri(&check.path);
    for (name, value) in &check.headers {
        request = request.header(name, value);
    }
    if !check.headers.keys().any(|name| name.eq_ignore_ascii_case("host")) {
        let path = check.path.split(['?', '#']).next().unwrap_or_default();
        let route = manifest.routes.iter().find(|route| route.covers_path(path));
        let host = route
            .and_then(|route| route.host.as_deref())
            .unwrap_or("localhost");
        request = request.header(header::HOST, host);
    }
    if !check.body.is_empty() {
        request = request.header(header::CONTENT_LENGTH, check.body.len());
    }
    request
        .body(body)
        .map_err(|error| format!("the check makes no request: {error}"))
}

async fn whole<B>(response: Response<B>) -> Result<Response<Bytes>, String>
where
    B: http_body::Body<Data = Bytes>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let (head, body) = response.into_parts();
    let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await;
    let body = body.map_err(|error| format!("the answer broke off: {error}"))?;
    Ok(Response::from_parts(head, body.to_bytes()))
}

fn judge(check: &SmokeCheck, answer: &Response<Bytes>) -> Result<(), String> {
    let status = answer.status().as_u16();
    let text = String::from_utf8_lossy(answer.body());
    if status != check.expect_status {
        return Err(format!(
            "answered {status}, expected {}{}",
            check.expect_status,
            echo(&text)
        ));
    }
    match &check.expect_body_contains {
        Some(part) if !text.contains(part.as_str()) => {
            Err(format!("the answer does not contain {part:?}{}", echo(&text)))
        }
        _ => Ok(()),
    }
}

fn echo(text: &str) -> String {
    let text: String = text.chars().take(ECHO_BYTES_MAX).collect();
    if text.is_empty() {
        text
    } else {
        format!("; it was {text:?}")
    }
}
