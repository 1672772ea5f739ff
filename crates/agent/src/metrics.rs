//! What a scrape of a node shows: read from the meter when it is asked for, so that no request pays for it.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use hotswap_core::analysis::{EDGES_PER_DOUBLING, Histogram};
use hotswap_core::report::NodeHealth;
use hotswap_core::time::CoreTime;
use hotswap_telemetry::exposition::prometheus_client::collector::Collector;
use hotswap_telemetry::exposition::prometheus_client::encoding::DescriptorEncoder;
use hotswap_telemetry::exposition::prometheus_client::registry::Registry;
use hotswap_telemetry::exposition::{self, Distribution, Readings};
use hotswap_telemetry::otlp::Spans;
use hotswap_telemetry::process::Process;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::credential::Credential;
use crate::driver::HealthMeter;
use crate::meter::{Counters, Meter, Reading};

/// Releases with series of their own; a node holds a handful.
const RELEASES_SHOWN_MAX: usize = 1_000;
/// The first bucket holds latencies below 2^8 µs (0.256 ms), the last but one those below 2^22 µs (4.2 s).
const OCTAVES: std::ops::Range<usize> = 8..24;

/// Longest wait for an address that a predecessor still has, and the time between two tries.
const BIND_TIME_MAX: Duration = Duration::from_secs(5);
const BIND_PAUSE: Duration = Duration::from_millis(50);

/// Whether a session stands.
#[derive(Debug, Default)]
pub(crate) struct Line(AtomicBool);

impl Line {
    pub(crate) fn set(&self, stands: bool) {
        self.0.store(stands, Ordering::Relaxed);
    }
}

/// What a scrape reads.
pub(crate) struct Shown {
    pub(crate) node: String,
    pub(crate) environment: String,
    pub(crate) meter: Meter,
    pub(crate) line: std::sync::Arc<Line>,
    /// Who the node is to its server; `None` without TLS.
    pub(crate) credential: Option<std::sync::Arc<Credential>>,
    pub(crate) spans: Option<Spans>,
    /// From one reading to the next: each reader has its own.
    pub(crate) health: Mutex<HealthMeter>,
    pub(crate) started: Instant,
}

impl fmt::Debug for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shown")
            .field("node", &self.node)
            .finish_non_exhaustive()
    }
}

/// Serves the metrics on an address of their own.
pub(crate) async fn serve(listener: TcpListener, shown: Shown, stop: CancellationToken) {
    exposition::serve(listener, reader(shown), stop).await;
}

/// Reads the metrics whenever it is called.
pub(crate) fn reader(shown: Shown) -> impl Fn() -> String + Send + Sync + 'static {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Process));
    registry.register_collector(Box::new(shown));
    move || exposition::text(&registry)
}

/// Where metrics are served, bound.
pub(crate) async fn bind(address: SocketAddr) -> std::io::Result<(SocketAddr, TcpListener)> {
    // A predecessor that hands its node over gives the address free only when it has.
    let until = Instant::now() + BIND_TIME_MAX;
    let listener = loop {
        match TcpListener::bind(address).await {
            Err(error) if error.kind() == std::io::ErrorKind::AddrInUse && Instant::now() < until => {
                tokio::time::sleep(BIND_PAUSE).await;
            }
            bound => break bound?,
        }
    };
    Ok((listener.local_addr()?, listener))
}

impl Collector for Shown {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut readings = Readings::new(encoder);
        let mut series = self.meter.readings();
        series.truncate(RELEASES_SHOWN_MAX);
        requests(&mut readings, &series)?;
        self.machine(&mut readings)?;
        if let Some(spans) = &self.spans {
            readings.counter(
                "hotswap_spans_dropped",
                "Spans dropped because too many waited for the receiver",
                spans.dropped() as f64,
            )?;
        }
        let stands = self.line.0.load(Ordering::Relaxed);
        readings.gauge(
            "hotswap_agent_connected",
            "1 while the session with the server stands",
            f64::from(u8::from(stands)),
        )?;
        let left = self
            .credential
            .as_ref()
            .and_then(|credential| credential.not_after());
        if let Some(end) = left {
            let left = end.duration_since(SystemTime::now()).unwrap_or_default();
            readings.gauge(
                "hotswap_agent_certificate_expires_seconds",
                "Until this node's certificate expires, unless it is renewed",
                left.as_secs_f64(),
            )?;
        }
        let info = [
            ("environment", self.environment.as_str()),
            ("node", self.node.as_str()),
            ("version", env!("CARGO_PKG_VERSION")),
        ];
        readings.gauges("hotswap_agent_info", "This node", [(info, 1.0)])
    }
}

