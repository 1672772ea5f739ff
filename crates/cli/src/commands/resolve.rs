//! Ids may be shortened to a unique beginning.

use serde_json::Value;

use super::Remote;
use crate::client::{ApiError, DeploymentRow, typed};
use crate::problem::Problem;

/// How many deployments, newest first, a shortened id is looked for in.
const LOOKED_AT_MAX: usize = 2_000;
/// How many deployments a listing has at most in one page.
const PAGE: &str = "500";
/// Most candidates that an error names.
const NAMED_MAX: usize = 8;

/// The whole id of what was typed.
///
/// # Errors
/// No deployment begins so, or several do.
pub(super) async fn deployment(remote: &Remote<'_>, typed_id: &str) -> anyhow::Result<String> {
    let wanted = typed_id.trim().to_ascii_lowercase();
    if let Ok(id) = wanted.parse::<uuid::Uuid>() {
        return Ok(id.to_string());
    }
    if wanted.is_empty() || !wanted.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-') {
        return Err(Problem::usage(format!(
            "{typed_id:?} is no deployment id, nor the beginning of one"
        ))
        .next("`hotswap deployments` lists them")
        .into());
    }
    let rows = remote
        .client
        .list(&["deployments"], &[("limit", PAGE)], LOOKED_AT_MAX)
        .await?;
    let rows = rows
        .into_iter()
        .map(typed)
        .collect::<Result<Vec<DeploymentRow>, ApiError>>()?;
    let found: Vec<&DeploymentRow> = rows
        .iter()
        .filter(|row| row.execution_id.starts_with(&wanted))
        .collect();
    match found.as_slice() {
        [one] => Ok(one.execution_id.clone()),
        [] => Err(Problem::usage(format!("no deployment's id begins with {wanted}"))
            .next("`hotswap deployments` lists them")
            .into()),
        several => {
            let name = |row: &&DeploymentRow| {
                format!(
                    "{}  {} {} to {}",
                    row.execution_id, row.module_name, row.version, row.target_environment
                )
            };
            Err(
                Problem::usage(format!("{} deployments' ids begin with {wanted}", several.len()))
                    .details(several.iter().take(NAMED_MAX).map(name).collect())
                    .next("write more of it")
                    .into(),
            )
        }
    }
}

/// The shortest beginning, of at least eight digits, that tells an id from the others.
pub(super) fn short_ids(ids: &[&str]) -> usize {
    const SHORT_MIN: usize = 8;
    (SHORT_MIN..36)
        .find(|&length| {
            let mut beginnings: Vec<&str> = ids.iter().map(|id| id.get(..length).unwrap_or(id)).collect();
            beginnings.sort_unstable();
            beginnings.windows(2).all(|pair| pair[0] != pair[1])
        })
        .unwrap_or(36)
}

/// The beginning of an id, for tables.
pub(super) fn shortened(id: &str, length: usize) -> &str {
    id.get(..length).unwrap_or(id)
}

/// A text of an answer's object.
pub(super) fn text<'a>(object: &'a Value, key: &str) -> &'a str {
    object.get(key).and_then(Value::as_str).unwrap_or_default()
}
