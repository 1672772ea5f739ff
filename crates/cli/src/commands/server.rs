//! Run the control plane.

use std::io::Write as _;
use std::path::Path;

use anyhow::Context as _;
use hotswap_config::{Changes, Loaded};
use hotswap_core::policy::Environment;
use hotswap_server::tls::ApiCertificate;
use hotswap_server::{RunningServer, Server, Sockets, StartError};
use secrecy::{ExposeSecret as _, SecretString};
use tokio::signal::unix::SignalKind;

use super::login::read_secret;
use super::service::{self, Watchdog};
use super::serving::{asked_to_stop, start_logs};
use super::settings::Live;
use super::{serving, settings};
use crate::args;
use crate::exit::Exit;
use crate::problem::Problem;

/// The first admin's password itself.
const ADMIN_PASSWORD_VARIABLE: &str = "HOTSWAP_ADMIN_PASSWORD";

/// Serves until it is told to stop.
pub(super) async fn run(args: &args::Server) -> anyhow::Result<Exit> {
    let mut live = Live::load(settings::server_sources(args))?;
    let logs = start_logs(live.loaded())?;
    let stop = asked_to_stop()?;
    let mut reload = serving::signals(SignalKind::hangup())?;
    let mut config = settings::server_config(live.loaded())?;
    if let Some(path) = &args.environments {
        config.environments = Some(read_environments(path)?);
    }
    config.access.admin_password = admin_password(args)?;
    let runtimes = settings::server_runtimes(live.loaded(), &config)?;
    let sockets = Sockets {
        http: service::listener("http")?,
        agents: service::listener("agents")?,
    };
    let started = Server::start_on(config, runtimes, sockets).await;
    let mut server = started.map_err(|error| match error {
        StartError::Plain(refused) => Problem::usage(refused.to_string()).into(),
        error => anyhow::Error::from(error),
    })?;
    // In one write: whoever reads for the first line alone may be gone before a second one comes.
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(announcement(&server).as_bytes())?;
    stdout.flush()?;
    drop(stdout);
    tracing::info!(http = %server.http_addr(), agents = %server.agents_addr(), "ready");
    service::ready();
    let mut watchdog = Watchdog::of_manager();
    tokio::pin!(stop);
    loop {
        tokio::select! {
            () = &mut stop => break,
            // Only where the store failed: what is durable is found out by the next start.
            ended = server.ended() => {
                ended.context("the server ended by itself; start it again")?;
                return Ok(Exit::Failed);
            }
            _ = reload.recv() => {
                service::reloading(live.reload(async |loaded, changes| {
                    take_up(&server, loaded, changes).await?;
                    logs.take_up(loaded, changes)
                })).await;
                // What is wrong with it is in the log, and the old one stays.
                drop(server.reload_certificate().await);
            }
            () = watchdog.due() => watchdog.feed(),
        }
    }
    tracing::info!("stopping");
    service::stopping();
    server.shutdown().await?;
    Ok(Exit::Done)
}

/// The first admin's password, from a file or the environment.
fn admin_password(args: &args::Server) -> anyhow::Result<Option<SecretString>> {
    if let Some(file) = &args.admin_password_file {
        return read_secret(file).map(Some);
    }
    let given = std::env::var(ADMIN_PASSWORD_VARIABLE).ok();
    Ok(given.filter(|password| !password.is_empty()).map(Into::into))
}

/// That it serves, and after a first start who may log in, with the command to do so. To stdout alone, and once: a log
/// is read by many.
fn announcement(server: &RunningServer) -> String {
    let url = server.url();
    let mut text = format!("ready: {url}\n");
    let authority = server.certificate().and_then(ApiCertificate::authority);
    let mut trusting = String::new();
    if let Some((file, fingerprint)) = authority {
        let shown = file.display();
        text.push_str(&format!(
            "certificate: of this fleet's own authority, {shown}, SHA-256 {fingerprint}\n\
             clients need that file: give it to hotswap login and hotswap context set by --ca FILE, or as HOTSWAP_CA\n"
        ));
        trusting = format!(" --ca {shown}");
    }
    let Some(first) = server.first_admin() else {
        return text;
    };
    let username = &first.username;
    if let Some(password) = &first.password {
        let password = password.expose_secret();
        text.push_str(&format!(
            "first start: the user {username} has the one-time password {password}\n"
        ));
    }
    let flag = match server.http_addr() {
        _ if url == args::SERVER_URL => String::new(),
        at if at.ip().is_loopback() => format!(" --server {url}"),
        at => format!(" --server {}://THIS-MACHINE:{}", scheme(&url), at.port()),
    };
    text.push_str(&format!(
        "log in with: hotswap login {username}{flag}{trusting}\n"
    ));
    text
}

fn scheme(url: &str) -> &str {
    url.split_once("://").map_or("http", |(scheme, _)| scheme)
}

/// Has a running server take up what changed.
async fn take_up(server: &RunningServer, loaded: &Loaded, changes: &Changes) -> Result<(), String> {
    // Judged before anything is taken up, so that a faulty one changes nothing.
    let origins = settings::cors_origins(loaded).map_err(|problem| problem.to_string())?;
    if changes.live.iter().any(|key| key == "environments") {
        let environments = loaded
            .environments()
            .ok_or("environments: a fleet can't be left without; those it has stay")?;
        server.configure(environments, settings::grants(loaded)).await?;
    }
    server.limit(settings::rate_limits(loaded), &origins);
    Ok(())
}

/// The environments of a file: the JSON of what the core calls an environment, in order.
fn read_environments(path: &Path) -> anyhow::Result<Vec<Environment>> {
    let shown = path.display();
    let text = std::fs::read_to_string(path)
        .map_err(|error| Problem::usage(format!("{shown} can't be read: {error}")))?;
    let environments: Vec<Environment> = serde_json::from_str(&text)
        .map_err(|error| Problem::usage(format!("{shown} has no list of environments: {error}")))?;
    Environment::validate_all(&environments).map_err(|faults| {
        Problem::usage(format!("the environments of {shown} are faulty")).details(faults)
    })?;
    Ok(environments)
}
