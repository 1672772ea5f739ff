//! Schemathesis against a running server: requests made of the API's own document.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result, bail};

use crate::check::programs;
use crate::run::{self, root};

/// Where schemathesis is, if not in PATH.
const VARIABLE: &str = "SCHEMATHESIS";

/// What is installed where it isn't there: the version whose options are these.
const PACKAGE: &str = "schemathesis>=4.32,<5";
/// The admin's password, of a server that lives as long as this.
const PASSWORD: &str = "correct horse battery";

/// Streams, which have no end, and what would end the fuzzer's own token: the rest would only be turned away.
const LEFT_OUT: &str = "(/events|/reset-password|/password|/logout|/tokens/.id.)$";
/// Names that are there, for the run that gets beyond "there is no such".
const KNOWN: &str = "[parameters]\n\"path.name\" = \"payment-processor\"\n\"path.version\" = \"2.1.0\"\n\
                     \"path.environment\" = \"Production\"\n\"path.username\" = \"grace\"\n";

/// Options of `cargo xtask api-fuzz`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Requests for each operation and phase, at most.
    #[arg(long, default_value_t = 50)]
    examples: u32,
    /// Seed of what is drawn.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// A server that ends with its owner.
struct Server {
    child: Child,
    url: String,
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Runs it. What isn't installed is installed beside the build.
pub(crate) fn run(args: &Args) -> Result<()> {
    let program = program()?;
    programs(&["hotswap"])?;
    let dir = std::env::temp_dir().join(format!("hotswap-api-fuzz-{}", std::process::id()));
    let fuzzed = fuzz(&program, args, &dir);
    // What is left of it is only a temporary folder.
    drop(std::fs::remove_dir_all(&dir));
    fuzzed
}

/// The one that the variable or PATH names, else one of its own under `target`.
fn program() -> Result<String> {
    let named = std::env::var(VARIABLE).unwrap_or_else(|_| "schemathesis".to_owned());
    if run::there_is(&named, &["--version"]) {
        return Ok(named);
    }
    let venv = root().join("target/fuzz-venv");
    let own = venv.join("bin/schemathesis").display().to_string();
    if !run::there_is(&own, &["--version"]) {
        run::run(Command::new("python3").args(["-m", "venv"]).arg(&venv))?;
        run::run(Command::new(venv.join("bin/pip")).args(["install", "--quiet", PACKAGE]))?;
    }
    Ok(own)
}

fn fuzz(program: &str, args: &Args, dir: &Path) -> Result<()> {
    let binary = root().join("target/release/hotswap");
    std::fs::create_dir_all(dir)?;
    let server = start(&binary, dir)?;
    let admin = Admin {
        binary: &binary,
        url: &server.url,
        dir,
    };
    let password = dir.join("password");
    std::fs::write(&password, PASSWORD)?;
    admin.run(&[
        "login",
        "admin",
        "--password-file",
        &password.display().to_string(),
    ])?;
    for version in ["2.0.0", "2.1.0"] {
        let module = root().join("modules/payment-processor").join(version);
        admin.run(&["module", "push", &module.display().to_string()])?;
    }
    let grace = [
        "user",
        "add",
        "grace",
        "--email",
        "grace@example.com",
        "--role",
        "Viewer",
    ];
    admin.run(&grace)?;
    // A token, since its owner's logins may be ended by what is drawn.
    let token = admin.run(&["token", "create", "fuzz", "--role", "Admin"])?;
    let known = dir.join("known.toml");
    std::fs::write(&known, KNOWN)?;
    // Once with whatever names are drawn, and once with those that there are.
    for config in [None, Some(&known)] {
        let config = config.map(|file| ["--config-file".to_owned(), file.display().to_string()]);
        // It leaves a folder where it runs.
        let mut fuzzer = Command::new(program);
        fuzzer.current_dir(dir).args(config.into_iter().flatten()).args([
            "run",
            &format!("{}/openapi.json", server.url),
            "--url",
            &server.url,
            "--header",
            &format!("Authorization: Bearer {}", token.trim()),
            "--max-examples",
            &args.examples.to_string(),
            "--seed",
            &args.seed.to_string(),
            "--workers",
            "2",
            "--exclude-path-regex",
            LEFT_OUT,
            "--checks",
            "not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,\
             response_schema_conformance",
            "--phases",
            "examples,coverage,fuzzing",
            "--continue-on-failure",
        ]);
        run::run(&mut fuzzer)?;
    }
    Ok(())
}

/// Whoever sets the server up for it.
struct Admin<'a> {
    binary: &'a Path,
    url: &'a str,
    dir: &'a Path,
}

impl Admin<'_> {
    fn run(&self, args: &[&str]) -> Result<String> {
        let ran = Command::new(self.binary)
            .args(args)
            .args(["--server", self.url])
            .env("HOTSWAP_CONFIG_DIR", self.dir.join("config"))
            .output()?;
        if !ran.status.success() {
            bail!(
                "hotswap {}: {}",
                args.join(" "),
                String::from_utf8_lossy(&ran.stderr)
            );
        }
        Ok(String::from_utf8_lossy(&ran.stdout).into_owned())
    }
}

fn start(binary: &Path, dir: &Path) -> Result<Server> {
    let mut child = Command::new(binary)
        .arg("server")
        .arg("--data")
        .arg(dir.join("data"))
        .args(["--http", "127.0.0.1:0", "--agents", "127.0.0.1:0"])
        .args(["--allow-unsigned", "--no-rate-limit-on-loopback"])
        .env("HOTSWAP_ADMIN_PASSWORD", PASSWORD)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .with_context(|| format!("failed to start {}", binary.display()))?;
    let stdout = child.stdout.take().context("its output is piped")?;
    let mut server = Server {
        child,
        url: String::new(),
    };
    let mut line = String::new();
    BufReader::new(stdout).read_line(&mut line)?;
    match line.trim().strip_prefix("ready: ") {
        Some(url) => url.clone_into(&mut server.url),
        None => bail!("the server did not become ready: {line:?}"),
    }
    Ok(server)
}
