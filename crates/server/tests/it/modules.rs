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
