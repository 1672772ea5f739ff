//! A deployment seen from outside: its trace in a real OTLP receiver, its metrics in real scrapes, and the same trace
//! id wherever it is told.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::trace::v1::Span;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};

use crate::fleet::{DEADLINE, Process, Server};
use crate::support::example;

/// An OTLP receiver by gRPC that keeps what it gets.
struct Receiver {
    addr: SocketAddr,
    kept: Arc<Mutex<Vec<Kept>>>,
    _runtime: tokio::runtime::Runtime,
}

/// A span, and the service that sent it.
#[derive(Clone, Debug)]
struct Kept {
    service: String,
    span: Span,
}

impl Kept {
    fn trace(&self) -> String {
        hex(&self.span.trace_id)
    }

    fn attribute(&self, key: &str) -> Option<String> {
        let found = self
            .span
            .attributes
            .iter()
            .find(|attribute| attribute.key == key)?;
        match &found.value.as_ref()?.value {
            Some(Any::StringValue(value)) => Some(value.clone()),
            _ => None,
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

struct Keeps(Arc<Mutex<Vec<Kept>>>);

#[tonic::async_trait]
impl TraceService for Keeps {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let mut kept = self.0.lock().unwrap();
        for resource in request.into_inner().resource_spans {
            let attributes = resource.resource.unwrap_or_default().attributes;
            let service = attributes
                .iter()
                .find(|attribute| attribute.key == "service.name");
            let service = match service.and_then(|found| found.value.as_ref()?.value.clone()) {
                Some(Any::StringValue(name)) => name,
                _ => String::new(),
            };
            for span in resource.scope_spans.into_iter().flat_map(|scope| scope.spans) {
                kept.push(Kept {
                    service: service.clone(),
                    span,
                });
            }
        }
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

impl Receiver {
    fn start() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let listener = runtime
            .block_on(tokio::net::TcpListener::bind(("127.0.0.1", 0)))
            .unwrap();
        let (addr, kept) = (listener.local_addr().unwrap(), Arc::default());
        let service = TraceServiceServer::new(Keeps(Arc::clone(&kept)));
        runtime.spawn(async move {
            tonic::transport::Server::builder()
                .add_service(service)
                .serve_with_incoming(TcpListenerStream::new(listener))
                .await
        });
        Self {
            addr,
            kept,
            _runtime: runtime,
        }
    }

    fn of_trace(&self, trace: &str) -> Vec<Kept> {
        let kept = self.kept.lock().unwrap();
        kept.iter()
            .filter(|kept| kept.trace() == trace)
            .cloned()
            .collect()
    }

    /// Waits until a trace has a span of each name.
    #[track_caller]
    fn until(&self, trace: &str, names: &[&str], log: impl Fn() -> String) -> Vec<Kept> {
        let end = Instant::now() + DEADLINE;
        loop {
            let spans = self.of_trace(trace);
            let found: BTreeSet<&str> = spans.iter().map(|kept| kept.span.name.as_str()).collect();
            if names.iter().all(|name| found.contains(name)) {
                return spans;
            }
            assert!(
                Instant::now() < end,
                "{names:?} of {trace}: only {found:?}\n{}",
                log()
            );
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
    }
}

fn agent(server: &Server, node: &str, otlp: &str) -> Process {
    let data = server.dir.path().join(node);
    Process::start(&[
        "agent",
        "--node",
        node,
        "--environment",
        "Development",
        "--server",
        &server.agents,
        "--join-token-file",
        &server.join_token("Development"),
        "--data",
        data.to_str().unwrap(),
        "--ingress",
        "127.0.0.1:0",
        "--metrics",
        "127.0.0.1:0",
        "--trust",
        &crate::fleet::trust_file(&server.dir),
        otlp,
    ])
}

/// A line of a log in JSON with a field of some value.
fn line_with(log: &str, field: &str, value: &str) -> Option<serde_json::Value> {
    log.lines().find_map(|line| {
        let line: serde_json::Value = serde_json::from_str(line).ok()?;
        (line.get(field)?.as_str()? == value).then_some(line)
    })
}

/// Status and body of a GET.
pub(crate) fn get(url: &str, headers: &[(&str, &str)]) -> (u16, String) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let tls = hotswap_transport::client_config(hotswap_transport::Roots::Nobody, None, &[]).unwrap();
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            .build()
            .unwrap();
        let mut request = client.get(url);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let answer = request.send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    })
}

#[test]
fn a_deployments_trace_is_whole_and_named_alike_everywhere() {
    let receiver = Receiver::start();
    let otlp = format!("--otlp=grpc://{}", receiver.addr);
    let server = Server::start(&[&otlp]);
    let nodes = [agent(&server, "node-1", &otlp), agent(&server, "node-2", &otlp)];
    server.eventually(&["nodes"], "node-2");
    for version in ["2.0.0", "2.1.0"] {
        let module = example("payment-processor", version);
        server.push(module.to_str().unwrap()).exits(0);
        let deployed = [
            "deploy",
            "payment-processor",
            version,
            "--to",
            "Development",
            "--watch",
        ];
        server.run(&deployed).exits(0);
    }
    let list = server.run(&["deployments", "-o", "json"]).exits(0).json();
    let id = list[0]["executionId"].as_str().unwrap();
    let answer = server.run(&["status", id, "-o", "json"]).exits(0).json();
    let trace = answer["traceId"].as_str().unwrap();

    let names = [
        "deployment",
        "stage.Build",
        "stage.Test",
        "stage.Security Scan",
        "stage.Deploy to Development",
        "stage.Validation",
        "rollout",
        "health.check",
        "verify",
        "load",
        "switch",
    ];
    let spans = receiver.until(trace, &names, || server.process.log());
    let by_id: BTreeMap<&[u8], &Kept> = spans.iter().map(|kept| (&*kept.span.span_id, kept)).collect();
    assert_eq!(by_id.len(), spans.len(), "each span comes once");
    let named = |name: &'static str| spans.iter().filter(move |kept| kept.span.name == name);
    let root = named("deployment").next().unwrap();
    assert!(root.span.parent_span_id.is_empty());
    for kept in &spans {
        let mut at = kept;
        while !at.span.parent_span_id.is_empty() {
            let parent = by_id.get(&*at.span.parent_span_id);
            at = parent.unwrap_or_else(|| panic!("{} has no parent in the trace", at.span.name));
        }
        assert_eq!(at.span.name, "deployment", "all hangs together");
        assert!(kept.span.start_time_unix_nano <= kept.span.end_time_unix_nano);
    }
    for name in ["verify", "load", "switch"] {
        let on: BTreeSet<String> = named(name)
            .filter_map(|kept| kept.attribute("hotswap.node"))
            .collect();
        assert_eq!(on.len(), 2, "{name} on both nodes: {on:?}");
        assert!(named(name).all(|kept| kept.service == "hotswap-agent"));
    }
    assert!(named("stage.Build").all(|kept| kept.service == "hotswap-server"));

    let logged = line_with(&server.process.log(), "trace_id", trace).expect("the server's log has it");
    assert_eq!(logged["deployment"], id, "{logged}");
    for node in &nodes {
        assert!(
            line_with(&node.log(), "trace_id", trace).is_some(),
            "{}",
            node.log()
        );
    }

    // A way back has a span of its own, and nodes drain what they leave.
    server.run(&["rollback", id, "--watch"]).exits(0);
    let list = server.run(&["deployments", "-o", "json"]).exits(0).json();
    let back = list[0]["executionId"].as_str().unwrap();
    let answer = server.run(&["status", back, "-o", "json"]).exits(0).json();
    let trace = answer["traceId"].as_str().unwrap();
    receiver.until(trace, &["deployment", "rollback", "switch"], || {
        server.process.log()
    });
}

#[test]
fn a_request_joins_its_callers_trace() {
    let receiver = Receiver::start();
    let otlp = format!("--otlp=grpc://{}", receiver.addr);
    let server = Server::start(&[]);
    let node = agent(&server, "node-1", &otlp);
    server.eventually(&["nodes"], "node-1");
    let module = example("payment-processor", "2.0.0");
    server.push(module.to_str().unwrap()).exits(0);
    server
        .run(&[
            "deploy",
            "payment-processor",
            "2.0.0",
            "--to",
            "Development",
            "--watch",
        ])
        .exits(0);
    let url = format!("{}/payments/health", node.url);
    let (sampled, not) = (
        "0af7651916cd43dd8448eb211c80319c",
        "0af7651916cd43dd8448eb211c80319d",
    );
    let unsampled = format!("00-{not}-b7ad6b7169203331-00");
    assert_eq!(get(&url, &[("traceparent", &unsampled)]).0, 200);
    let caller = format!("00-{sampled}-b7ad6b7169203331-01");
    assert_eq!(get(&url, &[("traceparent", &caller)]).0, 200);
    let spans = receiver.until(sampled, &["GET"], || node.log());
    assert_eq!(spans.len(), 1);
    let span = &spans[0].span;
    assert_eq!(hex(&span.parent_span_id), "b7ad6b7169203331");
    assert_eq!(
        spans[0].attribute("hotswap.release").as_deref(),
        Some("payment-processor/2.0.0")
    );
    assert_eq!(
        spans[0].attribute("http.response.status_code").as_deref(),
        Some("200")
    );
    assert!(receiver.of_trace(not).is_empty(), "its caller does not record it");
}

/// Metric names in a PromQL expression: words that aren't labels, functions, keywords or numbers.
fn names_in(expression: &str) -> BTreeSet<String> {
    let mut bare = String::new();
    let (mut braces, mut quoted) = (0_u32, false);
    for c in expression.chars() {
        match c {
            '"' => quoted = !quoted,
            _ if quoted => {}
            '{' | '[' => braces += 1,
            '}' | ']' => {
                braces -= 1;
                bare.push(' ');
            }
            _ if braces == 0 => bare.push(c),
            _ => {}
        }
    }
    let mut names = BTreeSet::new();
    let mut rest = bare.as_str();
    while let Some(start) = rest.find(|c: char| c.is_ascii_alphabetic() || c == '_') {
        let word = &rest[start..];
        let end = word
            .find(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == ':'))
            .unwrap_or(word.len());
        let (word, after) = word.split_at(end);
        rest = after;
        let is_grouping = matches!(word, "by" | "without" | "on" | "ignoring" | "group_left");
        if is_grouping && let Some(close) = rest.find(')') {
            rest = &rest[close..];
        } else if !rest.trim_start().starts_with('(')
            && !matches!(
                word,
                "and"
                    | "or"
                    | "unless"
                    | "bool"
                    | "offset"
                    | "sum"
                    | "min"
                    | "max"
                    | "avg"
                    | "count"
                    | "topk"
            )
        {
            names.insert(word.to_owned());
        }
    }
    names
}

