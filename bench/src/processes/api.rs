//! A server's API, as an operator asks it.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use bytes::Bytes;
use hotswap_package::Package;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::load::{Connection, Endpoint, Target, request};

/// How long a deployment may take to end.
const DEPLOYMENT_MAX: Duration = Duration::from_secs(120);
/// How often it is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Where the API is, and in whose name it is asked.
#[derive(Clone)]
pub(crate) struct Api {
    endpoint: Endpoint,
    token: String,
}

impl Api {
    /// Logs in.
    pub(crate) async fn login(endpoint: Endpoint, password: &str) -> Result<Self> {
        let mut api = Self {
            endpoint,
            token: String::new(),
        };
        let body = json!({ "username": "admin", "password": password });
        let answer = api.post("/api/v1/authentication/login", &body).await?;
        answer["token"]
            .as_str()
            .context("a login gives a token")?
            .clone_into(&mut api.token);
        Ok(api)
    }

    fn request(&self, method: &str, path: &str, content_type: &str, body: &[u8]) -> Bytes {
        let bearer = format!("Bearer {}", self.token);
        let mut headers = vec![("content-type", content_type)];
        if !self.token.is_empty() {
            headers.push(("authorization", &bearer));
        }
        request(method, path, &headers, body).into()
    }

    /// A request to send over and over.
    pub(crate) fn target(&self, method: &str, path: &str, body: Option<&Value>, status: u16) -> Target {
        let body = body.map(ToString::to_string).unwrap_or_default();
        Target {
            endpoint: self.endpoint.clone(),
            request: self.request(method, path, "application/json", body.as_bytes()),
            status,
        }
    }

    async fn ask(&self, what: &str, request: &[u8]) -> Result<Value> {
        let mut connection = Connection::open(&self.endpoint).await?;
        let answer = connection.ask(request).await?;
        let body = connection.body(&answer);
        if !(200..300).contains(&answer.status) {
            bail!(
                "{what} was answered {}: {}",
                answer.status,
                String::from_utf8_lossy(body)
            );
        }
        Ok(serde_json::from_slice(body).unwrap_or_default())
    }

    pub(crate) async fn get(&self, path: &str) -> Result<Value> {
        self.ask(path, &self.request("GET", path, "application/json", b""))
            .await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Result<Value> {
        let body = body.to_string();
        self.ask(
            path,
            &self.request("POST", path, "application/json", body.as_bytes()),
        )
        .await
    }

    pub(crate) async fn push(&self, package: &Package) -> Result<()> {
        let path = "/api/v1/modules";
        self.ask(
            path,
            &self.request("POST", path, "application/octet-stream", &package.file),
        )
        .await?;
        Ok(())
    }

    /// What asks for a deployment.
    pub(crate) fn deployment(module: &str, version: &str) -> Value {
        json!({
            "moduleName": module, "version": version, "targetEnvironment": "Development",
            "requesterEmail": "bench@example.com", "allowDowngrade": true,
        })
    }

    /// Asks for a deployment; gives its id.
    pub(crate) async fn deploy(&self, module: &str, version: &str) -> Result<String> {
        let answer = self
            .post("/api/v1/deployments", &Self::deployment(module, version))
            .await?;
        let id = answer["executionId"].as_str();
        Ok(id.context("a deployment has an id")?.to_owned())
    }

    /// Waits until a deployment has succeeded.
    pub(crate) async fn succeeded(&self, id: &str) -> Result<()> {
        let path = format!("/api/v1/deployments/{id}");
        let end = Instant::now() + DEPLOYMENT_MAX;
        loop {
            let seen = self.get(&path).await?;
            match seen["status"].as_str() {
                Some("Succeeded") => return Ok(()),
                Some("Running" | "PendingApproval") if Instant::now() < end => {
                    tokio::time::sleep(LOOK_EVERY).await;
                }
                _ => bail!("deployment {id} did not succeed: {seen}"),
            }
        }
    }
}
