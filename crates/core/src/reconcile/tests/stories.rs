//! One behaviour each, as a story.

use super::*;
use crate::report::SmokeOutcome;
use crate::spec::{Observe, SmokeVia};

/// A node that serves release 1, committed.
fn settled() -> Rig {
    let mut rig = Rig::new();
    rig.spec(1, at_rest(1, &[1]));
    rig.run();
    assert_eq!(rig.serves(), [(1, 100)]);
    assert_eq!(rig.entry().committed, Some(release(1)));
    rig.done.clear();
    rig
}

#[test]
fn loads_before_it_switches_and_keeps_the_former_as_standby() {
    let mut rig = settled();
    rig.spec(2, on_trial(2, 2, Some(1), 100));
    rig.finish_write();
    rig.finish_prepare(digest(2), Ok(()));
    assert_eq!(rig.serves(), [(1, 100)]);
    rig.finish_load(digest(2), Ok(()));
    assert_eq!(rig.serves(), [(1, 100)], "the trial is not durable yet");
    rig.finish_write();
    assert_eq!(rig.serves(), [(2, 100)]);
    rig.run();
    assert_eq!(rig.done, ["prepare 2", "load 2", "route 2:100"]);
    assert_eq!(rig.entry().committed, Some(release(1)), "the rollout is on trial");
    rig.spec(3, at_rest(2, &[2, 1]));
    rig.run();
    assert_eq!(rig.entry().committed, Some(release(2)));
    assert!(rig.loaded.contains(&digest(1)), "standby");
    rig.spec(4, at_rest(2, &[2]));
    rig.run();
    assert_eq!(rig.done.last().unwrap(), "unload 1");
}

#[test]
fn goes_back_in_one_store_while_the_disk_is_full() {
    let mut rig = settled();
    rig.spec(2, on_trial(2, 2, Some(1), 100));
    rig.run();
    assert_eq!(rig.serves(), [(2, 100)]);
    rig.spec(3, at_rest(1, &[1]));
    assert_eq!(
        rig.serves(),
        [(1, 100)],
        "no sync stands before a release that was committed"
    );
    rig.run();
    assert_eq!(rig.entry().trial, None);
}

#[test]
fn leaves_a_bad_candidate_by_itself_until_a_later_rollout() {
    let mut rig = settled();
    rig.spec(2, on_trial(2, 2, Some(1), 50));
    rig.run();
    assert_eq!(rig.serves(), [(2, 50), (1, 50)]);
    rig.health(2, Err("trapped"));
    assert_eq!(rig.serves(), [(1, 100)]);
    assert_eq!(rig.machine.vetoes().count(), 0, "it is not durable yet");
    rig.run();
    let vetoes: Vec<_> = rig.machine.vetoes().cloned().collect();
    assert_eq!(vetoes.len(), 1);
    assert_eq!(
        (vetoes[0].rollout, &vetoes[0].base),
        (RolloutId(2), &Some(release(1)))
    );
    rig.spec(3, on_trial(2, 2, Some(1), 100));
    rig.run();
    assert_eq!(
        rig.serves(),
        [(1, 100)],
        "the veto wins over the rollout's next step"
    );
    rig.crash();
    rig.run();
    assert_eq!(rig.serves(), [(1, 100)], "and over a crash");
    let Veto {
        rollout,
        release: left,
        ..
    } = vetoes[0].clone();
    let acked = NodeInput::Acked {
        module: module(),
        rollout,
        release: left,
    };
    rig.input(acked.clone());
    assert_eq!(rig.machine.vetoes().count(), 0);
    rig.spec(4, on_trial(2, 2, Some(1), 30));
    rig.run();
    assert_eq!(rig.serves(), [(1, 100)], "also once the server knows it");
    assert_eq!(
        rig.machine.vetoes().count(),
        1,
        "a server that forgot it is told again"
    );
    rig.input(acked);
    rig.spec(5, on_trial(3, 2, Some(1), 30));
    rig.run();
    assert_eq!(rig.serves(), [(2, 30), (1, 70)], "a later rollout tries anew");
    assert!(rig.disk.vetoes.is_empty());
}

use crate::report::Veto;

