//! Processes: killed, asked to end, paused, given another time.

use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};

use super::{Fault, Injected, Injector, Lane, Needs, nothing_is_lost, serves};
use crate::fleet::Claim;
use crate::process::Signal;
use crate::run::Run;

/// Clock steps, as libfaketime reads them.
const STEPS: [&str; 6] = ["+30s", "-30s", "+10m", "-10m", "+5h", "-5h"];

pub(super) const FAULTS: fn() -> Vec<Fault> = || {
    let fault = |name, component, promise, needs, run| Fault {
        name,
        component,
        promise,
        lane: Lane::Processes,
        needs,
        run,
    };
    vec![
        fault(
            "kill -9",
            "server",
            "what was acknowledged is there; rollouts go on; nodes serve",
            Needs::Nothing,
            kill_server,
        ),
        fault(
            "SIGTERM",
            "server",
            "exit 0; what was acknowledged is there; nodes serve",
            Needs::Nothing,
            stop_server,
        ),
        fault(
            "pause",
            "server",
            "nothing is decided twice; nodes serve",
            Needs::Nothing,
            pause_server,
        ),
        fault(
            "kill -9",
            "agent",
            "serves from its first answer on, with no server's help; one release is active",
            Needs::Nothing,
            kill_agent,
        ),
        fault(
            "SIGTERM",
            "agent",
            "exit 0, and it is no failed boot; then as after kill -9",
            Needs::Nothing,
            stop_agent,
        ),
        fault(
            "pause",
            "agent",
            "its requests are late, none fails",
            Needs::Nothing,
            pause_agent,
        ),
        fault(
            "clock step",
            "server",
            "no deadline fires for it but those of wall time (holds, pauses, approvals)",
            Needs::Clock,
            step_server,
        ),
        fault(
            "clock step",
            "agent",
            "nothing: durations are elapsed time",
            Needs::Clock,
            step_agent,
        ),
    ]
};

fn kill_server(run: &Run, injector: &mut Injector<'_>) -> Result<Injected> {
    let running = injector.strategy(run);
    let Some(server) = injector.server(run) else {
        return Ok(Injected::Not);
    };
    run.say(&format!("kill -9 server during {running:?}"));
    server.kill();
    run.hold(injector.rng.ms(0, 1_500));
    run.fleet.restart(&server)?;
    nothing_is_lost(run)?;
    Ok(Injected::Held(running))
}

fn stop_server(run: &Run, injector: &mut Injector<'_>) -> Result<Injected> {
    let running = injector.strategy(run);
    let Some(server) = injector.server(run) else {
        return Ok(Injected::Not);
    };
    run.say(&format!("SIGTERM server during {running:?}"));
    let stopped = server.stop();
    run.hold(injector.rng.ms(0, 1_000));
    run.fleet.restart(&server)?;
    stopped?;
    nothing_is_lost(run)?;
    Ok(Injected::Held(running))
}

fn pause_server(run: &Run, injector: &mut Injector<'_>) -> Result<Injected> {
    let running = injector.strategy(run);
    let Some(server) = injector.server(run) else {
        return Ok(Injected::Not);
    };
    pause(run, &server, injector.rng.ms(300, 6_000));
    Ok(Injected::Held(running))
}

fn pause(run: &Run, claim: &Claim<'_>, time: Duration) {
    run.say(&format!("pause {} for {time:?}", claim.name));
    claim.with(|process| process.signal(Signal::Stop));
    run.hold(time);
    claim.with(|process| process.signal(Signal::Continue));
}

/// Starts an agent again: it must serve from its first answer on.
fn start_agent(run: &Run, agent: &Claim<'_>) -> Result<()> {
    let started = run.fleet.restart(agent);
    let served = started
        .and_then(|()| serves(agent).map_err(|what| anyhow!("{} after its start: {what}", agent.name)));
    agent.outage_ends();
    served
}

fn kill_agent(run: &Run, injector: &mut Injector<'_>) -> Result<Injected> {
    let running = injector.strategy(run);
    let Some(agent) = injector.agent_of(run, &running) else {
        return Ok(Injected::Not);
    };
    run.say(&format!("kill -9 {} during {running:?}", agent.name));
    agent.outage_begins();
    agent.kill();
    run.hold(injector.rng.ms(0, 1_500));
    start_agent(run, &agent)?;
    Ok(Injected::Held(running))
}

fn stop_agent(run: &Run, injector: &mut Injector<'_>) -> Result<Injected> {
    let running = injector.strategy(run);
    let Some(agent) = injector.agent_of(run, &running) else {
        return Ok(Injected::Not);
    };
    run.say(&format!("SIGTERM {} during {running:?}", agent.name));
    agent.outage_begins();
    let stopped = agent.stop();
    run.hold(injector.rng.ms(0, 1_000));
    start_agent(run, &agent)?;
    stopped?;
    Ok(Injected::Held(running))
}

fn pause_agent(run: &Run, injector: &mut Injector<'_>) -> Result<Injected> {
    let running = injector.strategy(run);
    let Some(agent) = injector.agent_of(run, &running) else {
        return Ok(Injected::Not);
    };
    // Its requests wait; they are answered all the same, so that this is no outage.
    pause(run, &agent, injector.rng.ms(300, 6_000));
    Ok(Injected::Held(running))
}

fn step(run: &Run, claim: &Claim<'_>, injector: &mut Injector<'_>) -> Result<()> {
    let clock = claim.clock.as_deref().context("its clock can be set")?;
    let step = *injector.rng.pick(&STEPS);
    run.say(&format!("clock of {} goes to {step}", claim.name));
    std::fs::write(clock, format!("{step}\n"))?;
    run.hold(injector.rng.ms(2_000, 4_000));
    std::fs::write(clock, "+0\n")?;
    run.hold(Duration::from_millis(1_200));
    Ok(())
}

fn step_server(run: &Run, injector: &mut Injector<'_>) -> Result<Injected> {
    let Some(server) = injector.server(run) else {
        return Ok(Injected::Not);
    };
    step(run, &server, injector)?;
    nothing_is_lost(run)?;
    Ok(Injected::Held(run.running()))
}

fn step_agent(run: &Run, injector: &mut Injector<'_>) -> Result<Injected> {
    let with_clocks: Vec<_> = run
        .fleet
        .agents
        .iter()
        .filter(|agent| agent.clock.is_some())
        .collect();
    let agent = *injector.rng.pick(&with_clocks);
    let Some(agent) = injector.claim(run, agent) else {
        return Ok(Injected::Not);
    };
    step(run, &agent, injector)?;
    Ok(Injected::Held(run.running()))
}
