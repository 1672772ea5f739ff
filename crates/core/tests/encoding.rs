//! What a released version wrote must be read by every later one: logs, States and nodes' ledgers, kept in `fixtures/v1`.
//!
//! A log here is a scenario's, an event a line, with the State that it folded to when it was written. Together they
//! hold every kind of event. `BLESS=1 cargo test --release -p hotswap-core --test encoding` writes them anew, which
//! is right until a version with them is released; from then on a new kind of event gets a folder of its own.

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use hotswap_core::apply::apply;
use hotswap_core::event::{Event, Logged};
use hotswap_core::ids::NodeId;
use hotswap_core::reconcile::{Ledger, Reconciler};
use hotswap_core::spec::Generation;
use hotswap_core::state::State;
use hotswap_core::time::CoreTime;
use serde_json::{Value, json};

/// Lists the kinds of events, and doesn't compile where one is missing.
macro_rules! kinds {
    ($($kind:ident),* $(,)?) => {
        const KINDS: &[&str] = &[$(stringify!($kind)),*];

        fn kind(event: &Event) -> &'static str {
            match event {
                $(Event::$kind { .. } => stringify!($kind),)*
            }
        }
    };
}

kinds!(
    FleetCreated,
    EnvironmentsConfigured,
    EpochStarted,
    FleetAdopted,
    ReleasePushed,
    ReleaseHeld,
    ReleaseHoldLifted,
    ReleaseRevoked,
    MinimumVersionSet,
    ReleaseYanked,
    ReleaseUnyanked,
    ValuesSet,
    NodeRegistered,
    NodeDescribed,
    NodeMoved,
    NodeLabelsSet,
    NodeDrainRequested,
    NodeDrained,
    NodeUndrained,
    NodeRemoved,
    DeploymentRequested,
    ReversalRequested,
    ApprovalGiven,
    ApprovalDecided,
    ApprovalExpired,
    DeploymentFrozen,
    StageStarted,
    StageFinished,
    DeploymentFinished,
    DeploymentRolledBack,
    RolloutStarted,
    StepStarted,
    StepCompleted,
    NodeEntered,
    NodeExcluded,
    NodeExcused,
    EvidenceRecorded,
    RolloutHeld,
    RolloutReleased,
    RolloutPaused,
    RolloutResumed,
    RolloutPromoted,
    ValidationStarted,
    BackStarted,
    StableSet,
    RolloutEnded,
    ExceptionRecorded,
);

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/v1")
}

/// The logs of all scenarios, the shortest first.
fn scenarios() -> Vec<(String, Vec<Logged>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios");
    let mut logs: Vec<(String, Vec<Logged>)> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|it| it == "txt"))
        .map(|path| {
            let name = path.file_stem().unwrap().to_string_lossy().into_owned();
            (name, support::script::log(&fs::read_to_string(path).unwrap()))
        })
        .collect();
    logs.sort_by_key(|(name, log)| (log.len(), name.clone()));
    logs
}

fn fold(log: &[Logged]) -> State {
    let mut state = State::default();
    for logged in log {
        apply(&mut state, logged);
    }
    state
}

fn kinds_of(log: &[Logged]) -> BTreeSet<&'static str> {
    log.iter().map(|logged| kind(&logged.event)).collect()
}

/// What no scenario tells: added to the end of a log.
fn append(log: &mut Vec<Logged>, events: Vec<Event>) {
    for event in events {
        let last = log.last().unwrap();
        let epoch = match &event {
            Event::FleetAdopted { epoch, .. } => *epoch,
            _ => last.epoch,
        };
        let next = Logged {
            seq: last.seq + 1,
            epoch,
            event,
            ..last.clone()
        };
        log.push(next);
    }
}

