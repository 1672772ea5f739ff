//! The layers over the defaults: a file, variables, flags.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use toml::de::{DeTable, DeValue};

use crate::fault::{ConfigError, Fault, closest};
use crate::keys::{self, Key, Kind, VARIABLE_PREFIX, each_leaf, variables};
use crate::tree::{Node, Origin, Value};

/// The file's name, looked for where the process was started.
pub const FILE_NAME: &str = "hotswap.toml";
/// The file that is read where there is none in the folder.
pub const SYSTEM_FILE: &str = "/etc/hotswap/hotswap.toml";
/// Largest file, in bytes.
pub const FILE_BYTES_MAX: u64 = 1 << 20;
/// The variable that names the file.
const FILE_VARIABLE: &str = "HOTSWAP_CONFIG";

/// A value from the command line.
#[derive(Clone, Debug)]
pub struct Flag {
    /// As people write it, e.g. `--http`.
    pub flag: &'static str,
    /// The key that it gives, e.g. `server.http`.
    pub key: String,
    /// What it gives: the text of a single value.
    pub value: String,
}

/// Where a configuration is read from. Kept, so that a reload reads from the same places.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// The file that was named, which then has to be there.
    pub file: Option<PathBuf>,
    /// The process's environment.
    pub variables: BTreeMap<String, String>,
    /// Flags, in order.
    pub flags: Vec<Flag>,
}

impl Sources {
    /// The file that was named, or `HOTSWAP_CONFIG` names, or that lies where one is looked for; and the process's
    /// variables. Files that weren't named need not be there.
    pub fn of_process(file: Option<PathBuf>) -> Self {
        let variables: BTreeMap<String, String> = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .filter(|(name, _)| name.starts_with(VARIABLE_PREFIX))
            .collect();
        let named = || {
            let named = variables.get(FILE_VARIABLE).filter(|path| !path.is_empty());
            named.map(PathBuf::from)
        };
        let found = || {
            [FILE_NAME, SYSTEM_FILE]
                .map(PathBuf::from)
                .into_iter()
                .find(|path| path.exists())
        };
        Self {
            file: file.or_else(named).or_else(found),
            variables,
            flags: Vec::new(),
        }
    }

    /// With a flag, where it was given.
    #[must_use]
    pub fn flag(mut self, flag: &'static str, key: &'static str, value: Option<impl ToString>) -> Self {
        self.flags.extend(value.map(|value| Flag {
            flag,
            key: key.to_owned(),
            value: value.to_string(),
        }));
        self
    }

    /// All layers, merged.
    pub(crate) fn read(&self, faults: &mut Vec<Fault>) -> Result<Node, ConfigError> {
        let mut tree = match &self.file {
            Some(path) => read_file(path)?,
            None => Node::empty(),
        };
        unknown_keys(&tree, keys::keys(), "", faults);
        for (path, node) in from_variables(&self.variables, faults) {
            put(&mut tree, &path, node);
        }
        for flag in &self.flags {
            let origin = Origin::Flag(flag.flag);
            let value = match keys::find(&flag.key) {
                Some(key) => read_text(key, &flag.value),
                None => Err(unknown_path(&flag.key)),
            };
            match value {
                Ok(value) => put(&mut tree, &flag.key, Node::of(value, &origin)),
                Err(problem) => faults.push(Fault {
                    key: flag.key.clone(),
                    origin,
                    problem,
                }),
            }
        }
        Ok(tree)
    }
}

fn read_file(path: &Path) -> Result<Node, ConfigError> {
    let unreadable = |source| ConfigError::Unreadable {
        path: path.to_owned(),
        source,
    };
    let size = std::fs::metadata(path).map_err(unreadable)?.len();
    if size > FILE_BYTES_MAX {
        return Err(ConfigError::TooLarge {
            path: path.to_owned(),
            size,
            max: FILE_BYTES_MAX,
        });
    }
    let text = std::fs::read_to_string(path).map_err(unreadable)?;
    let table = DeTable::parse(&text).map_err(|error| ConfigError::NotToml {
        path: path.to_owned(),
        message: error.to_string().trim_end().to_owned(),
    })?;
    let file = File {
        path: Arc::new(path.to_owned()),
        text: &text,
    };
    let at = table.span();
    Ok(file.table(table.into_inner(), at.start))
}

/// A file while it is read.
struct File<'a> {
    path: Arc<PathBuf>,
    text: &'a str,
}

