//! The audit log: all that was done is in it, and no change of it goes unseen.

use hotswap_server::audit::{Report, verify_file};
use hotswap_server::store::DATABASE_FILE;
use reqwest::{Method, StatusCode};
use rusqlite::{Connection, params};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::harness::{TestServer, deployment, package};

/// A server that did something of everything, ended: its folder.
async fn eventful() -> TempDir {
    let server = TestServer::start().await;
    let ada = server.user("ada", "Viewer").await;
    server.push(&package("pay", "1.0.0")).await;
    let id = server.deploy("1.0.0", "Development").await;
    server.ended(&id).await;
    let (status, _) = server
        .post("/api/v1/deployments", &deployment("pay", "9.9.9", "QA"))
        .await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    let denied = server
        .post_as(&ada, "/api/v1/deployments", &deployment("pay", "1.0.0", "QA"))
        .await;
    assert_eq!(denied.0, StatusCode::FORBIDDEN);
    let login = json!({ "username": "ada", "password": "wrong" });
    server
        .bare(Method::POST, "/api/v1/authentication/login")
        .json(&login)
        .send()
        .await
        .unwrap();
    server.post("/api/v1/keys/rotate", &json!({})).await;
    server
        .post("/api/v1/tokens", &json!({ "name": "ci", "role": "Viewer" }))
        .await;
    let TestServer { running, dir, .. } = server;
    running.shutdown().await.unwrap();
    dir
}

