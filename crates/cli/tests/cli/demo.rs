//! `hotswap demo --kinds`: what this machine can run is swapped under traffic, what it can't is named, and nothing of it
//! stays.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use crate::support::{Ran, hotswap};

const KINDS: [&str; 4] = ["WebAssembly", "native process", "eBPF", "kernel module"];

fn demo(folder: &Path, more: &[&str]) -> Command {
    let mut command = hotswap();
    command
        .args(["demo", "--kinds", "--exit", "--port", "0"])
        .args(more);
    // All that it writes is here.
    command.env("TMPDIR", folder);
    command
}

/// Nothing is left in its folder, no process of it runs, and no interface of it is there.
fn is_gone(folder: &Path) {
    let left: Vec<_> = std::fs::read_dir(folder).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
    let folder = folder.to_str().unwrap();
    for process in std::fs::read_dir("/proc").unwrap().flatten() {
        let line = std::fs::read(process.path().join("cmdline")).unwrap_or_default();
        assert!(
            !String::from_utf8_lossy(&line).contains(folder),
            "{process:?} runs on"
        );
    }
    let links = std::fs::read_to_string("/proc/net/dev").unwrap();
    assert!(!links.contains("demo1"), "{links}");
}

#[test]
fn every_kind_that_this_machine_runs_is_swapped_with_nothing_unseen() {
    let folder = tempfile::tempdir().unwrap();
    let ran = Ran::from(demo(folder.path(), &["-o", "json"]).output().unwrap()).exits(0);
    let report = ran.json();
    assert_eq!(report["faults"], serde_json::json!([]), "{report:#}");
    let of = |list: &str| report[list].as_array().unwrap().clone();
    let mut kinds = Vec::new();
    for swap in of("shown") {
        let number = |key: &str| swap[key].as_u64().unwrap();
        assert_eq!(swap["status"], "Succeeded", "{swap:#}");
        assert!(number("sent") > 1_000, "{swap:#}");
        assert_eq!(
            (number("counted"), number("missed")),
            (number("sent") + number("checks"), 0),
            "{swap:#}"
        );
        let answers = swap["byVersion"].as_object().unwrap();
        let from_and_to =
            [&swap["from"], &swap["to"]].map(|version| answers.contains_key(version.as_str().unwrap()));
        assert!(answers.is_empty() || from_and_to == [true, true], "{swap:#}");
        kinds.push(swap["kind"].as_str().unwrap().to_owned());
    }
    for left_out in of("leftOut") {
        let lacks = left_out["lacks"].as_str().unwrap();
        println!("left out: {}: {lacks}", left_out["kind"]);
        assert!(!lacks.is_empty());
        kinds.push(left_out["kind"].as_str().unwrap().to_owned());
    }
    kinds.sort_by_key(|kind| KINDS.iter().position(|known| known == kind));
    assert_eq!(kinds, KINDS);
    let is_shown = |kind: &str| of("shown").iter().any(|swap| swap["kind"] == kind);
    assert!(is_shown("WebAssembly"));
    // Nobody allowed it.
    assert!(!is_shown("kernel module"));
    is_gone(folder.path());
}

#[test]
fn interrupted_it_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mut child = demo(folder.path(), &[])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut told = Vec::new();
    for line in lines.map_while(Result::ok) {
        told.push(line);
        let is_native = told.iter().any(|line| line.contains("native process: "));
        if is_native
            && told
                .last()
                .is_some_and(|line| line.contains("is to take the place of"))
        {
            break;
        }
        // Without Python there is none.
        if told
            .last()
            .is_some_and(|line| line.contains("native process is left out"))
        {
            break;
        }
    }
    let interrupted = Command::new("kill")
        .args(["-INT", &child.id().to_string()])
        .status();
    assert!(interrupted.unwrap().success());
    let ran = Ran::from(child.wait_with_output().unwrap());
    assert_eq!(ran.code, 130, "{told:#?} {}", ran.stderr);
    is_gone(folder.path());
}
