//! Manifests: defaults, and that every fault is told at once by its key.

use hotswap_package::{
    ByteSize, HumanDuration, Isolation, Kind, Limits, MANIFEST_BYTES_MAX, Manifest, ManifestError, Process,
    Ready, Route, SocketKind,
};
use proptest::prelude::*;

const SMALL: &str = r#"
name = "smoke-test-module"
version = "1.0.0"
entry = "smoke.wasm"
[[routes]]
prefix = "/smoke"
[[smoke]]
name = "is up"
path = "/smoke"
"#;

const FULL: &str = r#"
name = "payment-processor"
version = "2.1.0-rc.1"
kind = "process"
entry = "payment-processor"
description = "Takes payments."
drain-deadline = "30s"

[[routes]]
host = "pay.example.com"
prefix = "/"

[limits]
memory = "128MiB"
time = "500ms"
concurrency = 12
instance-reuse = 1
body = "64KiB"

[[smoke]]
name = "takes a payment"
method = "POST"
path = "/payments?dry=1"
headers = { content-type = "application/json" }
body = '{"amount": 1}'
expect-status = 201
expect-body-contains = "authorised"
timeout = "1s"

[capabilities]
outbound-hosts = ["*"]
environment = ["LOG_LEVEL"]

[health]
gross-error-share = 0.25
window = 40

[process]
arguments = ["--workers", "2"]
ready = "http"
ready-path = "/ready"
ready-deadline = "5s"
stop-deadline = "2s"
socket = "tcp"
tasks = 8
open-files = 64
"#;

fn faults(text: &str) -> Vec<String> {
    match Manifest::parse(text) {
        Err(ManifestError::Faults(faults)) => faults.iter().map(ToString::to_string).collect(),
        other => panic!("expected faults, got {other:?}"),
    }
}

#[test]
fn what_is_left_out_has_a_default() {
    let manifest = Manifest::parse(SMALL).unwrap();
    assert_eq!(manifest.kind, Kind::Wasm);
    assert_eq!(manifest.isolation, Isolation::Reuse);
    assert_eq!(manifest.drain_deadline, HumanDuration::secs(10));
    assert_eq!(manifest.limits, Limits::default());
    assert!(manifest.capabilities.is_empty());
    let check = &manifest.smoke[0];
    assert_eq!((check.method.as_str(), check.expect_status), ("GET", 200));
}

#[test]
fn every_key_is_read_and_survives_other_notations() {
    let manifest = Manifest::parse(FULL).unwrap();
    assert_eq!(manifest.limits.memory, ByteSize::mib(128));
    assert_eq!(manifest.limits.time, HumanDuration::millis(500));
    assert_eq!(manifest.smoke[0].headers["content-type"], "application/json");
    assert_eq!(manifest.capabilities.outbound_hosts, ["*"]);
    let process = manifest.process.as_ref().unwrap();
    assert_eq!((process.ready, process.socket), (Ready::Http, SocketKind::Tcp));
    assert_eq!((process.tasks, process.open_files), (8, 64));
    let json = serde_json::to_string(&manifest).unwrap();
    assert_eq!(serde_json::from_str::<Manifest>(&json).unwrap(), manifest);
    let toml = toml::to_string(&manifest).unwrap();
    assert_eq!(Manifest::parse(&toml).unwrap(), manifest);
}

#[test]
fn all_faults_are_told_at_once_each_by_its_key() {
    let told = faults(
        r#"
name = "Payment Processor"
kind = "wasmm"
entry = "../evil.wasm"
drain-deadline = "soon"
colour = "red"

[[routes]]
prefix = "payments"
[[routes]]
host = "HTTP://x"
prefix = "/b/"

[limits]
memory = "1TB"
time = 5
concurrency = 0
speed = 1

[[smoke]]
name = ""
method = "get"
path = "/x y"
expect-status = 1000
headers = { host = "x" }

[capabilities]
outbound-hosts = ["https://x", "x:0"]
environment = ["1A"]

[health]
gross-error-share = nan
"#,
    );
    let keys: Vec<&str> = told
        .iter()
        .map(|fault| fault.split(": ").next().unwrap())
        .collect();
    let expected = [
        "name",
        "version",
        "kind",
        "entry",
        "drain-deadline",
        "colour",
        "routes[0].prefix",
        "routes[1].host",
        "routes[1].prefix",
        "limits.memory",
        "limits.time",
        "limits.concurrency",
        "limits.speed",
        "smoke[0].name",
        "smoke[0].method",
        "smoke[0].path",
        "smoke[0].expect-status",
        "smoke[0].headers.host",
        "capabilities.outbound-hosts[0]",
        "capabilities.outbound-hosts[1]",
        "capabilities.environment[0]",
        "health.gross-error-share",
    ];
    for key in expected {
        assert!(keys.contains(&key), "no fault for {key} in {told:#?}");
    }
    assert_eq!(keys.len(), expected.len(), "{told:#?}");
}

