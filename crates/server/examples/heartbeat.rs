//! What a heartbeat costs in a large fleet: its bytes, and the server's time to decode and to take it in.
//!
//! `cargo run --release -p hotswap-server --example heartbeat -- [NODES] [MODULES]` (10,000 and 10 by default).

use std::collections::BTreeMap;
use std::hint::black_box;
use std::time::Instant;

use hotswap_core::apply::apply;
use hotswap_core::event::{Event, Logged};
use hotswap_core::ids::{Digest, Incarnation, ModuleName, NodeId};
use hotswap_core::observe::Observations;
use hotswap_core::policy::Environment;
use hotswap_core::report::{Hello, ModuleStatus, NodeHealth, NodeReport, ReleaseLoad, ReleaseStatus};
use hotswap_core::spec::Generation;
use hotswap_core::state::State;
use hotswap_core::time::{CoreTime, Millis, Now, WallTime};
use hotswap_wire::pb;
use prost::Message as _;

/// Rounds of the whole fleet's heartbeats; the fastest counts, as the one that was disturbed least.
const ROUNDS: u64 = 7;

fn main() {
    let mut arguments = std::env::args().skip(1).map(|argument| argument.parse::<usize>());
    let mut number = |standard| {
        arguments
            .next()
            .map_or(standard, |given| given.expect("a number"))
    };
    let (nodes, modules) = (number(10_000), number(10));
    let names: Vec<ModuleName> = (0..modules)
        .map(|n| format!("payment-processor-{n}").parse().expect("a name"))
        .collect();
    let ids: Vec<NodeId> = (0..nodes)
        .map(|n| format!("production-{n:05}").parse().expect("a name"))
        .collect();
    let mut state = State::default();
    let mut seq = 0;
    let mut happen = |event| {
        seq += 1;
        let logged = Logged {
            seq,
            epoch: 1,
            at: CoreTime(seq),
            wall: WallTime(seq),
            event,
        };
        apply(&mut state, &logged);
    };
    happen(Event::EnvironmentsConfigured {
        environments: Environment::defaults(),
    });
    for node in &ids {
        happen(Event::NodeRegistered {
            node: node.clone(),
            environment: "Production".parse().expect("a name"),
            hostname: node.to_string(),
            labels: BTreeMap::new(),
        });
    }
    let mut obs = Observations::new(now(1));
    for id in &ids {
        obs.connected(id, now(1));
        obs.absorb(&state, report(id, 1, &names, true), now(1));
    }
    let sizes =
        [true, false].map(|full| pb::AgentMessage::from(&report(&ids[0], 2, &names, full)).encoded_len());
    println!("{nodes} nodes, {modules} modules with requests");
    println!(
        "full report (once a session): {} bytes; heartbeat: {} bytes",
        sizes[0], sizes[1]
    );
    let mut best = [f64::INFINITY; 3];
    for round in 2..2 + ROUNDS {
        let reports: Vec<NodeReport> = ids.iter().map(|id| report(id, round, &names, false)).collect();
        let begun = Instant::now();
        let encoded: Vec<Vec<u8>> = reports
            .iter()
            .map(|report| pb::AgentMessage::from(report).encode_to_vec())
            .collect();
        let encode = begun.elapsed();
        let begun = Instant::now();
        let decoded: Vec<NodeReport> = encoded
            .iter()
            .map(|bytes| {
                let message = pb::AgentMessage::decode(bytes.as_slice()).expect("it was encoded");
                message.read().expect("it is sound").expect("it is a report")
            })
            .collect();
        let decode = begun.elapsed();
        let begun = Instant::now();
        for report in decoded {
            obs.absorb(&state, report, now(round));
        }
        let absorb = begun.elapsed();
        for (best, took) in best.iter_mut().zip([encode, decode, absorb]) {
            *best = best.min(took.as_secs_f64() * 1e6 / nodes as f64);
        }
    }
    black_box(&obs);
    println!(
        "the node encodes in {:.2} µs; the server decodes in {:.2} µs and takes in in {:.2} µs",
        best[0], best[1], best[2]
    );
}

fn now(at: u64) -> Now {
    Now {
        core: CoreTime(at * 1_000),
        wall: WallTime(at * 1_000),
    }
}

fn report(id: &NodeId, seq: u64, names: &[ModuleName], full: bool) -> NodeReport {
    let digest = |n: usize| Digest([u8::try_from(n % 251).unwrap_or(0); 32]);
    let status = |n: usize| ModuleStatus {
        releases: [digest(n), digest(n + 100)]
            .into_iter()
            .map(|digest| {
                (
                    digest,
                    ReleaseStatus::Ready {
                        healthy_for: Millis(60_000),
                    },
                )
            })
            .collect(),
        routes: vec![(digest(n), 100)],
        committed: Some(digest(n)),
        ..ModuleStatus::default()
    };
    NodeReport {
        node: id.clone(),
        incarnation: Incarnation(1),
        seq,
        hello: full.then(|| Hello {
            hostname: id.to_string(),
            environment: "Production".parse().expect("a name"),
            ingress: "10.0.0.1:8080".to_owned(),
            labels: BTreeMap::new(),
            agent_version: "0.1.0".to_owned(),
            capabilities: vec!["wasm".to_owned()],
        }),
        highest: Generation {
            epoch: 1,
            seq: 10_000,
        },
        modules: names
            .iter()
            .enumerate()
            .filter(|_| full)
            .map(|(n, name)| (name.clone(), Some(status(n))))
            .collect(),
        vetoes: Vec::new(),
        intervals: Vec::new(),
        health: Some(NodeHealth {
            cpu_percent: 41.7,
            memory_percent: 23.1,
            requests_per_second: 1_234.5,
            error_percent: 0.12,
            samples: 37_035,
            latency_ms: 1.7,
        }),
        loads: names
            .iter()
            .enumerate()
            .map(|(n, name)| ReleaseLoad {
                module: name.clone(),
                digest: digest(n),
                requests_per_second: 123.4,
                error_percent: 0.12,
                latency_ms: 1.7,
            })
            .collect(),
    }
}