fn expressions(value: &serde_json::Value, found: &mut Vec<String>) {
    match value {
        serde_json::Value::Object(fields) => {
            for (key, value) in fields {
                match value.as_str() {
                    Some(text) if key == "expr" => found.push(text.to_owned()),
                    _ => expressions(value, found),
                }
            }
        }
        serde_json::Value::Array(items) => items.iter().for_each(|item| expressions(item, found)),
        _ => {}
    }
}

#[test]
fn dashboards_and_alerts_name_metrics_that_exist() {
    let server = Server::start(&["--webhook", "http://127.0.0.1:9/nobody"]);
    let data = server.dir.path().join("node-1");
    let node = Process::start(&[
        "agent",
        "--node",
        "node-1",
        "--environment",
        "Development",
        "--server",
        &server.agents,
        "--join-token-file",
        &server.join_token("Development"),
        "--data",
        data.to_str().unwrap(),
        "--ingress",
        "127.0.0.1:0",
        "--metrics",
        "127.0.0.1:0",
    ]);
    server.eventually(&["nodes"], "node-1");
    let metrics = line_url(&node);
    let mut shown = get(&format!("{}/metrics", server.process.url), &[]).1;
    shown.push_str(&get(&metrics, &[]).1);
    let mut known = BTreeSet::new();
    for line in shown.lines() {
        if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
            let ends: &[&str] = match kind {
                "counter" => &["_total"],
                "histogram" => &["_bucket", "_sum", "_count"],
                _ => &[""],
            };
            known.extend(ends.iter().map(|end| format!("{name}{end}")));
        }
    }
    // What Prometheus itself makes.
    known.insert("up".to_owned());
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/observability");
    let mut asked = Vec::new();
    for dashboard in ["hotswap-deployments.json", "hotswap-fleet.json"] {
        let text = std::fs::read_to_string(folder.join("grafana").join(dashboard)).unwrap();
        let before = asked.len();
        expressions(&serde_json::from_str(&text).unwrap(), &mut asked);
        assert!(asked.len() > before + 5, "{dashboard} asks for little");
    }
    let rules = std::fs::read_to_string(folder.join("prometheus/alerts.yml")).unwrap();
    let alerts = rules
        .lines()
        .filter_map(|line| line.trim().strip_prefix("expr: "));
    asked.extend(alerts.map(str::to_owned));
    assert!(rules.matches("- alert:").count() >= 10);
    let mut unknown = BTreeSet::new();
    for expression in &asked {
        let names = names_in(expression);
        assert!(!names.is_empty(), "no metric in {expression}");
        unknown.extend(names.into_iter().filter(|name| !known.contains(name)));
    }
    assert!(
        unknown.is_empty(),
        "{unknown:?} are in no scrape; there are {known:#?}"
    );
}

/// Where a node's metrics are, as its log says.
fn line_url(node: &Process) -> String {
    let end = Instant::now() + DEADLINE;
    loop {
        if let Some(line) = line_with(&node.log(), "message", "metrics") {
            return line["url"].as_str().unwrap().to_owned();
        }
        assert!(Instant::now() < end, "{}", node.log());
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
}

#[test]
fn names_are_found_in_expressions() {
    let found = names_in(
        r#"sum by (module) (rate(hotswap_requests_total{outcome!="ok", module=~"a|b"}[5m])) / on (module) up > bool 0.05 and x_y"#,
    );
    let names: Vec<&str> = found.iter().map(String::as_str).collect();
    assert_eq!(names, ["hotswap_requests_total", "up", "x_y"]);
}