fn untold(log: &[Logged]) -> Vec<Event> {
    let state = fold(log);
    let (node, record) = state.nodes.iter().next_back().unwrap();
    let (module, releases) = state.modules.iter().next().unwrap();
    let node: NodeId = node.clone();
    let release = releases.releases.iter().next().unwrap();
    let release = hotswap_core::ids::ReleaseRef {
        version: release.0.clone(),
        digest: release.1.digest,
        config: 0,
    };
    vec![
        Event::ReleaseHeld {
            module: module.clone(),
            release: release.clone(),
            reason: "it loses orders".to_owned(),
        },
        Event::ReleaseHoldLifted {
            module: module.clone(),
            digest: release.digest,
            by: "ada".to_owned(),
        },
        Event::ReleaseYanked {
            module: module.clone(),
            version: release.version.clone(),
            reason: "it loses orders".to_owned(),
            by: "ada".to_owned(),
        },
        Event::ReleaseUnyanked {
            module: module.clone(),
            version: release.version.clone(),
            by: "ada".to_owned(),
        },
        Event::ValuesSet {
            module: module.clone(),
            environment: state.environments[0].name.clone(),
            number: 1,
            values: BTreeMap::from([("CURRENCY".to_owned(), "EUR".to_owned())]),
            by: "ada".to_owned(),
        },
        Event::ReleaseRevoked {
            module: module.clone(),
            release: release.clone(),
            reason: "its signing key was stolen".to_owned(),
            by: "ada".to_owned(),
        },
        Event::MinimumVersionSet {
            module: module.clone(),
            version: Some(release.version.clone()),
            by: "ada".to_owned(),
        },
        Event::FleetAdopted {
            epoch: state.epoch + 1,
            rollouts_above: state.rollouts,
            by: "ada".to_owned(),
        },
        Event::NodeLabelsSet {
            node: node.clone(),
            overrides: BTreeMap::from([("zone".to_owned(), "c".to_owned())]),
            by: "ada".to_owned(),
        },
        Event::NodeDrainRequested {
            node: node.clone(),
            until: state.wall,
            reason: "its disk is changed".to_owned(),
            by: "ada".to_owned(),
        },
        Event::NodeDrained { node: node.clone() },
        Event::NodeUndrained {
            node: node.clone(),
            by: "ada".to_owned(),
        },
        Event::NodeDescribed {
            node: node.clone(),
            hostname: "other.example".to_owned(),
            labels: BTreeMap::from([("zone".to_owned(), "b".to_owned())]),
        },
        Event::NodeMoved {
            node: node.clone(),
            environment: record.environment.clone(),
            by: "ada".to_owned(),
        },
        Event::NodeRemoved {
            node,
            by: "ada".to_owned(),
        },
    ]
}

/// Few and short logs that hold every kind of event between them.
fn chosen() -> Vec<(String, Vec<Logged>)> {
    let mut logs = scenarios();
    let ended = logs.iter_mut().find(|(name, _)| name == "second_release");
    let (_, log) = ended.expect("a scenario of this name");
    let events = untold(log);
    append(log, events);
    let mut missing: BTreeSet<&str> = KINDS.iter().copied().collect();
    let mut chosen = Vec::new();
    while !missing.is_empty() {
        let gain = |log: &[Logged]| kinds_of(log).intersection(&missing).count();
        // Most that is new for its length.
        let best = logs.iter().max_by(|(_, a), (_, b)| {
            let (a, b) = ((gain(a), a.len()), (gain(b), b.len()));
            (a.0 * b.1).cmp(&(b.0 * a.1))
        });
        let best = best.filter(|(_, log)| gain(log) > 0);
        let (name, log) = best
            .unwrap_or_else(|| panic!("in no scenario: {missing:?}; write one"))
            .clone();
        missing.retain(|kind| !kinds_of(&log).contains(kind));
        chosen.push((name, log));
    }
    chosen
}

fn bless() {
    let folder = fixtures();
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).unwrap();
    for (name, log) in chosen() {
        let lines: Vec<String> = log
            .iter()
            .map(|logged| serde_json::to_string(logged).unwrap())
            .collect();
        fs::write(folder.join(format!("{name}.jsonl")), lines.join("\n") + "\n").unwrap();
        let state = serde_json::to_string(&fold(&log)).unwrap();
        fs::write(folder.join(format!("{name}.state.json")), state + "\n").unwrap();
    }
    bless_ledgers(&folder);
}

/// Lines of a scenario: before the one, a node has left a release by itself; before the other, nodes have
/// a release on trial.
const LEDGERS_OF: &str = "veto_of_the_next_too";
const LEDGERS_BEFORE: [(&str, &str); 2] = [
    ("left", "push payments 1.2.0"),
    ("trial", "node dev-3 vetoes payments 1.2.0"),
];

fn bless_ledgers(folder: &Path) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/scenarios/{LEDGERS_OF}.txt"));
    let text = fs::read_to_string(path).unwrap();
    for (name, line) in LEDGERS_BEFORE {
        let (before, _) = text.split_once(line).expect("the scenario has that line");
        for (node, ledger) in support::script::ledgers(before) {
            let ledger = serde_json::to_string(&ledger).unwrap();
            fs::write(folder.join(format!("{name}.{node}.ledger.json")), ledger + "\n").unwrap();
        }
    }
}

/// The kept logs: name, lines, recorded State.
fn kept() -> Vec<(String, Vec<Value>, Value)> {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        if std::env::var_os("BLESS").is_some() {
            bless();
        }
    });
    let mut kept = Vec::new();
    for entry in fs::read_dir(fixtures()).expect("there are fixtures") {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "jsonl") {
            continue;
        }
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        let text = fs::read_to_string(&path).unwrap();
        let lines = text
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        let state = fs::read_to_string(path.with_extension("state.json")).unwrap();
        kept.push((name, lines, serde_json::from_str(&state).unwrap()));
    }
    assert!(!kept.is_empty(), "there are fixtures");
    kept
}

