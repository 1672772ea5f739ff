//! What a run counted, and how it is told.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Mutex;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::certificates::Issued;
use crate::fleet::lock;
use crate::run::Run;
use crate::traffic::Counts;

/// Counts of a run.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) traffic: Counts,
    /// By fault and component.
    faults: Mutex<BTreeMap<(usize, &'static str), FaultCount>>,
    /// How deployments ended.
    deployments: Mutex<BTreeMap<String, u64>>,
    left_out: Mutex<Vec<String>>,
}

/// One row of the table.
#[derive(Clone, Debug, Default)]
struct FaultCount {
    component: &'static str,
    promise: &'static str,
    injected: u64,
    held: u64,
    /// By the strategy that ran.
    during: BTreeMap<&'static str, u64>,
}

/// What the end of a run found.
#[derive(Debug)]
pub(crate) struct Settled {
    pub(crate) acknowledged: usize,
    pub(crate) lost: usize,
    pub(crate) events: u64,
    pub(crate) epochs: u64,
    /// From the last fault to every node on what its environment says.
    pub(crate) converged_in: Duration,
    pub(crate) issued: Issued,
}

impl Tally {
    /// Notes a fault.
    pub(crate) fn fault(
        &self,
        place: usize,
        name: &'static str,
        (component, promise): (&'static str, &'static str),
        held: bool,
        during: &[&'static str],
    ) {
        let mut faults = lock(&self.faults);
        let count = faults.entry((place, name)).or_default();
        (count.component, count.promise) = (component, promise);
        count.injected += 1;
        count.held += u64::from(held);
        for strategy in during {
            *count.during.entry(strategy).or_default() += 1;
        }
    }

    pub(crate) fn deployment_ended(&self, how: &str) {
        *lock(&self.deployments).entry(how.to_owned()).or_default() += 1;
    }

    /// Notes what can't be done on this machine.
    pub(crate) fn left_out(&self, what: &str) {
        lock(&self.left_out).push(what.to_owned());
    }

    /// The table of faults.
    fn table(&self) -> String {
        let mut table = String::new();
        let faults = lock(&self.faults);
        let width =
            |of: fn(&(&(usize, &'static str), &FaultCount)) -> usize| faults.iter().map(|row| of(&row)).max();
        let name = width(|(key, _)| key.1.len()).unwrap_or(5).max(5);
        let component = width(|(_, row)| row.component.len()).unwrap_or(9).max(9);
        let _ = writeln!(
            table,
            "{:name$}  {:component$}  INJECTED  HELD  PROMISE",
            "FAULT", "COMPONENT"
        );
        for ((_, fault), row) in faults.iter() {
            let _ = writeln!(
                table,
                "{fault:name$}  {:component$}  {:8}  {:4}  {}",
                row.component, row.injected, row.held, row.promise
            );
        }
        let strategies: Vec<String> = faults
            .iter()
            .filter(|(_, row)| !row.during.is_empty())
            .map(|((_, fault), row)| {
                let during = row
                    .during
                    .iter()
                    .map(|(strategy, times)| format!("{strategy} {times}"));
                format!(
                    "{fault} ({}): {}",
                    row.component,
                    during.collect::<Vec<_>>().join(", ")
                )
            })
            .collect();
        if !strategies.is_empty() {
            let _ = writeln!(table, "\nwhile these strategies ran:");
            for line in strategies {
                let _ = writeln!(table, "  {line}");
            }
        }
        table
    }
}

fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// Tells how a run went; the last line is the verdict. Gives whether everything held.
pub(crate) fn tell(run: &Run, seed: u64, took: Duration, settled: Option<&Settled>) -> bool {
    let tally = &run.tally;
    println!("{}", tally.table());
    let load = |count: &std::sync::atomic::AtomicU64| count.load(Ordering::Relaxed);
    let traffic = &tally.traffic;
    let (answered, failed, away) = (
        load(&traffic.answered),
        load(&traffic.failed),
        load(&traffic.away),
    );
    let restarts: u64 = run.fleet.all().map(|component| load(&component.restarts)).sum();
    println!(
        "requests     {} sent, {} failed; {} more at nodes that were killed, stopped or had lost what they ran",
        thousands(answered + failed),
        thousands(failed),
        thousands(away)
    );
    println!(
        "slowest      {:.1} s, at a node that was not stopped",
        load(&traffic.slowest_us) as f64 / 1e6
    );
    if let Some(settled) = settled {
        println!(
            "commands     {} acknowledged, {} lost; {} tries were cut and sent again, {} put off",
            settled.acknowledged,
            settled.lost,
            load(&run.acks.unknown),
            load(&run.acks.put_off)
        );
        println!(
            "log          {} events in {} epochs, folded again with its invariants",
            thousands(settled.events),
            settled.epochs
        );
        if run.fleet.has_certificates() {
            println!(
                "certificates {} by joining, {} by renewal; {} times a node's were revoked",
                settled.issued.joined, settled.issued.renewed, settled.issued.revoked
            );
        }
        println!(
            "converged    {:.1} s after the last fault",
            settled.converged_in.as_secs_f64()
        );
    }
    let ends = lock(&tally.deployments);
    let ends: Vec<String> = ends.iter().map(|(how, times)| format!("{times} {how}")).collect();
    println!("deployments  {}", ends.join(", "));
    println!("restarts     {restarts}");
    for what in lock(&tally.left_out).iter() {
        println!("left out     {what}");
    }
    let (violations, count) = run.violations();
    for violation in &violations {
        println!("VIOLATION    {violation}");
    }
    let held = count == 0 && settled.is_some();
    let (faults, injected): (usize, u64) = {
        let faults = lock(&tally.faults);
        (faults.len(), faults.values().map(|row| row.injected).sum())
    };
    let verdict = if held { "held" } else { "BROKEN" };
    println!(
        "\nchaos: {verdict}: seed {seed}, {injected} faults of {faults} kinds in {:.0} s, {} requests, {} failed, {count} promises broken",
        took.as_secs_f64(),
        thousands(answered + failed),
        thousands(failed)
    );
    held
}
