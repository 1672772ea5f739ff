//! A small seeded generator, and what the simulated traffic draws from it.

use crate::analysis::{ArmCounts, BINS, Block, Histogram, bin_of};

/// SplitMix64 (Steele, Lea, Flood, OOPSLA 2014).
pub(super) struct Rng(pub(super) u64);

impl Rng {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Above 0, at most 1.
    pub(super) fn unit(&mut self) -> f64 {
        ((self.next() >> 11) + 1) as f64 / (1_u64 << 53) as f64
    }

    /// How many of `n` are bad, each with chance `p`: jumps from one to the next.
    pub(super) fn binomial(&mut self, n: u64, p: f64) -> u64 {
        if p <= 0.0 {
            return 0;
        }
        if p > 0.5 {
            return n - self.binomial(n, 1.0 - p);
        }
        let per_log = 1.0 / (1.0 - p).ln();
        let (mut at, mut bad) = (0.0, 0);
        loop {
            at += (self.unit().ln() * per_log).floor() + 1.0;
            if at > n as f64 {
                return bad;
            }
            bad += 1;
        }
    }

    pub(super) fn normal(&mut self) -> f64 {
        (-2.0 * self.unit().ln()).sqrt() * (std::f64::consts::TAU * self.unit()).cos()
    }
}

pub(super) fn arm(requests: u64, errors: u64) -> ArmCounts {
    ArmCounts {
        requests,
        errors,
        ..ArmCounts::default()
    }
}

/// A block of errors alone.
pub(super) fn block(rng: &mut Rng, n: (u64, u64), p: (f64, f64)) -> Block {
    Block {
        candidate: arm(n.0, rng.binomial(n.0, p.0)),
        control: arm(n.1, rng.binomial(n.1, p.1)),
        ..Block::default()
    }
}

/// A distribution of latencies: equally likely bins to draw from.
pub(super) struct Shape(Vec<usize>);

impl Shape {
    /// Lognormal: median in µs, and σ of the logarithm.
    pub(super) fn lognormal(median_us: f64, sigma: f64) -> Self {
        let mut rng = Rng(7);
        let draw = |rng: &mut Rng| bin_of((median_us * (sigma * rng.normal()).exp()) as u64);
        Self((0..1 << 16).map(|_| draw(&mut rng)).collect())
    }

    /// Draws `n` latencies, each `shift` bins slower, and a share `slow` of them `by_us` slower on top.
    pub(super) fn draw(&self, rng: &mut Rng, n: u64, shift: isize, slow: f64, by_us: u64) -> Histogram {
        let mut bins = vec![0; BINS];
        for _ in 0..n {
            let random = rng.next();
            let at = self.0[(random & 0xffff) as usize]
                .saturating_add_signed(shift)
                .min(BINS - 1);
            let hit = ((random >> 16) as f64) < slow * (1_u64 << 48) as f64;
            bins[if hit {
                bin_of(crate::analysis::edge_us(at) + by_us)
            } else {
                at
            }] += 1;
        }
        Histogram::from_bins(&bins)
    }
}

/// The middle one; runs that never ended are `None` and count as the longest.
pub(super) fn median(mut runs: Vec<Option<u64>>) -> Option<u64> {
    runs.sort_by_key(|run| run.unwrap_or(u64::MAX));
    runs[runs.len() / 2]
}
