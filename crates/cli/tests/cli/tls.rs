//! Commands and servers that speak HTTPS.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use hotswap_transport::{Authority, Fingerprint};
use tempfile::TempDir;

use crate::fleet::Process;
use crate::support::{PASSWORD, Ran, hotswap};

/// How long certificates of tests hold.
const DAY: Duration = Duration::from_secs(86_400);

/// A server, its folder, and a user of it.
struct Secure {
    process: Process,
    dir: TempDir,
}

impl Secure {
    fn start(more: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("password"), PASSWORD).unwrap();
        let process = serve(&dir, "127.0.0.1:0", more);
        Self { process, dir }
    }

    fn authority(&self) -> String {
        text(&self.dir.path().join("server/ca/authority.pem"))
    }

    /// Runs a client's command against it, with what this user's earlier ones remember.
    fn run(&self, args: &[&str]) -> Ran {
        self.run_with(&[], args)
    }

    fn run_with(&self, environment: &[(&str, &str)], args: &[&str]) -> Ran {
        let mut command = hotswap();
        command.args(args);
        if !args.contains(&"--server") {
            command.args(["--server", &self.process.url]);
        }
        command.env("HOTSWAP_CONFIG_DIR", self.dir.path().join("config"));
        command.envs(environment.iter().copied());
        command.output().expect("the binary starts").into()
    }

    fn log_in(&self, more: &[&str]) -> Ran {
        let password = text(&self.dir.path().join("password"));
        let mut args = vec!["login", "admin", "--password-file", &password];
        args.extend(more);
        self.run(&args)
    }
}

fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

fn serve(dir: &TempDir, http: &str, more: &[&str]) -> Process {
    Process::start_command(command(dir, http).args(more))
}

fn command(dir: &TempDir, http: &str) -> std::process::Command {
    let mut command = hotswap();
    command.args(["server", "--data", &text(&dir.path().join("server"))]);
    command.args(["--http", http, "--agents", "127.0.0.1:0", "--allow-unsigned"]);
    command
}

/// An authority of the operator's, with a server's certificate in files.
struct Operator {
    dir: TempDir,
    authority: Authority,
}

impl Operator {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::open_or_create(&dir.path().join("ca"), SystemTime::now()).unwrap();
        let operator = Self { dir, authority };
        operator.issue();
        operator
    }

    fn issue(&self) {
        let names = ["127.0.0.1".to_owned()];
        let issued = self
            .authority
            .issue_server(&names, DAY, SystemTime::now())
            .unwrap();
        std::fs::write(self.certificate(), &issued.chain_pem).unwrap();
        std::fs::write(self.key(), issued.key_pem.as_ref().unwrap().as_str()).unwrap();
    }

    fn certificate(&self) -> PathBuf {
        self.dir.path().join("api.pem")
    }

    fn key(&self) -> PathBuf {
        self.dir.path().join("api.key")
    }

    fn ca(&self) -> String {
        text(&self.dir.path().join("ca/authority.pem"))
    }
}

#[test]
fn a_client_trusts_the_fleets_authority_once_it_is_told_and_remembers_it() {
    let server = Secure::start(&["--tls"]);
    assert!(
        server.process.url.starts_with("https://127.0.0.1:"),
        "{}",
        server.process.url
    );
    let ca = server.authority();

    // Nobody was told yet: which certificate, and what to do.
    let fingerprint = {
        let pem = std::fs::read_to_string(&ca).unwrap();
        Fingerprint::of(&hotswap_transport::certificates(&pem).unwrap()[0]).to_string()
    };
    server.log_in(&[]).exits(3).says(&[
        "is not trusted",
        "an authority that isn't known here",
        "SHA-256 fingerprint",
        &fingerprint,
        "next: ",
        "--ca FILE",
    ]);
    server
        .log_in(&["--ca", &ca])
        .exits(0)
        .shows(&["logged in at https://"]);
    server.run(&["whoami"]).exits(0).shows(&["admin"]);
    server
        .run(&["context", "list"])
        .exits(0)
        .shows(&["https://", "its own authority"]);
    let listed = server.run(&["context", "list", "-o", "json"]).exits(0).json();
    assert_eq!(listed[0]["ownAuthority"], true, "{listed}");
    server.run(&["clusters"]).exits(0).shows(&["Production"]);

    // What is said goes before what is remembered, by flag and by variable.
    let other = Operator::new();
    server
        .run(&["whoami", "--ca", &other.ca()])
        .exits(3)
        .says(&["is not trusted"]);
    server.run(&["whoami", "--ca", "system"]).exits(3);
    server
        .run_with(&[("HOTSWAP_CA", &other.ca())], &["whoami"])
        .exits(3)
        .says(&["is not trusted"]);
    server
        .run_with(&[("HOTSWAP_CA", &other.ca())], &["whoami", "--ca", &ca])
        .exits(0);
    server
        .run(&["whoami", "--ca", "/nonexistent/ca.pem"])
        .exits(2)
        .says(&["can't be read", "in PEM"]);
    let no_certificate = text(&server.dir.path().join("password"));
    server
        .run(&["whoami", "--ca", &no_certificate])
        .exits(2)
        .says(&["no certificate in PEM"]);

    // A context is told anew.
    let set = |ca: &str| server.run(&["context", "set", "here", "--ca", ca]).exits(0);
    set("system");
    server.run(&["whoami"]).exits(3);
    set(&ca);
    server.run(&["whoami"]).exits(0);

    let doctor = server.run(&[
        "doctor",
        "-o",
        "json",
        "--set",
        &format!("server.data={}", server.dir.path().join("server").display()),
    ]);
    let findings = doctor.json();
    for what in ["server", "server's certificate", "fleet's authority"] {
        let finding = findings
            .as_array()
            .unwrap()
            .iter()
            .find(|finding| finding["check"] == what);
        let finding = finding.unwrap_or_else(|| panic!("{what}: {findings:#}"));
        assert_eq!(finding["level"], "ok", "{finding}");
        if what != "server" {
            let found = finding["found"].as_str().unwrap();
            assert!(found.contains("SHA-256 ") && found.contains("ends 20"), "{found}");
        }
    }
}

