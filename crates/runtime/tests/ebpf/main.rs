//! eBPF programs at real hooks of this machine's kernel, in a network of the test's own: swapped under a flood, found
//! again by a successor, refused with reasons, and gone without a trace.

mod migrations;
mod probes;
mod sockets;
mod support;
mod tracepoints;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hotswap_package::{Counts, Manifest, pack};
use hotswap_runtime::ebpf::inspect;
use hotswap_runtime::testing::namespace::{Wire, inside, sh};
use hotswap_runtime::{
    Artifact, EbpfHost, EbpfHostConfig, Grants, Instance, Launch, Readiness, Runtime as _, StartError,
};

use support::{Group, NODE, PINS, artifact, counted, eventually, example, gone, host, release, started};

const SWAPS: u32 = 1_000;

/// The link that is pinned, with the program in it.
fn link() -> (u64, u64) {
    let link = sh(&format!("bpftool -j link show pinned {PINS}/links/limit"));
    let link: serde_json::Value = serde_json::from_str(&link).unwrap();
    let number = |key: &str| link[key].as_u64().unwrap_or_else(|| panic!("{link}"));
    (number("id"), number("prog_id"))
}

/// Whether the kernel has a link of that number.
fn is_link(id: u64) -> bool {
    sh("bpftool link show")
        .lines()
        .any(|line| line.starts_with(&format!("{id}: ")))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_packet_is_unseen_while_versions_are_swapped_under_a_flood() {
    if !inside("no_packet_is_unseen_while_versions_are_swapped_under_a_flood") {
        return;
    }
    let wire = Wire::new(1);
    let host = host(&wire);
    let old = started(&host, artifact("1.0.0")).await.unwrap();
    let new = started(&host, artifact("1.1.0")).await.unwrap();
    old.engage();
    assert_eq!(old.readiness(), Readiness::Ready);
    let flood = wire.flood(None);
    let mut took = Vec::new();
    for swap in 0..SWAPS {
        let next = if swap % 2 == 0 { &new } else { &old };
        let begun = Instant::now();
        next.engage();
        took.push(begun.elapsed());
        assert_eq!(next.readiness(), Readiness::Ready, "swap {swap}");
    }
    let sent = flood.stop();
    eventually("not all packets were counted", || {
        counted(&old) + counted(&new) >= sent
    });
    let (by_old, by_new) = (counted(&old), counted(&new));
    took.sort();
    println!(
        "{SWAPS} swaps during {sent} packets: {by_old} seen by 1.0.0, {by_new} by 1.1.0, {} unseen; a swap takes {:?} \
         (p50), {:?} (p99)",
        sent - (by_old + by_new).min(sent),
        took[took.len() / 2],
        took[took.len() * 99 / 100],
    );
    assert_eq!(by_old + by_new, sent);
    assert!(by_old > 0 && by_new > 0);
    // One map went through all of it.
    let totals = std::fs::metadata(format!("{PINS}/maps/totals"));
    assert!(totals.is_ok());
    gone(&[&old, &new]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_at_the_hook_outlives_the_host_and_is_found_again() {
    if !inside("what_is_at_the_hook_outlives_the_host_and_is_found_again") {
        return;
    }
    let wire = Wire::new(1);
    let first = host(&wire);
    let (old, new) = (
        started(&first, artifact("1.0.0")).await.unwrap(),
        started(&first, artifact("1.1.0")).await.unwrap(),
    );
    old.engage();
    new.engage();
    let flood = wire.flood(Some(2_000));
    eventually("nothing is counted", || counted(&new) > 100);
    let before = link();
    // As a process that is killed: nobody says anything.
    std::mem::forget((old, new, first));
    let sent = flood.sent();
    eventually("the flood stopped", || flood.sent() > sent + 200);
    let second = host(&wire);
    let new = started(&second, artifact("1.1.0")).await.unwrap();
    new.engage();
    assert_eq!(link(), before, "the same link, the same program");
    eventually("nothing is counted", || counted(&new) > 100);
    // Its standby's pins are there until something is swapped: it may be loaded a moment later.
    let folder = |version: &str| format!("{PINS}/{}", artifact(version).digest.hex());
    assert!(Path::new(&folder("1.0.0")).exists());
    let old = started(&second, artifact("1.0.0")).await.unwrap();
    old.engage();
    let after = link();
    assert_eq!(after.0, before.0, "a way back is one update of the link");
    assert_ne!(after.1, before.1);
    drop(flood);
    // An end of the process in order leaves all in place, too.
    for instance in [&old, &new] {
        instance.close(Duration::ZERO).await;
    }
    assert_eq!(link(), after);
    let third = host(&wire);
    let old = started(&third, artifact("1.0.0")).await.unwrap();
    old.engage();
    assert_eq!(link(), after);
    assert!(is_link(after.0));
    assert!(Path::new(&folder("1.1.0")).exists());
    let bad = started(&third, artifact("1.2.0")).await.unwrap();
    bad.engage();
    assert!(
        !Path::new(&folder("1.1.0")).exists(),
        "who is nobody's any more goes with a swap"
    );
    gone(&[&bad, &old]).await;
    eventually("the link is left", || !is_link(after.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hook_that_is_lost_is_told_and_taken_again() {
    if !inside("a_hook_that_is_lost_is_told_and_taken_again") {
        return;
    }
    let wire = Wire::new(1);
    let host = host(&wire);
    let instance = started(&host, artifact("1.0.0")).await.unwrap();
    instance.engage();
    let pin = format!("{PINS}/links/limit");
    std::fs::remove_file(&pin).unwrap();
    // The kernel lets go of a link some time after its last file.
    eventually("the hook is not taken again", || {
        instance.tally();
        instance.readiness() == Readiness::Ready && Path::new(&pin).exists()
    });
    sh("ip link del hs1");
    instance.tally();
    let Readiness::Failing(why) = instance.readiness() else {
        panic!("it has no interface")
    };
    assert!(why.contains("this node has no interface hs1"), "{why}");
    let wire = Wire::new(1);
    instance.tally();
    assert_eq!(instance.readiness(), Readiness::Ready);
    let flood = wire.flood(Some(2_000));
    eventually("nothing is counted", || counted(&instance) > 100);
    drop(flood);

    // Somebody else's program is not taken away.
    instance.dismiss();
    instance.close(Duration::ZERO).await;
    let object = example("1.0.0").join("packet-limiter.o");
    sh(&format!(
        "bpftool prog load {} /sys/fs/bpf/other && bpftool net attach xdp pinned /sys/fs/bpf/other dev hs1",
        object.display()
    ));
    let instance = started(&host, artifact("1.0.0")).await.unwrap();
    instance.engage();
    let Readiness::Failing(why) = instance.readiness() else {
        panic!("the hook is another's")
    };
    assert!(
        why.contains("another program is there, which has to leave first"),
        "{why}"
    );
    gone(&[&instance]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_drops_what_it_should_pass_is_found_by_its_counters() {
    if !inside("a_version_that_drops_what_it_should_pass_is_found_by_its_counters") {
        return;
    }
    let wire = Wire::new(1);
    let host = host(&wire);
    let good = started(&host, artifact("1.1.0")).await.unwrap();
    let bad = started(&host, artifact("1.2.0")).await.unwrap();
    good.engage();
    let flood = wire.flood(Some(5_000));
    eventually("nothing is counted", || counted(&good) > 5_000);
    assert_eq!(good.complaint(), None);
    assert_eq!(good.tally().unwrap().drops, 0);
    let begun = Instant::now();
    bad.engage();
    eventually("nothing is held against it", || {
        bad.tally();
        bad.complaint().is_some()
    });
    let (why, tally) = (bad.complaint().unwrap(), bad.tally().unwrap());
    println!(
        "found after {:?}: {why}; {} of {} dropped so far",
        begun.elapsed(),
        tally.drops,
        tally.requests
    );
    assert!(
        why.starts_with("drops were ") && why.ends_with("the manifest allows 20.0 %"),
        "{why}"
    );
    good.engage();
    drop(flood);
    gone(&[&good, &bad]).await;
}

/// Drops each so many-th packet.
const DROPPER: &str = r#"
struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 2); __type(key, __u32); __type(value, __u64); } seen SEC(".maps");
SEC("xdp") int look(struct xdp_md *ctx) {
    __u32 all = 0, dropped = 1;
    __u64 *count = bpf_map_lookup_elem(&seen, &all), *drops = bpf_map_lookup_elem(&seen, &dropped);
    if (!count || !drops)
        return XDP_PASS;
    if (__sync_fetch_and_add(count, 1) % EACH)
        return XDP_PASS;
    __sync_fetch_and_add(drops, 1);
    return XDP_DROP;
}
"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_predecessor_excuses_what_it_broke_by_the_same_bound_and_nothing_else() {
    if !inside("a_predecessor_excuses_what_it_broke_by_the_same_bound_and_nothing_else") {
        return;
    }
    let wire = Wire::new(1);
    let host = host(&wire);
    let dropper = |version: &str, each: u32, most: &str| {
        let ebpf = format!(
            "[[ebpf.programs]]\nname = \"look\"\nattach = \"xdp\"\ninterface = \"hs1\"\n\
             [[ebpf.counters]]\ncounts = \"requests\"\nmap = \"seen\"\n\
             [[ebpf.counters]]\ncounts = \"drops\"\nmap = \"seen\"\nindex = 1\n\
             [ebpf.invariants]\ndrops-share-max = {most}\nwindow = \"300ms\"\nrequests-min = 100\n"
        );
        release(version, &ebpf, DROPPER, &[&format!("EACH={each}")])
    };
    let (Some(some), Some(all), Some(all_too)) = (
        dropper("1.0.0", 50, "0.01"),
        dropper("1.1.0", 1, "0.2"),
        dropper("1.2.0", 1, "0.2"),
    ) else {
        return;
    };
    let some = started(&host, some).await.unwrap();
    let all = started(&host, all).await.unwrap();
    let all_too = started(&host, all_too).await.unwrap();
    let counts_more = |instance: &Arc<dyn Instance>| {
        let before = counted(instance);
        eventually("nothing is counted", || counted(instance) > before + 1_000);
    };
    some.engage();
    let flood = wire.flood(Some(5_000));
    eventually("nothing is held against it", || {
        some.tally();
        some.complaint().is_some()
    });
    // It breaks its own bound, and would keep to its successor's.
    all.engage();
    eventually("nothing is held against it", || {
        all.tally();
        all.complaint().is_some()
    });
    // One that breaks the same bound in the same way is no worse.
    all_too.engage();
    counts_more(&all_too);
    assert_eq!(all_too.complaint(), None);
    drop(flood);
    gone(&[&some, &all, &all_too]).await;
}

const SOURCE: &str = r#"
struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, ENTRIES); __type(key, __u32); __type(value, __u64); } seen SEC(".maps");
SEC(SECTION) int look(void *ctx) {
    __u32 only = 0;
    __u64 *count = bpf_map_lookup_elem(&seen, &only);
    CHECK
    __sync_fetch_and_add(count, 1);
    return VERDICT;
}
"#;

/// A release of a small object, or nothing where there is no compiler.
fn compiled(version: &str, attach: &str, defines: &[&str]) -> Option<Artifact> {
    let ebpf = format!(
        "[[ebpf.programs]]\nname = \"look\"\n{attach}\n[[ebpf.maps]]\nname = \"seen\"\ncarry = true\n\
         [[ebpf.counters]]\ncounts = \"requests\"\nmap = \"seen\"\n"
    );
    release(version, &ebpf, SOURCE, defines)
}

const CHECKED: &str = "CHECK=if (!count) return VERDICT;";

#[tokio::test(flavor = "multi_thread")]
async fn other_hooks_are_swapped_in_one_step_too() {
    if !inside("other_hooks_are_swapped_in_one_step_too") {
        return;
    }
    let wire = Wire::new(1);
    let mut hooks = vec![
        (
            "\"classifier\"",
            "attach = \"tcx-ingress\"\ninterface = \"hs1\"".to_owned(),
            "-1",
        ),
        (
            "\"classifier\"",
            "attach = \"tcx-egress\"\ninterface = \"hs1p\"".to_owned(),
            "-1",
        ),
    ];
    let group = Group::new();
    if let Some(group) = &group {
        hooks.push((
            "\"cgroup_skb/egress\"",
            format!("attach = \"cgroup-skb-egress\"\ncgroup = \"{}\"", group.path),
            "1",
        ));
    }
    for (section, attach, verdict) in hooks {
        let (section, verdict) = (format!("SECTION={section}"), format!("VERDICT={verdict}"));
        let defines = [section.as_str(), verdict.as_str(), "ENTRIES=1", CHECKED];
        let (Some(one), Some(two)) = (
            compiled("1.0.0", &attach, &defines),
            compiled("1.1.0", &attach, &defines),
        ) else {
            return;
        };
        let host = host(&wire);
        let (one, two) = (
            started(&host, one).await.unwrap(),
            started(&host, two).await.unwrap(),
        );
        one.engage();
        assert_eq!(one.readiness(), Readiness::Ready, "{attach}");
        let flood = wire.flood(None);
        let mut took = Vec::new();
        for swap in 0..200 {
            let begun = Instant::now();
            if swap % 2 == 0 { &two } else { &one }.engage();
            took.push(begun.elapsed());
        }
        let sent = flood.stop();
        eventually("not all packets were counted", || {
            counted(&one) + counted(&two) >= sent
        });
        took.sort();
        println!(
            "{}: 200 swaps during {sent} packets, all counted; a swap takes {:?} (p50), {:?} (p99)",
            attach.lines().next().unwrap(),
            took[100],
            took[198]
        );
        assert_eq!(counted(&one) + counted(&two), sent, "{attach}");
        gone(&[&one, &two]).await;
    }
}

/// Two programs, for two interfaces.
const PAIR: &str = r#"
struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 1); __type(key, __u32); __type(value, __u64); } seen SEC(".maps");
static __always_inline int count(void) {
    __u32 only = 0;
    __u64 *count = bpf_map_lookup_elem(&seen, &only);
    if (count)
        __sync_fetch_and_add(count, 1);
    return XDP_PASS;
}
SEC("xdp") int one(void *ctx) { return count(); }
SEC("xdp") int two(void *ctx) { return count(); }
"#;

#[tokio::test(flavor = "multi_thread")]
async fn one_lost_hook_costs_no_other() {
    if !inside("one_lost_hook_costs_no_other") {
        return;
    }
    let wires = [Wire::new(1), Wire::new(2)];
    let ebpf = "[[ebpf.programs]]\nname = \"one\"\nattach = \"xdp\"\ninterface = \"hs1\"\n\
                [[ebpf.programs]]\nname = \"two\"\nattach = \"xdp\"\ninterface = \"hs2\"\n";
    let Some(pair) = release("1.0.0", ebpf, PAIR, &[]) else {
        return;
    };
    let first = host(&wires[0]);
    let both = started(&first, pair.clone()).await.unwrap();
    both.engage();
    assert_eq!(both.readiness(), Readiness::Ready);
    let pin = format!("{PINS}/links/one");
    let number = || sh(&format!("bpftool link show pinned {pin}"));

    // The second interface goes, and somebody removes the first one's link.
    sh("ip link del hs2");
    std::fs::remove_file(&pin).unwrap();
    both.tally();
    let gone_one = |instance: &Arc<dyn Instance>| match instance.readiness() {
        Readiness::Failing(why) => assert!(why.contains("no interface hs2"), "{why}"),
        other => panic!("{other:?}"),
    };
    eventually("the first hook is not taken again", || {
        both.tally();
        Path::new(&pin).exists()
    });
    gone_one(&both);

    // A successor that can't have one of them leaves the other in place.
    Wire::new(2);
    both.tally();
    assert_eq!(both.readiness(), Readiness::Ready);
    std::mem::forget((both, first));
    let second = host(&wires[0]);
    let both = started(&second, pair).await.unwrap();
    let before = number();
    sh("ip link del hs2");
    both.engage();
    gone_one(&both);
    assert_eq!(number(), before);
    // Somebody else's program is at the second one.
    Wire::new(2);
    let object = example("1.0.0").join("packet-limiter.o");
    sh(&format!(
        "bpftool prog load {} /sys/fs/bpf/other && bpftool net attach xdp pinned /sys/fs/bpf/other dev hs2",
        object.display()
    ));
    both.tally();
    let Readiness::Failing(why) = both.readiness() else {
        panic!("the hook is another's")
    };
    assert!(why.contains("another program is there"), "{why}");
    assert_eq!(number(), before);
    sh("bpftool net detach xdp dev hs2");
    both.tally();
    assert_eq!(both.readiness(), Readiness::Ready);
    assert_eq!(number(), before);
    gone(&[&both]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_swap_that_fails_half_way_leaves_what_was_there_whoever_put_it_there() {
    if !inside("a_swap_that_fails_half_way_leaves_what_was_there_whoever_put_it_there") {
        return;
    }
    let wires = [Wire::new(1), Wire::new(2)];
    let program = |name: &str, interface: &str| {
        format!("[[ebpf.programs]]\nname = \"{name}\"\nattach = \"xdp\"\ninterface = \"{interface}\"\n")
    };
    let both = program("one", "hs1") + &program("two", "hs2");
    let (Some(former), Some(next)) = (
        release("1.0.0", &program("one", "hs1"), PAIR, &[]),
        release("1.1.0", &both, PAIR, &[]),
    ) else {
        return;
    };
    let first = host(&wires[0]);
    let one = started(&first, former.clone()).await.unwrap();
    one.engage();
    let link = || sh(&format!("bpftool -j link show pinned {PINS}/links/one"));
    let before = link();
    // Its successor's process knows of it by its pins alone.
    std::mem::forget((one, first));
    let object = example("1.0.0").join("packet-limiter.o");
    sh(&format!(
        "bpftool prog load {} /sys/fs/bpf/other && bpftool net attach xdp pinned /sys/fs/bpf/other dev hs2",
        object.display()
    ));
    let second = host(&wires[0]);
    let next = started(&second, next).await.unwrap();
    next.engage();
    let Readiness::Failing(why) = next.readiness() else {
        panic!("the second hook is another's")
    };
    assert!(why.contains("another program is there"), "{why}");
    assert_eq!(link(), before);

    // Who is left tries no more when another one is wanted.
    let one = started(&second, former).await.unwrap();
    one.engage();
    assert_eq!(one.readiness(), Readiness::Ready);
    sh("bpftool net detach xdp dev hs2");
    next.tally();
    assert_eq!(link(), before);
    assert_eq!(next.readiness(), Readiness::Ready, "nothing is wanted of it");
    next.engage();
    assert_eq!(next.readiness(), Readiness::Ready);
    assert_ne!(link(), before);
    gone(&[&one, &next]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_is_called_otherwise_takes_its_predecessors_place() {
    if !inside("a_program_that_is_called_otherwise_takes_its_predecessors_place") {
        return;
    }
    let wire = Wire::new(1);
    let host = host(&wire);
    let named = |version: &str, name: &str| {
        let ebpf = format!(
            "[[ebpf.programs]]\nname = \"{name}\"\nattach = \"xdp\"\ninterface = \"hs1\"\n\
             [[ebpf.maps]]\nname = \"seen\"\ncarry = true\n[[ebpf.counters]]\ncounts = \"requests\"\nmap = \"seen\"\n"
        );
        release(version, &ebpf, PAIR, &[])
    };
    let (Some(one), Some(two)) = (named("1.0.0", "one"), named("1.1.0", "two")) else {
        return;
    };
    let (one, two) = (
        started(&host, one).await.unwrap(),
        started(&host, two).await.unwrap(),
    );
    one.engage();
    let number = |name: &str| {
        let link = sh(&format!("bpftool -j link show pinned {PINS}/links/{name}"));
        let link: serde_json::Value = serde_json::from_str(&link).unwrap();
        link["id"].as_u64().unwrap()
    };
    let before = number("one");
    let flood = wire.flood(None);
    for (next, name, other) in [(&two, "two", "one"), (&one, "one", "two"), (&two, "two", "one")] {
        next.engage();
        assert_eq!(next.readiness(), Readiness::Ready);
        assert_eq!(number(name), before, "it is the same link");
        assert!(!Path::new(&format!("{PINS}/links/{other}")).exists());
    }
    let sent = flood.stop();
    eventually("not all packets were counted", || {
        counted(&one) + counted(&two) >= sent
    });
    assert_eq!(counted(&one) + counted(&two), sent);
    gone(&[&one, &two]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_swap_to_another_mode_is_refused() {
    if !inside("a_swap_to_another_mode_is_refused") {
        return;
    }
    let wire = Wire::new(1);
    let host = host(&wire);
    let mode = |version: &str, mode: &str| {
        let ebpf = format!(
            "[[ebpf.programs]]\nname = \"one\"\nattach = \"xdp\"\ninterface = \"hs1\"\nmode = \"{mode}\"\n"
        );
        release(version, &ebpf, PAIR, &[])
    };
    let (Some(generic), Some(driver), Some(any)) = (
        mode("1.0.0", "generic"),
        mode("1.1.0", "driver"),
        mode("1.2.0", "any"),
    ) else {
        return;
    };
    let generic = started(&host, generic).await.unwrap();
    let driver = started(&host, driver).await.unwrap();
    let any = started(&host, any).await.unwrap();
    generic.engage();
    assert_eq!(generic.readiness(), Readiness::Ready);
    driver.engage();
    let Readiness::Failing(why) = driver.readiness() else {
        panic!("it runs in another mode than it says")
    };
    assert!(
        why.contains("xdp of hs1 is attached in mode generic, which a swap can't change to driver"),
        "{why}"
    );
    any.engage();
    assert_eq!(any.readiness(), Readiness::Ready);
    generic.engage();
    assert_eq!(generic.readiness(), Readiness::Ready);
    gone(&[&generic, &driver, &any]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pins_that_are_not_whole_are_made_anew() {
    if !inside("pins_that_are_not_whole_are_made_anew") {
        return;
    }
    let wire = Wire::new(1);
    let first = host(&wire);
    let (old, new) = (
        started(&first, artifact("1.0.0")).await.unwrap(),
        started(&first, artifact("1.1.0")).await.unwrap(),
    );
    old.engage();
    let before = link();
    std::mem::forget((old, new, first));
    let standby = artifact("1.1.0").digest.hex();
    std::fs::remove_file(format!("{PINS}/{standby}/limit")).unwrap();
    let second = host(&wire);
    let old = started(&second, artifact("1.0.0")).await.unwrap();
    old.engage();
    assert_eq!(link(), before);
    let new = started(&second, artifact("1.1.0")).await.unwrap();
    new.engage();
    assert_eq!(new.readiness(), Readiness::Ready);
    assert_ne!(link().1, before.1);
    gone(&[&old, &new]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_cannot_be_loaded_again_is_still_known_at_its_hook() {
    if !inside("a_version_that_cannot_be_loaded_again_is_still_known_at_its_hook") {
        return;
    }
    let wires = [Wire::new(1), Wire::new(2)];
    let ebpf = "[[ebpf.programs]]\nname = \"one\"\nattach = \"xdp\"\ninterface = \"hs1\"\n\
                [[ebpf.programs]]\nname = \"two\"\nattach = \"xdp\"\ninterface = \"hs2\"\n\
                [[ebpf.counters]]\ncounts = \"requests\"\nmap = \"seen\"\n";
    let (Some(former), Some(next)) = (
        release("1.0.0", ebpf, PAIR, &[]),
        release("1.1.0", ebpf, PAIR, &[]),
    ) else {
        return;
    };
    let first = host(&wires[0]);
    let one = started(&first, former.clone()).await.unwrap();
    one.engage();
    assert_eq!(one.readiness(), Readiness::Ready);
    let folder = |end: &str| format!("{PINS}/{}{end}", former.digest.hex());
    let number = || sh(&format!("bpftool -j link show pinned {PINS}/links/one"));

    // One of its programs is pinned no more: it is loaded anew, and takes the place of those at the hooks.
    std::mem::forget((one, first));
    let second = host(&wires[0]);
    let before = number();
    std::fs::remove_file(folder("/two")).unwrap();
    let one = started(&second, former.clone()).await.unwrap();
    assert!(Path::new(&folder("-former")).exists());
    std::fs::remove_file(format!("{PINS}/links/two")).unwrap();
    eventually("it is not at its hooks", || {
        one.engage();
        one.readiness() == Readiness::Ready
    });
    assert_ne!(number(), before);
    assert!(!Path::new(&folder("-former")).exists());

    // Its counters are pinned no more: it can't be loaded, and its successor still knows it.
    std::mem::forget((one, second));
    let third = host(&wires[0]);
    std::fs::remove_file(folder("-maps/seen")).unwrap();
    let why = started(&third, former.clone()).await.err().unwrap().to_string();
    assert!(why.contains("the map seen can't be opened"), "{why}");
    let next = started(&third, next).await.unwrap();
    next.engage();
    assert_eq!(next.readiness(), Readiness::Ready);
    assert!(!Path::new(&folder("")).exists());
    gone(&[&next]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_module_left_that_could_not_be_loaded_goes_with_the_module() {
    if !inside("what_a_module_left_that_could_not_be_loaded_goes_with_the_module") {
        return;
    }
    let wire = Wire::new(1);
    let first = host(&wire);
    let one = started(&first, artifact("1.0.0")).await.unwrap();
    one.engage();
    let (id, _) = link();
    let none = BTreeSet::new();
    first.retain(NODE, &none).await;
    assert!(is_link(id), "it is loaded");
    std::mem::forget((one, first));
    let second = host(&wire);
    second
        .retain(NODE, &["packet-limiter".parse().unwrap()].into())
        .await;
    second.retain("edge-2.example", &none).await;
    assert!(is_link(id), "it is to be there");
    second.retain(NODE, &none).await;
    assert!(!Path::new("/sys/fs/bpf/hotswap").exists());
    eventually("the link is left", || !is_link(id));
}

/// Maps that are made otherwise than the object says.
const ROUNDED: &str = r#"
struct { __uint(type, BPF_MAP_TYPE_PERF_EVENT_ARRAY); __uint(key_size, 4); __uint(value_size, 4); } events SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_RINGBUF); __uint(max_entries, 5000); } ring SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_LRU_HASH); __uint(map_flags, BPF_F_NO_COMMON_LRU); __uint(max_entries, 1001);
         __type(key, __u32); __type(value, __u64); } recent SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_DEVMAP); __uint(max_entries, 4); __uint(key_size, 4); __uint(value_size, 4); } ports SEC(".maps");
SEC("xdp") int look(struct xdp_md *ctx) {
    __u32 key = NUMBER;
    __u64 value = 1;
    bpf_map_update_elem(&recent, &key, &value, BPF_ANY);
    bpf_perf_event_output(ctx, &events, BPF_F_CURRENT_CPU, &value, sizeof(value));
    bpf_ringbuf_output(&ring, &value, sizeof(value), 0);
    return bpf_redirect_map(&ports, 3, XDP_PASS);
}
"#;

#[tokio::test(flavor = "multi_thread")]
async fn maps_that_the_kernel_makes_larger_are_carried_on() {
    if !inside("maps_that_the_kernel_makes_larger_are_carried_on") {
        return;
    }
    let wire = Wire::new(1);
    let maps = ["events", "ring", "recent", "ports"];
    let maps = maps.map(|map| format!("[[ebpf.maps]]\nname = \"{map}\"\ncarry = true\n"));
    let ebpf = format!(
        "[[ebpf.programs]]\nname = \"look\"\nattach = \"xdp\"\ninterface = \"hs1\"\n{}",
        maps.concat()
    );
    let (Some(one), Some(two)) = (
        release("1.0.0", &ebpf, ROUNDED, &["NUMBER=1"]),
        release("1.1.0", &ebpf, ROUNDED, &["NUMBER=2"]),
    ) else {
        return;
    };
    let first = host(&wire);
    let old = started(&first, one.clone()).await.unwrap();
    old.engage();
    assert_eq!(old.readiness(), Readiness::Ready);
    let next = started(&first, two).await.unwrap();
    next.engage();
    assert_eq!(next.readiness(), Readiness::Ready);
    std::mem::forget((old, next, first));
    let second = host(&wire);
    let old = started(&second, one).await.unwrap();
    old.engage();
    assert_eq!(old.readiness(), Readiness::Ready);
    gone(&[&old]).await;
}

/// What the verifier has to walk through again and again, since each way through it leaves other numbers.
const SLOW: &str = r#"
SEC("xdp") int look(struct xdp_md *ctx) { return XDP_PASS; }
SEC("xdp") int slow(struct xdp_md *ctx) {
    __u32 sum = 0;
    for (__u32 i = 0; i < ROUNDS; i++) {
        sum = sum * 31 + bpf_get_prandom_u32();
        if (sum & 1)
            sum ^= i;
    }
    return sum ? XDP_PASS : XDP_DROP;
}
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_verifier_holds_up_nobody_who_looks_after_the_hooks() {
    if !inside("the_verifier_holds_up_nobody_who_looks_after_the_hooks") {
        return;
    }
    let wires = [Wire::new(1), Wire::new(2)];
    let program = |name: &str, interface: &str| {
        format!("[[ebpf.programs]]\nname = \"{name}\"\nattach = \"xdp\"\ninterface = \"{interface}\"\n")
    };
    let (quick, slow) = (
        program("look", "hs1"),
        program("look", "hs1") + &program("slow", "hs2"),
    );
    let (Some(quick), Some(slow)) = (
        release("1.0.0", &quick, SLOW, &["ROUNDS=2"]),
        release("1.1.0", &slow, SLOW, &["ROUNDS=6000"]),
    ) else {
        return;
    };
    let host = host(&wires[0]);
    let quick = started(&host, quick).await.unwrap();
    quick.engage();
    let begun = Instant::now();
    let loading = tokio::spawn(async move { started(&host, slow).await });
    let mut longest = Duration::ZERO;
    while !loading.is_finished() {
        let asked = Instant::now();
        quick.tally();
        longest = longest.max(asked.elapsed());
        tokio::task::yield_now().await;
    }
    let took = begun.elapsed();
    let slow = loading.await.unwrap().unwrap();
    println!("the verifier took {took:?}; a look at the hooks meanwhile {longest:?} at most");
    assert!(longest < took / 2, "a look took {longest:?} of a load's {took:?}");
    gone(&[&quick, &slow]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_fit_is_refused_with_the_kernels_words() {
    if !inside("what_does_not_fit_is_refused_with_the_kernels_words") {
        return;
    }
    let wire = Wire::new(1);
    let host = host(&wire);
    let attach = "attach = \"xdp\"\ninterface = \"hs1\"";
    let defines = ["SECTION=\"xdp\"", "VERDICT=2", "ENTRIES=1"];
    let good = compiled("1.0.0", attach, &[&defines[..], &[CHECKED]].concat());
    let unsafe_one = compiled(
        "1.1.0",
        attach,
        &[&defines[..], &["CHECK=count = (void *)42;"]].concat(),
    );
    let wider = compiled(
        "1.2.0",
        attach,
        &["SECTION=\"xdp\"", "VERDICT=2", "ENTRIES=2", CHECKED],
    );
    let (Some(good), Some(unsafe_one), Some(wider)) = (good, unsafe_one, wider) else {
        return;
    };
    let refused = |result: Result<Arc<dyn Instance>, StartError>| match result {
        Ok(_) => panic!("it is loaded"),
        Err(error) => error.to_string(),
    };
    let why = refused(started(&host, unsafe_one.clone()).await);
    assert!(why.contains("the kernel refused the program look"), "{why}");
    assert!(why.contains("misaligned access off 42"), "{why}");
    assert!(!Path::new(PINS).exists(), "a refused version leaves nothing");
    // In a check nothing is pinned or attached.
    let checks = EbpfHost::new(EbpfHostConfig::for_checks()).unwrap();
    let prepared = checks.prepare(unsafe_one).await.unwrap();
    assert!(prepared.start(Launch::default()).await.is_err());
    let tried = checks
        .prepare(good.clone())
        .await
        .unwrap()
        .start(Launch::default())
        .await
        .unwrap();
    assert!(!Path::new("/sys/fs/bpf/hotswap").exists());
    tried.close(Duration::ZERO).await;

    let one = started(&host, good).await.unwrap();
    one.engage();
    let why = refused(started(&host, wider).await);
    assert!(
        why.contains("the map seen is carried on, and its layout differs: it is a array of 1 entries")
            && why.contains("this version has a array of 2 entries"),
        "{why}"
    );
    assert_eq!(one.readiness(), Readiness::Ready);
    gone(&[&one]).await;
    let nowhere = EbpfHost::new(EbpfHostConfig::new(Grants::default())).unwrap();
    let why = refused(started(&nowhere, artifact("1.0.0")).await);
    assert!(why.contains("the variable UPLINK"), "{why}");
}

#[test]
fn a_manifest_that_does_not_tell_the_truth_about_its_object_is_refused() {
    let package = pack(&example("1.1.0")).unwrap();
    let object = package.artifact.to_vec();
    let refused = |change: &dyn Fn(&mut Manifest)| {
        let mut manifest = package.manifest.clone();
        change(&mut manifest);
        inspect(&manifest, &object).unwrap_err()
    };
    let whole = inspect(&package.manifest, &object).unwrap();
    assert_eq!(whole.license, "Dual MIT/GPL");
    let why = refused(&|manifest| "limits".clone_into(&mut manifest.ebpf.as_mut().unwrap().programs[0].name));
    assert_eq!(why, "the object has no program limits; it has limit");
    let why = refused(&|manifest| {
        manifest.ebpf.as_mut().unwrap().programs[0].attach = hotswap_package::Hook::TcxIngress;
    });
    assert!(why.contains("its section should be \"classifier\""), "{why}");
    let why = refused(&|manifest| "total".clone_into(&mut manifest.ebpf.as_mut().unwrap().maps[0].name));
    assert_eq!(why, "the object has no map total; it has buckets, totals");
    let why = refused(&|manifest| manifest.ebpf.as_mut().unwrap().counters[0].field = 4);
    assert!(
        why.contains("the counter of requests is number 4 of value 0 of the map totals"),
        "{why}"
    );
    let why = refused(&|manifest| "buckets".clone_into(&mut manifest.ebpf.as_mut().unwrap().counters[0].map));
    assert!(
        why.contains("counters are in an array or a per-CPU array"),
        "{why}"
    );
    assert_eq!(
        package.manifest.ebpf.as_ref().unwrap().counters[1].counts,
        Counts::Drops
    );
    let mut unlicensed = object.clone();
    let names: Vec<_> = (0..object.len() - 9)
        .filter(|at| object[*at..].starts_with(b"\0license\0"))
        .collect();
    names.iter().for_each(|at| unlicensed[at + 1] = b'L');
    assert!(
        inspect(&package.manifest, &unlicensed)
            .unwrap_err()
            .contains("names no license")
    );
    assert!(
        inspect(&package.manifest, &object[..200])
            .unwrap_err()
            .contains("it is no eBPF object")
    );
}
