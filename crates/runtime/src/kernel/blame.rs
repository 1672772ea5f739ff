//! Whose doing it was that a node went down, over all its modules.
//!
//! What another boot was loading or watching is found at the next one. A load that had not come to its end takes all
//! the blame; where each had, the newest one of those does that never stood, and the newest one where all did. The others' attempts are over without a word on them: they neither
//! went down nor stood.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::record::{CutShort, Record};

/// A module's record among its files.
pub(super) const RECORD: &str = "record.json";

/// Judges what other boots than this one left unended, and returns the number of the newest load that the records
/// know. Judging again what was judged changes nothing.
///
/// # Errors
/// A folder can't be read, or a record not be written: nothing may be loaded until it was judged.
pub(super) fn judge(dir: &Path, boot: &str, kernel: &str) -> io::Result<u64> {
    let mut newest = 0;
    let mut left: Vec<(CutShort, PathBuf, Record)> = Vec::new();
    for path in records(dir)? {
        match Record::read_whole(&path) {
            Ok(record) => {
                newest = newest.max(record.number().unwrap_or(0));
                if let Some(cut_short) = record.cut_short(boot, kernel) {
                    left.push((cut_short, path, record));
                }
            }
            // Its module is refused where it is asked for; the others are judged without it.
            Err(error) => tracing::error!(%error, path = %path.display(), "a record can't be read"),
        }
    }
    let guilty = guilty(left.iter().map(|(cut_short, ..)| *cut_short));
    // The guilty ones last: if the node goes down amid this, they are still found, and nobody else in their place.
    left.sort_by_key(|(cut_short, ..)| guilty.contains(cut_short));
    for (cut_short, path, mut record) in left {
        if guilty.contains(&cut_short) {
            record.blame(kernel);
        } else {
            record.end();
        }
        record.write(&path)?;
    }
    Ok(newest)
}

/// Whom it is blamed on. More than one where several were being loaded, or where records of an older agent have no
/// numbers.
fn guilty(left: impl Iterator<Item = CutShort> + Clone) -> Vec<CutShort> {
    let loading: Vec<_> = left.clone().filter(|cut_short| cut_short.was_loading).collect();
    if !loading.is_empty() {
        return loading;
    }
    let is_new = |cut_short: &CutShort| !cut_short.has_stood;
    let any_is_new = left.clone().any(|cut_short| is_new(&cut_short));
    let suspects = left.filter(|cut_short| !any_is_new || is_new(cut_short));
    let newest = suspects.clone().map(|cut_short| cut_short.number).max();
    suspects
        .filter(|cut_short| Some(cut_short.number) == newest)
        .collect()
}

fn records(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut records = Vec::new();
    for entry in entries {
        let path = entry?.path().join(RECORD);
        if path.exists() {
            records.push(path);
        }
    }
    records.sort();
    Ok(records)
}

#[cfg(test)]
mod tests {
    use super::super::record::Active;
    use super::*;

    const KERNEL: &str = "6.1";

    fn active(release: &str, boot: &str) -> Active {
        Active {
            boot: boot.to_owned(),
            kernel: String::new(),
            release: release.to_owned(),
            label: release.to_owned(),
            module: "m".to_owned(),
            gate: None,
            is_livepatch: false,
            file: PathBuf::from("m.ko"),
            parameters: String::new(),
            deadline_ms: 1,
        }
    }

