//! Stories of a fleet, one a file in `scenarios/`: commands, and indented below each what came of it.
//!
//! `BLESS=1 cargo test --release -p hotswap-core --test scenarios` writes down what comes of them now;
//! `ONLY=word` runs those whose name holds the word.

mod support;

use std::fs;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};

use hotswap_core::event::Event;
use hotswap_core::report::{ACCOUNT_LEN_MAX, REASON_LEN_MAX};
use hotswap_core::rollout::Exclusion;

#[test]
fn scenarios_go_as_they_are_told() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios");
    let only = std::env::var("ONLY").unwrap_or_default();
    let mut paths: Vec<PathBuf> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "txt"));
    paths.retain(|path| {
        path.file_name()
            .is_some_and(|name| name.to_string_lossy().contains(&only))
    });
    paths.sort();
    assert!(!paths.is_empty(), "there are scenarios");
    let bless = std::env::var_os("BLESS").is_some();
    let mut failed = Vec::new();
    for path in paths {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let told = fs::read_to_string(&path).unwrap();
        assert!(
            told.starts_with("# "),
            "{name} opens with a line that says what it proves"
        );
        match catch_unwind(|| support::script::run(&told)) {
            Err(_) => failed.push(format!("{name} broke an invariant, see above")),
            Ok(came) if came == told => {}
            Ok(came) if bless => fs::write(&path, came).unwrap(),
            Ok(came) => failed.push(format!("{name} went otherwise:\n{}", difference(&told, &came))),
        }
    }
    assert!(
        failed.is_empty(),
        "{}\nBLESS=1 accepts what came.",
        failed.join("\n\n")
    );
}

/// Where many nodes fail alike, one of them says it at length.
#[test]
fn ten_long_accounts_are_recorded_once() {
    let mut text = "# Long accounts.\nfleet Development=10\npolicy Development step_deadline=60s\n\
                    given payments 1.0.0 in Development\npush payments 1.1.0\n"
        .to_owned();
    for node in 1..=10 {
        text += &format!("node dev-{node} fails load payments 1.1.0 telling 100000\n");
    }
    text += "deploy payments 1.1.0 to Development\nrun until done\n";
    let told: Vec<usize> = support::script::log(&text)
        .iter()
        .filter_map(|logged| match &logged.event {
            Event::NodeExcluded {
                reason: Exclusion::NotReady { detail },
                ..
            } => Some(detail.chars().count()),
            _ => None,
        })
        .collect();
    assert_eq!(told.len(), 10);
    let long = told.iter().filter(|len| **len > REASON_LEN_MAX + 20).count();
    assert_eq!(long, 1, "{told:?}");
    assert!(told.iter().all(|len| *len <= ACCOUNT_LEN_MAX + 20), "{told:?}");
}

/// The first lines that differ.
fn difference(told: &str, came: &str) -> String {
    const SHOWN: usize = 12;
    let same = told.lines().zip(came.lines()).take_while(|(a, b)| a == b).count();
    let from = same.saturating_sub(2);
    let part = |text: &str| text.lines().skip(from).take(SHOWN).collect::<Vec<_>>().join("\n");
    format!(
        "--- told, from line {}\n{}\n--- came\n{}",
        from + 1,
        part(told),
        part(came)
    )
}
