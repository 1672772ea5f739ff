//! Hooks of a control group's sockets: who may connect, where to, who may have a socket at all.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

use hotswap_package::{Hook, On};
use hotswap_runtime::testing::namespace::{inside, sh};
use hotswap_runtime::{Artifact, Readiness};

use crate::support::{Group, PINS, bare_host, counted, eventually, gone, release, started};

/// Where nobody listens and no way leads: who gets there by connecting was not sent elsewhere.
const NOWHERE: &str = "10.77.9.9:80";
const SWAPS: u32 = 200;

/// Sends who connects there to a port of this machine, or denies it.
const REDIRECT: &str = r#"
struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 1); __type(key, __u32); __type(value, __u64); } seen SEC(".maps");
SEC("cgroup/connect4") int look(struct bpf_sock_addr *ctx) {
    __u32 only = 0;
    __u64 *count = bpf_map_lookup_elem(&seen, &only);
    if (!count || ctx->user_ip4 != bpf_htonl(0x0a4d0909))
        return 1;
    __sync_fetch_and_add(count, 1);
    if (!PORT)
        return 0;
    ctx->user_ip4 = bpf_htonl(0x7f000001);
    ctx->user_port = bpf_htons(PORT);
    return 1;
}
"#;

/// Counts, and answers the same to all.
const LOOK: &str = r#"
struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 1); __type(key, __u32); __type(value, __u64); } seen SEC(".maps");
SEC(SECTION) int look(void *ctx) {
    __u32 only = 0;
    __u64 *count = bpf_map_lookup_elem(&seen, &only);
    if (count)
        __sync_fetch_and_add(count, 1);
    return VERDICT;
}
"#;

fn at(hook: Hook, group: &Group) -> String {
    format!(
        "[[ebpf.programs]]\nname = \"look\"\nattach = \"{hook}\"\ncgroup = \"{}\"\n[[ebpf.maps]]\nname = \"seen\"\n\
         carry = true\n[[ebpf.counters]]\ncounts = \"requests\"\nmap = \"seen\"\n",
        group.path
    )
}

fn looking(version: &str, hook: Hook, group: &Group, verdict: u32) -> Option<Artifact> {
    let section = format!("SECTION=\"{}\"", hook.section());
    let verdict = format!("VERDICT={verdict}");
    release(version, &at(hook, group), LOOK, &[&section, &verdict])
}

/// Answers every connection with one byte.
fn answering(byte: u8) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let _ = stream.and_then(|mut stream| stream.write_all(&[byte]));
        }
    });
    port
}

/// Connections that are made one after the other.
struct Connecting {
    stop: Arc<AtomicBool>,
    made: Arc<AtomicU64>,
    thread: JoinHandle<[u64; 2]>,
}

impl Connecting {
    fn begin() -> Self {
        let (stop, made) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let (stopped, count) = (Arc::clone(&stop), Arc::clone(&made));
        let thread = std::thread::spawn(move || {
            let mut by = [0; 2];
            while !stopped.load(Ordering::Relaxed) {
                let mut byte = [0];
                let mut stream = TcpStream::connect(NOWHERE).expect("a connection was not sent elsewhere");
                stream.read_exact(&mut byte).unwrap();
                by[usize::from(byte[0])] += 1;
                count.fetch_add(1, Ordering::Relaxed);
            }
            by
        });
        Self { stop, made, thread }
    }

    fn made(&self) -> u64 {
        self.made.load(Ordering::Relaxed)
    }
}

