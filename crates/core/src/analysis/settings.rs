//! One number of a policy, by name: for configuration that changes a few, and for trying another policy on past
//! evidence.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::policy::JudgePolicy;
use super::verdict::Signal;

/// Some settings of a policy, by name.
pub type Settings = BTreeMap<String, Setting>;

/// What a setting is set to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Setting {
    /// Yes or no.
    Flag(bool),
    /// A number.
    Number(f64),
    /// Names of signals.
    Signals(Vec<String>),
    /// Anything else: always refused, with what would be right.
    Other(String),
}

/// Why a setting was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SettingFault {
    /// No such setting.
    #[error("{key}: there is no such setting of the judge; there are {}", names())]
    Unknown {
        /// The name.
        key: String,
    },
    /// Of the wrong type.
    #[error("{key}: must be {wanted}")]
    Type {
        /// The name.
        key: String,
        /// What would be right.
        wanted: &'static str,
    },
    /// Text that is no `name=value`.
    #[error("{0:?}: must be NAME=VALUE, as in judge.alpha=0.05")]
    Syntax(String),
}

enum Field {
    Number(fn(&mut JudgePolicy) -> &mut f64),
    Count(fn(&mut JudgePolicy) -> &mut u64),
    Flag(fn(&mut JudgePolicy) -> &mut bool),
    Signals,
}

const FIELDS: [(&str, Field); 19] = [
    ("alpha", Field::Number(|p| &mut p.alpha)),
    ("tolerance_share", Field::Number(|p| &mut p.tolerance_share)),
    (
        "error_margin_points",
        Field::Number(|p| &mut p.error_margin_points),
    ),
    (
        "error_margin_relative",
        Field::Number(|p| &mut p.error_margin_relative),
    ),
    ("judge_latency", Field::Flag(|p| &mut p.judge_latency)),
    (
        "latency_margin_relative",
        Field::Number(|p| &mut p.latency_margin_relative),
    ),
    (
        "latency_margin_points",
        Field::Number(|p| &mut p.latency_margin_points),
    ),
    ("latency_floor_us", Field::Count(|p| &mut p.latency_floor_us)),
    ("judge_cpu", Field::Flag(|p| &mut p.judge_cpu)),
    (
        "cpu_margin_relative",
        Field::Number(|p| &mut p.cpu_margin_relative),
    ),
    ("cpu_margin_us", Field::Number(|p| &mut p.cpu_margin_us)),
    ("judge_memory", Field::Flag(|p| &mut p.judge_memory)),
    (
        "memory_margin_relative",
        Field::Number(|p| &mut p.memory_margin_relative),
    ),
    ("memory_margin_kib", Field::Number(|p| &mut p.memory_margin_kib)),
    ("dry_run", Field::Signals),
    (
        "min_candidate_requests",
        Field::Count(|p| &mut p.min_candidate_requests),
    ),
    (
        "probes_below_requests",
        Field::Count(|p| &mut p.probes_below_requests),
    ),
    (
        "probe_margin_points",
        Field::Number(|p| &mut p.probe_margin_points),
    ),
    ("no_control_probes", Field::Count(|p| &mut p.no_control_probes)),
];

/// Signals by the names that settings use.
const SIGNALS: [(&str, Signal); 4] = [
    ("errors", Signal::Errors),
    ("latency", Signal::Latency),
    ("cpu", Signal::Cpu),
    ("memory", Signal::Memory),
];

fn names() -> String {
    FIELDS.map(|(name, _)| name).join(", ")
}

impl JudgePolicy {
    /// Sets one field by its name. Its range is checked by [`JudgePolicy::validate`].
    ///
    /// # Errors
    /// The name is unknown or the value of another type.
    pub fn set(&mut self, key: &str, setting: &Setting) -> Result<(), SettingFault> {
        let key = bare(key);
        let key = key.as_str();
        let unknown = || SettingFault::Unknown { key: key.to_owned() };
        let (_, field) = FIELDS.iter().find(|(name, _)| *name == key).ok_or_else(unknown)?;
        let wrong = |wanted| SettingFault::Type {
            key: key.to_owned(),
            wanted,
        };
        match (field, setting) {
            (Field::Number(at), Setting::Number(value)) => *at(self) = *value,
            (Field::Count(at), Setting::Number(value)) => {
                *at(self) = whole(*value).ok_or_else(|| wrong("a whole number"))?;
            }
            (Field::Flag(at), Setting::Flag(value)) => *at(self) = *value,
            (Field::Signals, Setting::Signals(names)) => {
                let named = |name: &String| SIGNALS.iter().find(|(known, _)| known == name);
                let signals: Option<_> = names
                    .iter()
                    .map(|name| named(name).map(|(_, signal)| *signal))
                    .collect();
                self.dry_run = signals.ok_or_else(|| wrong("signals among errors, latency, cpu, memory"))?;
            }
            (Field::Number(_), _) => return Err(wrong("a number")),
            (Field::Count(_), _) => return Err(wrong("a whole number")),
            (Field::Flag(_), _) => return Err(wrong("true or false")),
            (Field::Signals, _) => return Err(wrong("signals among errors, latency, cpu, memory")),
        }
        Ok(())
    }

    /// Sets several.
    ///
    /// # Errors
    /// All faults at once; then nothing is of use.
    pub fn set_all(&mut self, settings: &Settings) -> Result<(), Vec<SettingFault>> {
        let faults: Vec<SettingFault> = settings
            .iter()
            .filter_map(|(key, setting)| self.set(key, setting).err())
            .collect();
        if faults.is_empty() { Ok(()) } else { Err(faults) }
    }
}

/// `judge.alpha=0.05`, `judge.judge_cpu=false`, `judge.dry_run=cpu|memory` or `judge.dry_run=` as name and value.
///
/// # Errors
/// There is no `=`, or no name before it.
pub fn parse_setting(text: &str) -> Result<(String, Setting), SettingFault> {
    let pair = text.split_once('=').filter(|(key, _)| !key.trim().is_empty());
    let (key, value) = pair.ok_or_else(|| SettingFault::Syntax(text.chars().take(80).collect()))?;
    let (key, value) = (key.trim(), value.trim());
    let is_list = bare(key) == "dry_run";
    let setting = if is_list {
        let names = value.split('|').filter(|name| !name.is_empty());
        Setting::Signals(names.map(str::to_owned).collect())
    } else {
        match (value.parse(), value.parse()) {
            (Ok(flag), _) => Setting::Flag(flag),
            (_, Ok(number)) => Setting::Number(number),
            _ => Setting::Other(value.to_owned()),
        }
    };
    Ok((key.to_owned(), setting))
}

/// The name alone: files write `dry-run`, and `judge.` goes before a name among others.
fn bare(key: &str) -> String {
    key.strip_prefix("judge.").unwrap_or(key).replace('-', "_")
}

fn whole(value: f64) -> Option<u64> {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "checked to be whole and in range"
    )]
    let whole = (value.fract() == 0.0 && (0.0..9e15).contains(&value)).then_some(value as u64);
    whole
}
