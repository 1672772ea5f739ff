//! What the client saw: every answer, and every one that did not come.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use hotswap_core::analysis::Histogram;

/// Width of the buckets in which Production's answers are counted over time.
pub(crate) const BUCKET: Duration = Duration::from_millis(100);
/// Most buckets: an hour; later answers count in the totals only.
const BUCKETS_MAX: usize = 36_000;
/// Most different reasons of dropped requests that are told apart.
const REASONS_MAX: usize = 16;

/// What one environment's nodes answered in one version's name.
#[derive(Clone, Debug, Default)]
pub(crate) struct Version {
    /// Answers, right or wrong.
    pub(crate) answers: u64,
    /// 5xx of the module's own, and answers that are not the right one.
    pub(crate) wrong: u64,
    /// From the first byte sent to the last received, in µs.
    pub(crate) latency: Histogram,
    /// When the first wrong answer had arrived.
    pub(crate) first_wrong: Option<Instant>,
    /// When the first answer had arrived.
    pub(crate) first: Option<Instant>,
    /// When the newest request was sent that it answered.
    pub(crate) last_sent: Option<Instant>,
}

/// What one environment's nodes did.
#[derive(Clone, Debug, Default)]
pub(crate) struct Environment {
    /// Requests sent, or that should have been.
    pub(crate) sent: u64,
    /// Requests without an answer of a module: transport errors, timeouts, 502, 503, 504.
    pub(crate) dropped: u64,
    /// By the version that the answer names.
    pub(crate) versions: BTreeMap<String, Version>,
    /// Answers by the time when they had arrived, in [`BUCKET`]s since the traffic began.
    buckets: Vec<u32>,
}

impl Environment {
    /// All answers of modules.
    pub(crate) fn answers(&self) -> u64 {
        self.versions.values().map(|version| version.answers).sum()
    }

    /// All wrong answers.
    pub(crate) fn wrong(&self) -> u64 {
        self.versions.values().map(|version| version.wrong).sum()
    }
}

/// All that was counted. Clones are snapshots.
#[derive(Clone, Debug)]
pub(crate) struct Counters {
    began: Instant,
    /// By environment.
    pub(crate) environments: BTreeMap<String, Environment>,
    /// Why requests were dropped, and how many.
    pub(crate) reasons: BTreeMap<String, u64>,
}

impl Counters {
    /// Nothing yet.
    pub(crate) fn new(began: Instant) -> Self {
        Self {
            began,
            environments: BTreeMap::new(),
            reasons: BTreeMap::new(),
        }
    }

    fn environment(&mut self, name: &str) -> &mut Environment {
        if !self.environments.contains_key(name) {
            self.environments.insert(name.to_owned(), Environment::default());
        }
        self.environments
            .get_mut(name)
            .expect("it is there or was just inserted")
    }

    /// A request that a module answered.
    pub(super) fn answered(
        &mut self,
        environment: &str,
        version: &str,
        right: bool,
        sent: Instant,
        arrived: Instant,
    ) {
        let bucket = usize::try_from(arrived.duration_since(self.began).as_millis() / BUCKET.as_millis());
        let environment = self.environment(environment);
        environment.sent += 1;
        if let Some(bucket) = bucket.ok().filter(|&bucket| bucket < BUCKETS_MAX) {
            if environment.buckets.len() <= bucket {
                environment.buckets.resize(bucket + 1, 0);
            }
            environment.buckets[bucket] += 1;
        }
        if !environment.versions.contains_key(version) {
            environment
                .versions
                .insert(version.to_owned(), Version::default());
        }
        let counts = environment
            .versions
            .get_mut(version)
            .expect("it is there or was just inserted");
        counts.answers += 1;
        counts.first.get_or_insert(arrived);
        counts.last_sent = counts.last_sent.max(Some(sent));
        counts
            .latency
            .record(u64::try_from(arrived.duration_since(sent).as_micros()).unwrap_or(u64::MAX));
        if !right {
            counts.wrong += 1;
            counts.first_wrong.get_or_insert(arrived);
        }
    }

    /// A request that got no answer of a module.
    pub(super) fn dropped(&mut self, environment: &str, reason: &str) {
        let counts = self.environment(environment);
        counts.sent += 1;
        counts.dropped += 1;
        let known = self.reasons.contains_key(reason) || self.reasons.len() < REASONS_MAX;
        *self
            .reasons
            .entry(if known { reason } else { "other reasons" }.to_owned())
            .or_default() += 1;
    }

    /// All requests that modules answered.
    pub(crate) fn answers(&self) -> u64 {
        self.environments.values().map(Environment::answers).sum()
    }

    /// All requests that were dropped.
    pub(crate) fn dropped_total(&self) -> u64 {
        self.environments
            .values()
            .map(|environment| environment.dropped)
            .sum()
    }

    /// All wrong answers.
    pub(crate) fn wrong(&self) -> u64 {
        self.environments.values().map(Environment::wrong).sum()
    }

    /// What a version answered in an environment.
    pub(crate) fn version(&self, environment: &str, version: &str) -> Option<&Version> {
        self.environments.get(environment)?.versions.get(version)
    }

    /// Answers in an environment between two times, by whole buckets.
    pub(crate) fn answers_between(&self, environment: &str, from: Instant, to: Instant) -> u64 {
        let at = |time: Instant| {
            usize::try_from(time.saturating_duration_since(self.began).as_millis() / BUCKET.as_millis())
                .unwrap_or(usize::MAX)
        };
        let Some(counts) = self.environments.get(environment) else {
            return 0;
        };
        let end = at(to).saturating_add(1).min(counts.buckets.len());
        counts
            .buckets
            .get(at(from).min(end)..end)
            .into_iter()
            .flatten()
            .map(|&count| u64::from(count))
            .sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_count_by_version_and_time() {
        let began = Instant::now();
        let at = |ms| began + Duration::from_millis(ms);
        let mut counters = Counters::new(began);
        counters.answered("Production", "2.0.0", true, at(0), at(2));
        counters.answered("Production", "2.2.0", false, at(240), at(250));
        counters.answered("Production", "2.2.0", true, at(230), at(260));
        counters.dropped("Production", "timeout");
        let candidate = counters.version("Production", "2.2.0").expect("it answered");
        assert_eq!((candidate.answers, candidate.wrong), (2, 1));
        assert_eq!(
            (candidate.first_wrong, candidate.last_sent),
            (Some(at(250)), Some(at(240)))
        );
        assert_eq!(counters.answers_between("Production", at(100), at(300)), 2);
        assert_eq!(counters.answers_between("Production", at(0), at(50)), 1);
        assert_eq!(
            (counters.answers(), counters.dropped_total(), counters.wrong()),
            (3, 1, 1)
        );
    }
}
