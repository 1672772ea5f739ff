//! No secret leaves by a door that it did not come in by: logs, events, answers, the database.

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::{Arc, Mutex};

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tempfile::TempDir;
use tracing_subscriber::fmt::MakeWriter;

use crate::harness::{PASSWORD, config, deployment, package, read};

/// All that was logged.
#[derive(Clone, Default)]
struct Logs(Arc<Mutex<Vec<u8>>>);

impl Write for Logs {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Logs {
    type Writer = Self;
    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_is_logged_kept_or_answered() {
    let logs = Logs::default();
    // For all threads of this process: other tests' logs come along, which does no harm.
    let filter = "hotswap_server=trace,hotswap_core=trace,hotswap_package=trace,hyper=debug,info";
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(logs.clone())
        .finish();
    drop(tracing::subscriber::set_global_default(subscriber));

    let dir = TempDir::new().unwrap();
    let mut wanted = config(dir.path());
    wanted.access.admin_password = Some("a password of this test alone".into());
    let running = hotswap_server::Server::start(wanted.clone(), crate::harness::host().await)
        .await
        .unwrap();
    running.shutdown().await.unwrap();
    let mut secrets: BTreeMap<&str, String> = BTreeMap::new();
    secrets.insert("the first password", "a password of this test alone".to_owned());
    let running = hotswap_server::Server::start(wanted, crate::harness::host().await)
        .await
        .unwrap();
    let http = crate::harness::http_client();
    let url = |path: &str| format!("http://{}{path}", running.http_addr());
    let login = |username: &str, password: &str| {
        let body = json!({ "username": username, "password": password });
        let request = http.post(url("/api/v1/authentication/login")).json(&body);
        async { read(request.send().await.unwrap()).await }
    };
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let mut answers = Vec::new();
    secrets.insert("a wrong password", "a wrong password, nearly right".to_owned());
    answers.push(login("admin", &secrets["a wrong password"]).await.1);
    answers.push(login(&secrets["a wrong password"], "x").await.1);
    let (status, first) = login("admin", &secrets["the first password"]).await;
    assert_eq!(status, StatusCode::OK);
    secrets.insert("an access token", text(&first["token"]));
    secrets.insert("a refresh token", text(&first["refreshToken"]));
    let token = secrets["an access token"].clone();
    let send = |method: Method, path: &str, body: Value| {
        let request = http.request(method, url(path)).bearer_auth(&token).json(&body);
        async { read(request.send().await.unwrap()).await.1 }
    };
    let made = send(
        Method::POST,
        "/api/v1/users",
        json!({ "username": "ada", "email": "a@example.com", "role": "Viewer" }),
    )
    .await;
    secrets.insert("a one-time password", text(&made["oneTimePassword"]));
    let made = send(
        Method::POST,
        "/api/v1/tokens",
        json!({ "name": "ci", "role": "Deployer" }),
    )
    .await;
    secrets.insert("an API token", text(&made["token"]));
    let changed = json!({ "currentPassword": secrets["the first password"], "newPassword": PASSWORD });
    let change = http
        .post(url("/api/v1/authentication/password"))
        .bearer_auth(&token)
        .json(&changed);
    assert_eq!(change.send().await.unwrap().status(), StatusCode::NO_CONTENT);
    secrets.insert("a new password", PASSWORD.to_owned());
    // Secrets in the wrong place, and in faulty requests.
    let wrong = format!("/api/v1/deployments?cursor={}", secrets["an API token"]);
    answers.push(send(Method::GET, &wrong, json!(null)).await);
    answers.push(
        send(
            Method::POST,
            "/api/v1/tokens",
            json!({ "name": "x", "role": secrets["a new password"] }),
        )
        .await,
    );
    let forged = http
        .get(url("/api/v1/users"))
        .bearer_auth(format!("{}x", secrets["an access token"]));
    answers.push(read(forged.send().await.unwrap()).await.1);
    let push = http
        .post(url("/api/v1/modules"))
        .bearer_auth(&secrets["an API token"])
        .body(package("pay", "1.0.0").file.clone());
    answers.push(read(push.send().await.unwrap()).await.1);
    answers.push(
        send(
            Method::POST,
            "/api/v1/deployments",
            deployment("pay", "1.0.0", "Development"),
        )
        .await,
    );
    answers.push(send(Method::POST, "/api/v1/keys/rotate", json!({})).await);
    for path in [
        "users",
        "tokens",
        "keys",
        "audit?limit=1000",
        "deployments",
        "modules",
        "nodes",
        "authentication/me",
    ] {
        answers.push(send(Method::GET, &format!("/api/v1/{path}"), json!(null)).await);
    }
    running.shutdown().await.unwrap();

    let logged = String::from_utf8_lossy(&logs.0.lock().unwrap()).into_owned();
    assert!(!logged.is_empty(), "something was logged");
    let answered = Value::from(answers).to_string();
    let mut kept = Vec::new();
    for entry in std::fs::read_dir(dir.path()).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            kept.extend(std::fs::read(path).unwrap());
        }
    }
    let kept = String::from_utf8_lossy(&kept).into_owned();
    for (what, secret) in &secrets {
        assert!(!logged.contains(secret.as_str()), "{what} was logged");
        assert!(!answered.contains(secret.as_str()), "{what} was answered");
        assert!(!kept.contains(secret.as_str()), "{what} is kept as it is");
    }
}
