//! What a node remembers of a module's loads, in a file that is durable before anything is loaded.
//!
//! A load is an *attempt* from before it begins until the version has stood for a while. An attempt that another boot
//! finds ended with the node: a version that never stood is not loaded again then, and one that did gets some more
//! boots, since nodes also go down by themselves.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// Boots in a row that a version gets that has stood before.
const DOWNS_MAX: u32 = 3;
/// Most versions that are remembered; the oldest go first.
const KNOWN_MAX: usize = 32;

/// What is remembered.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    /// What is loaded, and during which boot.
    pub(super) active: Option<Active>,
    /// What is being loaded or watched, and during which boot.
    attempt: Option<Active>,
    known: Vec<Known>,
}

/// A loaded version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Active {
    pub(super) boot: String,
    /// The release, without what tells the digest's kind.
    pub(super) release: String,
    pub(super) label: String,
    /// Its name in the kernel.
    pub(super) module: String,
    /// Its gate's, if it is behind one.
    pub(super) gate: Option<String>,
    pub(super) file: PathBuf,
    pub(super) parameters: String,
    pub(super) deadline_ms: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Known {
    release: String,
    kernel: String,
    stood: bool,
    downs: u32,
}

impl Record {
    /// Reads the record as this boot finds it.
    ///
    /// # Errors
    /// There is one that can't be read: nothing may be loaded then, since nobody knows what it says.
    pub(super) fn read(path: &Path, boot: &str, kernel: &str) -> io::Result<Self> {
        let text = match fs::read(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(error),
        };
        let mut record: Self = serde_json::from_slice(&text)?;
        record.active = record.active.filter(|active| active.boot == boot);
        if let Some(attempt) = record.attempt.take_if(|attempt| attempt.boot != boot) {
            record.known(&attempt.release, kernel).downs += 1;
            record.write(path)?;
        }
        Ok(record)
    }

    /// Makes the record durable.
    pub(super) fn write(&self, path: &Path) -> io::Result<()> {
        let folder = path
            .parent()
            .ok_or_else(|| io::Error::other("a record is in a folder"))?;
        fs::create_dir_all(folder)?;
        let part = path.with_extension("part");
        let mut file = fs::File::create(&part)?;
        file.write_all(&serde_json::to_vec(self)?)?;
        file.sync_all()?;
        fs::rename(&part, path)?;
        fs::File::open(folder)?.sync_all()
    }

    /// Why a version isn't loaded again.
    pub(super) fn refusal(&self, release: &str, label: &str, kernel: &str) -> Option<String> {
        let known = self
            .known
            .iter()
            .find(|known| known.release == release && known.kernel == kernel)?;
        let most = if known.stood { DOWNS_MAX } else { 1 };
        (known.downs >= most).then(|| {
            let times = match known.downs {
                1 => String::new(),
                downs => format!("{downs} times in a row "),
            };
            format!(
                "the node went down {times}while {label} was being loaded or had just been; it is not loaded again here"
            )
        })
    }

    /// A load begins.
    pub(super) fn begin(&mut self, next: Active) {
        self.attempt = Some(next);
    }

    /// A load that had begun and of which nobody has heard the end, as when its agent was killed.
    pub(super) fn unheard(&self) -> Option<&Active> {
        let loaded = self.active.as_ref().map(|active| &active.release);
        self.attempt
            .as_ref()
            .filter(|attempt| Some(&attempt.release) != loaded)
    }

    /// Whether something is being loaded or watched.
    pub(super) fn is_watching(&self) -> bool {
        self.attempt.is_some()
    }

    /// An attempt ended and the node is still there.
    pub(super) fn end(&mut self) {
        self.attempt = None;
    }

    /// A version has stood for a while.
    pub(super) fn stood(&mut self, release: &str, kernel: &str) {
        self.attempt = None;
        let known = self.known(release, kernel);
        known.stood = true;
        known.downs = 0;
    }

    fn known(&mut self, release: &str, kernel: &str) -> &mut Known {
        let found = self
            .known
            .iter()
            .position(|known| known.release == release && known.kernel == kernel);
        let at = found.unwrap_or_else(|| {
            if self.known.len() >= KNOWN_MAX {
                self.known.remove(0);
            }
            self.known.push(Known {
                release: release.to_owned(),
                kernel: kernel.to_owned(),
                stood: false,
                downs: 0,
            });
            self.known.len() - 1
        });
        &mut self.known[at]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn active(boot: &str) -> Active {
        Active {
            boot: boot.to_owned(),
            release: "r1".to_owned(),
            label: "1.0.0".to_owned(),
            module: "m".to_owned(),
            gate: None,
            file: PathBuf::from("m.ko"),
            parameters: String::new(),
            deadline_ms: 1,
        }
    }

    #[test]
    fn a_version_that_never_stood_gets_one_attempt_and_one_that_did_gets_three() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("m/record.json");
        let boot = |number: u32| {
            let mut record = Record::read(&path, &number.to_string(), "6.1").unwrap();
            let refusal = record.refusal("r1", "1.0.0", "6.1");
            if refusal.is_none() {
                record.begin(active(&number.to_string()));
                record.write(&path).unwrap();
            }
            refusal
        };
        assert_eq!(boot(1), None);
        assert!(boot(2).unwrap().starts_with("the node went down while 1.0.0 was"));
        assert!(boot(3).is_some(), "a boot without an attempt changes nothing");
        let mut record = Record::read(&path, "3", "6.1").unwrap();
        assert_eq!(record.refusal("r1", "1.0.0", "6.2"), None, "another kernel");
        record.stood("r1", "6.1");
        record.write(&path).unwrap();
        for number in 4..7 {
            assert_eq!(boot(number), None);
        }
        assert!(boot(7).unwrap().contains("3 times in a row"));
    }

    #[test]
    fn what_is_loaded_is_so_during_one_boot_only_and_a_broken_record_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("record.json");
        let mut record = Record::default();
        record.begin(active("a"));
        record.write(&path).unwrap();
        assert_eq!(
            Record::read(&path, "a", "6.1").unwrap().unheard(),
            Some(&active("a"))
        );
        record.active = Some(active("a"));
        record.write(&path).unwrap();
        let same = Record::read(&path, "a", "6.1").unwrap();
        assert!(same == record && same.is_watching() && same.unheard().is_none());
        let next = Record::read(&path, "b", "6.1").unwrap();
        assert!(next.active.is_none() && !next.is_watching());
        fs::write(&path, b"{").unwrap();
        assert!(Record::read(&path, "b", "6.1").is_err());
    }
}
