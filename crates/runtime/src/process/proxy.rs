//! One request on its way through a process, from its head to the answer's last byte.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, Uri, Version, header};
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep};
use tokio_util::sync::WaitForCancellationFutureOwned;

use super::pool::Sender;
use super::state::Serving;
use crate::body::{Body, BodyError};
use crate::failure::Failure;
use crate::places::Place;

/// Connections that are tried for a request that was not sent on any of them.
const TRIES_MAX: usize = 8;
/// What speaks of one connection only, besides what `connection` itself names.
const OF_A_CONNECTION: [HeaderName; 8] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];
const VIA: HeaderValue = HeaderValue::from_static("1.1 hotswap");
/// What a process that gets no host name is told.
const NO_HOST: HeaderValue = HeaderValue::from_static("localhost");

/// Serves one request until the answer's head; its body holds the place until it ends.
pub(super) async fn serve(serving: Arc<Serving>, request: Request<Body>) -> Result<Response<Body>, Failure> {
    if request.method() == Method::CONNECT {
        return Err(Failure::NotRouted);
    }
    let Some(place) = serving.places.enter().await? else {
        return Err(Failure::Closed(Box::new(request)));
    };
    let limit = serving.manifest.limits.time.0;
    let deadline = Instant::now() + limit;
    let cut = serving.places.cut.clone();
    let answered = tokio::select! {
        answered = exchange(&serving, outgoing(request)) => answered,
        () = tokio::time::sleep_until(deadline) => Err(Failure::TimedOut { limit }),
        () = cut.cancelled() => {
            serving.places.request_cut();
            Err(Failure::Cut)
        }
    };
    match answered {
        Ok((response, sender)) => Ok(incoming(serving, place, deadline, response, sender)),
        Err(failure) => {
            if matches!(failure, Failure::NoAnswer(_) | Failure::TimedOut { .. }) {
                serving.lost(&failure);
            }
            Err(failure)
        }
    }
}

/// Sends a request and gets its answer's head. One that was not sent goes to another connection. One that was, and
/// whose connection had been used before and ended without a byte of an answer, goes to another once, if that can do
/// no harm: the process may have closed the connection in the same moment.
async fn exchange(
    serving: &Serving,
    mut request: Request<Body>,
) -> Result<(Response<Incoming>, Sender), Failure> {
    let mut reuse = true;
    for _ in 0..TRIES_MAX {
        let kept = if reuse { serving.pool.take() } else { None };
        let is_used = kept.is_some();
        let mut sender = match kept {
            Some(sender) => sender,
            None => serving
                .pool
                .connect()
                .await
                .map_err(|error| unconnected(&error))?,
        };
        if sender.ready().await.is_err() {
            continue;
        }
        let spare = if is_used { again(&request) } else { None };
        let mut error = match sender.try_send_request(request).await {
            Ok(response) => return Ok((response, sender)),
            Err(error) => error,
        };
        if let Some(unsent) = error.take_message() {
            request = unsent;
            continue;
        }
        request = spare.ok_or_else(|| Failure::NoAnswer(error.error().to_string()))?;
        reuse = false;
    }
    Err(Failure::NoAnswer("it closes every connection".to_owned()))
}

fn unconnected(error: &std::io::Error) -> Failure {
    Failure::NotStarted(format!("the process can't be reached: {error}"))
}

/// The same request once more, if it has no body and asks for nothing to be done.
fn again(request: &Request<Body>) -> Option<Request<Body>> {
    let harmless = request.method().is_safe() && request.body().is_end_stream();
    harmless.then(|| {
        let mut same = Request::new(Body::empty());
        *same.method_mut() = request.method().clone();
        *same.uri_mut() = request.uri().clone();
        *same.headers_mut() = request.headers().clone();
        same
    })
}