fn read(line: &Value) -> Logged {
    serde_json::from_value(line.clone()).unwrap_or_else(|error| panic!("{error}: {line}"))
}

/// Whether everything that was recorded is so now; what a later version adds may be there, too.
fn differs(recorded: &Value, now: &Value, at: &str) -> Option<String> {
    match (recorded, now) {
        (Value::Object(recorded), Value::Object(now)) => recorded.iter().find_map(|(key, value)| {
            differs(
                value,
                now.get(key).unwrap_or(&Value::Null),
                &format!("{at}.{key}"),
            )
        }),
        (Value::Array(recorded), Value::Array(now)) if recorded.len() == now.len() => recorded
            .iter()
            .zip(now)
            .enumerate()
            .find_map(|(place, (recorded, now))| differs(recorded, now, &format!("{at}[{place}]"))),
        _ if recorded == now => None,
        _ => Some(format!("{at}: recorded {recorded}, now {now}")),
    }
}

#[test]
fn kept_logs_fold_to_what_they_folded_to() {
    for (name, lines, recorded) in kept() {
        let log: Vec<Logged> = lines.iter().map(read).collect();
        let now = serde_json::to_value(fold(&log)).unwrap();
        assert_eq!(differs(&recorded, &now, "state"), None, "{name}");
    }
}

#[test]
fn kept_states_are_read() {
    for (name, _, recorded) in kept() {
        let state: State =
            serde_json::from_value(recorded.clone()).unwrap_or_else(|error| panic!("{name}: {error}"));
        let now = serde_json::to_value(state).unwrap();
        assert_eq!(differs(&recorded, &now, "state"), None, "{name}");
    }
}

#[test]
fn every_kind_of_event_is_kept() {
    let mut there = BTreeSet::new();
    for (_, lines, _) in kept() {
        there.extend(lines.iter().map(|line| kind(&read(line).event)));
    }
    let missing: Vec<_> = KINDS.iter().filter(|kind| !there.contains(*kind)).collect();
    assert!(
        missing.is_empty(),
        "in no kept log: {missing:?}. Write a scenario in which it happens, then \
         BLESS=1 cargo test --release -p hotswap-core --test encoding"
    );
}

#[test]
fn fields_of_a_later_version_are_passed_over() {
    let unknown = json!({ "of": ["a", "later", "version"] });
    for (name, lines, recorded) in kept() {
        for line in lines {
            let mut later = line.clone();
            later["unknown"] = unknown.clone();
            later["event"]["unknown"] = unknown.clone();
            assert_eq!(read(&later), read(&line), "{name}");
        }
        let mut later = recorded.clone();
        later["unknown"] = unknown.clone();
        let (state, same): (State, State) = (
            serde_json::from_value(later).unwrap(),
            serde_json::from_value(recorded).unwrap(),
        );
        assert_eq!(state, same, "{name}");
    }
}

#[test]
fn kept_ledgers_are_read_and_booted_from() {
    kept();
    let (mut trials, mut vetoes) = (0, 0);
    for entry in fs::read_dir(fixtures()).unwrap() {
        let path = entry.unwrap().path();
        if !path.to_string_lossy().ends_with(".ledger.json") {
            continue;
        }
        let recorded: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
        let mut later = recorded.clone();
        later["unknown"] = json!(1);
        let ledger: Ledger = serde_json::from_value(later).unwrap();
        let now = serde_json::to_value(&ledger).unwrap();
        assert_eq!(differs(&recorded, &now, ""), None, "{}", path.display());
        let serving: usize = ledger.modules.values().map(|entry| entry.serving.len()).sum();
        trials += ledger
            .modules
            .values()
            .filter(|entry| entry.trial.is_some())
            .count();
        vetoes += ledger.vetoes.len();
        let (machine, actions) = Reconciler::boot("dev-3".parse().unwrap(), ledger, CoreTime(0));
        assert!(machine.ledger().highest() > Generation::default());
        assert!(
            actions.len() >= serving,
            "what it serves is prepared: {actions:?}"
        );
    }
    assert!(trials > 0 && vetoes > 0, "{trials} trials, {vetoes} vetoes");
}

#[test]
fn an_event_of_a_later_version_is_no_event_of_this_one() {
    let (_, lines, _) = kept().remove(0);
    let mut later = lines[0].clone();
    later["event"] = json!({ "type": "fleetRenamed", "name": "other" });
    let error = serde_json::from_value::<Logged>(later).unwrap_err().to_string();
    assert!(error.contains("fleetRenamed"), "{error}");
}