#[test]
fn routing_kinds_need_a_route_and_a_check_and_others_must_not_have_them() {
    let told = faults("name = \"abc\"\nversion = \"1.0.0\"\nentry = \"a.wasm\"");
    assert!(told.iter().any(|f| f.starts_with("routes: ")) && told.iter().any(|f| f.starts_with("smoke: ")));
    assert!(Manifest::parse(KERNEL).is_ok());
    assert_eq!(faults(&format!("{KERNEL}\n[[routes]]\nprefix = \"/\"")).len(), 1);
}

#[test]
fn a_process_is_described_whole_and_nothing_that_cannot_be_kept_is_promised() {
    let bare = SMALL.replace("entry = ", "kind = \"process\"\nentry = ");
    assert_eq!(Manifest::parse(&bare).unwrap().process, Some(Process::default()));
    assert_eq!(Manifest::parse(SMALL).unwrap().process, None);
    let told = faults(&format!(
        "isolation = \"request\"\n{bare}\n[capabilities]\noutbound-hosts = [\"api.example.com\"]\n\
         environment = [\"LISTEN_FDS\"]\n[process]\nready-path = \"/x\"\ntasks = 0\nreadi = 1\narguments = [\"a\\u0000\"]"
    ));
    for key in [
        "isolation",
        "capabilities.outbound-hosts[0]",
        "capabilities.environment[0]",
        "process.ready-path",
        "process.tasks",
        "process.readi",
        "process.arguments[0]",
    ] {
        assert!(
            told.iter().any(|fault| fault.starts_with(&format!("{key}: "))),
            "no {key} in {told:#?}"
        );
    }
    assert_eq!(told.len(), 7, "{told:#?}");
    let told = faults(&format!("{bare}\n[process]\nready = \"http\""));
    assert!(told[0].starts_with("process.ready-path: is missing"), "{told:?}");
    let told = faults(&format!("{SMALL}\n[process]\ntasks = 3"));
    assert!(told[0].starts_with("process: is for process modules"), "{told:?}");
}

#[test]
fn checks_must_be_reachable_and_routes_and_names_unique() {
    let told = faults(&SMALL.replace("path = \"/smoke\"", "path = \"/smokes\""));
    assert_eq!(told, ["smoke[0].path: \"/smokes\" is under none of the routes"]);
    let told = faults(&format!(
        "{SMALL}\n[[smoke]]\nname = \"is up\"\npath = \"/smoke\""
    ));
    assert!(told[0].starts_with("smoke[1].name"), "{told:?}");
    let told = faults(&format!("{SMALL}\n[[routes]]\nprefix = \"/smoke\""));
    assert!(told[0].starts_with("routes[1]"), "{told:?}");
}

#[test]
fn a_route_covers_whole_segments() {
    let route = Route {
        host: None,
        prefix: "/pay".to_owned(),
    };
    assert!(route.covers_path("/pay") && route.covers_path("/pay/x"));
    assert!(!route.covers_path("/payments") && !route.covers_path("/"));
    let all = Route {
        host: None,
        prefix: "/".to_owned(),
    };
    assert!(all.covers_path("/") && all.covers_path("/anything"));
}

#[test]
fn text_that_is_no_manifest_says_why() {
    assert!(
        Manifest::parse("name = ")
            .unwrap_err()
            .to_string()
            .contains("not TOML")
    );
    let long = "#".repeat(usize::try_from(MANIFEST_BYTES_MAX).unwrap() + 1);
    assert!(matches!(
        Manifest::parse(&long),
        Err(ManifestError::TooLarge { .. })
    ));
    let told = faults("routes = 5\nlimits = []");
    assert!(told.iter().any(|f| f.contains("[[routes]]")) && told.iter().any(|f| f.contains("[limits]")));
}

proptest! {
    #[test]
    fn arbitrary_text_never_panics(text in "\\PC{0,400}") {
        let _ = Manifest::parse(&text);
    }

    #[test]
    fn a_mutilated_manifest_never_panics(at in any::<prop::sample::Index>(), cut in 0..40usize, put in "[a-z\\[\\]=\"0-9.\\n]{0,6}") {
        let at = at.index(FULL.len());
        let end = (at + cut).min(FULL.len());
        let text = format!("{}{put}{}", &FULL[..at], &FULL[end..]);
        let _ = Manifest::parse(&text);
    }
}

