//! Who may call what. The document that describes the routes is what the guard goes by, so that neither can be without
//! the other: each operation names its role under `security`, and one that names none is for Admins.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use serde_json::Value;

use super::context::TraceId;
use super::limits::{Group, Limiter};
use super::{ApiError, BASE};
use crate::access::{Access, AccessError, Actor, Role, Source};

/// Routes that are in no document and open to everybody, as the router writes them: pages that hold no data.
fn is_open(path: &str) -> bool {
    matches!(path, "/" | "/openapi.json" | "/swagger")
        || path.starts_with("/console/")
        || path.starts_with("/swagger/")
}

/// Routes that somebody may call who has to choose a new password first.
const BEFORE_A_NEW_PASSWORD: [&str; 3] = [
    "/api/v1/authentication/me",
    "/api/v1/authentication/password",
    "/api/v1/authentication/logout",
];

/// Whether what is asked of a route is compared with a token's scope where it is done, since only there is known what it
/// is about. All else that changes something is closed to tokens with a scope.
fn looks_at_scope(path: &str) -> bool {
    const LOOKING: [&str; 6] = [
        "approvals",
        "deployments",
        "fleet",
        "join-tokens",
        "modules",
        "nodes",
    ];
    let named = path.strip_prefix(BASE).and_then(|rest| rest.split('/').nth(1));
    named.is_some_and(|first| LOOKING.contains(&first))
}

/// Where a connection comes from.
#[derive(Clone, Copy, Debug)]
pub struct Peer(pub SocketAddr);

/// What a route asks of its callers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Need {
    /// Nothing.
    Nobody,
    /// A token with at least this role.
    Role(Role),
}

/// Who may call what, and how often.
pub(super) struct Guard {
    needs: HashMap<String, HashMap<String, Need>>,
    access: Arc<Access>,
    limiter: Limiter,
}

impl Guard {
    /// Goes by the document.
    pub(super) fn new(document: &Value, access: Arc<Access>, limiter: Limiter) -> Self {
        let mut needs: HashMap<String, HashMap<String, Need>> = HashMap::new();
        for (path, operations) in document["paths"].as_object().into_iter().flatten() {
            for (method, operation) in operations.as_object().into_iter().flatten() {
                let method = method.to_ascii_uppercase();
                needs
                    .entry(path.clone())
                    .or_default()
                    .insert(method, need(operation));
            }
        }
        Self {
            needs,
            access,
            limiter,
        }
    }

    /// What a route asks; `None` where the path takes no such method, which is told to anybody.
    fn need(&self, path: &str, method: &Method) -> Option<Need> {
        // Who may get may ask for the head alone.
        let method = if *method == Method::HEAD {
            &Method::GET
        } else {
            method
        };
        match self.needs.get(path) {
            Some(methods) => methods.get(method.as_str()).copied(),
            None if is_open(path) => (*method == Method::GET).then_some(Need::Nobody),
            None => Some(Need::Role(Role::Admin)),
        }
    }

    fn enter(&self, call: &Entering<'_>) -> Result<Option<Actor>, ApiError> {
        let token = bearer(call.headers);
        let Some(path) = call.path else {
            return Ok(None);
        };
        match self.need(path, call.method) {
            None | Some(Need::Nobody) => Ok(None),
            Some(Need::Role(role)) => {
                let token = token?;
                let actor = self.access.authenticate(token)?;
                if actor.must_change && !BEFORE_A_NEW_PASSWORD.contains(&path) {
                    let error = "choose a new password first: POST /api/v1/authentication/password, or `hotswap login`";
                    return Err(forbidden(
                        &actor,
                        ApiError::new(StatusCode::FORBIDDEN, "password_change_required", error),
                    ));
                }
                if actor.role < role {
                    let error = format!(
                        "this needs the role {role}; {} has {}{}",
                        actor.subject,
                        actor.role,
                        actor
                            .token()
                            .map(|name| format!(" by the token {name:?}"))
                            .unwrap_or_default()
                    );
                    return Err(forbidden(
                        &actor,
                        ApiError::new(StatusCode::FORBIDDEN, "role_required", error),
                    ));
                }
                let reads = matches!(*call.method, Method::GET | Method::HEAD);
                if !reads && !actor.scope.is_everything() && !looks_at_scope(path) {
                    let error =
                        "this token is for some modules or environments, and this concerns all of them";
                    return Err(forbidden(
                        &actor,
                        ApiError::new(StatusCode::FORBIDDEN, "scope", error),
                    ));
                }
                Ok(Some(actor))
            }
        }
    }
}

fn forbidden(actor: &Actor, mut error: ApiError) -> ApiError {
    error.actor = Some(Box::new(actor.clone()));
    error
}

struct Entering<'a> {
    headers: &'a HeaderMap,
    method: &'a Method,
    path: Option<&'a str>,
}

