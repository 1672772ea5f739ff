//! A connection for every request.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tokio::time::Instant;

use super::{Connection, Measured, Target};

/// Asks for so long, one request after the other, each over a connection of its own; an answer's time counts from before
/// its connection was made.
pub(crate) async fn anew(target: &Target, time: Duration) -> Result<Measured> {
    let began = Instant::now();
    let mut measured = Measured::default();
    while began.elapsed() < time {
        let from = Instant::now();
        let mut connection = Connection::open(&target.endpoint)
            .await
            .context("failed to connect")?;
        let answer = connection.ask(&target.request).await?;
        ensure!(
            answer.status == target.status,
            "{}",
            super::closed::told(&connection, &answer)
        );
        measured.record(from.elapsed());
    }
    Ok(measured.over(began.elapsed()))
}