const EBPF: &str = r#"
name = "packet-limiter"
version = "1.0.0"
kind = "ebpf"
entry = "limiter.o"
[capabilities]
environment = ["UPLINK"]
[ebpf]
kernel = "6.1"
features = ["btf", "cgroup:v2"]
[[ebpf.programs]]
name = "limit"
attach = "xdp"
interface = "$UPLINK"
mode = "driver"
[[ebpf.programs]]
name = "out"
attach = "cgroup-skb-egress"
cgroup = "/sys/fs/cgroup/system.slice"
[[ebpf.maps]]
name = "totals"
carry = true
[[ebpf.counters]]
counts = "requests"
map = "totals"
[[ebpf.counters]]
counts = "drops"
map = "totals"
index = 2
field = 1
[[ebpf.probes]]
name = "arp passes"
program = "limit"
packet = "ffffffffffff 020000000001 0806"
returns = "pass"
[ebpf.invariants]
drops-share-max = 0.2
window = "1s"
requests-min = 50
"#;

#[test]
fn an_ebpf_module_says_where_it_is_attached_and_what_it_counts() {
    let manifest = Manifest::parse(EBPF).unwrap();
    let ebpf = manifest.ebpf.as_ref().unwrap();
    assert_eq!(ebpf.kernel_min().to_string(), "6.1");
    assert!(ebpf.carries("totals") && !ebpf.carries("limit"));
    assert_eq!(ebpf.invariants.drops_share_max, Some(0.2));
    assert_eq!(ebpf.probes[0].returns, 2, "XDP_PASS");
    assert_eq!(
        hotswap_package::needs(&manifest, b"\x7fELF"),
        ["ebpf", "kernel>=6.1", "btf", "cgroup:v2"]
    );
    let tcx = EBPF
        .replace("attach = \"xdp\"", "attach = \"tcx-ingress\"")
        .replace("mode = \"driver\"\n", "");
    assert_eq!(
        Manifest::parse(&tcx).unwrap().ebpf.unwrap().probes[0].returns,
        0,
        "TCX_PASS"
    );
    let tcx = Manifest::parse(&tcx).unwrap();
    assert_eq!(
        tcx.ebpf.unwrap().kernel_min().to_string(),
        "6.6",
        "what the hook needs"
    );
    let json = serde_json::to_string(&manifest).unwrap();
    assert_eq!(serde_json::from_str::<Manifest>(&json).unwrap(), manifest);
    let traced = EBPF.replace(
        "attach = \"cgroup-skb-egress\"\ncgroup = \"/sys/fs/cgroup/system.slice\"",
        "attach = \"tracepoint\"\ntracepoint = \"tcp:tcp_retransmit_skb\"",
    );
    let traced = Manifest::parse(&traced).unwrap();
    assert_eq!(
        hotswap_package::needs(&traced, b"\x7fELF"),
        ["ebpf", "kernel>=6.1", "tracefs", "btf", "cgroup:v2"]
    );
}

