//! Users, API tokens and signing keys.

use reqwest::Method;
use serde_json::{Value, json};

use super::Remote;
use super::resolve::text;
use crate::args::{Key, Token, User};
use crate::client::typed;
use crate::exit::Exit;
use crate::output::{Cell, Table, ago};
use crate::problem::Problem;

/// Lists, makes or changes users.
pub(super) async fn user(remote: &Remote<'_>, args: &User) -> anyhow::Result<Exit> {
    let answer = match args {
        User::List => {
            let users = remote.client.get(&["users"], &[]).await?;
            return show_users(remote, users);
        }
        User::Add {
            username,
            email,
            name,
            role,
        } => {
            let body = json!({ "username": username, "email": email, "fullName": name, "role": role });
            remote.client.post(&["users"], Some(&body)).await?
        }
        User::Set {
            username,
            email,
            name,
            role,
            disabled,
            unlock,
        } => {
            let body = json!({
                "email": email, "fullName": name, "role": role, "disabled": disabled, "unlock": unlock,
            });
            remote
                .client
                .call(Method::PATCH, &["users", username], Some(&body))
                .await?
        }
        User::ResetPassword { username } => {
            remote
                .client
                .post(&["users", username, "reset-password"], None::<&Value>)
                .await?
        }
    };
    if remote.output.is_json() {
        remote.output.json(&answer)?;
        return Ok(Exit::Done);
    }
    let username = match args {
        User::Add { username, .. } | User::Set { username, .. } | User::ResetPassword { username } => {
            username
        }
        User::List => "",
    };
    match answer["oneTimePassword"].as_str() {
        Some(password) => {
            remote.output.line(format!(
                "one-time password of {username}, told this once: {password}"
            ))?;
            remote
                .output
                .line(format!("they log in with: hotswap login {username}"))?;
        }
        None => remote.output.line(format!("{username} is changed"))?,
    }
    Ok(Exit::Done)
}

fn show_users(remote: &Remote<'_>, users: Value) -> anyhow::Result<Exit> {
    if remote.output.is_json() {
        remote.output.json(&users)?;
        return Ok(Exit::Done);
    }
    let users: Vec<Value> = typed(users)?;
    let mut table = Table::new(["USERNAME", "ROLE", "NAME", "EMAIL", "STATE"]);
    for user in &users {
        let state = match () {
            () if user["disabled"] == true => "disabled".to_owned(),
            () if user["lockedUntil"].is_string() => format!("locked until {}", text(user, "lockedUntil")),
            () if user["passwordChangeRequired"] == true => "has to choose a password".to_owned(),
            () => String::new(),
        };
        table.row([
            Cell::new(text(user, "username")),
            Cell::new(text(user, "role")),
            Cell::new(text(user, "fullName")),
            Cell::new(text(user, "email")),
            Cell::new(state),
        ]);
    }
    remote.output.table(&table)?;
    Ok(Exit::Done)
}

/// Lists, makes or revokes API tokens.
pub(super) async fn token(remote: &Remote<'_>, args: &Token) -> anyhow::Result<Exit> {
    match args {
        Token::List => {
            let tokens = remote.client.get(&["tokens"], &[]).await?;
            if remote.output.is_json() {
                remote.output.json(&tokens)?;
                return Ok(Exit::Done);
            }
            let tokens: Vec<Value> = typed(tokens)?;
            let mut table = Table::new(["ID", "NAME", "OWNER", "ROLE", "FOR", "MADE", "EXPIRES"]);
            for token in &tokens {
                let scope: Vec<&str> = ["modules", "environments"]
                    .iter()
                    .flat_map(|field| token[field].as_array().into_iter().flatten())
                    .filter_map(Value::as_str)
                    .collect();
                table.row([
                    Cell::new(text(token, "id")),
                    Cell::new(text(token, "name")),
                    Cell::new(text(token, "owner")),
                    Cell::new(text(token, "role")),
                    Cell::new(if scope.is_empty() {
                        "everything".to_owned()
                    } else {
                        scope.join(", ")
                    }),
                    Cell::new(ago(text(token, "createdAt"))),
                    Cell::new(text(token, "expiresAt")),
                ]);
            }
            remote.output.table(&table)?;
        }
        Token::Create {
            name,
            role,
            modules,
            environments,
            days,
        } => {
            let body = json!({
                "name": name, "role": role, "modules": modules, "environments": environments, "expiresInDays": days,
            });
            let answer = remote.client.post(&["tokens"], Some(&body)).await?;
            if remote.output.is_json() {
                remote.output.json(&answer)?;
                return Ok(Exit::Done);
            }
            if answer["token"].is_null() {
                let id = text(&answer["details"], "id");
                return Err(Problem::failed(format!(
                    "the token {name} was made, but the answer that told it was lost on its way"
                ))
                .next(format!(
                    "revoke it (`hotswap token revoke {id}`) and make another"
                ))
                .into());
            }
            // Alone on stdout, so that it can be put where it is needed.
            eprintln!("the token, told this once; programs give it as HOTSWAP_TOKEN:");
            remote.output.line(text(&answer, "token"))?;
        }
        Token::Revoke { id } => {
            remote.client.call(Method::DELETE, &["tokens", id], None).await?;
            remote.output.line(format!("{id} is revoked"))?;
        }
    }
    Ok(Exit::Done)
}

/// Lists or rotates the keys that sign access tokens.
pub(super) async fn key(remote: &Remote<'_>, args: &Key) -> anyhow::Result<Exit> {
    let answer = match args {
        Key::List => remote.client.get(&["keys"], &[]).await?,
        Key::Rotate => remote.client.post(&["keys", "rotate"], None::<&Value>).await?,
    };
    if remote.output.is_json() {
        remote.output.json(&answer)?;
        return Ok(Exit::Done);
    }
    if let Key::Rotate = args {
        let kid = text(&answer, "kid");
        remote.output.line(format!(
            "{kid} signs now; tokens by the former key are taken until they expire"
        ))?;
        return Ok(Exit::Done);
    }
    let keys: Vec<Value> = typed(answer)?;
    let mut table = Table::new(["KEY", "SIGNS", "MADE", "RETIRED"]);
    for key in &keys {
        table.row([
            Cell::new(text(key, "kid")),
            Cell::new(if key["signs"] == true { "yes" } else { "no" }),
            Cell::new(ago(text(key, "createdAt"))),
            Cell::new(text(key, "retiredAt")),
        ]);
    }
    remote.output.table(&table)?;
    Ok(Exit::Done)
}
