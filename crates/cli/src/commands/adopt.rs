//! Take a fleet over after a backup was restored.

use serde_json::Value;

use super::Remote;
use super::resolve::text;
use crate::exit::Exit;

/// Has the server adopt the fleet.
pub(super) async fn run(remote: &Remote<'_>) -> anyhow::Result<Exit> {
    let fleet = remote.client.get(&["fleet"], &[]).await?;
    let adopted = remote.client.post(&["fleet", "adopt"], None::<&Value>).await?;
    if remote.output.is_json() {
        remote.output.json(&adopted)?;
    } else {
        remote.output.line(format!(
            "fleet {} is adopted under epoch {}: {} nodes that knew newer specs take this server's now",
            text(&fleet, "fleetId"),
            adopted["epoch"],
            fleet["nodesAhead"]
        ))?;
    }
    Ok(Exit::Done)
}