#[test]
fn an_ebpf_modules_faults_are_told_by_their_keys() {
    let one = |from: &str, to: &str| {
        let text = EBPF.replace(from, to);
        assert_ne!(text, EBPF, "{from}");
        faults(&text).join("; ")
    };
    for (from, to, told) in [
        (
            "kernel = \"6.1\"",
            "kernel = \"six\"",
            "ebpf.kernel: \"six\" is not a release of the kernel",
        ),
        (
            "\"cgroup:v2\"",
            "\"two words\"",
            "ebpf.features[1]: \"two words\" must be a word",
        ),
        (
            "attach = \"xdp\"",
            "attach = \"xpd\"",
            "ebpf.programs[0].attach: \"xpd\" is no hook; there are xdp, tcx-ingress, ",
        ),
        (
            "interface = \"$UPLINK\"\n",
            "",
            "ebpf.programs[0].interface: is missing; xdp is attached to one",
        ),
        (
            "interface = \"$UPLINK\"",
            "interface = \"$DOWNLINK\"",
            "ebpf.programs[0].interface: $DOWNLINK is not asked for",
        ),
        (
            "interface = \"$UPLINK\"",
            "interface = \"far/too\"",
            "ebpf.programs[0].interface: \"far/too\" must be an interface's name",
        ),
        (
            "cgroup = \"/sys/fs/cgroup/system.slice\"",
            "cgroup = \"/etc\"",
            "ebpf.programs[1].cgroup: \"/etc\" must be a folder",
        ),
        (
            "attach = \"cgroup-skb-egress\"\ncgroup = \"/sys/fs/cgroup/system.slice\"",
            "attach = \"cgroup-connect4\"\ninterface = \"eth0\"",
            "ebpf.programs[1].cgroup: is missing; cgroup-connect4 is attached to one",
        ),
        (
            "attach = \"cgroup-skb-egress\"\ncgroup = \"/sys/fs/cgroup/system.slice\"",
            "attach = \"tracepoint\"",
            "ebpf.programs[1].tracepoint: is missing; tracepoint is attached to one, such as \"sched:sched_process_exec\"",
        ),
        (
            "attach = \"cgroup-skb-egress\"\ncgroup = \"/sys/fs/cgroup/system.slice\"",
            "attach = \"tracepoint\"\ntracepoint = \"sched/../exec\"",
            "ebpf.programs[1].tracepoint: \"sched/../exec\" must be CATEGORY:NAME",
        ),
        (
            "attach = \"cgroup-skb-egress\"\ncgroup = \"/sys/fs/cgroup/system.slice\"",
            "attach = \"tp-btf\"\ntracepoint = \"sched:exec\"",
            "ebpf.programs[1].tracepoint: \"sched:exec\" must be the name alone, such as \"sched_process_exec\"",
        ),
        (
            "carry = true",
            "migrate = \"move_totals\"",
            "ebpf.maps[0].migrate: is for maps that the next version goes on with; give carry = true",
        ),
        (
            "carry = true",
            "carry = true\nmigrate = \"limit\"",
            "ebpf.maps[0].migrate: is a program that is attached",
        ),
        (
            "program = \"limit\"",
            "program = \"limits\"",
            "ebpf.probes[0].program: there is no program \"limits\"",
        ),
        (
            "returns = \"pass\"",
            "returns = \"accept\"",
            "ebpf.probes[0].returns: \"accept\" is nothing that xdp knows; there are aborted, drop, pass, tx, redirect",
        ),
        (
            "020000000001 0806",
            "02000000000g 0806",
            "ebpf.probes[0].packet: 'g' is no hexadecimal digit; give a frame",
        ),
        (
            "020000000001 0806",
            "0200",
            "ebpf.probes[0].packet: it has 8 bytes; 14 to 3072",
        ),
        (
            "attach = \"xdp\"\ninterface = \"$UPLINK\"\nmode = \"driver\"",
            "attach = \"cgroup-connect4\"\ncgroup = \"$UPLINK\"",
            "ebpf.probes[0].program: is at cgroup-connect4, where the kernel can't be asked to send a packet through; it \
             can at xdp, tcx-ingress, tcx-egress, cgroup-skb-ingress, cgroup-skb-egress",
        ),
        (
            "cgroup = \"/sys/fs/cgroup/system.slice\"",
            "mode = \"any\"",
            "ebpf.programs[1].mode: is for xdp",
        ),
        (
            "name = \"out\"",
            "name = \"limit\"",
            "ebpf.programs[1].name: is there twice",
        ),
        (
            "name = \"limit\"",
            "name = \"1st\"",
            "ebpf.programs[0].name: \"1st\" must be a name as C has them",
        ),
        (
            "counts = \"drops\"",
            "counts = \"errors\"",
            "ebpf.invariants.drops-share-max: nothing counts drops",
        ),
        (
            "index = 2",
            "index = 70000",
            "ebpf.counters[1].index: 70000 is out of bounds",
        ),
        (
            "drops-share-max = 0.2",
            "drops-share-max = 2.0",
            "ebpf.invariants.drops-share-max: 2 is out of bounds",
        ),
        (
            "carry = true",
            "carried = true",
            "ebpf.maps[0].carried: is unknown",
        ),
        (
            "kind = \"ebpf\"",
            "kind = \"kernel\"",
            "ebpf: is for ebpf modules, and this one is of kind kernel",
        ),
    ] {
        let faults = one(from, to);
        assert!(faults.contains(told), "{from} -> {to}: {faults}");
    }
    let bare = "name = \"packet-limiter\"\nversion = \"1.0.0\"\nkind = \"ebpf\"\nentry = \"a.o\"\n";
    assert_eq!(
        faults(bare),
        ["ebpf: is missing; an ebpf module says in [ebpf] where its programs are attached"]
    );
    let empty = faults(&format!("{bare}[ebpf]\n")).join("; ");
    assert!(
        empty.contains("ebpf.programs: an ebpf module attaches at least one"),
        "{empty}"
    );
}

