//! What lies on disk.

use std::path::{Path, PathBuf};

use hotswap_config::Loaded;
use hotswap_server::backup;

use super::Finding;

/// Less room than this fills within hours under load.
const ROOM_WANTED_BYTES: u64 = 1 << 30;
/// Less than this is full for all that matters.
const ROOM_NEEDED_BYTES: u64 = 64 << 20;

/// The data of a server and of an agent, where there is such.
pub(super) fn look(loaded: &Loaded) -> Vec<Finding> {
    let server = &loaded.config.server.data;
    let mut findings = vec![store(server), room("server's disk", server)];
    if let Some(agent) = of_agent(loaded) {
        findings.push(room("agent's disk", &agent));
    }
    findings
}

/// The agent's folder, where there is to be one.
pub(super) fn of_agent(loaded: &Loaded) -> Option<PathBuf> {
    loaded.config.agent.data.clone().or_else(|| {
        let node = loaded.config.agent.node.as_ref()?;
        Some(PathBuf::from(format!("hotswap-agent-{node}")))
    })
}

fn store(data: &Path) -> Finding {
    let shown = data.display();
    match backup::verify(data) {
        Ok(None) => Finding::ok(
            "server's data",
            format!("none at {shown}: a server here would make it"),
        ),
        Ok(Some(found)) => Finding::ok(
            "server's data",
            format!(
                "sound: {shown}, {} events, {} deployments, epoch {}",
                found.events, found.deployments, found.epoch
            ),
        ),
        Err(error) => {
            let because = std::error::Error::source(&error)
                .map(|source| format!(": {source}"))
                .unwrap_or_default();
            Finding::fail(
                "server's data",
                format!("{shown}: {error}{because}"),
                "move it away, then `hotswap restore BACKUP` and `hotswap adopt`",
            )
        }
    }
}

fn room(what: &'static str, data: &Path) -> Finding {
    // Of what is not there yet its nearest parent tells.
    let absolute = std::path::absolute(data).unwrap_or_else(|_| data.to_owned());
    let Some(there) = absolute.ancestors().find(|path| path.exists()) else {
        return Finding::warn(
            what,
            format!("{} can't be looked at", data.display()),
            "see its permissions",
        );
    };
    let found = match rustix::fs::statvfs(there) {
        Ok(found) => found,
        Err(error) => {
            return Finding::warn(
                what,
                format!("{}: {error}", there.display()),
                "see its permissions",
            );
        }
    };
    let free = found.f_bavail.saturating_mul(found.f_frsize);
    let told = format!("{} MiB free at {}", free >> 20, there.display());
    if free < ROOM_NEEDED_BYTES {
        Finding::fail(
            what,
            told,
            "make room: a server is read-only without, and a node can't take releases",
        )
    } else if free < ROOM_WANTED_BYTES {
        Finding::warn(what, told, "make room before it is full")
    } else {
        Finding::ok(what, told)
    }
}
