//! What clients and the system can do to a process: no descriptors left, floods, slow and oversized requests.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail};

use super::{Fault, Injected, Injector, Lane, Needs, nothing_is_lost, serves};
use crate::fleet::{Claim, Component};
use crate::http::Connection;
use crate::run::Run;

/// Descriptors that are left.
const FILES_LEFT: u64 = 3;
/// Connections of a flood.
const FLOOD: usize = 400;
/// Connections that send a head byte by byte.
const SLOW: usize = 60;
/// Longest wait for an answer to a request that is refused.
const REFUSAL_MAX: Duration = Duration::from_secs(15);

pub(super) const FAULTS: fn() -> Vec<Fault> = || {
    let fault = |name, component, promise, run| Fault {
        name,
        component,
        promise,
        lane: Lane::Resources,
        needs: Needs::Nothing,
        run,
    };
    vec![
        fault(
            "no descriptors left",
            "server",
            "nodes serve; it goes on, or ends with nothing lost and starts again",
            no_files_server,
        ),
        fault(
            "no descriptors left",
            "agent",
            "connections that stand are served; new ones wait; it goes on",
            no_files_agent,
        ),
        fault(
            "flood of connections",
            "server",
            "others are answered",
            flood_server,
        ),
        fault(
            "flood of connections",
            "agent",
            "others are answered",
            flood_agent,
        ),
        fault("slow-loris", "server", "others are answered", slow_server),
        fault("slow-loris", "agent", "others are answered", slow_agent),
        fault(
            "oversized heads and bodies",
            "server",
            "refused with 4xx; others are answered",
            oversized_server,
        ),
        fault(
            "oversized heads and bodies",
            "agent",
            "refused with 4xx; others are answered",
            oversized_agent,
        ),
    ]
};

/// Takes all but a few descriptors away for a while.
fn no_files(run: &Run, claim: &Claim<'_>, time: Duration) -> Result<()> {
    let limited = claim
        .with(|process| process.limit_files(&(process.open_files() + FILES_LEFT).to_string()))
        .context("it runs")?;
    let flood: Vec<TcpStream> = connect(claim.http, 20);
    run.hold(time);
    drop(flood);
    let before = limited?;
    // It may have ended; then there is nothing to give back.
    claim.with(|process| drop(process.limit_files(&before)));
    Ok(())
}

fn no_files_server(run: &Run, injector: &mut Injector<'_>) -> Result<Injected> {
    let Some(server) = injector.server(run) else {
        return Ok(Injected::Not);
    };
    let during = run.running();
    run.say("the server has no descriptors left");
    no_files(run, &server, injector.rng.ms(800, 3_000))?;
    // What is durable is found out by the next start: ending is one way to go on.
    if let Some(status) = server.with(|process| process.ended()).flatten() {
        run.say(&format!("the server ended with {status}"));
        run.fleet.restart(&server)?;
    }
    nothing_is_lost(run)?;
    Ok(Injected::Held(during))
}

fn no_files_agent(run: &Run, injector: &mut Injector<'_>) -> Result<Injected> {
    let running = run.running();
    let Some(agent) = injector.agent_of(run, &running) else {
        return Ok(Injected::Not);
    };
    run.say(&format!("{} has no descriptors left", agent.name));
    no_files(run, &agent, injector.rng.ms(800, 3_000))?;
    serves(&agent).map_err(|what| anyhow!("{} after it had no descriptors: {what}", agent.name))?;
    Ok(Injected::Held(running))
}

/// Connections that say nothing.
fn connect(address: SocketAddr, count: usize) -> Vec<TcpStream> {
    (0..count)
        .filter_map(|_| TcpStream::connect_timeout(&address, Duration::from_millis(500)).ok())
        .collect()
}

/// Whether the API answers somebody else.
fn api_answers(run: &Run) -> Result<()> {
    run.acks
        .get("/health")
        .map(drop)
        .context("the API, asked meanwhile")
}

fn ingress_answers(agent: &Component) -> Result<()> {
    serves(agent).map_err(|what| anyhow!("{}, asked meanwhile: {what}", agent.name))
}

fn flood(run: &Run, address: SocketAddr, time: Duration) -> Vec<TcpStream> {
    run.say(&format!("{FLOOD} connections to {address}"));
    let flood = connect(address, FLOOD);
    run.hold(time);
    flood
}

fn flood_server(run: &Run, injector: &mut Injector<'_>) -> Result<Injected> {
    let Some(server) = injector.server(run) else {
        return Ok(Injected::Not);
    };
    let flood = flood(run, server.http, injector.rng.ms(500, 2_000));
    api_answers(run)?;
    drop(flood);
    Ok(Injected::Held(run.running()))
}

