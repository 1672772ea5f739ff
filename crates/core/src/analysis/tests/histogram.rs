//! The histogram's layout and algebra.

use proptest::prelude::*;

use crate::analysis::{BINS, EDGES_PER_DOUBLING, Histogram, bin_of, edge_us, edges_of_ratio};

#[test]
fn edges_double_every_twelve_bins_and_reach_two_minutes() {
    assert_eq!(edge_us(0), 1);
    for bin in (0..BINS).step_by(EDGES_PER_DOUBLING) {
        assert_eq!(edge_us(bin), 1 << (bin / EDGES_PER_DOUBLING));
    }
    // 2^(7/12) is the 1.5 of the default tolerance, to .12 %.
    let fifth = edge_us(12 * 20 + 7) as f64 / edge_us(12 * 20) as f64;
    assert!((fifth / 1.5 - 1.0).abs() < 0.0013, "{fifth}");
    assert!(edge_us(BINS - 1) >= 120_000_000 && edge_us(BINS - 2) < 128_000_000);
    assert_eq!(edge_us(BINS + 5), edge_us(BINS - 1));
}

#[test]
fn a_ratio_is_a_whole_number_of_edges() {
    assert_eq!(
        (edges_of_ratio(1.5), edges_of_ratio(2.0), edges_of_ratio(4.0)),
        (7, 12, 24)
    );
    assert_eq!(
        (
            edges_of_ratio(1.0),
            edges_of_ratio(f64::NAN),
            edges_of_ratio(f64::INFINITY)
        ),
        (1, 1, BINS)
    );
}

#[test]
fn quantiles_are_upper_edges() {
    let mut histogram = Histogram::default();
    assert_eq!(histogram.quantile(0.5), None);
    for ms in 1..=100 {
        histogram.record(ms * 1_000);
    }
    for (q, ms) in [(0.5, 50.0), (0.95, 95.0), (0.99, 99.0), (1.0, 100.0)] {
        let ratio = histogram.quantile(q).unwrap() as f64 / (ms * 1e3);
        assert!((1.0..1.06).contains(&ratio), "{q}: {ratio}");
    }
    assert_eq!(histogram.quantile(0.0), histogram.quantile(-3.0));
    assert_eq!(histogram.quantile(f64::NAN), histogram.quantile(1.0));
}

#[test]
fn it_is_written_as_the_bins_that_hold_something() {
    let mut histogram = Histogram::default();
    histogram.record(1_000);
    histogram.record(1_001);
    histogram.record(0);
    assert_eq!(serde_json::to_string(&histogram).unwrap(), "[[0,1],[119,2]]");
    // What another wrote may be out of order, doubled, empty or out of range.
    let other: Histogram = serde_json::from_str("[[119,1],[0,1],[9999,4],[119,1],[7,0]]").unwrap();
    histogram.record_many(u64::MAX, 4);
    assert_eq!(other, histogram);
}

fn histogram() -> impl Strategy<Value = Histogram> {
    prop::collection::vec((0_u64..200_000_000, 0_u64..u64::MAX / 4), 0..20).prop_map(|records| {
        let mut histogram = Histogram::default();
        for (us, times) in records {
            histogram.record_many(us, times);
        }
        histogram
    })
}

fn merged(a: &Histogram, b: &Histogram) -> Histogram {
    let mut sum = a.clone();
    sum.merge(b);
    sum
}

proptest! {
    #[test]
    fn a_bin_holds_what_lies_between_its_edges(us in prop_oneof![0_u64..200, 0_u64..200_000_000, any::<u64>()]) {
        let bin = bin_of(us);
        prop_assert!(bin < BINS);
        prop_assert!(edge_us(bin) <= us.max(1));
        prop_assert!(bin == BINS - 1 || us < edge_us(bin + 1));
    }

    #[test]
    fn a_longer_latency_is_in_no_lower_bin(a in any::<u64>(), b in any::<u64>()) {
        prop_assert!(bin_of(a.min(b)) <= bin_of(a.max(b)));
    }

    #[test]
    fn merging_is_associative_and_commutes(a in histogram(), b in histogram(), c in histogram()) {
        prop_assert_eq!(merged(&merged(&a, &b), &c), merged(&a, &merged(&b, &c)));
        prop_assert_eq!(merged(&a, &b), merged(&b, &a));
        prop_assert_eq!(merged(&a, &Histogram::default()), a);
    }

    #[test]
    fn merging_adds_what_is_above_every_edge(a in histogram(), b in histogram(), bin in 0..BINS) {
        let sum = a.count_above(bin).saturating_add(b.count_above(bin));
        prop_assert_eq!(merged(&a, &b).count_above(bin), sum);
        prop_assert_eq!(a.count_above(0), a.count());
    }

    #[test]
    fn bins_of_a_meter_and_json_come_back(a in histogram()) {
        let mut bins = [0; BINS];
        for (bin, count) in a.iter() {
            bins[bin] = count;
        }
        prop_assert_eq!(&Histogram::from_bins(&bins), &a);
        let back: Histogram = serde_json::from_str(&serde_json::to_string(&a).unwrap()).unwrap();
        prop_assert_eq!(back, a);
    }
}