fn verified(dir: &TempDir) -> Report {
    verify_file(&dir.path().join(DATABASE_FILE)).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_has_its_entry_and_filters_find_it() {
    let dir = eventful().await;
    let server = TestServer::start_in(dir).await;
    let get = |query: &str| {
        let path = format!("/api/v1/audit?limit=1000&{query}");
        let server = &server;
        async move { server.get(&path).await.1.as_array().unwrap().clone() }
    };
    for (query, outcome, actor) in [
        ("kind=command&action=deploy&outcome=done", "done", json!("admin")),
        (
            "kind=command&action=deploy&outcome=unknown_version",
            "unknown_version",
            json!("admin"),
        ),
        ("kind=command&action=push", "done", json!("admin")),
        ("kind=denial&actor=ada", "role_required", json!("ada")),
        (
            "kind=login&actor=ada&outcome=wrongPassword",
            "wrongPassword",
            json!("ada"),
        ),
        ("kind=login&actor=admin&action=login", "done", json!("admin")),
        ("kind=key&action=rotateKey", "done", json!("admin")),
        ("kind=token&action=createToken", "done", json!("admin")),
        (
            "kind=account&action=createUser&actor=admin",
            "done",
            json!("admin"),
        ),
        ("kind=event&action=releasePushed", "done", json!("admin")),
        ("kind=server&action=start", "done", Value::Null),
    ] {
        let found = get(query).await;
        let first = found.first().unwrap_or_else(|| panic!("nothing for {query}"));
        assert_eq!(
            (&first["outcome"], &first["actor"]),
            (&json!(outcome), &actor),
            "{query}"
        );
    }
    let all = get("").await;
    let numbers: Vec<u64> = all.iter().map(|entry| entry["seq"].as_u64().unwrap()).collect();
    assert!(
        numbers.windows(2).all(|pair| pair[0] == pair[1] + 1),
        "newest first, without gaps"
    );
    // Pages join to the whole.
    let (mut path, mut paged) = ("/api/v1/audit?limit=7&kind=event".to_owned(), Vec::new());
    loop {
        let answer = server.request(Method::GET, &path).send().await.unwrap();
        let link = answer
            .headers()
            .get("link")
            .map(|link| link.to_str().unwrap().to_owned());
        paged.extend(answer.json::<Vec<Value>>().await.unwrap());
        let Some(link) = link else { break };
        path = link.split(['<', '>']).nth(1).unwrap().to_owned();
    }
    let events: Vec<&Value> = all.iter().filter(|entry| entry["kind"] == "event").collect();
    assert_eq!(paged.len(), events.len());
    let (status, body) = server
        .get("/api/v1/audit?kind=odd&from=now&cursor=x&deployment=1&limit=0")
        .await;
    assert_eq!(
        (status, body["details"].as_array().unwrap().len()),
        (StatusCode::BAD_REQUEST, 5),
        "{body:#}"
    );
    let (_, report) = server.get("/api/v1/audit/verify").await;
    assert_eq!(report["intact"], true, "{report:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_event_of_the_log_has_one_entry() {
    let dir = eventful().await;
    let report = verified(&dir);
    assert_eq!(report.faults, []);
    let connection = Connection::open(dir.path().join(DATABASE_FILE)).unwrap();
    let events: i64 = connection
        .query_row("select count(*) from event", [], |row| row.get(0))
        .unwrap();
    assert_eq!(i64::try_from(report.events).unwrap(), events);
    assert!(report.heads > 0, "the end was signed");
}

/// One byte of one column of one row, changed.
fn flip(connection: &Connection, table: &str, column: &str, row: i64, at: usize) {
    let sql = format!("select cast({column} as blob) from {table} where rowid = ?1");
    let mut bytes: Vec<u8> = connection.query_row(&sql, [row], |row| row.get(0)).unwrap();
    bytes[at] ^= 0x01;
    let kind = if column == "hash" || column == "signature" {
        "blob"
    } else {
        "text"
    };
    connection
        .execute(
            &format!("update {table} set {column} = cast(?2 as {kind}) where rowid = ?1"),
            params![row, bytes],
        )
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn one_flipped_byte_anywhere_is_found_and_named() {
    let dir = eventful().await;
    let file = dir.path().join(DATABASE_FILE);
    let connection = Connection::open(&file).unwrap();
    let (mut flips, mut rows) = (0, Vec::new());
    {
        let mut select = connection
            .prepare("select seq, length(cast(record as blob)) from audit order by seq")
            .unwrap();
        let found = select
            .query_map([], |row| {
                Ok((row.get::<_, i64>(0)?, row.get::<_, u32>(1)? as usize))
            })
            .unwrap();
        rows.extend(found.map(Result::unwrap));
    }
    let mut check = |table: &str, column: &str, row: i64, at: usize, entry: Option<i64>| {
        connection.execute_batch("savepoint before").unwrap();
        flip(&connection, table, column, row, at);
        let report = hotswap_server::audit::verify(&connection).unwrap();
        let named = report.faults.iter().any(|fault| {
            entry.is_none_or(|entry| fault.seq.and_then(|seq| i64::try_from(seq).ok()) == Some(entry))
        });
        assert!(named, "{table}.{column} of {row} at {at}: {:?}", report.faults);
        connection
            .execute_batch("rollback to before; release before")
            .unwrap();
        flips += 1;
    };
    // Every byte of some entries, and some bytes of every entry; every byte of some hashes.
    for (place, &(seq, length)) in rows.iter().enumerate() {
        let step = if place % 16 == 0 { 1 } else { length / 3 };
        for at in (0..length).step_by(step) {
            check("audit", "record", seq, at, Some(seq));
        }
        for at in [0, 15, 31] {
            check("audit", "hash", seq, at, Some(seq));
        }
    }
    // The log's own rows, by their entries' digests.
    let events: Vec<(i64, usize)> = {
        let mut select = connection.prepare("select seq, length(body) from event").unwrap();
        let found = select
            .query_map([], |row| Ok((row.get(0)?, row.get::<_, u32>(1)? as usize)))
            .unwrap();
        found.map(Result::unwrap).collect()
    };
    for (seq, length) in events {
        for at in (0..length).step_by(length / 4) {
            check("event", "body", seq, at, None);
        }
        check("event", "type", seq, 0, None);
    }
    for column in ["hash", "kid", "signature"] {
        let head: i64 = connection
            .query_row("select max(seq) from audit_head", [], |row| row.get(0))
            .unwrap();
        check("audit_head", column, head, 0, Some(head));
    }
    println!("{flips} flips, each found and named");
    drop(connection);
    assert_eq!(verified(&dir).faults, [], "each was undone");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_cut_out_or_off_or_written_anew_is_found() {
    let dir = eventful().await;
    let connection = Connection::open(dir.path().join(DATABASE_FILE)).unwrap();
    let last: i64 = connection
        .query_row("select max(seq) from audit", [], |row| row.get(0))
        .unwrap();
    for (what, sql, said) in [
        (
            "an entry in the middle",
            "delete from audit where seq = 5".to_owned(),
            "entry 5 is missing",
        ),
        (
            "the end",
            format!("delete from audit where seq > {}", last - 3),
            "cut off",
        ),
        (
            "an event",
            "delete from event where seq = 3".to_owned(),
            "event 3",
        ),
        (
            "an event's time",
            "update event set wall = wall + 1 where seq = 4".to_owned(),
            "event 4 of the log is not",
        ),
        (
            "a number",
            format!("update audit set seq = {} where seq = 7", last + 7),
            "entry 7 is missing",
        ),
        (
            "two swapped",
            "update audit set record = (select record from audit where seq = 9) where seq = 8".to_owned(),
            "entry 9",
        ),
    ] {
        connection.execute_batch("savepoint before").unwrap();
        connection.execute_batch(&sql).unwrap();
        let report = hotswap_server::audit::verify(&connection).unwrap();
        let told = report.faults.iter().any(|fault| fault.what.contains(said));
        assert!(told, "{what}: {:?}", report.faults);
        connection
            .execute_batch("rollback to before; release before")
            .unwrap();
    }
    // Somebody who can compute hashes writes the chain anew, and is found by the signed head.
    connection.execute_batch("savepoint before").unwrap();
    let mut former = hotswap_server::audit::GENESIS;
    for seq in 1..=last {
        let mut record: String = connection
            .query_row("select record from audit where seq = ?1", [seq], |row| row.get(0))
            .unwrap();
        if seq == 2 {
            record = record.replace("\"outcome\":\"done\"", "\"outcome\":\"gone\"");
        }
        former = hotswap_server::audit::hash_of(&former, record.as_bytes());
        connection
            .execute(
                "update audit set record = ?2, hash = ?3 where seq = ?1",
                params![seq, record, former],
            )
            .unwrap();
    }
    let report = hotswap_server::audit::verify(&connection).unwrap();
    assert!(
        report
            .faults
            .iter()
            .any(|fault| fault.what.contains("signed head")),
        "{:?}",
        report.faults
    );
    connection
        .execute_batch("rollback to before; release before")
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_runs_is_verified_too_and_goes_on_after() {
    let dir = eventful().await;
    let before = verified(&dir).entries;
    let server = TestServer::start_in(dir).await;
    let running = verified(&server.dir);
    assert_eq!(running.faults, []);
    assert!(running.entries > before);
}
