//! What a node remembers of a module's loads, in a file that is durable before anything is loaded.
//!
//! A load is an *attempt* from before it begins until the version has stood for a while. An attempt that another boot
//! finds ended with the node, and [`super::blame`] says whose doing that was. A version that never stood is not loaded
//! again then, and one that did gets some more boots, since nodes also go down by themselves.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// Boots in a row that a version gets that has stood before.
const DOWNS_MAX: u32 = 3;
/// Most versions that are remembered; the oldest go first, and those with which the node went down last.
const KNOWN_MAX: usize = 32;
/// Most versions that could not be unloaded and are remembered; the oldest go first.
const LEFTOVERS_MAX: usize = 8;

/// What is remembered.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    /// What is loaded, and during which boot.
    pub(super) active: Option<Active>,
    /// What is being loaded or watched, and during which boot.
    attempt: Option<Attempt>,
    known: Vec<Known>,
    /// What is loaded without being in the place: it could not be unloaded.
    #[serde(default)]
    leftovers: Vec<Active>,
    /// Whether the file says something else.
    #[serde(skip)]
    pub(super) is_unwritten: bool,
}

/// A loaded version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Active {
    pub(super) boot: String,
    /// The release of the kernel that it is loaded into; records of older agents don't say.
    #[serde(default)]
    pub(super) kernel: String,
    /// The release, without what tells the digest's kind.
    pub(super) release: String,
    pub(super) label: String,
    /// Its name in the kernel.
    pub(super) module: String,
    /// Its gate's, if it is behind one.
    pub(super) gate: Option<String>,
    #[serde(default)]
    pub(super) is_livepatch: bool,
    pub(super) file: PathBuf,
    pub(super) parameters: String,
    pub(super) deadline_ms: u64,
}

/// A version that is being loaded or watched.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Attempt {
    #[serde(flatten)]
    version: Active,
    /// Which of the node's loads it is, over all its modules.
    #[serde(default)]
    number: u64,
}

/// An attempt that ended with its boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct CutShort {
    pub(super) number: u64,
    /// Whether nobody had heard yet that it was loaded.
    pub(super) was_loading: bool,
    /// Whether it had stood before.
    pub(super) has_stood: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Known {
    release: String,
    kernel: String,
    stood: bool,
    downs: u32,
}

impl Active {
    /// The kernel's release, or this one where it isn't known.
    fn kernel_or<'a>(&'a self, kernel: &'a str) -> &'a str {
        if self.kernel.is_empty() {
            kernel
        } else {
            &self.kernel
        }
    }
}

impl Record {
    /// Reads the record as this boot finds it, after what other boots left was judged.
    ///
    /// # Errors
    /// There is one that can't be read: nothing may be loaded then, since nobody knows what it says.
    pub(super) fn read(path: &Path, boot: &str) -> io::Result<Self> {
        let mut record = Self::read_whole(path)?;
        record.active = record.active.filter(|active| active.boot == boot);
        record.attempt = record.attempt.filter(|attempt| attempt.version.boot == boot);
        record.leftovers.retain(|leftover| leftover.boot == boot);
        Ok(record)
    }

    /// Reads what is written.
    pub(super) fn read_whole(path: &Path) -> io::Result<Self> {
        match fs::read(path) {
            Ok(text) => Ok(serde_json::from_slice(&text)?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error),
        }
    }

    /// The number of its load, if something is being loaded or watched.
    pub(super) fn number(&self) -> Option<u64> {
        self.attempt.as_ref().map(|attempt| attempt.number)
    }

    /// An attempt that another boot than this one, of this kernel, made and did not end.
    pub(super) fn cut_short(&self, boot: &str, kernel: &str) -> Option<CutShort> {
        let attempt = self.attempt.as_ref()?;
        let version = &attempt.version;
        (version.boot != boot).then(|| CutShort {
            number: attempt.number,
            was_loading: self.unheard().is_some(),
            has_stood: self
                .find(&version.release, version.kernel_or(kernel))
                .is_some_and(|known| known.stood),
        })
    }

