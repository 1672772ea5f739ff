//! What a node adds to a deployment's trace, and where users' requests join their callers'.

use std::collections::BTreeMap;
use std::time::SystemTime;

use hotswap_core::ids::{Digest, ModuleName};
use hotswap_core::spec::NodeSpec;
use hotswap_core::trace::TraceParent;
use hotswap_runtime::Body;
use hotswap_telemetry::otlp::{Kind, Span, Spans};
use http::{HeaderMap, HeaderName, HeaderValue, Response, request};

use crate::ingress::RELEASE_HEADER;

/// Carries a place in a trace, by W3C Trace Context.
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// The work that a node does for deployments.
#[derive(Debug)]
pub(crate) struct NodeSpans {
    out: Option<Spans>,
    node: String,
    /// The deployment that last touched each module.
    parents: BTreeMap<ModuleName, TraceParent>,
}

/// Work that has begun.
#[derive(Debug)]
pub(crate) struct Begun(Option<(Spans, Span)>);

impl NodeSpans {
    pub(crate) fn new(node: String, out: Option<Spans>) -> Self {
        Self {
            out,
            node,
            parents: BTreeMap::new(),
        }
    }

    /// Takes over whose work a spec is. What a deployment leaves to be done after its end is still its own.
    pub(crate) fn learn(&mut self, spec: &NodeSpec) {
        self.parents.retain(|module, _| spec.modules.contains_key(module));
        self.parents.extend(
            spec.traces
                .iter()
                .map(|(module, parent)| (module.clone(), *parent)),
        );
    }

    /// The trace of the deployment that last touched a module, for logs.
    pub(crate) fn trace_id(&self, module: &ModuleName) -> Option<String> {
        let parent = self.parents.get(module)?;
        Some(format!("{:032x}", parent.trace_id))
    }

    /// Begins a piece of work; nothing where no trace is known or nobody wants it.
    pub(crate) fn begin(&self, name: &'static str, module: &ModuleName, digest: Option<Digest>) -> Begun {
        let begun = self.out.as_ref().zip(self.parents.get(module));
        Begun(begun.map(|(out, parent)| {
            let now = SystemTime::now();
            let mut attributes = vec![
                ("hotswap.node", self.node.clone()),
                ("hotswap.module", module.to_string()),
            ];
            attributes.extend(digest.map(|digest| ("hotswap.digest", digest.to_string())));
            let span = Span {
                trace_id: parent.trace_id,
                span_id: fastrand::u64(1..),
                parent: Some(parent.span_id),
                parent_is_remote: true,
                name: name.into(),
                kind: Kind::Internal,
                start: now,
                end: now,
                attributes,
                error: None,
            };
            (out.clone(), span)
        }))
    }
}

impl Begun {
    /// It is done, well or not.
    pub(crate) fn end(self, error: Option<&str>) {
        if let Some((out, mut span)) = self.0 {
            span.end = SystemTime::now();
            span.error = error.map(str::to_owned);
            out.give(span);
        }
    }
}

/// Which users' requests are recorded.
#[derive(Clone, Debug)]
pub struct RequestSpans {
    out: Spans,
    /// Of 2^32 requests that no caller has decided on.
    sampled_of_2_32: u64,
}

/// A recorded request under way.
#[derive(Debug)]
pub(crate) struct RequestSpan {
    out: Spans,
    span: Span,
}

impl RequestSpans {
    /// Records this share of the requests, in %, and those that their callers record.
    pub fn new(out: Spans, sampled_percent: f64) -> Self {
        let share = (sampled_percent / 100.0).clamp(0.0, 1.0);
        #[expect(clippy::cast_possible_truncation, reason = "clamped to 0..=2^32")]
        let sampled_of_2_32 = (share * 4_294_967_296.0) as u64;
        Self { out, sampled_of_2_32 }
    }

    /// Begins a span for a request that is recorded: its caller records it, or it has no caller's trace and is drawn.
    /// The module finds the span in the request's `traceparent`.
    pub(crate) fn begin(&self, request: &mut request::Parts) -> Option<RequestSpan> {
        let caller = parent_of(&request.headers);
        let recorded = match caller {
            Some(caller) => caller.sampled,
            None => u64::from(fastrand::u32(..)) < self.sampled_of_2_32,
        };
        if !recorded {
            return None;
        }
        let own = TraceParent {
            trace_id: caller.map_or_else(|| fastrand::u128(1..), |caller| caller.trace_id),
            span_id: fastrand::u64(1..),
            sampled: true,
        };
        let value = HeaderValue::try_from(own.to_string()).ok()?;
        request.headers.insert(TRACEPARENT, value);
        let now = SystemTime::now();
        let span = Span {
            trace_id: own.trace_id,
            span_id: own.span_id,
            parent: caller.map(|caller| caller.span_id),
            parent_is_remote: true,
            name: request.method.to_string().into(),
            kind: Kind::Server,
            start: now,
            end: now,
            attributes: vec![
                ("http.request.method", request.method.to_string()),
                ("url.path", request.uri.path().to_owned()),
            ],
            error: None,
        };
        Some(RequestSpan {
            out: self.out.clone(),
            span,
        })
    }
}

fn parent_of(headers: &HeaderMap) -> Option<TraceParent> {
    headers.get(TRACEPARENT)?.to_str().ok()?.parse().ok()
}

impl RequestSpan {
    /// It was answered, by a release or by the ingress itself.
    pub(crate) fn end(mut self, response: &Response<Body>) {
        let status = response.status();
        self.span.end = SystemTime::now();
        self.span
            .attributes
            .push(("http.response.status_code", status.as_u16().to_string()));
        let release = response.headers().get(RELEASE_HEADER);
        let release = release.and_then(|release| release.to_str().ok());
        self.span
            .attributes
            .extend(release.map(|release| ("hotswap.release", release.to_owned())));
        self.span.error = status.is_server_error().then(|| status.to_string());
        self.out.give(self.span);
    }
}
