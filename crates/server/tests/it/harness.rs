//! A server of a test's own, and a client for it.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use hotswap_core::analysis::JudgePolicy;
use hotswap_core::policy::Environment;
use hotswap_core::time::Millis;
use hotswap_package::Package;
use hotswap_runtime::{Ungranted, WasmHost, WasmHostConfig, testing};
use hotswap_server::{AccessConfig, RateLimits, RunningServer, Server, ServerConfig};
use hotswap_transport::{Roots, client_config};
use hotswap_trust::Gate;
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde_json::Value;
use tempfile::TempDir;
use tokio::sync::OnceCell;
use tokio::time::{Instant, sleep};

use crate::contract::Contract;

/// The first admin's password in tests.
pub(crate) const PASSWORD: &str = "correct horse battery";
/// How long a test waits for a state.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct TestServer {
    pub(crate) running: RunningServer,
    pub(crate) dir: TempDir,
    /// What requests are sent with: the admin's token.
    pub(crate) token: String,
    http: reqwest::Client,
}

/// One host for all tests of the process: pools reserve address space.
pub(crate) async fn host() -> Arc<WasmHost> {
    static HOST: OnceCell<Arc<WasmHost>> = OnceCell::const_new();
    let make = || async {
        let config = WasmHostConfig {
            instances_max: 64,
            ungranted: Ungranted::Withhold,
            ..WasmHostConfig::default()
        };
        Arc::new(WasmHost::new(config).expect("the host starts"))
    };
    Arc::clone(HOST.get_or_init(make).await)
}

/// A client without TLS.
pub(crate) fn http_client() -> reqwest::Client {
    let tls = client_config(Roots::Nobody, None, &[]).unwrap();
    reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .build()
        .unwrap()
}

/// The four environments with times for tests.
pub(crate) fn environments() -> Vec<Environment> {
    let mut environments = Environment::defaults();
    for environment in &mut environments {
        let policy = &mut environment.policy;
        policy.settle = Millis(50);
        policy.soak_min = Millis(100);
        policy.interval = Millis(100);
        policy.judge = JudgePolicy {
            judge_latency: false,
            ..JudgePolicy::default()
        };
    }
    environments
}

/// A server's configuration for tests: the admin's password is [`PASSWORD`], and requests are not counted.
pub(crate) fn config(dir: &Path) -> ServerConfig {
    ServerConfig {
        access: AccessConfig {
            admin_password: Some(PASSWORD.into()),
            ..AccessConfig::default()
        },
        rate_limits: RateLimits {
            loopback_is_free: true,
            ..RateLimits::default()
        },
        http: ([127, 0, 0, 1], 0).into(),
        agents: ([127, 0, 0, 1], 0).into(),
        environments: Some(environments()),
        plain_agents: true,
        heartbeat: Duration::from_millis(500),
        package_bytes_max: 4 << 20,
        gate: Gate::default().allowing_unsigned(),
        ..ServerConfig::new(dir)
    }
}

/// A request under way.
pub(crate) struct Ask {
    builder: RequestBuilder,
    document: RequestBuilder,
    method: Method,
    path: String,
}

impl Ask {
    pub(crate) fn header(mut self, name: impl AsRef<str>, value: impl AsRef<str>) -> Self {
        self.builder = self.builder.header(name.as_ref(), value.as_ref());
        self
    }

    pub(crate) fn multipart(mut self, form: reqwest::multipart::Form) -> Self {
        self.builder = self.builder.multipart(form);
        self
    }

    pub(crate) fn json(mut self, body: &impl serde::Serialize) -> Self {
        self.builder = self.builder.json(body);
        self
    }

    pub(crate) fn body(mut self, body: impl Into<reqwest::Body>) -> Self {
        self.builder = self.builder.body(body);
        self
    }

    pub(crate) async fn send(self) -> reqwest::Result<Response> {
        static CONTRACT: OnceCell<Contract> = OnceCell::const_new();
        let read = || async {
            let document = self.document.send().await.unwrap();
            Contract::new(document.json().await.unwrap())
        };
        let contract = CONTRACT.get_or_init(read).await;
        let response = self.builder.send().await?;
        let (status, headers) = (response.status(), response.headers().clone());
        let bytes = response.bytes().await?;
        contract.check(&self.method, &self.path, status, &headers, &bytes);
        let mut checked = http::Response::new(bytes);
        *checked.status_mut() = status;
        *checked.headers_mut() = headers;
        Ok(checked.into())
    }
}

impl TestServer {
    pub(crate) async fn start() -> Self {
        Self::start_in(TempDir::new().unwrap()).await
    }

    pub(crate) async fn start_in(dir: TempDir) -> Self {
        let config = config(dir.path());
        Self::start_with(dir, config).await
    }

    /// A server of another configuration; its admin is logged in.
    pub(crate) async fn start_with(dir: TempDir, config: ServerConfig) -> Self {
        let running = Server::start(config, host().await).await.unwrap();
        Self::of(running, dir).await
    }

    /// One that was started otherwise, with the admin's password of [`config`].
    pub(crate) async fn of(running: RunningServer, dir: TempDir) -> Self {
        let mut server = Self {
            running,
            dir,
            token: String::new(),
            http: http_client(),
        };
        server.token = server.login("admin", PASSWORD).await;
        server
    }

