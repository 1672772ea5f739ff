//! Commands, and what was acknowledged: each is sent under a key until it is answered, and never forgotten.

use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::fleet::lock;
use crate::http::{Answer, Connection, request};

/// Who operates, where the server wants to know.
const ADMIN: &str = "admin";
/// The admin's password, in a file of the run's folder too.
pub(crate) const ADMIN_PASSWORD: &str = "Chaos-of-one-run-1!";
/// Longest wait for one answer.
const ANSWER_MAX: Duration = Duration::from_secs(20);
/// Longest time that a command is tried.
const COMMAND_MAX: Duration = Duration::from_secs(120);
/// Wait between tries.
const RETRY: Duration = Duration::from_millis(150);

/// A command to the server.
#[derive(Clone, Debug)]
pub(crate) struct Command {
    pub(crate) path: String,
    pub(crate) content_type: &'static str,
    pub(crate) body: Vec<u8>,
    /// Its `Idempotency-Key`.
    pub(crate) key: String,
    /// What it makes, if it makes something.
    pub(crate) makes: Makes,
}

/// What an acknowledged command must have left behind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Makes {
    /// A deployment, whose description is the key.
    Deployment,
    /// A release.
    Release { module: &'static str, version: String },
    /// The undoing of a deployment.
    Rollback,
    /// Nothing of its own.
    Nothing,
}

/// A command with its first answer.
#[derive(Clone, Debug)]
pub(crate) struct Acked {
    pub(crate) command: Command,
    pub(crate) status: u16,
    pub(crate) answer: Value,
}

/// All commands so far.
pub(crate) struct Acks {
    address: SocketAddr,
    /// The admin's token, where the server wants one.
    token: Mutex<Option<String>>,
    acked: Mutex<Vec<Acked>>,
    /// Tries that got no answer: their outcome was unknown until the retry.
    pub(crate) unknown: AtomicU64,
    /// Tries that were refused for the time being.
    pub(crate) put_off: AtomicU64,
}

impl Acks {
    pub(crate) fn new(address: SocketAddr) -> Self {
        Self {
            address,
            token: Mutex::default(),
            acked: Mutex::default(),
            unknown: AtomicU64::new(0),
            put_off: AtomicU64::new(0),
        }
    }

    /// One try. A server that wants to know who asks is told.
    fn try_once(
        &self,
        method: &str,
        path: &str,
        more: &[(&str, &str)],
        body: &[u8],
    ) -> std::io::Result<Answer> {
        let answer = self.exchange(method, path, more, body)?;
        if answer.status != 401 {
            return Ok(answer);
        }
        let login = serde_json::json!({ "username": ADMIN, "password": ADMIN_PASSWORD }).to_string();
        let json = [("content-type", "application/json")];
        let token = self.exchange("POST", "/api/v1/authentication/login", &json, login.as_bytes())?;
        if token.status != 200 {
            return Ok(token);
        }
        *lock(&self.token) = token.json()["token"].as_str().map(str::to_owned);
        self.exchange(method, path, more, body)
    }

    fn exchange(
        &self,
        method: &str,
        path: &str,
        more: &[(&str, &str)],
        body: &[u8],
    ) -> std::io::Result<Answer> {
        let token = lock(&self.token).as_ref().map(|token| format!("Bearer {token}"));
        let mut headers = vec![("connection", "close")];
        headers.extend(token.as_ref().map(|token| ("authorization", token.as_str())));
        headers.extend(more);
        Connection::open(self.address, ANSWER_MAX)?.ask(&request(method, path, &headers, body))
    }

    fn send(&self, command: &Command) -> std::io::Result<Answer> {
        let headers = [
            ("content-type", command.content_type),
            ("idempotency-key", &command.key),
        ];
        self.try_once("POST", &command.path, &headers, &command.body)
    }

