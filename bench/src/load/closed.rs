//! Full load: every connection sends its next request as soon as the last was answered.

use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::time::Instant;

use super::{Connection, Measured, Target};

/// Failures of one connection after which it gives up, so that a dead server ends the run.
const FAILURES_MAX: u64 = 100;

/// Asks over so many connections for so long.
pub(crate) async fn closed(target: &Target, connections: usize, time: Duration) -> Result<Measured> {
    let mut open = Vec::new();
    for _ in 0..connections {
        open.push(
            Connection::open(&target.endpoint)
                .await
                .context("failed to connect")?,
        );
    }
    let began = Instant::now();
    let asking: Vec<_> = open
        .into_iter()
        .map(|connection| tokio::spawn(ask(connection, target.clone(), began + time)))
        .collect();
    let mut sum = Measured::default();
    for one in asking {
        sum.merge(one.await.context("a connection's task panicked")?);
    }
    Ok(sum.over(began.elapsed()))
}

async fn ask(mut connection: Connection, target: Target, end: Instant) -> Measured {
    let mut measured = Measured::default();
    while measured.failed < FAILURES_MAX {
        let began = Instant::now();
        if began >= end {
            break;
        }
        match connection.ask(&target.request).await {
            Ok(answer) if answer.status == target.status => measured.record(began.elapsed()),
            Ok(answer) => measured.fail(told(&connection, &answer)),
            Err(error) => {
                measured.fail(error.to_string());
                match Connection::open(&target.endpoint).await {
                    Ok(again) => connection = again,
                    Err(error) => {
                        measured.fail(error.to_string());
                        break;
                    }
                }
            }
        }
    }
    measured
}

pub(super) fn told(connection: &Connection, answer: &super::Answer) -> String {
    let body = String::from_utf8_lossy(connection.body(answer));
    format!("{} {}", answer.status, body.chars().take(300).collect::<String>())
}
