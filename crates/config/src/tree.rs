//! Values that remember where they came from.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Nobody gave it.
    Default,
    /// A line of a file, both from 1.
    File {
        /// Which file.
        path: Arc<PathBuf>,
        /// Which line.
        line: usize,
    },
    /// A variable.
    Variable(String),
    /// A flag of the command line.
    Flag(&'static str),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { path, line } => write!(f, "{}:{line}", path.display()),
            Self::Variable(name) => f.write_str(name),
            Self::Flag(flag) => f.write_str(flag),
        }
    }
}

/// A value, a table of values or a list of tables.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) origin: Origin,
    pub(crate) value: Value,
}

#[derive(Clone, Debug)]
pub(crate) enum Value {
    /// A single value, or a list of them.
    Leaf(toml::Value),
    Table(BTreeMap<String, Node>),
    /// A list of tables.
    Tables(Vec<Node>),
}

impl Node {
    pub(crate) fn empty() -> Self {
        Self {
            origin: Origin::Default,
            value: Value::Table(BTreeMap::new()),
        }
    }

    /// Puts a later layer over this one: tables are merged, everything else replaces.
    pub(crate) fn overlay(&mut self, over: Self) {
        match (&mut self.value, over.value) {
            (Value::Table(under), Value::Table(over)) => {
                for (name, node) in over {
                    match under.entry(name) {
                        std::collections::btree_map::Entry::Occupied(mut entry) => {
                            entry.get_mut().overlay(node);
                        }
                        std::collections::btree_map::Entry::Vacant(entry) => drop(entry.insert(node)),
                    }
                }
            }
            (under, value) => {
                *under = value;
                self.origin = over.origin;
            }
        }
    }

    /// The value at a path such as `server.http` or `environments[1].policy`.
    pub(crate) fn at(&self, path: &str) -> Option<&Self> {
        steps(path).try_fold(self, |node, step| match (&node.value, step) {
            (Value::Table(table), Step::Name(name)) => table.get(name),
            (Value::Tables(tables), Step::Index(index)) => tables.get(index),
            _ => None,
        })
    }

    /// Where the value at a path came from, or the innermost table around it that somebody gave.
    pub(crate) fn origin_of(&self, path: &str) -> Origin {
        let mut node = self;
        for step in steps(path) {
            let inner = match (&node.value, step) {
                (Value::Table(table), Step::Name(name)) => table.get(name),
                (Value::Tables(tables), Step::Index(index)) => tables.get(index),
                _ => None,
            };
            let Some(inner) = inner else { break };
            node = inner;
        }
        node.origin.clone()
    }

    /// Takes the value at a path out. `false`: there was none.
    pub(crate) fn remove(&mut self, path: &str) -> bool {
        let steps: Vec<Step<'_>> = steps(path).collect();
        let mut node = self;
        for (i, step) in steps.iter().enumerate() {
            let last = i + 1 == steps.len();
            match (&mut node.value, step) {
                (Value::Table(table), Step::Name(name)) => {
                    // A fault inside a single value, such as a list's third item, is the whole value's.
                    let leaf = table
                        .get(*name)
                        .is_some_and(|inner| matches!(inner.value, Value::Leaf(_)));
                    if last || leaf {
                        return table.remove(*name).is_some();
                    }
                    let Some(inner) = table.get_mut(*name) else {
                        return false;
                    };
                    node = inner;
                }
                (Value::Tables(tables), Step::Index(index)) if *index < tables.len() => {
                    if last {
                        // Others keep their index.
                        tables[*index].value = Value::Table(BTreeMap::new());
                        return true;
                    }
                    node = &mut tables[*index];
                }
                _ => return false,
            }
        }
        false
    }

    /// The value, without its origins.
    pub(crate) fn plain(&self) -> toml::Value {
        match &self.value {
            Value::Leaf(value) => value.clone(),
            Value::Table(table) => toml::Value::Table(
                table
                    .iter()
                    .map(|(name, node)| (name.clone(), node.plain()))
                    .collect(),
            ),
            Value::Tables(tables) => toml::Value::Array(tables.iter().map(Self::plain).collect()),
        }
    }
}

enum Step<'a> {
    Name(&'a str),
    Index(usize),
}

fn steps(path: &str) -> impl Iterator<Item = Step<'_>> {
    path.split(['.', '['])
        .filter(|part| !part.is_empty())
        .map(|part| match part.strip_suffix(']').map(str::parse) {
            Some(Ok(index)) => Step::Index(index),
            _ => Step::Name(part),
        })
}
