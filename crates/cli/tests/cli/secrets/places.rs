//! Where somebody could find a secret: every byte of it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use aho_corasick::AhoCorasick;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, OpenFlags};

use super::needle::Secret;

/// All that a run left behind, by name.
#[derive(Default)]
pub(super) struct Places {
    texts: BTreeMap<String, Vec<u8>>,
    /// Files that others than their owner can read.
    open: Vec<String>,
}

impl Places {
    /// Something that was said.
    pub(super) fn add(&mut self, name: impl Into<String>, text: impl Into<Vec<u8>>) {
        self.texts.entry(name.into()).or_default().extend(text.into());
    }

    /// All files of a folder, and all values of the databases in it: a value that spans pages is in pieces in the file.
    pub(super) fn add_folder(&mut self, name: &str, folder: &Path) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let (path, name) = entry
                .map(|entry| (entry.path(), format!("{name}/{}", entry.file_name().display())))
                .unwrap();
            let kind = std::fs::symlink_metadata(&path).unwrap();
            if kind.is_dir() {
                self.add_folder(&name, &path);
            } else if kind.is_file() {
                let content = std::fs::read(&path).unwrap();
                if content.starts_with(b"SQLite format 3\0") {
                    self.add_database(&name, &path);
                }
                if kind.permissions().mode() & 0o077 != 0 {
                    self.open.push(name.clone());
                }
                self.add(name, content);
            }
        }
    }

    fn add_database(&mut self, name: &str, path: &Path) {
        let database = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
        let mut tables = database
            .prepare("select name from sqlite_schema where type = 'table'")
            .unwrap();
        let tables = tables.query_map([], |row| row.get::<_, String>(0)).unwrap();
        for table in tables.map(Result::unwrap) {
            let mut all = database.prepare(&format!("select * from {table}")).unwrap();
            let columns = all.column_count();
            let mut rows = all.query([]).unwrap();
            let mut values = Vec::new();
            while let Some(row) = rows.next().unwrap() {
                for column in 0..columns {
                    match row.get_ref(column).unwrap() {
                        ValueRef::Text(value) | ValueRef::Blob(value) => values.extend(value),
                        _ => {}
                    }
                    values.push(b'\n');
                }
            }
            self.add(format!("{name}, table {table}"), values);
        }
    }

    /// How many bytes there are.
    pub(super) fn len(&self) -> usize {
        self.texts.values().map(Vec::len).sum()
    }

    /// Every secret that lies where it doesn't belong, or that is not where it does, and every home that isn't private.
    pub(super) fn faults(&self, secrets: &[Secret]) -> String {
        let shapes = secrets.iter().enumerate().flat_map(|(number, secret)| {
            let shapes = secret.shapes.iter();
            shapes.map(move |(shape, needle)| (number, *shape, needle))
        });
        let (owners, needles): (Vec<_>, Vec<_>) = shapes
            .map(|(number, shape, needle)| ((number, shape), needle))
            .unzip();
        let search = AhoCorasick::new(needles).expect("the needles are small");
        let mut faults = String::new();
        let mut homes: Vec<(usize, &str)> = Vec::new();
        for (place, text) in &self.texts {
            let mut told = std::collections::BTreeSet::new();
            // PEM and logs break lines wherever they like.
            for (text, how) in [(text, ""), (&without_breaks(text), ", across lines")] {
                for found in search.find_overlapping_iter(text) {
                    let (number, shape) = owners[found.pattern().as_usize()];
                    let secret = &secrets[number];
                    if secret.homes.contains(place) {
                        homes.push((number, place.as_str()));
                    } else if told.insert((number, shape)) {
                        let around = around(text, found.start(), found.end());
                        writeln!(
                            faults,
                            "{} is in {place}, {shape}{how}, at byte {}: {around}",
                            secret.name,
                            found.start()
                        )
                        .unwrap();
                    }
                }
            }
        }
        for (number, secret) in secrets.iter().enumerate() {
            for home in &secret.homes {
                if !homes.contains(&(number, home.as_str())) {
                    writeln!(faults, "{} should be in {home}, and was not found", secret.name).unwrap();
                }
                if self.open.contains(home) {
                    writeln!(faults, "{} is in {home}, which others can read", secret.name).unwrap();
                }
            }
        }
        faults
    }
}

/// Without line breaks, and without those that JSON writes.
fn without_breaks(text: &[u8]) -> Vec<u8> {
    let mut joined = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&byte, after)) = rest.split_first() {
        rest = match (byte, after.first()) {
            (b'\\', Some(b'n' | b'r')) => &after[1..],
            (b'\n' | b'\r', _) => after,
            _ => {
                joined.push(byte);
                after
            }
        };
    }
    joined
}

/// What is around a find, without the find.
fn around(text: &[u8], start: usize, end: usize) -> String {
    const BYTES: usize = 160;
    let before = String::from_utf8_lossy(&text[start.saturating_sub(BYTES)..start]).into_owned();
    let after = String::from_utf8_lossy(&text[end..text.len().min(end + BYTES)]).into_owned();
    format!("{before}[…]{after}").replace(|sign: char| sign.is_control(), " ")
}
