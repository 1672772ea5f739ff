//! Schemathesis against a running server: requests made of the API's own document.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result, bail};

use crate::run::{self, cargo, root};

/// Where schemathesis is, if not in PATH.
const VARIABLE: &str = "SCHEMATHESIS";

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

/// Runs it, or says that it is left out.
pub(crate) fn run(args: &Args) -> Result<()> {
    let program = std::env::var(VARIABLE).unwrap_or_else(|_| "schemathesis".to_owned());
    if !run::there_is(&program, &["--version"]) {
        println!(
            "left out: schemathesis is not installed (pip install schemathesis), so the API is not fuzzed; \
             {VARIABLE}=PROGRAM says where it is"
        );
        return Ok(());
    }
    run::run(cargo().args(["build", "--release", "--locked", "--package", "hotswap"]))?;
    let dir = std::env::temp_dir().join(format!("hotswap-api-fuzz-{}", std::process::id()));
    let fuzzed = fuzz(&program, args, &dir);
    // What is left of it is only a temporary folder.
    drop(std::fs::remove_dir_all(&dir));
    fuzzed
}

fn fuzz(program: &str, args: &Args, dir: &std::path::Path) -> Result<()> {
    let binary = root().join("target/release/hotswap");
    let server = start(&binary, dir)?;
    for version in ["2.0.0", "2.1.0"] {
        let module = root().join("modules/payment-processor").join(version);
        run::run(
            Command::new(&binary)
                .args(["--server", &server.url, "module", "push"])
                .arg(module),
        )?;
    }
    run::run(Command::new(program).args([
        "run",
        &format!("{}/openapi.json", server.url),
        "--url",
        &server.url,
        "--max-examples",
        &args.examples.to_string(),
        "--seed",
        &args.seed.to_string(),
        "--workers",
        "2",
        // Streams have no end.
        "--exclude-path-regex",
        "/events$",
        "--checks",
        "not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,\
         response_schema_conformance",
    ]))
}

fn start(binary: &std::path::Path, dir: &std::path::Path) -> Result<Server> {
    let mut child = Command::new(binary)
        .arg("server")
        .arg("--data")
        .arg(dir)
        .args(["--http", "127.0.0.1:0", "--agents", "127.0.0.1:0"])
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