    /// The node went down with what was attempted. That is held against it on the kernel that it was loaded into, which
    /// may not be the one that runs now.
    pub(super) fn blame(&mut self, kernel: &str) {
        if let Some(attempt) = self.attempt.take() {
            let version = &attempt.version;
            self.known(&version.release, version.kernel_or(kernel)).downs += 1;
        }
    }

    /// Makes the record durable.
    pub(super) fn write(&self, path: &Path) -> io::Result<()> {
        let folder = path
            .parent()
            .ok_or_else(|| io::Error::other("a record is in a folder"))?;
        if !path.exists() {
            fs::create_dir_all(folder)?;
            // The folder's own name, and that of the one around it, may be as new.
            for parent in folder.ancestors().skip(1).take(2) {
                fs::File::open(parent)?.sync_all()?;
            }
        }
        let part = path.with_extension("part");
        let mut file = fs::File::create(&part)?;
        file.write_all(&serde_json::to_vec(self)?)?;
        file.sync_all()?;
        fs::rename(&part, path)?;
        fs::File::open(folder)?.sync_all()
    }

    /// Why a version isn't loaded again.
    pub(super) fn refusal(&self, release: &str, label: &str, kernel: &str) -> Option<String> {
        let known = self.find(release, kernel)?;
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

    /// A load begins in place of who is there; its number is greater than those of all loads before on this node.
    pub(super) fn begin(&mut self, next: Active, former: Option<Active>, number: u64) {
        // Who was there and has gone would make it seem that this release is loaded already.
        self.active = former;
        self.attempt = Some(Attempt {
            version: next,
            number,
        });
    }

    /// What is being loaded or watched.
    pub(super) fn attempt(&self) -> Option<Attempt> {
        self.attempt.clone()
    }

    /// A load failed, and who was watched before it is there again.
    pub(super) fn reopen(&mut self, attempt: Option<Attempt>) {
        self.attempt = attempt;
    }

    /// What is loaded without being in the place.
    pub(super) fn leftovers(&self) -> &[Active] {
        &self.leftovers
    }

    /// A version stays loaded without being in the place.
    pub(super) fn leave_over(&mut self, version: Active) {
        self.forget_leftover(&version.module);
        if self.leftovers.len() >= LEFTOVERS_MAX {
            self.leftovers.remove(0);
        }
        self.leftovers.push(version);
    }

    /// What was left over is loaded no more, or in the place.
    pub(super) fn forget_leftover(&mut self, module: &str) {
        self.leftovers.retain(|leftover| leftover.module != module);
    }

    /// A load that had begun and of which nobody has heard the end, as when its agent was killed.
    pub(super) fn unheard(&self) -> Option<&Active> {
        let loaded = self.active.as_ref().map(|active| &active.release);
        let attempt = self.attempt.as_ref().map(|attempt| &attempt.version);
        attempt.filter(|attempt| Some(&attempt.release) != loaded)
    }

    /// Whether something is being loaded or watched.
    pub(super) fn is_watching(&self) -> bool {
        self.attempt.is_some()
    }

    /// An attempt ended and the node is still there.
    pub(super) fn end(&mut self) {
        self.attempt = None;
    }

    /// Whether a version has stood on this kernel and the node has not gone down with it since.
    pub(super) fn has_stood(&self, release: &str, kernel: &str) -> bool {
        let known = self.find(release, kernel);
        known.is_some_and(|known| known.stood && known.downs == 0)
    }

    /// A version has stood for a while.
    pub(super) fn stood(&mut self, release: &str, kernel: &str) {
        self.attempt = None;
        let known = self.known(release, kernel);
        known.stood = true;
        known.downs = 0;
    }

    /// Whether it is this release that is being loaded or watched.
    pub(super) fn watches(&self, release: &str) -> bool {
        let attempt = self.attempt.as_ref();
        attempt.is_some_and(|attempt| attempt.version.release == release)
    }

    fn find(&self, release: &str, kernel: &str) -> Option<&Known> {
        let mut known = self.known.iter();
        known.find(|known| known.release == release && known.kernel == kernel)
    }

    fn known(&mut self, release: &str, kernel: &str) -> &mut Known {
        let found = self
            .known
            .iter()
            .position(|known| known.release == release && known.kernel == kernel);
        let at = found.unwrap_or_else(|| {
            if self.known.len() >= KNOWN_MAX {
                // A refusal is forgotten last.
                let harmless = self.known.iter().position(|known| known.downs == 0);
                self.known.remove(harmless.unwrap_or(0));
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
            kernel: String::new(),
            release: "r1".to_owned(),
            label: "1.0.0".to_owned(),
            module: "m".to_owned(),
            gate: None,
            is_livepatch: false,
            file: PathBuf::from("m.ko"),
            parameters: String::new(),
            deadline_ms: 1,
        }
    }

    #[test]
    fn a_version_that_never_stood_gets_one_attempt_and_one_that_did_gets_three() {
        let mut record = Record::default();
        let mut attempt = |stands: bool| {
            let refusal = record.refusal("r1", "1.0.0", "6.1");
            if refusal.is_none() {
                record.begin(active("a"), None, 1);
                if stands {
                    record.stood("r1", "6.1");
                } else {
                    record.blame("6.1");
                }
            }
            refusal
        };
        assert_eq!(attempt(true), None);
        for _ in 0..3 {
            assert_eq!(attempt(false), None);
        }
        assert!(attempt(false).unwrap().contains("3 times in a row"));
        let mut record = Record::default();
        record.begin(active("a"), None, 1);
        record.blame("6.1");
        let refusal = record.refusal("r1", "1.0.0", "6.1").unwrap();
        assert!(refusal.starts_with("the node went down while 1.0.0 was"));
        assert_eq!(record.refusal("r1", "1.0.0", "6.2"), None, "another kernel");
    }

    #[test]
    fn what_is_loaded_is_so_during_one_boot_only_and_a_broken_record_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("m/record.json");
        let mut record = Record::default();
        record.begin(active("a"), None, 1);
        record.write(&path).unwrap();
        assert_eq!(Record::read(&path, "a").unwrap().unheard(), Some(&active("a")));
        record.active = Some(active("a"));
        record.write(&path).unwrap();
        let same = Record::read(&path, "a").unwrap();
        assert!(same == record && same.is_watching() && same.unheard().is_none());
        let next = Record::read(&path, "b").unwrap();
        assert!(next.active.is_none() && !next.is_watching());
        fs::write(&path, b"{").unwrap();
        assert!(Record::read(&path, "b").is_err());
    }

    #[test]
    fn who_is_loaded_once_more_is_being_loaded_until_that_is_noted() {
        let mut record = Record {
            active: Some(active("a")),
            ..Record::default()
        };
        // Somebody had unloaded it.
        record.begin(active("a"), None, 2);
        let cut_short = CutShort {
            number: 2,
            was_loading: true,
            has_stood: false,
        };
        assert_eq!(record.cut_short("b", "6.1"), Some(cut_short));
        record.active = Some(active("a"));
        assert!(!record.cut_short("b", "6.1").unwrap().was_loading);
        assert_eq!(record.cut_short("a", "6.1"), None);
    }

    #[test]
    fn a_refusal_is_of_the_kernel_that_was_there_and_outlasts_what_never_did_harm() {
        let mut record = Record::default();
        let on = Active {
            kernel: "6.1".to_owned(),
            ..active("a")
        };
        record.begin(on, None, 1);
        // The node came back with another kernel.
        record.blame("6.2");
        assert_eq!(record.refusal("r1", "1.0.0", "6.2"), None);
        for other in 0..2 * KNOWN_MAX {
            record.stood(&format!("other {other}"), "6.1");
        }
        assert!(record.refusal("r1", "1.0.0", "6.1").is_some());
        assert_eq!(record.known.len(), KNOWN_MAX);
    }
}
