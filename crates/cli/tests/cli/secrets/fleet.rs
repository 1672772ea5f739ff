//! A server over HTTPS and agents over mutual TLS, each of which writes all that it says into files.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Instant;

use tempfile::TempDir;

use super::sink::Sink;
use crate::fleet::{DEADLINE, signal_process};
use crate::support::{Ran, hotswap};

/// Short, so that a certificate is renewed within the run.
const CERTIFICATE_LIFETIME: &str = "6s";

/// A process whose output is kept whole.
pub(super) struct Logged {
    child: Child,
    out: PathBuf,
    log: PathBuf,
}

impl Logged {
    pub(super) fn start(command: &mut Command, logs: &Path, name: &str) -> Self {
        let (out, log) = (
            logs.join(format!("{name}.stdout")),
            logs.join(format!("{name}.stderr")),
        );
        let child = command
            .env("HOTSWAP_LOG", "trace")
            .stdout(File::create(&out).unwrap())
            .stderr(File::create(&log).unwrap())
            .spawn()
            .expect("the binary starts");
        Self { child, out, log }
    }

    /// Waits until it says where it is to be reached.
    #[track_caller]
    pub(super) fn url(&mut self) -> String {
        let out = self.out.clone();
        let line = self.eventually(&out, "ready: ");
        line.trim_start_matches("ready: ").to_owned()
    }

    /// Waits until its log has a line with a text, and returns the line.
    #[track_caller]
    pub(super) fn eventually_logs(&mut self, text: &str) -> String {
        let log = self.log.clone();
        self.eventually(&log, text)
    }

    /// As [`Logged::eventually_logs`], of a field of a line.
    #[track_caller]
    pub(super) fn field(&mut self, text: &str, field: &str) -> String {
        let line = self.eventually_logs(text);
        let line: serde_json::Value = serde_json::from_str(&line).unwrap();
        line[field].as_str().unwrap().to_owned()
    }

    #[track_caller]
    fn eventually(&mut self, file: &Path, text: &str) -> String {
        let end = Instant::now() + DEADLINE;
        loop {
            let said = std::fs::read(file).unwrap();
            let said = String::from_utf8_lossy(&said);
            // A line that is being written is not looked at.
            let whole = said.rsplit_once('\n').map_or("", |(whole, _)| whole);
            if let Some(line) = whole.lines().find(|line| line.contains(text)) {
                return line.to_owned();
            }
            let ended = self.child.try_wait().unwrap();
            assert!(
                Instant::now() < end && ended.is_none(),
                "{text:?} is not in {} ({ended:?})",
                file.display()
            );
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
    }

    /// Asks it to stop, which it does in order.
    #[track_caller]
    pub(super) fn stop(mut self) {
        signal_process(self.child.id(), "-TERM");
        let end = Instant::now() + DEADLINE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                assert!(status.success(), "{status}: {}", self.log.display());
                return;
            }
            assert!(Instant::now() < end, "it did not stop: {}", self.log.display());
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }
}

impl Drop for Logged {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The server, its folders, and where it sends what.
pub(super) struct Fleet {
    pub(super) dir: TempDir,
    pub(super) server: Logged,
    pub(super) url: String,
    pub(super) agents: String,
    pub(super) webhooks: Sink,
    pub(super) spans: Sink,
    /// What each command said, and which command.
    pub(super) said: Vec<(String, String)>,
}

impl Fleet {
    /// Starts a server by what operators give it: a first password, a webhook and what it is signed with.
    pub(super) fn start(password: &str, webhook: &str, webhook_secret: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        for folder in ["given", "said", "agents"] {
            std::fs::create_dir(dir.path().join(folder)).unwrap();
        }
        let given = dir.path().join("given");
        let trust = given.join("trust");
        Ran::from(hotswap().args(["trust", "init"]).arg(&trust).output().unwrap()).exits(0);
        std::fs::write(given.join("webhook"), webhook_secret).unwrap();
        let (webhooks, spans) = (Sink::start(), Sink::start());
        let mut command = hotswap();
        command
            .env("HOTSWAP_ADMIN_PASSWORD", password)
            .env(
                "HOTSWAP_SERVER_WEBHOOKS",
                format!("http://{}{webhook}", webhooks.address),
            )
            .args(["server", "--tls", "--http=127.0.0.1:0", "--agents=127.0.0.1:0"])
            .args([
                "--no-rate-limit-on-loopback",
                "--node-certificate-lifetime",
                CERTIFICATE_LIFETIME,
            ])
            .arg(format!("--otlp=http://{}", spans.address))
            .arg(format!("--data={}", dir.path().join("server").display()))
            .arg(format!("--trust={}", trust.join("trust.toml").display()))
            .arg(format!(
                "--webhook-secret-file={}",
                given.join("webhook").display()
            ));
        let mut server = Logged::start(&mut command, &dir.path().join("said"), "server");
        let url = server.url();
        let agents = format!("https://{}", server.field("\"agents\":", "agents"));
        let said = Vec::new();
        Self {
            dir,
            server,
            url,
            agents,
            webhooks,
            spans,
            said,
        }
    }

    pub(super) fn path(&self, path: &str) -> PathBuf {
        self.dir.path().join(path)
    }

    /// A file of what operators give.
    pub(super) fn give(&self, name: &str, text: &str) -> String {
        let path = self.path("given").join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// Runs a command of a user's, who has a folder of that name.
    pub(super) fn run_as(&mut self, user: &str, variables: &[(&str, &str)], args: &[&str]) -> Ran {
        let output = hotswap()
            .args(args)
            .args(["--server", &self.url])
            .env("HOTSWAP_CONFIG_DIR", self.path(user))
            .env("HOTSWAP_CA", self.path("server/ca/authority.pem"))
            .env("HOTSWAP_LOG", "trace")
            .envs(variables.iter().copied())
            .output()
            .expect("the binary starts");
        let ran = Ran::from(output);
        let words: Vec<&str> = args
            .iter()
            .copied()
            .take_while(|word| !word.starts_with('-'))
            .collect();
        let said = format!("{}{}", ran.stdout, ran.stderr);
        self.said.push((words.join(" "), said));
        ran
    }

    /// Runs a command of the admin's.
    pub(super) fn run(&mut self, args: &[&str]) -> Ran {
        self.run_as("admin", &[], args)
    }

    /// An agent's command, which has no token yet, with the secrets of modules.
    pub(super) fn agent(&self, node: &str) -> Command {
        let mut command = hotswap();
        command
            .env("MODULE_SECRET_COUNTER__API", super::VARIABLE_SECRET)
            .args([
                "agent",
                "--node",
                node,
                "--environment=Development",
                "--ingress=127.0.0.1:0",
            ])
            .args(["--metrics=127.0.0.1:0", "--sample=100", "--server", &self.agents])
            .arg(format!("--data={}", self.path("agents").join(node).display()))
            .arg(format!(
                "--trust={}",
                self.path("given/trust/trust.toml").display()
            ))
            .arg(format!("--otlp=http://{}", self.spans.address))
            .arg(format!(
                "--set=agent.secrets={}",
                self.path("given/secrets").display()
            ));
        command
    }

    /// Starts an agent; its output is kept under its node's name.
    pub(super) fn start_agent(&self, node: &str, command: &mut Command) -> Logged {
        Logged::start(command, &self.path("said"), node)
    }
}
