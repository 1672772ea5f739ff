//! A module's versions: listed, held, withdrawn.

use std::ops::Bound;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::Response;
use hotswap_core::command::{Command, Refusal};
use hotswap_core::ids::{ModuleName, ReleaseRef};
use hotswap_core::release::Release;
use hotswap_core::state::State as CoreState;
use serde::Serialize;
use utoipa::ToSchema;

use super::body::MaybeJson;
use super::call::Call;
use super::create::Form;
use super::params::{Params, shown};
use super::{Api, ApiError, BASE, ErrorBody, Shared, commands, etag};
use crate::views::module::{ReleaseView, release_view};

/// Versions of a page unless the query says otherwise.
const PAGE_DEFAULT: usize = 100;
/// Most versions of a page.
const PAGE_MAX: usize = 1_000;
/// Longest reason, in characters.
const REASON_LEN_MAX: usize = 500;

/// Why, as the document describes it.
#[derive(ToSchema)]
#[expect(
    dead_code,
    reason = "a body is read field by field, to tell all its faults at once"
)]
pub(super) struct WithReason {
    /// For people.
    #[schema(max_length = 500)]
    pub reason: Option<String>,
}

/// A version of a module.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct VersionView {
    /// Its module.
    #[schema(example = "payment-processor")]
    pub module_name: String,
    /// What it is.
    pub release: ReleaseView,
    /// Where it is stable.
    pub stable_in: Vec<String>,
}

/// Lists a module's versions, newest first.
#[utoipa::path(
    get, path = "/modules/{name}/versions", tag = "modules", security(("bearer" = ["Viewer"])),
    params(
        ("name" = String, Path, description = "The module."),
        ("limit" = Option<u32>, Query, description = "At most so many, 1 to 1000; 100 by default."),
        ("cursor" = Option<String>, Query, description = "The next page, from the Link header of the one before."),
    ),
    responses(
        (status = OK, body = Vec<ReleaseView>, headers(("Link" = String, description = "The next page, rel=\"next\"."))),
        (status = BAD_REQUEST, body = ErrorBody), (status = NOT_FOUND, body = ErrorBody),
    )
)]
pub(super) async fn versions(
    State(api): Shared,
    Path(name): Path<String>,
    params: Params,
) -> Result<(HeaderMap, Json<Vec<ReleaseView>>), ApiError> {
    let mut faults = Vec::new();
    let limit = params.limit(PAGE_DEFAULT, PAGE_MAX, &mut faults);
    let before = params.get("cursor").map_or(Bound::Unbounded, |cursor| {
        match cursor.parse::<semver::Version>() {
            Ok(version) => Bound::Excluded(version),
            Err(_) => {
                faults.push("cursor: take it from the Link header of the page before".to_owned());
                Bound::Unbounded
            }
        }
    });
    if !faults.is_empty() {
        return Err(ApiError::validation(faults));
    }
    let state = api.world().state();
    let name = module_name(&name)?;
    let Some(module) = state.modules.get(&name) else {
        return Err(unknown_module(&state, name));
    };
    let newest_first = module.releases.range((Bound::Unbounded, before)).rev();
    let page: Vec<ReleaseView> = newest_first
        .take(limit)
        .map(|(version, release)| release_view(module, version, release))
        .collect();
    let mut headers = HeaderMap::new();
    if let Some(last) = page.last().filter(|_| page.len() == limit) {
        // Of what versions are made of, only + means something else in a query.
        let cursor = last.version.replace('+', "%2B");
        let next = format!("<{BASE}/modules/{name}/versions?limit={limit}&cursor={cursor}>; rel=\"next\"");
        headers.insert(
            header::LINK,
            HeaderValue::from_str(&next).map_err(|error| ApiError::internal(&error))?,
        );
    }
    Ok((headers, Json(page)))
}

