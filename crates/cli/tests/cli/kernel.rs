//! Kernel modules in a virtual machine: the real agent inside, the real server outside. `cargo xtask test --vm` makes what
//! is booted; without it these tests say so and do nothing.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::fleet::Server;
use crate::support::{hotswap, run};

/// Longest wait for a boot, with a processor that is emulated and shared.
const BOOT_TIME_MAX: Duration = Duration::from_secs(120);
const NODE: &str = "vm-1";
const ENVIRONMENTS: &str = "\
[[environments]]
name = \"Production\"
strategy = { type = \"Direct\" }
grants = { kinds = [\"kernel\"] }
[environments.policy]
settle = \"1s\"
step-deadline = \"60s\"
";
/// Where the guest finds this machine's loopback.
const HOST: &str = "10.0.2.2";
/// Programs need these beside them in the guest.
const LIBRARIES: [&str; 4] = ["libc.so.6", "libm.so.6", "libgcc_s.so.1", "ld-linux-x86-64.so.2"];

/// Where what is booted is; `None` where nothing was made.
fn prepared() -> Option<PathBuf> {
    let dir = std::env::var_os("HOTSWAP_VM").map(PathBuf::from);
    if dir.is_none() {
        println!("left out: cargo xtask test --vm runs this in a virtual machine");
    }
    dir
}

#[track_caller]
fn sh(command: &str, dir: &Path) -> String {
    let ran = Command::new("sh")
        .args(["-ec", command])
        .current_dir(dir)
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success(), "{command}: {told}");
    String::from_utf8(ran.stdout).unwrap()
}

/// A virtual machine with an agent in it.
struct Guest {
    child: Child,
    console: PathBuf,
}

impl Drop for Guest {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Guest {
    fn boot(server: &Server, vm: &Path, kernel_arguments: &str) -> Self {
        let dir = server.dir.path().join("guest");
        fs::create_dir_all(dir.join("disk/lib")).unwrap();
        let program = env!("CARGO_BIN_EXE_hotswap");
        let libraries = sh(&format!("ldd {program}"), &dir);
        for library in LIBRARIES {
            let line = libraries.lines().find(|line| line.contains(library)).unwrap();
            let path = line
                .split_whitespace()
                .find(|word| word.starts_with('/'))
                .unwrap();
            fs::copy(path, dir.join("disk/lib").join(library)).unwrap();
        }
        sh(&format!("strip -o disk/hotswap {program}"), &dir);
        sh(
            &format!("cp -r {}/. disk/trust", server.dir.path().join("trust").display()),
            &dir,
        );
        fs::copy(server.join_token("Production"), dir.join("disk/token")).unwrap();
        let port = server.agents.rsplit(':').next().unwrap();
        fs::write(
            dir.join("disk/arguments"),
            format!(
                "--node {NODE} --environment Production --server https://{HOST}:{port} --join-token-file /data/token \
                 --data /data/node --ingress 127.0.0.1:8080 --trust /data/trust/trust.toml --native-kind kernel"
            ),
        )
        .unwrap();
        sh("mke2fs -q -t ext4 -d disk disk.img 512M", &dir);
        let console = dir.join("console");
        let serial = format!("file:{}", console.display());
        let disk = format!("file={},format=raw,if=virtio", dir.join("disk.img").display());
        let append = format!("console=ttyS0 quiet panic=1 {kernel_arguments}");
        let child = Command::new("qemu-system-x86_64")
            .args(["-M", "pc", "-accel", "tcg,thread=multi", "-smp", "2", "-m", "512"])
            .args(["-nodefaults", "-display", "none", "-serial", &serial])
            .arg("-kernel")
            .arg(vm.join("vmlinuz"))
            .arg("-initrd")
            .arg(vm.join("initramfs"))
            .args(["-append", &append, "-drive", &disk])
            .args(["-netdev", "user,id=net", "-device", "virtio-net-pci,netdev=net"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .expect("QEMU is there");
        Self { child, console }
    }

    fn console(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.console).unwrap_or_default()).into_owned()
    }

    #[track_caller]
    fn eventually(&self, what: &str, is: impl Fn(&str) -> bool) -> String {
        let end = Instant::now() + BOOT_TIME_MAX;
        loop {
            let console = self.console();
            if is(&console) {
                return console;
            }
            assert!(Instant::now() < end, "{what}: {console}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// What the guest says of something in its newest state.
    fn state(console: &str, key: &str) -> String {
        let line = console
            .lines()
            .rev()
            .find(|line| line.starts_with("state: ") && line.trim_end().ends_with(']'));
        let value = line.and_then(|line| line.split(&format!("{key}=[")).nth(1));
        let value = value.and_then(|rest| rest.split(']').next());
        value.unwrap_or_default().to_owned()
    }

    #[track_caller]
    fn eventually_is(&self, key: &str, is: impl Fn(&str) -> bool) -> String {
        let console = self.eventually(key, |console| is(&Self::state(console, key)));
        Self::state(&console, key)
    }

    /// Calls through the gate: served, unserved, and by whom last.
    fn calls(&self) -> (u64, u64, String) {
        let reader = Self::state(&self.console(), "reader");
        let mut words = reader.split(' ');
        let mut number = || words.next().and_then(|word| word.parse().ok()).unwrap_or(0);
        (
            number(),
            number(),
            reader.rsplit(' ').next().unwrap_or_default().to_owned(),
        )
    }
}

/// Puts a package's folder together and pushes it.
fn push(server: &Server, vm: &Path, name: &str, version: &str, (kernel, file): (&str, &str)) {
    let dir = server.dir.path().join(format!("{name}-{version}"));
    fs::create_dir(&dir).unwrap();
    let release = fs::read_to_string(vm.join("release")).unwrap();
    fs::copy(vm.join("modules").join(file), dir.join(file)).unwrap();
    let manifest = format!(
        "name = \"{name}\"\nversion = \"{version}\"\nkind = \"kernel\"\nentry = \"builds.tar\"\n[kernel]\n{kernel}\n\
         [[kernel.builds]]\nrelease = \"{release}\"\nfile = \"{file}\"\n"
    );
    fs::write(dir.join("module.toml"), manifest).unwrap();
    server.push(dir.to_str().unwrap()).exits(0);
}

const GATED: &str = "style = \"gated\"\ngate = \"hotswap_gate\"\n[[kernel.counters]]\ncounts = \"requests\"\nfile = \
                     \"/sys/module/hotswap_gate/parameters/requests\"";

/// Deploys, and says how that ended.
fn deploy(server: &Server, guest: &Guest, name: &str, version: &str, exits: i32) -> Value {
    let begun = Instant::now();
    let asked = server.run(&[
        "deploy",
        name,
        version,
        "--to",
        "Production",
        "--email",
        "a@b.example",
        "-o",
        "json",
    ]);
    let id = asked.exits(0).json()["executionId"].as_str().unwrap().to_owned();
    let ended = server.run(&["status", &id, "--watch"]);
    let status = server.run(&["status", &id, "-o", "json"]).json();
    assert_eq!(
        ended.code,
        exits,
        "{}{}\n{status}\n{}",
        ended.stdout,
        ended.stderr,
        guest.console()
    );
    println!(
        "{:6.1} s  {name} {version}: {}",
        begun.elapsed().as_secs_f64(),
        status["status"].as_str().unwrap_or_default()
    );
    status
}

fn server() -> (Server, tempfile::NamedTempFile) {
    let file = tempfile::NamedTempFile::with_suffix(".toml").unwrap();
    fs::write(file.path(), ENVIRONMENTS).unwrap();
    let server = Server::start(&["--config", file.path().to_str().unwrap()]);
    (server, file)
}

/// What the agent logged of the last swap.
fn last_swap(guest: &Guest) -> String {
    let console = guest.console();
    let swap = console
        .lines()
        .rev()
        .find(|line| line.contains("a kernel module is in its place"));
    swap.and_then(|line| line.split("\"came\":").nth(1))
        .unwrap_or_default()
        .to_owned()
}

#[test]
fn modules_are_swapped_taken_back_and_left_out_after_a_panic() {
    let Some(vm) = prepared() else { return };
    let begun = Instant::now();
    let (server, _file) = server();
    let guest = Guest::boot(&server, &vm, "");
    guest.eventually("it never booted", |console| console.contains("booted in"));
    server.eventually(&["nodes"], NODE);
    println!(
        "{:6.1} s  booted, and the node is there",
        begun.elapsed().as_secs_f64()
    );

    push(
        &server,
        &vm,
        "request-gate",
        "1.0.0",
        ("module = \"hotswap_gate\"", "hotswap_gate.ko"),
    );
    for version in ["1.0.0", "1.1.0"] {
        let module = format!("greeter_{}", version.replace('.', "_"));
        let kernel = format!("module = \"{module}\"\n{GATED}");
        push(
            &server,
            &vm,
            "greeter",
            version,
            (&kernel, &format!("{module}.ko")),
        );
    }
    for version in ["1.0.0", "1.1.0", "1.2.0", "1.3.0"] {
        let kernel = "module = \"hotswap_plain\"";
        push(
            &server,
            &vm,
            "plain",
            version,
            (kernel, &format!("hotswap_plain-{version}.ko")),
        );
    }
    let patch = (
        "module = \"hotswap_patch\"\nstyle = \"livepatch\"",
        "hotswap_patch.ko",
    );
    push(&server, &vm, "cmdline-patch", "1.0.0", patch);

    // Behind the gate, under a reader that never stops.
    deploy(&server, &guest, "request-gate", "1.0.0", 0);
    deploy(&server, &guest, "greeter", "1.0.0", 0);
    guest.eventually_is("reader", |reader| reader.ends_with("1.0.0"));
    deploy(&server, &guest, "greeter", "1.1.0", 0);
    guest.eventually_is("reader", |reader| reader.ends_with("1.1.0"));
    println!("          the swap: {}", last_swap(&guest));
    let (served, unserved, _) = guest.calls();
    println!("          {served} calls served, {unserved} unserved");
    assert_eq!(unserved, 0);

    // Plain, and one whose init fails.
    deploy(&server, &guest, "plain", "1.0.0", 0);
    deploy(&server, &guest, "plain", "1.1.0", 0);
    guest.eventually_is("plain", |version| version == "1.1.0");
    println!("          the swap: {}", last_swap(&guest));
    let failed = deploy(&server, &guest, "plain", "1.2.0", 1);
    assert!(failed.to_string().contains("its own start failed"), "{failed}");
    guest.eventually_is("plain", |version| version == "1.1.0");

    // A livepatch, on and off.
    deploy(&server, &guest, "cmdline-patch", "1.0.0", 0);
    guest.eventually_is("cmdline", |line| line.starts_with("this has been live patched"));
    let off = Instant::now();
    server
        .run(&["undeploy", "cmdline-patch", "--from", "Production", "--watch"])
        .exits(0);
    guest.eventually_is("cmdline", |line| line.contains("console=ttyS0"));
    println!("{:6.1} s  cmdline-patch: off again", off.elapsed().as_secs_f64());

    // A candidate that takes the node with it.
    let failed = deploy(&server, &guest, "plain", "1.3.0", 1);
    let message = failed.to_string();
    println!("          {}", failed["message"]);
    assert!(
        message.contains("the node went down while 1.3.0 was being loaded"),
        "{message}"
    );
    assert_eq!(guest.console().matches("booted in").count(), 2, "one reboot");
    guest.eventually_is("plain", |version| version == "1.1.0");
    println!("{:6.1} s  in all", begun.elapsed().as_secs_f64());
}

#[test]
fn an_unsigned_module_is_refused_where_signatures_are_enforced() {
    let Some(vm) = prepared() else { return };
    let begun = Instant::now();
    let (server, _file) = server();
    let guest = Guest::boot(&server, &vm, "module.sig_enforce=1");
    guest.eventually("it never booted", |console| console.contains("booted in"));
    server.eventually(&["nodes"], NODE);
    push(
        &server,
        &vm,
        "plain",
        "1.0.0",
        ("module = \"hotswap_plain\"", "hotswap_plain-1.0.0.ko"),
    );
    let failed = deploy(&server, &guest, "plain", "1.0.0", 1).to_string();
    assert!(
        failed.contains("loads only modules with a signature by a key that it trusts"),
        "{failed}"
    );
    println!("{:6.1} s  in all", begun.elapsed().as_secs_f64());
}

#[test]
fn what_init_writes_builds_for_each_kernel_whose_headers_are_here() {
    let installed = fs::read_dir("/lib/modules").into_iter().flatten().flatten();
    let releases: Vec<String> = installed
        .filter(|release| release.path().join("build/Makefile").exists())
        .map(|release| release.file_name().to_string_lossy().into_owned())
        .collect();
    if releases.is_empty() {
        println!("left out: no kernel's headers are installed (linux-headers-...)");
        return;
    }
    for release in releases {
        let folder = tempfile::tempdir().unwrap();
        let begin = [
            "module",
            "init",
            "--kind",
            "kernel",
            "--lang",
            "c",
            "request-filter",
        ];
        let begun = hotswap().args(begin).current_dir(folder.path()).output().unwrap();
        assert!(begun.status.success(), "{begun:?}");
        let folder = folder.path().join("request-filter");
        println!("{}", sh(&format!("make RELEASE={release} 2>&1"), &folder));
        let package = folder.join("request-filter.hsm");
        run(&[
            "module",
            "pack",
            folder.to_str().unwrap(),
            "-o",
            package.to_str().unwrap(),
        ])
        .exits(0);
        let manifest = fs::read_to_string(folder.join("module.toml")).unwrap();
        assert!(
            manifest.contains(&format!("release = \"{release}\"")),
            "{manifest}"
        );
    }
}
