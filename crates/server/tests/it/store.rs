//! The log on disk.

use hotswap_core::desired::EPOCH_STEP_MAX;
use hotswap_core::event::{Event, Logged};
use hotswap_core::state::State;
use hotswap_core::time::{CoreTime, WallTime};
use hotswap_server::store::{
    Answer, Batch, Entry, FirstAnswer, IdempotencyKey, SqliteStore, Store as _, StoreError,
};
use tempfile::TempDir;

fn batch(epoch: u64, first: u64, count: u64) -> Batch {
    let entry = |seq| Entry {
        logged: Logged {
            seq,
            epoch,
            at: CoreTime(seq * 10),
            wall: WallTime(seq * 100),
            event: Event::EpochStarted { epoch },
        },
        deployment: None,
    };
    Batch {
        epoch,
        epoch_after: epoch,
        events: (first..first + count).map(entry).collect(),
        ..Batch::default()
    }
}

#[tokio::test]
async fn what_was_committed_is_there_after_opening_again() {
    let dir = TempDir::new().unwrap();
    let store = SqliteStore::open(dir.path()).unwrap();
    let first = store.lead().await.unwrap();
    assert_eq!((first.epoch, first.next_seq), (1, 1));
    let key = IdempotencyKey {
        scope: "s".to_owned(),
        key: "k".to_owned(),
        fingerprint: "f".to_owned(),
    };
    let answer = Answer {
        status: 202,
        location: None,
        body: serde_json::json!({ "a": 1 }),
    };
    let kept = FirstAnswer {
        key,
        wall: WallTime(7),
        answer,
    };
    store
        .commit(Batch {
            answers: vec![kept.clone()],
            ..batch(1, 1, 3)
        })
        .await
        .unwrap();
    store
        .keep_snapshot(State {
            seq: 3,
            ..State::default()
        })
        .await
        .unwrap();
    drop(store);

    let store = reopen(&dir).await;
    let second = store.lead().await.unwrap();
    assert!(second.epoch > first.epoch && second.epoch <= first.epoch + EPOCH_STEP_MAX);
    assert_eq!(second.next_seq, 4);
    let events = store.events_after(1).await.unwrap();
    assert_eq!(events.iter().map(|event| event.seq).collect::<Vec<_>>(), [2, 3]);
    assert_eq!(events[0], batch(1, 2, 1).events[0].logged);
    assert_eq!(store.snapshot().await.unwrap().unwrap().seq, 3);
    assert_eq!(
        store.first_answer("s".to_owned(), "k".to_owned()).await.unwrap(),
        Some(kept)
    );
    assert_eq!(
        store
            .first_answer("other".to_owned(), "k".to_owned())
            .await
            .unwrap(),
        None
    );
}

/// The writer's thread lets go of the directory a moment after the last handle is dropped.
async fn reopen(dir: &TempDir) -> SqliteStore {
    for _ in 0..1_000 {
        match SqliteStore::open(dir.path()) {
            Err(StoreError::InUse(_)) => tokio::task::yield_now().await,
            opened => return opened.unwrap(),
        }
    }
    panic!("the directory stayed in use");
}

#[tokio::test]
async fn a_former_leader_is_fenced_and_a_gap_is_refused() {
    let dir = TempDir::new().unwrap();
    let store = SqliteStore::open(dir.path()).unwrap();
    store.lead().await.unwrap();
    store.commit(batch(1, 1, 1)).await.unwrap();
    let second = store.lead().await.unwrap().epoch;
    assert!(matches!(
        store.commit(batch(1, 2, 1)).await,
        Err(StoreError::Fenced { mine: 1 })
    ));
    assert!(matches!(
        store.commit(batch(second, 3, 1)).await,
        Err(StoreError::Gap {
            expected_after: 1,
            found: 3
        })
    ));
    store.commit(batch(second, 2, 1)).await.unwrap();
    assert_eq!(
        store.events_after(0).await.unwrap().len(),
        2,
        "what was refused left nothing behind"
    );
}

#[tokio::test]
async fn a_directory_is_used_by_one_server() {
    let dir = TempDir::new().unwrap();
    let _store = SqliteStore::open(dir.path()).unwrap();
    let error = SqliteStore::open(dir.path()).err().unwrap();
    assert!(matches!(error, StoreError::InUse(_)));
    assert!(
        error
            .to_string()
            .contains("stop that one or give another directory"),
        "{error}"
    );
}