impl File<'_> {
    fn table(&self, table: DeTable<'_>, at: usize) -> Node {
        let entries = table.into_iter().map(|(name, value)| {
            let at = name.span().start;
            (name.into_inner().into_owned(), self.value(value.into_inner(), at))
        });
        Node {
            origin: self.origin(at),
            value: Value::Table(entries.collect()),
        }
    }

    fn value(&self, value: DeValue<'_>, at: usize) -> Node {
        match value {
            DeValue::Table(table) => self.table(table, at),
            DeValue::Array(items)
                if !items.is_empty() && items.iter().all(|item| item.get_ref().is_table()) =>
            {
                let tables = items.into_iter().map(|item| {
                    let at = item.span().start;
                    self.value(item.into_inner(), at)
                });
                Node {
                    value: Value::Tables(tables.collect()),
                    origin: self.origin(at),
                }
            }
            leaf => Node {
                value: Value::Leaf(plain(leaf)),
                origin: self.origin(at),
            },
        }
    }

    fn origin(&self, at: usize) -> Origin {
        let before = &self.text.as_bytes()[..at.min(self.text.len())];
        Origin::File {
            path: Arc::clone(&self.path),
            line: 1 + before.iter().filter(|&&byte| byte == b'\n').count(),
        }
    }
}

fn plain(value: DeValue<'_>) -> toml::Value {
    match value {
        DeValue::String(text) => toml::Value::String(text.into_owned()),
        DeValue::Integer(number) => match i64::from_str_radix(number.as_str(), number.radix()) {
            Ok(number) => toml::Value::Integer(number),
            // Left as text, it is refused with the key's name where a number is needed.
            Err(_) => toml::Value::String(number.to_string()),
        },
        DeValue::Float(number) => match number.as_str().parse() {
            Ok(number) => toml::Value::Float(number),
            Err(_) => toml::Value::String(number.to_string()),
        },
        DeValue::Boolean(value) => toml::Value::Boolean(value),
        DeValue::Datetime(time) => toml::Value::Datetime(time),
        DeValue::Array(items) => {
            toml::Value::Array(items.into_iter().map(|item| plain(item.into_inner())).collect())
        }
        DeValue::Table(table) => toml::Value::Table(
            table
                .into_iter()
                .map(|(name, value)| (name.into_inner().into_owned(), plain(value.into_inner())))
                .collect(),
        ),
    }
}

impl Node {
    /// A value with one origin; tables become tables.
    fn of(value: toml::Value, origin: &Origin) -> Self {
        let value = match value {
            toml::Value::Table(table) => Value::Table(
                table
                    .into_iter()
                    .map(|(name, value)| (name, Self::of(value, origin)))
                    .collect(),
            ),
            leaf => Value::Leaf(leaf),
        };
        Self {
            value,
            origin: origin.clone(),
        }
    }
}

/// Puts a value at a path of names.
fn put(tree: &mut Node, path: &str, node: Node) {
    let layer = path.rsplit('.').fold(node, |inner, name| Node {
        origin: inner.origin.clone(),
        value: Value::Table(BTreeMap::from([(name.to_owned(), inner)])),
    });
    tree.overlay(layer);
}

fn unknown_keys(node: &Node, known: &[Key], path: &str, faults: &mut Vec<Fault>) {
    let Value::Table(table) = &node.value else { return };
    for (name, inner) in table {
        let path = keys::join(path, name);
        let Some(key) = known.iter().find(|key| key.name == *name) else {
            faults.push(Fault {
                problem: unknown(name, &path, known),
                key: path,
                origin: inner.origin.clone(),
            });
            continue;
        };
        match (&key.kind, &inner.value) {
            (Kind::Section(known), _) => unknown_keys(inner, known, &path, faults),
            (Kind::Sections(known), Value::Tables(tables)) => {
                for (i, inner) in tables.iter().enumerate() {
                    unknown_keys(inner, known, &format!("{path}[{i}]"), faults);
                }
            }
            _ => {}
        }
    }
}

/// What to say about a name that is no key of its section.
fn unknown(name: &str, path: &str, known: &[Key]) -> String {
    let as_key = name.replace('_', "-");
    if let Some(close) = closest(&as_key, known.iter().map(|key| key.name.as_str())) {
        return format!("there is no such key; did you mean {close}?");
    }
    // Perhaps it belongs into another section.
    let mut elsewhere = None;
    each_leaf(keys::keys(), "", &mut |path, key| {
        if key.name == as_key {
            elsewhere.get_or_insert(path);
        }
    });
    if let Some(elsewhere) = elsewhere.filter(|elsewhere| elsewhere != path) {
        return format!("there is no such key here; did you mean {elsewhere}?");
    }
    let names: Vec<&str> = known.iter().map(|key| key.name.as_str()).collect();
    format!("there is no such key; there are: {}", names.join(", "))
}

