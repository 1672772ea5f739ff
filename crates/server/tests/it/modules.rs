//! Pushing packages.

use hotswap_package::Package;
use reqwest::{Method, StatusCode};
use serde_json::json;

use crate::harness::{TestServer, package, package_with, read};

#[tokio::test(flavor = "multi_thread")]
async fn a_package_is_pushed_once_and_listed() {
    let server = TestServer::start().await;
    let package = package("pay", "1.0.0");
    let digest = package.digest.to_string();
    let expected = json!({
        "moduleName": "pay", "version": "1.0.0", "digest": digest, "size": package.file.len(), "kind": "wasm",
    });
    assert_eq!(
        server.push(&package).await,
        (StatusCode::CREATED, expected.clone())
    );
    assert_eq!(
        server.push(&package).await,
        (StatusCode::OK, expected),
        "equal bytes again"
    );
    let other = package_with("pay", "1.0.0", "\n[[smoke]]\nname = \"again\"\npath = \"/ok\"\n");
    let (status, body) = server.push(&other).await;
    assert_eq!(
        (status, &body["code"]),
        (StatusCode::CONFLICT, &json!("release_conflict")),
        "other bytes"
    );
    assert!(body["error"].as_str().unwrap().contains("under a new version"));

    let server = server.restart().await;
    let (_, modules) = server.get("/api/v1/modules").await;
    assert_eq!(modules[0]["moduleName"], "pay");
    assert_eq!(modules[0]["versions"][0]["digest"], digest);
    let (_, module) = server.get("/api/v1/modules/pay").await;
    assert_eq!(module, modules[0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_packages_are_refused_with_what_is_wrong() {
    let server = TestServer::start().await;
    let push = |body: Vec<u8>| {
        let request = server.request(Method::POST, "/api/v1/modules").body(body);
        async { read(request.send().await.unwrap()).await }
    };
    let good = package("pay", "1.0.0");
    let (status, body) = push(Vec::new()).await;
    assert_eq!(
        (status, &body["code"]),
        (StatusCode::BAD_REQUEST, &json!("broken_body"))
    );
    let (status, body) = push(b"\0asm and so on".repeat(100)).await;
    assert_eq!(
        (status, &body["code"]),
        (StatusCode::BAD_REQUEST, &json!("faulty_package"))
    );
    assert!(
        body["error"].as_str().unwrap().contains("bare WebAssembly"),
        "{body:#}"
    );
    let (status, body) = push(good.file[..good.file.len() - 600].to_vec()).await;
    assert_eq!(
        (status, &body["code"]),
        (StatusCode::BAD_REQUEST, &json!("faulty_package"))
    );
    let mut flipped = good.file.to_vec();
    flipped[10] ^= 1;
    assert_eq!(push(flipped).await.0, StatusCode::BAD_REQUEST);
    let manifest = b"name = \"pay\"\nversion = \"1.0.0\"\nentry = \"m.wasm\"\n[[routes]]\nprefix = \"/\"\n[[smoke]]\nname = \"a\"\npath = \"/ok\"\n";
    let wrong = Package::assemble(manifest, b"#!/bin/sh\necho hello\n").unwrap();
    let (status, body) = push(wrong.file.to_vec()).await;
    assert_eq!(
        (status, &body["code"]),
        (StatusCode::BAD_REQUEST, &json!("wrong_kind")),
        "{body:#}"
    );
    let (status, body) = push(vec![7; 5 << 20]).await;
    assert_eq!(
        (status, &body["code"]),
        (StatusCode::PAYLOAD_TOO_LARGE, &json!("package_too_large"))
    );
    let request = server
        .request(Method::POST, "/api/v1/modules")
        .header("content-type", "multipart/form-data");
    let (status, _) = read(request.body("x").send().await.unwrap()).await;
    assert_eq!(status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    let (_, modules) = server.get("/api/v1/modules").await;
    assert_eq!(modules, json!([]), "nothing of it was recorded");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_huge_stream_is_cut_off_without_a_length() {
    let server = TestServer::start().await;
    let chunks = (0..96).map(|_| Ok::<_, std::io::Error>(vec![7_u8; 64 << 10]));
    let body = reqwest::Body::wrap_stream(futures::stream::iter(chunks));
    let request = server.request(Method::POST, "/api/v1/modules").body(body);
    let (status, body) = read(request.send().await.unwrap()).await;
    assert_eq!(
        (status, &body["code"]),
        (StatusCode::PAYLOAD_TOO_LARGE, &json!("package_too_large"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_package_is_downloaded_whole_and_in_parts() {
    let server = TestServer::start().await;
    let package = package("pay", "1.0.0");
    let path = format!("/api/v1/artifacts/{}", package.digest);
    let (status, body) = server.get(&path).await;
    assert_eq!(
        (status, &body["code"]),
        (StatusCode::NOT_FOUND, &json!("unknown_artifact")),
        "before it is pushed"
    );
    server.push(&package).await;
    let whole = server.request(Method::GET, &path).send().await.unwrap();
    assert_eq!(whole.status(), StatusCode::OK);
    let tag = whole.headers()["etag"].to_str().unwrap().to_owned();
    assert_eq!(tag, format!("\"{}\"", package.digest));
    assert_eq!(whole.bytes().await.unwrap(), package.file);

    let part = |range: &str| server.request(Method::GET, &path).header("range", range).send();
    let half = package.file.len() / 2;
    let rest = part(&format!("bytes={half}-")).await.unwrap();
    assert_eq!(rest.status(), StatusCode::PARTIAL_CONTENT);
    let size = package.file.len();
    let span = rest.headers()["content-range"].to_str().unwrap().to_owned();
    assert_eq!(span, format!("bytes {half}-{}/{size}", size - 1));
    assert_eq!(rest.bytes().await.unwrap(), package.file.slice(half..));
    let beyond = part(&format!("bytes={size}-")).await.unwrap();
    assert_eq!(beyond.status(), StatusCode::RANGE_NOT_SATISFIABLE);
    let had = server.request(Method::GET, &path).header("if-none-match", &tag);
    assert_eq!(had.send().await.unwrap().status(), StatusCode::NOT_MODIFIED);
    let bare = format!("/api/v1/artifacts/{}", package.digest.hex());
    let bare = server.request(Method::GET, &bare).send().await.unwrap();
    assert_eq!(bare.status(), StatusCode::OK, "the digits alone will do");
}

#[tokio::test(flavor = "multi_thread")]
async fn versions_are_listed_held_and_withdrawn() {
    let server = TestServer::start().await;
    for version in ["1.0.0", "1.10.0", "1.2.0"] {
        server.push(&package("pay", version)).await;
    }
    let (_, versions) = server.get("/api/v1/modules/pay/versions").await;
    let names: Vec<&str> = versions
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|v| v["version"].as_str())
        .collect();
    assert_eq!(names, ["1.10.0", "1.2.0", "1.0.0"], "newest first, by precedence");
    let first = server
        .request(Method::GET, "/api/v1/modules/pay/versions?limit=2")
        .send()
        .await
        .unwrap();
    let link = first.headers()["link"].to_str().unwrap().to_owned();
    let next = link.trim_start_matches('<').split('>').next().unwrap();
    let (_, rest) = server.get(next).await;
    assert_eq!(rest[0]["version"], "1.0.0");

    let one = "/api/v1/modules/pay/versions/1.2.0";
    let answer = server.request(Method::GET, one).send().await.unwrap();
    let tag = answer.headers()["etag"].to_str().unwrap().to_owned();
    let again = server
        .request(Method::GET, one)
        .header("if-none-match", &tag)
        .send()
        .await
        .unwrap();
    assert_eq!(again.status(), StatusCode::NOT_MODIFIED);

    let (status, held) = server
        .post(&format!("{one}/hold"), &json!({ "reason": "a hunch" }))
        .await;
    assert_eq!(status, StatusCode::OK);
    assert!(
        held["release"]["holdReason"]
            .as_str()
            .unwrap()
            .contains("a hunch"),
        "{held:#}"
    );
    let changed = server
        .request(Method::GET, one)
        .header("if-none-match", &tag)
        .send()
        .await
        .unwrap();
    assert_eq!(changed.status(), StatusCode::OK, "it says something else now");
    let wanted = crate::harness::deployment("pay", "1.2.0", "QA");
    let (status, body) = server.post("/api/v1/deployments", &wanted).await;
    assert_eq!(
        (status, &body["code"]),
        (StatusCode::BAD_REQUEST, &json!("release_held"))
    );
    let (status, free) = server.post(&format!("{one}/unhold"), &json!({})).await;
    assert_eq!(
        (status, &free["release"]["holdReason"]),
        (StatusCode::OK, &json!(null))
    );
    let (status, _) = server.post(&format!("{one}/unhold"), &json!({})).await;
    assert_eq!(status, StatusCode::BAD_REQUEST, "no hold is left");

    let (_, yanked) = server
        .post(&format!("{one}/yank"), &json!({ "reason": "a leak" }))
        .await;
    assert_eq!(yanked["release"]["yankReason"], "a leak");
    let (status, body) = server.post("/api/v1/deployments", &wanted).await;
    assert_eq!(
        (status, &body["code"]),
        (StatusCode::BAD_REQUEST, &json!("release_yanked"))
    );
    let server = server.restart().await;
    let (_, versions) = server.get("/api/v1/modules/pay/versions").await;
    assert_eq!(versions[1]["yankReason"], "a leak", "it is in the log");
    let (_, offered) = server.post(&format!("{one}/unyank"), &json!({})).await;
    assert_eq!(offered["release"]["yankReason"], json!(null));

    for (path, code) in [
        ("/api/v1/modules/none-such/versions", "unknown_module"),
        ("/api/v1/modules/pay/versions/9.9.9", "unknown_version"),
        ("/api/v1/modules/pay/versions/latest", "unknown_version"),
    ] {
        let (status, body) = server.get(path).await;
        assert_eq!(
            (status, &body["code"]),
            (StatusCode::NOT_FOUND, &json!(code)),
            "{path}"
        );
    }
}

/// Makes a stored package look as if it had been written so long ago.
fn age(server: &TestServer, digest: &str, by: std::time::Duration) -> std::path::PathBuf {
    let hex = digest.trim_start_matches("sha256:");
    let path = server.dir.path().join("artifacts").join(&hex[..2]).join(hex);
    let file = std::fs::File::options().write(true).open(&path).unwrap();
    file.set_modified(std::time::SystemTime::now() - by).unwrap();
    path
}

#[tokio::test(flavor = "multi_thread")]
async fn packages_that_nothing_needs_are_removed_and_no_other() {
    const LONG: std::time::Duration = std::time::Duration::from_hours(48);
    let dir = tempfile::TempDir::new().unwrap();
    let config = hotswap_server::ServerConfig {
        packages_kept: Some(std::time::Duration::ZERO),
        ..crate::harness::config(dir.path())
    };
    let server = TestServer::start_with(dir, config).await;
    let mut digests = Vec::new();
    for version in ["1.0.0", "1.1.0", "1.2.0", "1.3.0"] {
        let (_, pushed) = server.push(&package("pay", version)).await;
        digests.push(pushed["digest"].as_str().unwrap().to_owned());
    }
    // 1.1.0 is wanted by a deployment that waits for a person; 1.3.0 is the newest.
    let mut body = crate::harness::deployment("pay", "1.1.0", "Development");
    body["requireApproval"] = json!(true);
    assert_eq!(
        server.post("/api/v1/deployments", &body).await.0,
        StatusCode::ACCEPTED
    );
    let listed = async || {
        let (status, body) = server.get("/api/v1/artifacts/collectable").await;
        assert_eq!(status, StatusCode::OK, "{body:#}");
        let versions = body
            .as_array()
            .unwrap()
            .iter()
            .map(|found| found["version"].clone());
        versions.collect::<Vec<_>>()
    };
    assert_eq!(listed().await, Vec::<serde_json::Value>::new(), "all are young");
    let paths: Vec<_> = digests.iter().map(|digest| age(&server, digest, LONG)).collect();
    let orphan = paths[0].parent().unwrap().join("ab".repeat(32));
    std::fs::write(&orphan, "nobody's").unwrap();
    let mut found = listed().await;
    found.sort_by_key(ToString::to_string);
    assert_eq!(
        found,
        [json!("1.0.0"), json!("1.2.0")],
        "and not the orphan: it is young"
    );
    let deployer = server.user("dora", "Deployer").await;
    let (status, _) = server
        .post_as(&deployer, "/api/v1/artifacts/collect", &json!({}))
        .await;
    assert_eq!(status, StatusCode::FORBIDDEN);
    let (status, removed) = server.post("/api/v1/artifacts/collect", &json!({})).await;
    assert_eq!(
        (status, removed.as_array().unwrap().len()),
        (StatusCode::OK, 2),
        "{removed:#}"
    );
    let there: Vec<bool> = paths.iter().map(|path| path.exists()).collect();
    assert_eq!(there, [false, true, false, true]);
    assert!(orphan.exists());
    let metrics = server
        .bare(Method::GET, "/metrics")
        .send()
        .await
        .unwrap()
        .text()
        .await
        .unwrap();
    assert!(
        metrics.contains("hotswap_packages_collected_total 2"),
        "{metrics}"
    );
    // What is gone can be pushed again, and is there again.
    assert_eq!(server.push(&package("pay", "1.0.0")).await.0, StatusCode::OK);
    assert!(paths[0].exists());
}
