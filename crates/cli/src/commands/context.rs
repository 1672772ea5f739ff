//! Contexts: names for servers, one of them the current one.

use serde_json::json;

use crate::args::{self, Global};
use crate::client::Client;
use crate::credentials::{self, Store};
use crate::exit::Exit;
use crate::output::{Cell, Output, Table};
use crate::problem::Problem;

/// Lists, chooses or makes one.
pub(super) fn run(args: &args::Context, global: &Global, output: &Output) -> anyhow::Result<Exit> {
    let store = Store::needed()?;
    match args {
        args::Context::List => list(&store, output)?,
        args::Context::Use { name } => {
            let known = store.change(|credentials| {
                let known = credentials.contexts.contains_key(name);
                if known {
                    credentials.current = Some(name.clone());
                }
                known
            })?;
            if !known {
                return Err(Problem::usage(format!("there is no context {name}"))
                    .next(format!("make it: hotswap context set {name} --server URL"))
                    .into());
            }
            output.line(format!("commands go to {name} now"))?;
        }
        args::Context::Set { name } => {
            let Some(server) = &global.server else {
                return Err(Problem::usage("a context needs its server: --server URL").into());
            };
            let authorities = global.authorities(&store.read()?)?;
            let server = Client::new(server, &authorities)?.address().to_owned();
            store.change(|credentials| {
                let context = credentials::Context {
                    server: server.clone(),
                };
                credentials.contexts.insert(name.clone(), context);
                credentials.trust(&server, authorities.said());
                credentials.current.get_or_insert_with(|| name.clone());
            })?;
            output.line(format!("{name} is {server}"))?;
        }
    }
    Ok(Exit::Done)
}

fn list(store: &Store, output: &Output) -> anyhow::Result<()> {
    let credentials = store.read()?;
    let current = |name: &String| credentials.current.as_ref() == Some(name);
    let login = |server: &str| credentials.logins.get(server).map(|login| login.username.clone());
    let trusts = |server: &str| credentials.authorities.contains_key(server);
    if output.is_json() {
        let contexts: Vec<_> = credentials
            .contexts
            .iter()
            .map(|(name, context)| {
                json!({
                    "name": name, "server": context.server, "current": current(name),
                    "username": login(&context.server), "ownAuthority": trusts(&context.server),
                })
            })
            .collect();
        output.json(&contexts)?;
        return Ok(());
    }
    if credentials.contexts.is_empty() {
        output.line("no contexts yet; `hotswap login` makes the first one")?;
        return Ok(());
    }
    let mut table = Table::new(["", "NAME", "SERVER", "TRUSTED BY", "LOGGED IN AS"]);
    for (name, context) in &credentials.contexts {
        table.row([
            Cell::new(if current(name) { "*" } else { "" }),
            Cell::new(name),
            Cell::new(&context.server),
            Cell::new(match &context.server {
                server if trusts(server) => "its own authority",
                server if server.starts_with("https:") => "the system",
                _ => "",
            }),
            Cell::new(login(&context.server).unwrap_or_default()),
        ]);
    }
    output.table(&table)?;
    Ok(())
}
