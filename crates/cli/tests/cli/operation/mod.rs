//! What an operator does to servers and agents that are in use.

mod backup;
mod certificates;
pub(crate) mod customers;
mod reload;
mod service;
mod takeover;

/// Two nodes at once in one environment, with short times.
const ENVIRONMENTS: &str = "\
[[environments]]
name = \"Production\"
strategy = { type = \"Direct\" }
[environments.policy]
settle = \"300ms\"
step-deadline = \"60s\"
silence-max = \"30s\"
max-unavailable = 2
soak-min = \"500ms\"
";

/// A configuration file with those environments.
fn configuration(more: &str) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::with_suffix(".toml").unwrap();
    std::fs::write(file.path(), format!("{more}{ENVIRONMENTS}")).unwrap();
    file
}

const VERSIONS: [&str; 2] = ["2.0.0", "2.1.0"];

fn push(server: &crate::fleet::Server) {
    for version in VERSIONS {
        let folder = crate::support::example("payment-processor", version);
        server.push(folder.to_str().unwrap()).exits(0);
    }
}

/// Deploys to the end, and returns the deployment's id.
fn deploy(server: &crate::fleet::Server, version: &str) -> String {
    let ran = server.run(&[
        "deploy",
        "payment-processor",
        version,
        "--to",
        "Production",
        "--email",
        "a@b.example",
        "--allow-downgrade",
        "-o",
        "json",
    ]);
    let id = ran.exits(0).json()["executionId"].as_str().unwrap().to_owned();
    server.run(&["status", &id, "--watch"]).exits(0);
    id
}