#[test]
fn a_failed_load_is_no_veto_and_is_tried_again_later_and_later() {
    let mut rig = settled();
    rig.spec(2, on_trial(2, 2, Some(1), 100));
    rig.finish_write();
    let mut waits = Vec::new();
    for _ in 0..9 {
        rig.finish_prepare(digest(2), Ok(()));
        rig.finish_load(digest(2), Err("no memory".to_owned()));
        assert!(matches!(&rig.status()[&2], ReleaseStatus::Failed { reason } if reason == "no memory"));
        let at = rig.machine.wake_at().unwrap();
        waits.push(at.since(rig.now).0 / 1_000);
        rig.now = at;
        rig.input(NodeInput::Tick);
    }
    assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
    assert_eq!(rig.machine.vetoes().count(), 0);
    rig.run();
    assert_eq!(rig.serves(), [(2, 100)]);
}

#[test]
fn serves_what_it_served_after_a_crash_without_a_server() {
    let mut rig = settled();
    rig.spec(2, on_trial(2, 2, Some(1), 100));
    rig.run();
    rig.crash();
    assert!(
        !rig.preparing.contains(&digest(2)),
        "that there was a boot on trial is not durable yet"
    );
    rig.finish_prepare(digest(1), Ok(()));
    rig.finish_load(digest(1), Ok(()));
    assert_eq!(rig.serves(), [(1, 100)], "the base stands in");
    rig.run();
    assert_eq!(rig.serves(), [(2, 100)]);
    assert_eq!(
        rig.entry().trial.unwrap().boots,
        0,
        "it was healthy for the settle time"
    );
}

#[test]
fn returns_to_the_committed_release_after_failed_boots_on_trial() {
    let mut rig = settled();
    rig.spec(2, on_trial(2, 2, Some(1), 100));
    rig.run();
    for boots in 1..BOOTS_ON_TRIAL_MAX {
        rig.crash();
        rig.finish_write();
        assert_eq!(rig.entry().trial.unwrap().boots, boots);
    }
    rig.crash();
    rig.run();
    assert_eq!(rig.serves(), [(1, 100)]);
    assert_eq!(rig.machine.vetoes().count(), 1);
    assert!(!rig.loaded.contains(&digest(2)));
}

#[test]
fn an_orderly_shutdown_is_no_failed_boot() {
    let mut rig = settled();
    rig.spec(2, on_trial(2, 2, Some(1), 100));
    rig.run();
    for _ in 0..10 {
        rig.input(NodeInput::Shutdown);
        rig.finish_write();
        assert!(rig.disk.orderly);
        rig.crash();
        rig.finish_write();
        assert!(!rig.disk.orderly);
        assert_eq!(rig.entry().trial.unwrap().boots, 0);
    }
}

#[test]
fn refuses_older_conflicting_foreign_and_faulty_specs() {
    let mut rig = settled();
    let accepted = rig.machine.ledger().clone();
    rig.input(NodeInput::Spec(spec(0, None)));
    rig.input(NodeInput::Spec(spec(1, Some(at_rest(1, &[1])))));
    assert!(rig.alarms.is_empty());
    rig.input(NodeInput::Spec(spec(1, None)));
    rig.input(NodeInput::Spec(NodeSpec {
        fleet: FleetId(uuid::Uuid::from_u128(8)),
        ..spec(9, None)
    }));
    let lame = ModuleSpec {
        routes: vec![(digest(1), 99)],
        ..at_rest(1, &[1])
    };
    rig.input(NodeInput::Spec(spec(9, Some(lame))));
    assert!(
        matches!(
            rig.alarms[..],
            [
                Alarm::Conflict { .. },
                Alarm::ForeignFleet { .. },
                Alarm::Faulty { .. }
            ]
        ),
        "{:?}",
        rig.alarms
    );
    assert_eq!(*rig.machine.ledger(), accepted);
    rig.input(NodeInput::Spec(spec(5, Some(at_rest(1, &[1])))));
    assert_eq!(rig.machine.highest().seq, 1, "not durable yet");
    rig.run();
    assert_eq!(rig.machine.highest().seq, 5);
    assert!(
        rig.done.is_empty(),
        "equal content is nothing to do: {:?}",
        rig.done
    );
}

