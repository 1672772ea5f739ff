//! Latency histograms with geometric edges: any two merge, and a slowdown is a shift by whole edges.

use serde::{Deserialize, Serialize};

/// Edges in one doubling of latency: γ = 2^(1/12), so bins are 5.9 % wide, ×2 is 12 edges exactly and ×1.5 is 7
/// edges to within .12 % (2^(7/12) = 1.4983).
pub const EDGES_PER_DOUBLING: usize = 12;

/// Number of bins: bin `i` holds latencies from [`edge_us`]`(i)` up to below [`edge_us`]`(i + 1)`. The first holds
/// 0 and 1 µs, the last everything from 120 s.
pub const BINS: usize = 324;

/// 2^(k/12) in 40 binary places, rounded down.
const STEP_40: [u64; EDGES_PER_DOUBLING] = [
    1_099_511_627_776,
    1_164_891_991_447,
    1_234_160_073_853,
    1_307_547_050_779,
    1_385_297_844_439,
    1_467_671_940_878,
    1_554_944_255_987,
    1_647_406_053_004,
    1_745_365_914_582,
    1_849_150_772_653,
    1_959_106_999_532,
    2_075_601_563_905,
];

const EDGES: [u64; BINS] = edges();

const fn edges() -> [u64; BINS] {
    let mut edges = [0; BINS];
    let mut i = 0;
    while i < BINS {
        let (octave, k) = (i / EDGES_PER_DOUBLING, i % EDGES_PER_DOUBLING);
        // An octave's first edge is a power of two; the others are irrational, so their ceiling is the floor + 1.
        #[expect(clippy::cast_possible_truncation, reason = "below 2^28")]
        let whole = ((STEP_40[k] as u128) << octave >> 40) as u64;
        edges[i] = if k == 0 { whole } else { whole + 1 };
        i += 1;
    }
    edges
}

/// Lower edge of a bin in µs, rounded up to a whole one; the last bin's for any larger number.
pub fn edge_us(bin: usize) -> u64 {
    EDGES[bin.min(BINS - 1)]
}

/// The bin that holds a latency: the last whose lower edge does not exceed it. No logarithm: fit for a meter's
/// hot path.
pub fn bin_of(us: u64) -> usize {
    let octave = us.max(1).ilog2() as usize;
    let first = octave * EDGES_PER_DOUBLING;
    if first >= BINS {
        return BINS - 1;
    }
    let edges = &EDGES[first..(first + EDGES_PER_DOUBLING).min(BINS)];
    first + edges.iter().filter(|edge| **edge <= us).count().saturating_sub(1)
}

/// The whole number of edges nearest to a ratio of latencies (1.5 → 7, 2 → 12), at least one.
pub fn edges_of_ratio(ratio: f64) -> usize {
    let edges = (ratio.max(1.0).log2() * EDGES_PER_DOUBLING as f64).round();
    // Below BINS by the clamp, so the cast is exact.
    #[expect(clippy::cast_possible_truncation, reason = "clamped to 1..BINS")]
    let edges = edges.clamp(1.0, BINS as f64) as usize;
    edges
}

/// A bin as it is kept; anything beyond the last bin stays beyond it.
fn bin_number(bin: usize) -> u16 {
    u16::try_from(bin).unwrap_or(u16::MAX)
}

/// Counts of latencies by bin. Sparse: only bins that hold something are kept and serialised, as `[bin, count]`
/// pairs in order. Counts saturate.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(from = "Vec<(u16, u64)>", into = "Vec<(u16, u64)>")]
pub struct Histogram {
    /// Ordered by bin, no zero counts, every bin below [`BINS`].
    bins: Vec<(u16, u64)>,
}

impl Histogram {
    /// A histogram of a meter's counters, one per bin in order; counters beyond [`BINS`] count in the last bin.
    pub fn from_bins(counts: &[u64]) -> Self {
        let pairs = counts.iter().enumerate().filter(|(_, count)| **count > 0);
        Self::from_pairs(pairs.map(|(bin, count)| (bin_number(bin), *count)).collect())
    }

    fn from_pairs(mut pairs: Vec<(u16, u64)>) -> Self {
        let last = bin_number(BINS - 1);
        pairs.retain(|(_, count)| *count > 0);
        for (bin, _) in &mut pairs {
            *bin = (*bin).min(last);
        }
        pairs.sort_unstable_by_key(|(bin, _)| *bin);
        pairs.dedup_by(|next, kept| {
            let same = next.0 == kept.0;
            if same {
                kept.1 = kept.1.saturating_add(next.1);
            }
            same
        });
        Self { bins: pairs }
    }

    /// Counts one latency in µs.
    pub fn record(&mut self, us: u64) {
        self.record_many(us, 1);
    }

    /// Counts a latency in µs so many times.
    pub fn record_many(&mut self, us: u64, times: u64) {
        if times == 0 {
            return;
        }
        let bin = bin_number(bin_of(us));
        match self.bins.binary_search_by_key(&bin, |(bin, _)| *bin) {
            Ok(at) => self.bins[at].1 = self.bins[at].1.saturating_add(times),
            Err(at) => self.bins.insert(at, (bin, times)),
        }
    }

    /// Adds another's counts.
    pub fn merge(&mut self, other: &Self) {
        if self.bins.is_empty() {
            self.bins.clone_from(&other.bins);
        } else if !other.bins.is_empty() {
            let mut pairs = std::mem::take(&mut self.bins);
            pairs.extend_from_slice(&other.bins);
            *self = Self::from_pairs(pairs);
        }
    }

    /// How many latencies it holds.
    pub fn count(&self) -> u64 {
        self.bins
            .iter()
            .fold(0, |sum, (_, count)| sum.saturating_add(*count))
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.bins.is_empty()
    }

    /// The bins that hold something, in order.
    pub fn iter(&self) -> impl Iterator<Item = (usize, u64)> + '_ {
        self.bins.iter().map(|(bin, count)| (usize::from(*bin), *count))
    }

    /// How many latencies are at or above the lower edge of a bin.
    pub fn count_above(&self, bin: usize) -> u64 {
        self.iter()
            .filter(|(at, _)| *at >= bin)
            .fold(0, |sum, (_, count)| sum.saturating_add(count))
    }

    /// The latency in µs below which a share `q` of what it holds lies, as the upper edge of that bin; `None`
    /// where it holds nothing. `q` outside 0–1 is clamped. Never more than 5.9 % above the true quantile
    /// (above 17 µs, where edges are a µs apart or more).
    pub fn quantile(&self, q: f64) -> Option<u64> {
        let count = self.count();
        let share = if q.is_nan() { 1.0 } else { q.clamp(0.0, 1.0) };
        let mut below = 0.0;
        for (bin, held) in self.iter() {
            below += held as f64;
            if below >= share * count as f64 {
                return Some(edge_us(bin + 1));
            }
        }
        self.bins.last().map(|(bin, _)| edge_us(usize::from(*bin) + 1))
    }
}

impl From<Vec<(u16, u64)>> for Histogram {
    fn from(pairs: Vec<(u16, u64)>) -> Self {
        Self::from_pairs(pairs)
    }
}

impl From<Histogram> for Vec<(u16, u64)> {
    fn from(histogram: Histogram) -> Self {
        histogram.bins
    }
}
