//! Spans on their way to a receiver by HTTP. The way by gRPC is tested with whole deployments, in the binary's tests.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use hotswap_telemetry::otlp::{Exporter, Kind, OtlpConfig, Span, Spans, Transport};
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use prost::Message as _;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

type Came = Arc<Mutex<Vec<(String, ExportTraceServiceRequest)>>>;

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
                async move {
                    let path = request.uri().path().to_owned();
                    let body = request.into_body().collect().await.unwrap().to_bytes();
                    let export = ExportTraceServiceRequest::decode(body).unwrap();
                    kept.lock().unwrap().push((path, export));
                    Ok::<_, Infallible>(Response::new(Full::new(Bytes::new())))
                }
            });
            tokio::spawn(
                hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service),
            );
        }
    });
    (endpoint, came)
}

fn span(name: &'static str) -> Span {
    let start = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
    Span {
        trace_id: 0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c,
        span_id: 0xb7ad_6b71_6920_3331,
        parent: Some(7),
        parent_is_remote: true,
        name: name.into(),
        kind: Kind::Internal,
        start,
        end: start + Duration::from_millis(1_500),
        attributes: vec![("hotswap.node", "node-1".to_owned())],
        error: Some("it broke".to_owned()),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_given_arrives_as_it_is_also_at_the_end() {
    let (endpoint, came) = receiver().await;
    let config = OtlpConfig {
        endpoint: Some(endpoint),
        transport: Some(Transport::Http),
    };
    let exporter = Exporter::new(&config, "hotswap-test", "instance-1").unwrap();
    let (spans, waiting) = Spans::queue();
    let stop = CancellationToken::new();
    spans.give(span("verify"));
    // Stopped at once: what waits is sent all the same.
    stop.cancel();
    waiting.send(exporter, stop).await;
    let came = came.lock().unwrap();
    let (path, export) = &came[0];
    assert_eq!(path, "/v1/traces");
    let resource = &export.resource_spans[0];
    let found = &resource.scope_spans[0].spans[0];
    assert_eq!(found.name, "verify");
    assert_eq!(found.span_id, 0xb7ad_6b71_6920_3331_u64.to_be_bytes());
    assert_eq!(found.parent_span_id, 7_u64.to_be_bytes());
    assert_eq!(
        found.end_time_unix_nano - found.start_time_unix_nano,
        1_500_000_000
    );
    assert_eq!(found.status.as_ref().unwrap().message, "it broke");
    let about = resource.resource.as_ref().unwrap().attributes.iter();
    let names: Vec<&str> = about.map(|attribute| attribute.key.as_str()).collect();
    for name in ["service.name", "service.instance.id", "service.version"] {
        assert!(names.contains(&name), "{name} is missing: {names:?}");
    }
    assert_eq!(spans.dropped(), 0);
}

#[tokio::test]
async fn nobody_waits_for_a_receiver() {
    let (spans, _waiting) = Spans::queue();
    for _ in 0..20_000 {
        spans.give(span("load"));
    }
    assert!(spans.dropped() > 0, "more than can wait is dropped and counted");
}
