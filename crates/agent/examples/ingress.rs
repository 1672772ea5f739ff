//! An ingress with one module, and beside it a server that hands requests to the same module without routing, metering
//! and spans, and a bare hyper server that returns the same bytes: for measuring what each of them costs.
//!
//! `cargo run --release -p hotswap-agent --example ingress -- MODULE_DIR PATH [THREADS] [OTLP]` serves the module in
//! `MODULE_DIR` (`module.toml` and its artifact) on 127.0.0.1:8081, its answer to `GET PATH` from 127.0.0.1:8082, and
//! the module alone on 127.0.0.1:8083. With the address of an OTLP receiver by gRPC (`http://127.0.0.1:4317`), 1 % of
//! the ingress's requests are recorded and sent there.

use std::convert::Infallible;
use std::error::Error;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hotswap_agent::RequestSpans;
use hotswap_agent::ingress::{Ingress, IngressConfig, Patience, Release};
use hotswap_agent::meter::Meter;
use hotswap_package::Manifest;
use hotswap_runtime::{Artifact, Body, Instance, Runtime, WasmHost, WasmHostConfig};
use hotswap_telemetry::otlp::{Exporter, OtlpConfig, Spans, Transport};
use http::{HeaderMap, Request, Response};
use http_body_util::BodyExt;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

const MODULE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 8081);
const ALONE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 8083);
const BARE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 8082);

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let dir = PathBuf::from(
        arguments
            .next()
            .ok_or("usage: ingress MODULE_DIR PATH [THREADS] [OTLP]")?,
    );
    let path = arguments
        .next()
        .ok_or("usage: ingress MODULE_DIR PATH [THREADS] [OTLP]")?;
    let threads = arguments.next().map_or(Ok(2), |text| text.parse())?;
    let otlp = arguments.next();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads)
        .enable_all()
        .build()?;
    runtime.block_on(run(dir, path, otlp))
}

async fn run(dir: PathBuf, path: String, otlp: Option<String>) -> Result<(), Box<dyn Error>> {
    let manifest = Manifest::parse(&std::fs::read_to_string(dir.join("module.toml"))?)?;
    let content = std::fs::read(dir.join(&manifest.entry))?;
    let artifact = Artifact {
        digest: hotswap_package::digest_of(&content),
        manifest: Arc::new(manifest),
        content: content.into(),
    };
    let module = artifact.manifest.name.clone();
    let config = WasmHostConfig {
        cache_dir: Some(std::env::temp_dir().join("hotswap-example-compiled")),
        ..WasmHostConfig::default()
    };
    // Twice: the second host finds the component compiled.
    WasmHost::new(config.clone())?.prepare(artifact.clone()).await?;
    let host = WasmHost::new(config)?;
    let begun = Instant::now();
    let instance = host
        .prepare(artifact)
        .await?
        .start(hotswap_runtime::Launch::default())
        .await?;
    println!("from compiled to ready: {:?}", begun.elapsed());
    let stop = CancellationToken::new();
    let mut config = IngressConfig::default();
    if let Some(endpoint) = otlp {
        let (spans, waiting) = Spans::queue();
        config.spans = Some(RequestSpans::new(spans, 1.0));
        let otlp = OtlpConfig {
            endpoint: Some(endpoint),
            transport: Some(Transport::Grpc),
        };
        let exporter = Exporter::new(&otlp, "hotswap-agent", "example")?;
        tokio::spawn(waiting.send(exporter, stop.clone()));
    }
    tokio::spawn(alone(TcpListener::bind(ALONE).await?, Arc::clone(&instance)));
    let ingress = Ingress::new(config);
    let meter = Meter::new();
    ingress.set_routes(&module, instance.manifest().routes.clone());
    let release = Release::new(instance, &meter);
    ingress.slot(&module).set_active([(Arc::clone(&release), 100)]);

    let (head, body) = ingress
        .handle(
            Request::get(path)
                .header("host", "localhost")
                .body(Body::empty())?,
        )
        .await
        .into_parts();
    let body = body.collect().await?.to_bytes();
    println!("{} {:?} {} bytes", head.status, head.headers, body.len());
    tokio::spawn(bare(TcpListener::bind(BARE).await?, head.headers, body));

    let interrupted = stop.clone();
    tokio::spawn(async move {
        let _ = tokio::signal::ctrl_c().await;
        interrupted.cancel();
    });
    let listener = TcpListener::bind(MODULE).await?;
    println!("module on {MODULE}, the same bytes from bare hyper on {BARE}, the module alone on {ALONE}");
    let patience = Patience {
        idle: Duration::ZERO,
        deadline: Duration::from_secs(1),
    };
    let (_patience, patience) = watch::channel(patience);
    ingress.serve(listener, stop, patience).await;
    let counters = release.series().snapshot();
    let latency = counters.latency();
    println!(
        "{} requests, {} errors, p50 {:?} µs, p99 {:?} µs; {:?}",
        counters.requests(),
        counters.errors,
        latency.quantile(0.5),
        latency.quantile(0.99),
        release.instance().usage()
    );
    Ok(())
}

async fn alone(listener: TcpListener, instance: Arc<dyn Instance>) {
    let builder = Arc::new(auto::Builder::new(TokioExecutor::new()));
    let max = instance.manifest().limits.body.0;
    while let Ok((stream, _)) = listener.accept().await {
        let _ = stream.set_nodelay(true);
        let (builder, instance) = (Arc::clone(&builder), Arc::clone(&instance));
        let service = service_fn(move |request: Request<hyper::body::Incoming>| {
            let instance = Arc::clone(&instance);
            async move {
                let (head, body) = request.into_parts();
                let (body, _) = Body::incoming(body, max).map_err(|error| error.to_string())?;
                let answer = instance.handle(Request::from_parts(head, body)).await;
                answer.map_err(|failure| failure.to_string())
            }
        });
        tokio::spawn(async move {
            builder
                .serve_connection(TokioIo::new(stream), service)
                .await
                .is_ok()
        });
    }
}

async fn bare(listener: TcpListener, headers: HeaderMap, body: bytes::Bytes) {
    let builder = Arc::new(auto::Builder::new(TokioExecutor::new()));
    while let Ok((stream, _)) = listener.accept().await {
        let _ = stream.set_nodelay(true);
        let (builder, headers, body) = (Arc::clone(&builder), headers.clone(), body.clone());
        let service = service_fn(move |_request| {
            let mut response = Response::new(Body::full(body.clone()));
            response.headers_mut().clone_from(&headers);
            async move { Ok::<_, Infallible>(response) }
        });
        tokio::spawn(async move {
            builder
                .serve_connection(TokioIo::new(stream), service)
                .await
                .is_ok()
        });
    }
}
