//! The keys that there are, read off the sections' schema.

use std::sync::LazyLock;

use schemars::generate::SchemaSettings;
use serde_json::Value;

use crate::sections::Config;

/// What all variables begin with.
pub(crate) const VARIABLE_PREFIX: &str = "HOTSWAP_";

/// What may be written for a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `true` or `false`.
    Bool,
    /// A whole number.
    Integer,
    /// A number.
    Number,
    /// A text.
    Text,
    /// One of these texts.
    OneOf(Vec<String>),
    /// A list of single values.
    List,
    /// Names that the operator chooses, with texts.
    Map,
    /// Keys of its own.
    Section(Vec<Key>),
    /// Any number of sections.
    Sections(Vec<Key>),
}

/// A key, and all that is known of it before anybody gave it a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// Its name in its section.
    pub name: String,
    /// Its documentation, in one line.
    pub doc: String,
    /// What may be written for it.
    pub kind: Kind,
    /// What it is where no layer gives it; `null` for nothing.
    pub default: Value,
    /// Whether a running process takes a new value up when told to reload.
    pub live: bool,
    /// Whether its value is never shown.
    pub secret: bool,
    /// A variable that gives it besides the one that its name makes.
    pub variable: Option<String>,
}

/// The JSON schema of `hotswap.toml`, draft 2020-12.
pub fn schema() -> Value {
    let mut schema = raw_schema();
    publish(&mut schema);
    schema["$id"] = "hotswap.schema.json".into();
    schema
}

fn raw_schema() -> Value {
    let mut settings = SchemaSettings::draft2020_12();
    settings.inline_subschemas = true;
    let schema = settings.into_generator().into_root_schema_for::<Config>();
    serde_json::to_value(schema).expect("a schema is JSON")
}

/// Leaves out what only this crate reads, and what TOML doesn't have.
fn publish(schema: &mut Value) {
    match schema {
        Value::Object(object) => {
            for ours in ["x-order", "x-variable"] {
                object.remove(ours);
            }
            if object.get("default").is_some_and(Value::is_null) {
                object.remove("default");
            }
            if let Some(Value::Array(types)) = object.get_mut("type") {
                types.retain(|name| name != "null");
                if let [only] = types.as_slice() {
                    object["type"] = only.clone();
                }
            }
            object.values_mut().for_each(publish);
        }
        Value::Array(items) => items.iter_mut().for_each(publish),
        _ => {}
    }
}

/// All keys, in the order of their declaration.
pub fn keys() -> &'static [Key] {
    static KEYS: LazyLock<Vec<Key>> = LazyLock::new(|| section(&raw_schema()));
    &KEYS
}

fn section(schema: &Value) -> Vec<Key> {
    let properties = &schema["properties"];
    let order = schema["x-order"].as_array().into_iter().flatten();
    order
        .filter_map(Value::as_str)
        .map(|field| {
            let name = field.trim_start_matches("r#").replace('_', "-");
            key(&properties[&name], name)
        })
        .collect()
}

fn key(schema: &Value, name: String) -> Key {
    let flag = |name: &str| schema[name].as_bool().unwrap_or_default();
    Key {
        name,
        doc: words(schema["description"].as_str().unwrap_or_default()),
        kind: kind(schema),
        default: schema["default"].clone(),
        live: flag("x-live"),
        secret: flag("x-secret"),
        variable: schema["x-variable"].as_str().map(str::to_owned),
    }
}

fn words(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn kind(schema: &Value) -> Kind {
    // An optional enumeration is written as a choice between it and null.
    if let Some(choices) = schema["anyOf"].as_array() {
        let given = choices.iter().find(|choice| choice["type"] != "null");
        return given.map_or(Kind::Text, kind);
    }
    let listed = |values: &Value| -> Vec<String> {
        let values = values.as_array().into_iter().flatten();
        values.filter_map(Value::as_str).map(str::to_owned).collect()
    };
    if schema["oneOf"].is_array() {
        let choices = schema["oneOf"].as_array().into_iter().flatten();
        return Kind::OneOf(
            choices
                .flat_map(|choice| match choice["const"].as_str() {
                    Some(only) => vec![only.to_owned()],
                    None => listed(&choice["enum"]),
                })
                .collect(),
        );
    }
    if schema["enum"].is_array() {
        return Kind::OneOf(listed(&schema["enum"]));
    }
    let is = |name: &str| match &schema["type"] {
        Value::String(only) => only == name,
        Value::Array(several) => several.iter().any(|one| one == name),
        _ => false,
    };
    if is("object") {
        return if schema["x-order"].is_array() {
            Kind::Section(section(schema))
        } else {
            Kind::Map
        };
    }
    if is("array") {
        return if schema["items"]["x-order"].is_array() {
            Kind::Sections(section(&schema["items"]))
        } else {
            Kind::List
        };
    }
    match () {
        () if is("boolean") => Kind::Bool,
        () if is("integer") => Kind::Integer,
        () if is("number") => Kind::Number,
        () => Kind::Text,
    }
}

/// The variables that give a key: the one that its name makes, and another where it has one.
pub(crate) fn variables(path: &str, key: &Key) -> Vec<String> {
    let own = format!(
        "{VARIABLE_PREFIX}{}",
        path.replace(['.', '-'], "_").to_ascii_uppercase()
    );
    let mut variables = vec![own];
    variables.extend(key.variable.clone());
    variables
}

/// Calls `visit` with the path of every key that has a value of its own, in order. Keys of [`Kind::Sections`] count
/// as one: how many there are is the file's to say.
pub(crate) fn each_leaf<'a>(keys: &'a [Key], prefix: &str, visit: &mut dyn FnMut(String, &'a Key)) {
    for key in keys {
        let path = join(prefix, &key.name);
        match &key.kind {
            Kind::Section(inner) => each_leaf(inner, &path, visit),
            _ => visit(path, key),
        }
    }
}

/// The key at a path, if there is one. Indices are passed over.
pub(crate) fn find(path: &str) -> Option<&'static Key> {
    let mut level = keys();
    let mut found = None;
    for part in path.split('.') {
        let name = part.split('[').next().unwrap_or_default();
        let key = level.iter().find(|key| key.name == name)?;
        level = match &key.kind {
            Kind::Section(inner) | Kind::Sections(inner) => inner,
            _ => &[],
        };
        found = Some(key);
    }
    found
}

pub(crate) fn join(prefix: &str, name: &str) -> String {
    if prefix.is_empty() {
        name.to_owned()
    } else {
        format!("{prefix}.{name}")
    }
}
