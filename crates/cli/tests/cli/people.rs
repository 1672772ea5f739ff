//! Logins, contexts, users, tokens, approvals and the audit log, by the command line.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use crate::fleet::Server;
use crate::support::{PASSWORD, Ran, example, hotswap};

/// A command of somebody with a folder of their own.
fn run_in(folder: &Path, server: &Server, args: &[&str]) -> Ran {
    hotswap()
        .args(args)
        .args(["--server", &server.process.url])
        .env("HOTSWAP_CONFIG_DIR", folder)
        .output()
        .expect("the binary starts")
        .into()
}

/// A user with this role, logged in: the folder that remembers it.
fn person(server: &Server, username: &str, role: &str) -> std::path::PathBuf {
    let email = format!("{username}@example.com");
    let made = server
        .run(&[
            "user", "add", username, "--email", &email, "--role", role, "-o", "json",
        ])
        .exits(0)
        .json();
    let folder = server.dir.path().join(username);
    std::fs::create_dir(&folder).unwrap();
    let (first, new) = (folder.join("first"), folder.join("new"));
    std::fs::write(&first, made["oneTimePassword"].as_str().unwrap()).unwrap();
    std::fs::write(&new, format!("{PASSWORD}\n")).unwrap();
    let login = ["login", username, "--password-file", first.to_str().unwrap()];
    run_in(&folder, server, &login)
        .exits(2)
        .says(&["--new-password-file"]);
    let mut login = login.to_vec();
    login.extend(["--new-password-file", new.to_str().unwrap()]);
    run_in(&folder, server, &login)
        .exits(0)
        .shows(&[&format!("as {username}, {role}")]);
    folder
}

#[test]
fn who_is_not_logged_in_is_told_how_and_who_is_is_remembered_alone() {
    let server = Server::start(&[]);
    let folder = server.dir.path().join("nobody");
    let as_nobody = |args: &[&str]| run_in(&folder, &server, args);
    for args in [&["nodes"][..], &["deployments"], &["whoami"], &["module", "list"]] {
        as_nobody(args).exits(2).says(&["hotswap login", "HOTSWAP_TOKEN"]);
    }
    as_nobody(&["logout"]).exits(2).says(&["nobody is logged in"]);
    as_nobody(&["login"])
        .exits(2)
        .says(&["username", "--password-file"]);
    as_nobody(&["login", "admin"]).exits(2).says(&["--password-file"]);
    let file = server.dir.path().join("wrong");
    std::fs::write(&file, "not the password").unwrap();
    let wrong = as_nobody(&["login", "admin", "--password-file", file.to_str().unwrap()]).exits(2);
    assert!(!wrong.stderr.contains("not the password"), "{}", wrong.stderr);

    server.run(&["whoami"]).exits(0).shows(&["admin", "Admin"]);
    let kept = server.config_dir().join("credentials.json");
    let mode = std::fs::metadata(&kept).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    std::fs::set_permissions(&kept, std::fs::Permissions::from_mode(0o644)).unwrap();
    server.run(&["whoami"]).exits(2).says(&["chmod 600"]);
    std::fs::set_permissions(&kept, std::fs::Permissions::from_mode(0o600)).unwrap();

    // The current context says where commands go.
    let plain = |args: &[&str]| -> Ran {
        let mut command = hotswap();
        command.args(args).env("HOTSWAP_CONFIG_DIR", server.config_dir());
        command.output().expect("the binary starts").into()
    };
    plain(&["whoami"]).exits(0).shows(&[&server.process.url]);
    plain(&["context", "list"])
        .exits(0)
        .shows(&["default", &server.process.url, "admin"]);
    plain(&["context", "set", "nowhere", "--server", "http://127.0.0.1:1"]).exits(0);
    plain(&["context", "use", "nowhere"]).exits(0);
    plain(&["whoami"]).exits(3);
    plain(&["context", "use", "default"]).exits(0);
    plain(&["context", "use", "mars"])
        .exits(2)
        .says(&["hotswap context set mars"]);
    assert_eq!(
        plain(&["context", "list", "-o", "json"]).exits(0).json()[0]["current"],
        true
    );

    server.run(&["logout"]).exits(0);
    server.run(&["whoami"]).exits(2);
}

