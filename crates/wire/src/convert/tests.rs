//! What goes out comes back equal, and what is malformed is named.

use std::collections::{BTreeMap, HashMap};

use hotswap_core::analysis::{ArmCounts, Block, Histogram};
use hotswap_core::ids::{Digest, FleetId, Incarnation, ModuleName, NodeId, ReleaseRef, RolloutId};
use hotswap_core::report::{
    ACCOUNT_LEN_MAX, Hello, Interval, ModuleStatus, NodeHealth, NodeReport, REASON_LEN_MAX, ReleaseLoad,
    ReleaseStatus, SmokeOutcome, Veto,
};
use hotswap_core::spec::{Generation, ModuleSpec, NodeSpec, Observe, SmokeRun, SmokeVia};
use hotswap_core::time::Millis;
use hotswap_core::trace::TraceParent;
use proptest::collection::{btree_map, btree_set, vec};
use proptest::option::of;
use proptest::prelude::*;
use prost::Message as _;

use crate::{Ack, AckedInterval, AckedVeto, FetchRequest, PROTOCOL, ServerMessage, Settings, pb};

fn digest() -> impl Strategy<Value = Digest> {
    any::<[u8; 32]>().prop_map(Digest)
}

fn module() -> impl Strategy<Value = ModuleName> {
    "[a-z][a-z0-9-]{1,20}[a-z0-9]".prop_map(|name| name.parse().unwrap())
}

fn release() -> impl Strategy<Value = ReleaseRef> {
    (any::<(u16, u16, u16)>(), "(-[a-z]{1,5})?", digest(), any::<u64>()).prop_map(
        |((major, minor, patch), pre, digest, config)| ReleaseRef {
            version: format!("{major}.{minor}.{patch}{pre}").parse().unwrap(),
            digest,
            config,
        },
    )
}

fn generation() -> impl Strategy<Value = Generation> {
    any::<(u64, u64)>().prop_map(|(epoch, seq)| Generation { epoch, seq })
}

/// Routes over some of these, weights summing to 100, or none.
fn routes(digests: &[Digest], split: u8) -> Vec<(Digest, u8)> {
    match digests {
        [] => Vec::new(),
        [only] => vec![(*only, 100)],
        [first, second, ..] => vec![(*first, split), (*second, 100 - split)],
    }
}

fn smoke_run() -> impl Strategy<Value = SmokeRun> {
    (any::<u64>(), any::<u32>(), digest(), any::<bool>()).prop_map(|(rollout, step, digest, preview)| {
        SmokeRun {
            rollout: RolloutId(rollout),
            step,
            digest,
            via: if preview {
                SmokeVia::Preview
            } else {
                SmokeVia::Ingress
            },
        }
    })
}

fn release_status() -> impl Strategy<Value = ReleaseStatus> {
    prop_oneof![
        Just(ReleaseStatus::Fetching),
        Just(ReleaseStatus::Loading),
        Just(ReleaseStatus::Prefetched),
        any::<u64>().prop_map(|ms| ReleaseStatus::Ready {
            healthy_for: Millis(ms)
        }),
        ".{0,40}".prop_map(|reason| ReleaseStatus::Unhealthy { reason }),
        ".{0,40}".prop_map(|reason| ReleaseStatus::Failed { reason }),
    ]
}

prop_compose! {
    fn module_status()(
        rollout: u64,
        releases in btree_map(digest(), release_status(), 0..4),
        split in 0..=100_u8,
        (preview, trial, committed) in (of(digest()), of(digest()), of(digest())),
        smoke in of((smoke_run(), any::<u32>(), vec(".{0,20}", 0..3))),
    ) -> ModuleStatus {
        let digests: Vec<_> = releases.keys().copied().collect();
        ModuleStatus {
            rollout: RolloutId(rollout),
            releases,
            routes: routes(&digests, split),
            preview,
            trial,
            committed,
            smoke: smoke.map(|(run, passed, failures)| SmokeOutcome { run, passed, failures }),
        }
    }
}

