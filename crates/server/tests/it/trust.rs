//! Signatures at the server's two checks: at the push, and in the Security Scan. The cases are openssl's.

use hotswap_package::Package;
use hotswap_server::ServerConfig;
use hotswap_trust::Gate;
use hotswap_trust::testing::{Case, Offered, Packages, Workshop};
use reqwest::multipart::{Form, Part};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::harness::{TestServer, config, deployment, package, package_with, read};

const PAYMENTS: &str = "payment-processor";
const ORDERS: &str = "order-management";

fn bytes(packages: &[Package; 4]) -> Packages {
    let file = |index: usize| packages[index].file.to_vec();
    Packages {
        signed: file(0),
        other_artifact: file(1),
        other_manifest: file(2),
        other_module: file(3),
    }
}

fn of(packages: &[Package; 4], offered: Offered) -> &Package {
    &packages[match offered {
        Offered::Signed => 0,
        Offered::OtherArtifact => 1,
        Offered::OtherManifest => 2,
        Offered::OtherModule => 3,
    }]
}

async fn server(gate: Gate, dir: TempDir) -> TestServer {
    let config = ServerConfig {
        gate,
        ..config(dir.path())
    };
    TestServer::start_with(dir, config).await
}

async fn push(server: &TestServer, package: &Package, signature: &[u8]) -> (StatusCode, Value) {
    let form = Form::new()
        .part("signature", Part::bytes(signature.to_vec()))
        .part("package", Part::bytes(package.file.to_vec()));
    let request = server.request(Method::POST, "/api/v1/modules").multipart(form);
    read(request.send().await.unwrap()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_with_a_bad_signature_is_refused_with_its_own_code() {
    let workshop = Workshop::new();
    let server = server(Gate::signed(workshop.trust_file()), TempDir::new().unwrap()).await;
    let good = package(PAYMENTS, "1.0.0");
    let mut artifact = good.artifact.to_vec();
    *artifact.last_mut().unwrap() ^= 1;
    let text = |package: &Package| {
        let from = 512;
        let end = package.file[from..].iter().position(|byte| *byte == 0).unwrap();
        package.file[from..from + end].to_vec()
    };
    let packages = [
        good.clone(),
        Package::assemble(&text(&good), &artifact).unwrap(),
        package_with(PAYMENTS, "1.0.0", "# another byte\n"),
        package(ORDERS, "1.0.0"),
    ];
    println!("{:34} HTTP code", "case");
    for case in workshop.cases(&bytes(&packages)) {
        let Case {
            name,
            signature,
            offered,
            refused_by,
            ..
        } = case;
        let (status, body) = push(&server, of(&packages, offered), &signature).await;
        println!(
            "{name:34} {} {}",
            status.as_u16(),
            body["code"].as_str().unwrap_or("accepted")
        );
        let Some(check) = refused_by else {
            assert!(status.is_success(), "{name}: {body:#}");
            assert!(body["signedBy"].as_str().unwrap().starts_with("CN="), "{body:#}");
            continue;
        };
        let expected = match check {
            hotswap_trust::Check::SignatureSize => StatusCode::PAYLOAD_TOO_LARGE,
            check if check.is_malformed() => StatusCode::BAD_REQUEST,
            _ => StatusCode::UNPROCESSABLE_ENTITY,
        };
        assert_eq!(status, expected, "{name}: {body:#}");
        assert_eq!(body["code"], check.code(), "{name}: {body:#}");
    }
    let (status, body) = server.push(&packages[0]).await;
    assert_eq!(
        (status, &body["code"]),
        (StatusCode::UNPROCESSABLE_ENTITY, &json!("unsigned"))
    );
    let (_, modules) = server.get("/api/v1/modules").await;
    assert_eq!(
        modules.as_array().unwrap().len(),
        1,
        "only the good one: {modules:#}"
    );
    assert!(
        modules[0]["versions"][0]["signedBy"]
            .as_str()
            .unwrap()
            .starts_with("CN=signer (sha256:")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn without_roots_nothing_is_taken() {
    let server = server(Gate::default(), TempDir::new().unwrap()).await;
    let (status, body) = server.push(&package(PAYMENTS, "1.0.0")).await;
    assert_eq!(
        (status, &body["code"]),
        (StatusCode::UNPROCESSABLE_ENTITY, &json!("no_roots"))
    );
    assert!(
        body["error"].as_str().unwrap().contains("hotswap trust init"),
        "{body:#}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn forms_that_are_none_are_refused_with_what_would_be_right() {
    let workshop = Workshop::new();
    let server = server(Gate::signed(workshop.trust_file()), TempDir::new().unwrap()).await;
    let package = package(PAYMENTS, "1.0.0");
    let file = || Part::bytes(package.file.to_vec());
    let send = async |form: Form| {
        let request = server.request(Method::POST, "/api/v1/modules").multipart(form);
        read(request.send().await.unwrap()).await
    };
    for form in [
        Form::new(),
        Form::new().part("signature", Part::bytes(vec![1])),
        Form::new().part("package", file()).part("package", file()),
        Form::new().part("more", Part::bytes(vec![1])),
    ] {
        let (status, body) = send(form).await;
        assert_eq!(
            (status, &body["code"]),
            (StatusCode::BAD_REQUEST, &json!("broken_body")),
            "{body:#}"
        );
    }
    // Either order will do.
    let signature = workshop.sign(&package.file, "signer", &[]);
    let form = Form::new()
        .part("package", file())
        .part("signature", Part::bytes(signature));
    assert_eq!(send(form).await.0, StatusCode::CREATED);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_scan_judges_what_is_stored_anew() {
    let workshop = Workshop::new();
    let packages = [
        package(PAYMENTS, "1.0.0"),
        package(PAYMENTS, "1.0.1"),
        package_with(PAYMENTS, "1.0.2", "# another byte\n"),
        package(ORDERS, "1.0.0"),
    ];
    // They came in when nobody asked for signatures.
    let lax = server(Gate::default().allowing_unsigned(), TempDir::new().unwrap()).await;
    for package in &packages {
        assert_eq!(lax.push(package).await.0, StatusCode::CREATED);
    }
    let TestServer { running, dir, .. } = lax;
    running.shutdown().await.unwrap();
    let strict = server(Gate::signed(workshop.trust_file()), dir).await;
    for case in workshop.cases(&bytes(&packages)) {
        let package = of(&packages, case.offered);
        let hex = package.digest.hex();
        let stored = strict
            .dir
            .path()
            .join("artifacts")
            .join(&hex[..2])
            .join(format!("{hex}.p7s"));
        std::fs::write(&stored, &case.signature).unwrap();
        let manifest = &package.manifest;
        let wanted = deployment(
            manifest.name.as_str(),
            &manifest.version.to_string(),
            "Development",
        );
        let (status, body) = strict.post("/api/v1/deployments", &wanted).await;
        assert_eq!(status, StatusCode::ACCEPTED, "{body:#}");
        let ended = strict.ended(body["executionId"].as_str().unwrap()).await;
        let stages = ended["stages"].as_array().unwrap();
        let scan = stages
            .iter()
            .find(|stage| stage["name"] == "Security Scan")
            .unwrap();
        let message = scan["message"].as_str().unwrap();
        println!("{:34} {message}", case.name);
        match case.refused_by {
            None => assert_eq!(scan["status"], "Succeeded", "{}: {message}", case.name),
            Some(check) => {
                assert_eq!(scan["status"], "Failed", "{}: {message}", case.name);
                assert!(
                    message.contains(&format!("[{}]", check.code())),
                    "{}: {message}",
                    case.name
                );
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_version_and_one_below_the_minimum_are_not_deployed() {
    let server = TestServer::start().await;
    for version in ["1.0.0", "2.0.0"] {
        server.push(&package("pay", version)).await;
    }
    let put = async |body: Value| {
        let request = server
            .request(Method::PUT, "/api/v1/modules/pay/minimum-version")
            .json(&body);
        read(request.send().await.unwrap()).await
    };
    let (status, body) = put(json!({ "version": "1.5.0" })).await;
    assert_eq!(
        (status, &body["minimumVersion"]),
        (StatusCode::OK, &json!("1.5.0")),
        "{body:#}"
    );
    let deploy = async |version: &str| {
        server
            .post("/api/v1/deployments", &deployment("pay", version, "Development"))
            .await
    };
    let (status, body) = deploy("1.0.0").await;
    assert_eq!(
        (status, &body["code"]),
        (StatusCode::BAD_REQUEST, &json!("below_minimum_version"))
    );
    assert_eq!(put(json!({ "version": "one" })).await.0, StatusCode::BAD_REQUEST);
    assert_eq!(
        put(json!({ "version": null })).await.1["minimumVersion"],
        Value::Null
    );
    assert_eq!(deploy("1.0.0").await.0, StatusCode::ACCEPTED);

    let path = "/api/v1/modules/pay/versions/2.0.0/revoke";
    assert_eq!(server.post(path, &json!({})).await.0, StatusCode::BAD_REQUEST);
    let (status, body) = server
        .post(path, &json!({ "reason": "its key was stolen" }))
        .await;
    assert_eq!(status, StatusCode::OK, "{body:#}");
    assert_eq!(body["versions"][0]["revoked"], true, "{body:#}");
    let (status, body) = deploy("2.0.0").await;
    assert_eq!(
        (status, &body["code"]),
        (StatusCode::BAD_REQUEST, &json!("release_revoked"))
    );
    let server = server.restart().await;
    let (_, body) = server.get("/api/v1/modules/pay").await;
    assert_eq!(body["versions"][0]["revoked"], true, "after a restart: {body:#}");
}
