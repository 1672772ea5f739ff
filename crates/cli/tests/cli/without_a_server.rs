//! What the command line does where no server is needed, or none is there.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::process::Stdio;

use crate::support::{example, hotswap, run};

#[test]
fn a_server_out_of_reach_is_told_with_a_next_step() {
    // Bound and dropped: nobody listens there.
    let port = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let url = format!("http://127.0.0.1:{port}");
    for command in [
        &["deployments"][..],
        &["clusters", "QA"],
        &["deploy", "a-module", "1.0.0", "--to", "QA"],
    ] {
        let ran = hotswap().args(command).args(["--server", &url]).output().unwrap();
        crate::support::Ran::from(ran).exits(3).says(&[
            &url,
            "hotswap server",
            "hotswap demo",
            "HOTSWAP_SERVER",
        ]);
    }
    let ran = hotswap()
        .env("HOTSWAP_SERVER", &url)
        .arg("nodes")
        .output()
        .unwrap();
    crate::support::Ran::from(ran).exits(3).says(&[&url]);
}

#[test]
fn usage_errors_exit_2_and_say_what_was_meant() {
    run(&["deploymnts"]).exits(2).says(&["deployments"]);
    run(&["deploy", "x"]).exits(2).says(&["--to <ENV>"]);
    run(&["nodes", "-o", "yaml"]).exits(2).says(&["table or json"]);
    run(&["nodes", "--server", "127.0.0.1:5000"])
        .exits(2)
        .says(&["http://"]);
    run(&["nodes", "--server", "ftp://127.0.0.1:5000"])
        .exits(2)
        .says(&["https://"]);
    run(&["status", "not-an-id"])
        .exits(2)
        .says(&["hotswap deployments"]);
    run(&["demo", "--exit", "--idle"]).exits(2);
}

#[test]
fn every_command_explains_itself_with_an_example() {
    let help = run(&["--help"])
        .exits(0)
        .shows(&["Exit codes", "HOTSWAP_SERVER"])
        .stdout;
    let commands = commands_of(&help);
    assert!(
        commands.contains(&"deploy") && commands.contains(&"demo"),
        "{commands:?}"
    );
    for command in commands {
        explains_itself(&[command]);
    }
}

/// The commands that a page of help lists.
fn commands_of(help: &str) -> Vec<&str> {
    let listed = help.lines().skip_while(|line| !line.starts_with("Commands:"));
    // A command is set in by two blanks, what continues its explanation by more.
    let listed = listed.skip(1).take_while(|line| !line.is_empty());
    listed
        .filter_map(|line| line.strip_prefix("  "))
        .filter(|line| !line.starts_with(' '))
        .filter_map(|line| line.split_whitespace().next())
        .filter(|command| *command != "help")
        .collect()
}

/// Those whose examples are their own commands'.
const GROUPS: [&str; 8] = [
    "module", "trust", "config", "context", "user", "token", "key", "audit",
];

/// Whether a command tells an example, or, of a group, each of its own commands does.
fn explains_itself(path: &[&str]) {
    let help = hotswap().args(path).arg("--help").output().unwrap();
    let help = crate::support::Ran::from(help).exits(0);
    let text = help.stdout.clone();
    if !matches!(path, [group] if GROUPS.contains(group)) {
        help.shows(&["Examples:", "hotswap"]);
    }
    for command in commands_of(&text) {
        explains_itself(&[path, &[command]].concat());
    }
}

#[test]
fn a_folder_is_packed_into_equal_bytes_each_time() {
    let dir = tempfile::tempdir().unwrap();
    let folder = example("payment-processor", "2.0.0");
    let pack = |name: &str| {
        let file = dir.path().join(name);
        run(&[
            "module",
            "pack",
            folder.to_str().unwrap(),
            "-o",
            file.to_str().unwrap(),
        ])
        .exits(0)
        .shows(&["payment-processor 2.0.0", "sha256:"]);
        std::fs::read(file).unwrap()
    };
    assert_eq!(pack("one.hsm"), pack("two.hsm"));
    let ran = hotswap()
        .args(["module", "pack", "-o", "json"])
        .arg(&folder)
        .current_dir(dir.path())
        .output()
        .unwrap();
    let ran = crate::support::Ran::from(ran).exits(0);
    assert_eq!(ran.json()["file"], "payment-processor-2.0.0.hsm");
    assert_eq!(
        std::fs::read(dir.path().join("payment-processor-2.0.0.hsm")).unwrap(),
        pack("three.hsm")
    );
}

#[test]
fn what_can_not_be_packed_or_pushed_is_told_before_any_server_is_asked() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    run(&["module", "pack", &path("")])
        .exits(2)
        .says(&["module.toml"]);
    std::fs::write(
        dir.path().join("module.toml"),
        "name = 'X'\nversion = 'one'\nentry = 'x.wasm'\n",
    )
    .unwrap();
    run(&["module", "pack", &path("")])
        .exits(2)
        .says(&["name", "version"]);
    std::fs::write(dir.path().join("broken.hsm"), [7; 4096]).unwrap();
    run(&["module", "push", &path("broken.hsm")])
        .exits(2)
        .says(&["not a package"]);
    run(&["module", "push", &path("absent.hsm")])
        .exits(2)
        .says(&["absent.hsm", "module pack"]);
}

/// Answers every request with the same bytes.
fn double(answer: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut request = [0; 4096];
            // One read: the requests of these tests are small.
            if stream.read(&mut request).is_ok() {
                drop(stream.write_all(answer.as_bytes()));
            }
        }
    });
    url
}

