//! One request in one instance, from its head to its last byte.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use http::{HeaderValue, Request, Response, header};
use http_body::{Body as _, Frame};
use tokio::sync::oneshot;
use tokio::time::Sleep;
use tokio_util::sync::WaitForCancellationFutureOwned;
use wasmtime_wasi_http::p2::bindings::http::types::{ErrorCode, Scheme};
use wasmtime_wasi_http::p2::body::HyperOutgoingBody;
use wasmtime_wasi_http::{Error as HttpError, WasiHttpView};

use super::guest::{CallClock, OutOfTime};
use super::instance::Serving;
use super::pool::Worker;

use crate::body::{Body, BodyError};
use crate::failure::Failure;
use crate::kind::BoxFuture;
use crate::places::Place;

/// What a guest that gets no host name is told.
const NO_HOST: HeaderValue = HeaderValue::from_static("localhost");

type Answer = Result<Response<HyperOutgoingBody>, ErrorCode>;

/// A request that is being served. Dropping it ends the guest and frees the instance.
pub(super) struct Call {
    serving: Arc<Serving>,
    _place: Place,
    guest: BoxFuture<'static, (Box<Worker>, wasmtime::Result<()>)>,
    clock: Arc<CallClock>,
    answer: oneshot::Receiver<Answer>,
    begun: Instant,
    /// What ends a call that waits, made when it first does.
    limits: Option<Pin<Box<Limits>>>,
    /// A worker whose guest trapped. It holds the answer's body, and a body whose writer is dropped looks whole: so it
    /// is kept until the failure is told.
    broken: Option<Box<Worker>>,
}

