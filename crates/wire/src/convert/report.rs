//! Reports.

use std::collections::BTreeMap;

use hotswap_core::analysis::{ArmCounts, BINS, Block, Histogram};
use hotswap_core::ids::{Digest, Incarnation, ModuleName, RolloutId};
use hotswap_core::report::{
    Hello, Interval, LABELS_MAX, LOADS_MAX, ModuleStatus, NodeHealth, NodeReport, ReleaseLoad, ReleaseStatus,
    SmokeOutcome, Veto,
};
use hotswap_core::spec::MODULES_PER_NODE_MAX;
use hotswap_core::time::Millis;

use super::parts::{
    account_in, account_out, digest_in, digest_opt_in, digest_out, generation_in, generation_out, list_in,
    module_in, optional, reason_in, reason_out, release_in, release_out, required, routes_in, routes_out,
    smoke_run_in, smoke_run_out, text_in,
};
use super::{CAPABILITIES_MAX, FAILURES_MAX, INTERVALS_MAX, RELEASES_MAX, VETOES_MAX};
use crate::PROTOCOL;
use crate::malformed::{At as _, Fault, Malformed};
use crate::pb;

impl From<&NodeReport> for pb::NodeReport {
    fn from(report: &NodeReport) -> Self {
        Self {
            node: report.node.to_string(),
            incarnation: report.incarnation.0,
            seq: report.seq,
            hello: report.hello.as_ref().map(hello_out),
            highest: Some(generation_out(report.highest)),
            modules: report
                .modules
                .iter()
                .map(|(name, status)| pb::ModuleEntry {
                    name: name.to_string(),
                    status: status.as_ref().map(status_out),
                })
                .collect(),
            vetoes: report.vetoes.iter().map(veto_out).collect(),
            intervals: report.intervals.iter().map(interval_out).collect(),
            health: report.health.map(health_out),
            loads: report.loads.iter().map(load_out).collect(),
        }
    }
}

impl TryFrom<pb::NodeReport> for NodeReport {
    type Error = Malformed;
    fn try_from(report: pb::NodeReport) -> Result<Self, Malformed> {
        let mut modules = BTreeMap::new();
        // Twice as many as a spec may name: a full report may also name as many that are leaving.
        for (name, status) in list_in(
            "modules",
            report.modules,
            2 * MODULES_PER_NODE_MAX,
            module_entry_in,
        )? {
            if modules.contains_key(&name) {
                return Err(Fault::Twice(name.to_string()).at("modules"));
            }
            modules.insert(name, status);
        }
        Ok(Self {
            node: report.node.parse().map_err(Fault::invalid).at("node")?,
            incarnation: Incarnation(report.incarnation),
            seq: report.seq,
            hello: optional("hello", report.hello, hello_in)?,
            highest: generation_in(report.highest),
            modules,
            vetoes: list_in("vetoes", report.vetoes, VETOES_MAX, veto_in)?,
            intervals: list_in("intervals", report.intervals, INTERVALS_MAX, |interval| {
                interval_in(&interval)
            })?,
            health: optional("health", report.health, health_in)?,
            loads: list_in("loads", report.loads, LOADS_MAX, load_in)?,
        })
    }
}

fn hello_out(hello: &Hello) -> pb::Hello {
    pb::Hello {
        protocol: PROTOCOL,
        hostname: hello.hostname.clone(),
        environment: hello.environment.to_string(),
        ingress: hello.ingress.clone(),
        labels: hello.labels.clone().into_iter().collect(),
        agent_version: hello.agent_version.clone(),
        capabilities: hello.capabilities.clone(),
    }
}

fn hello_in(hello: pb::Hello) -> Result<Hello, Malformed> {
    // First, since what follows may mean something else in another protocol.
    match hello.protocol {
        0 => return Err(Fault::Missing.at("protocol")),
        PROTOCOL => {}
        theirs => {
            return Err(Fault::Protocol {
                theirs,
                ours: PROTOCOL,
            }
            .at("protocol"));
        }
    }
    if hello.labels.len() > LABELS_MAX {
        return Err(Fault::TooMany {
            is: hello.labels.len(),
            max: LABELS_MAX,
        }
        .at("labels"));
    }
    let labels = hello
        .labels
        .into_iter()
        .map(|(key, value)| Ok((text_in(key)?, text_in(value)?)));
    Ok(Hello {
        hostname: text_in(hello.hostname).at("hostname")?,
        environment: hello
            .environment
            .parse()
            .map_err(Fault::invalid)
            .at("environment")?,
        ingress: text_in(hello.ingress).at("ingress")?,
        labels: labels.collect::<Result<_, Fault>>().at("labels")?,
        agent_version: text_in(hello.agent_version).at("agent_version")?,
        capabilities: list_in("capabilities", hello.capabilities, CAPABILITIES_MAX, text_in)?,
    })
}

fn module_entry_in(entry: pb::ModuleEntry) -> Result<(ModuleName, Option<ModuleStatus>), Malformed> {
    Ok((
        module_in(&entry.name).at("name")?,
        optional("status", entry.status, status_in)?,
    ))
}