prop_compose! {
    fn arm()(
        (requests, probes) in any::<(u64, u64)>(),
        (errors, probe_errors) in any::<(u64, u64)>(),
        (probe_streak, cpu_us) in any::<(u64, u64)>(),
        (memory_kib, memory_readings) in any::<(u64, u64)>(),
        latency in vec((0..400_u16, any::<u64>()), 0..20),
    ) -> ArmCounts {
        ArmCounts {
            requests,
            errors: errors.min(requests),
            latency: Histogram::from(latency),
            probes,
            probe_errors: probe_errors.min(probes),
            probe_streak,
            cpu_us,
            memory_kib,
            memory_readings,
        }
    }
}

prop_compose! {
    fn interval()(
        module in module(),
        (rollout, step) in any::<(u64, u32)>(),
        number in 1..=u32::MAX,
        candidate in arm(),
        control in arm(),
    ) -> Interval {
        Interval { module, rollout: RolloutId(rollout), step, number, block: Block { candidate, control, ..Block::default() } }
    }
}

prop_compose! {
    fn veto()(
        (module, rollout) in (module(), any::<u64>()),
        release in release(),
        base in of(release()),
        reason in ".{0,80}",
    ) -> Veto {
        Veto { module, rollout: RolloutId(rollout), release, base, reason }
    }
}

prop_compose! {
    fn hello()(
        (hostname, ingress) in (".{0,30}", "[0-9.]{7,15}:[0-9]{1,5}"),
        labels in btree_map("[a-z]{1,8}", ".{0,12}", 0..4),
        capabilities in vec("[a-z]{1,8}", 0..4),
    ) -> Hello {
        Hello {
            hostname,
            environment: "Production".parse().unwrap(),
            ingress,
            labels,
            agent_version: "0.1.0".to_owned(),
            capabilities,
        }
    }
}

fn health() -> impl Strategy<Value = NodeHealth> {
    let measure = || 0.0..1e9_f64;
    (
        measure(),
        measure(),
        measure(),
        measure(),
        any::<u64>(),
        measure(),
    )
        .prop_map(
            |(cpu_percent, memory_percent, requests_per_second, error_percent, samples, latency_ms)| {
                NodeHealth {
                    cpu_percent,
                    memory_percent,
                    requests_per_second,
                    error_percent,
                    samples,
                    latency_ms,
                }
            },
        )
}

prop_compose! {
    fn load()(
        module in module(),
        digest in digest(),
        requests_per_second in 0.0..1e9,
        error_percent in 0.0..=100.0,
        latency_ms in 0.0..1e6,
    ) -> ReleaseLoad {
        ReleaseLoad { module, digest, requests_per_second, error_percent, latency_ms }
    }
}

prop_compose! {
    fn report()(
        node in "[a-z0-9][a-z0-9._-]{0,30}",
        (incarnation, seq) in any::<(u64, u64)>(),
        hello in of(hello()),
        highest in generation(),
        modules in btree_map(module(), of(module_status()), 0..4),
        vetoes in vec(veto(), 0..3),
        intervals in vec(interval(), 0..3),
        health in of(health()),
        loads in vec(load(), 0..3),
    ) -> NodeReport {
        NodeReport {
            node: node.parse::<NodeId>().unwrap(),
            incarnation: Incarnation(incarnation),
            seq, hello, highest, modules, vetoes, intervals, health, loads,
        }
    }
}

prop_compose! {
    fn module_spec()(
        (rollout, trial, settle) in any::<(u64, bool, u64)>(),
        releases in vec(release(), 0..4),
        values in btree_map(1..9_u64, btree_map("[A-Z_][A-Z0-9_]{0,8}", "[a-z:]{0,9}", 0..3), 0..3),
        prefetch in btree_set(digest(), 0..3),
        split in 0..=100_u8,
        preview: bool,
        smoke in of(smoke_run()),
        observe in of((any::<(u64, u32, u32)>(), digest(), of(digest()), 1..u64::MAX)),
    ) -> ModuleSpec {
        let digests: Vec<_> = releases.iter().map(ReleaseRef::id).collect();
        ModuleSpec {
            rollout: RolloutId(rollout),
            trial,
            routes: routes(&digests, split),
            preview: digests.first().copied().filter(|_| preview),
            releases,
            values,
            prefetch: prefetch.into_iter().collect(),
            settle: Millis(settle),
            smoke,
            observe: observe.map(|((rollout, step, probes), candidate, control, interval)| Observe {
                rollout: RolloutId(rollout),
                step,
                candidate,
                control,
                interval: Millis(interval),
                probes,
            }),
        }
    }
}

