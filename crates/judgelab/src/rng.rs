//! Seeded draws.

/// SplitMix64 (Steele, Lea, Flood, OOPSLA 2014).
pub(crate) struct Rng(u64);

/// Up to this mean a binomial is drawn by jumping from one success to the next.
const JUMPS_MEAN_MAX: f64 = 12.0;

impl Rng {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x5851_f42d_4c95_7f2d)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Above 0, at most 1.
    pub(crate) fn unit(&mut self) -> f64 {
        ((self.next() >> 11) + 1) as f64 / (1_u64 << 53) as f64
    }

    pub(crate) fn normal(&mut self) -> f64 {
        (-2.0 * self.unit().ln()).sqrt() * (std::f64::consts::TAU * self.unit()).cos()
    }

    /// How many of `n` happen, each with chance `p`. Exact.
    pub(crate) fn binomial(&mut self, n: u64, p: f64) -> u64 {
        if n == 0 || p <= 0.0 {
            return 0;
        }
        if p >= 1.0 {
            return n;
        }
        if p > 0.5 {
            return n - self.binomial(n, 1.0 - p);
        }
        if n as f64 * p < JUMPS_MEAN_MAX {
            return self.binomial_by_jumps(n, p);
        }
        self.binomial_by_rejection(n, p)
    }

    fn binomial_by_jumps(&mut self, n: u64, p: f64) -> u64 {
        let per_log = 1.0 / (-p).ln_1p();
        let (mut at, mut happened) = (0.0, 0);
        loop {
            at += (self.unit().ln() * per_log).floor() + 1.0;
            if at > n as f64 {
                return happened;
            }
            happened += 1;
        }
    }

    /// BTRS: Hörmann, J. Stat. Comput. Simul. 46 (1993).
    fn binomial_by_rejection(&mut self, n: u64, p: f64) -> u64 {
        let (count, q) = (n as f64, 1.0 - p);
        let deviation = (count * p * q).sqrt();
        let b = 1.15 + 2.53 * deviation;
        let a = -0.0873 + 0.0248 * b + 0.01 * p;
        let centre = count * p + 0.5;
        let accepted_at_once = 0.92 - 4.2 / b;
        let scale = (2.83 + 5.1 / b) * deviation;
        let mode = ((count + 1.0) * p).floor();
        let odds = p / q;
        loop {
            let (u, v) = (self.unit() - 0.5, self.unit());
            let us = 0.5 - u.abs();
            let k = ((2.0 * a / us + b) * u + centre).floor();
            if !(0.0..=count).contains(&k) {
                continue;
            }
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to n")]
            let drawn = k as u64;
            if us >= 0.07 && v <= accepted_at_once {
                return drawn;
            }
            let log_v = (v * scale / (a / (us * us) + b)).ln();
            let bound = (mode + 0.5) * ((mode + 1.0) / (odds * (count - mode + 1.0))).ln()
                + (count + 1.0) * ((count - mode + 1.0) / (count - k + 1.0)).ln()
                + (k + 0.5) * (odds * (count - k + 1.0) / (k + 1.0)).ln()
                + stirling_rest(mode)
                + stirling_rest(count - mode)
                - stirling_rest(k)
                - stirling_rest(count - k);
            if log_v <= bound {
                return drawn;
            }
        }
    }
}

/// What Stirling's formula for ln k! leaves.
fn stirling_rest(k: f64) -> f64 {
    const SMALL: [f64; 10] = [
        0.081_061_466_795_327_3,
        0.041_340_695_955_409_3,
        0.027_677_925_684_998_3,
        0.020_790_672_103_765_1,
        0.016_644_691_189_821_2,
        0.013_876_128_823_070_7,
        0.011_896_709_945_891_8,
        0.010_411_265_261_972_1,
        0.009_255_462_182_712_73,
        0.008_330_563_433_362_87,
    ];
    if k < 9.5 {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a whole number below 10"
        )]
        return SMALL[k as usize];
    }
    let kp1 = k + 1.0;
    let square = kp1 * kp1;
    (1.0 / 12.0 - (1.0 / 360.0 - 1.0 / 1_260.0 / square) / square) / kp1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn binomials_have_their_mean_and_variance() {
        for (n, p) in [
            (40, 0.1),
            (1_000, 0.02),
            (1_000, 0.3),
            (1_000_000, 0.7),
            (30, 0.5),
        ] {
            let mut rng = Rng::new(7);
            let draws: Vec<f64> = (0..40_000).map(|_| rng.binomial(n, p) as f64).collect();
            let mean = draws.iter().sum::<f64>() / draws.len() as f64;
            let variance = draws.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / draws.len() as f64;
            let (m, v) = (n as f64 * p, n as f64 * p * (1.0 - p));
            assert!((mean - m).abs() < 5.0 * (v / 40_000.0).sqrt(), "{n} {p}: {mean}");
            assert!((variance / v - 1.0).abs() < 0.05, "{n} {p}: {variance}");
        }
    }
}
