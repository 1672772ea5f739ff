//! Maps whose layout changes: what the former version counted goes over, also what it counts until it is gone.

use std::path::Path;
use std::sync::Arc;

use hotswap_runtime::testing::namespace::{Wire, inside, sh};
use hotswap_runtime::{Artifact, Instance, Readiness};

use crate::support::{PINS, eventually, gone, host, release, started};

/// Counts the packets of each source, and since 2 their bytes too.
const LIMITER: &str = r#"
#include <linux/if_ether.h>
#include <linux/ip.h>
struct first { __u64 packets; };
struct second { __u64 packets; __u64 bytes; __u32 since; };
#if VERSION == 1
typedef struct first totals_t;
#else
typedef struct second totals_t;
#endif
struct { __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY); __uint(max_entries, 1); __type(key, __u32); __type(value, totals_t); } totals SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_LRU_HASH); __uint(max_entries, 1024); __type(key, __u32); __type(value, totals_t); } sources SEC(".maps");

SEC("xdp") int limit(struct xdp_md *ctx) {
    void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
    struct ethhdr *ether = data;
    struct iphdr *ip = (void *)(ether + 1);
    __u32 only = 0;
    totals_t *all = bpf_map_lookup_elem(&totals, &only);
    if (!all || (void *)(ip + 1) > end)
        return XDP_PASS;
    __sync_fetch_and_add(&all->packets, 1);
    __u32 source = ip->saddr;
    totals_t *one = bpf_map_lookup_elem(&sources, &source);
    if (!one) {
        totals_t none = {};
        bpf_map_update_elem(&sources, &source, &none, BPF_NOEXIST);
        one = bpf_map_lookup_elem(&sources, &source);
    }
    if (one)
        __sync_fetch_and_add(&one->packets, 1);
    return XDP_PASS;
}

#if VERSION > 1
struct entry { __u32 pass; __u32 processor; __u32 key; __u32 pad; struct first is; struct first was; };

// A count is moved by what it grew: everything the first time, then the rest.
SEC("xdp") int move_totals(struct xdp_md *ctx) {
    struct entry *entry = (void *)(long)ctx->data;
    if ((void *)(entry + 1) > (void *)(long)ctx->data_end)
        return XDP_ABORTED;
    totals_t *all = bpf_map_lookup_elem(&totals, &entry->key);
    if (!all)
        return XDP_ABORTED;
    all->since = VERSION;
    __sync_fetch_and_add(&all->packets, entry->is.packets - entry->was.packets);
    return VERDICT;
}

SEC("xdp") int move_sources(struct xdp_md *ctx) {
    struct entry *entry = (void *)(long)ctx->data;
    if ((void *)(entry + 1) > (void *)(long)ctx->data_end)
        return XDP_ABORTED;
    __u32 source = entry->key;
    totals_t *one = bpf_map_lookup_elem(&sources, &source);
    if (!one) {
        totals_t none = { .since = VERSION };
        bpf_map_update_elem(&sources, &source, &none, BPF_NOEXIST);
        one = bpf_map_lookup_elem(&sources, &source);
        if (!one)
            return XDP_ABORTED;
    }
    __sync_fetch_and_add(&one->packets, entry->is.packets - entry->was.packets);
    return XDP_PASS;
}
#endif
"#;

fn limiter(version: u32, migrates: bool, verdict: &str) -> Option<Artifact> {
    let [totals, sources] = if migrates {
        ["migrate = \"move_totals\"\n", "migrate = \"move_sources\"\n"]
    } else {
        [""; 2]
    };
    let ebpf = format!(
        "[[ebpf.programs]]\nname = \"limit\"\nattach = \"xdp\"\ninterface = \"hs1\"\n\
         [[ebpf.maps]]\nname = \"totals\"\ncarry = true\n{totals}\
         [[ebpf.maps]]\nname = \"sources\"\ncarry = true\n{sources}\
         [[ebpf.counters]]\ncounts = \"requests\"\nmap = \"totals\"\n"
    );
    let defines = [format!("VERSION={version}"), format!("VERDICT={verdict}")];
    release(
        &format!("{version}.0.0"),
        &ebpf,
        LIMITER,
        &defines.each_ref().map(String::as_str),
    )
}