fn sql(dir: &TempDir, statement: &str) {
    let connection = rusqlite::Connection::open(dir.path().join("hotswap.db")).unwrap();
    connection.execute_batch(statement).unwrap();
}

#[tokio::test]
async fn another_versions_data_is_left_alone() {
    let dir = TempDir::new().unwrap();
    drop(SqliteStore::open(dir.path()).unwrap());
    reopen(&dir).await;
    sql(&dir, "pragma user_version = 99");
    let error = loop {
        match SqliteStore::open(dir.path()).err().unwrap() {
            StoreError::InUse(_) => tokio::task::yield_now().await,
            error => break error,
        }
    };
    assert!(
        matches!(error, StoreError::FutureSchema { found: 99, .. }),
        "{error}"
    );
    assert!(error.to_string().contains("newer hotswap"), "{error}");

    let foreign = TempDir::new().unwrap();
    sql(&foreign, "create table theirs (id integer)");
    assert!(matches!(
        SqliteStore::open(foreign.path()),
        Err(StoreError::NotOurs(_))
    ));
    let text = TempDir::new().unwrap();
    std::fs::write(
        text.path().join("hotswap.db"),
        "not a database at all, whatever its name says",
    )
    .unwrap();
    assert!(matches!(
        SqliteStore::open(text.path()),
        Err(StoreError::NotOurs(_))
    ));
}

#[tokio::test]
async fn an_event_from_the_future_is_named() {
    let dir = TempDir::new().unwrap();
    let store = SqliteStore::open(dir.path()).unwrap();
    store.lead().await.unwrap();
    store.commit(batch(1, 1, 1)).await.unwrap();
    sql(
        &dir,
        "insert into event values (2, 1, 0, 0, 'moonLanded', null, '{\"type\":\"moonLanded\"}');
         update log_head set next_seq = 3",
    );
    let error = store.events_after(0).await.unwrap_err();
    assert!(
        matches!(&error, StoreError::UnknownEvent { seq: 2, kind, .. } if kind == "moonLanded"),
        "{error}"
    );
    sql(
        &dir,
        "delete from event where seq = 1; update event set body = '{\"type\":\"epochStarted\",\"epoch\":1}'",
    );
    assert!(matches!(
        store.events_after(0).await,
        Err(StoreError::Gap {
            expected_after: 0,
            found: 2
        })
    ));
}

#[tokio::test]
async fn a_snapshot_that_cannot_be_read_costs_time_only() {
    let dir = TempDir::new().unwrap();
    let store = SqliteStore::open(dir.path()).unwrap();
    for seq in [1, 2, 3] {
        store
            .keep_snapshot(State {
                seq,
                ..State::default()
            })
            .await
            .unwrap();
    }
    sql(&dir, "update snapshot set state = '{}' where seq = 3");
    assert_eq!(store.snapshot().await.unwrap().unwrap().seq, 2);
    sql(&dir, "update snapshot set state = 'x'");
    assert_eq!(store.snapshot().await.unwrap(), None);
}

#[tokio::test]
async fn old_events_are_forgotten_up_to_the_oldest_snapshot_without_a_gap() {
    let dir = TempDir::new().unwrap();
    let store = SqliteStore::open(dir.path()).unwrap();
    store.lead().await.unwrap();
    store.commit(batch(1, 1, 9)).await.unwrap();
    let left = async || {
        let events = store.events_after(0).await;
        events.map(|events| events.iter().map(|event| event.seq).collect::<Vec<_>>())
    };
    // Without a snapshot nothing may go.
    assert_eq!(store.forget_events(WallTime(u64::MAX)).await.unwrap(), 0);
    for seq in [4, 6] {
        store
            .keep_snapshot(State {
                seq,
                ..State::default()
            })
            .await
            .unwrap();
    }
    // Events 1 and 2 are older than that, and both snapshots hold them.
    assert_eq!(store.forget_events(WallTime(300)).await.unwrap(), 2);
    assert!(
        left().await.is_err(),
        "a reader from before what is left is told of the gap"
    );
    assert_eq!(store.events_after(2).await.unwrap().len(), 7);
    // All are older; the oldest snapshot is the limit.
    assert_eq!(store.forget_events(WallTime(u64::MAX)).await.unwrap(), 2);
    assert_eq!(store.events_after(4).await.unwrap()[0].seq, 5);
    assert_eq!(store.forget_events(WallTime(u64::MAX)).await.unwrap(), 0);
    drop(store);
    reopen(&dir).await.commit(batch(1, 10, 1)).await.unwrap();
}
