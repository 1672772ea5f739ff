//! Bodies of requests and responses, without a box where none is needed.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt;
use http_body_util::combinators::UnsyncBoxBody;

/// The body of a request or response.
#[derive(Debug)]
pub struct Body(Repr);

#[derive(Debug)]
enum Repr {
    Empty,
    Full(Bytes),
    Frames(VecDeque<Frame<Bytes>>),
    Incoming(Limited),
    Boxed(UnsyncBoxBody<Bytes, BodyError>),
}

/// Why a body ended early.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// The request's body has more bytes than its module accepts.
    #[error("the body has more than {max} bytes")]
    TooLarge {
        /// Most that are accepted.
        max: u64,
    },
    /// The connection failed.
    #[error("the connection failed")]
    Connection(#[from] hyper::Error),
    /// The module failed in the middle of its answer.
    #[error("the module failed in the middle of its answer: {0}")]
    Module(String),
    /// Something else that made the body failed.
    #[error("the body's source failed")]
    Source(#[from] Box<dyn std::error::Error + Send + Sync>),
}

/// A body from a connection, cut at a limit.
#[derive(Debug)]
struct Limited {
    incoming: hyper::body::Incoming,
    left: u64,
    max: u64,
    overflow: Option<Arc<AtomicBool>>,
}

/// Tells whether a body of unknown length turned out too large.
#[derive(Clone, Debug)]
pub struct Overflow(Arc<AtomicBool>);

impl Overflow {
    /// Whether more bytes came than were allowed.
    pub fn happened(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

impl Body {
    /// No bytes.
    pub fn empty() -> Self {
        Self(Repr::Empty)
    }

    /// These bytes.
    pub fn full(bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        Self(if bytes.is_empty() {
            Repr::Empty
        } else {
            Repr::Full(bytes)
        })
    }

    /// These frames.
    pub fn frames(frames: VecDeque<Frame<Bytes>>) -> Self {
        Self(Repr::Frames(frames))
    }

    /// Any other body.
    pub fn boxed<B>(body: B) -> Self
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BodyError>,
    {
        Self(Repr::Boxed(body.map_err(Into::into).boxed_unsync()))
    }

    /// A body from a connection, cut with [`BodyError::TooLarge`] after `max` bytes; with a way to learn of that
    /// where the length isn't known beforehand.
    ///
    /// # Errors
    /// The limit, where the length is known beforehand to exceed it.
    pub fn incoming(
        incoming: hyper::body::Incoming,
        max: u64,
    ) -> Result<(Self, Option<Overflow>), BodyError> {
        use http_body::Body as _;
        if incoming.is_end_stream() {
            return Ok((Self::empty(), None));
        }
        let hint = incoming.size_hint();
        if hint.lower() > max {
            return Err(BodyError::TooLarge { max });
        }
        let flag = hint
            .upper()
            .is_none_or(|upper| upper > max)
            .then(|| Arc::new(AtomicBool::new(false)));
        let limited = Limited {
            incoming,
            left: max,
            max,
            overflow: flag.clone(),
        };
        Ok((Self(Repr::Incoming(limited)), flag.map(Overflow)))
    }
}

impl Default for Body {
    fn default() -> Self {
        Self::empty()
    }
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Self {
        Self::full(bytes)
    }
}

impl From<String> for Body {
    fn from(text: String) -> Self {
        Self::full(text)
    }
}

impl From<&'static str> for Body {
    fn from(text: &'static str) -> Self {
        Self::full(text)
    }
}

impl Limited {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        use http_body::Body as _;
        let Some(next) = std::task::ready!(Pin::new(&mut self.incoming).poll_frame(cx)) else {
            return Poll::Ready(None);
        };
        let frame = next?;
        if let Some(data) = frame.data_ref() {
            let Some(left) = self.left.checked_sub(data.remaining() as u64) else {
                if let Some(flag) = &self.overflow {
                    flag.store(true, Ordering::Relaxed);
                }
                return Poll::Ready(Some(Err(BodyError::TooLarge { max: self.max })));
            };
            self.left = left;
        }
        Poll::Ready(Some(Ok(frame)))
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &mut self.0 {
            Repr::Empty => Poll::Ready(None),
            Repr::Full(bytes) => {
                let bytes = std::mem::take(bytes);
                self.0 = Repr::Empty;
                Poll::Ready(Some(Ok(Frame::data(bytes))))
            }
            Repr::Frames(frames) => Poll::Ready(frames.pop_front().map(Ok)),
            Repr::Incoming(limited) => limited.poll_frame(cx),
            Repr::Boxed(body) => Pin::new(body).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Repr::Empty => true,
            Repr::Full(_) => false,
            Repr::Frames(frames) => frames.is_empty(),
            Repr::Incoming(limited) => limited.incoming.is_end_stream(),
            Repr::Boxed(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Repr::Empty => SizeHint::with_exact(0),
            Repr::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Repr::Frames(frames) => {
                let data: usize = frames.iter().filter_map(Frame::data_ref).map(Bytes::len).sum();
                let trailers = frames.iter().any(Frame::is_trailers);
                // With an exact length HTTP/1 would send no trailers.
                if trailers {
                    SizeHint::default()
                } else {
                    SizeHint::with_exact(data as u64)
                }
            }
            Repr::Incoming(limited) => limited.incoming.size_hint(),
            Repr::Boxed(body) => body.size_hint(),
        }
    }
}
