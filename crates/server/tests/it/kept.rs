//! What a released version kept must be read by every later one: a server's database, as SQL, in `fixtures/v1`.
//!
//! `BLESS=1 cargo nextest run --release --workspace -E 'package(hotswap-server) and test(kept)'` writes it anew, which is
//! right until a version with it is released; from then on the next version gets a folder of its own.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use rusqlite::Connection;
use tempfile::TempDir;

use crate::agent::{FakeNode, Fares};
use crate::harness::{TestServer, package};

const DATABASE: &str = "hotswap.db";

fn fixture() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/v1/database.sql")
}

/// A database as statements that make it again.
fn dump(path: &Path) -> String {
    let connection = Connection::open(path).unwrap();
    let mut text = String::new();
    for name in ["application_id", "user_version"] {
        let value = connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
        writeln!(text, "pragma {name} = {};", value.unwrap()).unwrap();
    }
    let mut statement = connection
        .prepare("select type, name, sql from sqlite_schema where sql is not null and name not like 'sqlite_%' order by rowid")
        .unwrap();
    let kept = statement
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
        .unwrap();
    let kept: Vec<(String, String, String)> = kept.map(Result::unwrap).collect();
    for (_, _, sql) in kept.iter().filter(|(kind, ..)| kind == "table") {
        writeln!(text, "{sql};").unwrap();
    }
    for (_, table, _) in kept.iter().filter(|(kind, ..)| kind == "table") {
        rows(&connection, table, &mut text);
    }
    for (_, _, sql) in kept.iter().filter(|(kind, ..)| kind != "table") {
        writeln!(text, "{sql};").unwrap();
    }
    text
}

fn rows(connection: &Connection, table: &str, text: &mut String) {
    let mut columns = connection
        .prepare("select name from pragma_table_info(?1)")
        .unwrap();
    let columns: Vec<String> = columns
        .query_map([table], |row| row.get(0))
        .unwrap()
        .map(Result::unwrap)
        .collect();
    let quoted: Vec<String> = columns
        .iter()
        .map(|column| format!("quote(\"{column}\")"))
        .collect();
    let query = format!("select {} from \"{table}\"", quoted.join(" || ', ' || "));
    let mut rows = connection.prepare(&query).unwrap();
    for row in rows.query_map([], |row| row.get::<_, String>(0)).unwrap() {
        writeln!(text, "insert into \"{table}\" values ({});", row.unwrap()).unwrap();
    }
}

async fn bless() {
    let server = TestServer::start().await;
    let _node = FakeNode::join(server.running.agents_addr(), "n1", "Development", Fares::Well).await;
    server.push(&package("pay", "1.0.0")).await;
    server.deploy("1.0.0", "Development").await;
    let runs = |node: &serde_json::Value| node["modules"][0]["routes"][0]["version"] == "1.0.0";
    server.until("/api/v1/nodes/n1", runs).await;
    server.user("vera", "Viewer").await;
    server.running.shutdown().await.unwrap();
    std::fs::create_dir_all(fixture().parent().unwrap()).unwrap();
    std::fs::write(fixture(), dump(&server.dir.path().join(DATABASE))).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kept_database_is_led_and_shown() {
    if std::env::var_os("BLESS").is_some() {
        bless().await;
    }
    let dir = TempDir::new().unwrap();
    let text = std::fs::read_to_string(fixture()).expect("there is a fixture");
    let made = Connection::open(dir.path().join(DATABASE)).unwrap();
    made.execute_batch(&text).unwrap();
    drop(made);

    let server = TestServer::start_in(dir).await;
    let (status, deployments) = server.get("/api/v1/deployments").await;
    assert!(status.is_success(), "{deployments:#}");
    assert_eq!(deployments[0]["moduleName"], "pay", "{deployments:#}");
    let (status, node) = server.get("/api/v1/nodes/n1").await;
    assert!(status.is_success(), "{node:#}");
    let (_, users) = server.get("/api/v1/users").await;
    assert!(users.to_string().contains("vera"), "{users:#}");
    server.running.shutdown().await.unwrap();
}