fn spec() -> impl Strategy<Value = NodeSpec> {
    (
        any::<[u8; 16]>(),
        generation(),
        btree_map(module(), module_spec(), 0..4),
        btree_map(module(), (1..=u128::MAX, 1..=u64::MAX, any::<bool>()), 0..3),
    )
        .prop_map(|(fleet, generation, modules, traces)| NodeSpec {
            fleet: FleetId(uuid::Uuid::from_bytes(fleet)),
            generation,
            modules,
            traces: traces
                .into_iter()
                .map(|(module, (trace_id, span_id, sampled))| {
                    let parent = TraceParent {
                        trace_id,
                        span_id,
                        sampled,
                    };
                    (module, parent)
                })
                .collect(),
        })
}

prop_compose! {
    fn ack()(
        seq: u64,
        vetoes in vec((module(), any::<u64>(), release()), 0..3),
        intervals in vec((module(), any::<u64>(), any::<u32>()), 0..3),
    ) -> Ack {
        let veto = |(module, rollout, release)| AckedVeto { module, rollout: RolloutId(rollout), release };
        let interval = |(module, rollout, number)| AckedInterval { module, rollout: RolloutId(rollout), number };
        Ack { seq, vetoes: vetoes.into_iter().map(veto).collect(), intervals: intervals.into_iter().map(interval).collect() }
    }
}

