//! Did you mean …?

use super::Remote;
use super::resolve::text;
use crate::client::{ApiError, ClusterRow};
use crate::problem::Problem;

/// Names less alike than this (Jaro-Winkler) are no slip of the keyboard.
const ALIKE_MIN: f64 = 0.75;

/// The name that is most like what was typed, if one is.
fn closest<'a>(typed: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let typed = typed.to_lowercase();
    names
        .into_iter()
        .map(|name| (strsim::jaro_winkler(&typed, &name.to_lowercase()), name))
        .filter(|(alike, name)| *alike >= ALIKE_MIN && *name != typed)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, name)| name)
}

/// A refusal with a hint at the module that may have been meant.
pub(super) async fn module(remote: &Remote<'_>, name: &str, refusal: ApiError) -> anyhow::Error {
    let names: Vec<String> = match remote.client.list(&["modules"], &[], usize::MAX).await {
        Ok(modules) => modules
            .iter()
            .map(|module| text(module, "moduleName").to_owned())
            .collect(),
        Err(_) => Vec::new(),
    };
    let problem = Problem::from(&refusal);
    if names.iter().any(|known| known == name) {
        return problem
            .next(format!("`hotswap module list {name}` shows its versions"))
            .into();
    }
    match closest(name, names.iter().map(String::as_str)) {
        Some(close) => problem.next(format!("did you mean {close}?")),
        None => problem.next("`hotswap module list` shows what there is, `hotswap module push` adds to it"),
    }
    .into()
}

/// A refusal with a hint at the environment that may have been meant.
pub(super) async fn environment(remote: &Remote<'_>, name: &str, refusal: ApiError) -> anyhow::Error {
    let clusters: Vec<ClusterRow> = remote.client.fetch(&["clusters"], &[]).await.unwrap_or_default();
    let names: Vec<&str> = clusters
        .iter()
        .map(|cluster| cluster.environment.as_str())
        .collect();
    let problem = Problem::from(&refusal);
    if names.is_empty() || names.iter().any(|known| known.eq_ignore_ascii_case(name)) {
        return problem.into();
    }
    among(problem, name, &names)
}

/// A refusal with a hint at the module or the environment that may have been meant.
pub(super) async fn release(
    remote: &Remote<'_>,
    module_name: &str,
    to: &str,
    refusal: ApiError,
) -> anyhow::Error {
    match refusal.status() {
        Some(404) => module(remote, module_name, refusal).await,
        Some(400) => environment(remote, to, refusal).await,
        _ => refusal.into(),
    }
}

/// A refusal with a hint at the node that may have been meant.
pub(super) async fn node(remote: &Remote<'_>, name: &str, refusal: ApiError) -> anyhow::Error {
    if refusal.status() != Some(404) {
        return refusal.into();
    }
    let nodes = remote
        .client
        .list(&["nodes"], &[], usize::MAX)
        .await
        .unwrap_or_default();
    let names = nodes.iter().map(|node| text(node, "nodeId"));
    let problem = Problem::from(&refusal);
    match closest(name, names) {
        Some(close) => problem.next(format!("did you mean {close}?")),
        None => problem.next("`hotswap nodes` lists those there are"),
    }
    .into()
}

/// A problem with a hint at the one of the names that may have been meant.
pub(super) fn among(problem: Problem, name: &str, names: &[&str]) -> anyhow::Error {
    let known = names.join(", ");
    match closest(name, names.iter().copied()) {
        Some(close) => problem.next(format!("did you mean {close}? There are: {known}")),
        None => problem.next(format!("there are: {known}")),
    }
    .into()
}

#[cfg(test)]
mod tests {
    use super::closest;

    #[test]
    fn slips_are_recognised_and_others_not() {
        let names = ["Development", "QA", "Staging", "Production"];
        assert_eq!(closest("prodction", names), Some("Production"));
        assert_eq!(closest("stagin", names), Some("Staging"));
        assert_eq!(closest("mars", names), None);
    }
}
