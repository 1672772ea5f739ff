//! Tracepoints, whose links can't be updated: the new version is attached before the former one leaves.

use std::os::unix::process::parent_id;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

use hotswap_package::{Hook, Kind};
use hotswap_runtime::ebpf::inspect;
use hotswap_runtime::testing::namespace::{inside, sh};
use hotswap_runtime::{Artifact, Readiness};

use crate::support::{PINS, bare_host, counted, eventually, gone, release, started};

const SWAPS: u32 = 100;

/// Counts how often this process asks for its parent.
const ASKS: &str = r#"
struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 1); __type(key, __u32); __type(value, __u64); } seen SEC(".maps");
SEC(SECTION) int look(__u64 *ctx) {
    __u32 only = 0;
    __u64 *count = bpf_map_lookup_elem(&seen, &only);
    if (count && bpf_get_current_pid_tgid() >> 32 == PID && ctx[1] == CALL)
        __sync_fetch_and_add(count, 1);
    return 0;
}
"#;

fn asks(version: &str, hook: Hook, at: &str) -> Option<Artifact> {
    let (section, pid) = (
        format!("SECTION=\"{}\"", hook.section()),
        format!("PID={}", std::process::id()),
    );
    // The second word is the call's number in all three.
    let call = format!("CALL={}", libc::SYS_getppid);
    let ebpf = format!(
        "[[ebpf.programs]]\nname = \"look\"\nattach = \"{hook}\"\ntracepoint = \"{at}\"\n\
         [[ebpf.counters]]\ncounts = \"requests\"\nmap = \"seen\"\n"
    );
    release(version, &ebpf, ASKS, &[&section, &pid, &call])
}

struct Asking {
    stop: Arc<AtomicBool>,
    asked: Arc<AtomicU64>,
    thread: JoinHandle<()>,
}

impl Asking {
    fn begin() -> Self {
        let (stop, asked) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let (stopped, count) = (Arc::clone(&stop), Arc::clone(&asked));
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                let _ = parent_id();
                count.fetch_add(1, Ordering::Relaxed);
            }
        });
        Self { stop, asked, thread }
    }

    fn asked(&self) -> u64 {
        self.asked.load(Ordering::Relaxed)
    }

    fn stop(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap();
        self.asked.load(Ordering::Relaxed)
    }
}

fn link() -> (u64, u64) {
    let link = sh(&format!("bpftool -j link show pinned {PINS}/links/look"));
    let link: serde_json::Value = serde_json::from_str(&link).unwrap();
    (link["id"].as_u64().unwrap(), link["prog_id"].as_u64().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_event_is_unseen_while_versions_are_swapped_at_tracepoints() {
    if !inside("tracepoints::no_event_is_unseen_while_versions_are_swapped_at_tracepoints") {
        return;
    }
    sh("mount -t tracefs tracefs /sys/kernel/tracing");
    for (hook, at) in [
        (Hook::Tracepoint, "raw_syscalls:sys_enter"),
        (Hook::RawTracepoint, "sys_enter"),
        (Hook::TpBtf, "sys_enter"),
    ] {
        let (Some(first), Some(second)) = (asks("1.0.0", hook, at), asks("1.1.0", hook, at)) else {
            return;
        };
        let summary = inspect(&second.manifest, &second.content).unwrap().summary();
        assert!(summary.contains("both see what happens in between"), "{summary}");
        let host = bare_host();
        let (one, two) = (
            started(&host, first.clone()).await.unwrap(),
            started(&host, second).await.unwrap(),
        );
        assert_eq!(one.manifest().kind, Kind::Ebpf);
        one.engage();
        assert_eq!(one.readiness(), Readiness::Ready, "{hook}");
        let asking = Asking::begin();
        for swap in 0..SWAPS {
            let next = if swap % 2 == 0 { &two } else { &one };
            next.engage();
            assert_eq!(next.readiness(), Readiness::Ready, "{hook}, swap {swap}");
            let asked = asking.asked();
            eventually("nothing is asked", || asking.asked() > asked);
        }
        let asked = asking.stop();
        let (by_one, by_two) = (counted(&one), counted(&two));
        println!(
            "{hook}: {SWAPS} swaps during {asked} events: {by_one} and {by_two} seen, {} of them by both",
            (by_one + by_two).saturating_sub(asked)
        );
        assert!(by_one > 0 && by_two > 0);
        assert!(
            by_one + by_two >= asked,
            "{hook}: {} unseen",
            asked - by_one - by_two
        );
        let links = sh("bpftool link show");
        let ours = links
            .matches("sys_enter")
            .count()
            .max(usize::from(hook == Hook::Tracepoint));
        assert_eq!(ours, 1, "the former one left: {links}");

        // As a process that is killed; its successor finds what it left.
        one.engage();
        let before = link();
        std::mem::forget((one, two, host));
        let host = bare_host();
        let one = started(&host, first).await.unwrap();
        one.engage();
        assert_eq!(link(), before, "{hook}");
        gone(&[&one]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_kernel_has_no_such_tracepoint_says_so_before_anything_is_changed() {
    if !inside("tracepoints::a_node_whose_kernel_has_no_such_tracepoint_says_so_before_anything_is_changed") {
        return;
    }
    let host = bare_host();
    let Some(one) = asks("1.0.0", Hook::Tracepoint, "sched:no_such_event") else {
        return;
    };
    let unmounted = started(&host, one.clone()).await.err().unwrap().to_string();
    assert!(unmounted.contains("mount -t tracefs tracefs"), "{unmounted}");
    sh("mount -t tracefs tracefs /sys/kernel/tracing");
    let others = [
        asks("1.1.0", Hook::RawTracepoint, "no_such_event").unwrap(),
        asks("1.2.0", Hook::TpBtf, "no_such_event").unwrap(),
    ];
    for release in [one].into_iter().chain(others) {
        let why = started(&host, release).await.err().unwrap().to_string();
        assert!(why.contains("this node's kernel has no tracepoint"), "{why}");
        assert!(why.contains("no_such_event"), "{why}");
        assert!(!Path::new(PINS).exists());
    }
}
