//! Invariants, looked at while the server runs. One that doesn't hold is a bug of ours: it is counted and told, and
//! nothing else is done about it, since whatever would be done would be decided by the same code.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use hotswap_core::desired::desired;
use hotswap_core::event::Logged;
use hotswap_core::ids::NodeId;
use hotswap_core::invariants::settled::s13_explained;
use hotswap_core::invariants::{Check, Invariant, Violation, check_state, check_step, state as of_state};
use hotswap_core::observe::Observations;
use hotswap_core::spec::NodeSpec;
use hotswap_core::state::State;
use hotswap_telemetry::exposition::Labels;
use hotswap_telemetry::exposition::prometheus_client::metrics::counter::Counter;
use hotswap_telemetry::exposition::prometheus_client::metrics::family::Family;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use crate::driver::World;

/// Time between two looks at State.
const PAUSE: Duration = Duration::from_secs(1);
/// Specs that one look makes and compares: it bounds its time in a large fleet, which is gone through in turn.
const SPECS_MAX: usize = 64;
/// Nodes whose last spec is remembered for the comparison.
const REMEMBERED_MAX: usize = 4_096;
/// Looks in a row, without an event between them, that find a deployment standing still without a reason.
const UNEXPLAINED_LOOKS: u32 = 5;
/// Different violations that are told; all are counted.
const TOLD_MAX: usize = 256;

/// Violations so far.
#[derive(Debug)]
pub struct Alarms {
    counts: Family<Labels, Counter>,
    told: Mutex<BTreeSet<String>>,
}

impl Default for Alarms {
    fn default() -> Self {
        let counts = Family::<Labels, Counter>::default();
        // Each has a series from the beginning, so that its first violation is an increase.
        for invariant in CHECKED {
            drop(counts.get_or_create(&labels(invariant)));
        }
        Self {
            counts,
            told: Mutex::default(),
        }
    }
}

/// Those that can be decided from State, Observations and the next event.
const CHECKED: [Invariant; 12] = [
    Invariant::S1Budget,
    Invariant::S2Artifact,
    Invariant::S3OneRollout,
    Invariant::S4Generations,
    Invariant::S5Steps,
    Invariant::S6OneColour,
    Invariant::S7StopMeansStop,
    Invariant::S8Target,
    Invariant::S9Log,
    Invariant::S11Fencing,
    Invariant::S13Explained,
    Invariant::S14Separation,
];

fn labels(invariant: Invariant) -> Labels {
    let name = invariant.to_string();
    let number = name.split(' ').next().unwrap_or_default();
    vec![("invariant", number.to_owned())]
}

impl Alarms {
    pub(super) fn counts(&self) -> &Family<Labels, Counter> {
        &self.counts
    }

    /// Looks at an event that was committed and is about to be folded.
    pub fn step(&self, before: &State, obs: &Observations, event: &Logged) {
        self.note(check_step(before, obs, event));
    }

    /// Counts what doesn't hold, and tells what was not told before.
    pub fn note(&self, check: Check) {
        let Err(violation) = check else { return };
        self.counts.get_or_create(&labels(violation.invariant)).inc();
        let mut told = self.told.lock();
        if told.len() < TOLD_MAX && told.insert(violation.to_string()) {
            let Violation { invariant, what } = &violation;
            tracing::error!(alarm = true, %invariant, what, "an invariant does not hold: this is a bug; please report it with the log");
        }
    }

    /// Looks at State until the server ends.
    pub async fn watch(world: Arc<World>, shutdown: CancellationToken) {
        let mut specs = Specs::default();
        let mut ticks = tokio::time::interval(PAUSE);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        let (mut seen, mut unexplained) = (0, 0);
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                _ = ticks.tick() => {}
            }
            let checks = {
                let state = world.state();
                let mut checks = specs.look(&state);
                if std::mem::replace(&mut seen, state.seq) == state.seq {
                    // What is about to move has no reason to stand still; what stands still for some looks must.
                    let explained = s13_explained(&state, &world.observations(), world.now());
                    unexplained = if explained.is_ok() { 0 } else { unexplained + 1 };
                    if unexplained == UNEXPLAINED_LOOKS {
                        checks.push(explained);
                    }
                } else {
                    unexplained = 0;
                    checks.push(check_state(&state));
                }
                checks
            };
            for check in checks {
                world.alarms().note(check);
            }
        }
    }
}

/// Nodes' specs, a few at a time.
#[derive(Default)]
struct Specs {
    next: Option<NodeId>,
    before: BTreeMap<NodeId, NodeSpec>,
}

impl Specs {
    fn look(&mut self, state: &State) -> Vec<Check> {
        let mut checks = Vec::new();
        let from = self.next.take();
        let begin = from.map_or(Bound::Unbounded, Bound::Included);
        let mut nodes = state.nodes.range((begin, Bound::Unbounded)).map(|(node, _)| node);
        for node in nodes.by_ref().take(SPECS_MAX) {
            let Some(spec) = desired(state, node) else {
                continue;
            };
            checks.push(of_state::s6_one_colour(state, node, &spec));
            checks.push(of_state::s4_generations(self.before.get(node), &spec));
            if self.before.len() < REMEMBERED_MAX || self.before.contains_key(node) {
                self.before.insert(node.clone(), spec);
            }
        }
        // The next look goes on from here; at the end it begins anew.
        self.next = nodes.next().cloned();
        if self.next.is_none() {
            self.before.retain(|node, _| state.nodes.contains_key(node));
        }
        checks
    }
}