fn status_out(status: &ModuleStatus) -> pb::ModuleStatus {
    pb::ModuleStatus {
        rollout: status.rollout.0,
        releases: status
            .releases
            .iter()
            .map(|(digest, status)| release_status_out(digest, status))
            .collect(),
        routes: routes_out(&status.routes),
        preview: status.preview.as_ref().map(digest_out),
        trial: status.trial.as_ref().map(digest_out),
        committed: status.committed.as_ref().map(digest_out),
        smoke: status.smoke.as_ref().map(smoke_out),
    }
}

fn status_in(status: pb::ModuleStatus) -> Result<ModuleStatus, Malformed> {
    let mut releases = BTreeMap::new();
    for (digest, release) in list_in("releases", status.releases, RELEASES_MAX, release_status_in)? {
        if releases.insert(digest, release).is_some() {
            return Err(Fault::Twice(digest.to_string()).at("releases"));
        }
    }
    Ok(ModuleStatus {
        rollout: RolloutId(status.rollout),
        releases,
        routes: routes_in("routes", status.routes)?,
        preview: digest_opt_in(status.preview).at("preview")?,
        trial: digest_opt_in(status.trial).at("trial")?,
        committed: digest_opt_in(status.committed).at("committed")?,
        smoke: optional("smoke", status.smoke, smoke_in)?,
    })
}

fn release_status_out(digest: &Digest, status: &ReleaseStatus) -> pb::ReleaseEntry {
    use pb::release_entry::State;
    let state = match status {
        ReleaseStatus::Fetching => State::Fetching(pb::Empty {}),
        ReleaseStatus::Loading => State::Loading(pb::Empty {}),
        ReleaseStatus::Prefetched => State::Prefetched(pb::Empty {}),
        ReleaseStatus::Ready { healthy_for } => State::Ready(healthy_for.0),
        ReleaseStatus::Unhealthy { reason } => State::Unhealthy(reason_out(reason)),
        ReleaseStatus::Failed { reason } => State::Failed(account_out(reason)),
    };
    pb::ReleaseEntry {
        digest: digest_out(digest),
        state: Some(state),
    }
}

fn release_status_in(entry: pb::ReleaseEntry) -> Result<(Digest, ReleaseStatus), Malformed> {
    use pb::release_entry::State;
    let status = match entry.state.ok_or_else(|| Fault::Missing.at("state"))? {
        State::Fetching(_) => ReleaseStatus::Fetching,
        State::Loading(_) => ReleaseStatus::Loading,
        State::Prefetched(_) => ReleaseStatus::Prefetched,
        State::Ready(healthy_for) => ReleaseStatus::Ready {
            healthy_for: Millis(healthy_for),
        },
        State::Unhealthy(reason) => ReleaseStatus::Unhealthy {
            reason: reason_in(reason).at("unhealthy")?,
        },
        State::Failed(reason) => ReleaseStatus::Failed {
            reason: account_in(reason).at("failed")?,
        },
    };
    Ok((digest_in(&entry.digest).at("digest")?, status))
}

fn veto_out(veto: &Veto) -> pb::Veto {
    pb::Veto {
        module: veto.module.to_string(),
        rollout: veto.rollout.0,
        release: Some(release_out(&veto.release)),
        base: veto.base.as_ref().map(release_out),
        reason: reason_out(&veto.reason),
    }
}

fn veto_in(veto: pb::Veto) -> Result<Veto, Malformed> {
    Ok(Veto {
        module: module_in(&veto.module).at("module")?,
        rollout: RolloutId(veto.rollout),
        release: required("release", veto.release, release_in)?,
        base: optional("base", veto.base, release_in)?,
        reason: reason_in(veto.reason).at("reason")?,
    })
}

fn smoke_out(smoke: &SmokeOutcome) -> pb::SmokeOutcome {
    pb::SmokeOutcome {
        run: Some(smoke_run_out(&smoke.run)),
        passed: smoke.passed,
        failures: smoke
            .failures
            .iter()
            .take(FAILURES_MAX)
            .map(|failure| reason_out(failure))
            .collect(),
    }
}

fn smoke_in(smoke: pb::SmokeOutcome) -> Result<SmokeOutcome, Malformed> {
    Ok(SmokeOutcome {
        run: required("run", smoke.run.as_ref(), smoke_run_in)?,
        passed: smoke.passed,
        failures: list_in("failures", smoke.failures, FAILURES_MAX, reason_in)?,
    })
}

fn interval_out(interval: &Interval) -> pb::Interval {
    pb::Interval {
        module: interval.module.to_string(),
        rollout: interval.rollout.0,
        step: interval.step,
        number: interval.number,
        candidate: arm_out(&interval.block.candidate),
        control: arm_out(&interval.block.control),
    }
}

