//! What a node counts of its users' requests, and what it says.

use std::collections::BTreeMap;

use hotswap_core::analysis::{ArmCounts, Block};
use hotswap_core::ids::{Digest, Incarnation, ModuleName};
use hotswap_core::report::{Hello, INTERVALS_KEPT_MAX, Interval, NodeReport};
use hotswap_core::spec::Observe;

use super::{Agent, Around, Later};
use crate::scenario::{Behaviour, NodePlan};

impl Agent {
    /// Closes an interval of evidence and begins the next.
    pub(super) fn close(&mut self, module: &ModuleName, observe: Observe, around: &mut Around<'_>) {
        let Some(live) = self.live.get(module).filter(|live| live.observe == Some(observe)) else {
            return;
        };
        let share = |digest: &Digest| {
            live.routes
                .iter()
                .find(|(served, _)| served == digest)
                .map_or(0, |&(_, weight)| u64::from(weight))
        };
        let requests = around.plan.rate * observe.interval.0 / 1_000;
        let candidate = arm(
            share(&observe.candidate) * requests / 100,
            &observe.candidate,
            observe.probes,
            around,
        );
        let control = observe
            .control
            .map(|digest| arm(share(&digest) * requests / 100, &digest, observe.probes, around));
        let block = Block {
            candidate,
            control: control.unwrap_or_default(),
            ..Block::default()
        };
        *self.counted.entry(observe.rollout).or_insert(0) +=
            block.candidate.requests + block.control.requests;
        let number = self.numbers.entry((module.clone(), observe.rollout)).or_insert(0);
        *number += 1;
        let interval = Interval {
            module: module.clone(),
            rollout: observe.rollout,
            step: observe.step,
            number: *number,
            block,
        };
        self.intervals.push_back(interval);
        if self.intervals.len() > INTERVALS_KEPT_MAX {
            self.intervals.pop_front();
        }
        self.report_due = true;
        around
            .later
            .push((observe.interval.0, Later::Close(module.clone(), observe)));
    }

    /// What it says now; in full at a session's start.
    pub fn report(&mut self, plan: &NodePlan, full: bool) -> Option<NodeReport> {
        let machine = self.machine.as_ref()?;
        self.report_seq += 1;
        self.report_due = false;
        let hello = full.then(|| Hello {
            hostname: plan.id.to_string(),
            environment: plan.environment.clone(),
            ingress: String::new(),
            labels: [("zone".to_owned(), plan.zone.clone())].into(),
            agent_version: "1".to_owned(),
            capabilities: ["wasm", "process", "ebpf", "kernel"].map(str::to_owned).to_vec(),
        });
        let statuses = machine.statuses();
        let mut modules: BTreeMap<ModuleName, _> = statuses
            .iter()
            .map(|(module, status)| (module.clone(), Some(status.clone())))
            .collect();
        for gone in self
            .live
            .keys()
            .filter(|module| !full && !statuses.contains_key(*module))
        {
            modules.insert(gone.clone(), None);
        }
        Some(NodeReport {
            node: self.id.clone(),
            incarnation: Incarnation(self.boot),
            seq: self.report_seq,
            hello,
            highest: machine.highest(),
            modules,
            vetoes: machine.vetoes().cloned().collect(),
            intervals: self.intervals.iter().cloned().collect(),
            health: None,
            loads: Vec::new(),
        })
    }
}

/// One arm's counts of an interval.
fn arm(requests: u64, digest: &Digest, probes: u32, around: &mut Around<'_>) -> ArmCounts {
    let (errs_per_million, slow) = match around.behaviour(digest) {
        Behaviour::Errs(per_mille) => (per_mille * 1_000, 1),
        Behaviour::Slow(factor) => (2_000, factor),
        _ => (2_000, 1),
    };
    let mut counts = ArmCounts {
        requests,
        probes: u64::from(probes),
        probe_streak: u64::from(probes),
        ..ArmCounts::default()
    };
    counts.errors = around.traffic.successes(requests, errs_per_million);
    let jitter = around.traffic.range(0, 200);
    let mut rest = requests;
    for (us, per_cent) in [(3_000, 30), (5_000, 9), (20_000, 1)] {
        let times = around.traffic.successes(requests, per_cent * 10_000).min(rest);
        counts.latency.record_many((us + jitter) * slow, times);
        rest -= times;
    }
    counts.latency.record_many((2_000 + jitter) * slow, rest);
    counts
}
