//! A loaded release as the ingress sees it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use hotswap_core::ids::Digest;
use hotswap_runtime::{Body, Closed, Failure, Instance, Overflow, Tally};
use http::{HeaderValue, Request, Response, header};

use super::error;
use crate::meter::{Counters, Ended, Meter, Series};

/// How far back it goes what a release counted before another one took its place: at least this long, where it was
/// loaded as long, and at most twice as long.
const PAST: Duration = Duration::from_secs(300);

/// A loaded release with its series. Dropping the last reference frees the instance; [`Release::close`] first, so
/// that nothing is cut.
pub struct Release {
    instance: Arc<dyn Instance>,
    series: Arc<Series>,
    label: HeaderValue,
    past: Mutex<Past>,
}

/// What a release that counts by itself had told, and had counted at two moments.
#[derive(Debug)]
struct Past {
    told: Tally,
    marked: Instant,
    marks: [Counters; 2],
}

impl Release {
    /// A release that counts into its module's series.
    pub fn new(instance: Arc<dyn Instance>, meter: &Meter) -> Arc<Self> {
        let manifest = instance.manifest();
        let series = meter.series(
            &manifest.name,
            &instance.label(),
            instance.digest(),
            manifest.health.window,
        );
        let label = HeaderValue::try_from(format!("{}/{}", manifest.name, instance.label()))
            .expect("names and versions are visible ASCII");
        let now = series.snapshot();
        let past = Mutex::new(Past {
            told: instance.tally().unwrap_or_default(),
            marked: Instant::now(),
            marks: [now.clone(), now],
        });
        Arc::new(Self {
            instance,
            series,
            label,
            past,
        })
    }

    /// Whether requests are routed to it; otherwise it acts where it was put, and counts by itself.
    pub fn is_routed(&self) -> bool {
        self.instance.manifest().kind.routes()
    }

    /// Takes in what it counted by itself.
    pub fn take_tally(&self) {
        let Some(tally) = self.instance.tally() else {
            return;
        };
        let mut past = self.past.lock().unwrap_or_else(PoisonError::into_inner);
        let new = tally.since(past.told);
        // Errors are counted of requests: those that are seen before their requests wait for them.
        let errors = new.errors.min(new.requests);
        past.told = Tally {
            errors: past.told.errors + errors,
            busy: if new.requests == 0 {
                past.told.busy
            } else {
                tally.busy
            },
            ..tally
        };
        self.series.record_many(new.requests, errors, new.busy);
        self.series.record_drops(new.drops);
        if past.marked.elapsed() >= PAST {
            past.marked = Instant::now();
            past.marks.rotate_left(1);
            past.marks[1] = self.series.snapshot();
        }
    }

    /// Its counters some minutes ago, to tell how it fared before another release took its place.
    pub fn past(&self) -> Counters {
        let past = self.past.lock().unwrap_or_else(PoisonError::into_inner);
        past.marks[0].clone()
    }

    /// The release's identity.
    pub fn digest(&self) -> Digest {
        self.instance.digest()
    }

    /// What runs it.
    pub fn instance(&self) -> &Arc<dyn Instance> {
        &self.instance
    }

    /// What it counts into.
    pub fn series(&self) -> &Arc<Series> {
        &self.series
    }

    /// Why the release's own health is bad, if it is: not ready, or a gross share of errors among its last requests.
    /// `base` is the stable release on the same node, whose equal trouble would excuse this one.
    pub fn trouble(&self, base: Option<&Self>) -> Option<String> {
        use hotswap_runtime::Readiness;
        match self.instance.readiness() {
            Readiness::Ready => {}
            Readiness::Failing(reason) => return Some(reason),
            Readiness::Closed => return Some("it was closed".to_owned()),
        }
        if let Some(complaint) = self.instance.complaint() {
            return Some(complaint);
        }
        let share = self.instance.manifest().health.gross_error_share;
        let is_gross = self.series.recent().is_gross(share);
        if !is_gross || base.is_some_and(|base| base.series.recent().is_gross(share)) {
            return None;
        }
        let (requests, errors) = self.series.recent().counts();
        Some(format!("{errors} of its last {requests} requests failed"))
    }

    /// Drains and frees it: it must be in no slot any more. Requests in flight have until the deadline.
    pub async fn close(&self, deadline: Duration) -> Closed {
        self.instance.close(deadline).await
    }

    pub(super) fn label(&self) -> &HeaderValue {
        &self.label
    }