    /// A folder of modules, each with the number of its load and whether it was loaded when boot `a` ended.
    fn node(modules: &[(&str, u64, bool)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (name, number, is_loaded) in modules {
            let mut record = Record::default();
            record.begin(active(name, "a"), None, *number);
            if *is_loaded {
                record.active = Some(active(name, "a"));
            }
            record.write(&path(&dir, name)).unwrap();
        }
        dir
    }

    fn path(dir: &tempfile::TempDir, name: &str) -> PathBuf {
        dir.path().join(name).join(RECORD)
    }

    /// Whom boot `b` refuses.
    fn refused(dir: &tempfile::TempDir) -> Vec<String> {
        let is_refused = |name: &String| {
            let record = Record::read(&path(dir, name), "b").unwrap();
            assert!(!record.is_watching());
            record.refusal(name, name, KERNEL).is_some()
        };
        let folders = fs::read_dir(dir.path()).unwrap();
        let mut names: Vec<String> = folders
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(is_refused)
            .collect();
        names.sort();
        names
    }

    #[test]
    fn the_newest_takes_the_blame_unless_another_was_still_being_loaded() {
        let dir = node(&[("filter", 3, true), ("gate", 1, true), ("nic", 2, true)]);
        assert_eq!(judge(dir.path(), "b", KERNEL).unwrap(), 3);
        assert_eq!(refused(&dir), ["filter"]);
        let dir = node(&[("filter", 3, true), ("gate", 1, true), ("nic", 2, false)]);
        judge(dir.path(), "b", KERNEL).unwrap();
        assert_eq!(refused(&dir), ["nic"]);
        // A load that hung, and another one beside it.
        let dir = node(&[("filter", 3, false), ("gate", 4, true), ("nic", 2, false)]);
        judge(dir.path(), "b", KERNEL).unwrap();
        assert_eq!(refused(&dir), ["filter", "nic"]);
    }

    #[test]
    fn what_has_never_stood_is_suspected_before_what_has() {
        let dir = node(&[("filter", 3, true), ("gate", 1, true), ("nic", 2, true)]);
        for (name, number) in [("filter", 3), ("gate", 1)] {
            let mut record = Record::read(&path(&dir, name), "a").unwrap();
            record.stood(name, KERNEL);
            record.begin(active(name, "a"), Some(active(name, "a")), number);
            record.write(&path(&dir, name)).unwrap();
        }
        judge(dir.path(), "b", KERNEL).unwrap();
        assert_eq!(refused(&dir), ["nic"]);
    }

    #[test]
    fn a_boots_own_attempts_and_a_node_without_any_are_left_alone() {
        let dir = node(&[("filter", 3, true), ("gate", 1, false)]);
        assert_eq!(judge(dir.path(), "a", KERNEL).unwrap(), 3);
        assert!(Record::read(&path(&dir, "gate"), "a").unwrap().is_watching());
        assert_eq!(judge(&dir.path().join("nothing"), "a", KERNEL).unwrap(), 0);
    }

    #[test]
    fn a_node_that_goes_down_amid_the_judgement_blames_nobody_else_at_the_next_boot() {
        for unwritten in ["gate", "nic", "filter"] {
            let dir = node(&[("filter", 3, true), ("gate", 1, true), ("nic", 2, true)]);
            // Writing ends here.
            let part = path(&dir, unwritten).with_extension("part");
            fs::create_dir(&part).unwrap();
            judge(dir.path(), "b", KERNEL).unwrap_err();
            fs::remove_dir(&part).unwrap();
            judge(dir.path(), "c", KERNEL).unwrap();
            assert_eq!(refused(&dir), ["filter"], "ended at {unwritten}");
        }
    }

    #[test]
    fn records_without_numbers_are_blamed_together_and_broken_ones_hinder_nobody() {
        let dir = node(&[("filter", 0, true), ("gate", 0, true), ("nic", 0, true)]);
        let text = fs::read_to_string(path(&dir, "gate")).unwrap();
        let without = text.replace(",\"number\":0", "");
        assert_ne!(text, without);
        fs::write(path(&dir, "gate"), without).unwrap();
        fs::write(path(&dir, "nic"), "{").unwrap();
        judge(dir.path(), "b", KERNEL).unwrap();
        fs::remove_dir_all(dir.path().join("nic")).unwrap();
        assert_eq!(refused(&dir), ["filter", "gate"]);
    }
}