/// The packets that a map counts.
fn counted_in(map: &str) -> u64 {
    let dump = sh(&format!("bpftool -j map dump pinned {PINS}/maps/{map}"));
    let dump: serde_json::Value = serde_json::from_str(&dump).unwrap();
    let packets = |value: &serde_json::Value| value["packets"].as_u64().unwrap();
    let entries = dump.as_array().unwrap().iter().map(|entry| &entry["formatted"]);
    entries
        .map(|entry| match entry["values"].as_array() {
            Some(values) => values.iter().map(|value| packets(&value["value"])).sum(),
            None => packets(&entry["value"]),
        })
        .sum()
}

/// The names of a map's pins.
fn pins(map: &str) -> Vec<String> {
    let files = std::fs::read_dir(Path::new(PINS).join("maps")).unwrap();
    let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.filter(|name| name.starts_with(map)).collect();
    names.sort();
    names
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_count_is_lost_while_a_map_grows_under_a_flood() {
    if !inside("migrations::no_count_is_lost_while_a_map_grows_under_a_flood") {
        return;
    }
    let wire = Wire::new(1);
    for round in 0..10 {
        let (Some(first), Some(second)) = (limiter(1, false, "XDP_PASS"), limiter(2, true, "XDP_PASS"))
        else {
            return;
        };
        let host = host(&wire);
        let first: Arc<dyn Instance> = started(&host, first).await.unwrap();
        first.engage();
        let flood = wire.flood(None);
        eventually("nothing is counted", || counted_in("totals") > 5_000);
        let second = started(&host, second).await.unwrap();
        second.engage();
        assert_eq!(second.readiness(), Readiness::Ready);
        let (was, sent) = (counted_in("totals"), flood.sent());
        eventually("the flood stopped", || flood.sent() > sent + 2_000);
        let sent = flood.stop();
        let (totals, sources) = (pins("totals")[1].clone(), pins("sources")[1].clone());
        eventually("not all packets were counted", || counted_in(&totals) >= sent);
        let by_totals = counted_in(&totals);
        println!(
            "round {round}: {sent} packets, {was} of them seen by the former version: {by_totals} counted"
        );
        assert_eq!(by_totals, sent);
        assert_eq!(counted_in(&sources), sent);
        assert_eq!(
            counted_in("totals"),
            was,
            "the former one's map is as it was at the switch"
        );
        gone(&[&first, &second]).await;
    }
}

/// From here on `membarrier` fails in this process, as on a kernel with processors that nothing interrupts.
fn without_membarrier() {
    let instruction = |code: u32, k: u32, jump_false: u8| libc::sock_filter {
        code: u16::try_from(code).unwrap(),
        jt: 0,
        jf: jump_false,
        k,
    };
    let call = u32::try_from(libc::SYS_membarrier).unwrap();
    let error = libc::SECCOMP_RET_ERRNO | u32::try_from(libc::EINVAL).unwrap();
    let mut filter = [
        // The call's number is the first that a filter is given.
        instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0),
        instruction(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, call, 1),
        instruction(libc::BPF_RET | libc::BPF_K, error, 0),
        instruction(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW, 0),
    ];
    let program = libc::sock_fprog {
        len: u16::try_from(filter.len()).unwrap(),
        filter: filter.as_mut_ptr(),
    };
    // SAFETY: the kernel copies the filter, which is as long as is said, and writes nothing of this process's.
    #[expect(unsafe_code, reason = "this system call has no safe form")]
    let answer = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            libc::SECCOMP_FILTER_FLAG_TSYNC,
            &raw const program,
        )
    };
    assert_eq!(answer, 0, "{}", std::io::Error::last_os_error());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_count_is_lost_where_the_kernel_waits_for_no_readers() {
    if !inside("migrations::no_count_is_lost_where_the_kernel_waits_for_no_readers") {
        return;
    }
    without_membarrier();
    let wire = Wire::new(1);
    let host = host(&wire);
    let (Some(first), Some(second)) = (limiter(1, false, "XDP_PASS"), limiter(2, true, "XDP_PASS")) else {
        return;
    };
    let first = started(&host, first).await.unwrap();
    first.engage();
    let flood = wire.flood(None);
    eventually("nothing is counted", || counted_in("totals") > 5_000);
    let second = started(&host, second).await.unwrap();
    second.engage();
    assert_eq!(second.readiness(), Readiness::Ready);
    let sent = flood.stop();
    let totals = pins("totals")[1].clone();
    eventually("not all packets were counted", || counted_in(&totals) >= sent);
    assert_eq!(counted_in(&totals), sent);
    gone(&[&first, &second]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_way_back_finds_the_former_map_and_its_end_leaves_one() {
    if !inside("migrations::a_way_back_finds_the_former_map_and_its_end_leaves_one") {
        return;
    }
    let wire = Wire::new(1);
    let host = host(&wire);
    let (Some(first), Some(second), Some(third), Some(refuses)) = (
        limiter(1, false, "XDP_PASS"),
        limiter(2, true, "XDP_PASS"),
        limiter(3, false, "XDP_PASS"),
        limiter(4, true, "XDP_DROP"),
    ) else {
        return;
    };
    let why = |result: Result<Arc<dyn Instance>, _>| match result {
        Ok(_) => panic!("it is loaded"),
        Err(error) => hotswap_runtime::StartError::to_string(&error),
    };
    let one = started(&host, first.clone()).await.unwrap();
    one.engage();
    let flood = wire.flood(Some(2_000));
    eventually("nothing is counted", || counted_in("totals") > 100);
    // Without a program that moves entries it is refused, and says what would be right.
    let refused = why(started(&host, third.clone()).await);
    assert!(
        refused.contains("name a program that moves its entries with migrate"),
        "{refused}"
    );
    // One whose program doesn't take an entry isn't switched to.
    let never = started(&host, refuses).await.unwrap();
    never.engage();
    let Readiness::Failing(trouble) = never.readiness() else {
        panic!("it is at its hook")
    };
    assert!(
        trouble.contains("its program returned 1 to an entry, and not XDP_PASS"),
        "{trouble}"
    );
    never.dismiss();
    never.close(std::time::Duration::ZERO).await;

    let two = started(&host, second.clone()).await.unwrap();
    two.engage();
    let grown = pins("totals")[1].clone();
    eventually("nothing is counted", || {
        counted_in(&grown) > counted_in("totals") + 100
    });
    // Back: the former one goes on with its own map, and forward again takes over what that has then.
    let kept = counted_in("totals");
    one.engage();
    eventually("nothing is counted", || counted_in("totals") > kept + 100);
    two.engage();
    eventually("nothing is counted", || {
        counted_in(&grown) > counted_in("totals") + 100
    });
    drop(flood);

    // As a process that is killed, between the switch and the former one's end.
    std::mem::forget((one, two, host));
    let host = crate::support::host(&wire);
    let two = started(&host, second).await.unwrap();
    let before = counted_in(&grown);
    two.engage();
    assert_eq!(counted_in(&grown), before, "nothing is moved twice");
    let one = started(&host, first).await.unwrap();
    one.engage();
    two.engage();
    assert_eq!(two.readiness(), Readiness::Ready);
    // Who comes next has the layout that there is, whatever its name.
    let three = started(&host, third).await.unwrap();
    one.dismiss();
    one.close(std::time::Duration::ZERO).await;
    assert_eq!(pins("totals"), std::slice::from_ref(&grown));
    let before = counted_in(&grown);
    three.engage();
    assert_eq!(three.readiness(), Readiness::Ready);
    assert_eq!(counted_in(&grown), before);
    gone(&[&two, &three]).await;
}

/// Keeps each address in a map of a kind that can't be moved, then in one that can.
const ADDRESSES: &str = r#"
struct key { __u32 bits; __u32 address; };
#if VERSION == 1
struct { __uint(type, BPF_MAP_TYPE_LPM_TRIE); __uint(max_entries, 8); __uint(map_flags, BPF_F_NO_PREALLOC);
         __type(key, struct key); __type(value, __u64); } seen SEC(".maps");
#else
struct { __uint(type, BPF_MAP_TYPE_HASH); __uint(max_entries, 8); __type(key, struct key); __type(value, __u64); } seen SEC(".maps");
#endif
SEC("xdp") int look(struct xdp_md *ctx) {
    struct key key = { .bits = 32 };
    __u64 one = 1;
    bpf_map_update_elem(&seen, &key, &one, BPF_ANY);
    return XDP_PASS;
}
SEC("xdp") int move(struct xdp_md *ctx) { return XDP_PASS; }
"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_map_of_a_kind_that_is_not_moved_stops_the_switch() {
    if !inside("migrations::a_map_of_a_kind_that_is_not_moved_stops_the_switch") {
        return;
    }
    let wire = Wire::new(1);
    let host = host(&wire);
    let addresses = |version: u32, migrate: &str| {
        let ebpf = format!(
            "[[ebpf.programs]]\nname = \"look\"\nattach = \"xdp\"\ninterface = \"hs1\"\n\
             [[ebpf.maps]]\nname = \"seen\"\ncarry = true\n{migrate}"
        );
        let define = format!("VERSION={version}");
        release(&format!("{version}.0.0"), &ebpf, ADDRESSES, &[&define])
    };
    let (Some(one), Some(two)) = (addresses(1, ""), addresses(2, "migrate = \"move\"\n")) else {
        return;
    };
    let (one, two) = (
        started(&host, one).await.unwrap(),
        started(&host, two).await.unwrap(),
    );
    one.engage();
    two.engage();
    let Readiness::Failing(why) = two.readiness() else {
        panic!("it is at its hook")
    };
    assert!(
        why.contains("the one at work is a lpm_trie of 8 entries")
            && why.contains("entries are moved out of arrays and hash tables"),
        "{why}"
    );
    one.tally();
    assert_eq!(one.readiness(), Readiness::Ready);
    gone(&[&one, &two]).await;
}

/// Counts packets in a table whose values grow by a number with each version; each moves what the one before had.
const GROWING: &str = r#"
struct was { __u64 numbers[VERSION > 1 ? VERSION - 1 : 1]; };
struct is { __u64 numbers[VERSION]; };
struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 1); __type(key, __u32); __type(value, struct is); } totals SEC(".maps");

