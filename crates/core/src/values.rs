//! A module's values: what an environment gives it, beside what its package says.
//!
//! A set of them has a number, counted by module over all environments. Values take effect by a deployment: its
//! rollouts take the number that their environment has when they begin, and a release under another number is another
//! release for nodes and judges.

use std::collections::{BTreeMap, BTreeSet};

/// Most values of a module in an environment.
pub const VALUES_MAX: usize = 64;
/// Longest key, in characters.
pub const KEY_LEN_MAX: usize = 128;
/// Longest value, in bytes.
pub const VALUE_BYTES_MAX: usize = 4_096;
/// Most bytes of all keys and values of a module in an environment: every node's spec carries them.
pub const VALUES_BYTES_MAX: usize = 16_384;

/// Values by key: a key is a variable's name. A value that begins with `env:` or `file:` is a secret by reference: the
/// node that loads the release puts in what its own environment or folder of secrets has.
pub type Values = BTreeMap<String, String>;

/// What is wrong with values, each fault with its key; empty if they may be.
pub fn faults(values: &Values) -> Vec<String> {
    let mut faults = Vec::new();
    if values.len() > VALUES_MAX {
        faults.push(format!(
            "values: there are {}, at most {VALUES_MAX} may be",
            values.len()
        ));
        return faults;
    }
    for (key, value) in values {
        if !is_key(key) {
            let shown: String = key.chars().take(KEY_LEN_MAX).collect();
            faults.push(format!(
                "values: the key {shown:?} should be a variable's name, such as LOG_LEVEL, of at most {KEY_LEN_MAX} \
                 characters"
            ));
        } else if value.len() > VALUE_BYTES_MAX {
            faults.push(format!(
                "values.{key}: has {} bytes, at most {VALUE_BYTES_MAX} may be",
                value.len()
            ));
        } else if value.contains('\0') {
            faults.push(format!("values.{key}: holds a zero byte, which no variable can"));
        }
    }
    let bytes: usize = values.iter().map(|(key, value)| key.len() + value.len()).sum();
    if faults.is_empty() && bytes > VALUES_BYTES_MAX {
        faults.push(format!(
            "values: have {bytes} bytes together, at most {VALUES_BYTES_MAX} may be"
        ));
    }
    faults
}

fn is_key(key: &str) -> bool {
    (1..=KEY_LEN_MAX).contains(&key.len())
        && key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
        && !key.starts_with(|c: char| c.is_ascii_digit())
}

/// A module's values in an environment: those of the newest number, and of every number that something there still
/// names.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize, Default)]
pub struct Numbered {
    /// The newest number; 0 where none was ever set.
    pub newest: u64,
    /// Values by number.
    pub by_number: BTreeMap<u64, Values>,
}

impl Numbered {
    /// Whether none was ever set.
    pub fn is_empty(&self) -> bool {
        self.newest == 0
    }

    /// The newest values.
    pub fn current(&self) -> Option<&Values> {
        self.by_number.get(&self.newest)
    }

    /// Takes newer values, and forgets those that are neither the newest nor among `named`.
    pub fn set(&mut self, number: u64, values: Values, named: &BTreeSet<u64>) {
        self.newest = number;
        self.by_number.insert(number, values);
        self.by_number
            .retain(|kept, _| *kept == number || named.contains(kept));
    }

    /// The values of the releases in `numbers`.
    pub fn of(&self, numbers: impl IntoIterator<Item = u64>) -> BTreeMap<u64, Values> {
        numbers
            .into_iter()
            .filter_map(|number| Some((number, self.by_number.get(&number)?.clone())))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(key: &str, value: String) -> Values {
        BTreeMap::from([(key.to_owned(), value)])
    }

    #[test]
    fn every_limit_is_named() {
        assert!(faults(&one("LOG_LEVEL", "debug".to_owned())).is_empty());
        for (values, part) in [
            (one("log-level", String::new()), "should be a variable's name"),
            (one("1ST", String::new()), "should be a variable's name"),
            (one("", String::new()), "should be a variable's name"),
            (one("A", "x".repeat(VALUE_BYTES_MAX + 1)), "at most 4096"),
            (one("A", "a\0b".to_owned()), "zero byte"),
            (
                (0..=VALUES_MAX)
                    .map(|n| (format!("K{n}"), String::new()))
                    .collect(),
                "at most 64",
            ),
            (
                (0..5).map(|n| (format!("K{n}"), "x".repeat(4_000))).collect(),
                "at most 16384",
            ),
        ] {
            let faults = faults(&values);
            assert!(faults.len() == 1 && faults[0].contains(part), "{faults:?}");
        }
    }

    #[test]
    fn values_that_something_names_are_kept() {
        let mut numbered = Numbered::default();
        for number in 1..=4 {
            numbered.set(number, one("N", number.to_string()), &BTreeSet::from([2]));
        }
        assert_eq!(numbered.by_number.keys().copied().collect::<Vec<_>>(), [2, 4]);
        assert_eq!(numbered.current().unwrap()["N"], "4");
        assert_eq!(numbered.of([0, 2]).len(), 1);
    }
}