#[test]
fn two_people_one_deployment_and_a_record_of_it() {
    let server = Server::start(&[]);
    let payments = example("payment-processor", "2.0.0");
    let dora = person(&server, "dora", "Deployer");
    let adam = person(&server, "adam", "Admin");
    let signer = server.dir.path().join("trust");
    let push = [
        "module",
        "push",
        payments.to_str().unwrap(),
        "--signer",
        signer.to_str().unwrap(),
    ];
    run_in(&dora, &server, &push).exits(0);
    let deploy = [
        "deploy",
        "payment-processor",
        "2.0.0",
        "--to",
        "QA",
        "--require-approval",
        "-o",
        "json",
    ];
    let asked = run_in(&dora, &server, &deploy).exits(0).json();
    let id = asked["executionId"].as_str().unwrap();
    run_in(&dora, &server, &["approve", id])
        .exits(2)
        .says(&["needs the role Admin", "hotswap whoami"]);
    run_in(&adam, &server, &["approvals"])
        .exits(0)
        .shows(&["payment-processor", "dora", "0 of 1"]);
    run_in(&adam, &server, &["approve", &id[..8], "--reason", "ticket 7"])
        .exits(0)
        .shows(&["Approved"]);
    run_in(&adam, &server, &["reject", id]).exits(2);
    run_in(&adam, &server, &["approvals"])
        .exits(0)
        .shows(&["no approvals wait"]);
    run_in(&dora, &server, &["audit", "list"])
        .exits(2)
        .says(&["Admin"]);
    run_in(&adam, &server, &["audit", "list", "--deployment", id])
        .exits(0)
        .shows(&["approve", "adam", "ticket 7", "dora"]);
    server
        .run(&["audit", "verify"])
        .exits(0)
        .shows(&["nothing was changed"]);
    server
        .run(&["user", "set", "dora", "--disabled", "true"])
        .exits(0);
    run_in(&dora, &server, &["deployments"])
        .exits(2)
        .says(&["hotswap login"]);
    server
        .run(&["user", "list"])
        .exits(0)
        .shows(&["dora", "disabled"]);
    server.run(&["key", "rotate"]).exits(0).shows(&["signs now"]);
    run_in(&adam, &server, &["whoami"]).exits(0);

    // Without the server, and on a database that somebody wrote to.
    let data = server.dir.path().join("server");
    let verify = ["audit", "verify", "--data", data.to_str().unwrap()];
    let offline = |server: &Server| run_in(&server.config_dir(), server, &verify);
    offline(&server).exits(0).shows(&["nothing was changed"]);
    let mut server = server;
    server.kill();
    offline(&server).exits(0).shows(&["nothing was changed"]);
}

#[test]
fn a_token_for_programs_reaches_as_far_as_it_says() {
    let server = Server::start(&[]);
    let payments = example("payment-processor", "2.0.0");
    let made = server
        .run(&[
            "token",
            "create",
            "ci",
            "--role",
            "Deployer",
            "--module",
            "payment-*",
            "--env",
            "QA",
        ])
        .exits(0);
    let token = made.stdout.trim().to_owned();
    assert!(token.starts_with("hst_"), "the token alone is on stdout");
    let by_token = |args: &[&str]| -> Ran {
        let mut command = hotswap();
        command
            .args(args)
            .args(["--server", &server.process.url])
            .env("HOTSWAP_TOKEN", &token);
        command.output().expect("the binary starts").into()
    };
    let signer = server.dir.path().join("trust");
    by_token(&[
        "module",
        "push",
        payments.to_str().unwrap(),
        "--signer",
        signer.to_str().unwrap(),
    ])
    .exits(0);
    by_token(&["deploy", "payment-processor", "2.0.0", "--to", "QA"]).exits(0);
    by_token(&["deploy", "payment-processor", "2.0.0", "--to", "Staging"])
        .exits(2)
        .says(&["this token is for the environments QA"]);
    by_token(&["user", "list"])
        .exits(2)
        .says(&["needs the role Admin"]);
    let tokens = server.run(&["token", "list", "-o", "json"]).exits(0).json();
    let id = tokens[0]["id"].as_str().unwrap();
    server
        .run(&["token", "list"])
        .exits(0)
        .shows(&["ci", "payment-*, QA"]);
    server.run(&["token", "revoke", id]).exits(0);
    by_token(&["deployments"]).exits(2).says(&["revoked"]);
}

#[test]
fn a_first_start_tells_the_one_time_password_once() {
    use std::io::{BufRead as _, BufReader};
    let dir = tempfile::tempdir().unwrap();
    let start = || {
        let mut command = hotswap();
        command.env_remove("HOTSWAP_ADMIN_PASSWORD");
        command.args([
            "server",
            "--http",
            "127.0.0.1:0",
            "--agents",
            "127.0.0.1:0",
            "--data",
        ]);
        command
            .arg(dir.path().join("server"))
            .stdout(std::process::Stdio::piped());
        command.stderr(std::process::Stdio::piped());
        command.spawn().expect("the binary starts")
    };
    let mut first = start();
    let mut lines = BufReader::new(first.stdout.take().unwrap())
        .lines()
        .map(Result::unwrap);
    let url = lines.next().unwrap().strip_prefix("ready: ").unwrap().to_owned();
    let told = lines.next().unwrap();
    let password = told.rsplit(' ').next().unwrap().to_owned();
    assert!(told.contains("one-time password"), "{told}");
    assert_eq!(
        lines.next().unwrap(),
        format!("log in with: hotswap login admin --server {url}")
    );
    let files = [("first", password.as_str()), ("new", PASSWORD)].map(|(name, text)| {
        let file = dir.path().join(name);
        std::fs::write(&file, text).unwrap();
        file
    });
    let login = hotswap()
        .args(["login", "admin", "--server", &url, "--password-file"])
        .arg(&files[0])
        .arg("--new-password-file")
        .arg(&files[1])
        .env("HOTSWAP_CONFIG_DIR", dir.path().join("config"))
        .output()
        .unwrap();
    Ran::from(login).exits(0);
    first.kill().unwrap();
    let ended = first.wait_with_output().unwrap();
    assert!(
        !String::from_utf8_lossy(&ended.stderr).contains(&password),
        "it is in no log"
    );
    let mut second = start();
    let mut lines = BufReader::new(second.stdout.take().unwrap())
        .lines()
        .map(Result::unwrap);
    assert!(lines.next().unwrap().starts_with("ready: "));
    second.kill().unwrap();
    second.wait().unwrap();
    assert_eq!(lines.next(), None, "nothing more is told");
}
