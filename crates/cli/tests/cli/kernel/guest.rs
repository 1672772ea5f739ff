//! A virtual machine with the real agent in it, and what is pushed and deployed to it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::fleet::Server;

/// Longest wait for a boot, with a processor that is emulated and shared.
const BOOT_TIME_MAX: Duration = Duration::from_secs(300);
const NODE: &str = "vm-1";
/// What is left by the node itself is known long before the step's deadline.
const ENVIRONMENTS: &str = "\
[[environments]]
name = \"Production\"
strategy = { type = \"Direct\" }
grants = { kinds = [\"kernel\"] }
[environments.policy]
settle = \"1s\"
step-deadline = \"10m\"
";
/// Where the guest finds this machine's loopback.
const HOST: &str = "10.0.2.2";
/// Programs need these beside them in the guest.
const LIBRARIES: [&str; 4] = ["libc.so.6", "libm.so.6", "libgcc_s.so.1", "ld-linux-x86-64.so.2"];
const BOOTED: &str = "booted in ";

/// Where what is booted is; `None` where nothing was made.
pub(super) fn prepared() -> Option<PathBuf> {
    let dir = std::env::var_os("HOTSWAP_VM").map(PathBuf::from);
    if dir.is_none() {
        println!("left out: cargo xtask test --vm runs this in a virtual machine");
    }
    dir
}

#[track_caller]
pub(super) fn sh(command: &str, dir: &Path) -> String {
    let ran = Command::new("sh")
        .args(["-ec", command])
        .current_dir(dir)
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success(), "{command}: {told}");
    String::from_utf8(ran.stdout).unwrap()
}

/// How a machine is.
#[derive(Clone, Copy, Default)]
pub(super) struct Machine {
    pub(super) kernel_arguments: &'static str,
    pub(super) agent_arguments: &'static str,
    /// With firmware whose variables name a key that the kernel trusts.
    pub(super) has_key: bool,
}

/// A server and a virtual machine with its agent.
pub(super) struct Guest {
    server: Server,
    _environments: tempfile::NamedTempFile,
    vm: PathBuf,
    child: Child,
    console: PathBuf,
    begun: Instant,
}

impl Drop for Guest {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Guest {
    /// Boots, and returns when the server knows the node.
    pub(super) fn boot(vm: &Path, machine: Machine) -> Self {
        let begun = Instant::now();
        let file = tempfile::NamedTempFile::with_suffix(".toml").unwrap();
        fs::write(file.path(), ENVIRONMENTS).unwrap();
        let server = Server::start(&["--config", file.path().to_str().unwrap()]);
        let dir = server.dir.path().join("guest");
        disk(&server, &dir, machine.agent_arguments);
        let console = dir.join("console");
        let guest = Self {
            child: qemu(vm, &dir, &console, machine),
            vm: vm.to_owned(),
            server,
            _environments: file,
            console,
            begun,
        };
        guest.eventually_booted(1);
        guest.eventually_known();
        guest.tell("booted, and the node is there");
        guest
    }

    /// A line of the test's output, with the time since its begin.
    pub(super) fn tell(&self, what: &str) {
        println!("{:6.1} s  {what}", self.begun.elapsed().as_secs_f64());
    }

    pub(super) fn elapsed(&self) -> Duration {
        self.begun.elapsed()
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
            assert!(
                Instant::now() < end,
                "{what}: {console}\n{}",
                self.server.process.log()
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Waits until it has booted so many times, in all.
    #[track_caller]
    pub(super) fn eventually_booted(&self, times: usize) {
        self.eventually("it never booted", |console| {
            console.matches(BOOTED).count() >= times
        });
    }

    #[track_caller]
    fn eventually_known(&self) {
        self.eventually("the server never heard of it", |_| {
            self.server.run(&["nodes"]).exits(0).stdout.contains(NODE)
        });
    }

    /// How often it has booted.
    pub(super) fn boots(&self) -> usize {
        self.console().matches(BOOTED).count()
    }

    /// What the guest says of something in its newest state since it booted last.
    fn state(console: &str, key: &str) -> String {
        let boot = console.rsplit(BOOTED).next().unwrap_or_default();
        let line = boot
            .lines()
            .rev()
            .find(|line| line.starts_with("state: ") && line.trim_end().ends_with(']'));
        let value = line.and_then(|line| line.split(&format!("{key}=[")).nth(1));
        let value = value.and_then(|rest| rest.split(']').next());
        value.unwrap_or_default().to_owned()
    }

    #[track_caller]
    pub(super) fn eventually_is(&self, key: &str, is: impl Fn(&str) -> bool) -> String {
        let console = self.eventually(key, |console| is(&Self::state(console, key)));
        Self::state(&console, key)
    }

    /// Calls through the gate: served and unserved.
    pub(super) fn calls(&self) -> (u64, u64) {
        let reader = Self::state(&self.console(), "reader");
        let mut words = reader.split(' ').map_while(|word| word.parse().ok());
        (words.next().unwrap_or(0), words.next().unwrap_or(0))
    }

    /// How the agent's log says that the last module came to its place.
    pub(super) fn last_swap(&self) -> String {
        let console = self.console();
        let swap = console
            .lines()
            .rev()
            .find(|line| line.contains("a kernel module is in its place"));
        let swap: Value = serde_json::from_str(swap.expect("something came to its place").trim()).unwrap();
        format!(
            "{}, {:.1} ms in all, {}",
            swap["came"].as_str().unwrap_or_default(),
            swap["took_ms"].as_f64().unwrap_or_default(),
            swap["taint"].as_str().unwrap_or_default()
        )
    }

    /// Puts a package's folder together and pushes it.
    pub(super) fn push(&self, name: &str, version: &str, (kernel, file): (&str, &str)) {
        let content = fs::read(self.vm.join("modules").join(file)).unwrap();
        self.push_file(name, version, (kernel, file), &content);
    }

    pub(super) fn push_file(&self, name: &str, version: &str, (kernel, file): (&str, &str), content: &[u8]) {
        let dir = self.server.dir.path().join(format!("{name}-{version}"));
        fs::create_dir(&dir).unwrap();
        let release = fs::read_to_string(self.vm.join("release")).unwrap();
        fs::write(dir.join(file), content).unwrap();
        let manifest = format!(
            "name = \"{name}\"\nversion = \"{version}\"\nkind = \"kernel\"\nentry = \"builds.tar\"\n[kernel]\n{kernel}\n\
             [[kernel.builds]]\nrelease = \"{release}\"\nfile = \"{file}\"\n"
        );
        fs::write(dir.join("module.toml"), manifest).unwrap();
        self.server.push(dir.to_str().unwrap()).exits(0);
    }

    /// Deploys, and returns what became of it.
    pub(super) fn deploys(&self, name: &str, version: &str) {
        self.deploy(name, version, 0);
    }

    /// Deploys what fails, and returns why.
    pub(super) fn fails(&self, name: &str, version: &str) -> String {
        let status = self.deploy(name, version, 1);
        let message = status["message"].as_str().unwrap_or_default();
        println!("          {message}");
        message.to_owned()
    }

    fn deploy(&self, name: &str, version: &str, exits: i32) -> Value {
        let begun = Instant::now();
        let args = ["--to", "Production", "--email", "a@b.example", "-o", "json"];
        let asked = self
            .server
            .run(&[&["deploy", name, version][..], &args[..]].concat());
        let id = asked.exits(0).json()["executionId"].as_str().unwrap().to_owned();
        let ended = self.server.run(&["status", &id, "--watch"]);
        let status = self.server.run(&["status", &id, "-o", "json"]).json();
        assert_eq!(
            ended.code,
            exits,
            "{}{}\n{status}\n{}",
            ended.stdout,
            ended.stderr,
            self.console()
        );
        println!(
            "{:6.1} s  {name} {version}: {}",
            begun.elapsed().as_secs_f64(),
            status["status"].as_str().unwrap_or_default()
        );
        status
    }

    pub(super) fn undeploys(&self, name: &str) {
        let begun = Instant::now();
        let undeploy = ["undeploy", name, "--from", "Production", "--watch"];
        self.server.run(&undeploy).exits(0);
        println!("{:6.1} s  {name}: unloaded", begun.elapsed().as_secs_f64());
    }
}

/// The guest's disk: the agent, what it needs, and how it is called.
fn disk(server: &Server, dir: &Path, agent_arguments: &str) {
    fs::create_dir_all(dir.join("disk/lib")).unwrap();
    let program = env!("CARGO_BIN_EXE_hotswap");
    let libraries = sh(&format!("ldd {program}"), dir);
    for library in LIBRARIES {
        let line = libraries.lines().find(|line| line.contains(library)).unwrap();
        let path = line
            .split_whitespace()
            .find(|word| word.starts_with('/'))
            .unwrap();
        fs::copy(path, dir.join("disk/lib").join(library)).unwrap();
    }
    sh(&format!("strip -o disk/hotswap {program}"), dir);
    let trust = server.dir.path().join("trust");
    sh(&format!("cp -r {}/. disk/trust", trust.display()), dir);
    fs::copy(server.join_token("Production"), dir.join("disk/token")).unwrap();
    let port = server.agents.rsplit(':').next().unwrap();
    let arguments = format!(
        "--node {NODE} --environment Production --server https://{HOST}:{port} --join-token-file /data/token --data \
         /data/node --ingress 127.0.0.1:8080 --trust /data/trust/trust.toml --native-kind kernel {agent_arguments}"
    );
    fs::write(dir.join("disk/arguments"), arguments).unwrap();
    sh("mke2fs -q -t ext4 -d disk disk.img 512M", dir);
}

fn qemu(vm: &Path, dir: &Path, console: &Path, machine: Machine) -> Child {
    let mut qemu = Command::new("qemu-system-x86_64");
    if machine.has_key {
        fs::copy(vm.join("variables.fd"), dir.join("variables.fd")).unwrap();
        qemu.args(["-machine", "q35"]);
        for (file, more) in [
            (vm.join("firmware.fd"), ",readonly=on"),
            (dir.join("variables.fd"), ""),
        ] {
            let drive = format!("if=pflash,format=raw,file={}{more}", file.display());
            qemu.args(["-drive", &drive]);
        }
    } else {
        qemu.args(["-machine", "pc"]);
    }
    let disk = format!("file={},format=raw,if=virtio", dir.join("disk.img").display());
    let append = format!("console=ttyS0 quiet panic=1 {}", machine.kernel_arguments);
    qemu.args(["-accel", "tcg,thread=multi", "-smp", "2", "-m", "512"])
        .args(["-nodefaults", "-display", "none"])
        .args(["-serial", &format!("file:{}", console.display())])
        .arg("-kernel")
        .arg(vm.join("vmlinuz"))
        .arg("-initrd")
        .arg(vm.join("initramfs"))
        .args(["-append", &append, "-drive", &disk])
        .args(["-netdev", "user,id=net", "-device", "virtio-net-pci,netdev=net"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .expect("QEMU is there")
}
