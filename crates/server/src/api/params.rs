//! Query parameters and identities in paths.

use std::collections::BTreeMap;

use axum::extract::{FromRequestParts, Query};
use axum::http::request::Parts;
use hotswap_core::ids::{DeploymentId, EnvName};
use hotswap_core::policy::Environment;
use hotswap_core::state::State;

use super::ApiError;

/// Characters of what was given that a refusal repeats.
const SHOWN_LEN_MAX: usize = 100;

/// What was given, as far as a refusal repeats it.
pub(super) fn shown(given: &str) -> String {
    given.chars().take(SHOWN_LEN_MAX).collect()
}

/// A query's parameters, by name.
#[derive(Debug)]
pub(super) struct Params(BTreeMap<String, String>);

impl<S: Sync> FromRequestParts<S> for Params {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, ApiError> {
        Query::<BTreeMap<String, String>>::try_from_uri(&parts.uri)
            .map(|Query(params)| Self(params))
            .map_err(|_| ApiError::bad_request("the query can't be read; write it as name=value&name=value"))
    }
}

impl Params {
    /// A parameter, unless it is absent or empty.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0
            .get(name)
            .map(String::as_str)
            .filter(|value| !value.is_empty())
    }

    /// A page's size, 1 to `max`.
    pub(super) fn limit(&self, default: usize, max: usize, faults: &mut Vec<String>) -> usize {
        match self.get("limit").map(str::parse) {
            None => default,
            Some(Ok(limit)) if (1..=max).contains(&limit) => limit,
            Some(_) => {
                faults.push(format!("limit: must be a whole number from 1 to {max}"));
                default
            }
        }
    }
}

/// A deployment's identity in a path. What is no UUID names no deployment.
pub(super) fn deployment_id(text: &str) -> Result<DeploymentId, ApiError> {
    text.parse().map_err(|_| unknown_deployment(text))
}

/// The answer where there is no such deployment.
pub(super) fn unknown_deployment(id: &str) -> ApiError {
    let id = shown(id);
    ApiError::not_found(
        "unknown_deployment",
        format!("deployment {id} is unknown; GET /api/v1/deployments lists those there are"),
    )
}

/// An environment by its name in any case, or the names that there are.
pub(super) fn environment<'a>(state: &'a State, name: &str) -> Result<&'a Environment, String> {
    let found = name
        .parse::<EnvName>()
        .ok()
        .and_then(|name| state.environment(&name).ok());
    found.ok_or_else(|| {
        let known: Vec<&str> = state
            .environments
            .iter()
            .map(|environment| environment.name.as_str())
            .collect();
        let name = shown(name);
        format!(
            "environment {name:?} is not configured; there are: {}",
            known.join(", ")
        )
    })
}