/// Tells what a version is, and where it is stable.
#[utoipa::path(
    get, path = "/modules/{name}/versions/{version}", tag = "modules", security(("bearer" = ["Viewer"])),
    params(
        ("name" = String, Path, description = "The module."), ("version" = String, Path, description = "The version."),
        ("If-None-Match" = Option<String>, Header, description = "The ETag of an answer that the client has."),
    ),
    responses(
        (status = OK, body = VersionView), (status = NOT_MODIFIED, description = "The client has it."),
        (status = NOT_FOUND, body = ErrorBody),
    )
)]
pub(super) async fn version(
    State(api): Shared,
    Path((name, version)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let state = api.world().state();
    let (name, version) = (module_name(&name)?, version_of(&name, &version)?);
    let release = state
        .release(&name, &version)
        .map_err(|refusal| ApiError::refused(&refusal))?;
    etag::json(&headers, &view(&state, &name, &version, release))
}

fn view(state: &CoreState, name: &ModuleName, version: &semver::Version, release: &Release) -> VersionView {
    let stable_in = state.environments.iter().filter(|environment| {
        let stable = state
            .env_module(&environment.name, name)
            .and_then(|module| module.stable.as_ref());
        stable.is_some_and(|stable| stable.release.version == *version)
    });
    VersionView {
        stable_in: stable_in
            .map(|environment| environment.name.to_string())
            .collect(),
        release: release_view(&state.modules[name], version, release),
        module_name: name.to_string(),
    }
}

macro_rules! word {
    ($(#[$doc:meta])* $name:ident, $path:literal, |$api:ident, $module:ident, $version:ident, $reason:ident, $by:ident| $command:expr) => {
        $(#[$doc])*
        #[utoipa::path(
            post, path = $path, tag = "modules", security(("bearer" = ["Deployer"])), request_body = Option<WithReason>,
            params(
                ("name" = String, Path, description = "The module."),
                ("version" = String, Path, description = "The version."),
                ("Idempotency-Key" = Option<String>, Header, description = "A retry under the same key gets the first answer."),
            ),
            responses(
                (status = OK, body = VersionView), (status = BAD_REQUEST, body = ErrorBody),
                (status = NOT_FOUND, body = ErrorBody), (status = PAYLOAD_TOO_LARGE, body = ErrorBody),
                (status = UNSUPPORTED_MEDIA_TYPE, body = ErrorBody), (status = UNPROCESSABLE_ENTITY, body = ErrorBody),
                (status = SERVICE_UNAVAILABLE, body = ErrorBody),
            )
        )]
        pub(super) async fn $name(
            State($api): Shared,
            Path((name, version)): Path<(String, String)>,
            call: Call,
            MaybeJson(body): MaybeJson,
        ) -> Result<Response, ApiError> {
            let ($module, $version) = (module_name(&name)?, version_of(&name, &version)?);
            let mut form = Form::new(&body.fields);
            let reason = form.short("reason", REASON_LEN_MAX);
            let $reason = form.read(Some(reason))?;
            let $by = call.subject();
            let (module, version) = ($module.clone(), $version.clone());
            let command = $command;
            let trace_id = call.trace_id.clone();
            let answer = move |state: &CoreState, outcome: crate::driver::Outcome<'_>| {
                match (outcome.result, state.release(&module, &version)) {
                    (Ok(_), Ok(release)) => {
                        let view = view(state, &module, &version, release);
                        commands::answer(StatusCode::OK, None, &view)
                    }
                    (Err(refusal), _) => commands::refusal(refusal, &trace_id),
                    (_, Err(refusal)) => commands::refusal(&refusal, &trace_id),
                }
            };
            commands::run(&$api, &call, &body.bytes, command, Box::new(answer)).await
        }
    };
}

word!(
    /// Puts a version on hold: no promotion takes it until the hold is lifted.
    hold, "/modules/{name}/versions/{version}/hold",
    |api, module, version, reason, by| {
        let digest = digest_of(&api, &module, &version)?;
        let reason = if reason.is_empty() { "held by an operator".to_owned() } else { reason };
        let release = ReleaseRef { version, digest, config: 0 };
        Command::Hold { module, release, reason, by }
    }
);
word!(
    /// Lifts a version's hold, whoever put it there.
    unhold, "/modules/{name}/versions/{version}/unhold",
    |api, module, version, _reason, by| {
        let digest = digest_of(&api, &module, &version)?;
        Command::LiftHold { module, digest, by }
    }
);
word!(
    /// Withdraws a version: it is listed as such and can't be deployed, and what runs it keeps it.
    yank, "/modules/{name}/versions/{version}/yank",
    |api, module, version, reason, by| {
        let reason = if reason.is_empty() { "no reason was given".to_owned() } else { reason };
        Command::Yank { module, version, reason, by }
    }
);
word!(
    /// Offers a withdrawn version again.
    unyank, "/modules/{name}/versions/{version}/unyank",
    |api, module, version, _reason, by| Command::Unyank { module, version, by }
);

fn digest_of(
    api: &Api,
    module: &ModuleName,
    version: &semver::Version,
) -> Result<hotswap_core::ids::Digest, ApiError> {
    let state = api.world().state();
    let release = state
        .release(module, version)
        .map_err(|refusal| ApiError::refused(&refusal))?;
    Ok(release.digest)
}

/// A module's name in a path.
pub(super) fn module_name(text: &str) -> Result<ModuleName, ApiError> {
    text.parse()
        .map_err(|error| ApiError::not_found("unknown_module", format!("no such module: {error}")))
}

/// A version in a path.
fn version_of(module: &str, text: &str) -> Result<semver::Version, ApiError> {
    super::create::parse_version(text).map_err(|error| {
        let text = shown(text);
        let module = shown(module);
        ApiError::not_found(
            "unknown_version",
            format!("{module} has no version {text}: a version {error}"),
        )
    })
}

pub(super) fn unknown_module(state: &CoreState, module: ModuleName) -> ApiError {
    let known = state.modules.keys().map(ToString::to_string).collect();
    ApiError::refused(&Refusal::UnknownModule { module, known })
}