#[test]
fn something_else_at_the_address_is_recognised() {
    let url = double("HTTP/1.1 200 OK\r\ncontent-length: 6\r\nconnection: close\r\n\r\n<html>");
    run(&["nodes", "--server", &url])
        .exits(1)
        .says(&["is it a hotswap server?"]);
    let url = double("HTTP/1.1 404 Not Found\r\ncontent-length: 4\r\nconnection: close\r\n\r\nnope");
    run(&["nodes", "--server", &url]).exits(2).says(&["404", "nope"]);
    let url = double("HTTP/1.1 200 OK\r\ncontent-length: 100\r\nconnection: close\r\n\r\n[");
    run(&["nodes", "--server", &url]).exits(3).says(&["broke"]);
}

#[test]
fn a_limit_and_a_fault_of_the_server_are_told_apart() {
    let body = r#"{"error":"too many requests","traceId":"abc"}"#;
    let answer = format!(
        "HTTP/1.1 429 Too Many Requests\r\nretry-after: 7\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    );
    run(&["nodes", "--server", &double(answer.leak())])
        .exits(1)
        .says(&["too many requests", "7 s"]);
    let body = r#"{"error":"internal error","traceId":"0af7"}"#;
    let answer = format!(
        "HTTP/1.1 500 Internal Server Error\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    );
    run(&["nodes", "--server", &double(answer.leak())])
        .exits(1)
        .says(&["internal error", "0af7"]);
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let row = r#"{"executionId":"3f2a0000-0000-4000-8000-000000000000","moduleName":"m","version":"1.0.0","targetEnvironment":"QA","status":"Running","startTime":"2026-01-01T00:00:00Z","duration":"PT1S"}"#;
    let body = format!("[{}]", vec![row; 900].join(","));
    let answer = format!(
        "HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    );
    let url = double(answer.leak());
    let mut child = hotswap()
        .args(["deployments", "--limit", "1000", "--server", &url])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // Closed before anything is written, as `| true` does.
    drop(child.stdout.take());
    let ran = child.wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&ran.stderr), "");
    assert_eq!(ran.status.code(), Some(0));
}

#[test]
fn a_configuration_is_written_checked_and_shown() {
    let dir = tempfile::tempdir().unwrap();
    let ran = |args: &[&str]| -> crate::support::Ran {
        hotswap()
            .args(args)
            .current_dir(dir.path())
            .output()
            .unwrap()
            .into()
    };
    ran(&["init"])
        .exits(0)
        .shows(&["hotswap.toml", "hotswap config check"]);
    ran(&["init"]).exits(2).says(&["is there already"]);
    ran(&["config", "check"])
        .exits(0)
        .shows(&["hotswap.toml: no faults, 0 values"]);
    std::fs::write(
        dir.path().join("hotswap.toml"),
        "[server]\nhttp = \"127.0.0.1:1\"\n[log]\nfilter = \"info,,=x\"\n",
    )
    .unwrap();
    ran(&["config", "check"])
        .exits(2)
        .says(&["log.filter", "info,hotswap_agent=debug"]);
    std::fs::write(
        dir.path().join("other.toml"),
        "[server]\nhtpp = \"127.0.0.1:1\"\n",
    )
    .unwrap();
    ran(&["config", "check", "other.toml"]).exits(2).says(&[
        "a fault",
        "server.htpp (other.toml:2)",
        "did you mean http?",
    ]);
    // A server tells the same before it touches anything.
    ran(&["server", "--config", "other.toml"])
        .exits(2)
        .says(&["server.htpp (other.toml:2)"]);
    ran(&["config", "show", "--config", "absent.toml"])
        .exits(2)
        .says(&["absent.toml can't be read"]);
    std::fs::write(
        dir.path().join("other.toml"),
        "[server]\nhttp = \"127.0.0.1:1\"\n",
    )
    .unwrap();
    let shown = ran(&[
        "config",
        "show",
        "--config",
        "other.toml",
        "--set",
        "server.heartbeat=1s",
        "--changed",
        "-o",
        "json",
    ])
    .exits(0)
    .json();
    assert_eq!(
        shown,
        serde_json::json!([
            { "key": "server.http", "value": "127.0.0.1:1", "origin": "other.toml:2" },
            { "key": "server.heartbeat", "value": "1s", "origin": "--set" },
        ])
    );
    let schema = ran(&["config", "schema"]).exits(0).json();
    assert_eq!(schema["properties"]["server"]["additionalProperties"], false);
    // Without the folder's file: its filter is faulty.
    ran(&["agent", "--config", "other.toml"]).exits(2).says(&[
        "agent.node is missing",
        "--node",
        "HOTSWAP_AGENT_NODE",
    ]);
}

#[test]
fn completions_and_manuals_are_made_of_the_same_words() {
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        run(&["completions", shell]).exits(0).shows(&["undrain"]);
    }
    run(&["completions", "tcsh"]).exits(2).says(&["possible values"]);
    let dir = tempfile::tempdir().unwrap();
    run(&["man", dir.path().to_str().unwrap()]).exits(0);
    for page in ["hotswap.1", "hotswap-deploy.1", "hotswap-nodes-drain.1"] {
        let page = std::fs::read_to_string(dir.path().join(page)).unwrap();
        assert!(page.contains(".TH"), "{page}");
    }
}