/// The role that an operation names; one that names none is for Admins.
pub(super) fn need(operation: &Value) -> Need {
    let Some(security) = operation.get("security").and_then(Value::as_array) else {
        return Need::Role(Role::Admin);
    };
    if security
        .iter()
        .any(|one| one.as_object().is_some_and(serde_json::Map::is_empty))
    {
        return Need::Nobody;
    }
    let named = security
        .iter()
        .find_map(|one| one.get("bearer")?.get(0)?.as_str()?.parse().ok());
    Need::Role(named.unwrap_or(Role::Admin))
}

/// The token of an `Authorization: Bearer …`.
fn bearer(headers: &HeaderMap) -> Result<&str, ApiError> {
    let missing = || {
        let error =
            "a token is needed: send Authorization: Bearer …; POST /api/v1/authentication/login brings one";
        ApiError::new(StatusCode::UNAUTHORIZED, "token_required", error)
    };
    let value = headers.get(header::AUTHORIZATION).ok_or_else(missing)?;
    let text = value.to_str().map_err(|_| missing())?;
    let (scheme, token) = text.split_once(' ').ok_or_else(missing)?;
    if scheme.eq_ignore_ascii_case("bearer") && !token.trim().is_empty() {
        Ok(token.trim())
    } else {
        Err(missing())
    }
}

/// Lets a request in, or not, and counts it.
pub(super) async fn guarded(State(guard): State<Arc<Guard>>, mut request: Request, next: Next) -> Response {
    let path = request
        .extensions()
        .get::<MatchedPath>()
        .map(|path| path.as_str().to_owned());
    let peer: Option<IpAddr> = request.extensions().get::<Peer>().map(|peer| peer.0.ip());
    let source = Source {
        address: peer,
        trace_id: request.extensions().get::<TraceId>().map(|trace| trace.0.clone()),
    };
    let call = Entering {
        headers: request.headers(),
        method: request.method(),
        path: path.as_deref(),
    };
    let entered = guard.enter(&call);
    let group = Group::of(request.method(), path.as_deref());
    let who = match &entered {
        Ok(Some(actor)) => Some(actor.subject.clone()),
        Ok(None) => None,
        Err(error) => error.actor.as_ref().map(|actor| actor.subject.clone()),
    };
    let count = guard.limiter.count(group, who.as_deref(), peer);
    let what = format!(
        "{} {}",
        request.method(),
        path.as_deref().unwrap_or("an unknown route")
    );
    let refused = match (&count.refused, entered) {
        (Some(refused), _) => {
            // The first of a minute is written down; more say nothing new.
            if refused.first {
                note_limit(&guard.access, who, &source, &what);
            }
            Some(refused.error())
        }
        (None, Err(error)) => {
            guard
                .access
                .denied(error.actor.as_deref(), &source, &what, error.code);
            Some(error)
        }
        (None, Ok(actor)) => {
            if let Some(actor) = actor {
                request.extensions_mut().insert(actor);
            }
            None
        }
    };
    request.extensions_mut().insert(source);
    let mut response = match refused {
        None => next.run(request).await,
        Some(error) => {
            let unauthenticated = error.status == StatusCode::UNAUTHORIZED;
            let mut response = error.into_response();
            if unauthenticated {
                let challenge = HeaderValue::from_static("Bearer realm=\"hotswap\"");
                response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
            }
            response
        }
    };
    count.tell(&mut response);
    if path.is_some_and(|path| path.starts_with(BASE)) {
        let headers = response.headers_mut();
        headers
            .entry(header::CACHE_CONTROL)
            .or_insert(HeaderValue::from_static("no-store"));
    }
    response
}

fn note_limit(access: &Access, actor: Option<String>, source: &Source, what: &str) {
    let entry =
        crate::audit::AuditEntry::done(crate::clock::wall_now(), crate::audit::AuditKind::Denial, what);
    access.note(crate::audit::AuditEntry {
        actor,
        trace_id: source.trace_id.clone(),
        address: source.address,
        outcome: "rate_limited".to_owned(),
        ..entry
    });
}

impl From<AccessError> for ApiError {
    fn from(error: AccessError) -> Self {
        let (status, code) = match &error {
            AccessError::BadCredentials => (StatusCode::UNAUTHORIZED, "bad_credentials"),
            AccessError::Unauthenticated(_) => (StatusCode::UNAUTHORIZED, "token_refused"),
            AccessError::Forbidden(_) => (StatusCode::FORBIDDEN, "forbidden"),
            AccessError::Invalid(faults) => return Self::validation(faults.clone()),
            AccessError::NotFound(_) => (StatusCode::NOT_FOUND, "not_found"),
            AccessError::Conflict(_) => (StatusCode::CONFLICT, "conflict"),
            AccessError::Busy => (StatusCode::SERVICE_UNAVAILABLE, "busy"),
            AccessError::Store(error) if error.is_full() => {
                let error = "the server's disk is full: it is read-only until there is room";
                return Self::new(StatusCode::SERVICE_UNAVAILABLE, "read_only", error);
            }
            AccessError::Store(_) | AccessError::Internal(_) => return Self::internal(&error),
        };
        Self::new(status, code, error.to_string())
    }
}
