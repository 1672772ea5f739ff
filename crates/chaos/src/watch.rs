//! What must be so at any time.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use hotswap_core::reconcile::Ledger;

use crate::operator::has_ended;
use crate::run::Run;

/// How often all of it is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// What the last look saw.
#[derive(Default)]
pub(crate) struct Watch {
    epoch: u64,
    events: u64,
    ended: BTreeMap<String, String>,
}

/// A node's ledger as it is on disk.
pub(crate) fn read_ledger(data: &Path) -> Option<Ledger> {
    let bytes = fs::read(data.join("ledger")).ok()?;
    let body = bytes.splitn(2, |byte| *byte == b'\n').nth(1)?;
    let record: serde_json::Value = serde_json::from_slice(body).ok()?;
    serde_json::from_value(record.get("ledger")?.clone()).ok()
}

impl Watch {
    /// Looks until the run is over.
    pub(crate) fn look(&mut self, run: &Run) {
        while !run.is_over() {
            self.server(run);
            nodes(run);
            std::thread::sleep(LOOK_EVERY);
        }
    }

    /// The log only grows, and what has ended stays ended.
    fn server(&mut self, run: &Run) {
        let Ok(health) = run.acks.get("/health") else {
            return;
        };
        let (epoch, events) = (health["epoch"].as_u64(), health["events"].as_u64());
        let (epoch, events) = (epoch.unwrap_or(0), events.unwrap_or(0));
        if epoch < self.epoch || events < self.events {
            run.violation(&format!(
                "the log shrank: from event {} in epoch {} to {events} in {epoch}",
                self.events, self.epoch
            ));
        }
        (self.epoch, self.events) = (epoch, events);
        let Ok(deployments) = run.acks.get("/api/v1/deployments?limit=1000") else {
            return;
        };
        for deployment in deployments.as_array().into_iter().flatten() {
            let (id, status) = (&deployment["executionId"], &deployment["status"]);
            let (id, now) = (
                id.as_str().unwrap_or_default(),
                status.as_str().unwrap_or_default(),
            );
            match self.ended.get(id) {
                Some(before) if before != now && !(before == "Succeeded" && now == "RolledBack") => {
                    run.violation(&format!("deployment {id} had ended as {before} and is {now} now"));
                }
                _ => {}
            }
            if has_ended(status) {
                self.ended.insert(id.to_owned(), now.to_owned());
            }
        }
    }
}

/// No node has two active releases, but where a strategy shares its requests out.
fn nodes(run: &Run) {
    for (agent, place) in run.fleet.agents.iter().zip(&run.fleet.places) {
        let Some(ledger) = read_ledger(&agent.data) else {
            continue;
        };
        for (module, entry) in &ledger.modules {
            let shares: Vec<u8> = entry.serving.iter().map(|share| share.weight).collect();
            let sum: u32 = shares.iter().map(|&weight| u32::from(weight)).sum();
            if !shares.is_empty() && sum != 100 {
                run.violation(&format!("{}: the shares of {module} are {shares:?}", place.node));
            }
            if shares.len() > 1 && !place.shares {
                run.violation(&format!("{}: two releases of {module} are active", place.node));
            }
        }
    }
}

/// Starts again what ended though no fault had ended it, and says so.
pub(crate) fn supervise(run: &Run) {
    while !run.is_over() {
        for component in run.fleet.all() {
            let Some(claim) = component.claim() else { continue };
            let ended = claim.with(|process| process.ended().map(|status| (status, process.log_tail())));
            let Some(Some((status, log))) = ended else {
                continue;
            };
            claim.outage_begins();
            run.violation(&format!("{} ended by itself with {status}: {log}", claim.name));
            if let Err(error) = run.fleet.restart_until_ready(&claim) {
                run.violation(&format!("{error:#}"));
            }
            claim.outage_ends();
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}