    /// Serves a user's request and meters it; gives it back if the release was closed before it began. What the
    /// module makes of a body that was cut at its limit is not metered: the client is told 413 whatever it is.
    pub(super) async fn serve(
        &self,
        request: Request<Body>,
        overflow: Option<&Overflow>,
    ) -> Result<Response<Body>, Box<Request<Body>>> {
        let mut metered = Metered::new(&self.series);
        let result = self.instance.handle(request).await;
        if overflow.is_some_and(Overflow::happened) {
            metered.not_counted();
        }
        let failure = match result {
            Ok(response) => {
                let is_error = response.status().is_server_error();
                metered.ended(if is_error { Ended::Badly } else { Ended::Well });
                return Ok(response);
            }
            Err(failure) => failure,
        };
        if let Failure::Closed(request) = failure {
            metered.not_counted();
            return Err(request);
        }
        metered.ended(match failure {
            Failure::Overloaded { .. } => Ended::Overloaded,
            Failure::Cut => Ended::Cut,
            _ => Ended::Badly,
        });
        Ok(answer_for(&failure))
    }
}

/// What a client is told of a failure: what kind it is, nothing of the module's inside.
fn answer_for(failure: &Failure) -> Response<Body> {
    let message = match failure {
        Failure::Overloaded { .. } => "the module serves as many requests as it may",
        Failure::Closed(_) | Failure::Cut | Failure::NotStarted(_) => {
            "the module cannot serve this request now"
        }
        Failure::Trapped(_) | Failure::OutOfMemory { .. } | Failure::NoAnswer(_) => "the module failed",
        Failure::TimedOut { .. } => "the module took too long",
        Failure::NotRouted => "the module answers no requests",
    };
    let mut response = error(failure.status(), message);
    if let Failure::Overloaded { retry_after } = failure {
        let seconds = HeaderValue::from(retry_after.as_secs().max(1));
        response.headers_mut().insert(header::RETRY_AFTER, seconds);
    }
    response
}

/// One request's entry in its series; a client that goes away drops it without an end.
struct Metered<'a> {
    series: Option<&'a Series>,
    begun: Instant,
}

impl<'a> Metered<'a> {
    fn new(series: &'a Series) -> Self {
        Self {
            series: Some(series),
            begun: Instant::now(),
        }
    }

    fn ended(&mut self, ended: Ended) {
        if let Some(series) = self.series.take() {
            series.record(ended, self.begun.elapsed());
        }
    }

    fn not_counted(&mut self) {
        self.series = None;
    }
}

impl Drop for Metered<'_> {
    fn drop(&mut self) {
        if let Some(series) = self.series {
            series.record_abandoned();
        }
    }
}

#[cfg(test)]
mod tests {
    use hotswap_package::Manifest;
    use hotswap_runtime::{BoxFuture, Readiness, Usage};

    use super::*;

    /// What counts by itself, as a test says.
    struct Counting {
        manifest: Manifest,
        tally: Arc<Mutex<Tally>>,
    }

    impl Instance for Counting {
        fn digest(&self) -> Digest {
            hotswap_package::digest_of(b"counting")
        }

        fn label(&self) -> &str {
            "1.0.0"
        }

        fn manifest(&self) -> &Manifest {
            &self.manifest
        }

        fn tally(&self) -> Option<Tally> {
            Some(*self.tally.lock().unwrap())
        }

        fn readiness(&self) -> Readiness {
            Readiness::Ready
        }

        fn usage(&self) -> Usage {
            Usage::default()
        }

        fn close(&self, _deadline: Duration) -> BoxFuture<'static, Closed> {
            Box::pin(std::future::ready(Closed::default()))
        }
    }

    #[test]
    fn errors_that_are_seen_before_their_requests_are_not_lost() {
        let manifest = "name = \"counter\"\nversion = \"1.0.0\"\nkind = \"ebpf\"\nentry = \"counter.o\"\n[ebpf]\n\
                        [[ebpf.programs]]\nname = \"count\"\nattach = \"xdp\"\ninterface = \"eth0\"\n";
        let tally = Arc::<Mutex<Tally>>::default();
        let counting = Counting {
            manifest: Manifest::from_slice(manifest.as_bytes()).unwrap(),
            tally: Arc::clone(&tally),
        };
        let release = Release::new(Arc::new(counting), &Meter::new());
        let says = |requests, errors, busy| {
            *tally.lock().unwrap() = Tally {
                requests,
                errors,
                drops: errors,
                busy: Duration::from_micros(busy),
            };
            release.take_tally();
            let counters = release.series().snapshot();
            (
                counters.requests(),
                counters.errors,
                counters.drops,
                counters.latency_us,
            )
        };
        assert_eq!(says(10, 2, 100), (10, 2, 2, 100));
        assert_eq!(says(10, 5, 150), (10, 2, 5, 100), "nothing to count them of yet");
        assert_eq!(says(12, 6, 200), (12, 4, 6, 200));
        assert_eq!(says(20, 6, 200), (20, 6, 6, 200));
    }
}
