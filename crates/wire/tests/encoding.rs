//! What a released version sent must be understood by every later one: messages as bytes, in `fixtures/v1`.
//!
//! `BLESS=1 cargo test --release -p hotswap-wire --test encoding` writes them anew, which is right until a version
//! with them is released.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use hotswap_core::analysis::{ArmCounts, Block, Histogram};
use hotswap_core::ids::{Digest, FleetId, Incarnation, ReleaseRef, RolloutId};
use hotswap_core::report::{
    Hello, Interval, ModuleStatus, NodeHealth, NodeReport, ReleaseStatus, SmokeOutcome, Veto,
};
use hotswap_core::spec::{Generation, ModuleSpec, NodeSpec, Observe, SmokeRun, SmokeVia};
use hotswap_core::time::Millis;
use hotswap_wire::{Ack, AckedInterval, AckedVeto, FetchRequest, ServerMessage, Settings, pb};
use prost::Message;

const STABLE: Digest = Digest([0x11; 32]);
const CANDIDATE: Digest = Digest([0x22; 32]);
/// A field that no message has: number 1000, the varint 7.
const UNKNOWN: [u8; 3] = [0xC0, 0x3E, 0x07];

fn release(version: &str, digest: Digest) -> ReleaseRef {
    ReleaseRef {
        version: version.parse().unwrap(),
        digest,
        config: 3,
    }
}

fn run() -> SmokeRun {
    SmokeRun {
        rollout: RolloutId(42),
        step: 1,
        digest: CANDIDATE,
        via: SmokeVia::Ingress,
    }
}

fn fleet() -> FleetId {
    FleetId("6ba7b810-9dad-11d1-80b4-00c04fd430c8".parse().unwrap())
}

fn spec() -> ServerMessage {
    let (candidate, stable) = (release("2.1.0", CANDIDATE), release("2.0.0-rc.1", STABLE));
    let (to_candidate, to_stable) = (candidate.id(), stable.id());
    let values = BTreeMap::from([("REGION".to_owned(), "eu".to_owned())]);
    let module = ModuleSpec {
        rollout: RolloutId(42),
        trial: true,
        releases: vec![candidate, stable],
        values: BTreeMap::from([(3, values)]),
        prefetch: vec![Digest([0x33; 32])],
        routes: vec![(to_candidate, 30), (to_stable, 70)],
        preview: Some(to_candidate),
        settle: Millis(10_000),
        smoke: Some(run()),
        observe: Some(Observe {
            rollout: RolloutId(42),
            step: 1,
            candidate: to_candidate,
            control: Some(to_stable),
            interval: Millis(500),
            probes: 2,
        }),
    };
    ServerMessage::Spec(NodeSpec {
        fleet: fleet(),
        generation: Generation { epoch: 7, seq: 1_234 },
        modules: BTreeMap::from([("payment-processor".parse().unwrap(), module)]),
        traces: BTreeMap::new(),
    })
}

fn ack() -> ServerMessage {
    let module = || "payment-processor".parse().unwrap();
    ServerMessage::Ack(Ack {
        seq: 9,
        vetoes: vec![AckedVeto {
            module: module(),
            rollout: RolloutId(42),
            release: release("2.1.0", CANDIDATE),
        }],
        intervals: vec![AckedInterval {
            module: module(),
            rollout: RolloutId(42),
            number: 5,
        }],
    })
}

fn settings() -> ServerMessage {
    ServerMessage::Settings(Settings {
        fleet: fleet(),
        heartbeat: Millis(30_000),
        renew_in: Some(Millis(403_200_000)),
    })
}

