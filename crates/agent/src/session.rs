//! The session with the server: it is there, or it is being tried again. Nothing on the node waits for it.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use hotswap_core::time::Millis;
use hotswap_wire::pb::agent_service_client::AgentServiceClient;
use hotswap_wire::{MESSAGE_BYTES_MAX, ServerMessage, pb};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;

use crate::credential::{CONNECT_TIME_MAX, Credential, ServerLine};

/// Reports under way to the server at once; then the next one waits and takes in what happens meanwhile.
const REPORTS_QUEUED_MAX: usize = 4;
/// Messages of the server that wait for the driver.
pub(crate) const EVENTS_QUEUED_MAX: usize = 64;
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

/// A line to the server, and who this node is on it; `None` without TLS.
#[derive(Clone)]
pub(crate) struct Way {
    pub(crate) line: ServerLine,
    pub(crate) credential: Option<Arc<Credential>>,
}

impl Way {
    fn told(&self, status: &tonic::Status) -> String {
        match &self.credential {
            Some(credential) => credential.told(status),
            None => told(status),
        }
    }
}

/// Keeps a session up until it is cancelled, and the certificate that it stands on.
pub(crate) async fn run(way: Way, events: mpsc::Sender<SessionEvent>, stop: CancellationToken) {
    let mut tries: u32 = 0;
    loop {
        let began = Instant::now();
        let ended = tokio::select! {
            () = stop.cancelled() => return,
            ended = one_session(&way, &events) => ended,
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

async fn one_session(way: &Way, events: &mpsc::Sender<SessionEvent>) -> Ended {
    let mut heard = false;
    let ended = |heard, why: String| Ended { heard, why };
    if let Some(credential) = &way.credential {
        match credential.ready().await {
            Ok(false) => {}
            Ok(true) => way.line.begin_anew(),
            Err(why) => return ended(heard, why),
        }
    }
    let (reports, outgoing) = mpsc::channel(REPORTS_QUEUED_MAX);
    if events.send(SessionEvent::Opening(reports)).await.is_err() {
        return ended(heard, "the agent is stopping".to_owned());
    }
    let mut client = AgentServiceClient::new(way.line.channel())
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX);
    let opening = timeout(CONNECT_TIME_MAX, client.session(ReceiverStream::new(outgoing)));
    let mut incoming = match opening.await {
        Ok(Ok(response)) => response.into_inner(),
        Ok(Err(status)) => return ended(heard, way.told(&status)),
        Err(_) => {
            return ended(
                heard,
                format!("the server did not answer within {CONNECT_TIME_MAX:?}"),
            );
        }
    };
    let mut renewals = Renewals::new(way);
    loop {
        let message = tokio::select! {
            () = renewals.go_on() => continue,
            message = incoming.message() => match message {
                Ok(Some(message)) => message.read(),
                Ok(None) => return ended(heard, "the server ended it".to_owned()),
                Err(status) => return ended(heard, way.told(&status)),
            },
        };
        heard = true;
        if let Ok(Some(ServerMessage::Settings(settings))) = &message {
            renewals.due_in(settings.renew_in);
        }
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

/// A certificate's renewals beside a session: by its own line, and without an end to it.
struct Renewals<'a> {
    way: &'a Way,
    due: Option<Instant>,
    under_way: Option<Pin<Box<dyn Future<Output = Duration> + Send>>>,
}

impl<'a> Renewals<'a> {
    fn new(way: &'a Way) -> Self {
        Self {
            way,
            due: None,
            under_way: None,
        }
    }

    fn due_in(&mut self, renew_in: Option<Millis>) {
        self.due = renew_in.map(|renew_in| Instant::now() + Duration::from_millis(renew_in.0));
    }

    /// The next step, once it is due. Safe to give up and call again.
    async fn go_on(&mut self) {
        if let Some(renewal) = &mut self.under_way {
            let again_in = renewal.await;
            self.under_way = None;
            self.due = Some(Instant::now() + again_in);
            return;
        }
        match (self.due, &self.way.credential) {
            (Some(due), Some(credential)) => {
                tokio::time::sleep_until(due).await;
                let renewal = Arc::clone(credential).renew(self.way.line.channel());
                self.under_way = Some(Box::pin(renewal));
            }
            _ => std::future::pending().await,
        }
    }
}

/// A status with its causes, which hold what the network said.
pub(crate) fn told(status: &tonic::Status) -> String {
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