fn server_message() -> impl Strategy<Value = ServerMessage> {
    prop_oneof![
        spec().prop_map(ServerMessage::Spec),
        ack().prop_map(ServerMessage::Ack),
        (any::<[u8; 16]>(), 1..u64::MAX, proptest::option::of(any::<u64>())).prop_map(
            |(fleet, heartbeat, renew_in)| {
                ServerMessage::Settings(Settings {
                    fleet: FleetId(uuid::Uuid::from_bytes(fleet)),
                    heartbeat: Millis(heartbeat),
                    renew_in: renew_in.map(Millis),
                })
            }
        ),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn a_report_comes_back_equal(report in report()) {
        let bytes = pb::AgentMessage::from(&report).encode_to_vec();
        let back = pb::AgentMessage::decode(bytes.as_slice()).unwrap().read().unwrap();
        prop_assert_eq!(back, Some(report));
    }

    #[test]
    fn a_servers_message_comes_back_equal(message in server_message()) {
        let bytes = pb::ServerMessage::from(&message).encode_to_vec();
        let back = pb::ServerMessage::decode(bytes.as_slice()).unwrap().read().unwrap();
        prop_assert_eq!(back, Some(message));
    }

    #[test]
    fn a_fetch_request_comes_back_equal(digest in digest(), offset: u64, signature: bool) {
        let request = FetchRequest { digest, offset, signature };
        prop_assert_eq!(FetchRequest::try_from(pb::FetchRequest::from(&request)).unwrap(), request);
    }

    /// Bytes from anyone: an error or a message, never a panic.
    #[test]
    fn damaged_bytes_are_refused_or_read(report in report(), at: prop::sample::Index, bit in 0..8_u8) {
        let mut bytes = pb::AgentMessage::from(&report).encode_to_vec();
        let at = at.index(bytes.len().max(1));
        if let Some(byte) = bytes.get_mut(at) {
            *byte ^= 1_u8 << bit;
        }
        if let Ok(message) = pb::AgentMessage::decode(bytes.as_slice()) {
            drop(message.read());
        }
    }

    /// A field of a later version (number 1000, length-delimited) is passed over.
    #[test]
    fn unknown_fields_are_passed_over(report in report(), later in vec(any::<u8>(), 0..100)) {
        let mut inner = pb::NodeReport::from(&report).encode_to_vec();
        prost::encoding::bytes::encode(1000, &later, &mut inner);
        let back = NodeReport::try_from(pb::NodeReport::decode(inner.as_slice()).unwrap()).unwrap();
        prop_assert_eq!(back, report);
    }
}

fn plain_report() -> pb::NodeReport {
    let status = ModuleStatus {
        releases: BTreeMap::from([(Digest([1; 32]), ReleaseStatus::Fetching)]),
        ..ModuleStatus::default()
    };
    let mut arm = ArmCounts {
        requests: 3,
        errors: 1,
        ..ArmCounts::default()
    };
    arm.latency.record(90);
    arm.latency.record(1_500);
    (&NodeReport {
        node: "prod-1".parse().unwrap(),
        incarnation: Incarnation(7),
        seq: 1,
        hello: Some(Hello {
            hostname: "host".to_owned(),
            environment: "QA".parse().unwrap(),
            ingress: "127.0.0.1:1".to_owned(),
            labels: BTreeMap::new(),
            agent_version: "0.1.0".to_owned(),
            capabilities: vec!["wasm".to_owned()],
        }),
        highest: Generation::default(),
        modules: BTreeMap::from([("payment-processor".parse().unwrap(), Some(status))]),
        vetoes: Vec::new(),
        intervals: vec![Interval {
            module: "payment-processor".parse().unwrap(),
            rollout: RolloutId(1),
            step: 0,
            number: 1,
            block: Block {
                candidate: arm,
                control: ArmCounts::default(),
                ..Block::default()
            },
        }],
        health: Some(NodeHealth::default()),
        loads: Vec::new(),
    })
        .into()
}

/// What a report with one field broken is refused with.
fn refusal(break_it: impl FnOnce(&mut pb::NodeReport)) -> String {
    let mut report = plain_report();
    break_it(&mut report);
    let message = pb::AgentMessage {
        message: Some(pb::agent_message::Message::Report(report)),
    };
    message.read().unwrap_err().to_string()
}

#[test]
fn a_malformed_report_names_the_field() {
    assert!(NodeReport::try_from(plain_report()).is_ok());
    let short = refusal(|r| r.modules[0].status.as_mut().unwrap().releases[0].digest = vec![1; 31]);
    assert_eq!(
        short,
        "malformed message: report.modules[0].status.releases[0].digest: has 31 bytes, expected 32"
    );
    let twice = refusal(|r| r.modules.push(r.modules[0].clone()));
    assert_eq!(
        twice,
        r#"malformed message: report.modules: names "payment-processor" twice"#
    );
    let name = refusal(|r| r.node = "no such name!".to_owned());
    assert!(
        name.starts_with("malformed message: report.node: node id"),
        "{name}"
    );
    let stateless = refusal(|r| r.modules[0].status.as_mut().unwrap().releases[0].state = None);
    assert_eq!(
        stateless,
        "malformed message: report.modules[0].status.releases[0].state: is missing"
    );
    let errors = refusal(|r| r.intervals[0].candidate.as_mut().unwrap().errors = 4);
    assert_eq!(
        errors,
        "malformed message: report.intervals[0].candidate.errors: 4 of 3 requests"
    );
    let bins = refusal(|r| r.intervals[0].candidate.as_mut().unwrap().latency_bins[1] = 0);
    assert!(
        bins.starts_with("malformed message: report.intervals[0].candidate.latency_bins: entry 1"),
        "{bins}"
    );
    let far = refusal(|r| r.intervals[0].candidate.as_mut().unwrap().latency_bins[1] = u32::MAX);
    assert!(
        far.starts_with("malformed message: report.intervals[0].candidate.latency_bins: entry 1"),
        "{far}"
    );
    let counts = refusal(|r| {
        r.intervals[0]
            .candidate
            .as_mut()
            .unwrap()
            .latency_counts
            .truncate(1);
    });
    assert!(
        counts.contains("latency_counts: has 1 counts for 2 bins"),
        "{counts}"
    );
    let nan = refusal(|r| r.health.as_mut().unwrap().cpu_percent = f64::NAN);
    assert_eq!(
        nan,
        "malformed message: report.health.cpu_percent: NaN is not a measure"
    );
    let newer = refusal(|r| r.hello.as_mut().unwrap().protocol = PROTOCOL + 1);
    assert!(
        newer.starts_with("malformed message: report.hello.protocol: is protocol 2"),
        "{newer}"
    );
    let many = refusal(|r| r.modules = vec![r.modules[0].clone(); 1_000]);
    assert_eq!(
        many,
        "malformed message: report.modules: has 1000 entries, at most 512 are taken"
    );
}

#[test]
fn a_malformed_spec_names_the_field() {
    let digest = vec![3; 32];
    let release = pb::ReleaseRef {
        version: "1.0.0".to_owned(),
        digest: digest.clone(),
        config: 0,
    };
    let good = pb::NodeSpec {
        fleet: vec![9; 16],
        generation: None,
        modules: vec![pb::ModuleSpec {
            name: "payment-processor".to_owned(),
            releases: vec![release],
            routes: vec![pb::Route { digest, weight: 100 }],
            ..pb::ModuleSpec::default()
        }],
        traces: HashMap::new(),
    };
    assert!(NodeSpec::try_from(good.clone()).is_ok());
    let refusal = |break_it: fn(&mut pb::NodeSpec)| {
        let mut spec = good.clone();
        break_it(&mut spec);
        NodeSpec::try_from(spec).unwrap_err().to_string()
    };
    assert_eq!(
        refusal(|s| s.modules[0].routes[0].weight = 50),
        "malformed message: modules[0].routes: weights sum to 50, not 100"
    );
    assert_eq!(
        refusal(|s| {
            let values = HashMap::from([("no name".to_owned(), String::new())]);
            s.modules[0].values.push(pb::Values { number: 1, values });
        }),
        "malformed message: modules[0].values[0]: values: the key \"no name\" should be a variable's name, such as \
         LOG_LEVEL, of at most 128 characters"
    );
    assert_eq!(
        refusal(|s| s.modules[0].routes[0].weight = 300),
        "malformed message: modules[0].routes[0].weight: 300 is not 0 to 100"
    );
    let unheld = refusal(|s| s.modules[0].preview = Some(vec![4; 32]));
    assert!(
        unheld.starts_with("malformed message: modules[0].preview: sha256:0404"),
        "{unheld}"
    );
    let version = refusal(|s| s.modules[0].releases[0].version = "1.0".to_owned());
    assert!(
        version.starts_with("malformed message: modules[0].releases[0].version: "),
        "{version}"
    );
    assert_eq!(
        refusal(|s| s.fleet.clear()),
        "malformed message: fleet: has 0 bytes, expected 16"
    );
}

#[test]
fn a_long_reason_is_shortened_where_it_is_sent_and_refused_where_it_arrives() {
    let long = "ä".repeat(REASON_LEN_MAX + 1);
    assert_eq!(super::parts::reason_out(&long).chars().count(), REASON_LEN_MAX);
    assert!(super::parts::reason_in(long).is_err());
    let account = "ä".repeat(ACCOUNT_LEN_MAX + 1);
    assert!(super::parts::account_in(super::parts::account_out(&account)).is_ok());
    assert!(super::parts::account_in(account).is_err());
}

/// What an agent sends every interval under a canary: one module observed, and its health.
#[test]
fn an_intervals_report_is_small() {
    let mut arm = ArmCounts {
        requests: 5_000,
        errors: 3,
        probes: 2,
        ..ArmCounts::default()
    };
    for us in 200..5_000 {
        arm.latency.record(us);
    }
    let mut report = NodeReport::try_from(plain_report()).unwrap();
    report.hello = None;
    report.modules.clear();
    report.intervals[0].block = Block {
        candidate: arm.clone(),
        control: arm,
        ..Block::default()
    };
    let bytes = pb::AgentMessage::from(&report).encoded_len();
    assert!(bytes < 512, "{bytes}");
}