/// What to say about a path that a flag names and that is none.
fn unknown_path(path: &str) -> String {
    let mut known = Vec::new();
    each_leaf(keys::keys(), "", &mut |path, _| known.push(path));
    match closest(path, known.iter().map(String::as_str)) {
        Some(close) => format!("there is no such key; did you mean {close}?"),
        None => "there is no such key; `hotswap config show` lists those there are".to_owned(),
    }
}

fn from_variables(given: &BTreeMap<String, String>, faults: &mut Vec<Fault>) -> Vec<(String, Node)> {
    let mut values = Vec::new();
    let mut known = Vec::new();
    each_leaf(keys::keys(), "", &mut |path, key| {
        if matches!(key.kind, Kind::Sections(_)) {
            return;
        }
        let names = variables(&path, key);
        // The key's own variable comes first.
        let found = names.iter().find_map(|name| Some((name, given.get(name)?)));
        if let Some((name, text)) = found.filter(|(_, text)| !text.is_empty()) {
            let origin = Origin::Variable(name.clone());
            match read_text(key, text) {
                Ok(value) => values.push((path.clone(), Node::of(value, &origin))),
                Err(problem) => faults.push(Fault {
                    key: name.clone(),
                    origin,
                    problem,
                }),
            }
        }
        known.extend(names);
    });
    for name in given.keys().filter(|name| !known.contains(name)) {
        if is_ours(name) && !is_service_link(name) {
            let close = closest(name, known.iter().map(String::as_str));
            let hint = close.map_or_else(
                || "`hotswap config show` lists those there are".to_owned(),
                |close| format!("did you mean {close}?"),
            );
            faults.push(Fault {
                key: name.clone(),
                origin: Origin::Variable(name.clone()),
                problem: format!("there is no such variable; {hint}"),
            });
        }
    }
    values
}

/// Whether a variable's name begins with a section's: others are clients'.
fn is_ours(name: &str) -> bool {
    let rest = name.strip_prefix(VARIABLE_PREFIX).unwrap_or_default();
    keys::keys().iter().any(|section| {
        let prefix = section.name.replace('-', "_").to_ascii_uppercase();
        rest.strip_prefix(&prefix)
            .is_some_and(|rest| rest.starts_with('_'))
    })
}

/// Whether Kubernetes made it, as it does for services named `hotswap-server` and the like.
fn is_service_link(name: &str) -> bool {
    name.ends_with("_SERVICE_HOST")
        || name.contains("_SERVICE_PORT")
        || name.ends_with("_PORT")
        || name.contains("_PORT_")
}

/// What a variable or a flag gives, by the key's kind.
fn read_text(key: &Key, text: &str) -> Result<toml::Value, String> {
    let wrong = |should: &str| format!("is {text:?}; it should be {should}");
    match &key.kind {
        Kind::Bool => match text {
            "true" | "1" => Ok(toml::Value::Boolean(true)),
            "false" | "0" => Ok(toml::Value::Boolean(false)),
            _ => Err(wrong("true or false")),
        },
        Kind::Integer => text
            .parse()
            .map(toml::Value::Integer)
            .map_err(|_| wrong("a whole number")),
        Kind::Number => text
            .parse()
            .map(toml::Value::Float)
            .map_err(|_| wrong("a number")),
        Kind::Text | Kind::OneOf(_) => Ok(toml::Value::String(text.to_owned())),
        Kind::List => Ok(toml::Value::Array(
            text.split(',')
                .map(|item| toml::Value::String(item.trim().to_owned()))
                .collect(),
        )),
        Kind::Map => {
            let pairs = text.split(',').map(|pair| match pair.split_once('=') {
                Some((name, value)) if !name.trim().is_empty() => Ok((
                    name.trim().to_owned(),
                    toml::Value::String(value.trim().to_owned()),
                )),
                _ => Err(wrong("NAME=VALUE, several with commas between")),
            });
            pairs
                .collect::<Result<toml::Table, String>>()
                .map(toml::Value::Table)
        }
        Kind::Section(_) | Kind::Sections(_) => Err("only a file can give it".to_owned()),
    }
}
