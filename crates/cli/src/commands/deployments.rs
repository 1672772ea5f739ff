//! List deployments.

use super::{Remote, resolve, suggest};
use crate::args::Deployments;
use crate::client::{ApiError, DeploymentRow, typed};
use crate::exit::Exit;
use crate::output::{Cell, Table, ago, duration, iso_duration};

/// Lists them, newest first.
pub(super) async fn run(remote: &Remote<'_>, args: &Deployments) -> anyhow::Result<Exit> {
    let limit = args.limit.to_string();
    let mut query = vec![("limit", limit.as_str())];
    let filters = [
        ("status", &args.status),
        ("module", &args.module),
        ("environment", &args.env),
    ];
    query.extend(
        filters
            .into_iter()
            .filter_map(|(key, value)| Some((key, value.as_deref()?))),
    );
    let values = match remote
        .client
        .list(&["deployments"], &query, args.limit as usize)
        .await
    {
        Ok(values) => values,
        Err(refusal) => {
            return Err(match (&args.env, refusal.status()) {
                (Some(env), Some(400 | 404)) => suggest::environment(remote, env, refusal).await,
                _ => refusal.into(),
            });
        }
    };
    if remote.output.is_json() {
        remote.output.json(&values)?;
        return Ok(Exit::Done);
    }
    let rows = values
        .into_iter()
        .map(typed)
        .collect::<Result<Vec<DeploymentRow>, ApiError>>()?;
    if rows.is_empty() {
        remote
            .output
            .line("no deployments; `hotswap deploy NAME VERSION --to ENV` starts one")?;
        return Ok(Exit::Done);
    }
    let ids: Vec<&str> = rows.iter().map(|row| row.execution_id.as_str()).collect();
    let length = resolve::short_ids(&ids);
    let mut table = Table::new(["ID", "MODULE", "VERSION", "TARGET", "STATUS", "STARTED", "TOOK"]);
    for row in &rows {
        let taken = row.duration.as_deref().and_then(iso_duration).map(duration);
        table.row([
            Cell::new(resolve::shortened(&row.execution_id, length)),
            Cell::new(&row.module_name),
            Cell::new(&row.version),
            Cell::new(&row.target_environment),
            Cell::status(&row.status),
            Cell::new(ago(&row.start_time)),
            Cell::number(taken.unwrap_or_default()),
        ]);
    }
    remote.output.table(&table)?;
    Ok(Exit::Done)
}