SEC("xdp") int limit(struct xdp_md *ctx) {
    __u32 only = 0;
    struct is *all = bpf_map_lookup_elem(&totals, &only);
    if (all)
        __sync_fetch_and_add(&all->numbers[VERSION - 1], 1);
    return XDP_PASS;
}

struct entry { __u32 pass; __u32 processor; __u32 key; __u32 pad; struct was is; struct was was; };
// The newest number is the last one.
SEC("xdp") int move_totals(struct xdp_md *ctx) {
    struct entry *entry = (void *)(long)ctx->data;
    if ((void *)(entry + 1) > (void *)(long)ctx->data_end)
        return XDP_ABORTED;
    __u32 only = 0;
    struct is *all = bpf_map_lookup_elem(&totals, &only);
    if (!all)
        return XDP_ABORTED;
    __sync_fetch_and_add(&all->numbers[VERSION - 1],
                         entry->is.numbers[VERSION - 2] - entry->was.numbers[VERSION - 2]);
    return XDP_PASS;
}
"#;

fn growing(version: u32, patch: u32, migrates: bool) -> Option<Artifact> {
    let migrate = if migrates {
        "migrate = \"move_totals\"\n"
    } else {
        ""
    };
    let ebpf = format!(
        "[[ebpf.programs]]\nname = \"limit\"\nattach = \"xdp\"\ninterface = \"hs1\"\n\
         [[ebpf.maps]]\nname = \"totals\"\ncarry = true\n{migrate}"
    );
    let define = format!("VERSION={version}");
    let moves = if version > 1 {
        GROWING.to_owned()
    } else {
        GROWING[..GROWING.find("struct entry").unwrap()].to_owned()
    };
    release(&format!("{version}.0.{patch}"), &ebpf, &moves, &[&define])
}