struct Limits {
    time: Pin<Box<Sleep>>,
    cut: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl Call {
    /// Hands a request to a worker.
    pub(super) fn new(
        serving: Arc<Serving>,
        place: Place,
        mut worker: Box<Worker>,
        mut request: Request<Body>,
    ) -> Result<Self, Failure> {
        if request.uri().authority().is_none() && !request.headers().contains_key(header::HOST) {
            request.headers_mut().insert(header::HOST, NO_HOST);
        }
        worker.store.data().trace.begins(request.headers());
        let (sender, answer) = oneshot::channel();
        let mut view = worker.store.data_mut().http();
        let refused = |error: wasmtime::Error| Failure::NoAnswer(error.root_cause().to_string());
        let request = view
            .new_incoming_request(Scheme::Http, request)
            .map_err(refused)?;
        let out = view.new_response_outparam(sender).map_err(refused)?;

        worker.served += 1;
        worker.store.set_epoch_deadline(1);
        let clock = Arc::clone(&worker.store.data().clock);
        clock.reset();
        let guest = async move {
            let result = {
                let Worker { store, proxy, .. } = &mut *worker;
                proxy
                    .wasi_http_incoming_handler()
                    .call_handle(store, request, out)
                    .await
            };
            (worker, result)
        };
        Ok(Self {
            serving,
            _place: place,
            // Epochs make a guest yield. Tokio's budget for its task must not: it would only tear answers apart.
            guest: Box::pin(tokio::task::unconstrained(guest)),
            clock,
            answer,
            begun: Instant::now(),
            limits: None,
            broken: None,
        })
    }

    /// The answer, as soon as there is one. A guest that goes on after it does so in a task of its own.
    pub(super) async fn answer(mut self) -> Result<Response<Body>, Failure> {
        let early = std::future::poll_fn(|cx| match self.poll(cx) {
            Poll::Ready(ended) => Poll::Ready(Err(ended)),
            Poll::Pending => match self.answer.try_recv() {
                Ok(answer) => Poll::Ready(Ok(answer)),
                Err(_) => Poll::Pending,
            },
        })
        .await;
        match early {
            Err(Ok(worker)) => self.whole_answer(worker).await,
            Err(Err(failure)) => Err(failure),
            Ok(Ok(response)) => Ok(self.streamed_answer(response)),
            Ok(Err(code)) => {
                tokio::spawn(self.finish(Arc::default()));
                Err(Failure::NoAnswer(format!("its error code is {code:?}")))
            }
        }
    }

    /// Runs the guest until it ends, waits, or exceeds a limit.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Box<Worker>, Failure>> {
        let entered = Instant::now();
        self.clock.enter(entered);
        let poll = self.guest.as_mut().poll(cx);
        let spent_ns = u64::try_from(entered.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.serving.release.guest_ran(spent_ns);
        let Poll::Ready((worker, result)) = poll else {
            self.clock.leave(spent_ns);
            return self.poll_limits(cx).map(Err);
        };
        Poll::Ready(match result {
            Ok(()) => Ok(worker),
            Err(error) => {
                let failure = self.trapped(&worker, &error);
                self.broken = Some(worker);
                Err(failure)
            }
        })
    }

    fn poll_limits(&mut self, cx: &mut Context<'_>) -> Poll<Failure> {
        let release = &self.serving.release;
        let limit = release.limits.request_time_max;
        let limits = self.limits.get_or_insert_with(|| {
            Box::pin(Limits {
                time: Box::pin(tokio::time::sleep_until((self.begun + limit).into())),
                cut: Box::pin(release.places.cut.clone().cancelled_owned()),
            })
        });
        let failure = if limits.cut.as_mut().poll(cx).is_ready() {
            release.places.request_cut();
            Failure::Cut
        } else if limits.time.as_mut().poll(cx).is_ready() {
            Failure::TimedOut { limit }
        } else {
            return Poll::Pending;
        };
        Poll::Ready(failure)
    }

    fn trapped(&self, worker: &Worker, error: &wasmtime::Error) -> Failure {
        let limits = self.serving.release.limits;
        if error.is::<OutOfTime>() {
            Failure::TimedOut {
                limit: limits.request_time_max,
            }
        } else if worker.store.data().memory.denied {
            Failure::OutOfMemory {
                limit_bytes: limits.memory_bytes_max,
            }
        } else {
            Failure::Trapped(error.root_cause().to_string())
        }
    }

    /// The answer of a guest that has ended: all of it is there, or never will be.
    async fn whole_answer(mut self, worker: Box<Worker>) -> Result<Response<Body>, Failure> {
        let answer = self
            .answer
            .try_recv()
            .map_err(|_| Failure::NoAnswer("it ended without setting one".to_owned()))?;
        let response = match answer {
            Ok(response) => response,
            Err(code) => {
                self.serving.put(worker);
                return Err(Failure::NoAnswer(format!("its error code is {code:?}")));
            }
        };
        let (head, body) = response.into_parts();
        // An instance with an unfinished body in its table is not used again.
        let body = buffered(body).await?;
        self.serving.put(worker);
        Ok(Response::from_parts(head, body))
    }

    /// The answer of a guest that is still writing it.
    fn streamed_answer(self, response: Response<HyperOutgoingBody>) -> Response<Body> {
        let failed = Arc::new(OnceLock::new());
        tokio::spawn(self.finish(Arc::clone(&failed)));
        response.map(|body| Body::boxed(Streamed { body, failed }))
    }

    /// Runs the guest to its end. A failure is told before what the guest holds is dropped, so that a body that ends
    /// by that drop is never taken for a whole one.
    async fn finish(mut self, failed: Arc<OnceLock<String>>) {
        match std::future::poll_fn(|cx| self.poll(cx)).await {
            Ok(worker) => self.serving.put(worker),
            Err(failure) => {
                self.serving.failed(&failure);
                // Set once, here; a second value cannot come.
                let _ = failed.set(failure.to_string());
            }
        }
    }
}

/// All of a body that nobody writes any more. It never waits: what isn't there will not come. That has to be asked
/// outside of tokio's budget, since a channel calls itself empty when the task's budget is used up.
async fn buffered(mut body: HyperOutgoingBody) -> Result<Body, Failure> {
    tokio::task::unconstrained(std::future::poll_fn(|cx| Poll::Ready(take_all(&mut body, cx)))).await
}

fn take_all(body: &mut HyperOutgoingBody, cx: &mut Context<'_>) -> Result<Body, Failure> {
    let mut next = || match Pin::new(&mut *body).poll_frame(cx) {
        Poll::Ready(None) => Ok(None),
        Poll::Ready(Some(Ok(frame))) => Ok(Some(frame)),
        Poll::Ready(Some(Err(error))) => Err(Failure::NoAnswer(format!("its body is broken: {error}"))),
        Poll::Pending => Err(Failure::NoAnswer("it ended before its body did".to_owned())),
    };
    let Some(first) = next()? else {
        return Ok(Body::empty());
    };
    let Some(second) = next()? else {
        return Ok(match first.into_data() {
            Ok(data) => Body::full(data),
            Err(trailers) => Body::frames(VecDeque::from([trailers])),
        });
    };
    let mut frames: VecDeque<Frame<Bytes>> = VecDeque::from([first, second]);
    while let Some(frame) = next()? {
        frames.push_back(frame);
    }
    Ok(Body::frames(frames))
}

/// The body of an answer that is still being written.
struct Streamed {
    body: HyperOutgoingBody,
    failed: Arc<OnceLock<String>>,
}

impl http_body::Body for Streamed {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let frame = std::task::ready!(Pin::new(&mut self.body).poll_frame(cx));
        Poll::Ready(match (frame, self.failed.get()) {
            (None, Some(reason)) => Some(Err(BodyError::Module(reason.clone()))),
            (None, None) => None,
            (Some(Ok(frame)), _) => Some(Ok(frame)),
            (Some(Err(error)), _) => Some(Err(BodyError::Module(error.to_string()))),
        })
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.body.size_hint()
    }
}

impl From<BodyError> for HttpError {
    fn from(error: BodyError) -> Self {
        match error {
            BodyError::TooLarge { max } => Self::HttpRequestBodySize(Some(max)),
            BodyError::Connection(error) => Self::Hyper(error),
            BodyError::Module(_) | BodyError::Source(_) => Self::InternalError(Some(error.to_string())),
        }
    }
}
