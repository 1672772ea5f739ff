//! Probes: what would drop what it should pass is refused before it is at a hook, and left when it does so later.

use std::path::Path;

use hotswap_runtime::testing::namespace::{Wire, inside};
use hotswap_runtime::{EbpfHost, EbpfHostConfig, Launch, Readiness, Runtime as _};

use crate::support::{PINS, counted, eventually, gone, host, release, started};

/// Passes ARP on, until it has seen so many packets; answers a protocol of its own by sending it back.
const FILTER: &str = r#"
#include <linux/if_ether.h>
struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 1); __type(key, __u32); __type(value, __u64); } seen SEC(".maps");
SEC("xdp") int look(struct xdp_md *ctx) {
    void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
    struct ethhdr *ether = data;
    __u32 only = 0;
    __u64 *count = bpf_map_lookup_elem(&seen, &only);
    if (!count || (void *)(ether + 1) > end)
        return XDP_PASS;
    __sync_fetch_and_add(count, 1);
    if (ether->h_proto == bpf_htons(ETH_P_ARP))
        return *count > PASSES ? XDP_DROP : XDP_PASS;
    if (ether->h_proto == bpf_htons(0x88b5)) {
        __u8 former = ether->h_dest[0];
        ether->h_dest[0] = ether->h_source[0];
        ether->h_source[0] = former;
        return XDP_TX;
    }
    return XDP_PASS;
}
"#;

/// Answers the same to all.
const ANSWER: &str = r#"
SEC(SECTION) int look(void *ctx) { return VERDICT; }
"#;

const ARP: &str =
    "ffffffffffff 020000000001 0806 0001080006040001 020000000001 0a4d0101 000000000000 0a4d0102";

fn probed(output: &str) -> String {
    format!(
        "[[ebpf.programs]]\nname = \"look\"\nattach = \"xdp\"\ninterface = \"hs1\"\n\
         [[ebpf.counters]]\ncounts = \"requests\"\nmap = \"seen\"\n\
         [[ebpf.probes]]\nname = \"arp passes\"\nprogram = \"look\"\npacket = \"{ARP}\"\nreturns = \"pass\"\n\
         [[ebpf.probes]]\nname = \"echo\"\nprogram = \"look\"\npacket = \"ffffffffffff 020000000001 88b5\"\nreturns = \"tx\"\n\
         output = \"{output}\"\n"
    )
}

const ECHO: &str = "02ffffffffff ff0000000001 88b5";

#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_fails_a_probe_is_refused_before_it_is_at_its_hook() {
    if !inside("probes::a_version_that_fails_a_probe_is_refused_before_it_is_at_its_hook") {
        return;
    }
    let wire = Wire::new(1);
    let host = host(&wire);
    let (Some(good), Some(drops), Some(other)) = (
        release("1.0.0", &probed(ECHO), FILTER, &["PASSES=1000000"]),
        release("1.1.0", &probed(ECHO), FILTER, &["PASSES=0"]),
        release(
            "1.2.0",
            &probed("02ffffffffff 020000000001 88b5"),
            FILTER,
            &["PASSES=1000000"],
        ),
    ) else {
        return;
    };
    let good = started(&host, good).await.unwrap();
    good.engage();
    assert_eq!(good.readiness(), Readiness::Ready);
    assert_eq!(good.complaint(), None);
    let checks = EbpfHost::new(EbpfHostConfig::for_checks()).unwrap();
    for (release, told) in [
        (
            drops,
            "the probe \"arp passes\" through look came to drop (1), and should to pass (2)",
        ),
        (
            other,
            "the probe \"echo\" through look left another frame than it should: byte 6 is ff, not 02",
        ),
    ] {
        let checked = checks.prepare(release.clone()).await.unwrap();
        let refused = checked.start(Launch::default()).await.err().unwrap().to_string();
        assert!(refused.contains(told), "{refused}");
        let folder = Path::new(PINS).join(release.digest.hex());
        let refused = started(&host, release).await.err().unwrap().to_string();
        assert!(refused.contains(told), "{refused}");
        assert!(!folder.exists());
        assert_eq!(good.readiness(), Readiness::Ready);
    }
    gone(&[&good]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_fails_a_probe_at_its_hook_is_complained_of() {
    if !inside("probes::a_version_that_fails_a_probe_at_its_hook_is_complained_of") {
        return;
    }
    let wire = Wire::new(1);
    let host = host(&wire);
    let Some(tires) = release("1.0.0", &probed(ECHO), FILTER, &["PASSES=1000"]) else {
        return;
    };
    let tires = started(&host, tires).await.unwrap();
    tires.engage();
    assert_eq!(tires.complaint(), None);
    let flood = wire.flood(Some(5_000));
    eventually("nothing is counted", || counted(&tires) > 1_000);
    eventually("no probe says it", || tires.complaint().is_some());
    let why = tires.complaint().unwrap();
    assert!(
        why.contains("\"arp passes\" through look came to drop (1)"),
        "{why}"
    );
    drop(flood);
    gone(&[&tires]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_hook_of_packets_takes_probes() {
    if !inside("probes::every_hook_of_packets_takes_probes") {
        return;
    }
    let checks = EbpfHost::new(EbpfHostConfig::for_checks()).unwrap();
    for (hook, place, section, verdict, returns) in [
        ("xdp", "interface = \"hs1\"", "xdp", 2, "pass"),
        ("tcx-ingress", "interface = \"hs1\"", "classifier", -1, "next"),
        ("tcx-egress", "interface = \"hs1\"", "classifier", 2, "drop"),
        (
            "cgroup-skb-egress",
            "cgroup = \"/sys/fs/cgroup/a\"",
            "cgroup_skb/egress",
            1,
            "pass",
        ),
    ] {
        let ebpf = format!(
            "[[ebpf.programs]]\nname = \"look\"\nattach = \"{hook}\"\n{place}\n\
             [[ebpf.probes]]\nname = \"arp\"\nprogram = \"look\"\npacket = \"{ARP}\"\nreturns = \"{returns}\"\n"
        );
        let defines = [format!("SECTION=\"{section}\""), format!("VERDICT={verdict}")];
        let Some(release) = release("1.0.0", &ebpf, ANSWER, &defines.each_ref().map(String::as_str)) else {
            return;
        };
        let checked = checks.prepare(release).await.unwrap();
        let started = checked.start(Launch::default()).await;
        assert!(started.is_ok(), "{hook}: {}", started.err().unwrap());
    }
}
