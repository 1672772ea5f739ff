//! Log in and out, and tell who one is.

use std::io::{self, IsTerminal as _, Read as _};
use std::path::Path;

use anyhow::Context as _;
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Value, json};
use tokio::sync::Mutex;

use super::Remote;
use crate::args::{self, Global, SERVER_URL};
use crate::client::{Account, Client, LoggedIn, Proof, typed};
use crate::credentials::{Context, Keeper, Store};
use crate::exit::Exit;
use crate::output::Output;
use crate::problem::Problem;

/// A token in the environment, for programs.
const TOKEN_VARIABLE: &str = "HOTSWAP_TOKEN";
/// Longest password or token in a file, in bytes.
const SECRET_BYTES_MAX: u64 = 4_096;
/// The context that a first login makes.
const CONTEXT_DEFAULT: &str = "default";

/// A client that proves who this user is, as far as that is known.
pub(super) fn client(global: &Global) -> anyhow::Result<Client> {
    let store = Store::of_this_user();
    let kept = match &store {
        Some(store) => store.read()?,
        None => crate::credentials::Credentials::default(),
    };
    let authorities = global.authorities(&kept)?;
    let client = Client::new(&global.server_url(kept.current_server()), &authorities)?;
    let token = std::env::var(TOKEN_VARIABLE)
        .ok()
        .filter(|token| !token.is_empty());
    if let Some(token) = token {
        return Ok(client.with(Proof::Token(token.into())));
    }
    let server = client.address().to_owned();
    let login = kept.logins.get(&server).cloned();
    Ok(match login.zip(store) {
        Some((login, store)) => client.with(Proof::Login {
            login: Mutex::new(login),
            keeper: Some(Keeper { store, server }),
        }),
        None => client,
    })
}

/// Logs in, and remembers it.
pub(super) async fn login(global: &Global, args: &args::Login, output: &Output) -> anyhow::Result<Exit> {
    let store = Store::needed()?;
    let kept = store.read()?;
    let authorities = global.authorities(&kept)?;
    let client = Client::new(&global.server_url(kept.current_server()), &authorities)?;
    let username = match &args.username {
        Some(username) => username.clone(),
        None => ask("username")?,
    };
    let password = match &args.password_file {
        Some(file) => read_secret(file)?,
        None => ask_secret("password", "--password-file FILE (or - for stdin)")?,
    };
    let mut logged_in = client.login(&username, &password).await?;
    if logged_in.user.password_change_required {
        logged_in = choose_password(&client, args, logged_in, &password).await?;
    }
    let server = client.address().to_owned();
    let kept = logged_in.login();
    store.change(|credentials| {
        credentials.logins.insert(server.clone(), kept);
        credentials.trust(&server, authorities.said());
        if credentials.current_server().is_none() {
            let context = Context {
                server: server.clone(),
            };
            credentials.contexts.insert(CONTEXT_DEFAULT.to_owned(), context);
            credentials.current = Some(CONTEXT_DEFAULT.to_owned());
        }
    })?;
    let user = &logged_in.user;
    if output.is_json() {
        output.json(&json!({
            "server": server, "username": user.username, "role": user.role(), "expiresAt": logged_in.expires_at,
        }))?;
    } else {
        output.line(format!(
            "logged in at {server} as {}, {}",
            user.username,
            user.role()
        ))?;
    }
    Ok(Exit::Done)
}

/// A one-time password has to be replaced before anything else.
async fn choose_password(
    client: &Client,
    args: &args::Login,
    logged_in: LoggedIn,
    current: &SecretString,
) -> anyhow::Result<LoggedIn> {
    let new = match &args.new_password_file {
        Some(file) => read_secret(file)?,
        None => {
            eprintln!("This was a one-time password: choose a new one, of at least 12 characters.");
            let new = ask_secret("new password", "--new-password-file FILE")?;
            let again = ask_secret("once more", "--new-password-file FILE")?;
            if new.expose_secret() != again.expose_secret() {
                return Err(Problem::usage("the two new passwords differ").into());
            }
            new
        }
    };
    let body = json!({
        "currentPassword": current.expose_secret(), "newPassword": new.expose_secret(),
    });
    let changing = client.clone().with(Proof::of(&logged_in));
    changing
        .post(&["authentication", "password"], Some(&body))
        .await?;
    Ok(logged_in)
}

/// Ends the session, and forgets it.
pub(super) async fn logout(remote: &Remote<'_>, global: &Global) -> anyhow::Result<Exit> {
    let store = Store::needed()?;
    let server = remote.client.address().to_owned();
    if !store.read()?.logins.contains_key(&server) {
        return Err(Problem::usage(format!("nobody is logged in at {server}"))
            .next(format!("log in with: hotswap login{}", server_flag(global)))
            .into());
    }
    let ended = remote
        .client
        .post(&["authentication", "logout"], None::<&Value>)
        .await;
    // A session that has ended already is out, too.
    if let Err(error) = ended
        && error.status() != Some(401)
    {
        return Err(error.into());
    }
    store.change(|credentials| credentials.logins.remove(&server))?;
    remote.output.line(format!("logged out at {server}"))?;
    Ok(Exit::Done)
}

/// Tells who the server takes this user for.
pub(super) async fn whoami(remote: &Remote<'_>) -> anyhow::Result<Exit> {
    let answer = remote.client.get(&["authentication", "me"], &[]).await?;
    if remote.output.is_json() {
        remote.output.json(&answer)?;
        return Ok(Exit::Done);
    }
    let account: Account = typed(answer)?;
    remote.output.line(format!(
        "{} ({}, {}), {} at {}",
        account.username,
        account.full_name,
        account.email,
        account.role(),
        remote.client.address()
    ))?;
    Ok(Exit::Done)
}

/// The flag that says which server, where it is not the usual one.
fn server_flag(global: &Global) -> String {
    match &global.server {
        Some(server) if server != SERVER_URL => format!(" --server {server}"),
        _ => String::new(),
    }
}

fn ask(what: &str) -> anyhow::Result<String> {
    if !io::stdin().is_terminal() {
        return Err(
            Problem::usage(format!("no {what} was given, and there is no terminal to ask on"))
                .next("hotswap login USERNAME --password-file FILE")
                .into(),
        );
    }
    eprint!("{what}: ");
    let mut text = String::new();
    io::stdin().read_line(&mut text)?;
    Ok(text.trim().to_owned())
}

fn ask_secret(what: &str, instead: &str) -> anyhow::Result<SecretString> {
    if !io::stdin().is_terminal() {
        return Err(
            Problem::usage(format!("no {what} was given, and there is no terminal to ask on"))
                .next(format!("give it in a file: {instead}"))
                .into(),
        );
    }
    let text = rpassword::prompt_password(format!("{what}: ")).context("failed to read from the terminal")?;
    Ok(text.into())
}

/// A secret from a file, without the line break at its end; `-` is stdin.
pub(super) fn read_secret(file: &Path) -> anyhow::Result<SecretString> {
    let shown = file.display();
    let mut text = String::new();
    let read = if file == Path::new("-") {
        io::stdin().take(SECRET_BYTES_MAX).read_to_string(&mut text)
    } else {
        std::fs::File::open(file).and_then(|file| file.take(SECRET_BYTES_MAX).read_to_string(&mut text))
    };
    read.map_err(|error| Problem::usage(format!("{shown} can't be read: {error}")))?;
    let secret = text.trim_end_matches(['\n', '\r']);
    if secret.is_empty() {
        return Err(Problem::usage(format!("{shown} is empty")).into());
    }
    Ok(secret.into())
}