/// The kernel's number of the link, and the kind of hook that it is at.
fn link() -> (u64, String) {
    let link = sh(&format!("bpftool -j link show pinned {PINS}/links/look"));
    let link: serde_json::Value = serde_json::from_str(&link).unwrap();
    (link["id"].as_u64().unwrap(), link["attach_type"].to_string())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_connection_escapes_while_versions_are_swapped() {
    if !inside("sockets::no_connection_escapes_while_versions_are_swapped") {
        return;
    }
    let Some(group) = Group::new() else { return };
    let ports = [answering(0), answering(1), 0];
    let releases = ["1.0.0", "1.1.0", "1.2.0"].into_iter().zip(ports);
    let releases: Option<Vec<Artifact>> = releases
        .map(|(version, port)| {
            let port = format!("PORT={port}");
            release(version, &at(Hook::CgroupConnect4, &group), REDIRECT, &[&port])
        })
        .collect();
    let Some(releases) = releases else { return };
    let host = bare_host();
    let mut loaded = Vec::new();
    for release in releases {
        loaded.push(started(&host, release).await.unwrap());
    }
    let [one, two, denies] = [&loaded[0], &loaded[1], &loaded[2]];
    assert!(TcpStream::connect(NOWHERE).is_err(), "there is a way");
    one.engage();
    assert_eq!(one.readiness(), Readiness::Ready);
    let before = link();
    let connecting = Connecting::begin();
    for swap in 0..SWAPS {
        let next = if swap % 2 == 0 { two } else { one };
        next.engage();
        assert_eq!(next.readiness(), Readiness::Ready, "swap {swap}");
        let made = connecting.made();
        eventually("no connections are made", || connecting.made() > made + 1);
    }
    assert_eq!(link(), before, "one link all along");
    connecting.stop.store(true, Ordering::Relaxed);
    let [by_one, by_two] = connecting.thread.join().unwrap();
    println!("{SWAPS} swaps: {by_one} connections sent to one port, {by_two} to the other, none elsewhere");
    assert!(by_one > 0 && by_two > 0);
    assert_eq!(counted(one) + counted(two), by_one + by_two);

    denies.engage();
    let denied = TcpStream::connect(NOWHERE).unwrap_err();
    assert_eq!(denied.kind(), ErrorKind::PermissionDenied);
    one.engage();
    TcpStream::connect(NOWHERE).unwrap();

    // A group that is removed takes its links with it; one of the same name is another.
    group.remove();
    one.tally();
    let Readiness::Failing(why) = one.readiness() else {
        panic!("its group is gone")
    };
    assert!(
        why.contains("the control group") && why.contains(&group.path),
        "{why}"
    );
    group.make_again();
    one.tally();
    assert_eq!(one.readiness(), Readiness::Ready);
    TcpStream::connect(NOWHERE).unwrap();
    gone(&[one, two, denies]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_hook_of_a_group_is_taken_and_swapped_by_its_link() {
    if !inside("sockets::every_hook_of_a_group_is_taken_and_swapped_by_its_link") {
        return;
    }
    let Some(group) = Group::new() else { return };
    let host = bare_host();
    for hook in Hook::ALL.into_iter().filter(|hook| hook.on() == On::Cgroup) {
        let (Some(one), Some(two)) = (
            looking("1.0.0", hook, &group, 1),
            looking("1.1.0", hook, &group, 1),
        ) else {
            return;
        };
        let one = started(&host, one).await.unwrap();
        let two = started(&host, two).await.unwrap();
        one.engage();
        assert_eq!(one.readiness(), Readiness::Ready, "{hook}");
        let before = link();
        two.engage();
        assert_eq!(two.readiness(), Readiness::Ready, "{hook}");
        assert_eq!(link(), before, "{hook}");
        gone(&[&one, &two]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sockets_are_denied_and_connections_looked_at() {
    if !inside("sockets::sockets_are_denied_and_connections_looked_at") {
        return;
    }
    let Some(group) = Group::new() else { return };
    let (Some(denies), Some(looks)) = (
        looking("1.0.0", Hook::CgroupSockCreate, &group, 0),
        looking("1.1.0", Hook::CgroupSockOps, &group, 1),
    ) else {
        return;
    };
    let host = bare_host();
    let denies = started(&host, denies).await.unwrap();
    let looks = started(&host, looks).await.unwrap();
    denies.engage();
    assert_eq!(
        UdpSocket::bind("127.0.0.1:0").unwrap_err().kind(),
        ErrorKind::PermissionDenied
    );
    let before = link();
    // The next version's program of that name is for another kind of hook: it has that one, and lets go of this.
    looks.engage();
    assert_eq!(looks.readiness(), Readiness::Ready);
    let after = link();
    assert_ne!(after, before);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let seen = counted(&looks);
    TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    assert!(counted(&looks) > seen);
    denies.engage();
    assert!(UdpSocket::bind("127.0.0.1:0").is_err());
    looks.engage();
    assert!(UdpSocket::bind("127.0.0.1:0").is_ok());
    gone(&[&denies, &looks]).await;
    assert!(!Path::new(PINS).exists());
}