impl Shown {
    fn machine(&self, readings: &mut Readings<'_>) -> fmt::Result {
        let ms = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        let (health, _) = self
            .health
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .measure(CoreTime(ms));
        let shown: [Gauge; 5] = [
            (
                "node_cpu_usage",
                "CPU in use since the last scrape, in %",
                |health| health.cpu_percent,
            ),
            ("node_memory_usage", "Memory in use, in %", |health| {
                health.memory_percent
            }),
            (
                "node_latency",
                "Mean latency of requests since the last scrape, in ms",
                |health| health.latency_ms,
            ),
            (
                "node_error_rate",
                "Errors among requests since the last scrape, in %",
                |health| health.error_percent,
            ),
            (
                "node_requests_per_second",
                "Requests a second since the last scrape",
                |health| health.requests_per_second,
            ),
        ];
        let labels = || {
            [
                ("environment", self.environment.clone()),
                ("node", self.node.clone()),
            ]
        };
        for (name, help, value) in shown {
            readings.gauges(name, help, [(labels(), value(&health))])?;
        }
        Ok(())
    }
}

type Labels = [(&'static str, String); 3];
/// A way to end, and how many did.
type Outcome = (&'static str, fn(&Counters) -> u64);
/// A name, what it means, and where it is read.
type Gauge = (&'static str, &'static str, fn(&NodeHealth) -> f64);

fn requests(readings: &mut Readings<'_>, series: &[Reading]) -> fmt::Result {
    let outcomes: [Outcome; 5] = [
        ("ok", |counters| {
            counters.requests().saturating_sub(counters.errors)
        }),
        ("failed", |counters| {
            counters.errors.saturating_sub(counters.overloaded + counters.cut)
        }),
        ("overloaded", |counters| counters.overloaded),
        ("cut", |counters| counters.cut),
        ("abandoned", |counters| counters.abandoned),
    ];
    let by = |outcomes: &[Outcome]| -> Vec<(Labels, f64)> {
        let of = |reading: &Reading| {
            let labels = |outcome: &str| {
                [
                    ("module", reading.module.to_string()),
                    ("version", reading.version.clone()),
                    ("outcome", outcome.to_owned()),
                ]
            };
            let counted = outcomes
                .iter()
                .map(|(outcome, count)| (labels(outcome), count(&reading.counters) as f64));
            counted.collect::<Vec<_>>()
        };
        series.iter().flat_map(of).collect()
    };
    readings.counters(
        "hotswap_requests",
        "Users' requests that ended, by how; abandoned ones have no latency",
        by(&outcomes),
    )?;
    readings.counters(
        "hotswap_drops",
        "What modules at hooks dropped on purpose, as they count it",
        series.iter().map(|reading| {
            let labels = [
                ("module", reading.module.to_string()),
                ("version", reading.version.clone()),
            ];
            (labels, reading.counters.drops as f64)
        }),
    )?;
    let probes: [Outcome; 2] = [
        ("passed", |counters| {
            counters.probes.saturating_sub(counters.probe_errors)
        }),
        ("failed", |counters| counters.probe_errors),
    ];
    readings.counters(
        "hotswap_probes",
        "Probes sent to releases, by outcome",
        by(&probes),
    )?;
    readings.histograms(
        "hotswap_request_duration_seconds",
        "From a user's request to its answer's head",
        series.iter().map(|reading| {
            let labels = [
                ("module", reading.module.to_string()),
                ("version", reading.version.clone()),
            ];
            (
                labels,
                distribution(&reading.counters.latency(), reading.counters.latency_us),
            )
        }),
    )
}

/// The meter's bins, an octave in a bucket.
fn distribution(latency: &Histogram, sum_us: u64) -> Distribution {
    let mut counts = vec![0; OCTAVES.len()];
    for (bin, count) in latency.iter() {
        let octave = bin / EDGES_PER_DOUBLING;
        counts[(octave + 1).clamp(OCTAVES.start, OCTAVES.end - 1) - OCTAVES.start] += count;
    }
    let last = OCTAVES.end - 1;
    let bound = |octave: usize| {
        if octave == last {
            f64::INFINITY
        } else {
            (1_u64 << octave) as f64 / 1e6
        }
    };
    Distribution {
        sum: sum_us as f64 / 1e6,
        buckets: OCTAVES.map(bound).zip(counts).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_holds_what_is_below_its_bound() {
        let mut latency = Histogram::default();
        for us in [0, 255, 256, 1_000, 8_388_607, 8_388_608, 90_000_000] {
            latency.record(us);
        }
        let distribution = distribution(&latency, 1_500_000);
        let below = |bound: f64| -> u64 {
            let within = distribution.buckets.iter().filter(|(upper, _)| *upper <= bound);
            within.map(|(_, count)| count).sum()
        };
        assert!((distribution.sum - 1.5).abs() < 1e-9);
        assert_eq!(below(0.000_256), 2);
        assert_eq!(below(0.000_512), 3);
        assert_eq!(below(0.001_024), 4);
        assert_eq!(
            below(4.194_304),
            4,
            "8,388,607 µs is in the last bucket but for those below"
        );
        assert_eq!(below(f64::INFINITY), 7);
    }
}
