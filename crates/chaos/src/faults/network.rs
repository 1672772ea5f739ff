//! The lines between agents and the server, and what nodes are let in by.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use super::{Fault, Injected, Injector, Lane, Needs};
use crate::acks::{Command, Makes};
use crate::certificates;
use crate::proxy::{Line, Way, Weather};
use crate::run::Run;

/// Longest wait for a node to join anew: an agent's longest wait before another try, whatever else is broken meanwhile,
/// and once more.
const JOINED_MAX: Duration = Duration::from_secs(60);

pub(super) const FAULTS: fn() -> Vec<Fault> = || {
    let fault = |name, component, run| Fault {
        name,
        component,
        promise: "nodes serve; no rollout goes on over nodes that aren't heard; all converge once it is over",
        lane: Lane::Network,
        needs: Needs::Nothing,
        run,
    };
    vec![
        fault("partition", "one node", cut_one),
        fault("partition", "half the fleet", cut_half),
        fault("partition", "every node", cut_all),
        fault("one-way partition", "half the fleet", one_way),
        fault("delay", "every line", delay),
        fault("loss", "every line", loss),
        fault("resets", "every line", reset),
        fault("half-open", "one line", half_open),
        Fault {
            name: "revoked certificate",
            component: "one node",
            promise: "it serves on, is let in by nothing that it had, and joins anew by a new token",
            needs: Needs::Certificates,
            ..fault("", "", revoke)
        },
    ]
};

/// A weather over some lines for a while.
fn weather(run: &Run, lines: &[&Line], weather: Weather, time: Duration) -> Injected {
    run.say(&format!("{weather:?} on {} lines for {time:?}", lines.len()));
    let during = run.running();
    for line in lines {
        line.set(weather);
    }
    run.hold(time);
    for line in lines {
        line.set(Weather::Clear);
    }
    Injected::Held(during)
}

fn half(run: &Run, injector: &mut Injector<'_>) -> Vec<usize> {
    let all = injector.rng.shuffled((0..run.fleet.lines.len()).collect());
    all[..all.len() / 2].to_vec()
}

fn cut_one(run: &Run, injector: &mut Injector<'_>) -> Result<Injected> {
    let line = injector.rng.pick(&run.fleet.lines);
    Ok(weather(run, &[line], Weather::Cut, injector.rng.ms(500, 8_000)))
}

fn cut_half(run: &Run, injector: &mut Injector<'_>) -> Result<Injected> {
    let lines: Vec<&Line> = half(run, injector)
        .iter()
        .map(|&line| &run.fleet.lines[line])
        .collect();
    Ok(weather(run, &lines, Weather::Cut, injector.rng.ms(500, 6_000)))
}

fn cut_all(run: &Run, injector: &mut Injector<'_>) -> Result<Injected> {
    let lines: Vec<&Line> = run.fleet.lines.iter().collect();
    Ok(weather(run, &lines, Weather::Cut, injector.rng.ms(500, 3_000)))
}

fn one_way(run: &Run, injector: &mut Injector<'_>) -> Result<Injected> {
    let lines: Vec<&Line> = half(run, injector)
        .iter()
        .map(|&line| &run.fleet.lines[line])
        .collect();
    let way = *injector.rng.pick(&[Way::ToServer, Way::ToAgent]);
    Ok(weather(
        run,
        &lines,
        Weather::OneWay(way),
        injector.rng.ms(500, 4_000),
    ))
}

fn delay(run: &Run, injector: &mut Injector<'_>) -> Result<Injected> {
    let lines: Vec<&Line> = run.fleet.lines.iter().collect();
    let late = injector.rng.range(20, 300);
    Ok(weather(
        run,
        &lines,
        Weather::Delay(late),
        injector.rng.ms(1_000, 5_000),
    ))
}

fn loss(run: &Run, injector: &mut Injector<'_>) -> Result<Injected> {
    let lines: Vec<&Line> = run.fleet.lines.iter().collect();
    let percent = injector.rng.range(5, 40);
    Ok(weather(
        run,
        &lines,
        Weather::Loss(percent),
        injector.rng.ms(1_000, 5_000),
    ))
}

fn reset(run: &Run, injector: &mut Injector<'_>) -> Result<Injected> {
    let during = run.running();
    for _ in 0..injector.rng.range(1, 4) {
        run.say("every line is reset");
        run.fleet.lines.iter().for_each(Line::reset);
        run.hold(injector.rng.ms(50, 700));
    }
    Ok(Injected::Held(during))
}

fn half_open(run: &Run, injector: &mut Injector<'_>) -> Result<Injected> {
    run.say("a line is half-open");
    injector.rng.pick(&run.fleet.lines).half_open();
    Ok(Injected::Held(run.running()))
}

/// Revokes a node's certificates, also while it can't hear of it.
fn revoke(run: &Run, injector: &mut Injector<'_>) -> Result<Injected> {
    let number = injector.rng.range(0, run.fleet.lines.len() as u64 - 1);
    let number = usize::try_from(number)?;
    let (place, line) = (&run.fleet.places[number], &run.fleet.lines[number]);
    let node = &place.node;
    let (cut, away) = (injector.rng.percent(50), injector.rng.ms(200, 3_000));
    run.say(&format!("the certificates of {node} are revoked, cut off: {cut}"));
    let during = run.running();
    if cut {
        line.set(Weather::Cut);
    }
    let command = Command {
        path: format!("/api/v1/nodes/{node}/revoke"),
        content_type: "application/json",
        body: b"{}".to_vec(),
        key: format!("revoke-{node}-{}", injector.turn),
        makes: Makes::Nothing,
    };
    // To its end, also when faults are over: the token that comes after it must be newer.
    let asked = Instant::now();
    let answered = run.acks.command(command, || asked.elapsed() > JOINED_MAX);
    if cut {
        run.hold(away);
        line.set(Weather::Clear);
    }
    let (status, answer) = answered?;
    if status != 200 {
        bail!("revoking was answered {status} {answer}");
    }
    let file = &run.fleet.join_tokens[place.environment];
    let given = || certificates::give_join_token(&run.acks, place.environment, file).is_ok();
    if !run.wait_for(JOINED_MAX, given) {
        bail!(
            "no join token for {} was made within {JOINED_MAX:?}",
            place.environment
        );
    }
    let revoked = certificates::revoked(&answer);
    let is_back = || certificates::valid(run, node).is_ok_and(|serial| !revoked.contains(&serial));
    if !run.wait_for(JOINED_MAX, is_back) && !run.are_faults_over() {
        let now = certificates::valid(run, node);
        bail!("{node} did not join anew within {JOINED_MAX:?}: {now:?}; revoked: {revoked:?}");
    }
    Ok(Injected::Held(during))
}
