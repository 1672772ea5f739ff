//! The API's document, held against every answer that the tests get.

use reqwest::header::{CONTENT_TYPE, HeaderMap};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

/// The document that the server gives of itself.
pub(crate) struct Contract {
    document: Value,
}

impl Contract {
    /// Closes every object that names its properties, so that a field which isn't described shows.
    pub(crate) fn new(mut document: Value) -> Self {
        let schemas = document["components"]["schemas"].as_object_mut().unwrap();
        for schema in schemas.values_mut() {
            if schema["properties"].is_object() {
                schema["additionalProperties"] = json!(false);
            }
        }
        Self { document }
    }

    #[track_caller]
    pub(crate) fn check(
        &self,
        method: &Method,
        path: &str,
        status: StatusCode,
        headers: &HeaderMap,
        body: &[u8],
    ) {
        let what = format!("{method} {path} answered {status}");
        // A head that is too large is refused before anybody knows which route it is for.
        if status == StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE && body.is_empty() {
            return;
        }
        let path = path.split('?').next().unwrap();
        let Some(item) = self.item(path) else {
            let aside = path == "/openapi.json" || path == "/" || path.starts_with("/swagger");
            assert!(
                aside || status == StatusCode::NOT_FOUND,
                "{what}, and the document has no such path"
            );
            return;
        };
        let operation = &item[method.as_str().to_ascii_lowercase()];
        if operation.is_null() {
            assert_eq!(
                status,
                StatusCode::METHOD_NOT_ALLOWED,
                "{what}, and the document has no such method"
            );
            return;
        }
        let responses = &operation["responses"];
        let named = &responses[status.as_str()];
        assert!(
            !named.is_null() || !status.is_success(),
            "{what}, which the document doesn't name: {responses:#}"
        );
        let response = if named.is_null() {
            &responses["default"]
        } else {
            named
        };
        let kind = headers.get(CONTENT_TYPE).map(|kind| kind.to_str().unwrap());
        let kind = kind.and_then(|kind| kind.split(';').next());
        match (kind, response["content"].as_object()) {
            (None, None) => assert!(
                body.is_empty(),
                "{what} with a body that the document doesn't name"
            ),
            (Some(kind), Some(contents)) => {
                let content = contents.get(kind);
                let content =
                    content.unwrap_or_else(|| panic!("{what} as {kind}, described are {contents:#?}"));
                if kind == "application/json" {
                    self.valid(&what, &content["schema"], body);
                }
            }
            (kind, described) => panic!("{what} as {kind:?}, described is {described:#?}"),
        }
    }

    fn valid(&self, what: &str, schema: &Value, body: &[u8]) {
        let body: Value =
            serde_json::from_slice(body).unwrap_or_else(|error| panic!("{what}: no JSON: {error}"));
        let mut faults = Vec::new();
        let schemas = Schemas(&self.document);
        schemas.check(schema, &body, "", &mut faults);
        assert!(
            faults.is_empty(),
            "{what} and the document differ:\n{}\n{body:#}",
            faults.join("\n")
        );
    }

    /// The described path that this one is of; words win over parameters.
    fn item(&self, path: &str) -> Option<&Value> {
        let segments: Vec<&str> = path.split('/').collect();
        let fits = |template: &&String| {
            let template: Vec<&str> = template.split('/').collect();
            template.len() == segments.len()
                && template
                    .iter()
                    .zip(&segments)
                    .all(|(wanted, is)| wanted == is || (wanted.starts_with('{') && !is.is_empty()))
        };
        let paths = self.document["paths"].as_object().unwrap();
        let found = paths
            .keys()
            .filter(fits)
            .min_by_key(|template| template.matches('{').count());
        found.map(|template| &paths[template])
    }
}

/// JSON Schema 2020-12, as far as the document makes use of it; a keyword that isn't known here fails, too.
struct Schemas<'a>(&'a Value);

