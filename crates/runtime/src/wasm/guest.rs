//! What belongs to one guest instance: its view of the world, and the meters that hang on it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Instant;

use http::HeaderName;
use wasmtime::component::ResourceTable;
use wasmtime::{ResourceLimiter, UpdateDeadline};
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};
use wasmtime_wasi_http::{
    DEFAULT_FORBIDDEN_HEADERS, Error as HttpError, ForbiddenHeaderFilter, RequestOptions, WasiBody,
    WasiHttpCtx, WasiHttpCtxView, WasiHttpHooks, WasiHttpView,
};

use super::logs::{CallTrace, LogStream};
use super::outbound;
use super::release::ReleaseState;
use crate::lines::Output;

/// Most resources (requests, bodies, streams, pollables) that a guest may hold at once; one that never drops any is
/// stopped here.
const RESOURCES_MAX: usize = 16_384;
/// Chunks of an answer that wait for the connection before the guest does.
const ANSWER_CHUNKS_MAX: usize = 16;
/// Largest chunk of an answer, in bytes.
const ANSWER_CHUNK_BYTES_MAX: usize = 64 << 10;
/// Most memories and tables of an instance, and the most elements of a table.
const MEMORIES_MAX: usize = 16;
const TABLES_MAX: usize = 64;
const TABLE_ELEMENTS_MAX: usize = 1 << 20;
/// Core instances of a component; what adapters and bundled interpreters need is below ten.
const CORE_INSTANCES_MAX: usize = 64;

/// The data of a store.
pub(super) struct Guest {
    wasi: WasiCtx,
    http: WasiHttpCtx,
    table: ResourceTable,
    hooks: Hooks,
    pub(super) memory: MemoryMeter,
    pub(super) clock: Arc<CallClock>,
    pub(super) trace: Arc<CallTrace>,
}

impl Guest {
    /// A guest that is granted what its release is: some environment variables, requests to some hosts. No files,
    /// input or sockets ever; its output goes to the log. Clocks and randomness are there for all: without them a
    /// guest's hash maps could be attacked, and nothing of the node is told by them.
    pub(super) fn new(release: &Arc<ReleaseState>, memory_bytes_max: u64) -> Self {
        let trace = Arc::<CallTrace>::default();
        let mut table = ResourceTable::new();
        table.set_max_capacity(RESOURCES_MAX);
        let wasi = WasiCtx::builder()
            .stdout(LogStream::new(
                Arc::clone(release),
                Output::Stdout,
                Arc::clone(&trace),
            ))
            .envs(&release.variables)
            .stderr(LogStream::new(
                Arc::clone(release),
                Output::Stderr,
                Arc::clone(&trace),
            ))
            .allow_tcp(false)
            .allow_udp(false)
            .allow_ip_name_lookup(false)
            .build();
        Self {
            wasi,
            http: WasiHttpCtx::new(),
            table,
            hooks: Hooks(Arc::clone(release)),
            memory: MemoryMeter {
                release: Arc::clone(release),
                bytes: 0,
                bytes_max: memory_bytes_max,
                denied: false,
            },
            clock: Arc::new(CallClock::new()),
            trace,
        }
    }
}

impl WasiView for Guest {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView {
            ctx: &mut self.wasi,
            table: &mut self.table,
        }
    }
}

impl WasiHttpView for Guest {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        WasiHttpCtxView {
            hooks: &mut self.hooks,
            table: &mut self.table,
            ctx: &mut self.http,
        }
    }
}

/// How `wasi:http` behaves here.
pub(super) struct Hooks(Arc<ReleaseState>);

static FORBIDDEN: LazyLock<ForbiddenHeaderFilter> =
    LazyLock::new(|| Arc::new(|name| DEFAULT_FORBIDDEN_HEADERS.contains(name)));

impl WasiHttpHooks for Hooks {
    fn is_forbidden_header(&mut self, name: &HeaderName) -> bool {
        DEFAULT_FORBIDDEN_HEADERS.contains(name)
    }

    fn forbidden_header_filter(&mut self) -> ForbiddenHeaderFilter {
        Arc::clone(&FORBIDDEN)
    }