fn interval_in(interval: &pb::Interval) -> Result<Interval, Malformed> {
    if interval.number == 0 {
        return Err(Fault::Missing.at("number"));
    }
    Ok(Interval {
        module: module_in(&interval.module).at("module")?,
        rollout: RolloutId(interval.rollout),
        step: interval.step,
        number: interval.number,
        block: Block {
            candidate: optional("candidate", interval.candidate.as_ref(), arm_in)?.unwrap_or_default(),
            control: optional("control", interval.control.as_ref(), arm_in)?.unwrap_or_default(),
            // A report is one node's: the server says which by whom it is from.
            nodes: Vec::new(),
        },
    })
}

fn arm_out(arm: &ArmCounts) -> Option<pb::ArmCounts> {
    if *arm == ArmCounts::default() {
        return None;
    }
    let mut latency_bins = Vec::new();
    let mut latency_counts = Vec::new();
    let mut before = 0;
    for (bin, count) in arm.latency.iter() {
        latency_bins.push(u32::try_from(bin - before).expect("bins are below BINS"));
        latency_counts.push(count);
        before = bin;
    }
    Some(pb::ArmCounts {
        requests: arm.requests,
        errors: arm.errors,
        latency_bins,
        latency_counts,
        probes: arm.probes,
        probe_errors: arm.probe_errors,
        probe_streak: arm.probe_streak,
        cpu_us: arm.cpu_us,
        memory_kib: arm.memory_kib,
        memory_readings: arm.memory_readings,
    })
}

fn arm_in(arm: &pb::ArmCounts) -> Result<ArmCounts, Malformed> {
    Ok(ArmCounts {
        requests: arm.requests,
        errors: at_most("errors", arm.errors, "requests", arm.requests)?,
        latency: latency_in(&arm.latency_bins, &arm.latency_counts)?,
        probes: arm.probes,
        probe_errors: at_most("probe_errors", arm.probe_errors, "probes", arm.probes)?,
        probe_streak: arm.probe_streak,
        cpu_us: arm.cpu_us,
        memory_kib: arm.memory_kib,
        memory_readings: arm.memory_readings,
    })
}

fn latency_in(bins: &[u32], counts: &[u64]) -> Result<Histogram, Malformed> {
    if bins.len() > BINS {
        return Err(Fault::TooMany {
            is: bins.len(),
            max: BINS,
        }
        .at("latency_bins"));
    }
    if bins.len() != counts.len() {
        let fault = Fault::Invalid(format!("has {} counts for {} bins", counts.len(), bins.len()));
        return Err(fault.at("latency_counts"));
    }
    let mut pairs = Vec::with_capacity(bins.len());
    let mut at: u32 = 0;
    for (index, (distance, count)) in bins.iter().zip(counts).enumerate() {
        let bin = at
            .checked_add(*distance)
            .filter(|bin| (*bin as usize) < BINS && (index == 0 || *distance > 0));
        at = bin
            .ok_or_else(|| Fault::Invalid(format!("entry {index} is out of order or above {BINS} bins")))
            .at("latency_bins")?;
        pairs.push((u16::try_from(at).expect("below BINS"), *count));
    }
    Ok(Histogram::from(pairs))
}

fn at_most(field: &str, value: u64, of: &str, limit: u64) -> Result<u64, Malformed> {
    if value > limit {
        return Err(Fault::Invalid(format!("{value} of {limit} {of}")).at(field));
    }
    Ok(value)
}

fn health_out(health: NodeHealth) -> pb::NodeHealth {
    pb::NodeHealth {
        cpu_percent: health.cpu_percent,
        memory_percent: health.memory_percent,
        requests_per_second: health.requests_per_second,
        error_percent: health.error_percent,
        samples: health.samples,
        latency_ms: health.latency_ms,
    }
}

fn health_in(health: pb::NodeHealth) -> Result<NodeHealth, Malformed> {
    Ok(NodeHealth {
        cpu_percent: measured("cpu_percent", health.cpu_percent)?,
        memory_percent: measured("memory_percent", health.memory_percent)?,
        requests_per_second: measured("requests_per_second", health.requests_per_second)?,
        error_percent: measured("error_percent", health.error_percent)?,
        samples: health.samples,
        latency_ms: measured("latency_ms", health.latency_ms)?,
    })
}

fn measured(field: &str, value: f64) -> Result<f64, Malformed> {
    if value.is_finite() && value >= 0.0 {
        Ok(value)
    } else {
        Err(Fault::Invalid(format!("{value} is not a measure")).at(field))
    }
}

fn load_out(load: &ReleaseLoad) -> pb::ReleaseLoad {
    pb::ReleaseLoad {
        module: load.module.to_string(),
        digest: digest_out(&load.digest),
        requests_per_second: load.requests_per_second,
        error_percent: load.error_percent,
        latency_ms: load.latency_ms,
    }
}

#[expect(clippy::needless_pass_by_value, reason = "conversions take what was received")]
fn load_in(load: pb::ReleaseLoad) -> Result<ReleaseLoad, Malformed> {
    Ok(ReleaseLoad {
        module: module_in(&load.module).at("module")?,
        digest: digest_in(&load.digest).at("digest")?,
        requests_per_second: measured("requests_per_second", load.requests_per_second)?,
        error_percent: measured("error_percent", load.error_percent)?,
        latency_ms: measured("latency_ms", load.latency_ms)?,
    })
}