fn flood_agent(run: &Run, injector: &mut Injector<'_>) -> Result<Injected> {
    let Some(agent) = injector.agent(run) else {
        return Ok(Injected::Not);
    };
    let flood = flood(run, agent.http, injector.rng.ms(500, 2_000));
    ingress_answers(&agent)?;
    drop(flood);
    Ok(Injected::Held(run.running()))
}

/// Sends heads byte by byte for a while.
fn slow(run: &Run, address: SocketAddr, time: Duration) -> Vec<TcpStream> {
    run.say(&format!("{SLOW} slow clients of {address}"));
    let mut clients = connect(address, SLOW);
    let mut head = b"POST /orders HTTP/1.1\r\nhost: slow\r\nx-slow: aaaaaaaaaaaaaaaaaaaaaaaaaaa".iter();
    let end = Instant::now() + time;
    while Instant::now() < end && !run.are_faults_over() {
        let Some(byte) = head.next() else { break };
        clients.retain_mut(|client| client.write_all(&[*byte]).is_ok());
        std::thread::sleep(Duration::from_millis(50));
    }
    clients
}

fn slow_server(run: &Run, injector: &mut Injector<'_>) -> Result<Injected> {
    let Some(server) = injector.server(run) else {
        return Ok(Injected::Not);
    };
    let clients = slow(run, server.http, injector.rng.ms(500, 2_500));
    api_answers(run)?;
    drop(clients);
    Ok(Injected::Held(run.running()))
}

fn slow_agent(run: &Run, injector: &mut Injector<'_>) -> Result<Injected> {
    let Some(agent) = injector.agent(run) else {
        return Ok(Injected::Not);
    };
    let clients = slow(run, agent.http, injector.rng.ms(500, 2_500));
    ingress_answers(&agent)?;
    drop(clients);
    Ok(Injected::Held(run.running()))
}

/// The status that a request gets; 0 where the connection was ended instead, which is a refusal, too.
fn refusal(address: SocketAddr, head: &str, body_bytes: usize) -> Result<u16> {
    let mut connection = Connection::open(address, REFUSAL_MAX)?;
    let stream = connection.stream();
    // Whoever refuses needs not read it all.
    let _ = stream.write_all(head.as_bytes());
    let block = [b'x'; 16 << 10];
    let mut left = body_bytes;
    while left > 0 {
        let now = left.min(block.len());
        if stream.write_all(&block[..now]).is_err() {
            break;
        }
        left -= now;
    }
    match connection.read() {
        Ok(answer) => Ok(answer.status),
        Err(error)
            if matches!(
                error.kind(),
                std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut
            ) =>
        {
            bail!("it was not refused within {REFUSAL_MAX:?}")
        }
        Err(_) => {
            let _ = connection.stream().read(&mut [0]);
            Ok(0)
        }
    }
}

fn must_be_refused(what: &str, status: u16) -> Result<()> {
    if status == 0 || (400..500).contains(&status) {
        return Ok(());
    }
    bail!("{what} got {status}")
}

fn oversized(address: SocketAddr, path: &str) -> Result<()> {
    let long = "a".repeat(200 << 10);
    let head = format!("GET {path} HTTP/1.1\r\nhost: big\r\nx-big: {long}\r\n\r\n");
    must_be_refused("a head of 200 KiB", refusal(address, &head, 0)?)?;
    let many: String = (0..2_000).map(|number| format!("x-{number}: a\r\n")).collect();
    let head = format!("GET {path} HTTP/1.1\r\nhost: big\r\n{many}\r\n");
    must_be_refused("a head of 2,000 headers", refusal(address, &head, 0)?)?;
    let announced = "content-type: application/json\r\ncontent-length: 99999999999\r\n";
    let head = format!("POST {path} HTTP/1.1\r\nhost: big\r\n{announced}\r\n");
    must_be_refused("a body of 100 GB", refusal(address, &head, 1 << 20)?)
}

fn oversized_server(run: &Run, injector: &mut Injector<'_>) -> Result<Injected> {
    let Some(server) = injector.server(run) else {
        return Ok(Injected::Not);
    };
    run.say("oversized requests to the server");
    oversized(server.http, "/api/v1/deployments")?;
    let head = "POST /api/v1/deployments HTTP/1.1\r\nhost: big\r\ncontent-type: application/json\r\n";
    let head = format!("{head}content-length: 1000000\r\n\r\n");
    must_be_refused("a deployment of 1 MB", refusal(server.http, &head, 1_000_000)?)?;
    api_answers(run)?;
    Ok(Injected::Held(run.running()))
}

fn oversized_agent(run: &Run, injector: &mut Injector<'_>) -> Result<Injected> {
    let Some(agent) = injector.agent(run) else {
        return Ok(Injected::Not);
    };
    run.say(&format!("oversized requests to {}", agent.name));
    oversized(agent.http, "/orders")?;
    ingress_answers(&agent)?;
    Ok(Injected::Held(run.running()))
}
