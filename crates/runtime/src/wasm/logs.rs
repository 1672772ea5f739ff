//! A module's output as log lines, a bounded number a second.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use hotswap_core::trace::TraceParent;
use tokio::io::AsyncWrite;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamError, StreamResult};

use super::release::ReleaseState;

/// Longest line, in bytes; a longer one is broken.
const LINE_BYTES_MAX: usize = 4 << 10;
/// What a guest may write at once, in bytes.
const WRITE_BYTES_MAX: usize = 64 << 10;

/// Lets so many lines a second pass and counts the others.
#[derive(Debug)]
pub(super) struct LineLimit {
    per_second_max: u32,
    base: Instant,
    /// The second, counted from `base`, in the upper half; lines in it in the lower.
    window: AtomicU64,
    dropped: AtomicU64,
}

impl LineLimit {
    pub(super) fn new(per_second_max: u32) -> Self {
        Self {
            per_second_max,
            base: Instant::now(),
            window: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
        }
    }

    /// Whether a line may pass, with the number of lines that were dropped before it.
    pub(super) fn pass(&self) -> Option<u64> {
        let second = self.base.elapsed().as_secs() & u64::from(u32::MAX);
        let passes = self
            .window
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |window| {
                let lines = if window >> 32 == second {
                    window & u64::from(u32::MAX)
                } else {
                    0
                };
                (lines < u64::from(self.per_second_max)).then_some((second << 32) | (lines + 1))
            })
            .is_ok();
        if passes {
            return Some(self.dropped.swap(0, Ordering::Relaxed));
        }
        self.dropped.fetch_add(1, Ordering::Relaxed);
        None
    }
}

/// Which of a module's outputs.
#[derive(Clone, Copy, Debug)]
pub(super) enum Output {
    Stdout,
    Stderr,
}

/// The trace of the request that an instance serves: it serves one at a time.
#[derive(Debug, Default)]
pub(super) struct CallTrace(Mutex<Option<u128>>);

impl CallTrace {
    /// A request begins; what the instance writes from now on belongs to it.
    pub(super) fn begins(&self, headers: &http::HeaderMap) {
        let parent = headers.get("traceparent").and_then(|value| value.to_str().ok());
        let parent = parent.and_then(|text| text.parse::<TraceParent>().ok());
        *self.lock() = parent.map(|parent| parent.trace_id);
    }

    fn text(&self) -> Option<String> {
        self.lock().map(|id| format!("{id:032x}"))
    }

    fn lock(&self) -> MutexGuard<'_, Option<u128>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An instance's standard output or error.
#[derive(Clone)]
pub(super) struct LogStream {
    release: Arc<ReleaseState>,
    output: Output,
    trace: Arc<CallTrace>,
    line: Vec<u8>,
}

impl LogStream {
    pub(super) fn new(release: Arc<ReleaseState>, output: Output, trace: Arc<CallTrace>) -> Self {
        Self {
            release,
            output,
            trace,
            line: Vec::new(),
        }
    }

    /// One that has begun no line.
    fn another(&self) -> Self {
        Self::new(Arc::clone(&self.release), self.output, Arc::clone(&self.trace))
    }

    fn take(&mut self, bytes: &[u8]) {
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            let (text, ends) = match part.strip_suffix(b"\n") {
                Some(text) => (text, true),
                None => (part, false),
            };
            for chunk in text.chunks(LINE_BYTES_MAX) {
                if self.line.len() + chunk.len() > LINE_BYTES_MAX {
                    self.write_line();
                }
                self.line.extend_from_slice(chunk);
            }
            if ends {
                self.write_line();
            }
        }
    }

    fn write_line(&mut self) {
        let line = std::mem::take(&mut self.line);
        let line = String::from_utf8_lossy(&line);
        let line = line.trim_end();
        if line.is_empty() {
            return;
        }
        let Some(dropped) = self.release.log_lines.pass() else {
            return;
        };
        let (module, version) = (&self.release.manifest.name, &self.release.label);
        let (node, trace_id) = (self.release.node.as_str(), self.trace.text());
        if dropped > 0 {
            let limit = self.release.log_lines.per_second_max;
            tracing::warn!(
                target: "module", %module, version, node, dropped, limit,
                "lines of output were dropped: more than agent.module-log-lines a second"
            );
        }
        match self.output {
            Output::Stdout => {
                tracing::info!(target: "module", %module, version, node, trace_id, stream = "stdout", "{line}");
            }
            Output::Stderr => {
                tracing::warn!(target: "module", %module, version, node, trace_id, stream = "stderr", "{line}");
            }
        }
    }
}

impl Drop for LogStream {
    fn drop(&mut self) {
        self.write_line();
    }
}

impl IsTerminal for LogStream {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for LogStream {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(self.another())
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.another())
    }
}

#[wasmtime_wasi::async_trait]
impl Pollable for LogStream {
    async fn ready(&mut self) {}
}

impl OutputStream for LogStream {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        if bytes.len() > WRITE_BYTES_MAX {
            return Err(StreamError::trap("a write exceeded what was permitted"));
        }
        self.take(&bytes);
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(WRITE_BYTES_MAX)
    }
}

impl AsyncWrite for LogStream {
    fn poll_write(mut self: Pin<&mut Self>, _cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.take(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
