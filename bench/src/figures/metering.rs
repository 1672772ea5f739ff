//! What metering a request costs by itself: it is part of the ingress and can't be left out there.

use std::hint::black_box;
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use hotswap_agent::meter::{Ended, Meter, Series};
use hotswap_core::ids::Digest;

use super::Setting;
use crate::load::least;

/// Threads that meter at once into one series: a core each, as an ingress does.
const THREADS: usize = 2;

/// ns of one thread for each request: two looks at the clock and a record.
pub(super) fn nanoseconds(setting: &Setting) -> f64 {
    let meter = Meter::new();
    let name = "payment-processor".parse().expect("a literal name is valid");
    let series = meter.series(&name, &"1.0.0", Digest([0; 32]), 100);
    let requests = setting.pick(500_000, 5_000_000);
    let rounds: Vec<f64> = (0..setting.pick(3, 7))
        .map(|_| round(&series, requests))
        .collect();
    least(&rounds)
}

fn round(series: &Arc<Series>, requests: u32) -> f64 {
    let began = Instant::now();
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                for _ in 0..requests {
                    let begun = Instant::now();
                    series.record(black_box(Ended::Well), begun.elapsed());
                }
            });
        }
    });
    began.elapsed().as_secs_f64() * 1e9 / f64::from(requests)
}
