//! Test: the manifest's smoke checks against the release, in a sandbox of the server's own runtime. It has no network
//! and no traffic but these requests.

use std::time::Duration;

use hotswap_core::checks::CheckRequest;
use hotswap_package::{Manifest, Package, SmokeCheck};
use hotswap_runtime::{Body, Instance, Launch};
use http::{Request, Response};
use http_body_util::{BodyExt as _, Limited};
use tokio::time::timeout;

use super::Bench;

/// Most bytes of an answer that are looked at.
const ANSWER_BYTES_MAX: usize = 1 << 20;
/// The sandbox has served its checks when it is closed: nothing is left to drain.
const CLOSE_DEADLINE: Duration = Duration::ZERO;

pub(super) async fn test(bench: &Bench, request: &CheckRequest, package: Package) -> Result<String, String> {
    let kind = package.manifest.kind;
    let Some(runtime) = bench.runtimes.get(kind) else {
        let left = match package.manifest.smoke.len() {
            0 => "nodes are the first to".to_owned(),
            checks => format!("the {checks} smoke checks are the nodes' to run"),
        };
        return Ok(format!(
            "not run here: this server starts no modules of kind {kind}; {left}"
        ));
    };
    let launch = launch(bench, request);
    let prepared = bench.prepare(runtime.as_ref(), package).await?;
    let instance = prepared
        .start(launch)
        .await
        .map_err(|error| format!("it does not start: {error}"))?;
    let manifest = instance.manifest().clone();
    let mut failures = Vec::new();
    for check in &manifest.smoke {
        if let Err(failure) = run(instance.as_ref(), &manifest, check).await {
            failures.push(format!("{}: {failure}", check.name));
        }
    }
    instance.close(CLOSE_DEADLINE).await;
    match (failures.len(), manifest.smoke.len()) {
        (0, 0) => Ok("it starts; the manifest has no smoke checks".to_owned()),
        (0, checks) => Ok(format!("{checks} of {checks} smoke checks passed")),
        (failed, checks) => Err(format!(
            "{failed} of {checks} smoke checks failed: {}",
            failures.join("; ")
        )),
    }
}

/// What the sandbox is given: the target's values, but no secrets, which only nodes have.
fn launch(bench: &Bench, request: &CheckRequest) -> Launch {
    let state = bench.world.state();
    let here = state.env_module(&request.target, &request.module);
    let values = here.and_then(|here| here.values.current()).cloned();
    let mut launch = Launch {
        config: 0,
        values: values.unwrap_or_default(),
        node: None,
    };
    launch
        .values
        .retain(|_, value| !value.starts_with("env:") && !value.starts_with("file:"));
    launch
}

async fn run(instance: &dyn Instance, manifest: &Manifest, check: &SmokeCheck) -> Result<(), String> {
    let request = request(manifest, check)?;
    let limit = check.timeout.get();
    let answer = async {
        let response = instance
            .handle(request)
            .await
            .map_err(|failure| failure.to_string())?;
        let (head, body) = response.into_parts();
        let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await;
        let body = body
            .map_err(|error| format!("its answer broke off: {error}"))?
            .to_bytes();
        Ok(Response::from_parts(head, body))
    };
    let answer = timeout(limit, answer)
        .await
        .unwrap_or_else(|_| Err(format!("no answer within {limit:?}")))?;
    let status = answer.status().as_u16();
    if status != check.expect_status {
        return Err(format!("answered {status}, expected {}", check.expect_status));
    }
    match &check.expect_body_contains {
        Some(text) if !contains(answer.body(), text.as_bytes()) => {
            Err(format!("its answer does not contain {text:?}"))
        }
        _ => Ok(()),
    }
}

fn request(manifest: &Manifest, check: &SmokeCheck) -> Result<Request<Body>, String> {
    let route = manifest
        .routes
        .iter()
        .find(|route| route.covers_path(path_of(check)));
    let host = route
        .and_then(|route| route.host.as_deref())
        .unwrap_or("localhost");
    let mut request = Request::builder()
        .method(check.method.as_str())
        .uri(format!("http://{host}{}", check.path))
        .header(http::header::HOST, host);
    for (name, value) in &check.headers {
        request = request.header(name, value);
    }
    request
        .body(Body::full(check.body.clone()))
        .map_err(|error| format!("its request is not valid: {error}"))
}

fn path_of(check: &SmokeCheck) -> &str {
    check.path.split('?').next().unwrap_or(&check.path)
}

fn contains(body: &[u8], text: &[u8]) -> bool {
    text.is_empty() || body.windows(text.len()).any(|window| window == text)
}
