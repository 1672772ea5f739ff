//! The core's purity: its dependencies are on a list, and its source names nothing that reaches outside.
//!
//! `HashMap` and `HashSet` are refused as well: their order is random, and the core's must not be.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, bail};

use crate::run;

/// Crates that the core may depend on, with their procedural macros'.
const CRATES: [&str; 12] = [
    "hotswap-core",
    "proc-macro2",
    "quote",
    "semver",
    "serde",
    "serde_core",
    "serde_derive",
    "syn",
    "thiserror",
    "thiserror-impl",
    "unicode-ident",
    "uuid",
];

/// Paths of the standard library that reach outside or differ between runs.
const PATHS: [&str; 15] = [
    "std::collections::HashMap",
    "std::collections::HashSet",
    "std::collections::hash_map",
    "std::collections::hash_set",
    "std::env",
    "std::fs",
    "std::hash::RandomState",
    "std::io",
    "std::net",
    "std::os",
    "std::process",
    "std::sync::mpsc",
    "std::thread",
    "std::time::Instant",
    "std::time::SystemTime",
];

/// Words that are refused wherever they stand.
const WORDS: [&str; 4] = ["HashMap", "HashSet", "SystemTime", "thread_local"];

pub(crate) fn check() -> Result<()> {
    let mut offences = crates()?;
    let src = run::root().join("crates/core/src");
    let mut files = 0;
    scan_folder(&src, &mut files, &mut offences)?;
    if !offences.is_empty() {
        bail!("the core is not pure:\n  {}", offences.join("\n  "));
    }
    println!(
        "core purity: {files} files and {} crates hold nothing that reaches outside",
        CRATES.len()
    );
    Ok(())
}

fn crates() -> Result<Vec<String>> {
    let mut tree = run::cargo();
    tree.args([
        "tree",
        "--locked",
        "-p",
        "hotswap-core",
        "-e",
        "normal",
        "--prefix",
        "none",
        "--format",
        "{p}",
    ]);
    let listed = run::output(&mut tree)?;
    Ok(strangers(&listed)
        .into_iter()
        .map(|name| format!("it depends on {name}, which is not on the list"))
        .collect())
}

fn strangers(listed: &str) -> BTreeSet<&str> {
    let names = listed.lines().filter_map(|line| line.split_whitespace().next());
    names.filter(|name| !CRATES.contains(name)).collect()
}

fn scan_folder(folder: &Path, files: &mut usize, offences: &mut Vec<String>) -> Result<()> {
    let entries = fs::read_dir(folder).with_context(|| format!("failed to list {}", folder.display()))?;
    let mut paths = entries
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<Vec<_>>>()?;
    paths.sort();
    for path in paths {
        if path.is_dir() {
            scan_folder(&path, files, offences)?;
        } else if path.extension().is_some_and(|ext| ext == "rs") {
            *files += 1;
            let text =
                fs::read_to_string(&path).with_context(|| format!("failed to read {}", path.display()))?;
            let shown = path.strip_prefix(run::root()).unwrap_or(&path).display();
            offences.extend(
                scan(&text)
                    .into_iter()
                    .map(|what| format!("{shown} names {what}")),
            );
        }
    }
    Ok(())
}

/// What a file names that it must not. A test module at its end may: it is no part of the core.
fn scan(text: &str) -> BTreeSet<String> {
    let text = text.split("#[cfg(test)]\nmod ").next().unwrap_or_default();
    let tokens = tokens(text);
    let mut found: BTreeSet<String> = tokens
        .iter()
        .filter(|token| WORDS.contains(token))
        .map(|token| (*token).to_owned())
        .collect();
    for (i, token) in tokens.iter().enumerate() {
        if matches!(*token, "std" | "core" | "alloc") && tokens.get(i + 1) == Some(&"::") {
            expand(&tokens[i + 2..], "std", &mut found);
        }
    }
    found
}

/// Notes each refused path of a use tree, or of a plain path; gives how many tokens it took.
fn expand(tokens: &[&str], prefix: &str, found: &mut BTreeSet<String>) -> usize {
    match tokens.first() {
        Some(&"{") => {
            let mut at = 1;
            while at < tokens.len() && tokens[at] != "}" {
                at += if tokens[at] == "," {
                    1
                } else {
                    expand(&tokens[at..], prefix, found).max(1)
                };
            }
            at + 1
        }
        Some(&"*") => {
            // A glob brings in whatever is below.
            let below = format!("{prefix}::");
            found.extend(
                PATHS
                    .iter()
                    .filter(|path| path.starts_with(&below))
                    .map(|_| format!("{prefix}::*")),
            );
            1
        }
        Some(segment) => {
            let path = format!("{prefix}::{segment}");
            if PATHS.contains(&path.as_str()) {
                found.insert(path.clone());
            }
            match tokens.get(1) {
                Some(&"::") => 2 + expand(&tokens[2..], &path, found),
                Some(&"as") => 3,
                _ => 1,
            }
        }
        None => 0,
    }
}

/// Words and marks, without comments and literals.
fn tokens(text: &str) -> Vec<&str> {
    let word = |c: char| c.is_alphanumeric() || c == '_';
    let mut tokens = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let length = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |end| end + 2)
        } else if first == '"' {
            string_length(rest)
        } else {
            let length = match first {
                c if word(c) => rest.find(|c| !word(c)).unwrap_or(rest.len()),
                ':' if rest.starts_with("::") => 2,
                c => c.len_utf8(),
            };
            if !first.is_whitespace() {
                tokens.push(&rest[..length]);
            }
            length
        };
        rest = &rest[length..];
    }
    tokens
}

/// Length of a string literal with its quotes.
fn string_length(text: &str) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Vec<String> {
        scan(text).into_iter().collect()
    }

    #[test]
    fn what_reaches_outside_is_found_however_it_is_written() {
        assert_eq!(found("use std::fs;"), ["std::fs"]);
        assert_eq!(
            found("use std::{fmt, net::TcpStream, time::{Duration, Instant}};"),
            ["std::net", "std::time::Instant"]
        );
        assert_eq!(
            found("let t = std::time::SystemTime::now();"),
            ["SystemTime", "std::time::SystemTime"]
        );
        assert_eq!(
            found("fn f() { std :: thread :: spawn(|| ()); }"),
            ["std::thread"]
        );
        assert_eq!(
            found("use std::collections::{BTreeMap, HashMap as Map};"),
            ["HashMap", "std::collections::HashMap"]
        );
        assert_eq!(found("use std::time::*;"), ["std::time::*"]);
        assert_eq!(found("fn f(m: &hashbrown::HashSet<u8>) {}"), ["HashSet"]);
    }

    #[test]
    fn what_does_not_is_left_alone() {
        let pure = "// std::fs is not for us\nuse std::{collections::BTreeMap, fmt, time::Duration};\n\
                    const TEXT: &str = \"std::net \\\" HashMap\";\nstruct Instant;\n\
                    #[cfg(test)]\nmod tests { use std::fs; }\n";
        assert_eq!(found(pure), [""; 0]);
    }

    #[test]
    fn a_crate_off_the_list_is_named() {
        let listed = "hotswap-core v0.1.0 (/x)\nserde v1.0.0\nrand v0.10.0\nrand v0.10.0 (*)\n";
        assert_eq!(strangers(listed).into_iter().collect::<Vec<_>>(), ["rand"]);
    }
}
