//! Metrics on their way to a receiver, by HTTP and by gRPC.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use hotswap_telemetry::metrics::MetricsExporter;
use hotswap_telemetry::otlp::{OtlpConfig, Transport};
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use prost::Message as _;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

const TEXT: &str = "# HELP asked How often.\n# TYPE asked counter\nasked_total{by=\"a\"} 3\n# EOF\n";
/// The head of a gRPC message: whether it is compressed, and its length.
const GRPC_HEAD: usize = 5;

type Came = Arc<Mutex<Vec<(String, ExportMetricsServiceRequest)>>>;

/// A receiver of both kinds: what comes by gRPC has a head before the same bytes.
async fn receiver() -> (String, Came) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let came = Came::default();
    let kept = Arc::clone(&came);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let kept = Arc::clone(&kept);
            let service = service_fn(move |request: Request<Incoming>| {
                let kept = Arc::clone(&kept);
                async move { Ok::<_, Infallible>(take(request, &kept).await) }
            });
            tokio::spawn(async move {
                let connection = auto::Builder::new(TokioExecutor::new());
                let _ = connection.serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });
    (endpoint, came)
}

async fn take(request: Request<Incoming>, kept: &Came) -> Response<Full<Bytes>> {
    let path = request.uri().path().to_owned();
    let grpc = request
        .headers()
        .get("content-type")
        .is_some_and(|kind| kind == "application/grpc");
    let mut body = request.into_body().collect().await.unwrap().to_bytes();
    if grpc {
        body = body.slice(GRPC_HEAD..);
    }
    let export = ExportMetricsServiceRequest::decode(body).unwrap();
    kept.lock().unwrap().push((path, export));
    let answer = if grpc {
        Bytes::from_static(&[0; GRPC_HEAD])
    } else {
        Bytes::new()
    };
    let mut response = Response::new(Full::new(answer));
    if grpc {
        let headers = response.headers_mut();
        headers.insert("content-type", "application/grpc".parse().unwrap());
        headers.insert("grpc-status", "0".parse().unwrap());
    }
    response
}

fn config(endpoint: String, transport: Transport) -> OtlpConfig {
    OtlpConfig {
        endpoint: Some(endpoint),
        transport: Some(transport),
    }
}

fn check(came: &Came, path: &str) {
    let came = came.lock().unwrap();
    let (at, export) = came.last().expect("something came");
    assert_eq!(at, path);
    let sent = &export.resource_metrics[0];
    let resource = format!("{:?}", sent.resource);
    assert!(
        resource.contains("hotswap-test") && resource.contains("instance-1"),
        "{resource}"
    );
    let metric = &sent.scope_metrics[0].metrics[0];
    assert_eq!(
        (metric.name.as_str(), metric.description.as_str()),
        ("asked", "How often")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_scrape_shows_arrives_by_http_also_at_the_end() {
    let (endpoint, came) = receiver().await;
    let config = config(endpoint, Transport::Http);
    let exporter = MetricsExporter::new(&config, "hotswap-test", "instance-1")
        .unwrap()
        .unwrap();
    let stop = CancellationToken::new();
    stop.cancel();
    let run = exporter.run(|| TEXT.to_owned(), stop);
    tokio::time::timeout(Duration::from_secs(20), run).await.unwrap();
    check(&came, "/v1/metrics");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_scrape_shows_arrives_by_grpc() {
    let (endpoint, came) = receiver().await;
    let config = config(endpoint, Transport::Grpc);
    let exporter = MetricsExporter::new(&config, "hotswap-test", "instance-1")
        .unwrap()
        .unwrap();
    exporter.export(TEXT).await.unwrap();
    check(
        &came,
        "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_is_away_is_an_error_that_says_so() {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    for transport in [Transport::Http, Transport::Grpc] {
        let config = config(endpoint.clone(), transport);
        let exporter = MetricsExporter::new(&config, "hotswap-test", "instance-1")
            .unwrap()
            .unwrap();
        let error = exporter.export(TEXT).await.unwrap_err().to_string();
        assert!(error.contains("did not take them"), "{error}");
    }
}
