//! What the example modules share: one request in, one JSON answer out, over `wasi:http`.
//!
//! A module writes `fn handle(&Request) -> Response` and `hotswap_guest::serve!(handle)`. Every answer
//! carries `x-module-version`, which the build takes from the version's folder.

use serde::Serialize;
use serde::de::DeserializeOwned;
use wasip2::http::types::{
    Fields, IncomingRequest, Method, OutgoingBody, OutgoingResponse, ResponseOutparam,
};
use wasip2::io::streams::StreamError;

#[doc(hidden)]
pub use wasip2;

/// Largest request body that a module reads; more is answered with 413.
pub const BODY_BYTES_MAX: usize = 64 << 10;
/// Bytes asked of the host at once; also what it takes at once on the way out.
const CHUNK_BYTES: usize = 4096;

/// A request, read whole.
pub struct Request {
    /// Upper-case method.
    pub method: String,
    /// Path without query.
    pub path: String,
    /// Query without `?`, perhaps empty.
    pub query: String,
    /// Body.
    pub body: Vec<u8>,
}

impl Request {
    /// The path's segments below a module's prefix.
    pub fn segments(&self, prefix: &str) -> Vec<&str> {
        self.path
            .strip_prefix(prefix)
            .unwrap_or_default()
            .split('/')
            .filter(|s| !s.is_empty())
            .collect()
    }

    /// A value of the query, as it stands there.
    pub fn query(&self, key: &str) -> Option<&str> {
        self.query
            .split('&')
            .filter_map(|pair| pair.split_once('='))
            .find(|(k, _)| *k == key)
            .map(|(_, v)| v)
    }

    /// The body as JSON, or the 400 that says what is wrong with it.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, Response> {
        serde_json::from_slice(&self.body).map_err(|e| Response::error(400, &format!("malformed body: {e}")))
    }
}

/// An answer.
pub struct Response {
    /// Status code.
    pub status: u16,
    /// Body.
    pub body: Vec<u8>,
    /// Media type of the body.
    pub content_type: &'static str,
}

impl Response {
    /// A JSON answer.
    pub fn json(status: u16, value: &impl Serialize) -> Self {
        match serde_json::to_vec(value) {
            Ok(body) => Self {
                status,
                body,
                content_type: "application/json",
            },
            Err(_) => Self::error(500, "the answer could not be written"),
        }
    }

    /// `{"error": …}`.
    pub fn error(status: u16, message: &str) -> Self {
        #[derive(Serialize)]
        struct Body<'a> {
            error: &'a str,
        }
        Self::json(status, &Body { error: message })
    }

    /// The answer for a path that there isn't.
    pub fn not_found(request: &Request) -> Self {
        Self::error(404, &format!("nothing at {} {}", request.method, request.path))
    }
}

/// FNV-1a, for ids that are made of content; nothing secret rests on it.
pub fn fingerprint(parts: &[&[u8]]) -> u64 {
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    parts.iter().fold(0xcbf2_9ce4_8422_2325, |hash, part| {
        part.iter().fold(step(hash, &0xff), step)
    })
}

/// Exports `fn(&Request) -> Response` as the module's handler.
#[macro_export]
macro_rules! serve {
    ($handle:path) => {
        struct Module;

        impl $crate::wasip2::exports::http::incoming_handler::Guest for Module {
            fn handle(
                request: $crate::wasip2::http::types::IncomingRequest,
                out: $crate::wasip2::http::types::ResponseOutparam,
            ) {
                $crate::answer(request, out, env!("MODULE_VERSION"), $handle);
            }
        }

        $crate::wasip2::http::proxy::export!(Module with_types_in $crate::wasip2);
    };
}

#[doc(hidden)]
pub fn answer(
    request: IncomingRequest,
    out: ResponseOutparam,
    version: &str,
    handle: fn(&Request) -> Response,
) {
    let response = match read(&request) {
        Ok(request) => handle(&request),
        Err(refused) => refused,
    };
    let fields = Fields::new();
    let set = |name: &str, value: &str| {
        fields
            .append(name, value.as_bytes())
            .expect("these headers are well-formed and not forbidden");
    };
    set("content-type", response.content_type);
    set("x-module-version", version);
    set("content-length", &response.body.len().to_string());
    let outgoing = OutgoingResponse::new(fields);
    outgoing
        .set_status_code(response.status)
        .expect("modules answer with statuses that there are");
    let body = outgoing.body().expect("the body is taken once");
    ResponseOutparam::set(out, Ok(outgoing));
    // A client that has gone away is no fault of the module: the rest is dropped.
    if write(&body, &response.body).is_ok() {
        let _ = OutgoingBody::finish(body, None);
    }
}

fn write(body: &OutgoingBody, bytes: &[u8]) -> Result<(), StreamError> {
    let stream = body.write().expect("the stream is taken once");
    // Most answers fit what the host takes at once: then nothing waits.
    if stream.check_write()? >= bytes.len() as u64 {
        return stream.write(bytes);
    }
    bytes
        .chunks(CHUNK_BYTES)
        .try_for_each(|chunk| stream.blocking_write_and_flush(chunk))
}

fn read(request: &IncomingRequest) -> Result<Request, Response> {
    let method = match request.method() {
        Method::Get => "GET".to_owned(),
        Method::Head => "HEAD".to_owned(),
        Method::Post => "POST".to_owned(),
        Method::Put => "PUT".to_owned(),
        Method::Delete => "DELETE".to_owned(),
        Method::Connect => "CONNECT".to_owned(),
        Method::Options => "OPTIONS".to_owned(),
        Method::Trace => "TRACE".to_owned(),
        Method::Patch => "PATCH".to_owned(),
        Method::Other(other) => other,
    };
    let target = request.path_with_query().unwrap_or_default();
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    let (path, query) = (path.to_owned(), query.to_owned());
    let body = if method == "GET" || method == "HEAD" {
        Vec::new()
    } else {
        read_body(request)?
    };
    Ok(Request {
        method,
        path,
        query,
        body,
    })
}

fn read_body(request: &IncomingRequest) -> Result<Vec<u8>, Response> {
    let incoming = request.consume().expect("the body is taken once");
    let stream = incoming.stream().expect("the stream is taken once");
    let mut body = Vec::new();
    loop {
        match stream.blocking_read(CHUNK_BYTES as u64) {
            Ok(chunk) => body.extend_from_slice(&chunk),
            Err(StreamError::Closed) => return Ok(body),
            Err(StreamError::LastOperationFailed(_)) => {
                return Err(Response::error(400, "the body broke off"));
            }
        }
        if body.len() > BODY_BYTES_MAX {
            return Err(Response::error(
                413,
                &format!("a body has at most {BODY_BYTES_MAX} bytes"),
            ));
        }
    }
}