/// The numbers of a map's only entry.
fn numbers(pin: &str) -> Vec<u64> {
    let dump = sh(&format!("bpftool -j map dump pinned {PINS}/maps/{pin}"));
    let dump: serde_json::Value = serde_json::from_str(&dump).unwrap();
    let numbers = dump[0]["formatted"]["value"]["numbers"].as_array().unwrap();
    numbers.iter().map(|number| number.as_u64().unwrap()).collect()
}

/// Sends until a map's last number is as large; what it is when all of that is counted.
fn counted_to(wire: &Wire, pin: &str, least: u64) -> u64 {
    let last = || *numbers(pin).last().unwrap();
    let before = last();
    let flood = wire.flood(Some(2_000));
    eventually("nothing is counted", || last() >= least);
    let sent = flood.stop();
    eventually("not all packets were counted", || last() == before + sent);
    before + sent
}

#[tokio::test(flavor = "multi_thread")]
async fn a_way_back_over_a_second_move_finds_the_map_as_it_was() {
    if !inside("migrations::a_way_back_over_a_second_move_finds_the_map_as_it_was") {
        return;
    }
    let wire = Wire::new(1);
    let host = host(&wire);
    let (Some(first), Some(second), Some(third)) =
        (growing(1, 0, false), growing(2, 0, true), growing(3, 0, true))
    else {
        return;
    };
    let one = started(&host, first).await.unwrap();
    one.engage();
    let by_one = counted_to(&wire, "totals", 100);
    let two = started(&host, second.clone()).await.unwrap();
    two.engage();
    let second_pin = pins("totals")[1].clone();
    assert_eq!(numbers(&second_pin), [0, by_one]);
    let by_two = counted_to(&wire, &second_pin, by_one + 100);
    let three = started(&host, third.clone()).await.unwrap();
    three.engage();
    assert_eq!(three.readiness(), Readiness::Ready);
    let third_pin = pins("totals")[2].clone();
    assert_eq!(numbers(&third_pin), [0, 0, by_two]);
    counted_to(&wire, &third_pin, by_two + 100);

    // The second one's program knows nothing of the third one's entries.
    two.engage();
    assert_eq!(two.readiness(), Readiness::Ready);
    assert_eq!(
        numbers(&second_pin),
        [0, by_two],
        "a way back finds the map as it was"
    );
    let by_two = counted_to(&wire, &second_pin, by_two + 100);
    three.engage();
    assert_eq!(
        numbers(&third_pin),
        [0, 0, by_two],
        "forward again takes over what is there then"
    );

    // Nor after a restart.
    std::mem::forget((one, two, three, host));
    let host = crate::support::host(&wire);
    let three = started(&host, third).await.unwrap();
    three.engage();
    counted_to(&wire, &third_pin, by_two + 100);
    let two = started(&host, second).await.unwrap();
    two.engage();
    assert_eq!(numbers(&second_pin), [0, by_two]);
    gone(&[&two, &three]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_is_given_no_layout_that_another_one_left() {
    if !inside("migrations::a_version_is_given_no_layout_that_another_one_left") {
        return;
    }
    let wire = Wire::new(1);
    let host = host(&wire);
    let (Some(first), Some(second), Some(as_first), Some(after), Some(moves)) = (
        growing(1, 0, false),
        growing(2, 0, true),
        growing(1, 1, false),
        growing(2, 1, false),
        growing(3, 0, true),
    ) else {
        return;
    };
    let one = started(&host, first.clone()).await.unwrap();
    one.engage();
    counted_to(&wire, "totals", 100);
    let two = started(&host, second.clone()).await.unwrap();
    two.engage();
    let why = match started(&host, as_first).await {
        Ok(_) => panic!("it has a map that is no more at work"),
        Err(error) => error.to_string(),
    };
    assert!(
        why.contains("its layout differs: it is a array of 1 entries with keys of 4 and values of 16 bytes"),
        "{why}"
    );
    // Its own one a version has again, as long as it is loaded or pinned.
    let again = started(&host, first.clone()).await.unwrap();
    again.close(std::time::Duration::ZERO).await;
    let grown = pins("totals")[1].clone();

    // What a killed agent's standby had is gone with the next swap.
    std::mem::forget((one, two, host));
    let host = crate::support::host(&wire);
    let two = started(&host, second).await.unwrap();
    two.engage();
    assert_eq!(pins("totals").len(), 2, "its standby may be loaded yet");
    let after = started(&host, after).await.unwrap();
    after.engage();
    assert_eq!(pins("totals"), std::slice::from_ref(&grown));
    assert!(started(&host, first).await.is_err());
    let three = started(&host, moves).await.unwrap();
    three.engage();
    assert_eq!(three.readiness(), Readiness::Ready);
    assert_eq!(numbers(&grown)[1], numbers(&pins("totals")[1])[2]);
    gone(&[&two, &after, &three]).await;
}

/// Two tables whose names begin alike, of which each version notes its own number.
const ALIKE: &str = r#"
struct was { __u64 number; };
struct is { __u64 number; __u64 more[VERSION > 1 ? 1 : 0]; };
struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 1); __type(key, __u32); __type(value, struct is); } packets_by_source_v4 SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 1); __type(key, __u32); __type(value, struct is); } packets_by_source_v6 SEC(".maps");

