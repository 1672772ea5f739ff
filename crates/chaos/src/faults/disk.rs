//! Disks: full, or read-only.

use std::path::Path;

use anyhow::{Result, anyhow, bail};

use super::{Fault, Injected, Injector, Lane, Needs, nothing_is_lost, serves};
use crate::disk;
use crate::run::Run;

pub(super) const FAULTS: fn() -> Vec<Fault> = || {
    let fault = |name, component, promise, run| Fault {
        name,
        component,
        promise,
        lane: Lane::Resources,
        needs: Needs::Mounts,
        run,
    };
    vec![
        fault(
            "disk full",
            "server",
            "reads go on, commands get 503; nothing acknowledged is lost; it goes on once there is room",
            full_server,
        ),
        fault(
            "disk full, then kill -9",
            "server",
            "it starts, or refuses and says that the disk is full; starts once there is room",
            full_and_killed,
        ),
        fault(
            "disk full",
            "agent",
            "what is active stays active and its ledger whole; it goes on once there is room",
            full_agent,
        ),
        fault(
            "read-only data",
            "server",
            "it refuses to start and says why; starts once it is mended",
            read_only_server,
        ),
        fault(
            "read-only data",
            "agent",
            "what is active stays active; it goes on once it is mended",
            read_only_agent,
        ),
    ]
};

/// Room that is given back when the fault is over, whatever happens in it.
struct Full(std::path::PathBuf);

impl Full {
    fn fill(folder: &Path) -> Result<Self> {
        Ok(Self(disk::fill(folder)?))
    }
}

impl Drop for Full {
    fn drop(&mut self) {
        // It was made a moment ago by this process, on a file system that only this run has.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// A folder that can be written again when the fault is over.
struct ReadOnly<'a>(&'a Path);

impl Drop for ReadOnly<'_> {
    fn drop(&mut self) {
        disk::unmount(self.0);
    }
}

fn full_server(run: &Run, injector: &mut Injector<'_>) -> Result<Injected> {
    let Some(server) = injector.server(run) else {
        return Ok(Injected::Not);
    };
    let during = run.running();
    run.say("the server's disk is full");
    let full = Full::fill(&server.data)?;
    run.hold(injector.rng.ms(800, 3_000));
    let reads = run.acks.get("/api/v1/deployments?limit=5");
    drop(full);
    run.say("the server's disk has room");
    reads.map_err(|error| error.context("a read while the disk was full"))?;
    nothing_is_lost(run)?;
    Ok(Injected::Held(during))
}

fn full_and_killed(run: &Run, injector: &mut Injector<'_>) -> Result<Injected> {
    let Some(server) = injector.server(run) else {
        return Ok(Injected::Not);
    };
    let during = run.running();
    run.say("the server's disk is full, and it is killed");
    let full = Full::fill(&server.data)?;
    run.hold(injector.rng.ms(100, 1_000));
    server.kill();
    let started = run.fleet.start(&server);
    run.hold(injector.rng.ms(100, 1_000));
    drop(full);
    match started? {
        Ok(()) => {}
        Err(refused) => {
            run.fleet.restart(&server)?;
            if !refused.log.contains("disk is full") {
                bail!("its refusal doesn't say that the disk is full: {refused}");
            }
        }
    }
    nothing_is_lost(run)?;
    Ok(Injected::Held(during))
}

fn full_agent(run: &Run, injector: &mut Injector<'_>) -> Result<Injected> {
    let running = run.running();
    let Some(agent) = injector.agent_of(run, &running) else {
        return Ok(Injected::Not);
    };
    run.say(&format!("the disk of {} is full", agent.name));
    let full = Full::fill(&agent.data)?;
    run.hold(injector.rng.ms(1_000, 4_000));
    let served = serves(&agent);
    drop(full);
    served.map_err(|what| anyhow!("{} with a full disk: {what}", agent.name))?;
    Ok(Injected::Held(running))
}

fn read_only_server(run: &Run, injector: &mut Injector<'_>) -> Result<Injected> {
    let Some(server) = injector.server(run) else {
        return Ok(Injected::Not);
    };
    let during = run.running();
    run.say("the server is killed, and its data are read-only");
    server.kill();
    disk::make_read_only(&server.data)?;
    let read_only = ReadOnly(&server.data);
    let started = run.fleet.start(&server);
    drop(read_only);
    let refused = match started? {
        Ok(()) => {
            server.kill();
            None
        }
        Err(refused) => Some(refused),
    };
    run.fleet.restart(&server)?;
    match refused {
        Some(refused) if refused.log.contains("writable") => {}
        Some(refused) => bail!("its refusal doesn't say that the data can't be written: {refused}"),
        None => bail!("it started on data that it can't write"),
    }
    nothing_is_lost(run)?;
    Ok(Injected::Held(during))
}

fn read_only_agent(run: &Run, injector: &mut Injector<'_>) -> Result<Injected> {
    let running = run.running();
    let Some(agent) = injector.agent_of(run, &running) else {
        return Ok(Injected::Not);
    };
    run.say(&format!("the data of {} are read-only", agent.name));
    disk::make_read_only(&agent.data)?;
    let read_only = ReadOnly(&agent.data);
    run.hold(injector.rng.ms(1_000, 4_000));
    let served = serves(&agent);
    drop(read_only);
    served.map_err(|what| anyhow!("{} with read-only data: {what}", agent.name))?;
    Ok(Injected::Held(running))
}
