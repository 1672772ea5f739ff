//! Modules that `hotswap module init` begins, built by the public toolchains, deployed and swapped under load. What a
//! machine lacks is said and left out. `cargo xtask test --authoring` runs it: it fetches packages and takes minutes.

#![expect(dead_code, reason = "shares the support of the other tests")]

#[path = "../cli/operation/customers.rs"]
mod customers;
#[path = "../cli/fleet.rs"]
mod fleet;
#[path = "../cli/support.rs"]
mod support;

use std::path::Path;
use std::process::Command;

use customers::{Customers, Habit};
use fleet::Server;
use support::hotswap;

/// Whether a program is there and runs.
fn there_is(program: &str) -> bool {
    Command::new(program)
        .arg("--version")
        .output()
        .is_ok_and(|ran| ran.status.success())
}

/// Carries printed commands out, as somebody at a terminal would, and writes down what came of them.
struct Desk<'a> {
    server: &'a Server,
    folder: std::path::PathBuf,
    transcript: String,
}

impl Desk<'_> {
    fn carry_out(&mut self, line: &str) {
        let bin = Path::new(env!("CARGO_BIN_EXE_hotswap"))
            .parent()
            .expect("the binary lies in a folder")
            .display()
            .to_string();
        let path = format!("{bin}:{}", std::env::var("PATH").unwrap_or_default());
        let begun = std::time::Instant::now();
        let ran = Command::new("sh")
            .args(["-c", line])
            .current_dir(&self.folder)
            .env("PATH", path)
            .env("HOTSWAP_SERVER", &self.server.process.url)
            .env("HOTSWAP_CONFIG_DIR", self.server.config_dir())
            .output()
            .unwrap();
        let told = String::from_utf8_lossy(&ran.stdout);
        let last: Vec<&str> = told.lines().rev().take(LINES_KEPT).collect();
        self.transcript += &format!("$ {line}    ({:.1} s)\n", begun.elapsed().as_secs_f64());
        for line in last.into_iter().rev() {
            self.transcript += &format!("  {line}\n");
        }
        assert!(
            ran.status.success(),
            "{}{}",
            self.transcript,
            String::from_utf8_lossy(&ran.stderr)
        );
    }
}

/// Lines of each command's output that the transcript keeps.
const LINES_KEPT: usize = 12;

/// Begins a module and does what is printed, no step more: builds, tests, pushes, plans and deploys it; changes it and
/// swaps it under load; takes it away.
fn author(lang: &str, needs: &[&str], change: impl FnOnce(&Path)) {
    if let Some(lacking) = needs.iter().find(|program| !there_is(program)) {
        println!("left out: {lacking} is not here, so no module in {lang} was built");
        return;
    }
    let server = Server::start(&[]);
    let agent = server.agent("node-1", "Development");
    server.eventually(&["nodes"], "node-1");
    // Where the printed `hotswap trust init` puts it.
    std::os::unix::fs::symlink("trust", server.dir.path().join("hotswap-trust")).unwrap();
    let name = format!("hello-{lang}");
    let init = hotswap()
        .args(["module", "init", "--lang", lang, &name, "-o", "json"])
        .current_dir(server.dir.path())
        .output()
        .unwrap();
    let init = support::Ran::from(init).exits(0).json();
    let commands: Vec<&str> = init["commands"]
        .as_array()
        .unwrap()
        .iter()
        .map(|line| line.as_str().unwrap())
        .collect();
    assert_eq!(commands[0], format!("cd {name}"));
    let folder = server.dir.path().join(&name);
    let mut desk = Desk {
        server: &server,
        folder: folder.clone(),
        transcript: format!("$ hotswap module init --lang {lang} {name}\n$ cd {name}\n"),
    };
    for line in &commands[1..] {
        desk.carry_out(line);
    }
    let customers = Customers::start_at(&agent.url, &format!("/{name}"), &[Habit::Keeps, Habit::Anew]);
    customers.go_on(200);

    let manifest = folder.join("module.toml");
    let text = std::fs::read_to_string(&manifest).unwrap();
    std::fs::write(&manifest, text.replace("0.1.0", "0.2.0")).unwrap();
    change(&folder);
    let from = commands
        .iter()
        .position(|line| line.starts_with("hotswap"))
        .expect("there is a command that pushes");
    for line in &commands[from - 1..] {
        desk.carry_out(&line.replace("0.1.0", "0.2.0"));
    }
    customers.go_on(200);
    let (answered, failures) = customers.stop();
    assert!(failures.is_empty(), "of {answered} requests failed: {failures:?}");
    desk.carry_out(init["takeAway"].as_str().unwrap());
    let size = std::fs::metadata(folder.join(format!("{name}.wasm")))
        .unwrap()
        .len();
    println!("{}", desk.transcript);
    println!(
        "{lang}: {size} bytes; built, deployed, swapped and taken away; {answered} requests, none failed"
    );
}

fn replace(path: &Path, from: &str, to: &str) {
    let text = std::fs::read_to_string(path).unwrap();
    assert!(text.contains(from), "{} has no {from:?}", path.display());
    std::fs::write(path, text.replace(from, to)).unwrap();
}

#[test]
fn a_module_in_javascript() {
    author("js", &["node", "npm"], |folder| {
        replace(&folder.join("answer.js"), "'0.1.0'", "'0.2.0'");
    });
}

#[test]
fn a_module_in_python() {
    author("python", &["python3"], |folder| {
        replace(&folder.join("answer.py"), "\"0.1.0\"", "\"0.2.0\"");
    });
}

#[test]
fn a_module_in_c() {
    author("c", &["python3"], |folder| {
        replace(&folder.join("answer.h"), "\"0.1.0\"", "\"0.2.0\"");
    });
}

#[test]
fn a_module_in_rust() {
    let can = |target: &str| {
        let sysroot = Command::new("rustc").args(["--print", "sysroot"]).output();
        sysroot.is_ok_and(|ran| {
            let sysroot = String::from_utf8_lossy(&ran.stdout).trim().to_owned();
            Path::new(&sysroot)
                .join("lib/rustlib")
                .join(target)
                .join("lib")
                .is_dir()
        })
    };
    let debian = Command::new("/usr/bin/rustc")
        .args(["--print", "sysroot"])
        .output()
        .is_ok_and(|ran| {
            let sysroot = String::from_utf8_lossy(&ran.stdout).trim().to_owned();
            Path::new(&sysroot)
                .join("lib/rustlib/src/rust/library/std")
                .is_dir()
        });
    if !can("wasm32-wasip2") && !debian {
        println!(
            "left out: neither rustup's wasm32-wasip2 nor Debian's rustc-web is here, so no module in rust was built"
        );
        return;
    }
    author("rust", &["cargo"], |folder| {
        replace(
            &folder.join("Cargo.toml"),
            "version = \"0.1.0\"",
            "version = \"0.2.0\"",
        );
    });
}
