//! Each check can fail.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::event::{Event, Logged};
use crate::ids::{Digest, ReleaseRef, RolloutId};
use crate::reconcile::{Entry, KeptVeto, Share};
use crate::report::Veto;
use crate::spec::{ModuleSpec, NodeSpec};
use crate::state::State;
use crate::time::{CoreTime, Millis, WallTime};

fn digest(n: u8) -> Digest {
    Digest([n; 32])
}

fn release(n: u8) -> ReleaseRef {
    ReleaseRef {
        version: semver::Version::new(u64::from(n), 0, 0),
        digest: digest(n),
        config: 0,
    }
}

fn spec(candidate: u8, base: u8) -> ModuleSpec {
    ModuleSpec {
        rollout: RolloutId(3),
        trial: true,
        releases: vec![release(candidate), release(base)],
        values: BTreeMap::new(),
        prefetch: Vec::new(),
        routes: vec![(digest(candidate), 100)],
        preview: None,
        settle: Millis(1),
        smoke: None,
        observe: None,
    }
}

#[test]
fn a_name_reads_as_in_the_list() {
    assert_eq!(Invariant::S7StopMeansStop.to_string(), "S7 stop means stop");
    assert_eq!(Invariant::S14Separation.to_string(), "S14 separation");
}

#[test]
fn node_checks_fail_on_what_they_are_for() {
    let node = "n1".parse().unwrap();
    let module: crate::ids::ModuleName = "shop".parse().unwrap();
    let (both, none, ill) = (
        BTreeSet::from([digest(1), digest(2)]),
        BTreeSet::new(),
        BTreeSet::from([digest(2)]),
    );
    let entry = Entry {
        serving: vec![Share {
            release: release(1),
            weight: 100,
        }],
        committed: Some(release(1)),
        trial: None,
        values: BTreeMap::new(),
    };
    let told = spec(2, 1);
    let serves_one = [(digest(1), 100)];
    let serves_two = [(digest(2), 100)];
    let good = NodeTruth {
        node: &node,
        module: &module,
        routes: &serves_one,
        loaded: &both,
        ill: &none,
        place: InPlace::Unknown,
        verified: &both,
        durable: Some(&entry),
        intended: Some(&entry),
        vetoes: &[],
        spec: Some(&told),
    };
    node::check(&good).unwrap();
    let invariant = |truth: NodeTruth<'_>| node::check(&truth).unwrap_err().invariant;
    assert_eq!(invariant(NodeTruth { routes: &[], ..good }), Invariant::A1Serves);
    assert_eq!(
        invariant(NodeTruth {
            routes: &[(digest(1), 99)],
            ..good
        }),
        Invariant::A2Atomic
    );
    assert_eq!(
        invariant(NodeTruth {
            loaded: &none,
            ..good
        }),
        Invariant::A2Atomic
    );
    assert_eq!(
        invariant(NodeTruth {
            routes: &serves_two,
            ill: &ill,
            ..good
        }),
        Invariant::A3Left
    );
    let veto = Veto {
        module: module.clone(),
        rollout: RolloutId(3),
        release: release(2),
        base: Some(release(1)),
        reason: String::new(),
    };
    let kept = [KeptVeto { veto, acked: false }];
    assert_eq!(
        invariant(NodeTruth {
            routes: &serves_two,
            vetoes: &kept,
            ..good
        }),
        Invariant::A8VetoHolds
    );
    let verified = BTreeSet::from([digest(1)]);
    assert_eq!(
        invariant(NodeTruth {
            verified: &verified,
            ..good
        }),
        Invariant::A4Verified
    );
    let unknown = spec(2, 1);
    let unrecorded = NodeTruth {
        routes: &serves_two,
        spec: Some(&unknown),
        ..good
    };
    assert_eq!(
        node::a2_recorded(&serves_one, &unrecorded).unwrap_err().invariant,
        Invariant::A2Atomic
    );
    node::a2_recorded(&serves_two, &unrecorded).unwrap();
    let gap = node::a7_answered(&serves_one, &NodeTruth { routes: &[], ..good });
    assert_eq!(gap.unwrap_err().invariant, Invariant::A7Answered);
    for place in [InPlace::Nobody, InPlace::Release(digest(2))] {
        assert_eq!(invariant(NodeTruth { place, ..good }), Invariant::A9InPlace);
    }
    let place = InPlace::Release(digest(1));
    node::check(&NodeTruth { place, ..good }).unwrap();
    let told_ill = NodeTruth {
        ill: &ill,
        routes: &serves_two,
        place,
        ..good
    };
    node::a9_in_place(&told_ill).unwrap();
    let again = node::a10_not_again(&node, &module, &digest(2), &ill).unwrap_err();
    assert_eq!(again.invariant, Invariant::A10NotAgain);
    node::a10_not_again(&node, &module, &digest(1), &ill).unwrap();
}

#[test]
fn generations_must_grow_and_mean_one_thing() {
    let make = |seq, modules: &[ModuleSpec]| NodeSpec {
        fleet: crate::ids::FleetId(uuid::Uuid::nil()),
        generation: crate::spec::Generation { epoch: 1, seq },
        modules: modules
            .iter()
            .map(|spec| ("shop".parse().unwrap(), spec.clone()))
            .collect(),
        traces: std::collections::BTreeMap::new(),
    };
    let (old, new) = (make(1, &[]), make(2, &[spec(1, 2)]));
    state::s4_generations(Some(&old), &new).unwrap();
    state::s4_generations(Some(&new), &new).unwrap();
    assert!(state::s4_generations(Some(&new), &old).is_err());
    assert!(state::s4_generations(Some(&new), &make(2, &[])).is_err());
}

#[test]
fn the_log_has_no_gap_and_no_older_epoch() {
    let before = State {
        seq: 4,
        epoch: 2,
        at: CoreTime(10),
        ..State::default()
    };
    let event = |seq, epoch, at| Logged {
        seq,
        epoch,
        at: CoreTime(at),
        wall: WallTime(0),
        event: Event::EpochStarted { epoch: 3 },
    };
    step::s9_log(&before, &event(5, 2, 10)).unwrap();
    assert!(step::s9_log(&before, &event(6, 2, 10)).is_err());
    assert!(step::s9_log(&before, &event(5, 2, 9)).is_err());
    step::s11_fencing(&before, &event(5, 2, 10)).unwrap();
    assert!(step::s11_fencing(&before, &event(5, 1, 10)).is_err());
}
