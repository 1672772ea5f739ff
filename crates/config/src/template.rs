//! The file that `hotswap init` writes.

use std::fmt::Write as _;

use serde_json::Value as Json;

use crate::keys::{self, Key, Kind, variables};

/// Columns of a comment.
const COLUMNS: usize = 100;

const HEAD: &str = "\
Configuration of Hotswap's servers and agents. Every key is here with its default, commented out: \
take the # away to give it another value. A HOTSWAP_* variable goes before this file, a flag before both. \
`hotswap config check` tells what is wrong, `hotswap config show` what is in force and why. \
A running process takes the keys marked (live) up on SIGHUP, or `systemctl reload`; the others need a restart.";

const ENVIRONMENTS: &str = r#"# [[environments]]
# name = "Development"
# strategy = { type = "Direct" }
#
# [[environments]]
# name = "QA"
# strategy = { type = "Rolling", batch = 2 }
#
# [[environments]]
# name = "Staging"
# strategy = { type = "BlueGreen" }
#
# [[environments]]
# name = "Production"
# strategy = { type = "Canary", by = "nodes", percents = [10, 30, 50, 100] }
# approval-required = false
# approval-timeout = "4h"
"#;

/// Sections that [`ENVIRONMENTS`] shows.
const SHOWN_ABOVE: [&str; 1] = ["strategy"];

/// A whole `hotswap.toml`, each key with its documentation and its default, commented out.
pub fn template() -> String {
    let mut text = String::new();
    comment(&mut text, HEAD);
    let (values, tables): (Vec<&Key>, Vec<&Key>) = keys::keys().iter().partition(|key| !is_table(key));
    for key in values {
        value(&mut text, key, &key.name);
    }
    for key in tables {
        table(&mut text, key, &key.name);
    }
    text
}

fn is_table(key: &Key) -> bool {
    matches!(key.kind, Kind::Section(_) | Kind::Sections(_) | Kind::Map)
}

fn table(text: &mut String, key: &Key, path: &str) {
    text.push('\n');
    let live = if key.live { " (live)" } else { "" };
    comment(text, &format!("{}{live}", key.doc));
    let inner = match &key.kind {
        Kind::Section(inner) => inner,
        Kind::Sections(inner) => {
            text.push_str(ENVIRONMENTS);
            comment(text, "Each environment may have these, too:");
            text.push_str("#\n");
            return sections(text, inner, path);
        }
        _ => return write(text, format_args!("# [{path}]")),
    };
    write(text, format_args!("[{path}]"));
    let (values, tables): (Vec<&Key>, Vec<&Key>) = inner.iter().partition(|key| !is_table(key));
    for key in values {
        value(text, key, &format!("{path}.{}", key.name));
    }
    for key in tables {
        table(text, key, &format!("{path}.{}", key.name));
    }
}

/// What a list's sections may hold, as one line each.
fn sections(text: &mut String, keys: &[Key], path: &str) {
    for key in keys {
        match &key.kind {
            Kind::Section(inner) if !SHOWN_ABOVE.contains(&key.name.as_str()) => {
                let path = format!("{path}.{}", key.name);
                comment(text, &key.doc);
                write(text, format_args!("# [{path}]"));
                let (values, tables): (Vec<&Key>, Vec<&Key>) = inner.iter().partition(|key| !is_table(key));
                for key in values {
                    write(
                        text,
                        format_args!("# {} = {}    # {}", key.name, shown(key), key.doc),
                    );
                }
                for table in tables {
                    sections(text, std::slice::from_ref(table), &path);
                }
            }
            Kind::Sections(inner) => {
                let path = format!("{path}.{}", key.name);
                comment(text, &format!("{} Any number of these:", key.doc));
                write(text, format_args!("# [[{path}]]"));
                for key in inner {
                    write(
                        text,
                        format_args!("# {} = {}    # {}", key.name, shown(key), key.doc),
                    );
                }
            }
            _ => {}
        }
    }
}

fn value(text: &mut String, key: &Key, path: &str) {
    let live = if key.live { " (live)" } else { "" };
    let names = variables(path, key).join(" or ");
    text.push('\n');
    comment(text, &format!("{}{live}", key.doc));
    comment(text, &format!("Variable: {names}"));
    write(text, format_args!("# {} = {}", key.name, shown(key)));
}

/// The default as TOML, or an empty value of the kind where there is none.
fn shown(key: &Key) -> String {
    match &key.default {
        Json::Null => match &key.kind {
            Kind::Bool => "false".to_owned(),
            Kind::Integer | Kind::Number => "0".to_owned(),
            Kind::List => "[]".to_owned(),
            Kind::OneOf(choices) => format!("{:?}", choices.first().map_or("", String::as_str)),
            _ => "\"\"".to_owned(),
        },
        given => given.to_string(),
    }
}

fn write(text: &mut String, line: std::fmt::Arguments<'_>) {
    text.write_fmt(line).expect("writing to a string cannot fail");
    text.push('\n');
}

fn comment(text: &mut String, words: &str) {
    let mut line = String::from("#");
    for word in words.split(' ') {
        if line.len() + 1 + word.len() > COLUMNS {
            write(text, format_args!("{line}"));
            line = String::from("#");
        }
        line.push(' ');
        line.push_str(word);
    }
    write(text, format_args!("{line}"));
}
