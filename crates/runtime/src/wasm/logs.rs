//! A module's output as log lines, a bounded number a second.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use hotswap_core::trace::TraceParent;
use tokio::io::AsyncWrite;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamError, StreamResult};

use super::release::ReleaseState;
use crate::lines::{Lines, Output};

/// What a guest may write at once, in bytes.
const WRITE_BYTES_MAX: usize = 64 << 10;

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
    lines: Lines,
}

impl LogStream {
    pub(super) fn new(release: Arc<ReleaseState>, output: Output, trace: Arc<CallTrace>) -> Self {
        Self {
            release,
            output,
            trace,
            lines: Lines::default(),
        }
    }

    /// One that has begun no line.
    fn another(&self) -> Self {
        Self::new(Arc::clone(&self.release), self.output, Arc::clone(&self.trace))
    }

    fn take(&mut self, bytes: &[u8]) {
        let (release, output, trace) = (&self.release, self.output, &self.trace);
        self.lines.take(bytes, |line| log(release, output, trace, line));
    }
}

fn log(release: &ReleaseState, output: Output, trace: &CallTrace, line: &str) {
    let Some(dropped) = release.log_lines.pass() else {
        return;
    };
    let (module, version) = (&release.manifest.name, &release.label);
    let (node, trace_id) = (release.node.as_str(), trace.text());
    if dropped > 0 {
        let limit = release.log_lines.per_second_max();
        tracing::warn!(
            target: "module", %module, version, node, dropped, limit,
            "lines of output were dropped: more than agent.module-log-lines a second"
        );
    }
    match output {
        Output::Stdout => {
            tracing::info!(target: "module", %module, version, node, trace_id, stream = "stdout", "{line}");
        }
        Output::Stderr => {
            tracing::warn!(target: "module", %module, version, node, trace_id, stream = "stderr", "{line}");
        }
    }
}

impl Drop for LogStream {
    fn drop(&mut self) {
        let (release, output, trace) = (&self.release, self.output, &self.trace);
        self.lines.finish(|line| log(release, output, trace, line));
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
