//! A network and a bpffs of a test's own, where privileges allow: nothing that the test does with them is seen outside,
//! and nothing is left of it.

use std::net::UdpSocket;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Says to a test that it is inside.
const INSIDE: &str = "HOTSWAP_TEST_NAMESPACE";

/// Whether the calling test goes on: inside. Outside it runs itself once more, inside, and is over with that; where
/// privileges lack, it says what is left out.
///
/// # Panics
/// If the test failed inside.
pub fn inside(test: &str) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        sh("mount -t bpf bpf /sys/fs/bpf");
        sh("echo 1 > /proc/sys/net/ipv6/conf/all/disable_ipv6 || true");
        sh("ip link set lo up");
        return true;
    }
    let can = "mount -t bpf bpf /sys/fs/bpf && ip link add hotswap0 type veth peer name hotswap1 && bpftool version";
    let can = Command::new("unshare")
        .args(["--net", "--mount", "sh", "-c", can])
        .output();
    match can {
        Ok(can) if can.status.success() => {}
        Ok(can) => {
            let why = String::from_utf8_lossy(&can.stderr);
            println!(
                "left out: {test} needs root, a kernel with bpffs, iproute2 and bpftool: {}",
                why.trim()
            );
            return false;
        }
        Err(error) => {
            println!("left out: {test} needs unshare: {error}");
            return false;
        }
    }
    let ran = Command::new("unshare")
        .args(["--net", "--mount"])
        .arg(std::env::current_exe().expect("this program's path"))
        .args(["--exact", test, "--nocapture"])
        .env(INSIDE, "1")
        .status()
        .expect("unshare was there before");
    assert!(ran.success(), "{test} failed");
    false
}

/// Runs a shell's command.
///
/// # Panics
/// If it fails.
pub fn sh(command: &str) -> String {
    let ran = Command::new("sh")
        .args(["-c", command])
        .output()
        .expect("there is a shell");
    let (out, err) = (
        String::from_utf8_lossy(&ran.stdout),
        String::from_utf8_lossy(&ran.stderr),
    );
    assert!(ran.status.success(), "{command}: {out}{err}");
    out.into_owned()
}

/// A pair of interfaces: what is sent to [`Wire::address`] leaves one and is received by the other, whose name this
/// has. Nothing else is on it.
#[derive(Debug)]
pub struct Wire {
    /// The receiving interface.
    pub name: String,
    number: u8,
}

impl Wire {
    /// A new pair; numbers are a test's own.
    pub fn new(number: u8) -> Self {
        let (name, peer) = (format!("hs{number}"), format!("hs{number}p"));
        sh(&format!("ip link add {name} type veth peer name {peer}"));
        sh(&format!(
            "ip link set {name} up arp off && ip link set {peer} up arp off"
        ));
        sh(&format!("ip addr add 10.77.{number}.1/24 dev {peer}"));
        let mac = sh(&format!(
            "cat /sys/class/net/{name}/address 2>/dev/null || ip -br link show {name} | awk '{{print $3}}'"
        ));
        let mac = mac.trim();
        sh(&format!(
            "ip neigh replace 10.77.{number}.2 lladdr {mac} dev {peer} nud permanent"
        ));
        Self { name, number }
    }

    /// Where to send to.
    pub fn address(&self) -> String {
        format!("10.77.{}.2:9", self.number)
    }

    fn socket(&self) -> UdpSocket {
        let socket = UdpSocket::bind(format!("10.77.{}.1:0", self.number)).expect("the address is there");
        socket.connect(self.address()).expect("there is a way");
        socket
    }

    /// Sends packets until it is stopped: as fast as it goes, or so many a second.
    pub fn flood(&self, per_second: Option<u64>) -> Flood {
        let socket = self.socket();
        let (stop, sent) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let (stopped, counted) = (Arc::clone(&stop), Arc::clone(&sent));
        let thread = std::thread::spawn(move || {
            let begun = Instant::now();
            while !stopped.load(Ordering::Relaxed) {
                let count = counted.load(Ordering::Relaxed);
                if let Some(rate) = per_second {
                    let due = Duration::from_secs_f64(count as f64 / rate as f64);
                    if let Some(early) = due.checked_sub(begun.elapsed()) {
                        std::thread::sleep(early.min(Duration::from_millis(5)));
                        continue;
                    }
                }
                if socket.send(&count.to_be_bytes()).is_ok() {
                    counted.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        Flood {
            stop,
            sent,
            thread: Some(thread),
        }
    }
}

/// Packets that are being sent.
#[derive(Debug)]
pub struct Flood {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Flood {
    /// How many were sent so far.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Ends it; returns how many were sent.
    pub fn stop(mut self) -> u64 {
        self.end();
        self.sent()
    }

    fn end(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.end();
    }
}