static __always_inline int note(void *map, __u64 number) {
    __u32 only = 0;
    struct is *is = bpf_map_lookup_elem(map, &only);
    if (is && !is->number)
        is->number = number;
    return XDP_PASS;
}
SEC("xdp") int look(struct xdp_md *ctx) {
    note(&packets_by_source_v4, 4);
    return note(&packets_by_source_v6, 6);
}
struct entry { __u32 pass; __u32 processor; __u32 key; __u32 pad; struct was is; struct was was; };
static __always_inline int move(struct xdp_md *ctx, void *map) {
    struct entry *entry = (void *)(long)ctx->data;
    if ((void *)(entry + 1) > (void *)(long)ctx->data_end)
        return XDP_ABORTED;
    return note(map, 100 + entry->is.number);
}
SEC("xdp") int move_v4(struct xdp_md *ctx) { return move(ctx, &packets_by_source_v4); }
SEC("xdp") int move_v6(struct xdp_md *ctx) { return move(ctx, &packets_by_source_v6); }
"#;

#[tokio::test(flavor = "multi_thread")]
async fn maps_whose_names_begin_alike_are_told_apart() {
    if !inside("migrations::maps_whose_names_begin_alike_are_told_apart") {
        return;
    }
    let wire = Wire::new(1);
    let alike = |version: u32, is_carried: bool| {
        let maps = ["v4", "v6"].map(|end| {
            let migrate = if version > 1 {
                format!("migrate = \"move_{end}\"\n")
            } else {
                String::new()
            };
            format!("[[ebpf.maps]]\nname = \"packets_by_source_{end}\"\ncarry = true\n{migrate}")
        });
        let maps = if is_carried { maps.concat() } else { String::new() };
        let ebpf =
            format!("[[ebpf.programs]]\nname = \"look\"\nattach = \"xdp\"\ninterface = \"hs1\"\n{maps}");
        let define = format!("VERSION={version}");
        release(&format!("{version}.0.0"), &ebpf, ALIKE, &[&define])
    };
    let (Some(one), Some(two), Some(bare)) = (alike(1, true), alike(2, true), alike(1, false)) else {
        return;
    };
    let number = |map: &str| {
        let pins = pins(map);
        let dump = sh(&format!(
            "bpftool -j map dump pinned {PINS}/maps/{}",
            pins.last().unwrap()
        ));
        let dump: serde_json::Value = serde_json::from_str(&dump).unwrap();
        dump[0]["formatted"]["value"]["number"].as_u64().unwrap()
    };
    let first = host(&wire);
    let one = started(&first, one).await.unwrap();
    one.engage();
    let flood = wire.flood(Some(2_000));
    eventually("nothing is noted", || number("packets_by_source_v6") == 6);
    let second = started(&first, two.clone()).await.unwrap();
    second.engage();
    assert_eq!(second.readiness(), Readiness::Ready);
    let noted = ["packets_by_source_v4", "packets_by_source_v6"].map(number);
    assert_eq!(noted, [104, 106]);
    gone(&[&one, &second]).await;

    // Where they are pinned nowhere, nobody can tell.
    let bare = started(&first, bare).await.unwrap();
    eventually("the hook is not free", || {
        bare.engage();
        bare.readiness() == Readiness::Ready
    });
    let why = started(&first, two).await.err().unwrap().to_string();
    assert!(
        why.contains("which of the former version's maps is packets_by_source_v4 can't be told"),
        "{why}"
    );
    drop(flood);
    gone(&[&bare]).await;
}