#[test]
fn unloads_a_module_that_is_not_named_any_more() {
    let mut rig = settled();
    rig.input(NodeInput::Spec(spec(2, None)));
    rig.run();
    assert_eq!(rig.done, ["route ", "unload 1"]);
    assert!(rig.machine.statuses().is_empty());
    assert!(rig.disk.modules.is_empty());
    assert!(rig.machine.take_changed().contains(&module()));
}

#[test]
fn previews_runs_smoke_checks_once_and_then_flips() {
    let mut rig = settled();
    let run = SmokeRun {
        rollout: RolloutId(2),
        step: 0,
        digest: digest(2),
        via: SmokeVia::Preview,
    };
    let preview = ModuleSpec {
        preview: Some(digest(2)),
        smoke: Some(run),
        ..on_trial(2, 2, Some(1), 0)
    };
    rig.spec(2, preview.clone());
    rig.run();
    assert_eq!(rig.done, ["prepare 2", "load 2", "preview Some(2)", "smoke 2"]);
    let outcome = SmokeOutcome {
        run,
        passed: 3,
        failures: Vec::new(),
    };
    rig.input(NodeInput::Smoke {
        module: module(),
        outcome: outcome.clone(),
    });
    rig.spec(
        3,
        ModuleSpec {
            prefetch: vec![digest(3)],
            ..preview
        },
    );
    rig.run();
    assert_eq!(rig.done.last().unwrap(), "prepare 3", "the same run is run once");
    assert_eq!(rig.machine.statuses()[&module()].smoke, Some(outcome));
    rig.spec(4, on_trial(2, 2, Some(1), 100));
    rig.run();
    assert_eq!(rig.done[5..], ["preview None", "route 2:100"]);
    assert!(rig.loaded.contains(&digest(1)), "the old colour stays loaded");
}

#[test]
fn observes_only_while_the_routes_stand() {
    let mut rig = settled();
    let observe = |step| {
        Some(Observe {
            rollout: RolloutId(2),
            step,
            candidate: digest(2),
            control: Some(digest(1)),
            interval: Millis(1_000),
            probes: 1,
        })
    };
    rig.spec(
        2,
        ModuleSpec {
            observe: observe(0),
            ..on_trial(2, 2, Some(1), 30)
        },
    );
    rig.run();
    rig.spec(
        3,
        ModuleSpec {
            observe: observe(1),
            ..on_trial(2, 2, Some(1), 60)
        },
    );
    rig.run();
    rig.health(2, Err("it errs"));
    let last = rig.done.split_off(2);
    assert_eq!(
        last,
        [
            "route 2:30 1:70",
            "observe Some(0)",
            "route 2:60 1:40",
            "observe Some(1)",
            "route 1:100",
            "observe None",
            "unload 2"
        ]
    );
}

#[test]
fn leaves_a_bad_candidate_at_once_also_for_a_base_that_it_has_not_committed() {
    let mut rig = Rig::new();
    rig.spec(1, at_rest(1, &[1]));
    rig.finish_write();
    rig.finish_prepare(digest(1), Ok(()));
    rig.finish_load(digest(1), Ok(()));
    rig.finish_write();
    rig.spec(2, on_trial(2, 2, Some(1), 10));
    rig.finish_write();
    rig.finish_prepare(digest(2), Ok(()));
    rig.finish_load(digest(2), Ok(()));
    rig.finish_write();
    assert_eq!(rig.serves(), [(2, 10), (1, 90)]);
    assert_eq!(rig.entry().committed, None);
    rig.health(2, Err("trapped"));
    assert_eq!(rig.serves(), [(1, 100)], "no sync stands before it");
}

#[test]
fn a_retry_that_waits_for_the_disk_is_no_timer_that_is_due_for_ever() {
    let mut rig = Rig::new();
    rig.spec(
        1,
        ModuleSpec {
            prefetch: vec![digest(1)],
            ..at_rest(1, &[1])
        },
    );
    rig.finish_write();
    rig.finish_prepare(digest(1), Ok(()));
    rig.finish_load(digest(1), Ok(()));
    rig.finish_write();
    rig.crash();
    rig.finish_prepare(digest(1), Err("out of reach".to_owned()));
    rig.spec(2, at_rest(1, &[2]));
    rig.now = rig.machine.wake_at().unwrap();
    rig.input(NodeInput::Tick);
    assert_eq!(
        rig.machine.wake_at(),
        None,
        "the boot on trial is not durable yet"
    );
    rig.run();
    assert_eq!(rig.serves(), [(2, 100)]);
}

