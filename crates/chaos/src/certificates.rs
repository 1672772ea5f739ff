//! Nodes' certificates: the tokens that they are got by, and what must be so of them.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use anyhow::{Context as _, Result};
use rusqlite::Connection;
use serde_json::{Value, json};

use crate::acks::Acks;
use crate::run::Run;

/// How often a token may be used: nodes join anew whenever their certificate has ended or was revoked.
const USES_MAX: u32 = 10_000;

/// Makes a join token for an environment, and gives it to its nodes in a file.
pub(crate) fn give_join_token(acks: &Acks, environment: &str, file: &Path) -> Result<()> {
    // Longer than any step of a clock.
    let asked = json!({ "environment": environment, "uses": USES_MAX, "expiresIn": "P1D" });
    let made = acks.post_once("/api/v1/join-tokens", &asked)?;
    let token = made["token"].as_str().context("a join token is told")?;
    std::fs::write(file, token)?;
    std::fs::set_permissions(file, Permissions::from_mode(0o600))?;
    Ok(())
}

/// What the server says of a node's certificate: its number, if it holds.
pub(crate) fn valid(run: &Run, node: &str) -> Result<String, String> {
    let node = run.acks.get(&format!("/api/v1/nodes/{node}"));
    let certificate = node.map_err(|error| format!("{error:#}"))?["certificate"].clone();
    match (certificate["state"].as_str(), certificate["serial"].as_str()) {
        (Some("Valid"), Some(serial)) => Ok(serial.to_owned()),
        _ => Err(format!("its certificate is {certificate}")),
    }
}

/// The numbers of an answer to a revocation.
pub(crate) fn revoked(answer: &Value) -> Vec<String> {
    let revoked = answer["revoked"].as_array().into_iter().flatten();
    revoked.filter_map(Value::as_str).map(str::to_owned).collect()
}

/// What became of certificates in a run.
#[derive(Debug, Default)]
pub(crate) struct Issued {
    pub(crate) joined: u64,
    pub(crate) renewed: u64,
    pub(crate) revoked: u64,
}

/// Counts them by the audit log, and looks whether each token's uses are those of the certificates that it gave.
pub(crate) fn recorded(run: &Run, database: &Connection) -> Result<Issued> {
    let count = |action: &str| -> Result<u64> {
        let of = "select count(*) from audit where kind = 'node' and action = ?1 and outcome = 'done'";
        Ok(database
            .query_row(of, [action], |row| row.get::<_, i64>(0))?
            .cast_unsigned())
    };
    let of_tokens = "select t.id, t.record ->> '$.uses', count(distinct c.key), count(c.serial) \
                     from join_token t left join node_certificate c on c.token = t.id group by t.id";
    let mut tokens = database.prepare(of_tokens)?;
    let mut rows = tokens.query([])?;
    while let Some(row) = rows.next()? {
        let id: String = row.get(0)?;
        let [uses, keys, certificates] = [row.get::<_, i64>(1)?, row.get(2)?, row.get(3)?];
        // A try whose answer was lost is repeated by its key, and counts once while its certificate holds.
        if !(keys..=certificates).contains(&uses) {
            run.violation(&format!(
                "join token {id} was used {uses} times, for {certificates} certificates of {keys} keys"
            ));
        }
    }
    Ok(Issued {
        joined: count("join")?,
        renewed: count("renew")?,
        revoked: count("revoke")?,
    })
}
