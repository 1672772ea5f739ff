//! The session with the server: it is there, or it is being tried again. Nothing on the node waits for it.

use std::time::Duration;

use hotswap_wire::pb::agent_service_client::AgentServiceClient;
use hotswap_wire::{MESSAGE_BYTES_MAX, ServerMessage, pb};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint};

/// Reports under way to the server at once; then the next one waits and takes in what happens meanwhile.
const REPORTS_QUEUED_MAX: usize = 4;
/// Messages of the server that wait for the driver.
pub(crate) const EVENTS_QUEUED_MAX: usize = 64;
/// Longest time for a connection, and for the server's first answer.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(10);
/// A line that carried nothing for so long is asked whether it stands.
const KEEPALIVE_EVERY: Duration = Duration::from_secs(10);
/// How long an answer to that may take.
const KEEPALIVE_TIME_MAX: Duration = Duration::from_secs(10);
/// First and longest wait before another try; each is drawn between half of it and all of it.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(15));
/// A session that stood for so long was a good one: the next try is soon.
const GOOD_AFTER: Duration = Duration::from_secs(5);

/// What happens to the session.
#[derive(Debug)]
pub(crate) enum SessionEvent {
    /// One is being opened; a full report goes first. Reports go here until the next event of this kind.
    Opening(mpsc::Sender<pb::AgentMessage>),
    /// The server spoke.
    Heard(ServerMessage),
    /// It ended, or could not be opened. It is tried again.
    Closed,
}

/// A line to the server that is made when it is needed, and again when it broke.
pub(crate) fn channel(server: http::Uri) -> Channel {
    Endpoint::from(server)
        .connect_timeout(CONNECT_TIME_MAX)
        .http2_keep_alive_interval(KEEPALIVE_EVERY)
        .keep_alive_timeout(KEEPALIVE_TIME_MAX)
        .keep_alive_while_idle(true)
        .tcp_nodelay(true)
        .connect_lazy()
}

/// Keeps a session up until it is cancelled.
pub(crate) async fn run(channel: Channel, events: mpsc::Sender<SessionEvent>, stop: CancellationToken) {
    let mut tries: u32 = 0;
    loop {
        let began = Instant::now();
        let ended = tokio::select! {
            () = stop.cancelled() => return,
            ended = one_session(channel.clone(), &events) => ended,
        };
        if events.send(SessionEvent::Closed).await.is_err() {
            return;
        }
        tries = if ended.heard && began.elapsed() >= GOOD_AFTER {
            0
        } else {
            tries.saturating_add(1)
        };
        let wait = backoff(tries, fastrand::u16(..));
        // A server that is away for long is said once in a while, not at every try.
        if tries <= 1 || tries.is_power_of_two() {
            tracing::warn!(why = %ended.why, tries, next_try_in = ?wait, "no session with the server; what runs goes on");
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(wait) => {}
        }
    }
}

/// How a session ended.
struct Ended {
    /// Whether the server had said anything in it.
    heard: bool,
    why: String,
}

async fn one_session(channel: Channel, events: &mpsc::Sender<SessionEvent>) -> Ended {
    let mut heard = false;
    let ended = |heard, why: String| Ended { heard, why };
    let (reports, outgoing) = mpsc::channel(REPORTS_QUEUED_MAX);
    if events.send(SessionEvent::Opening(reports)).await.is_err() {
        return ended(heard, "the agent is stopping".to_owned());
    }
    let mut client = AgentServiceClient::new(channel)
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX);
    let opening = timeout(CONNECT_TIME_MAX, client.session(ReceiverStream::new(outgoing)));
    let mut incoming = match opening.await {
        Ok(Ok(response)) => response.into_inner(),
        Ok(Err(status)) => return ended(heard, told(&status)),
        Err(_) => {
            return ended(
                heard,
                format!("the server did not answer within {CONNECT_TIME_MAX:?}"),
            );
        }
    };
    loop {
        let message = match incoming.message().await {
            Ok(Some(message)) => message.read(),
            Ok(None) => return ended(heard, "the server ended it".to_owned()),
            Err(status) => return ended(heard, told(&status)),
        };
        heard = true;
        match message {
            Ok(None) => {}
            Ok(Some(message)) => {
                if events.send(SessionEvent::Heard(message)).await.is_err() {
                    return ended(heard, "the agent is stopping".to_owned());
                }
            }
            Err(malformed) => tracing::error!(%malformed, "the server's message was not taken"),
        }
    }
}

/// A status with its causes, which hold what the network said.
fn told(status: &tonic::Status) -> String {
    let mut text = format!("{:?}: {}", status.code(), status.message());
    let mut cause = std::error::Error::source(status);
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.contains(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        cause = error.source();
    }
    text
}

/// The wait before a try: doubled each time up to its limit, and drawn, so that a fleet doesn't return at once.
fn backoff(tries: u32, draw: u16) -> Duration {
    let whole = BACKOFF
        .0
        .saturating_mul(1 << tries.saturating_sub(1).min(16))
        .min(BACKOFF.1);
    whole / 2 + whole.mul_f64(f64::from(draw) / f64::from(u16::MAX)) / 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_doubles_up_to_its_limit_and_is_drawn() {
        assert_eq!(backoff(0, u16::MAX), BACKOFF.0);
        assert_eq!(backoff(1, u16::MAX), BACKOFF.0);
        assert_eq!(backoff(3, u16::MAX), BACKOFF.0 * 4);
        assert_eq!(backoff(3, 0), BACKOFF.0 * 2);
        assert_eq!(backoff(u32::MAX, u16::MAX), BACKOFF.1);
    }
}
