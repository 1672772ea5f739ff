//! Logging in, staying in, being locked out; users, tokens and keys.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use hotswap_server::{AccessConfig, Server, StartError};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::agent::{FakeNode, Fares};
use crate::harness::{PASSWORD, TestServer, config, deployment, host, package, read};

const LOGIN: &str = "/api/v1/authentication/login";
const ME: &str = "/api/v1/authentication/me";

async fn try_login(server: &TestServer, username: &str, password: &str) -> (StatusCode, Value) {
    let body = json!({ "username": username, "password": password });
    read(server.bare(Method::POST, LOGIN).json(&body).send().await.unwrap()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_has_the_contracts_shape() {
    let server = TestServer::start().await;
    let (status, body) = try_login(&server, "Admin", PASSWORD).await;
    assert_eq!(status, StatusCode::OK, "{body:#}");
    assert!(body["token"].as_str().unwrap().split('.').count() == 3, "a JWT");
    assert!(body["expiresAt"].as_str().unwrap().ends_with('Z'));
    let user = &body["user"];
    assert_eq!(user["username"], "admin");
    assert_eq!(user["roles"], json!([3, 2, 1]), "numbers, each that it holds");
    for field in ["id", "email", "fullName"] {
        assert!(user[field].is_string(), "{field}");
    }
    let (status, me) = server.get(ME).await;
    assert_eq!((status, &me), (StatusCode::OK, user));
    let (status, body) = server.get("/api/v1/authentication/demo-credentials").await;
    assert_eq!(
        (status, &body["code"]),
        (StatusCode::NOT_FOUND, &json!("no_demo"))
    );
    let (status, body) = try_login(&server, "admin", "Admin123!").await;
    assert_eq!(status, StatusCode::UNAUTHORIZED, "{body:#}");
    let bad = read(
        server
            .bare(Method::POST, LOGIN)
            .json(&json!({}))
            .send()
            .await
            .unwrap(),
    )
    .await;
    assert_eq!(bad.1["details"].as_array().unwrap().len(), 2, "{:#}", bad.1);
}

#[tokio::test(flavor = "multi_thread")]
async fn five_failures_lock_and_nobody_is_told_what_was_wrong() {
    let server = TestServer::start().await;
    server.user("ada", "Viewer").await;
    let (_, unknown) = try_login(&server, "nobody-there", "x").await;
    let mut answers = vec![unknown];
    for _ in 0..5 {
        answers.push(try_login(&server, "ada", "wrong").await.1);
    }
    let (status, locked) = try_login(&server, "ada", PASSWORD).await;
    assert_eq!(status, StatusCode::UNAUTHORIZED, "also by the right password");
    answers.push(locked);
    for answer in &answers {
        assert_eq!(answer["error"], answers[0]["error"]);
        assert_eq!(answer["code"], "bad_credentials");
    }
    let server = server.restart().await;
    let (status, _) = try_login(&server, "ada", PASSWORD).await;
    assert_eq!(status, StatusCode::UNAUTHORIZED, "a restart lifts no lock");
    let (_, ada) = server.get("/api/v1/users/ada").await;
    assert!(ada["lockedUntil"].is_string(), "{ada:#}");
    let unlock = server
        .request(Method::PATCH, "/api/v1/users/ada")
        .json(&json!({ "unlock": true }));
    assert_eq!(unlock.send().await.unwrap().status(), StatusCode::OK);
    assert_eq!(try_login(&server, "ada", PASSWORD).await.0, StatusCode::OK);
}

/// Prints the figures; asserts only what no machine's load can change: both do a password's work.
#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_user_costs_the_time_of_a_wrong_password() {
    const TRIES: usize = 20;
    let server = TestServer::start().await;
    for i in 0..TRIES / 4 {
        server.user(&format!("user{i}"), "Viewer").await;
    }
    let mut times: [Vec<Duration>; 2] = [Vec::new(), Vec::new()];
    for i in 0..TRIES {
        for (place, username) in [format!("user{}", i / 4), format!("nobody{i}")]
            .iter()
            .enumerate()
        {
            let began = Instant::now();
            let (status, _) = try_login(&server, username, "wrong password").await;
            assert_eq!(status, StatusCode::UNAUTHORIZED);
            times[place].push(began.elapsed());
        }
    }
    let medians = times.map(|mut times| {
        times.sort_unstable();
        times[TRIES / 2]
    });
    println!(
        "wrong password: median {:?}; unknown user: median {:?}",
        medians[0], medians[1]
    );
    let hash = Duration::from_millis(5);
    assert!(
        medians.iter().all(|median| *median > hash),
        "each is a hash: {medians:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_goes_on_by_its_refresh_token_which_serves_once() {
    let server = TestServer::start().await;
    let (_, first) = try_login(&server, "admin", PASSWORD).await;
    let refresh = |token: &Value| {
        let body = json!({ "refreshToken": token });
        let request = server
            .bare(Method::POST, "/api/v1/authentication/refresh")
            .json(&body);
        async { read(request.send().await.unwrap()).await }
    };
    let (status, second) = refresh(&first["refreshToken"]).await;
    assert_eq!(status, StatusCode::OK, "{second:#}");
    assert_ne!(first["refreshToken"], second["refreshToken"]);
    // An answer that got lost may be asked for again.
    let (status, third) = refresh(&first["refreshToken"]).await;
    assert_eq!(status, StatusCode::OK);
    // What was stolen ends the session: this one was neither the last nor the one before it.
    let (status, _) = refresh(&second["refreshToken"]).await;
    assert_eq!(status, StatusCode::UNAUTHORIZED);
    let (status, _) = refresh(&third["refreshToken"]).await;
    assert_eq!(status, StatusCode::UNAUTHORIZED, "the whole session has ended");
    let token = third["token"].as_str().unwrap();
    let me = server.request_as(token, Method::GET, ME).send().await.unwrap();
    assert_eq!(
        me.status(),
        StatusCode::UNAUTHORIZED,
        "and its access tokens with it"
    );
    assert_eq!(refresh(&json!("hsr_nonsense")).await.0, StatusCode::UNAUTHORIZED);
}

#[tokio::test(flavor = "multi_thread")]
async fn out_is_out() {
    let server = TestServer::start().await;
    let token = server.login("admin", PASSWORD).await;
    let out = server.request_as(&token, Method::POST, "/api/v1/authentication/logout");
    assert_eq!(out.send().await.unwrap().status(), StatusCode::NO_CONTENT);
    let me = server.request_as(&token, Method::GET, ME).send().await.unwrap();
    assert_eq!(me.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(server.get(ME).await.0, StatusCode::OK, "other sessions go on");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_admin_has_a_one_time_password_and_must_change_it() {
    let dir = TempDir::new().unwrap();
    let mut wanted = config(dir.path());
    wanted.access.admin_password = None;
    let running = Server::start(wanted.clone(), host().await).await.unwrap();
    let first = running.first_admin().unwrap().clone();
    let password = first
        .password
        .as_ref()
        .map(|password| secrecy::ExposeSecret::expose_secret(password).to_owned());
    let password = password.expect("it was made");
    running.shutdown().await.unwrap();
    // Another start tells nothing.
    let running = Server::start(wanted, host().await).await.unwrap();
    assert!(running.first_admin().is_none());
    let http = crate::harness::http_client();
    let url = |path: &str| format!("http://{}{path}", running.http_addr());
    let body = json!({ "username": first.username, "password": password });
    let (status, login) = read(http.post(url(LOGIN)).json(&body).send().await.unwrap()).await;
    assert_eq!(status, StatusCode::OK, "{login:#}");
    assert_eq!(login["user"]["passwordChangeRequired"], true);
    let token = login["token"].as_str().unwrap();
    let get = |path: &str| http.get(url(path)).bearer_auth(token).send();
    assert_eq!(get(ME).await.unwrap().status(), StatusCode::OK);
    let (status, body) = read(get("/api/v1/clusters").await.unwrap()).await;
    assert_eq!(
        (status, &body["code"]),
        (StatusCode::FORBIDDEN, &json!("password_change_required"))
    );
    let change = |new: &str| {
        let body = json!({ "currentPassword": password, "newPassword": new });
        http.post(url("/api/v1/authentication/password"))
            .bearer_auth(token)
            .json(&body)
            .send()
    };
    for bad in ["short", "the admin it is", password.as_str()] {
        assert_eq!(
            change(bad).await.unwrap().status(),
            StatusCode::BAD_REQUEST,
            "{bad}"
        );
    }
    assert_eq!(change(PASSWORD).await.unwrap().status(), StatusCode::NO_CONTENT);
    assert_eq!(get("/api/v1/clusters").await.unwrap().status(), StatusCode::OK);
    running.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_given_first_password_must_be_good() {
    let dir = TempDir::new().unwrap();
    let mut wanted = config(dir.path());
    wanted.access.admin_password = Some("admin".into());
    let error = Server::start(wanted, host().await).await.unwrap_err();
    assert!(matches!(error, StartError::Access(_)));
    let text = error.to_string();
    assert!(
        text.contains("at least 12") && !text.contains("\"admin\""),
        "{text}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_demo_has_its_accounts_and_no_server_keeps_them() {
    let dir = TempDir::new().unwrap();
    let mut demo = config(dir.path());
    demo.access = AccessConfig {
        demo: true,
        ..AccessConfig::default()
    };
    let running = Server::start(demo.clone(), host().await).await.unwrap();
    let http = crate::harness::http_client();
    let login = |running: &hotswap_server::RunningServer, username: &str, password: &str| {
        let url = format!("http://{}{LOGIN}", running.http_addr());
        let request = http
            .post(url)
            .json(&json!({ "username": username, "password": password }));
        async { read(request.send().await.unwrap()).await }
    };
    for (username, password, roles) in [
        ("admin", "Admin123!", json!([3, 2, 1])),
        ("deployer", "Deploy123!", json!([2, 1])),
        ("viewer", "Viewer123!", json!([1])),
    ] {
        let (status, body) = login(&running, username, password).await;
        assert_eq!(
            (status, &body["user"]["roles"]),
            (StatusCode::OK, &roles),
            "{username}"
        );
    }
    let url = format!(
        "http://{}/api/v1/authentication/demo-credentials",
        running.http_addr()
    );
    let (status, told) = read(http.get(url).send().await.unwrap()).await;
    assert_eq!((status, told.as_array().unwrap().len()), (StatusCode::OK, 3));
    running.shutdown().await.unwrap();

    // The same folder under a server: whoever everybody knows the password of is out.
    let running = Server::start(config(dir.path()), host().await).await.unwrap();
    for (username, password) in [
        ("admin", "Admin123!"),
        ("deployer", "Deploy123!"),
        ("viewer", "Viewer123!"),
    ] {
        assert_eq!(
            login(&running, username, password).await.0,
            StatusCode::UNAUTHORIZED,
            "{username}"
        );
    }
    assert_eq!(login(&running, "admin", PASSWORD).await.0, StatusCode::OK);
    running.shutdown().await.unwrap();
    let error = Server::start(demo, host().await).await.unwrap_err();
    assert!(error.to_string().contains("the demo"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn users_are_managed_and_one_admin_stays() {
    let server = TestServer::start().await;
    let ada = server.user("ada", "Deployer").await;
    let again = json!({ "username": "ADA", "email": "a@example.com", "role": "Viewer" });
    assert_eq!(server.post("/api/v1/users", &again).await.0, StatusCode::CONFLICT);
    let faulty = json!({ "username": "1", "email": "x", "role": "root", "fullName": "x".repeat(101) });
    let (status, body) = server.post("/api/v1/users", &faulty).await;
    assert_eq!(
        (status, body["details"].as_array().unwrap().len()),
        (StatusCode::BAD_REQUEST, 4),
        "{body:#}"
    );

    let change = |username: &str, body: Value| {
        let request = server
            .request(Method::PATCH, &format!("/api/v1/users/{username}"))
            .json(&body);
        async { read(request.send().await.unwrap()).await }
    };
    let users = |token: &str| server.request_as(token, Method::GET, "/api/v1/users").send();
    assert_eq!(users(&ada).await.unwrap().status(), StatusCode::FORBIDDEN);
    assert_eq!(change("ada", json!({ "role": "Admin" })).await.0, StatusCode::OK);
    assert_eq!(
        users(&ada).await.unwrap().status(),
        StatusCode::OK,
        "at once, by the token it has"
    );
    assert_eq!(change("ada", json!({ "disabled": true })).await.0, StatusCode::OK);
    assert_eq!(
        users(&ada).await.unwrap().status(),
        StatusCode::UNAUTHORIZED,
        "at once"
    );
    let (status, body) = change("admin", json!({ "role": "Viewer" })).await;
    assert_eq!(status, StatusCode::CONFLICT, "{body:#}");
    assert_eq!(
        change("admin", json!({ "disabled": true })).await.0,
        StatusCode::CONFLICT
    );
    assert_eq!(change("nobody", json!({})).await.0, StatusCode::NOT_FOUND);

    change("ada", json!({ "disabled": false })).await;
    let (status, reset) = server.post("/api/v1/users/ada/reset-password", &json!({})).await;
    assert_eq!(status, StatusCode::OK);
    let (status, login) = try_login(&server, "ada", reset["oneTimePassword"].as_str().unwrap()).await;
    assert_eq!(
        (status, &login["user"]["passwordChangeRequired"]),
        (StatusCode::OK, &json!(true))
    );
    let (_, list) = server.get("/api/v1/users").await;
    assert!(!list.to_string().contains("argon2"), "no hash leaves the server");
}

#[tokio::test(flavor = "multi_thread")]
async fn api_tokens_reach_as_far_as_they_say() {
    let server = TestServer::start().await;
    let ada = server.user("ada", "Deployer").await;
    for version in ["1.0.0", "1.1.0"] {
        server.push(&package("pay", version)).await;
    }
    let create = |body: Value| {
        let (server, ada) = (&server, &ada);
        async move { server.post_as(ada, "/api/v1/tokens", &body).await }
    };
    let (status, _) = create(json!({ "name": "x", "role": "Admin" })).await;
    assert_eq!(status, StatusCode::FORBIDDEN, "no more than its owner");
    let (status, body) = create(json!({
        "name": "x", "role": "Viewer", "modules": ["A B"], "environments": ["Moon"], "expiresInDays": 0,
    }))
    .await;
    assert_eq!(
        (status, body["details"].as_array().unwrap().len()),
        (StatusCode::BAD_REQUEST, 3),
        "{body:#}"
    );
    let (status, made) = create(json!({
        "name": "ci", "role": "Deployer", "modules": ["pa*"], "environments": ["qa", "Development"],
    }))
    .await;
    assert_eq!(status, StatusCode::CREATED, "{made:#}");
    let ci = made["token"].as_str().unwrap().to_owned();
    let deploy = |module: &str, target: &str| {
        let (server, ci, body) = (&server, ci.clone(), deployment(module, "1.0.0", target));
        async move { server.post_as(&ci, "/api/v1/deployments", &body).await }
    };
    let (status, body) = deploy("pay", "Development").await;
    assert_eq!(status, StatusCode::ACCEPTED, "{body:#}");
    for (module, target) in [("pay", "Production"), ("shop", "QA")] {
        let (status, body) = deploy(module, target).await;
        assert_eq!(
            (status, &body["code"]),
            (StatusCode::FORBIDDEN, &json!("scope")),
            "{module} {target}"
        );
    }
    let get = |path: &str| server.request_as(&ci, Method::GET, path).send();
    assert_eq!(
        get("/api/v1/deployments").await.unwrap().status(),
        StatusCode::OK,
        "it reads all"
    );
    assert_eq!(
        get("/api/v1/users").await.unwrap().status(),
        StatusCode::FORBIDDEN
    );
    let more = server
        .post_as(&ci, "/api/v1/tokens", &json!({ "name": "y", "role": "Viewer" }))
        .await;
    assert_eq!(more.0, StatusCode::FORBIDDEN, "a token makes no token");

    // An Admin's tokens make nobody an Admin, and what concerns all is not for a part's token.
    let mut tokens = Vec::new();
    for (name, environments) in [("all", json!([])), ("qa", json!(["QA"]))] {
        let new = json!({ "name": name, "role": "Admin", "environments": environments });
        let (status, made) = server.post("/api/v1/tokens", &new).await;
        assert_eq!(status, StatusCode::CREATED, "{made:#}");
        tokens.push(made["token"].as_str().unwrap().to_owned());
    }
    let new = json!({ "username": "mallory", "email": "m@example.com", "role": "Admin" });
    for (path, body) in [
        ("/api/v1/users", &new),
        ("/api/v1/users/ada/reset-password", &json!({})),
        ("/api/v1/keys/rotate", &json!({})),
    ] {
        for token in &tokens {
            let (status, body) = server.post_as(token, path, body).await;
            assert_eq!(status, StatusCode::FORBIDDEN, "{path}: {body:#}");
        }
    }
    let node = FakeNode::join(server.running.agents_addr(), "dev-a", "Development", Fares::Well).await;
    server
        .until("/api/v1/nodes/dev-a", |node| node["status"] == "Running")
        .await;
    for (path, body) in [
        ("/api/v1/artifacts/collect", json!({})),
        ("/api/v1/webhooks/dead-letters/x/resend", json!({})),
        // Taken from where the token reaches nothing.
        ("/api/v1/nodes/dev-a/move", json!({ "environment": "QA" })),
    ] {
        let (status, answer) = server.post_as(&tokens[1], path, &body).await;
        assert_eq!(
            (status, &answer["code"]),
            (StatusCode::FORBIDDEN, &json!("scope")),
            "{path}: {answer:#}"
        );
        let (status, answer) = server.post_as(&tokens[0], path, &body).await;
        assert_ne!(status, StatusCode::FORBIDDEN, "{path}: {answer:#}");
    }
    drop(node);

    // It speaks as its owner, also where requester and approver must differ.
    let (_, entries) = server
        .get("/api/v1/audit?kind=command&action=deploy&actor=ada")
        .await;
    assert_eq!(
        (&entries[0]["token"], &entries[0]["actor"]),
        (&json!("ci"), &json!("ada")),
        "{entries:#}"
    );

    let server = server.restart().await;
    let get = |path: &str| server.request_as(&ci, Method::GET, path).send();
    assert_eq!(
        get(ME).await.unwrap().status(),
        StatusCode::OK,
        "it outlives a restart"
    );
    let path = format!("/api/v1/tokens/{}", made["details"]["id"].as_str().unwrap());
    let viewer = server.user("eve", "Viewer").await;
    let other = server
        .request_as(&viewer, Method::DELETE, &path)
        .send()
        .await
        .unwrap();
    assert_eq!(other.status(), StatusCode::NOT_FOUND, "another's");
    let revoked = server.request(Method::DELETE, &path).send().await.unwrap();
    assert_eq!(revoked.status(), StatusCode::NO_CONTENT, "an Admin's word");
    assert_eq!(get(ME).await.unwrap().status(), StatusCode::UNAUTHORIZED);
}

/// Clients while a key is rotated; requests of each before and after it, and at most.
const ROTATION_CLIENTS: usize = 6;
const ROTATION_AROUND: usize = 30;
const ROTATION_REQUESTS_MAX: usize = 5_000;

#[tokio::test(flavor = "multi_thread")]
async fn a_rotated_key_is_noticed_by_nobody() {
    let server = TestServer::start().await;
    let jwks = || async {
        let answer = server
            .bare(Method::GET, "/.well-known/jwks.json")
            .send()
            .await
            .unwrap();
        read(answer).await.1["keys"].as_array().unwrap().clone()
    };
    let before = jwks().await;
    assert_eq!((before.len(), &before[0]["alg"]), (1, &json!("EdDSA")));
    // All keep asking with the token of the old key, until the new one is there, and then some more.
    let (asked, rotated) = (AtomicUsize::new(0), AtomicBool::new(false));
    let client = async || {
        let mut after = 0;
        for count in 1..=ROTATION_REQUESTS_MAX {
            let status = server.get(ME).await.0;
            assert_eq!(status, StatusCode::OK, "request {count}");
            asked.fetch_add(1, Ordering::Relaxed);
            after += usize::from(rotated.load(Ordering::Relaxed));
            if after == ROTATION_AROUND {
                return count;
            }
        }
        panic!("the new key never came");
    };
    let rotate = async {
        while asked.load(Ordering::Relaxed) < ROTATION_CLIENTS * ROTATION_AROUND {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let (status, _) = server.post("/api/v1/keys/rotate", &json!({})).await;
        assert!(status.is_success(), "{status}");
        rotated.store(jwks().await.len() == 2, Ordering::Relaxed);
    };
    let clients = futures::future::join_all((0..ROTATION_CLIENTS).map(|_| client()));
    let (counts, ()) = tokio::join!(clients, rotate);
    println!("{counts:?} requests, none refused");
    let after = jwks().await;
    assert_eq!(after.len(), 2, "both are published");
    assert_ne!(after[0]["kid"], before[0]["kid"], "the new one signs");
    let new = server.login("admin", PASSWORD).await;
    let server = server.restart().await;
    for token in [&server.token, &new] {
        let me = server.request_as(token, Method::GET, ME).send().await.unwrap();
        assert_eq!(me.status(), StatusCode::OK);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_data_folder_is_its_owners_alone() {
    use std::os::unix::fs::PermissionsExt as _;
    let server = TestServer::start().await;
    for entry in std::fs::read_dir(server.dir.path()).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        if name.starts_with("hotswap.db") {
            let mode = entry.metadata().unwrap().permissions().mode();
            assert_eq!(mode & 0o077, 0, "{name}: {mode:o}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_made_twice_under_one_key_is_made_once_and_its_secret_is_told_once() {
    let server = TestServer::start().await;
    let ask = async |path: &str, key: &str, body: &Value| {
        let request = server.request(Method::POST, path).header("idempotency-key", key);
        let response = request.json(body).send().await.unwrap();
        let replayed = response.headers().contains_key("idempotent-replayed");
        let (status, body) = read(response).await;
        (status, body, replayed)
    };
    let token = json!({ "name": "ci", "role": "Viewer" });
    let (status, first, replayed) = ask("/api/v1/tokens", "a", &token).await;
    assert!(
        status == StatusCode::CREATED && first["token"].is_string() && !replayed,
        "{first:#}"
    );
    let (status, again, replayed) = ask("/api/v1/tokens", "a", &token).await;
    assert!(
        status == StatusCode::CREATED && again["token"].is_null() && replayed,
        "{again:#}"
    );
    assert_eq!(again["details"], first["details"]);
    let (_, tokens) = server.get("/api/v1/tokens").await;
    assert_eq!(tokens.as_array().unwrap().len(), 1);
    let other = json!({ "name": "cd", "role": "Viewer" });
    assert_eq!(
        ask("/api/v1/tokens", "a", &other).await.0,
        StatusCode::UNPROCESSABLE_ENTITY
    );

    let user = json!({ "username": "grace", "email": "grace@example.com", "role": "Viewer" });
    let (status, first, _) = ask("/api/v1/users", "b", &user).await;
    assert!(
        status == StatusCode::CREATED && first["oneTimePassword"].is_string(),
        "{first:#}"
    );
    let (status, again, replayed) = ask("/api/v1/users", "b", &user).await;
    assert!(
        status == StatusCode::CREATED && again["oneTimePassword"].is_null() && replayed,
        "{again:#}"
    );

    let first = ask("/api/v1/keys/rotate", "c", &json!({})).await;
    let again = ask("/api/v1/keys/rotate", "c", &json!({})).await;
    assert_eq!((first.0, &first.1), (again.0, &again.1));
    let (_, keys) = server.get("/api/v1/keys").await;
    assert_eq!(keys.as_array().unwrap().len(), 2, "rotated once");
    // The secrets are nowhere in what is kept.
    let server = server.restart().await;
    let (_, tokens) = server.get("/api/v1/tokens").await;
    assert_eq!(tokens.as_array().unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_somebody_else_may_have_made_ends_with_a_reset_and_with_disabling() {
    let server = TestServer::start().await;
    for (name, path, body) in [
        ("ada", "/api/v1/users/ada/reset-password", None),
        ("eve", "/api/v1/users/eve", Some(json!({ "disabled": true }))),
    ] {
        let session = server.user(name, "Deployer").await;
        let new = json!({ "name": "ci", "role": "Viewer" });
        let (status, made) = server.post_as(&session, "/api/v1/tokens", &new).await;
        assert_eq!(status, StatusCode::CREATED, "{made:#}");
        let token = made["token"].as_str().unwrap().to_owned();
        let mut streams = Vec::new();
        for bearer in [&session, &token] {
            let answer = server
                .bare(Method::GET, "/api/v1/events?after=0")
                .bearer_auth(bearer)
                .send()
                .await
                .unwrap();
            assert_eq!(answer.status(), StatusCode::OK);
            streams.push(answer);
        }
        let method = if body.is_some() {
            Method::PATCH
        } else {
            Method::POST
        };
        let done = server.request(method, path).json(&body.unwrap_or(json!({})));
        assert_eq!(done.send().await.unwrap().status(), StatusCode::OK);
        for bearer in [&session, &token] {
            let refused = server.request_as(bearer, Method::GET, ME).send().await.unwrap();
            assert_eq!(refused.status(), StatusCode::UNAUTHORIZED, "{name}");
        }
        server.push(&package(name, "1.0.0")).await;
        for stream in streams {
            let told = stream.text().await.unwrap();
            assert!(told.contains("you are let in no more"), "{told}");
            assert!(!told.contains(&format!("\"{name}\"")), "{told}");
        }
        let enabled = server
            .request(Method::PATCH, &format!("/api/v1/users/{name}"))
            .json(&json!({ "disabled": false }));
        enabled.send().await.unwrap();
        let gone = server.request_as(&token, Method::GET, ME).send().await.unwrap();
        assert_eq!(gone.status(), StatusCode::UNAUTHORIZED, "for good");
    }
}
