//! Who may call what: every route, by every role, without a token, and with bad ones.

use std::time::Duration;

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::sleep;

use crate::harness::{TestServer, config, read};

/// What the contract says of its own routes, so that the document can't be wrong unnoticed.
const FIXED: [(&str, &str, Option<&str>); 24] = [
    ("POST", "/api/v1/deployments", Some("Deployer")),
    ("GET", "/api/v1/deployments", Some("Viewer")),
    ("GET", "/api/v1/deployments/{id}", Some("Viewer")),
    ("POST", "/api/v1/deployments/{id}/rollback", Some("Deployer")),
    ("POST", "/api/v1/deployments/{id}/pause", Some("Deployer")),
    ("POST", "/api/v1/deployments/{id}/abort", Some("Deployer")),
    ("GET", "/api/v1/clusters", Some("Viewer")),
    ("GET", "/api/v1/clusters/{environment}", Some("Viewer")),
    ("GET", "/api/v1/clusters/{environment}/metrics", Some("Viewer")),
    ("POST", "/api/v1/authentication/login", None),
    ("GET", "/api/v1/authentication/me", Some("Viewer")),
    ("GET", "/api/v1/authentication/demo-credentials", None),
    ("GET", "/api/v1/approvals/pending", Some("Viewer")),
    ("GET", "/api/v1/approvals/deployments/{id}", Some("Viewer")),
    (
        "POST",
        "/api/v1/approvals/deployments/{id}/approve",
        Some("Admin"),
    ),
    ("POST", "/api/v1/approvals/deployments/{id}/reject", Some("Admin")),
    ("POST", "/api/v1/modules", Some("Deployer")),
    ("GET", "/api/v1/modules", Some("Viewer")),
    ("GET", "/api/v1/users", Some("Admin")),
    ("POST", "/api/v1/users", Some("Admin")),
    ("GET", "/api/v1/audit", Some("Admin")),
    ("POST", "/api/v1/keys/rotate", Some("Admin")),
    ("GET", "/health", None),
    ("GET", "/.well-known/jwks.json", None),
];
/// Routes that anybody may call. One more is a decision that belongs here.
const OPEN: [&str; 7] = [
    "/api/v1/authentication/login",
    "/api/v1/authentication/refresh",
    "/api/v1/authentication/demo-credentials",
    "/.well-known/jwks.json",
    "/health",
    "/health/live",
    "/health/ready",
];
const ROLES: [&str; 3] = ["Viewer", "Deployer", "Admin"];

/// Every operation of the document with the role that it names; `None` is open to anybody.
fn operations(document: &Value) -> Vec<(Method, String, Option<String>)> {
    let mut all = Vec::new();
    for (path, operations) in document["paths"].as_object().unwrap() {
        for (method, operation) in operations.as_object().unwrap() {
            let method: Method = method.to_uppercase().parse().unwrap();
            let security = operation["security"].as_array().unwrap_or_else(|| {
                panic!("{method} {path} names no role: add security(…) to its description")
            });
            let role = security[0]["bearer"][0].as_str().map(str::to_owned);
            assert!(
                role.is_some() || OPEN.contains(&path.as_str()) || path.starts_with("/metrics"),
                "{method} {path} is open to anybody, and not among those that may be"
            );
            all.push((method, path.clone(), role));
        }
    }
    all
}

/// A token that was good once: its server gave it a second to live.
async fn expired_token(dir: TempDir) -> (TestServer, String) {
    let mut short = config(dir.path());
    short.access.access_lifetime = Duration::from_secs(1);
    let server = TestServer::start_with(dir, short).await;
    let token = server.token.clone();
    loop {
        let me = server.request(Method::GET, "/api/v1/authentication/me");
        let (status, body) = read(me.send().await.unwrap()).await;
        if status == StatusCode::UNAUTHORIZED {
            assert_eq!(body["error"], "the token has expired");
            break;
        }
        sleep(Duration::from_millis(50)).await;
    }
    (server.restart().await, token)
}

