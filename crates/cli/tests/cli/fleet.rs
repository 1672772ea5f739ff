//! Real servers and agents, each the binary in a process of its own.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::support::{PASSWORD, Ran, hotswap, run};

/// Longest wait for anything.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// A running process of the binary; ends with its owner.
pub(crate) struct Process {
    child: Child,
    /// What its ready line names.
    pub(crate) url: String,
    /// All that it wrote to stderr so far, for the port that agents use.
    log: Arc<Mutex<String>>,
}

impl Process {
    /// Starts it and waits for its ready line.
    pub(crate) fn start(args: &[&str]) -> Self {
        Self::start_command(hotswap().args(args))
    }

    /// Starts a prepared command of the binary and waits for its ready line.
    pub(crate) fn start_command(command: &mut Command) -> Self {
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        let log = Arc::<Mutex<String>>::default();
        let (stderr, kept) = (child.stderr.take().expect("it is piped"), Arc::clone(&log));
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                let mut kept = kept.lock().unwrap();
                kept.push_str(&line);
                kept.push('\n');
            }
        });
        let mut stdout = BufReader::new(child.stdout.take().expect("it is piped"));
        let mut line = String::new();
        stdout.read_line(&mut line).expect("stdout is read");
        let url = line.trim().strip_prefix("ready: ").unwrap_or_else(|| {
            let _ = child.wait();
            panic!("not ready: {line:?}; {}", log.lock().unwrap())
        });
        Self {
            url: url.to_owned(),
            child,
            log,
        }
    }

    /// All that it wrote to stderr so far.
    pub(crate) fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// Its process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends it a signal, e.g. `-HUP`.
    pub(crate) fn signal(&self, signal: &str) {
        signal_process(self.child.id(), signal);
    }

    /// Waits until its log has a line with a text, and returns the line.
    #[track_caller]
    pub(crate) fn eventually_logs(&self, text: &str) -> String {
        let end = Instant::now() + DEADLINE;
        loop {
            let log = self.log();
            if let Some(line) = log.lines().find(|line| line.contains(text)) {
                return line.to_owned();
            }
            assert!(Instant::now() < end, "{text:?} was never logged: {log}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Asks it to stop, and says how it exited.
    pub(crate) fn stop(self) -> i32 {
        self.signal("-TERM");
        self.ended()
    }

    /// Waits for its end, and says how it exited.
    pub(crate) fn ended(mut self) -> i32 {
        let end = Instant::now() + DEADLINE;
        while Instant::now() < end {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code().expect("it ended by itself");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("it did not stop: {}", self.log());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sends a process a signal, e.g. `-HUP`.
pub(crate) fn signal_process(id: u32, signal: &str) {
    let sent = Command::new("kill")
        .args([signal, &id.to_string()])
        .status()
        .unwrap();
    assert!(sent.success(), "{signal} to {id}");
}

/// Whether a process runs. One that has ended and that nobody waits for does not.
pub(crate) fn is_running(id: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
    let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
    state.is_some_and(|state| state != 'Z')
}

pub(crate) fn trust_file(dir: &tempfile::TempDir) -> String {
    dir.path().join("trust/trust.toml").to_str().unwrap().to_owned()
}

/// A server with its folder, which trusts a signer of its own.
pub(crate) struct Server {
    pub(crate) process: Process,
    pub(crate) dir: tempfile::TempDir,
    /// Where agents connect.
    pub(crate) agents: String,
}

impl Server {
    /// A server on free ports.
    pub(crate) fn start(more: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let trust = dir.path().join("trust");
        run(&["trust", "init", trust.to_str().unwrap()]).exits(0);
        let process = Self::process(&dir, ("127.0.0.1:0", "127.0.0.1:0"), more);
        // The log's ready line names the agents' port, too.
        let end = Instant::now() + DEADLINE;
        let agents = loop {
            let log = process.log();
            let address = log.lines().find_map(|line| {
                let line: serde_json::Value = serde_json::from_str(line).ok()?;
                Some(line.get("agents")?.as_str()?.to_owned())
            });
            match address {
                Some(address) => break format!("https://{address}"),
                None => assert!(Instant::now() < end, "{log}"),
            }
            std::thread::sleep(Duration::from_millis(10));
        };
        let server = Self { process, dir, agents };
        server.log_in();
        server
    }

    /// The admin logs in; commands by [`Server::run`] are the admin's.
    fn log_in(&self) {
        let file = self.dir.path().join("password");
        std::fs::write(&file, PASSWORD).unwrap();
        self.run(&["login", "admin", "--password-file", file.to_str().unwrap()])
            .exits(0);
    }

    /// Where this server's users remember their logins.
    pub(crate) fn config_dir(&self) -> std::path::PathBuf {
        self.dir.path().join("config")
    }

    fn process(dir: &tempfile::TempDir, (http, agents): (&str, &str), more: &[&str]) -> Process {
        let data = dir.path().join("server");
        let trust = trust_file(dir);
        let mut args = vec![
            "server",
            "--data",
            data.to_str().unwrap(),
            "--http",
            http,
            "--agents",
            agents,
            "--no-rate-limit-on-loopback",
            "--trust",
            &trust,
        ];
        args.extend(more);
        Process::start(&args)
    }

    /// Kills it, as `kill -9` does.
    pub(crate) fn kill(&mut self) {
        self.process.child.kill().expect("it can be killed");
        self.process.child.wait().expect("it is waited for");
    }

    /// Starts a killed one again: same folder, same ports.
    pub(crate) fn restart(&mut self) {
        let http = self.process.url.trim_start_matches("http://").to_owned();
        let agents = self.agents.trim_start_matches("https://").to_owned();
        // Its environments are in its log.
        self.process = Self::process(&self.dir, (&http, &agents), &[]);
    }

    /// The file of a join token for an environment, made once.
    pub(crate) fn join_token(&self, environment: &str) -> String {
        let path = self.dir.path().join(format!("{environment}.token"));
        if !path.exists() {
            let made = self
                .run(&["node", "token", "create", "--env", environment, "--uses", "100"])
                .exits(0);
            std::fs::write(&path, made.stdout).unwrap();
        }
        path.to_str().unwrap().to_owned()
    }

    /// A node of it.
    pub(crate) fn agent(&self, node: &str, environment: &str) -> Process {
        let data = self.dir.path().join(node);
        Process::start(&[
            "agent",
            "--node",
            node,
            "--environment",
            environment,
            "--server",
            &self.agents,
            "--join-token-file",
            &self.join_token(environment),
            "--data",
            data.to_str().unwrap(),
            "--ingress",
            "127.0.0.1:0",
            "--label",
            "zone=a",
            "--trust",
            &trust_file(&self.dir),
        ])
    }

    /// Pushes a package or a folder, signed.
    pub(crate) fn push(&self, path: &str) -> Ran {
        let signer = self.dir.path().join("trust");
        self.run(&["module", "push", path, "--signer", signer.to_str().unwrap()])
    }

    /// Runs a client's command against it.
    pub(crate) fn run(&self, args: &[&str]) -> Ran {
        hotswap()
            .args(args)
            .args(["--server", &self.process.url])
            .env("HOTSWAP_CONFIG_DIR", self.config_dir())
            .output()
            .expect("the binary starts")
            .into()
    }

    /// Runs a command until its stdout has a text.
    #[track_caller]
    pub(crate) fn eventually(&self, args: &[&str], text: &str) {
        let end = Instant::now() + DEADLINE;
        loop {
            let ran = self.run(args).exits(0);
            if ran.stdout.contains(text) {
                return;
            }
            assert!(
                Instant::now() < end,
                "{text:?} never came: {}\n{}",
                ran.stdout,
                self.process.log()
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}