/// A request as the process gets it.
fn outgoing(request: Request<Body>) -> Request<Body> {
    let (head, body) = request.into_parts();
    let mut headers = head.headers;
    strip(&mut headers);
    // The body comes without being waited for.
    headers.remove(header::EXPECT);
    if !headers.contains_key(header::HOST) {
        let host = head
            .uri
            .authority()
            .and_then(|at| HeaderValue::from_str(at.as_str()).ok());
        headers.insert(header::HOST, host.unwrap_or(NO_HOST));
    }
    headers.append(header::VIA, VIA);
    let mut request = Request::new(body);
    *request.uri_mut() = head
        .uri
        .path_and_query()
        .map_or_else(Uri::default, |path| Uri::from(path.clone()));
    *request.method_mut() = head.method;
    *request.version_mut() = Version::HTTP_11;
    *request.headers_mut() = headers;
    request
}

fn strip(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|names| names.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in named.iter().chain(&OF_A_CONNECTION) {
        headers.remove(name);
    }
}

/// An answer as the client gets it.
fn incoming(
    serving: Arc<Serving>,
    place: Place,
    deadline: Instant,
    response: Response<Incoming>,
    sender: Sender,
) -> Response<Body> {
    let (mut head, body) = response.into_parts();
    strip(&mut head.headers);
    let answer = Answer {
        body,
        sender: Some(sender),
        serving,
        _place: place,
        deadline,
        limits: None,
    };
    // Dropped here, an answer that has ended gives its connection back.
    let body = if answer.body.is_end_stream() {
        Body::empty()
    } else {
        Body::boxed(answer)
    };
    Response::from_parts(head, body)
}

/// The body of an answer, and what is given back when it ends.
struct Answer {
    body: Incoming,
    sender: Option<Sender>,
    serving: Arc<Serving>,
    _place: Place,
    deadline: Instant,
    /// What ends an answer that stalls, made when it first does.
    limits: Option<Pin<Box<Limits>>>,
}

struct Limits {
    time: Pin<Box<Sleep>>,
    cut: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl http_body::Body for Answer {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) {
            return Poll::Ready(frame.map(|frame| {
                frame.map_err(|error| {
                    self.sender = None;
                    BodyError::Module(error.to_string())
                })
            }));
        }
        let places = &self.serving.places;
        let (deadline, cut) = (self.deadline, places.cut.clone());
        let limits = self.limits.get_or_insert_with(|| {
            Box::pin(Limits {
                time: Box::pin(tokio::time::sleep_until(deadline)),
                cut: Box::pin(cut.cancelled_owned()),
            })
        });
        let ended = if limits.cut.as_mut().poll(cx).is_ready() {
            self.serving.places.request_cut();
            "it was cut when its release was drained".to_owned()
        } else if limits.time.as_mut().poll(cx).is_ready() {
            let limit = self.serving.manifest.limits.time.0;
            self.serving.lost(&Failure::TimedOut { limit });
            format!("it took longer than {limit:?}")
        } else {
            return Poll::Pending;
        };
        self.sender = None;
        Poll::Ready(Some(Err(BodyError::Module(ended))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        if let Some(sender) = self.sender.take()
            && self.body.is_end_stream()
        {
            self.serving.pool.put(sender);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_gets_what_is_meant_for_it_and_nothing_of_the_connection() {
        let request = Request::builder()
            .method("POST")
            .uri("http://pay.example.com/pay?x=1")
            .header("connection", "close, x-private")
            .header("x-private", "1")
            .header("keep-alive", "timeout=5")
            .header("upgrade", "websocket")
            .header("expect", "100-continue")
            .header("transfer-encoding", "chunked")
            .header("x-public", "1")
            .body(Body::from("text"))
            .unwrap();
        assert!(again(&request).is_none());
        let sent = outgoing(request);
        assert_eq!(sent.uri(), "/pay?x=1");
        let mut names: Vec<&str> = sent.headers().keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["host", "via", "x-public"]);
        assert_eq!(sent.headers()["host"], "pay.example.com");
    }

    #[test]
    fn only_what_does_no_harm_is_sent_again() {
        let request = |method: &str, body: &'static str| {
            Request::builder()
                .method(method)
                .uri("/")
                .body(Body::from(body))
                .unwrap()
        };
        assert!(again(&request("GET", "")).is_some());
        for (method, body) in [("GET", "x"), ("POST", ""), ("DELETE", "")] {
            assert!(again(&request(method, body)).is_none(), "{method} {body}");
        }
    }
}
