//! The product's own processes: `hotswap server` and `hotswap agent`, as anybody starts them.

use std::fs::Permissions;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use hotswap_core::policy::{Environment, RolloutPolicy};
use hotswap_core::time::Millis;

use super::{Api, Child, free_address};
use crate::load::Endpoint;

/// The admin's password, of one run in one temporary folder.
const PASSWORD: &str = "Bench-of-one-run-1!";

/// Whether others on the way could read along.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Speaks {
    Plainly,
    Tls,
}

/// A running server.
pub(crate) struct Server {
    pub(crate) child: Child,
    pub(crate) agents: SocketAddr,
    http: SocketAddr,
    api: Speaks,
    /// The file of whom to trust.
    authority: PathBuf,
    /// From its start until it took requests.
    pub(crate) ready_in: Duration,
}

/// How a server is started.
pub(crate) struct ServerOptions<'a> {
    pub(crate) binary: &'a Path,
    /// The folder of its data; made if it isn't there.
    pub(crate) data: PathBuf,
    pub(crate) api: Speaks,
    /// By TLS they show certificates of their own.
    pub(crate) agents: Speaks,
}

impl<'a> ServerOptions<'a> {
    /// Without TLS.
    pub(crate) fn plain(binary: &'a Path, data: PathBuf) -> Self {
        Self {
            binary,
            data,
            api: Speaks::Plainly,
            agents: Speaks::Plainly,
        }
    }
}

impl Server {
    /// Starts one and waits until it takes requests.
    pub(crate) async fn start(options: &ServerOptions<'_>) -> Result<Self> {
        std::fs::create_dir_all(&options.data)?;
        let password = options.data.join("bench-password");
        std::fs::write(&password, PASSWORD)?;
        std::fs::set_permissions(&password, Permissions::from_mode(0o600))?;
        let environments = options.data.join("bench-environments.json");
        std::fs::write(&environments, environments_json()?)?;
        let (http, agents) = (free_address()?, free_address()?);
        let log = options.data.join("bench-server.log");
        let mut command = quiet(options.binary, &options.data);
        command
            .arg("server")
            .arg("--data")
            .arg(&options.data)
            .args(["--http", &http.to_string(), "--agents", &agents.to_string()])
            .arg("--environments")
            .arg(&environments)
            .arg("--admin-password-file")
            .arg(&password)
            .args(["--no-rate-limit-on-loopback", "--allow-unsigned"]);
        if options.agents == Speaks::Plainly {
            command.arg("--plain-agents");
        }
        if options.api == Speaks::Tls {
            command.arg("--tls");
        }
        let began = Instant::now();
        let mut child = Child::start(&mut command, &log)?;
        child.listens(http, &log).await?;
        let ready_in = began.elapsed();
        let authority = options.data.join("ca").join("authority.pem");
        if options.api == Speaks::Tls {
            // It listens before it has made itself one.
            child.writes(&authority, &log).await?;
        }
        Ok(Self {
            child,
            agents,
            http,
            api: options.api,
            authority,
            ready_in,
        })
    }

    /// Where its API is reached.
    pub(crate) fn endpoint(&self) -> Result<Endpoint> {
        match self.api {
            Speaks::Plainly => Ok(Endpoint::plain(self.http)),
            Speaks::Tls => Endpoint::secure(self.http, &std::fs::read_to_string(&self.authority)?),
        }
    }

    /// Logs its admin in.
    pub(crate) async fn api(&self) -> Result<Api> {
        Api::login(self.endpoint()?, PASSWORD).await
    }
}

/// A running agent in Development.
pub(crate) struct Agent {
    _child: Child,
    pub(crate) ingress: SocketAddr,
}

impl Agent {
    pub(crate) async fn start(binary: &Path, dir: &Path, name: &str, server: &Server) -> Result<Self> {
        let data = dir.join(name);
        std::fs::create_dir_all(&data)?;
        let ingress = free_address()?;
        let log = data.join("bench-agent.log");
        let mut command = quiet(binary, &data);
        command
            .args(["agent", "--node", name, "--environment", "Development"])
            .args(["--server", &format!("http://{}", server.agents)])
            .args(["--ingress", &ingress.to_string(), "--allow-unsigned"])
            .arg("--data")
            .arg(&data);
        let mut child = Child::start(&mut command, &log)?;
        child.listens(ingress, &log).await?;
        Ok(Self {
            _child: child,
            ingress,
        })
    }
}

/// The binary with nothing of this machine's configuration, and its log at warnings: what it writes is not measured.
fn quiet(binary: &Path, dir: &Path) -> Command {
    let mut command = Command::new(binary);
    for (variable, _) in std::env::vars_os() {
        if variable.to_string_lossy().starts_with("HOTSWAP_") {
            command.env_remove(variable);
        }
    }
    command
        .current_dir(dir)
        .env("HOTSWAP_LOG", "warn")
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    command
}

/// Nothing has to be healthy for a while to count as settled.
fn environments_json() -> Result<String> {
    let mut environments = Environment::defaults();
    for environment in &mut environments {
        environment.policy = RolloutPolicy {
            settle: Millis(0),
            ..RolloutPolicy::default()
        };
    }
    serde_json::to_string(&environments).context("environments are plain data")
}
