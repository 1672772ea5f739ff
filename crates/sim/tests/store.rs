//! The simulated store keeps the contract of the real one.

use hotswap_core::event::{Event, Logged};
use hotswap_core::ids::FleetId;
use hotswap_core::time::{CoreTime, WallTime};
use hotswap_sim::store::{Answer, Draft, Refused, Store};

fn logged(seq: u64, epoch: u64, event: Event) -> Logged {
    Logged {
        seq,
        epoch,
        at: CoreTime(seq),
        wall: WallTime(1_000 + seq),
        event,
    }
}

/// A batch of two events that begins an epoch.
fn batch(from: u64, epoch: u64) -> Draft {
    let mut draft = Draft::default();
    let fleet = FleetId(uuid::Uuid::from_u128(9));
    draft.push(logged(from, epoch, Event::EpochStarted { epoch }));
    draft.push(logged(from + 1, epoch, Event::FleetCreated { fleet }));
    draft
}

fn led() -> (Store, u64) {
    let mut store = Store::default();
    let epoch = store.lead(false, 1).unwrap().epoch;
    (store, epoch)
}

#[test]
fn a_former_leader_is_fenced() {
    let (mut store, old) = led();
    store.commit(&batch(1, old), old, old).unwrap();
    let new = store.lead(false, 1).unwrap();
    assert_eq!((new.epoch, new.state.seq), (old + 1, 2));
    assert_eq!(store.commit(&batch(3, old), old, old), Err(Refused::Fenced));
    store.commit(&batch(3, new.epoch), new.epoch, new.epoch).unwrap();
    assert_eq!(store.fold().unwrap().seq, 4);
}

#[test]
fn numbers_have_no_gaps() {
    let (mut store, epoch) = led();
    let refused = store.commit(&batch(2, epoch), epoch, epoch);
    assert!(matches!(refused, Err(Refused::Gap(_))), "{refused:?}");
    assert_eq!(store.next_seq(), 1);
}

#[test]
fn wherever_a_batch_is_torn_nothing_of_it_is_read() {
    for thousandths in 0..=1_000 {
        let (mut store, epoch) = led();
        store.commit(&batch(1, epoch), epoch, epoch).unwrap();
        store.tear(&batch(3, epoch), thousandths);
        let found = store.lead(false, 1).unwrap();
        assert_eq!(found.state.seq, 2, "torn at {thousandths}");
        store
            .commit(&batch(3, found.epoch), found.epoch, found.epoch)
            .unwrap();
        assert_eq!(store.events().unwrap().len(), 4);
    }
}

#[test]
fn first_answers_are_there_with_their_batch_or_not_at_all() {
    let (mut store, epoch) = led();
    let answer = Answer {
        deployment: None,
        refused: Some("no".to_owned()),
    };
    let mut draft = batch(1, epoch);
    draft.answers.push((7, answer.clone()));
    store.tear(&draft, 999);
    let epoch = store.lead(false, 1).unwrap().epoch;
    assert_eq!(store.answer(7), None);
    let mut draft = batch(1, epoch);
    draft.answers.push((7, answer.clone()));
    store.commit(&draft, epoch, epoch).unwrap();
    store.lead(false, 1).unwrap();
    assert_eq!(store.answer(7), Some(&answer));
}

#[test]
fn a_full_disk_changes_nothing_and_is_written_to_again_when_there_is_room() {
    let (mut store, epoch) = led();
    store.full = true;
    assert_eq!(store.commit(&batch(1, epoch), epoch, epoch), Err(Refused::Full));
    assert_eq!(store.fold().unwrap().seq, 0);
    store.full = false;
    store.commit(&batch(1, epoch), epoch, epoch).unwrap();
    assert_eq!(store.fold().unwrap().seq, 2);
}

#[test]
fn a_snapshot_and_its_tail_fold_to_what_the_whole_log_does() {
    let (mut store, epoch) = led();
    store.commit(&batch(1, epoch), epoch, epoch).unwrap();
    let state = store.fold().unwrap();
    store.keep_snapshot(&state);
    store.commit(&batch(3, epoch), epoch, epoch).unwrap();
    let found = store.lead(true, 1).unwrap();
    assert!(found.from_snapshot);
    assert_eq!(found.state, store.fold().unwrap());
}

#[test]
fn a_backup_put_back_is_the_log_as_it_was() {
    let (mut store, epoch) = led();
    store.commit(&batch(1, epoch), epoch, epoch).unwrap();
    let (backup, then) = (store.backup(), store.fold().unwrap());
    store.commit(&batch(3, epoch), epoch, epoch).unwrap();
    store.restore(backup).unwrap();
    assert_eq!(store.fold().unwrap(), then);
    assert_eq!(store.next_seq(), 3);
}
