//! What is fuzzed, and what must hold of it whatever comes.

use std::cell::OnceCell;
use std::fmt::Display;
use std::io::Write as _;
use std::str::FromStr;

use hotswap_core::event::Logged;
use hotswap_core::freeze::Schedule;
use hotswap_core::ids::{Digest, EnvName, ModuleName, NodeId};
use hotswap_core::reconcile::{Ledger, Reconciler};
use hotswap_core::report::NodeReport;
use hotswap_core::time::CoreTime;
use hotswap_core::trace::TraceParent;
use hotswap_package::{Manifest, Package, PackageLimits};
use hotswap_trust::{TrustPolicy, verify};
use hotswap_wire::{ServerMessage, pb};
use prost::Message as _;

use crate::seeds;

/// Longest error that a person is shown for some bytes, in characters.
const ERROR_LEN_MAX: usize = 64 * 1024;

/// Something that reads what somebody else wrote.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its name.
    pub name: &'static str,
    /// Inputs that are right.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// Reads one; whether it was right. Panics where what must hold doesn't.
    pub read: fn(&[u8]) -> bool,
}

/// All of them.
pub const TARGETS: &[Target] = &[
    Target {
        name: "manifest",
        seeds: seeds::manifests,
        read: manifest,
    },
    Target {
        name: "package",
        seeds: seeds::packages,
        read: package,
    },
    Target {
        name: "agent-message",
        seeds: || seeds::messages(&["report"]),
        read: agent_message,
    },
    Target {
        name: "server-message",
        seeds: || seeds::messages(&["spec", "ack", "settings"]),
        read: server_message,
    },
    Target {
        name: "event",
        seeds: seeds::events,
        read: event,
    },
    Target {
        name: "ledger",
        seeds: seeds::ledgers,
        read: ledger,
    },
    Target {
        name: "configuration",
        seeds: seeds::configurations,
        read: configuration,
    },
    Target {
        name: "signature",
        seeds: || SIGNED.with(|signed| vec![signed.get_or_init(seeds::signed).1.clone()]),
        read: signature,
    },
    Target {
        name: "ebpf-object",
        seeds: seeds::ebpf_objects,
        read: ebpf_object,
    },
    Target {
        name: "names",
        seeds: || {
            seeds::words(&[
                "payment-processor",
                "Production",
                "node-01.example",
                "sha256:1111111111111111111111111111111111111111111111111111111111111111",
                "*/30 8-18 1,15 DEC *",
                "0 16 * * FRI",
                "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            ])
        },
        read: names,
    },
];

thread_local! {
    static EBPF: OnceCell<Manifest> = const { OnceCell::new() };
    static SIGNED: OnceCell<(Digest, Vec<u8>, Vec<u8>)> = const { OnceCell::new() };
}

/// The target of a name.
pub fn named(name: &str) -> Option<Target> {
    TARGETS.iter().find(|target| target.name == name).copied()
}

/// Whether it was read; an error says something, and not too much.
fn read<T>(result: Result<T, impl Display>) -> Option<T> {
    match result {
        Ok(read) => Some(read),
        Err(error) => {
            let text = error.to_string();
            assert!(!text.is_empty(), "an error says nothing");
            assert!(text.len() <= ERROR_LEN_MAX, "an error of {} bytes", text.len());
            None
        }
    }
}

fn manifest(bytes: &[u8]) -> bool {
    read(Manifest::from_slice(bytes)).is_some()
}

fn package(bytes: &[u8]) -> bool {
    let limits = PackageLimits::default();
    let Some(package) = read(Package::read(bytes.to_vec(), &limits)) else {
        return false;
    };
    let again = Package::read(package.file.clone(), &limits).expect("a package reads back");
    assert_eq!(again.digest, package.digest);
    true
}

fn agent_message(bytes: &[u8]) -> bool {
    let message = pb::AgentMessage::decode(bytes).ok();
    let Some(Some(report)) = message.and_then(|message| read(message.read())) else {
        return false;
    };
    let sent = pb::AgentMessage::from(&report).encode_to_vec();
    let again: Option<NodeReport> = pb::AgentMessage::decode(&sent[..])
        .expect("what is encoded is decoded")
        .read()
        .expect("what was read is read again");
    // Compared as text: what isn't a number doesn't equal itself.
    assert_eq!(format!("{:?}", Some(report)), format!("{again:?}"));
    true
}

fn server_message(bytes: &[u8]) -> bool {
    let message = pb::ServerMessage::decode(bytes).ok();
    let Some(Some(said)) = message.and_then(|message| read(message.read())) else {
        return false;
    };
    let sent = pb::ServerMessage::from(&said).encode_to_vec();
    let again: Option<ServerMessage> = pb::ServerMessage::decode(&sent[..])
        .expect("what is encoded is decoded")
        .read()
        .expect("what was read is read again");
    assert_eq!(Some(said), again);
    true
}

fn event(bytes: &[u8]) -> bool {
    let Some(logged) = read(serde_json::from_slice::<Logged>(bytes)) else {
        return false;
    };
    let written = serde_json::to_vec(&logged).expect("an event is plain data");
    let again: Logged = serde_json::from_slice(&written).expect("an event reads back");
    assert_eq!(logged, again);
    true
}

fn ledger(bytes: &[u8]) -> bool {
    let Some(ledger) = read(serde_json::from_slice::<Ledger>(bytes)) else {
        return false;
    };
    let written = serde_json::to_vec(&ledger).expect("a ledger is plain data");
    let again: Ledger = serde_json::from_slice(&written).expect("a ledger reads back");
    assert_eq!(ledger, again);
    let node = "n1".parse().expect("a literal node id is valid");
    let (machine, _) = Reconciler::boot(node, ledger, CoreTime(0));
    machine.wake_at();
    true
}

fn configuration(bytes: &[u8]) -> bool {
    let mut file = tempfile::NamedTempFile::new().expect("there is a temporary folder");
    file.write_all(bytes).expect("it has room");
    let sources = hotswap_config::Sources {
        file: Some(file.path().to_owned()),
        ..hotswap_config::Sources::default()
    };
    read(hotswap_config::load(&sources)).is_some()
}

fn signature(bytes: &[u8]) -> bool {
    SIGNED.with(|signed| {
        let (digest, good, roots) = signed.get_or_init(seeds::signed);
        let policy = TrustPolicy::of_roots(roots).expect("the root is read");
        let module: ModuleName = "shop".parse().expect("a literal module name is valid");
        let taken = read(verify(digest, &module, bytes, &policy, seeds::NOW)).is_some();
        // Bytes that differ may be the same signature written otherwise, but never one of other content.
        let other = hotswap_package::digest_of(b"other");
        assert!(
            verify(&other, &module, good, &policy, seeds::NOW).is_err(),
            "a signature counts for other content"
        );
        taken
    })
}

fn ebpf_object(bytes: &[u8]) -> bool {
    EBPF.with(|manifest| {
        let manifest = manifest.get_or_init(seeds::ebpf_manifest);
        read(hotswap_runtime::ebpf::inspect(manifest, bytes)).is_some()
    })
}

fn names(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return false;
    };
    let any = [
        same::<ModuleName>(text),
        same::<EnvName>(text),
        same::<NodeId>(text),
        same::<Digest>(text),
        read(text.parse::<Schedule>()).is_some(),
        text.parse::<TraceParent>().is_ok(),
    ];
    any.contains(&true)
}

/// What is read is written as something that reads the same.
fn same<T: FromStr<Err: Display> + Display + PartialEq + std::fmt::Debug>(text: &str) -> bool {
    let Some(name) = read(text.parse::<T>()) else {
        return false;
    };
    let Ok(again) = name.to_string().parse::<T>() else {
        panic!("{name} does not read back");
    };
    assert_eq!(name, again);
    true
}
