//! Files that are damaged while nobody has them open.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use super::{Fault, Injected, Injector, Lane, Needs, nothing_is_lost, serves};
use crate::fleet::Claim;
use crate::rng::Rng;
use crate::run::Run;

/// How long a node that lost what it runs may take to have it from the server again, other faults going on.
const MENDED_MAX: Duration = Duration::from_secs(90);

pub(super) const FAULTS: fn() -> Vec<Fault> = || {
    let fault = |name, component, promise, run| Fault {
        name,
        component,
        promise,
        lane: Lane::Processes,
        needs: Needs::Nothing,
        run,
    };
    vec![
        fault(
            "torn end of the log's WAL",
            "server",
            "all that was acknowledged is there",
            torn_wal,
        ),
        fault(
            "damaged ledger",
            "agent",
            "it is kept aside, and the one before serves",
            damaged_ledger,
        ),
        fault(
            "damaged ledger and the one before",
            "agent",
            "nothing is served until the server has said what",
            damaged_ledgers,
        ),
        fault(
            "damaged packages and compiled code",
            "agent",
            "none of it is run: it is fetched and compiled again",
            damaged_packages,
        ),
    ]
};

fn noise(rng: &mut Rng, bytes: u64) -> Vec<u8> {
    (0..bytes)
        .map(|_| u8::try_from(rng.range(0, 255)).expect("it is a byte"))
        .collect()
}

/// What a write that a crash cut short leaves at a file's end.
fn torn_wal(run: &Run, injector: &mut Injector<'_>) -> Result<Injected> {
    let running = injector.strategy(run);
    let Some(server) = injector.server(run) else {
        return Ok(Injected::Not);
    };
    run.say("the server is killed, and its WAL ends in a torn write");
    server.kill();
    let wal = server.data.join("hotswap.db-wal");
    let torn = match fs::read(&wal) {
        // A whole frame's beginning, but of a checksum that follows from other frames.
        Ok(whole) if whole.len() > 8_000 && injector.rng.percent(50) => whole[32..4_000].to_vec(),
        _ => {
            let bytes = injector.rng.range(1, 9_000);
            noise(injector.rng, bytes)
        }
    };
    let appended = fs::File::options()
        .create(true)
        .append(true)
        .open(&wal)
        .and_then(|mut file| file.write_all(&torn));
    run.fleet.restart(&server)?;
    // Where the disk is full at this moment there is no torn write either.
    drop(appended);
    nothing_is_lost(run)?;
    Ok(Injected::Held(running))
}

/// Damages a file: cuts its end, or changes a byte of its second half.
fn damage(path: &Path, rng: &mut Rng) -> Result<()> {
    let mut bytes = fs::read(path).with_context(|| format!("{} can't be read", path.display()))?;
    let length = bytes.len() as u64;
    let at = usize::try_from(rng.range(length / 2, length.saturating_sub(1)))?;
    if rng.percent(50) {
        bytes.truncate(at);
    } else {
        bytes[at] ^= 0x20;
    }
    // Over the same file: links to it show the same.
    fs::write(path, bytes)?;
    Ok(())
}

/// Files of a folder with an extension.
fn files(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut paths: Vec<PathBuf> = entries
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|it| it == extension))
        .collect();
    paths.sort();
    paths
}

/// Starts an agent again, and waits until it serves. Until then it has lost what it ran, which is counted apart.
fn start_and_mend(run: &Run, agent: &Claim<'_>) -> Result<()> {
    if let Err(error) = run.fleet.restart(agent) {
        agent.outage_ends();
        return Err(error);
    }
    let end = Instant::now() + MENDED_MAX;
    let mut last = serves(agent);
    while last.is_err() && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(100));
        last = serves(agent);
    }
    agent.outage_ends();
    match last {
        Ok(()) => Ok(()),
        Err(what) => bail!("{} does not serve again: {what}", agent.name),
    }
}

fn killed_agent<'a>(run: &'a Run, injector: &mut Injector<'_>) -> Option<Claim<'a>> {
    let agent = injector.agent(run)?;
    agent.outage_begins();
    agent.kill();
    Some(agent)
}

fn damaged_ledger(run: &Run, injector: &mut Injector<'_>) -> Result<Injected> {
    let Some(agent) = killed_agent(run, injector) else {
        return Ok(Injected::Not);
    };
    run.say(&format!("the ledger of {} is damaged", agent.name));
    let damaged = damage(&agent.data.join("ledger"), injector.rng);
    start_and_mend(run, &agent)?;
    damaged?;
    let aside = fs::read_dir(&agent.data)?.flatten();
    let mut names = aside.map(|entry| entry.file_name().to_string_lossy().into_owned());
    if !names.any(|name| name.starts_with("ledger.damaged-")) {
        bail!("the damaged ledger of {} was not kept aside", agent.name);
    }
    Ok(Injected::Held(run.running()))
}

fn damaged_ledgers(run: &Run, injector: &mut Injector<'_>) -> Result<Injected> {
    let Some(agent) = killed_agent(run, injector) else {
        return Ok(Injected::Not);
    };
    run.say(&format!("both ledgers of {} are damaged", agent.name));
    let damaged = damage(&agent.data.join("ledger"), injector.rng)
        .and_then(|()| damage(&agent.data.join("ledger.before"), injector.rng));
    start_and_mend(run, &agent)?;
    damaged?;
    Ok(Injected::Held(run.running()))
}

fn damaged_packages(run: &Run, injector: &mut Injector<'_>) -> Result<Injected> {
    let Some(agent) = killed_agent(run, injector) else {
        return Ok(Injected::Not);
    };
    run.say(&format!(
        "packages and compiled code of {} are damaged",
        agent.name
    ));
    let mut damaged = Ok(());
    for (folder, extension) in [("packages", "hsm"), ("compiled", "cwasm")] {
        for file in files(&agent.data.join(folder), extension) {
            damaged = damaged.and_then(|()| damage(&file, injector.rng));
        }
    }
    start_and_mend(run, &agent)?;
    damaged?;
    Ok(Injected::Held(run.running()))
}
