//! Bodies that are nearly right, for every route that takes JSON: none breaks the server.

use hotswap_fuzz::mutate::Mutator;
use reqwest::Method;
use serde_json::{Map, Value, json};

use crate::harness::TestServer;

/// Bodies for each route.
const BODIES: usize = 60;
/// How deep a body's sample goes: schemas may hold themselves.
const DEPTH_MAX: usize = 6;

/// Routes that take JSON: method, path with something for each parameter, and a body as its schema has it.
fn routes(document: &Value) -> Vec<(Method, String, Value)> {
    let mut routes = Vec::new();
    for (path, operations) in document["paths"].as_object().unwrap() {
        // Those would take away what the others are asked with.
        if path.contains("/authentication/") {
            continue;
        }
        for (method, operation) in operations.as_object().unwrap() {
            let schema = &operation["requestBody"]["content"]["application/json"]["schema"];
            if schema.is_object() {
                let method = method.to_uppercase().parse().unwrap();
                routes.push((method, filled(path), sample(document, schema, DEPTH_MAX)));
            }
        }
    }
    routes
}

/// A path whose parameters are names that nothing has.
fn filled(path: &str) -> String {
    let part = |part: &str| {
        if part.starts_with('{') {
            "nothing".to_owned()
        } else {
            part.to_owned()
        }
    };
    path.split('/').map(part).collect::<Vec<_>>().join("/")
}

fn sample(document: &Value, schema: &Value, depth: usize) -> Value {
    if depth == 0 {
        return Value::Null;
    }
    if let Some(name) = schema["$ref"].as_str() {
        let target = document.pointer(name.trim_start_matches('#')).unwrap();
        return sample(document, target, depth - 1);
    }
    for one in ["oneOf", "anyOf", "allOf"] {
        if let Some(first) = schema[one].as_array().and_then(|many| many.last()) {
            return sample(document, first, depth - 1);
        }
    }
    if let Some(value) = schema.get("example").or_else(|| schema["enum"].get(0)) {
        return value.clone();
    }
    let kind = schema["type"].as_str().or_else(|| schema["type"][0].as_str());
    match kind {
        Some("string") => json!("Production"),
        Some("integer" | "number") => json!(1),
        Some("boolean") => json!(true),
        Some("array") => json!([sample(document, &schema["items"], depth - 1)]),
        Some("object") => {
            let properties = schema["properties"].as_object();
            let fields = properties.into_iter().flatten();
            let fields = fields.map(|(name, schema)| (name.clone(), sample(document, schema, depth - 1)));
            Value::Object(fields.collect::<Map<_, _>>())
        }
        _ => Value::Null,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_body_breaks_the_server() {
    let server = TestServer::start().await;
    let (_, document) = server.get("/openapi.json").await;
    let routes = routes(&document);
    assert!(routes.len() > 10, "{} routes take JSON", routes.len());
    let (mut mutator, mut refused) = (Mutator::new(1), 0);
    for (method, path, body) in routes {
        let seeds = [body.to_string().into_bytes(), b"{}".to_vec()];
        for _ in 0..BODIES {
            let bytes = mutator.input(&seeds);
            let request = server
                .bare(method.clone(), &path)
                .bearer_auth(&server.token)
                .header("content-type", "application/json")
                .body(bytes.clone());
            let response = request.send().await.unwrap();
            let status = response.status();
            let said = format!("{method} {path}: {}", String::from_utf8_lossy(&bytes));
            assert!(!status.is_server_error(), "{status} for {said}");
            assert_ne!(status.as_u16(), 401, "{said}");
            let text = response.text().await.unwrap();
            if status.is_client_error() {
                refused += 1;
                let error: Value =
                    serde_json::from_str(&text).unwrap_or_else(|_| panic!("{text} for {said}"));
                assert!(error.is_object(), "{error} for {said}");
            }
        }
    }
    assert!(refused > BODIES, "{refused} bodies were refused");
    // It goes on as before.
    assert_eq!(server.get("/health").await.0.as_u16(), 200);
    server.running.shutdown().await.unwrap();
}
