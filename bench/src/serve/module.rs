//! The module, behind the agent's ingress or alone.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use hotswap_agent::RequestSpans;
use hotswap_agent::ingress::{Ingress, IngressConfig, Patience, Release};
use hotswap_agent::meter::Meter;
use hotswap_runtime::{Artifact, Body, Instance, Launch, Runtime as _, WasmHost, WasmHostConfig};
use hotswap_telemetry::otlp::{Exporter, OtlpConfig, Spans, Transport};
use http::Request;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::modules;

/// Requests of the ingress that are recorded, in %.
const SAMPLED_PERCENT: f64 = 1.0;
/// How long a swapped release may drain.
const DRAIN_MAX: Duration = Duration::from_secs(10);

/// What one swap took.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Swap {
    /// From the compiled release to a warm instance, in ms.
    pub(crate) load_ms: f64,
    /// The switch itself, in µs.
    pub(crate) switch_us: f64,
    /// Until the former release was gone, in ms.
    pub(crate) drain_ms: f64,
}

fn host(cache: PathBuf) -> Result<WasmHost> {
    Ok(WasmHost::new(WasmHostConfig {
        cache_dir: Some(cache),
        ..WasmHostConfig::default()
    })?)
}

/// The agent's ingress; each line on standard input swaps its release for a fresh one.
pub(super) async fn ingress(
    listener: TcpListener,
    folder: &Path,
    cache: PathBuf,
    otlp: Option<String>,
) -> Result<()> {
    let host = host(cache)?;
    let artifact = modules::artifact(folder)?;
    let stop = CancellationToken::new();
    let mut config = IngressConfig::default();
    if let Some(endpoint) = otlp {
        let (spans, waiting) = Spans::queue();
        config.spans = Some(RequestSpans::new(spans, SAMPLED_PERCENT));
        let otlp = OtlpConfig {
            endpoint: Some(endpoint),
            transport: Some(Transport::Http),
        };
        let exporter = Exporter::new(&otlp, "hotswap-agent", "bench")?;
        tokio::spawn(waiting.send(exporter, stop.clone()));
    }
    let (ingress, meter) = (Ingress::new(config), Meter::new());
    let instance = host
        .prepare(artifact.clone())
        .await?
        .start(Launch::default())
        .await?;
    let module = artifact.manifest.name.clone();
    ingress.set_routes(&module, instance.manifest().routes.clone());
    let first = Release::new(instance, &meter);
    ingress.slot(&module).set_active([(first, 100)]);
    let (_patience, patience) = watch::channel(Patience {
        idle: Duration::ZERO,
        deadline: Duration::from_secs(1),
    });
    let serving = tokio::spawn({
        let ingress = ingress.clone();
        async move { ingress.serve(listener, stop, patience).await }
    });
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    while lines.next_line().await?.is_some() {
        let swap = swap(&ingress, &host, artifact.clone(), &meter).await?;
        println!("{}", serde_json::to_string(&swap)?);
    }
    serving.await?;
    Ok(())
}

/// What an agent does for a new release: load, switch, drain.
async fn swap(ingress: &Ingress, host: &WasmHost, artifact: Artifact, meter: &Meter) -> Result<Swap> {
    let slot = ingress.slot(&artifact.manifest.name);
    let began = Instant::now();
    let instance = host.prepare(artifact).await?.start(Launch::default()).await?;
    let load = began.elapsed();
    let next = Release::new(instance, meter);
    let began = Instant::now();
    let former = slot.set_active([(next, 100)]);
    let switch = began.elapsed();
    let began = Instant::now();
    for release in former {
        release.close(DRAIN_MAX).await;
    }
    Ok(Swap {
        load_ms: load.as_secs_f64() * 1e3,
        switch_us: switch.as_secs_f64() * 1e6,
        drain_ms: began.elapsed().as_secs_f64() * 1e3,
    })
}

/// The module behind hyper, with nothing between.
pub(super) async fn alone(listener: TcpListener, folder: &Path, cache: PathBuf) -> Result<()> {
    let host = host(cache)?;
    let instance = host
        .prepare(modules::artifact(folder)?)
        .await?
        .start(Launch::default())
        .await?;
    let builder = Arc::new(auto::Builder::new(TokioExecutor::new()));
    let max = instance.manifest().limits.body.0;
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let (builder, instance) = (Arc::clone(&builder), Arc::clone(&instance));
        let service = service_fn(move |request| answer(Arc::clone(&instance), max, request));
        tokio::spawn(async move {
            builder
                .serve_connection(TokioIo::new(stream), service)
                .await
                .is_ok()
        });
    }
}

async fn answer(
    instance: Arc<dyn Instance>,
    max: u64,
    request: Request<hyper::body::Incoming>,
) -> Result<http::Response<Body>, String> {
    let (head, body) = request.into_parts();
    let (body, _) = Body::incoming(body, max).map_err(|error| error.to_string())?;
    let answer = instance.handle(Request::from_parts(head, body)).await;
    answer.map_err(|failure| failure.to_string())
}

/// How long a compiled release takes to be ready on a node that has just started: each time a host of its own.
pub(crate) async fn cold_loads(folder: &Path, cache: &Path, times: usize) -> Result<Vec<f64>> {
    let artifact = modules::artifact(folder)?;
    host(cache.to_owned())?.prepare(artifact.clone()).await?;
    let mut took = Vec::new();
    for _ in 0..times {
        let host = host(cache.to_owned())?;
        let began = Instant::now();
        let instance = host
            .prepare(artifact.clone())
            .await?
            .start(Launch::default())
            .await?;
        took.push(began.elapsed().as_secs_f64() * 1e3);
        instance.close(DRAIN_MAX).await;
    }
    Ok(took)
}
