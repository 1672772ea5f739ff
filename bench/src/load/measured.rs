//! What a load came to.

use std::time::Duration;

/// What a load came to.
#[derive(Clone, Debug, Default)]
pub(crate) struct Measured {
    /// Requests that were answered rightly.
    pub(crate) answered: u64,
    /// Those that were answered otherwise, or not at all.
    pub(crate) failed: u64,
    /// What the first of those was told.
    pub(crate) first_failure: Option<String>,
    /// How long it went on, in s.
    pub(crate) seconds: f64,
    /// Of each right answer, in µs; sorted.
    latencies_us: Vec<u32>,
}

impl Measured {
    pub(crate) fn record(&mut self, took: Duration) {
        self.answered += 1;
        self.latencies_us
            .push(u32::try_from(took.as_micros()).unwrap_or(u32::MAX));
    }

    pub(crate) fn fail(&mut self, why: String) {
        self.failed += 1;
        self.first_failure.get_or_insert(why);
    }

    pub(crate) fn merge(&mut self, other: Self) {
        self.answered += other.answered;
        self.failed += other.failed;
        self.first_failure = self.first_failure.take().or(other.first_failure);
        self.latencies_us.extend(other.latencies_us);
    }

    /// Adds another round to those before it.
    pub(crate) fn join(&mut self, round: Self) {
        self.seconds += round.seconds;
        self.merge(round);
        self.latencies_us.sort_unstable();
    }

    pub(crate) fn over(mut self, time: Duration) -> Self {
        self.seconds = time.as_secs_f64();
        self.latencies_us.sort_unstable();
        self
    }

    /// Right answers a second.
    pub(crate) fn per_second(&self) -> f64 {
        self.answered as f64 / self.seconds
    }

    /// A quantile of the latencies, in ms.
    pub(crate) fn latency_ms(&self, share: f64) -> f64 {
        let at = place(self.latencies_us.len(), share);
        self.latencies_us
            .get(at)
            .map_or(f64::NAN, |us| f64::from(*us) / 1e3)
    }
}

/// A quantile of unsorted numbers: the nearest rank.
pub(crate) fn quantile(numbers: &[f64], share: f64) -> f64 {
    let mut sorted = numbers.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    sorted
        .get(place(sorted.len(), share))
        .copied()
        .unwrap_or(f64::NAN)
}

/// The median; of an even count the mean of the middle two.
pub(crate) fn median(numbers: &[f64]) -> f64 {
    let mut sorted = numbers.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        count if count % 2 == 1 => sorted[count / 2],
        count => f64::midpoint(sorted[count / 2 - 1], sorted[count / 2]),
    }
}

/// The least: of work that takes the same each time, the time of the run that was disturbed least.
pub(crate) fn least(numbers: &[f64]) -> f64 {
    numbers.iter().copied().fold(f64::NAN, f64::min)
}

/// The place of a quantile among so many sorted ones.
fn place(count: usize, share: f64) -> usize {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a share of a count is within it"
    )]
    let rank = (count as f64 * share).ceil() as usize;
    rank.saturating_sub(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_nearest_ranks() {
        let mut measured = Measured::default();
        for us in (1..=1_000).rev() {
            measured.record(Duration::from_micros(us));
        }
        let measured = measured.over(Duration::from_secs(2));
        assert_eq!(measured.latency_ms(0.5), 0.5);
        assert_eq!(measured.latency_ms(0.999), 0.999);
        assert_eq!(measured.latency_ms(1.0), 1.0);
        assert_eq!(measured.per_second(), 500.0);
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
        assert!(median(&[]).is_nan());
        assert_eq!(least(&[3.0, 1.0, 2.0]), 1.0);
    }
}