/// From here on this thread, and those that it begins, have `CAP_BPF` and the like, and not what stands for all of them.
fn without_sys_admin() {
    const VERSION_3: u32 = 0x2008_0522;
    const SYS_ADMIN: u32 = 21;
    let header = [VERSION_3, 0];
    // What is in force, what may be, and what is handed on; of those up to 31, then of those above.
    let mut sets = [[0_u32; 3]; 2];
    // SAFETY: the kernel reads the header and fills in the sets, which are as many as that version has.
    #[expect(unsafe_code, reason = "this system call has no safe form")]
    let answer = unsafe { libc::syscall(libc::SYS_capget, &raw const header, &raw mut sets) };
    assert_eq!(answer, 0, "{}", std::io::Error::last_os_error());
    sets[0][0] &= !(1 << SYS_ADMIN);
    // SAFETY: the kernel reads both, and writes nothing of this process's.
    #[expect(unsafe_code, reason = "this system call has no safe form")]
    let answer = unsafe { libc::syscall(libc::SYS_capset, &raw const header, &raw const sets) };
    assert_eq!(answer, 0, "{}", std::io::Error::last_os_error());
}

#[tokio::test]
async fn maps_that_are_carried_are_moved_without_the_privilege_to_look_others_up() {
    if !inside("migrations::maps_that_are_carried_are_moved_without_the_privilege_to_look_others_up") {
        return;
    }
    let wire = Wire::new(1);
    without_sys_admin();
    let host = host(&wire);
    let (Some(first), Some(second)) = (growing(1, 0, false), growing(2, 0, true)) else {
        return;
    };
    let one = started(&host, first).await.unwrap();
    one.engage();
    assert_eq!(one.readiness(), Readiness::Ready);
    let counted = counted_to(&wire, "totals", 100);
    let two = started(&host, second.clone()).await.unwrap();
    two.engage();
    assert_eq!(two.readiness(), Readiness::Ready);
    assert_eq!(numbers(&pins("totals")[1]), [0, counted]);
    gone(&[&one, &two]).await;

    // One that isn't carried is said to need it.
    let ebpf = "[[ebpf.programs]]\nname = \"limit\"\nattach = \"xdp\"\ninterface = \"hs1\"\n";
    let source = &GROWING[..GROWING.find("struct entry").unwrap()];
    let bare = release("1.0.1", ebpf, source, &["VERSION=1"]).unwrap();
    let bare = started(&host, bare).await.unwrap();
    eventually("the hook is not free", || {
        bare.engage();
        bare.readiness() == Readiness::Ready
    });
    let why = started(&host, second).await.err().unwrap().to_string();
    assert!(
        why.contains("has a map totals can't be told without CAP_SYS_ADMIN"),
        "{why}"
    );
    gone(&[&bare]).await;
}