fn report() -> NodeReport {
    let module = || "payment-processor".parse().unwrap();
    let arm = |requests, errors| ArmCounts {
        requests,
        errors,
        latency: Histogram::from(vec![(3, 40), (17, 2)]),
        probes: 4,
        probe_errors: 1,
        probe_streak: 2,
        ..ArmCounts::default()
    };
    let statuses = [
        ReleaseStatus::Ready {
            healthy_for: Millis(1_500),
        },
        ReleaseStatus::Unhealthy {
            reason: "it trapped 3 times in 10 requests".to_owned(),
        },
        ReleaseStatus::Fetching,
        ReleaseStatus::Loading,
        ReleaseStatus::Prefetched,
        ReleaseStatus::Failed {
            reason: "out of memory".to_owned(),
        },
    ];
    let digests = [STABLE, CANDIDATE]
        .into_iter()
        .chain((0x33..).map(|byte| Digest([byte; 32])));
    NodeReport {
        node: "web-1".parse().unwrap(),
        incarnation: Incarnation(1_767_225_600_000),
        seq: 12,
        hello: Some(Hello {
            hostname: "web-1.example".to_owned(),
            environment: "Production".parse().unwrap(),
            ingress: "127.0.0.1:8080".to_owned(),
            labels: BTreeMap::from([("zone".to_owned(), "a".to_owned())]),
            agent_version: "0.1.0".to_owned(),
            capabilities: vec!["wasm".to_owned()],
        }),
        highest: Generation { epoch: 7, seq: 1_200 },
        modules: BTreeMap::from([
            (
                module(),
                Some(ModuleStatus {
                    rollout: RolloutId(42),
                    releases: digests.zip(statuses).collect(),
                    routes: vec![(STABLE, 100)],
                    preview: Some(CANDIDATE),
                    trial: Some(CANDIDATE),
                    committed: Some(STABLE),
                    smoke: Some(SmokeOutcome {
                        run: run(),
                        passed: 7,
                        failures: vec!["GET /health: 500".to_owned()],
                    }),
                }),
            ),
            ("unloaded".parse().unwrap(), None),
        ]),
        vetoes: vec![Veto {
            module: module(),
            rollout: RolloutId(42),
            release: release("2.1.0", CANDIDATE),
            base: Some(release("2.0.0", STABLE)),
            reason: "half of its last 20 requests failed".to_owned(),
        }],
        intervals: vec![Interval {
            module: module(),
            rollout: RolloutId(42),
            step: 1,
            number: 5,
            block: Block {
                candidate: arm(100, 3),
                control: arm(90, 0),
                ..Block::default()
            },
        }],
        health: Some(NodeHealth {
            cpu_percent: 12.5,
            memory_percent: 40.25,
            requests_per_second: 190.0,
            error_percent: 0.5,
            samples: 5_700,
            latency_ms: 1.75,
        }),
        loads: Vec::new(),
    }
}

fn fetch() -> FetchRequest {
    FetchRequest {
        digest: CANDIDATE,
        offset: 131_072,
        signature: false,
    }
}

/// Every message, as this version sends it.
fn sent() -> BTreeMap<&'static str, Vec<u8>> {
    let server = |message: &ServerMessage| pb::ServerMessage::from(message).encode_to_vec();
    BTreeMap::from([
        ("spec", server(&spec())),
        ("ack", server(&ack())),
        ("settings", server(&settings())),
        ("report", pb::AgentMessage::from(&report()).encode_to_vec()),
        ("fetch", pb::FetchRequest::from(&fetch()).encode_to_vec()),
    ])
}

fn path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/v1/messages.txt")
}

/// Every message, as version 1 sent it: a name and bytes in hexadecimal, a line.
fn kept() -> BTreeMap<String, Vec<u8>> {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        if std::env::var_os("BLESS").is_some() {
            let mut text = String::new();
            for (name, bytes) in sent() {
                write!(text, "{name} ").unwrap();
                bytes.iter().for_each(|byte| write!(text, "{byte:02x}").unwrap());
                text.push('\n');
            }
            fs::create_dir_all(path().parent().unwrap()).unwrap();
            fs::write(path(), text).unwrap();
        }
    });
    let line = |line: &str| {
        let (name, hex) = line.split_once(' ').unwrap();
        let byte = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
        (name.to_owned(), (0..hex.len()).step_by(2).map(byte).collect())
    };
    fs::read_to_string(path()).unwrap().lines().map(line).collect()
}

fn understood(name: &str, bytes: &[u8]) {
    match name {
        "report" => {
            let read = pb::AgentMessage::decode(bytes).unwrap().read().unwrap();
            assert_eq!(read, Some(report()), "{name}");
        }
        "fetch" => {
            let read = FetchRequest::try_from(pb::FetchRequest::decode(bytes).unwrap()).unwrap();
            assert_eq!(read, fetch(), "{name}");
        }
        _ => {
            let expected = match name {
                "spec" => spec(),
                "ack" => ack(),
                "settings" => settings(),
                _ => panic!("what is {name}?"),
            };
            let read = pb::ServerMessage::decode(bytes).unwrap().read().unwrap();
            assert_eq!(read, Some(expected), "{name}");
        }
    }
}

#[test]
fn kept_messages_are_understood() {
    let kept = kept();
    assert_eq!(kept.len(), sent().len());
    for (name, bytes) in kept {
        understood(&name, &bytes);
    }
}

#[test]
fn fields_of_a_later_version_are_passed_over() {
    for (name, mut bytes) in kept() {
        bytes.extend(UNKNOWN);
        understood(&name, &bytes);
    }
}

#[test]
fn this_version_still_sends_what_version_1_understands() {
    for (name, bytes) in sent() {
        assert_eq!(
            kept().get(name),
            Some(&bytes),
            "{name}: a field was renumbered or changed its type; where one was only added, BLESS=1 keeps it"
        );
    }
}

#[test]
fn a_message_of_a_later_kind_is_passed_over() {
    let nothing_known = &UNKNOWN[..];
    assert_eq!(pb::ServerMessage::decode(nothing_known).unwrap().read(), Ok(None));
    assert_eq!(pb::AgentMessage::decode(nothing_known).unwrap().read(), Ok(None));
}
