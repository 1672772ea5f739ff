//! The audit log, read.

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, header};
use serde::Serialize;
use utoipa::ToSchema;

use super::params::{Params, deployment_id};
use super::{ApiError, BASE, ErrorBody, Shared};
use crate::audit::{AuditKind, AuditQuery, AuditRow, PAGE_MAX};
use crate::views::time::{parse_rfc3339, rfc3339};

/// Entries of a page unless the query says otherwise.
const PAGE_DEFAULT: usize = 100;
/// Longest value of a filter, in characters.
const FILTER_LEN_MAX: usize = 200;
/// Filters that are texts.
const TEXTS: [&str; 3] = ["actor", "action", "outcome"];

/// One thing that was done, or tried.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct AuditView {
    /// Its number, from 1, without gaps.
    pub seq: u64,
    /// When.
    #[schema(format = "date-time")]
    pub time: String,
    /// server, event, command, login, denial, account, token, key or node.
    pub kind: String,
    /// What was done.
    pub action: String,
    /// Who did it; absent where nobody is known, or the server decided.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub actor: Option<String>,
    /// The API token that spoke for them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// `done`, or the code of the refusal.
    pub outcome: String,
    /// More, for people.
    pub detail: String,
    /// The deployment that it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(format = "uuid")]
    pub deployment: Option<String>,
    /// The request's W3C trace id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trace_id: Option<String>,
    /// Where the request came from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// The event's number in the log.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub event: Option<u64>,
    /// The entry's hash: SHA-256 of the hash before it and of its text.
    pub hash: String,
}

/// What a verification came to.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct VerifiedView {
    /// Whether nothing was changed.
    pub intact: bool,
    /// Entries looked at.
    pub entries: u64,
    /// Events of the log that were compared with their entries.
    pub events: u64,
    /// Signed heads that were compared.
    pub heads: u64,
    /// The last entry's hash: note it elsewhere, and a cut-off end shows.
    pub head: String,
    /// What was changed; at most 100.
    pub faults: Vec<FaultView>,
}

/// Something that was changed.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct FaultView {
    /// Which entry, if one.
    pub seq: Option<u64>,
    /// What is wrong with it.
    pub what: String,
}

fn view(row: AuditRow) -> AuditView {
    let hash = row.hash.iter().map(|byte| format!("{byte:02x}")).collect();
    let Some(entry) = row.entry else {
        return AuditView {
            seq: row.seq,
            time: rfc3339(hotswap_core::time::WallTime(0)),
            kind: "server".to_owned(),
            action: "unreadable".to_owned(),
            actor: None,
            token: None,
            outcome: "unknown".to_owned(),
            detail: "this entry's text can't be read: it was changed".to_owned(),
            deployment: None,
            trace_id: None,
            address: None,
            event: None,
            hash,
        };
    };
    let kind = serde_json::to_value(entry.kind).ok();
    AuditView {
        seq: row.seq,
        time: rfc3339(entry.at),
        kind: kind
            .and_then(|kind| kind.as_str().map(str::to_owned))
            .unwrap_or_default(),
        action: entry.action,
        actor: entry.actor,
        token: entry.token,
        outcome: entry.outcome,
        detail: entry.detail,
        deployment: entry.deployment.map(|id| id.to_string()),
        trace_id: entry.trace_id,
        address: entry.address.map(|address| address.to_string()),
        event: entry.event,
        hash,
    }
}

/// Lists what was done, newest first.
#[utoipa::path(
    get, path = "/audit", tag = "audit", security(("bearer" = ["Admin"])),
    params(
        ("actor" = Option<String>, Query, description = "Only by this user."),
        ("kind" = Option<String>, Query, description = "Only of this kind: server, event, command, login, denial, account, token, key or node."),
        ("action" = Option<String>, Query, description = "Only of this action, e.g. deploy or login."),
        ("outcome" = Option<String>, Query, description = "Only with this outcome: done, or a refusal's code."),
        ("deployment" = Option<String>, Query, description = "Only about this deployment."),
        ("from" = Option<String>, Query, description = "Only from this time on, RFC 3339."),
        ("to" = Option<String>, Query, description = "Only before this time, RFC 3339."),
        ("limit" = Option<u32>, Query, description = "At most so many, 1 to 1000; 100 by default."),
        ("cursor" = Option<String>, Query, description = "The next page, from the Link header of the one before."),
    ),
    responses(
        (status = OK, body = Vec<AuditView>, headers(("Link" = String, description = "The next page, rel=\"next\"."))),
        (status = BAD_REQUEST, body = ErrorBody),
    )
)]
pub(super) async fn list(
    State(api): Shared,
    params: Params,
) -> Result<(HeaderMap, Json<Vec<AuditView>>), ApiError> {
    let query = query(&params)?;
    let limit = query.limit;
    let rows = api.access.store().audit_page(query).await?;
    let mut headers = HeaderMap::new();
    if let Some(last) = rows.last().filter(|_| rows.len() == limit) {
        headers.insert(header::LINK, next_page(&params, limit, last.seq)?);
    }
    Ok((headers, Json(rows.into_iter().map(view).collect())))
}