    fn send_request(
        &mut self,
        request: http::Request<WasiBody>,
        options: Option<RequestOptions>,
        _io: Box<dyn Future<Output = Result<(), HttpError>> + Send>,
    ) -> Box<
        dyn Future<
                Output = Result<
                    (
                        http::Response<WasiBody>,
                        Box<dyn Future<Output = Result<(), HttpError>> + Send>,
                    ),
                    HttpError,
                >,
            > + Send,
    > {
        let release = &self.0;
        match release.outbound.admit(request.uri()) {
            Ok(place) => Box::new(outbound::send(request, options, place)),
            Err(error) => {
                if let Some(dropped) = release.log_lines.pass() {
                    let (module, version) = (&release.manifest.name, &release.label);
                    let host = request.uri().authority().map_or("", |authority| authority.host());
                    tracing::warn!(%module, %version, dropped, host, ?error, "a request of a module was refused");
                }
                Box::new(std::future::ready(Err(error)))
            }
        }
    }

    fn p2_outgoing_body_buffer_chunks(&mut self) -> usize {
        ANSWER_CHUNKS_MAX
    }

    fn p2_outgoing_body_chunk_size(&mut self) -> usize {
        ANSWER_CHUNK_BYTES_MAX
    }
}

/// Counts and limits an instance's linear memory, and adds it to its release's.
pub(super) struct MemoryMeter {
    release: Arc<ReleaseState>,
    bytes: u64,
    bytes_max: u64,
    /// Whether growth was denied: a trap that follows is told as a lack of memory.
    pub(super) denied: bool,
}

impl ResourceLimiter for MemoryMeter {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let grown = self.bytes + desired.saturating_sub(current) as u64;
        if grown > self.bytes_max {
            self.denied = true;
            return Ok(false);
        }
        if maximum.is_some_and(|maximum| desired > maximum) {
            return Ok(false);
        }
        self.release.memory_grew(grown - self.bytes);
        self.bytes = grown;
        Ok(true)
    }

    fn table_growing(
        &mut self,
        _current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        Ok(desired <= TABLE_ELEMENTS_MAX && maximum.is_none_or(|maximum| desired <= maximum))
    }

    fn instances(&self) -> usize {
        CORE_INSTANCES_MAX
    }

    fn tables(&self) -> usize {
        TABLES_MAX
    }

    fn memories(&self) -> usize {
        MEMORIES_MAX
    }
}

impl Drop for MemoryMeter {
    fn drop(&mut self) {
        self.release.memory_freed(self.bytes);
    }
}

/// How long a call has been on the processor: written around each poll, read by the epoch callback in between.
#[derive(Debug)]
pub(super) struct CallClock {
    base: Instant,
    spent_ns: AtomicU64,
    polled_at_ns: AtomicU64,
}

/// The guest was longer on the processor than a request may be.
#[derive(Debug, thiserror::Error)]
#[error("the request's time on the processor is used up")]
pub(super) struct OutOfTime;

impl CallClock {
    fn new() -> Self {
        Self {
            base: Instant::now(),
            spent_ns: AtomicU64::new(0),
            polled_at_ns: AtomicU64::new(0),
        }
    }

    fn since_base(&self, now: Instant) -> u64 {
        u64::try_from(now.duration_since(self.base).as_nanos()).unwrap_or(u64::MAX)
    }

    /// A call begins.
    pub(super) fn reset(&self) {
        self.spent_ns.store(0, Ordering::Relaxed);
    }

    /// A poll begins.
    pub(super) fn enter(&self, now: Instant) {
        self.polled_at_ns.store(self.since_base(now), Ordering::Relaxed);
    }

    /// A poll ended without the call's end.
    pub(super) fn leave(&self, spent_ns: u64) {
        self.spent_ns.fetch_add(spent_ns, Ordering::Relaxed);
    }

    /// What an epoch's end means for a guest: let others run, or stop.
    pub(super) fn on_epoch(&self, limit_ns: u64) -> wasmtime::Result<UpdateDeadline> {
        let running = self
            .since_base(Instant::now())
            .saturating_sub(self.polled_at_ns.load(Ordering::Relaxed));
        if self.spent_ns.load(Ordering::Relaxed).saturating_add(running) > limit_ns {
            return Err(OutOfTime.into());
        }
        Ok(UpdateDeadline::Yield(1))
    }
}