#[test]
fn one_package_under_two_configurations_is_two_releases_and_a_boot_knows_the_values() {
    let (former, next) = (release(1).under(1), release(1).under(2));
    let values = |numbers: &[u64]| {
        let one = |number: &u64| {
            let value = [("LEVEL".to_owned(), number.to_string())];
            (*number, value.into_iter().collect())
        };
        numbers.iter().map(one).collect()
    };
    let spec = |rollout, releases: &[&ReleaseRef], numbers: &[u64]| ModuleSpec {
        releases: releases.iter().map(|release| (*release).clone()).collect(),
        routes: vec![(releases[0].id(), 100)],
        values: values(numbers),
        ..at_rest(rollout, &[])
    };
    let mut rig = Rig::new();
    rig.spec(1, spec(1, &[&former], &[1]));
    rig.run();
    assert!(rig.loaded.contains(&former.id()));
    rig.spec(2, spec(2, &[&next, &former], &[1, 2]));
    rig.run();
    assert!(
        rig.loaded.contains(&former.id()) && rig.loaded.contains(&next.id()),
        "both are loaded"
    );
    assert_eq!(rig.machine.statuses()[&module()].routes, [(next.id(), 100)]);
    let entry = rig.entry();
    assert_eq!(
        entry.values.keys().copied().collect::<Vec<_>>(),
        [2],
        "only what is served is kept"
    );
    assert_eq!(entry.values[&2]["LEVEL"], "2");
    assert_eq!(rig.values.last(), Some(&Some(entry.values[&2].clone())));
}

#[test]
fn once_it_was_asked_to_stop_nothing_is_due_any_more() {
    let mut rig = settled();
    rig.spec(2, on_trial(2, 2, Some(1), 100));
    rig.finish_write();
    rig.finish_prepare(digest(2), Ok(()));
    rig.finish_load(digest(2), Ok(()));
    rig.finish_write();
    assert!(rig.machine.wake_at().is_some(), "it settles");
    rig.input(NodeInput::Shutdown);
    assert_eq!(rig.machine.wake_at(), None);
}

#[test]
fn whoever_takes_time_to_enter_is_waited_for_before_it_settles_or_anything_else_is_routed() {
    let mut rig = settled();
    rig.spec(2, on_trial(2, 2, Some(1), 100));
    rig.finish_write();
    rig.finish_prepare(digest(2), Ok(()));
    rig.finish_load(digest(2), Ok(()));
    rig.finish_write();
    assert_eq!(rig.serves(), [(2, 100)]);
    rig.entering(2);
    rig.now = rig.now + SETTLE + SETTLE;
    rig.input(NodeInput::Tick);
    assert_eq!(rig.status()[&2], ReleaseStatus::Loading);
    rig.spec(3, at_rest(1, &[1]));
    rig.run();
    assert_eq!(rig.serves(), [(2, 100)], "nobody can be stopped while entering");
    rig.health(2, Ok(()));
    rig.run();
    assert_eq!(rig.serves(), [(1, 100)]);
    assert_eq!(rig.entry().committed, Some(release(1)));
}

#[test]
fn whoever_fails_to_enter_is_left_at_once_and_who_enters_settles_from_then_on() {
    let mut rig = settled();
    rig.spec(2, on_trial(2, 2, Some(1), 100));
    rig.finish_write();
    rig.finish_prepare(digest(2), Ok(()));
    rig.finish_load(digest(2), Ok(()));
    rig.finish_write();
    rig.entering(2);
    rig.health(2, Err("its start failed"));
    assert_eq!(rig.serves(), [(1, 100)]);
    rig.run();
    assert_eq!(rig.machine.vetoes().count(), 1);
    let mut rig = settled();
    rig.spec(2, at_rest(2, &[2, 1]));
    rig.finish_write();
    rig.finish_prepare(digest(2), Ok(()));
    rig.finish_load(digest(2), Ok(()));
    rig.finish_write();
    rig.entering(2);
    rig.now = rig.now + SETTLE + SETTLE;
    rig.health(2, Ok(()));
    assert_eq!(rig.entry().committed, Some(release(1)));
    rig.run();
    assert_eq!(rig.entry().committed, Some(release(2)));
}
