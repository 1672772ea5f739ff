//! From layers to one typed configuration, with every fault at once.

use std::path::PathBuf;

use hotswap_core::policy;
use serde_json::Value as Json;

use crate::fault::{ConfigError, Fault};
use crate::keys::{self, Key, Kind, each_leaf};
use crate::layers::Sources;
use crate::sections::Config;
use crate::tree::{Node, Origin};

/// A value that isn't shown.
const HIDDEN: &str = "(hidden)";

/// A configuration, and where each of its values came from.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The values.
    pub config: Config,
    /// The file that was read, if one was.
    pub file: Option<PathBuf>,
    tree: Node,
}

/// A value in force.
#[derive(Clone, Debug, PartialEq)]
pub struct Effective {
    /// The key, such as `server.http`.
    pub key: String,
    /// Its value; `null` for none.
    pub value: Json,
    /// Where it came from.
    pub origin: Origin,
}

/// The keys whose values differ between two configurations.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Those that a running process takes up.
    pub live: Vec<String>,
    /// Those that need a restart.
    pub restart: Vec<String>,
}

/// Reads all layers.
///
/// # Errors
/// A file that can't be read or isn't TOML, or every fault of what the layers say: unknown keys with what may have been
/// meant, values of the wrong kind or out of range, each with its key and where it was given.
pub fn load(sources: &Sources) -> Result<Loaded, ConfigError> {
    let mut faults = Vec::new();
    let tree = sources.read(&mut faults)?;
    let config = typed(&tree, &mut faults);
    check_environments(&config, &tree, &mut faults);
    if !faults.is_empty() {
        // As they stand in the file; what others gave comes after it.
        faults.sort_by_key(|fault| match fault.origin {
            Origin::File { line, .. } => line,
            _ => usize::MAX,
        });
        return Err(ConfigError::Faults(faults));
    }
    Ok(Loaded {
        config,
        file: sources.file.clone(),
        tree,
    })
}

/// The typed configuration. What is at fault is noted and taken out, until the rest can be read: everything has a
/// default, so that this ends.
fn typed(tree: &Node, faults: &mut Vec<Fault>) -> Config {
    let mut sound = tree.clone();
    // Unknown keys are noted already.
    for fault in faults.iter() {
        sound.remove(&fault.key);
    }
    loop {
        match serde_path_to_error::deserialize::<_, Config>(sound.plain()) {
            Ok(config) => return config,
            Err(error) => {
                let key = error.path().to_string();
                faults.push(Fault {
                    origin: tree.origin_of(&key),
                    problem: problem(&key, &error.into_inner().to_string()),
                    key: key.clone(),
                });
                if !sound.remove(&key) {
                    return Config::default();
                }
            }
        }
    }
}

/// What is wrong with a value, and what would be right.
fn problem(key: &str, said: &str) -> String {
    // The library repeats the key on a line of its own.
    let said = said.lines().next().unwrap_or_default().trim();
    let Some(kind) = keys::find(key).map(|key| &key.kind) else {
        return said.to_owned();
    };
    match kind {
        Kind::OneOf(choices) => format!("{said}; it should be one of: {}", choices.join(", ")),
        _ => said.to_owned(),
    }
}

/// What holds within and between environments.
fn check_environments(config: &Config, tree: &Node, faults: &mut Vec<Fault>) {
    let mut environments = Vec::new();
    let before = faults.len();
    for (i, environment) in config.environments.iter().enumerate() {
        match environment.to_core() {
            Ok(environment) => environments.push(environment),
            Err((key, problem)) => {
                let key = format!("environments[{i}].{key}");
                // Where it is faulty already, more about it only confuses.
                if !faults
                    .iter()
                    .any(|fault| fault.key.starts_with(&format!("environments[{i}]")))
                {
                    faults.push(Fault {
                        origin: tree.origin_of(&key),
                        key,
                        problem,
                    });
                }
            }
        }
    }
    if environments.is_empty() || faults.len() > before {
        return;
    }
    for fault in policy::Environment::validate_all(&environments)
        .err()
        .into_iter()
        .flatten()
    {
        // The core names the environment first, and keys by their fields' names.
        let (name, problem) = fault.split_once(": ").unwrap_or(("", &fault));
        let place = environments
            .iter()
            .position(|environment| environment.name.as_str() == name);
        let key = place.map_or_else(|| "environments".to_owned(), |i| format!("environments[{i}]"));
        faults.push(Fault {
            origin: tree.origin_of(&key),
            problem: match place {
                Some(_) => format!("{name}: {}", problem.replace('_', "-")),
                None => problem.to_owned(),
            },
            key,
        });
    }
}

impl Loaded {
    /// The environments, as the core knows them; `None` where the fleet keeps those it has.
    pub fn environments(&self) -> Option<Vec<policy::Environment>> {
        let environments = self.config.environments.iter().map(|environment| {
            environment
                .to_core()
                .expect("environments were checked when they were loaded")
        });
        let environments: Vec<policy::Environment> = environments.collect();
        (!environments.is_empty()).then_some(environments)
    }

    /// Every value in force, in order, with where it came from.
    pub fn effective(&self) -> Vec<Effective> {
        let values = serde_json::to_value(&self.config).expect("a configuration is JSON");
        let mut effective = Vec::new();
        self.push(&values, keys::keys(), "", &mut effective);
        effective
    }

    fn push(&self, values: &Json, keys: &[Key], path: &str, effective: &mut Vec<Effective>) {
        for key in keys {
            let path = keys::join(path, &key.name);
            let value = &values[&key.name];
            match (&key.kind, value) {
                (Kind::Section(inner), _) => self.push(value, inner, &path, effective),
                (Kind::Sections(inner), Json::Array(items)) if !items.is_empty() => {
                    for (i, item) in items.iter().enumerate() {
                        self.push(item, inner, &format!("{path}[{i}]"), effective);
                    }
                }
                _ => effective.push(Effective {
                    value: if key.secret && !value.is_null() {
                        HIDDEN.into()
                    } else {
                        value.clone()
                    },
                    origin: self
                        .tree
                        .at(&path)
                        .map_or(Origin::Default, |node| node.origin.clone()),
                    key: path,
                }),
            }
        }
    }

    /// Which keys have another value in `newer`, in order.
    pub fn changes(&self, newer: &Self) -> Changes {
        let json = |loaded: &Self| serde_json::to_value(&loaded.config).expect("a configuration is JSON");
        let (old, new) = (json(self), json(newer));
        let mut changes = Changes::default();
        each_leaf(keys::keys(), "", &mut |path, key| {
            let at = |values: &Json| values.pointer(&format!("/{}", path.replace('.', "/"))).cloned();
            if at(&old) != at(&new) {
                let list = if key.live {
                    &mut changes.live
                } else {
                    &mut changes.restart
                };
                list.push(path.clone());
            }
        });
        changes
    }
}