fn query(params: &Params) -> Result<AuditQuery, ApiError> {
    let mut faults = Vec::new();
    let limit = params.limit(PAGE_DEFAULT, PAGE_MAX, &mut faults);
    for name in TEXTS {
        let plain = |text: &str| {
            text.len() <= FILTER_LEN_MAX && text.bytes().all(|b| b.is_ascii_graphic() || b == b' ')
        };
        if params.get(name).is_some_and(|text| !plain(text)) {
            faults.push(format!(
                "{name}: must be at most {FILTER_LEN_MAX} printable ASCII characters"
            ));
        }
    }
    let kind = params.get("kind");
    if kind.is_some_and(|kind| !AuditKind::NAMES.contains(&kind)) {
        faults.push(format!("kind: must be one of {}", AuditKind::NAMES.join(", ")));
    }
    let mut time = |name: &str| {
        let text = params.get(name)?;
        let time = parse_rfc3339(text);
        if time.is_none() {
            faults.push(format!("{name}: must be a time such as 2026-11-24T20:00:00Z"));
        }
        time
    };
    let (from, to) = (time("from"), time("to"));
    let deployment = params.get("deployment").map(deployment_id);
    if matches!(deployment, Some(Err(_))) {
        faults.push("deployment: must be a deployment's executionId".to_owned());
    }
    let before = params.get("cursor").map(str::parse::<u64>);
    if matches!(before, Some(Err(_))) {
        faults.push("cursor: take it from the Link header of the page before".to_owned());
    }
    if !faults.is_empty() {
        return Err(ApiError::validation(faults));
    }
    let text = |name: &str| params.get(name).map(str::to_owned);
    Ok(AuditQuery {
        actor: text("actor"),
        kind: text("kind"),
        action: text("action"),
        outcome: text("outcome"),
        deployment: deployment.and_then(Result::ok),
        from,
        to,
        before: before.and_then(Result::ok),
        limit,
    })
}

fn next_page(params: &Params, limit: usize, last: u64) -> Result<HeaderValue, ApiError> {
    let mut next = format!("{BASE}/audit?limit={limit}&cursor={last}");
    for name in ["actor", "kind", "action", "outcome", "deployment", "from", "to"] {
        if let Some(value) = params.get(name) {
            next.push_str(&format!("&{name}={}", escaped(value)));
        }
    }
    HeaderValue::from_str(&format!("<{next}>; rel=\"next\"")).map_err(|error| ApiError::internal(&error))
}

/// Percent-encoded, but for what needs no escape in a query.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~:".contains(&byte) {
            escaped.push(byte.into());
        } else {
            escaped.push_str(&format!("%{byte:02X}"));
        }
    }
    escaped
}

/// Verifies the whole audit log; takes time in proportion to it.
#[utoipa::path(
    get, path = "/audit/verify", tag = "audit", security(("bearer" = ["Admin"])),
    responses((status = OK, body = VerifiedView))
)]
pub(super) async fn verify(State(api): Shared) -> Result<Json<VerifiedView>, ApiError> {
    let report = api.access.store().verify_audit().await?;
    Ok(Json(VerifiedView {
        intact: report.faults.is_empty(),
        entries: report.entries,
        events: report.events,
        heads: report.heads,
        head: report.head,
        faults: report
            .faults
            .into_iter()
            .map(|fault| FaultView {
                seq: fault.seq,
                what: fault.what,
            })
            .collect(),
    }))
}
