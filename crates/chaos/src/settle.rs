//! What must be so once faults stop: eventually everything ends and converges, and finally the log tells the same.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use hotswap_core::apply::apply;
use hotswap_core::desired::desired;
use hotswap_core::event::{Event, Logged};
use hotswap_core::ids::{Digest, ModuleName, NodeId};
use hotswap_core::invariants::{check_state, step};
use hotswap_core::state::State;
use hotswap_core::time::{CoreTime, WallTime};
use rusqlite::{Connection, OpenFlags};

use crate::acks::Makes;
use crate::certificates;
use crate::fleet::lock;
use crate::operator::{MODULES, has_ended};
use crate::report::Settled;
use crate::run::Run;
use crate::watch::read_ledger;

/// Within this time of the last fault every deployment ends and every node converges: an agent's longest wait
/// before another try, a half-open line's two keepalives, and a rollout with its way back, each at its deadline.
const CONVERGED_MAX: Duration = Duration::from_secs(180);
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Waits until everything has ended and converged. Says how long it took.
pub(crate) fn converge(run: &Run) -> Result<Duration> {
    let began = Instant::now();
    loop {
        let missing = match missing(run) {
            Ok(None) => return Ok(began.elapsed()),
            Ok(Some(missing)) => missing,
            Err(error) => format!("{error:#}"),
        };
        if began.elapsed() >= CONVERGED_MAX {
            bail!("not converged {CONVERGED_MAX:?} after the last fault: {missing}");
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

/// What has not converged yet.
fn missing(run: &Run) -> Result<Option<String>> {
    let deployments = run.acks.deployments()?;
    if let Some(open) = deployments.iter().find(|it| !has_ended(&it["status"])) {
        return Ok(Some(format!(
            "deployment {} is {}",
            open["executionId"], open["status"]
        )));
    }
    let nodes = run.acks.get("/api/v1/nodes?limit=1000")?;
    for node in nodes.as_array().into_iter().flatten() {
        if !matches!(node["status"].as_str(), Some("Running" | "Degraded")) {
            return Ok(Some(format!("node {} is {}", node["nodeId"], node["status"])));
        }
    }
    if run.fleet.has_certificates() {
        for place in &run.fleet.places {
            if let Err(why) = certificates::valid(run, &place.node) {
                return Ok(Some(format!("node {}: {why}", place.node)));
            }
        }
    }
    let state = fold(&run.fleet.server.data, false)?.state;
    for (agent, place) in run.fleet.agents.iter().zip(&run.fleet.places) {
        let node: NodeId = place.node.parse()?;
        let spec = desired(&state, &node).with_context(|| format!("{node} is not in the log"))?;
        let ledger = read_ledger(&agent.data).with_context(|| format!("{node} has no ledger"))?;
        for module in &MODULES {
            let name: ModuleName = module.name.parse()?;
            let wanted = spec
                .modules
                .get(&name)
                .map(|spec| spec.routes.clone())
                .unwrap_or_default();
            let entry = ledger.modules.get(&name);
            let active: Vec<(Digest, u8)> = entry
                .into_iter()
                .flat_map(|entry| &entry.serving)
                .map(|share| (share.release.digest, share.weight))
                .collect();
            if active != wanted || wanted.is_empty() {
                return Ok(Some(format!(
                    "{node} serves {active:?} of {name}, not {wanted:?}"
                )));
            }
        }
    }
    Ok(None)
}

/// A folded log.
struct Folded {
    state: State,
    events: u64,
    epochs: u64,
    /// Rollouts by environment.
    rollouts: BTreeMap<String, u64>,
}

/// Folds the log from its first event, as no running server does; optionally with its invariants.
fn fold(data: &Path, check: bool) -> Result<Folded> {
    let database = Connection::open_with_flags(data.join("hotswap.db"), OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    database.busy_timeout(Duration::from_secs(10))?;
    let mut select = database.prepare("select seq, epoch, at, wall, body from event order by seq")?;
    let mut rows = select.query([])?;
    let mut folded = Folded {
        state: State::default(),
        events: 0,
        epochs: 0,
        rollouts: BTreeMap::new(),
    };
    while let Some(row) = rows.next()? {
        let number = |column| row.get::<_, i64>(column).map(i64::cast_unsigned);
        let body: String = row.get(4)?;
        let logged = Logged {
            seq: number(0)?,
            epoch: number(1)?,
            at: CoreTime(number(2)?),
            wall: WallTime(number(3)?),
            event: serde_json::from_str(&body)
                .with_context(|| format!("an event that can't be read: {body}"))?,
        };
        let state = &mut folded.state;
        if check {
            step::s9_log(state, &logged)?;
            step::s11_fencing(state, &logged)?;
            step::s5_steps(state, &logged.event)?;
            step::s7_stop_means_stop(state, &logged.event)?;
            step::s8_target(state, &logged.event)?;
        }
        apply(state, &logged);
        if check {
            check_state(state)?;
        }
        folded.events += 1;
        match &logged.event {
            Event::EpochStarted { .. } => folded.epochs += 1,
            Event::RolloutStarted { plan } => {
                *folded.rollouts.entry(plan.environment.to_string()).or_default() += 1;
            }
            _ => {}
        }
    }
    Ok(folded)
}

/// Everything that is looked at in the end, with the server up and all at rest.
pub(crate) fn finally(run: &Run, converged_in: Duration) -> Result<Settled> {
    let lost = run.acks.lost()?;
    for what in &lost {
        run.violation(&format!("acknowledged and lost: {what}"));
    }
    for what in run.acks.answered_otherwise()? {
        run.violation(&format!("a retry got another answer: {what}"));
    }
    once_each(run)?;
    run.fleet
        .server
        .stop()
        .unwrap_or_else(|error| run.violation(&format!("{error:#}")));
    let folded = fold(&run.fleet.server.data, true)?;
    let database = recorded(run, &folded.state)?;
    let issued = certificates::recorded(run, &database)?;
    swapped(run, &folded);
    for agent in &run.fleet.agents {
        agent.outage_begins();
        agent
            .stop()
            .unwrap_or_else(|error| run.violation(&format!("{error:#}")));
    }
    Ok(Settled {
        acknowledged: run.acks.acked().len(),
        lost: lost.len(),
        events: folded.events,
        epochs: folded.epochs,
        converged_in,
        issued,
    })
}

/// Every command had one effect, however often it was sent.
fn once_each(run: &Run) -> Result<()> {
    let acked = run.acks.acked();
    let commands = acked
        .iter()
        .filter(|acked| matches!(acked.command.makes, Makes::Deployment | Makes::Rollback))
        .count();
    let deployments = run.acks.deployments()?.len();
    if deployments != commands {
        run.violation(&format!(
            "{commands} deployments were acknowledged, and there are {deployments}"
        ));
    }
    Ok(())
}

/// The newest snapshot says what the log says.
fn recorded(run: &Run, state: &State) -> Result<Connection> {
    let data = &run.fleet.server.data;
    let database = Connection::open_with_flags(data.join("hotswap.db"), OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    let text: String = database
        .query_row(
            "select state from snapshot order by seq desc limit 1",
            [],
            |row| row.get(0),
        )
        .context("the server left no snapshot when it ended")?;
    let snapshot: State = serde_json::from_str(&text).context("the newest snapshot")?;
    if snapshot.seq == state.seq && snapshot != *state {
        run.violation("the snapshot differs from the fold of the log");
    }
    Ok(database)
}

/// No node swapped more often than its environment's rollouts asked for: none flapped.
fn swapped(run: &Run, folded: &Folded) {
    let seen = lock(&run.tally.traffic.releases);
    for ((node, module), (changes, releases)) in seen.iter() {
        let place = run.fleet.places.iter().find(|place| place.node == *node);
        let Some(place) = place.filter(|place| !place.shares) else {
            continue;
        };
        let rollouts = folded.rollouts.get(place.environment).copied().unwrap_or(0);
        // There and back, for each; and a node that lost its ledger goes back to the one before once more.
        let most = 3 * rollouts + 3;
        if *changes > most {
            run.violation(&format!(
                "{node} changed its release of {module} {changes} times in {rollouts} rollouts: {releases:?}"
            ));
        }
    }
}