    /// Logs a user in: the token.
    pub(crate) async fn login(&self, username: &str, password: &str) -> String {
        let body = serde_json::json!({ "username": username, "password": password });
        let request = self
            .bare(Method::POST, "/api/v1/authentication/login")
            .json(&body);
        let (status, body) = read(request.send().await.unwrap()).await;
        assert_eq!(status, StatusCode::OK, "{body:#}");
        body["token"].as_str().unwrap().to_owned()
    }

    /// A user with this role: its token. Its password is [`PASSWORD`].
    pub(crate) async fn user(&self, username: &str, role: &str) -> String {
        const FIRST: &str = "a first password";
        let body = serde_json::json!({
            "username": username, "email": format!("{username}@example.com"), "role": role, "password": FIRST,
        });
        let (status, body) = self.post("/api/v1/users", &body).await;
        assert_eq!(status, StatusCode::CREATED, "{body:#}");
        let token = self.login(username, FIRST).await;
        let body = serde_json::json!({ "currentPassword": FIRST, "newPassword": PASSWORD });
        let changed = self
            .request_as(&token, Method::POST, "/api/v1/authentication/password")
            .json(&body);
        assert_eq!(changed.send().await.unwrap().status(), StatusCode::NO_CONTENT);
        token
    }

    /// Ends it in order and starts it again on the same data.
    pub(crate) async fn restart(self) -> Self {
        self.running.shutdown().await.unwrap();
        Self::start_in(self.dir).await
    }

    /// A request by the admin, whose answer is held against the API's own document.
    pub(crate) fn request(&self, method: Method, path: &str) -> Ask {
        self.request_as(&self.token, method, path)
    }

    /// The same, with another token.
    pub(crate) fn request_as(&self, token: &str, method: Method, path: &str) -> Ask {
        Ask {
            builder: self.bare(method.clone(), path).bearer_auth(token),
            document: self.bare(Method::GET, "/openapi.json"),
            method,
            path: path.to_owned(),
        }
    }

    /// A request without a token, whose answer is left alone.
    pub(crate) fn bare(&self, method: Method, path: &str) -> RequestBuilder {
        self.http
            .request(method, format!("http://{}{path}", self.running.http_addr()))
    }

    pub(crate) async fn get(&self, path: &str) -> (StatusCode, Value) {
        read(self.request(Method::GET, path).send().await.unwrap()).await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> (StatusCode, Value) {
        read(self.request(Method::POST, path).json(body).send().await.unwrap()).await
    }

    pub(crate) async fn post_as(&self, token: &str, path: &str, body: &Value) -> (StatusCode, Value) {
        read(
            self.request_as(token, Method::POST, path)
                .json(body)
                .send()
                .await
                .unwrap(),
        )
        .await
    }

    pub(crate) async fn push(&self, package: &Package) -> (StatusCode, Value) {
        let request = self
            .request(Method::POST, "/api/v1/modules")
            .body(package.file.clone());
        read(request.send().await.unwrap()).await
    }

    /// Asks until the answer is as wanted.
    pub(crate) async fn until(&self, path: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let (status, body) = self.get(path).await;
            if status.is_success() && wanted(&body) {
                return body;
            }
            assert!(
                Instant::now() < deadline,
                "{path} did not come to what was wanted: {body:#}"
            );
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits for a deployment's end.
    pub(crate) async fn ended(&self, id: &str) -> Value {
        self.until(&format!("/api/v1/deployments/{id}"), |body| {
            !body["endTime"].is_null()
        })
        .await
    }

    pub(crate) async fn deploy(&self, version: &str, target: &str) -> String {
        let (status, body) = self
            .post("/api/v1/deployments", &deployment("pay", version, target))
            .await;
        assert_eq!(status, StatusCode::ACCEPTED, "{body:#}");
        body["executionId"].as_str().unwrap().to_owned()
    }
}

pub(crate) async fn read(response: Response) -> (StatusCode, Value) {
    let status = response.status();
    let text = response.text().await.unwrap();
    let body = serde_json::from_str(&text).unwrap_or_else(|_| panic!("{status}: no JSON: {text}"));
    (status, body)
}

pub(crate) fn deployment(module: &str, version: &str, target: &str) -> Value {
    serde_json::json!({
        "moduleName": module, "version": version, "targetEnvironment": target, "requesterEmail": "ada@example.com",
    })
}

/// A package of a component that answers `/ok` with its version.
pub(crate) fn package(name: &str, version: &str) -> Package {
    package_with(name, version, "")
}

/// The same, with more in its manifest.
pub(crate) fn package_with(name: &str, version: &str, more: &str) -> Package {
    let manifest = format!(
        "name = {name:?}\nversion = {version:?}\nentry = \"module.wasm\"\n\n[[routes]]\nprefix = \"/\"\n\n\
         [[smoke]]\nname = \"answers\"\npath = \"/ok\"\nexpect-body-contains = {version:?}\n{more}"
    );
    Package::assemble(manifest.as_bytes(), &testing::component(version)).unwrap()
}
