//! W3C Trace Context, and the names of a deployment's spans.
//!
//! A deployment has one trace. Its spans are named by what they are about, not drawn: so server and nodes agree on
//! them without a word, and a restarted server names them as the one before did.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::ids::RolloutId;

/// A place in a trace, as `traceparent` carries it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct TraceParent {
    /// The trace; never 0.
    pub trace_id: u128,
    /// The span in it that is the parent of what follows; never 0.
    pub span_id: u64,
    /// Whether whoever made it records the trace.
    pub sampled: bool,
}

/// A text that is no `traceparent`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be a W3C traceparent: 00-TRACE-SPAN-FLAGS in 2, 32, 16 and 2 lower-case hexadecimal digits")]
pub struct NoTraceParent;

impl FromStr for TraceParent {
    type Err = NoTraceParent;
    /// Takes versions to come too, as the recommendation asks; they may have more parts.
    fn from_str(text: &str) -> Result<Self, NoTraceParent> {
        let mut parts = text.trim().split('-');
        let mut part = |digits| hex(parts.next().ok_or(NoTraceParent)?, digits);
        let (version, trace_id, span_id, flags) = (part(2)?, part(32)?, part(16)?, part(2)?);
        let is_known = version == 0 && parts.next().is_none();
        let is_later = (1..0xff).contains(&version);
        let span_id = u64::try_from(span_id).map_err(|_| NoTraceParent)?;
        if !(is_known || is_later) || trace_id == 0 || span_id == 0 {
            return Err(NoTraceParent);
        }
        Ok(Self {
            trace_id,
            span_id,
            sampled: flags & 1 == 1,
        })
    }
}

impl fmt::Display for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let flags = u8::from(self.sampled);
        write!(f, "00-{:032x}-{:016x}-{flags:02x}", self.trace_id, self.span_id)
    }
}

fn hex(text: &str, digits: usize) -> Result<u128, NoTraceParent> {
    let lower = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    if text.len() != digits || !text.bytes().all(lower) {
        return Err(NoTraceParent);
    }
    u128::from_str_radix(text, 16).map_err(|_| NoTraceParent)
}

/// A trace id as State keeps it, 32 hexadecimal digits; `None` for anything else.
pub fn trace_id(text: &str) -> Option<u128> {
    hex(text, 32).ok().filter(|id| *id != 0)
}

/// What a span of a deployment is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// All of it.
    Deployment,
    /// A stage, by its place.
    Stage(u32),
    /// A rollout, there or back.
    Rollout(RolloutId),
    /// The checks of a step's gate.
    Step(RolloutId, u32),
    /// Validation.
    Validation(RolloutId),
    /// A way back that a rollout turned to.
    Back(RolloutId),
}

/// The span about a part of a deployment's trace; never 0.
pub fn span_of(trace_id: u128, part: Part) -> u64 {
    let (tag, a, b) = match part {
        Part::Deployment => (1, 0, 0),
        Part::Stage(stage) => (2, u64::from(stage), 0),
        Part::Rollout(rollout) => (3, rollout.0, 0),
        Part::Step(rollout, step) => (4, rollout.0, u64::from(step)),
        Part::Validation(rollout) => (5, rollout.0, 0),
        Part::Back(rollout) => (6, rollout.0, 0),
    };
    // Both halves of the trace, so the casts lose nothing.
    #[expect(clippy::cast_possible_truncation, reason = "the halves are taken apart")]
    let words = [(trace_id >> 64) as u64, trace_id as u64, tag, a, b];
    words.into_iter().fold(0, |state, word| mix(state ^ word)).max(1)
}

/// The finalizer of splitmix64 (Steele, Lea, Flood 2014): every bit of the input moves every bit of the output.
fn mix(word: u64) -> u64 {
    let mut word = word.wrapping_add(0x9e37_79b9_7f4a_7c15);
    word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn only_a_valid_traceparent_is_one() {
        let id = "0af7651916cd43dd8448eb211c80319c";
        let parent: TraceParent = format!("00-{id}-b7ad6b7169203331-01").parse().unwrap();
        assert_eq!(trace_id(id), Some(parent.trace_id));
        assert!(parent.sampled);
        assert_eq!(parent.to_string(), format!("00-{id}-b7ad6b7169203331-01"));
        let later: TraceParent = format!("cc-{id}-b7ad6b7169203331-02-more").parse().unwrap();
        assert!(!later.sampled);
        for bad in [
            String::new(),
            format!("00-{id}-b7ad6b7169203331"),
            format!("00-{id}-b7ad6b7169203331-01-more"),
            format!("ff-{id}-b7ad6b7169203331-01"),
            format!("00-{}-b7ad6b7169203331-01", id.to_uppercase()),
            format!("00-{}-b7ad6b7169203331-01", "0".repeat(32)),
            format!("00-{id}-0000000000000000-01"),
            format!("00-+{}-b7ad6b7169203331-01", &id[1..]),
        ] {
            assert_eq!(bad.parse::<TraceParent>(), Err(NoTraceParent), "{bad}");
        }
    }

    #[test]
    fn each_part_of_each_trace_has_a_span_of_its_own() {
        let mut spans = BTreeSet::new();
        for trace in [1, 2, 1 << 64] {
            spans.insert(span_of(trace, Part::Deployment));
            for n in 0..50 {
                let rollout = RolloutId(n);
                spans.insert(span_of(trace, Part::Stage(u32::try_from(n).unwrap())));
                spans.insert(span_of(trace, Part::Rollout(rollout)));
                spans.insert(span_of(trace, Part::Validation(rollout)));
                spans.insert(span_of(trace, Part::Back(rollout)));
                for step in 0..9 {
                    spans.insert(span_of(trace, Part::Step(rollout, step)));
                }
            }
        }
        assert_eq!(spans.len(), 3 * (1 + 50 * (4 + 9)));
    }
}
