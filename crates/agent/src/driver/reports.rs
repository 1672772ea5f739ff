//! What is told to the server, and when: a full report first, then what changed, and a heartbeat.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use hotswap_core::ids::{Incarnation, ModuleName, NodeId};
use hotswap_core::reconcile::Reconciler;
use hotswap_core::report::{Hello, NodeReport};
use hotswap_core::spec::Generation;
use hotswap_core::time::{CoreTime, Millis};
use hotswap_wire::pb;
use tokio::sync::mpsc;

use super::health::HealthMeter;
use super::observer::Observer;

/// Changes within this time go in one report.
const COALESCE: Millis = Millis(10);
/// When a report that found no room is tried again.
const RETRY_FULL: Millis = Millis(50);

/// The reporting side of a session.
pub(super) struct Reports {
    node: NodeId,
    incarnation: Incarnation,
    hello: Hello,
    heartbeat: Millis,
    seq: u64,
    session: Option<Line>,
    health: HealthMeter,
}

/// Where reports go while a session stands.
struct Line {
    to: mpsc::Sender<pb::AgentMessage>,
    /// Whether the full report is still to be sent.
    needs_full: bool,
    changed: BTreeSet<ModuleName>,
    last: CoreTime,
    not_before: CoreTime,
    highest: Generation,
    vetoes: usize,
}

impl Reports {
    pub(super) fn new(
        node: NodeId,
        incarnation: Incarnation,
        hello: Hello,
        heartbeat: Duration,
        health: HealthMeter,
    ) -> Self {
        let heartbeat = Millis(u64::try_from(heartbeat.as_millis()).unwrap_or(u64::MAX));
        Self {
            node,
            incarnation,
            hello,
            heartbeat,
            seq: 0,
            session: None,
            health,
        }
    }

    pub(super) fn set_heartbeat(&mut self, heartbeat: Millis) {
        let (least, most) = crate::config::HEARTBEAT;
        let most = u64::try_from(most.as_millis()).unwrap_or(u64::MAX);
        let least = u64::try_from(least.as_millis()).unwrap_or(0);
        self.heartbeat = Millis(heartbeat.0.clamp(least, most));
    }

    /// A session is being opened.
    pub(super) fn opened(&mut self, to: mpsc::Sender<pb::AgentMessage>, now: CoreTime) {
        self.session = Some(Line {
            to,
            needs_full: true,
            changed: BTreeSet::new(),
            last: now,
            not_before: now,
            highest: Generation::default(),
            vetoes: 0,
        });
    }

    pub(super) fn closed(&mut self) {
        self.session = None;
    }

    /// These modules changed.
    pub(super) fn note(&mut self, changed: BTreeSet<ModuleName>) {
        if let Some(line) = &mut self.session {
            line.changed.extend(changed);
        }
    }

    /// When to look again, if nothing happens.
    pub(super) fn wake_at(&self, machine: &Reconciler, observer: &Observer) -> Option<CoreTime> {
        let line = self.session.as_ref()?;
        let due = if line.has_news(machine, observer) {
            line.not_before
        } else {
            line.last + self.heartbeat
        };
        Some(due.max(line.not_before))
    }

    /// Sends a report if there is something to say and room for it.
    pub(super) fn send_due(&mut self, machine: &Reconciler, observer: &mut Observer, now: CoreTime) {
        let Some(line) = &mut self.session else { return };
        let beats = now.since(line.last) >= self.heartbeat;
        if now < line.not_before || !(beats || line.has_news(machine, observer)) {
            return;
        }
        // Where the session just ended, the word of it is on its way.
        let Ok(place) = line.to.try_reserve() else {
            line.not_before = now + RETRY_FULL;
            return;
        };
        self.seq += 1;
        let full = std::mem::take(&mut line.needs_full);
        let changed = std::mem::take(&mut line.changed);
        let vetoes: Vec<_> = machine.vetoes().cloned().collect();
        (line.highest, line.vetoes) = (machine.highest(), vetoes.len());
        (line.last, line.not_before) = (now, now + COALESCE);
        let statuses = machine.statuses();
        let modules: BTreeMap<_, _> = if full {
            statuses
                .iter()
                .map(|(module, status)| (module.clone(), Some(status.clone())))
                .collect()
        } else {
            changed
                .into_iter()
                .map(|module| (module.clone(), statuses.get(&module).cloned()))
                .collect()
        };
        let (health, loads) = (full || beats).then(|| self.health.measure(now)).unzip();
        let report = NodeReport {
            node: self.node.clone(),
            incarnation: self.incarnation,
            seq: self.seq,
            hello: full.then(|| self.hello.clone()),
            highest: machine.highest(),
            modules,
            vetoes,
            intervals: observer.take_due(now, self.heartbeat),
            health,
            loads: loads.unwrap_or_default(),
        };
        place.send((&report).into());
    }
}

impl Line {
    fn has_news(&self, machine: &Reconciler, observer: &Observer) -> bool {
        self.needs_full
            || !self.changed.is_empty()
            || observer.has_unsent()
            || self.highest != machine.highest()
            || self.vetoes != machine.vetoes().count()
    }
}