    /// Sends a command until it is answered for good, and remembers what was acknowledged.
    pub(crate) fn command(&self, command: Command, give_up: impl Fn() -> bool) -> Result<(u16, Value)> {
        let end = Instant::now() + COMMAND_MAX;
        loop {
            let last = match self.send(&command) {
                Ok(answer) if matches!(answer.status, 429 | 503) => {
                    self.put_off.fetch_add(1, Ordering::Relaxed);
                    format!("{} {}", answer.status, answer.text())
                }
                Ok(answer) if answer.status >= 500 => {
                    self.unknown.fetch_add(1, Ordering::Relaxed);
                    format!("{} {}", answer.status, answer.text())
                }
                Ok(answer) => {
                    let json = answer.json();
                    if (200..300).contains(&answer.status) {
                        lock(&self.acked).push(Acked {
                            command,
                            status: answer.status,
                            answer: json.clone(),
                        });
                    }
                    return Ok((answer.status, json));
                }
                Err(error) => {
                    self.unknown.fetch_add(1, Ordering::Relaxed);
                    error.to_string()
                }
            };
            if Instant::now() >= end || give_up() {
                bail!("POST {} was not answered: {last}", command.path);
            }
            std::thread::sleep(RETRY);
        }
    }

    /// One try of what is told once and never again, so that no retry is like the first.
    pub(crate) fn post_once(&self, path: &str, body: &Value) -> Result<Value> {
        let json = [("content-type", "application/json")];
        let answer = self.try_once("POST", path, &json, body.to_string().as_bytes())?;
        if !(200..300).contains(&answer.status) {
            bail!("POST {path}: {} {}", answer.status, answer.text());
        }
        Ok(answer.json())
    }

    /// One try to read something.
    pub(crate) fn get(&self, path: &str) -> Result<Value> {
        let answer = self.try_once("GET", path, &[], b"")?;
        if answer.status != 200 {
            bail!("GET {path}: {} {}", answer.status, answer.text());
        }
        Ok(answer.json())
    }

    /// Reads something, however often it takes.
    pub(crate) fn get_surely(&self, path: &str) -> Result<Value> {
        let end = Instant::now() + COMMAND_MAX;
        loop {
            match self.get(path) {
                Ok(json) => return Ok(json),
                Err(error) if Instant::now() >= end => return Err(error),
                Err(_) => std::thread::sleep(RETRY),
            }
        }
    }

    pub(crate) fn acked(&self) -> Vec<Acked> {
        lock(&self.acked).clone()
    }

    /// All deployments, by pages.
    pub(crate) fn deployments(&self) -> Result<Vec<Value>> {
        let list = self.get_surely("/api/v1/deployments?limit=1000")?;
        list.as_array().cloned().context("a list of deployments")
    }

    /// What was acknowledged and is not there.
    pub(crate) fn lost(&self) -> Result<Vec<String>> {
        let acked = self.acked();
        let deployments = self.deployments()?;
        let modules = self.get_surely("/api/v1/modules?limit=1000")?;
        let has_deployment = |id: &Value| deployments.iter().any(|it| it["executionId"] == *id);
        let has_release = |module: &str, version: &str| {
            let modules = modules.as_array().into_iter().flatten();
            let module = modules.into_iter().find(|it| it["moduleName"] == module);
            let versions = module.and_then(|it| it["versions"].as_array());
            versions.into_iter().flatten().any(|it| it["version"] == version)
        };
        let missing = acked.iter().filter(|acked| match &acked.command.makes {
            Makes::Deployment => !has_deployment(&acked.answer["executionId"]),
            Makes::Rollback => !has_deployment(&acked.answer["rollbackId"]),
            Makes::Release { module, version } => !has_release(module, version),
            Makes::Nothing => false,
        });
        Ok(missing
            .map(|acked| format!("{} ({})", acked.command.path, acked.command.key))
            .collect())
    }

    /// Sends every acknowledged command again: each must get its first answer.
    pub(crate) fn answered_otherwise(&self) -> Result<Vec<String>> {
        let mut other = Vec::new();
        for acked in self.acked() {
            let answer = self.send(&acked.command).context("a retry was not answered")?;
            if answer.status != acked.status || answer.json() != acked.answer {
                let key = &acked.command.key;
                other.push(format!(
                    "{} ({key}): first {} {}, now {} {}",
                    acked.command.path,
                    acked.status,
                    acked.answer,
                    answer.status,
                    answer.text()
                ));
            }
        }
        Ok(other)
    }
}
