//! The e-values themselves: nearest points against brute force, and their expectation by full enumeration.

use crate::analysis::two_arm::{
    Bound, Counts, Pair, log_against_harm, log_for_harm, nearest_by_points, nearest_by_ratio, nearest_harm,
};

const ALTERNATIVES: [(f64, f64); 9] = [
    (0.01, 0.01),
    (0.3, 0.1),
    (0.02, 0.001),
    (0.5, 0.4),
    (0.9, 0.2),
    (0.97, 0.95),
    (0.001, 0.001),
    (0.2, 0.2),
    (0.09, 0.05),
];

const SIZES: [(u64, u64); 4] = [(5, 5), (2, 9), (9, 2), (1, 12)];

#[test]
fn nearest_points_are_nearest() {
    let bound = Bound {
        points: 0.02,
        relative: 0.4,
    };
    for (c, b) in ALTERNATIVES {
        for (n_c, n_b) in SIZES {
            let (counts, theta) = (Counts::new(n_c, 0, n_b, 0), Pair::new(c, b));
            let best = |edge: &dyn Fn(f64) -> f64| {
                (1..100_000)
                    .map(|i| f64::from(i) / 1e5)
                    .filter(|p| (1e-6..1.0 - 1e-6).contains(&edge(*p)))
                    .map(|p| counts.divergence(theta, Pair::new(edge(p), p)))
                    .fold(f64::INFINITY, f64::min)
            };
            let near = |found: f64, brute: f64| {
                assert!(
                    found <= brute + 1e-9 && found > brute - 1e-3,
                    "{theta:?} {counts:?}: {found} {brute}"
                );
            };
            for points in [0.02, 0.3, -0.1, 0.0] {
                let found = counts.divergence(theta, nearest_by_points(&counts, theta, points));
                near(found, best(&|p| p + points));
            }
            let found = counts.divergence(theta, nearest_by_ratio(&counts, theta, 0.4));
            near(found, best(&|p| 1.4 * p));
            if c < bound.above(b) {
                let found = counts.divergence(theta, nearest_harm(&counts, theta, bound));
                near(found, best(&|p| bound.above(p)));
            }
        }
    }
}

fn chance(n: u64, y: u64, p: f64) -> f64 {
    let choose = (0..y).fold(1.0, |product, i| product * (n - i) as f64 / (i + 1) as f64);
    choose * p.powf(y as f64) * (1.0 - p).powf((n - y) as f64)
}

/// The expectation of e^log over all outcomes of a block.
fn expectation(n: (u64, u64), p: (f64, f64), log: impl Fn(&Counts) -> f64) -> f64 {
    let mut sum = 0.0;
    for y_c in 0..=n.0 {
        for y_b in 0..=n.1 {
            let counts = Counts::new(n.0, y_c, n.1, y_b);
            sum += chance(n.0, y_c, p.0) * chance(n.1, y_b, p.1) * log(&counts).exp();
        }
    }
    sum
}

/// The heart of it: under every point of the null a factor is expected to be at most 1, and it would not be useful
/// if it were never expected to be nearly 1 there, and more under its alternative.
#[test]
fn no_point_of_the_null_expects_more_than_one() {
    let bound = Bound {
        points: 0.02,
        relative: 0.4,
    };
    for (c, b) in ALTERNATIVES {
        let alternative = Pair::new(c, b);
        for n in SIZES {
            let (mut most_harm, mut most_no_harm) = (0.0_f64, 0.0_f64);
            for i in 0..=60 {
                for j in 0..=60 {
                    let p = (f64::from(i) / 60.0, f64::from(j) / 60.0);
                    // Both edges of the null as well as its inside.
                    for p in [p, (bound.above(p.1).min(1.0), p.1)] {
                        if p.0 <= bound.above(p.1) {
                            let e = expectation(n, p, |counts| log_for_harm(counts, alternative, bound));
                            most_harm = most_harm.max(e);
                        }
                        if p.0 >= bound.above(p.1) {
                            let e = expectation(n, p, |counts| log_against_harm(counts, alternative, bound));
                            most_no_harm = most_no_harm.max(e);
                        }
                    }
                }
            }
            assert!(most_harm <= 1.0 + 1e-9, "{alternative:?} {n:?}: {most_harm}");
            assert!(
                most_no_harm <= 1.0 + 1e-9,
                "{alternative:?} {n:?}: {most_no_harm}"
            );
            assert!(
                most_harm > 0.9 && most_no_harm > 0.9,
                "{most_harm} {most_no_harm}"
            );
            // And under its alternative it grows.
            if c < bound.above(b) {
                let e = expectation(n, (c, b), |counts| log_against_harm(counts, alternative, bound));
                assert!(e > 1.000_000_1, "{alternative:?} {n:?}: {e}");
            } else if c > 2.0 * bound.above(b) {
                let e = expectation(n, (c, b), |counts| log_for_harm(counts, alternative, bound));
                assert!(e > 1.01, "{alternative:?} {n:?}: {e}");
            }
        }
    }
}

#[test]
fn an_empty_arm_says_nothing() {
    let bound = Bound {
        points: 0.005,
        relative: 0.5,
    };
    for counts in [
        Counts::new(0, 0, 900, 9),
        Counts::new(100, 1, 0, 0),
        Counts::new(0, 0, 0, 0),
    ] {
        assert_eq!(log_for_harm(&counts, Pair::new(0.05, 0.01), bound), 0.0);
        assert_eq!(log_against_harm(&counts, Pair::new(0.01, 0.01), bound), 0.0);
    }
}

#[test]
fn an_alternative_within_the_null_says_nothing() {
    let (counts, bound) = (
        Counts::new(100, 9, 900, 9),
        Bound {
            points: 0.005,
            relative: 0.5,
        },
    );
    assert_eq!(log_for_harm(&counts, Pair::new(0.0149, 0.01), bound), 0.0);
    assert_eq!(log_against_harm(&counts, Pair::new(0.0151, 0.01), bound), 0.0);
}
