//! One seed, split into a stream per purpose, so that one more draw for one thing changes nothing of the others.

/// What a stream of numbers is for.
#[derive(Clone, Copy, Debug)]
pub enum Stream {
    /// Environments, nodes, modules.
    Scenario = 1,
    /// What operators do, and when.
    Operators = 2,
    /// Crashes, partitions, resets.
    Faults = 3,
    /// Delays and duplicates of messages.
    Network = 4,
    /// How long disks, fetches and loads take.
    Machines = 5,
    /// Requests, errors, latencies.
    Traffic = 6,
    /// Which kinds of fault a run has at all.
    Swarm = 7,
    /// Which first answers differ from later ones, and what else is checked now and then.
    Checks = 8,
    /// By how much each leadership's epoch exceeds the one before.
    Epochs = 9,
}

/// xoshiro256** (Blackman, Vigna 2018), seeded by `SplitMix64`.
#[derive(Clone, Debug)]
pub struct Rng {
    s: [u64; 4],
}

impl Rng {
    /// The stream of a seed for one purpose.
    pub fn new(seed: u64, stream: Stream) -> Self {
        Self::part(seed, stream, 0)
    }

    /// A part of such a stream, so that one kind of fault can be left out without changing another.
    pub fn part(seed: u64, stream: Stream, part: u64) -> Self {
        let mut x = seed
            ^ (stream as u64).wrapping_mul(0xA076_1D64_78BD_642F)
            ^ part.wrapping_mul(0xE703_7ED1_A0B4_28DB);
        let s = [(); 4].map(|()| {
            x = x.wrapping_add(0x9E37_79B9_7F4A_7C15);
            let mut z = x;
            z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
            z ^ (z >> 31)
        });
        Self { s }
    }

    /// 64 bits.
    pub fn bits(&mut self) -> u64 {
        let result = self.s[1].wrapping_mul(5).rotate_left(7).wrapping_mul(9);
        let t = self.s[1] << 17;
        self.s[2] ^= self.s[0];
        self.s[3] ^= self.s[1];
        self.s[1] ^= self.s[2];
        self.s[0] ^= self.s[3];
        self.s[2] ^= t;
        self.s[3] = self.s[3].rotate_left(45);
        result
    }

    /// A number from `low` up to and with `high`.
    pub fn range(&mut self, low: u64, high: u64) -> u64 {
        let span = high.saturating_sub(low).saturating_add(1);
        let wide = u128::from(self.bits()) * u128::from(span.max(1));
        low + u64::try_from(wide >> 64).expect("a product's high half is below the span")
    }

    /// An index below `len`.
    pub fn index(&mut self, len: usize) -> usize {
        usize::try_from(self.range(0, len.saturating_sub(1) as u64)).expect("an index fits")
    }

    /// Yes in so many of a thousand cases.
    pub fn chance(&mut self, per_mille: u64) -> bool {
        self.range(0, 999) < per_mille
    }

    /// One of these.
    pub fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.index(of.len())]
    }

    /// How many of `n` tries succeed that each do so in so many of a million cases.
    pub fn successes(&mut self, n: u64, per_million: u64) -> u64 {
        let below = (u64::MAX / 1_000_000).saturating_mul(per_million);
        (0..n).filter(|_| self.bits() < below).count() as u64
    }
}
