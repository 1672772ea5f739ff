//! Customers: requests to every node at a fixed rate, from a population that waits for its answers; all are counted.

mod connection;
mod counters;
mod payments;

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use http::StatusCode;
use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::sync::Semaphore;
use tokio::task::LocalSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use connection::Connections;
pub(crate) use counters::Counters;
use payments::Mix;

/// Customers of a node: while all of them wait for an answer, none of them asks for more.
const CUSTOMERS_PER_NODE: usize = 64;

/// A node that gets requests.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    /// Its environment.
    pub(crate) environment: String,
    /// Where its ingress listens.
    pub(crate) ingress: SocketAddr,
    /// Requests a second, on average; they come at random, as independent customers do.
    pub(crate) rate: f64,
    /// Whether its customers pay in yen, too.
    pub(crate) production: bool,
}

/// The running customers. A thread of their own keeps their clock true while the fleet is busy.
#[derive(Debug)]
pub(crate) struct Traffic {
    counters: Arc<Mutex<Counters>>,
    stop: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

impl Traffic {
    /// Sends requests to all targets from now on.
    ///
    /// # Errors
    /// The operating system gives no thread.
    pub(crate) fn start(targets: Vec<Target>) -> std::io::Result<Self> {
        let counters = Arc::new(Mutex::new(Counters::new(Instant::now())));
        let stop = CancellationToken::new();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let (shared, stopped) = (Arc::clone(&counters), stop.clone());
        let thread = std::thread::Builder::new()
            .name("customers".to_owned())
            .spawn(move || {
                LocalSet::new().block_on(&runtime, async {
                    let customers = TaskTracker::new();
                    for (seed, target) in (1..).zip(targets) {
                        customers.spawn_local(customer(seed, target, Arc::clone(&shared), stopped.clone()));
                    }
                    customers.close();
                    customers.wait().await;
                });
            })?;
        Ok(Self {
            counters,
            stop,
            thread: Some(thread),
        })
    }

    /// What was counted so far.
    pub(crate) fn counters(&self) -> Counters {
        self.counters
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Sends nothing more, waits for what is on its way, and says what was counted in all.
    pub(crate) async fn stop(mut self) -> Counters {
        self.stop.cancel();
        if let Some(thread) = self.thread.take() {
            // Joining blocks, but never longer than a request may take.
            drop(tokio::task::spawn_blocking(move || thread.join()).await);
        }
        self.counters()
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// One node's customers: each request goes out when its time has come, if anybody is free to send it.
async fn customer(seed: u64, target: Target, counters: Arc<Mutex<Counters>>, stop: CancellationToken) {
    let mut random = SmallRng::seed_from_u64(seed);
    let mix = if target.production {
        Mix::production()
    } else {
        Mix::everywhere()
    };
    let node = Rc::new((Connections::new(target.ingress), target.environment));
    let on_their_way = TaskTracker::new();
    let customers = Rc::new(Semaphore::new(CUSTOMERS_PER_NODE));
    let mut due = tokio::time::Instant::now();
    loop {
        // Exponential gaps: arrivals that know nothing of each other.
        let gap = -(1.0 - random.random::<f64>()).ln() / target.rate;
        due += Duration::from_secs_f64(gap);
        tokio::select! {
            () = stop.cancelled() => break,
            () = tokio::time::sleep_until(due) => {}
        }
        if customers.available_permits() == 0 {
            drop(customers.acquire().await);
            due = due.max(tokio::time::Instant::now());
        }
        let payment = mix.pick(random.random_range(0..mix.shares())).clone();
        let (node, counters) = (Rc::clone(&node), Arc::clone(&counters));
        let customers = Rc::clone(&customers);
        on_their_way.spawn_local(async move {
            let _one = customers.acquire().await;
            let (connections, environment) = &*node;
            let sent = Instant::now();
            let result = connections.post("/payments", payment.body.clone()).await;
            let arrived = Instant::now();
            let mut counters = counters.lock().unwrap_or_else(PoisonError::into_inner);
            match result {
                Ok(answer) => match (answer.version, lost(answer.status)) {
                    (Some(version), None) => {
                        let right = payment.is_right(answer.status, &answer.body);
                        counters.answered(environment, &version, right, sent, arrived);
                    }
                    (_, Some(status)) => counters.dropped(environment, &format!("answered {status}")),
                    (None, None) if answer.status.is_server_error() => {
                        // A trap or a deadline: the node answers in the release's stead.
                        counters.answered(environment, UNNAMED, false, sent, arrived);
                    }
                    (None, None) => {
                        counters.dropped(
                            environment,
                            &format!("answered {} without a module", answer.status),
                        );
                    }
                },
                Err(reason) => counters.dropped(environment, &reason),
            }
        });
    }
    on_their_way.close();
    on_their_way.wait().await;
}

/// Under which 5xx answers count that name no version.
pub(crate) const UNNAMED: &str = "(none named)";

/// Answers that mean that the request reached no module.
fn lost(status: StatusCode) -> Option<StatusCode> {
    let lost = [
        StatusCode::BAD_GATEWAY,
        StatusCode::SERVICE_UNAVAILABLE,
        StatusCode::GATEWAY_TIMEOUT,
    ];
    lost.contains(&status).then_some(status)
}