const KERNEL: &str = r#"
name = "request-filter"
version = "1.1.0"
kind = "kernel"
entry = "builds.tar"
[kernel]
module = "filter_v1_1_0"
style = "gated"
gate = "hotswap_gate"
deadline = "2s"
parameters = { limit = "20", name = "a,b" }
[[kernel.builds]]
release = "6.1.0-40-cloud-amd64"
file = "filter-40.ko"
[[kernel.builds]]
release = "6.1.0-41-cloud-amd64"
file = "filter-41.ko"
[[kernel.checks]]
file = "parameters/ready"
equals = "Y"
[[kernel.checks]]
file = "/proc/sys/kernel/tainted"
at-most = 100000
[[kernel.counters]]
counts = "requests"
file = "/sys/module/hotswap_gate/parameters/requests"
[[kernel.counters]]
counts = "errors"
file = "parameters/errors"
"#;

#[test]
fn a_kernel_module_says_what_it_is_called_and_which_kernels_it_is_built_for() {
    let manifest = Manifest::parse(KERNEL).unwrap();
    let kernel = manifest.kernel.as_ref().unwrap();
    assert_eq!(
        kernel.path_of("parameters/errors"),
        "/sys/module/filter_v1_1_0/parameters/errors"
    );
    let files = [
        bytes::Bytes::from_static(b"\x7fELF one"),
        bytes::Bytes::from_static(b"\x7fELF another"),
    ];
    let artifact = bytes::Bytes::from(kernel.artifact(&files).unwrap());
    assert_eq!(manifest.kind.artifact_problem(&artifact), None);
    assert_eq!(kernel.files(&artifact).unwrap(), files);
    assert!(kernel.artifact(&files[..1]).is_err());
    let other = Manifest::parse(&KERNEL.replace("filter-41.ko", "filter-42.ko")).unwrap();
    let told = other.kernel.unwrap().files(&artifact).unwrap_err().to_string();
    assert!(
        told.contains("filter-41.ko") && told.contains("filter-42.ko"),
        "{told}"
    );
    assert!(kernel.files(&artifact.slice(..artifact.len() - 512)).is_err());
    assert_eq!(
        hotswap_package::needs(&manifest, &artifact)[..2],
        [
            "kernel",
            "kernel:6.1.0-40-cloud-amd64|kernel:6.1.0-41-cloud-amd64"
        ]
    );
    let json = serde_json::to_string(&manifest).unwrap();
    assert_eq!(serde_json::from_str::<Manifest>(&json).unwrap(), manifest);
}

#[test]
fn a_kernel_modules_faults_are_told_by_name() {
    let told = faults(
        r#"
name = "request-filter"
version = "1.1.0"
kind = "kernel"
entry = "builds.tar"
[capabilities]
environment = ["UPLINK"]
[kernel]
module = "filter-1.1"
style = "livepatch"
gate = "hotswap_gate"
deadline = "1m"
parameters = { "1" = "x", b = "a b" }
[[kernel.builds]]
release = "cloud amd64"
file = "../x.ko"
[[kernel.builds]]
release = "6.1.0"
file = "x.ko"
[[kernel.builds]]
release = "6.1.0"
file = "x.ko"
[[kernel.checks]]
file = "/etc/passwd"
equals = "Y"
at-least = 1
[[kernel.counters]]
counts = "packets"
file = "../../x"
"#,
    );
    for key in [
        "capabilities.environment",
        "kernel.module",
        "kernel.gate",
        "kernel.deadline",
        "kernel.parameters.1",
        "kernel.parameters.b",
        "kernel.builds[0].release",
        "kernel.builds[0].file",
        "kernel.builds[2].release",
        "kernel.builds[2].file",
        "kernel.checks[0].file",
        "kernel.checks[0].equals",
        "kernel.counters[0].counts",
        "kernel.counters[0].file",
    ] {
        assert!(
            told.iter().any(|fault| fault.starts_with(&format!("{key}: "))),
            "no {key} in {told:#?}"
        );
    }
    assert_eq!(told.len(), 14, "{told:#?}");
    let none = faults("name = \"abc\"\nversion = \"1.0.0\"\nkind = \"kernel\"\nentry = \"a.tar\"");
    assert!(none[0].starts_with("kernel: is missing"), "{none:?}");
    let gated = faults(&KERNEL.replace("gate = \"hotswap_gate\"\n", ""));
    assert!(gated[0].starts_with("kernel.gate: is missing"), "{gated:?}");
}