impl Schemas<'_> {
    fn check(&self, schema: &Value, value: &Value, at: &str, faults: &mut Vec<String>) {
        let Some(keywords) = schema.as_object() else {
            assert_eq!(schema, &json!(true), "{at}: no schema");
            return;
        };
        for (keyword, wanted) in keywords {
            let fine = match keyword.as_str() {
                "$ref" => {
                    let path = wanted.as_str().unwrap().trim_start_matches('#');
                    let found = self
                        .0
                        .pointer(path)
                        .unwrap_or_else(|| panic!("{path} is described nowhere"));
                    self.check(found, value, at, faults);
                    true
                }
                "type" => match wanted {
                    Value::Array(types) => types.iter().any(|wanted| is_a(value, wanted.as_str().unwrap())),
                    one => is_a(value, one.as_str().unwrap()),
                },
                "required" => value.as_object().is_none_or(|object| {
                    wanted
                        .as_array()
                        .unwrap()
                        .iter()
                        .all(|key| object.contains_key(key.as_str().unwrap()))
                }),
                "properties" => {
                    for (key, schema) in wanted.as_object().unwrap() {
                        if let Some(value) = value.get(key) {
                            self.check(schema, value, &format!("{at}/{key}"), faults);
                        }
                    }
                    true
                }
                "additionalProperties" => {
                    let known = |key: &&String| schema["properties"].get(key.as_str()).is_some();
                    let mut fine = true;
                    for key in value
                        .as_object()
                        .into_iter()
                        .flat_map(|object| object.keys())
                        .filter(|key| !known(key))
                    {
                        match wanted {
                            Value::Bool(may) => fine &= *may,
                            schema => {
                                self.check(schema, &value[key.as_str()], &format!("{at}/{key}"), faults);
                            }
                        }
                    }
                    fine
                }
                "items" => {
                    for (i, item) in value.as_array().into_iter().flatten().enumerate() {
                        self.check(wanted, item, &format!("{at}/{i}"), faults);
                    }
                    true
                }
                "oneOf" | "anyOf" => {
                    let fits = wanted.as_array().unwrap().iter().filter(|schema| {
                        let mut faults = Vec::new();
                        self.check(schema, value, at, &mut faults);
                        faults.is_empty()
                    });
                    let count = fits.count();
                    count == 1 || (keyword == "anyOf" && count > 0)
                }
                "enum" => wanted.as_array().unwrap().contains(value),
                "minimum" => value
                    .as_f64()
                    .is_none_or(|number| number >= wanted.as_f64().unwrap()),
                "maximum" => value
                    .as_f64()
                    .is_none_or(|number| number <= wanted.as_f64().unwrap()),
                "maxLength" => value
                    .as_str()
                    .is_none_or(|text| text.chars().count() as u64 <= wanted.as_u64().unwrap()),
                "format" => value
                    .as_str()
                    .is_none_or(|text| has_format(text, wanted.as_str().unwrap())),
                "description" | "example" | "examples" | "propertyNames" => true,
                other => panic!("{at}: the keyword {other} is not checked by this test"),
            };
            if !fine {
                faults.push(format!("{at}: {keyword} {wanted} is not so"));
            }
        }
    }
}

fn is_a(value: &Value, kind: &str) -> bool {
    match kind {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_u64() || value.is_i64(),
        "number" => value.is_number(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        other => panic!("no type {other}"),
    }
}

fn has_format(text: &str, format: &str) -> bool {
    match format {
        "uuid" => uuid::Uuid::parse_str(text).is_ok(),
        "date-time" => hotswap_server::views::time::parse_rfc3339(text).is_some() && text.ends_with('Z'),
        "email" => text.contains('@'),
        _ => true,
    }
}

#[test]
fn an_answer_that_is_not_as_described_is_found() {
    let document = json!({
        "paths": { "/things/{id}": { "get": { "responses": {
            "200": { "content": { "application/json": { "schema": { "$ref": "#/components/schemas/Thing" } } } },
        } } } },
        "components": { "schemas": { "Thing": {
            "type": "object", "required": ["id"],
            "properties": { "id": { "type": "string", "format": "uuid" } },
        } } },
    });
    let contract = Contract::new(document);
    let headers = HeaderMap::from_iter([(CONTENT_TYPE, "application/json".parse().unwrap())]);
    let check = |status: u16, body: Value| {
        let status = StatusCode::from_u16(status).unwrap();
        contract.check(
            &Method::GET,
            "/things/1?x=y",
            status,
            &headers,
            body.to_string().as_bytes(),
        );
    };
    check(200, json!({ "id": "7d444840-9dc0-11d1-b245-5ffdce74fad2" }));
    for (status, body) in [
        (200, json!({})),
        (200, json!({ "id": "7" })),
        (
            200,
            json!({ "id": "7d444840-9dc0-11d1-b245-5ffdce74fad2", "more": 1 }),
        ),
        (201, json!({ "id": "7d444840-9dc0-11d1-b245-5ffdce74fad2" })),
    ] {
        let caught = std::panic::catch_unwind(|| check(status, body.clone()));
        assert!(caught.is_err(), "{status} {body} passed");
    }
}