#[test]
fn a_first_start_says_how_clients_trust_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = command(&dir, "127.0.0.1:0");
    command
        .arg("--tls")
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::null());
    let mut child = command.spawn().unwrap();
    let out = std::io::BufReader::new(child.stdout.take().unwrap());
    let lines: Vec<String> = std::io::BufRead::lines(out)
        .map_while(Result::ok)
        .take(4)
        .collect();
    child.kill().unwrap();
    child.wait().unwrap();
    let said = lines.join("\n");
    let file = text(&dir.path().join("server/ca/authority.pem"));
    assert!(lines[0].starts_with("ready: https://127.0.0.1:"), "{said}");
    assert!(
        lines[1].contains(&file) && lines[1].contains("SHA-256 "),
        "{said}"
    );
    assert!(
        lines[2].contains("--ca FILE") && lines[2].contains("HOTSWAP_CA"),
        "{said}"
    );
    assert!(
        lines[3].starts_with("log in with: hotswap login admin --server https://"),
        "{said}"
    );
    assert!(lines[3].ends_with(&format!("--ca {file}")), "{said}");
}

#[test]
fn who_speaks_the_other_scheme_is_told_so() {
    let server = Secure::start(&["--tls"]);
    let plain = server.process.url.replace("https:", "http:");
    server
        .run(&["clusters", "--server", &plain])
        .exits(2)
        .says(&["speaks HTTPS", "https://"]);
    let plain = Secure::start(&[]);
    assert!(plain.process.url.starts_with("http://"));
    let secure = plain.process.url.replace("http:", "https:");
    let ca = server.authority();
    plain
        .run(&["clusters", "--server", &secure, "--ca", &ca])
        .exits(3)
        .says(&["doesn't speak HTTPS", "http://"]);
}

#[test]
fn plain_http_beyond_loopback_and_half_a_pair_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let refused =
        |http: &str, more: &[&str]| -> Ran { command(&dir, http).args(more).output().unwrap().into() };
    refused("0.0.0.0:0", &["--tls=off"])
        .exits(2)
        .says(&["plain HTTP at 0.0.0.0:0", "--insecure-http"]);
    let operator = Operator::new();
    let (certificate, key) = (text(&operator.certificate()), text(&operator.key()));
    refused("127.0.0.1:0", &["--tls-certificate", &certificate])
        .exits(2)
        .says(&["without its key", "--tls-key"]);
    refused("127.0.0.1:0", &["--tls-key", &key])
        .exits(2)
        .says(&["without its certificate"]);
    refused(
        "127.0.0.1:0",
        &["--tls=off", "--tls-key", &key, "--tls-certificate", &certificate],
    )
    .exits(2)
    .says(&["server.tls.mode is off"]);
    std::fs::write(operator.key(), "no key").unwrap();
    refused(
        "127.0.0.1:0",
        &["--tls-key", &key, "--tls-certificate", &certificate],
    )
    .exits(1)
    .says(&[&key, "no private key in PEM"]);
}

#[test]
fn a_certificate_is_exchanged_on_hangup_and_a_broken_one_is_refused() {
    let operator = Operator::new();
    let (certificate, key) = (text(&operator.certificate()), text(&operator.key()));
    let server = Secure::start(&["--tls-certificate", &certificate, "--tls-key", &key]);
    server.log_in(&["--ca", &operator.ca()]).exits(0);

    let good = std::fs::read_to_string(operator.key()).unwrap();
    std::fs::write(operator.key(), "no key").unwrap();
    server.process.signal("-HUP");
    let line = server
        .process
        .eventually_logs("certificate was refused: the old one stays");
    assert!(line.contains("no private key in PEM"), "{line}");
    server.run(&["whoami"]).exits(0);

    std::fs::write(operator.key(), good).unwrap();
    operator.issue();
    server.process.signal("-HUP");
    server
        .process
        .eventually_logs("the API shows another certificate from now on");
    server.run(&["whoami"]).exits(0);
    assert_eq!(server.process.stop(), 0);
}