async fn code(
    server: &TestServer,
    method: &Method,
    path: &str,
    authorization: Option<&str>,
) -> (u16, String) {
    let mut request = server.bare(method.clone(), path);
    if let Some(authorization) = authorization {
        request = request.header("authorization", authorization);
    }
    let response = request.send().await.unwrap();
    for header in [
        "x-ratelimit-limit",
        "x-ratelimit-remaining",
        "x-ratelimit-reset",
        "content-security-policy",
    ] {
        assert!(
            response.headers().contains_key(header),
            "{method} {path} has no {header}"
        );
    }
    let status = response.status().as_u16();
    let challenged = response.headers().contains_key("www-authenticate");
    assert_eq!(
        challenged,
        status == 401 && !path.ends_with("/login"),
        "{method} {path}: {status}"
    );
    let text = response.text().await.unwrap();
    let body: Value = serde_json::from_str(&text).unwrap_or_default();
    (status, body["code"].as_str().unwrap_or_default().to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn every_route_lets_in_whom_it_says_and_nobody_else() {
    let (server, expired) = expired_token(TempDir::new().unwrap()).await;
    let (_, document) = server.get("/openapi.json").await;
    let operations = operations(&document);
    for (method, path, role) in FIXED {
        let found = operations
            .iter()
            .find(|(m, p, _)| m.as_str() == method && p == path);
        let (.., found) = found.unwrap_or_else(|| panic!("{method} {path} is gone"));
        assert_eq!(found.as_deref(), role, "{method} {path}");
    }
    let mut tokens = Vec::new();
    for role in ROLES {
        let token = server.user(&format!("a-{}", role.to_lowercase()), role).await;
        tokens.push((role, token));
    }
    let good = &tokens[2].1;
    let mut forged = good.clone();
    forged.replace_range(forged.len() - 8.., "AAAAAAAA");
    let bad = [
        ("none", None, "token_required"),
        (
            "another scheme",
            Some("Basic YWRtaW46YWRtaW4=".to_owned()),
            "token_required",
        ),
        ("nonsense", Some("Bearer nonsense".to_owned()), "token_refused"),
        ("forged", Some(format!("Bearer {forged}")), "token_refused"),
        ("expired", Some(format!("Bearer {expired}")), "token_refused"),
        (
            "an unknown API token",
            Some("Bearer hst_nonsense".to_owned()),
            "token_refused",
        ),
    ];
    let mut asked = 0;
    for (method, path, needed) in &operations {
        // Names that nothing has: whoever is let in finds nothing there, or sends nothing that could be done.
        let path = path
            .replace("{id}", "7d444840-9dc0-11d1-b245-5ffdce74fad2")
            .replace("{environment}", "QA")
            .replace("{username}", "nobody-there")
            .replace("{name}", "no-such-module");
        let path = path.replace(['{', '}'], "");
        let Some(needed) = needed else {
            let (status, code) = code(&server, method, &path, None).await;
            assert_ne!(code, "token_required", "{method} {path} is open: {status}");
            continue;
        };
        for (what, authorization, expected) in &bad {
            let (status, code) = code(&server, method, &path, authorization.as_deref()).await;
            assert_eq!(
                (status, code.as_str()),
                (401, *expected),
                "{method} {path}, {what}"
            );
            asked += 1;
        }
        if path.ends_with("/logout") || path.ends_with("/rotate") || path.contains("events") {
            // They would be done; each has a test of its own.
            continue;
        }
        let needed = ROLES.iter().position(|role| role == needed).unwrap();
        for (place, (role, token)) in tokens.iter().enumerate() {
            let (status, code) = code(&server, method, &path, Some(&format!("Bearer {token}"))).await;
            if place < needed {
                assert_eq!(
                    (status, code.as_str()),
                    (403, "role_required"),
                    "{method} {path}, {role}"
                );
            } else {
                assert!(
                    status != 401 && code != "role_required" && status < 500,
                    "{method} {path}, {role}: {status}"
                );
            }
            asked += 1;
        }
    }
    println!("{} operations, {asked} requests", operations.len());
    // Each refusal is in the record, or in the count of those that were too many.
    let denials = server.until("/api/v1/audit?kind=denial&limit=1000", |body| {
        body.as_array().is_some_and(|entries| entries.len() > 100)
    });
    let denials = denials.await;
    let codes: std::collections::BTreeSet<&str> = denials
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|entry| entry["outcome"].as_str())
        .collect();
    assert!(
        codes.contains("token_required") && codes.contains("role_required"),
        "{codes:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_is_guarded_as_its_get_and_the_unknown_is_unknown() {
    let server = TestServer::start().await;
    for (path, status) in [("/api/v1/users", 401), ("/health", 200), ("/nowhere", 404)] {
        let head = server.bare(Method::HEAD, path).send().await.unwrap();
        assert_eq!(head.status().as_u16(), status, "{path}");
    }
    let delete = server.bare(Method::DELETE, "/api/v1/users").send().await.unwrap();
    assert_eq!(delete.status().as_u16(), 405);
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_are_safe_in_a_browser_and_other_origins_read_nothing() {
    let server = TestServer::start().await;
    let asked = || {
        server
            .request(Method::GET, "/api/v1/clusters")
            .header("origin", "https://evil.example")
    };
    let answer = asked().send().await.unwrap();
    let header = |name: &str| {
        answer
            .headers()
            .get(name)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
    };
    assert!(header("content-security-policy").starts_with("default-src 'none'"));
    for (name, value) in [
        ("x-content-type-options", "nosniff"),
        ("x-frame-options", "DENY"),
        ("referrer-policy", "no-referrer"),
        ("cache-control", "no-store"),
        ("cross-origin-resource-policy", "same-origin"),
    ] {
        assert_eq!(header(name), value, "{name}");
    }
    assert!(answer.headers().get("access-control-allow-origin").is_none());

    let dir = TempDir::new().unwrap();
    let mut wanted = config(dir.path());
    wanted.cors_origins = vec!["https://ops.example".to_owned()];
    let server = TestServer::start_with(dir, wanted).await;
    let from = |origin: &str, method: Method| {
        let request = server.bare(method, "/api/v1/clusters").header("origin", origin);
        request.header("access-control-request-method", "GET").send()
    };
    let allowed = from("https://ops.example", Method::OPTIONS).await.unwrap();
    assert_eq!(allowed.status(), StatusCode::NO_CONTENT);
    assert_eq!(
        allowed.headers()["access-control-allow-origin"],
        "https://ops.example"
    );
    assert!(
        allowed
            .headers()
            .get("access-control-allow-credentials")
            .is_none()
    );
    let other = from("https://evil.example", Method::OPTIONS).await.unwrap();
    assert!(other.headers().get("access-control-allow-origin").is_none());
    let denied = from("https://ops.example", Method::GET).await.unwrap();
    assert_eq!(
        denied.status(),
        StatusCode::UNAUTHORIZED,
        "a token is needed all the same"
    );
    assert_eq!(
        denied.headers()["access-control-allow-origin"],
        "https://ops.example"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_much_is_refused() {
    let server = TestServer::start().await;
    let many = (0..100).fold(server.request(Method::GET, "/api/v1/clusters"), |request, i| {
        request.header(format!("x-{i}"), "1")
    });
    let status = many.send().await.unwrap().status();
    assert_eq!(
        status,
        StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
        "too many header lines"
    );
    let long = server
        .bare(Method::GET, "/health")
        .header("x-long", "x".repeat(256 << 10));
    assert!(
        long.send()
            .await
            .map_or(true, |answer| answer.status().is_client_error()),
        "a head without an end"
    );
    let token = format!("Bearer {}", "x".repeat(10_000));
    let request = server
        .bare(Method::GET, "/api/v1/clusters")
        .header("authorization", token);
    assert_eq!(request.send().await.unwrap().status(), StatusCode::UNAUTHORIZED);
    let body = json!({ "username": "x".repeat(5_000), "password": "y" });
    let login = server
        .bare(Method::POST, "/api/v1/authentication/login")
        .json(&body);
    assert_eq!(login.send().await.unwrap().status(), StatusCode::BAD_REQUEST);
}
