//! The lines between agents and the server.

use std::time::Duration;

use anyhow::Result;

use super::{Fault, Injected, Injector, Lane, Needs};
use crate::proxy::{Line, Way, Weather};
use crate::run::Run;

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
