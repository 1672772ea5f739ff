//! Webhooks: what happens to deployments, told to others.
//!
//! What has to be sent is a pure function of the log and of how far an endpoint has come, so there is no outbox that a
//! crash could lose or double. Events go out in the log's order, one at a time; one that fails is tried again with
//! growing pauses and holds up those behind it, so that an endpoint that is away gets one request at a time, not a
//! storm. One that fails for too long is a dead letter. An event may arrive twice: its identity stays the same.

mod deliver;
mod message;
mod sign;

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::driver::World;
use crate::sight::{DeadLetter, SightDb, SightError};
use crate::store::Store;

pub use deliver::{Pauses, Standing};
pub use message::Message;
pub use sign::{SIGNATURE_HEADER, TIMESTAMP_HEADER, sign};

use deliver::Endpoint;

/// Most endpoints of a server.
pub const WEBHOOKS_MAX: usize = 16;
/// Shortest secret, in bytes.
const SECRET_LEN_MIN: usize = 16;

/// How a message is worded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Format {
    /// All there is to know, as JSON.
    #[default]
    Json,
    /// A sentence, as Slack and those who are like it take it.
    Slack,
}

/// Somebody to tell.
#[derive(Clone, PartialEq, Eq)]
pub struct Webhook {
    /// Where messages are sent.
    pub url: String,
    /// How they are worded.
    pub format: Format,
    /// What they are signed with; unsigned without one.
    pub secret: Option<String>,
}

impl fmt::Debug for Webhook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Webhook")
            .field("name", &self.name())
            .field("format", &self.format)
            .field("signed", &self.secret.is_some())
            .finish()
    }
}

/// Why an endpoint can't be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WebhookError {
    /// The address: as much of it as holds no secret.
    #[error("a webhook must be http://HOST/…, https://HOST/… or slack+https://HOST/…, not {0}")]
    Url(String),
    /// The secret.
    #[error("a webhook's secret must have at least {SECRET_LEN_MIN} characters")]
    Secret,
    /// How many.
    #[error("{0} webhooks are given, at most {WEBHOOKS_MAX} are taken")]
    TooMany(usize),
    /// One twice.
    #[error("two webhooks have the same address, {0}")]
    Twice(String),
}

impl FromStr for Webhook {
    type Err = WebhookError;
    /// `URL`, or `slack+URL` for sentences.
    fn from_str(text: &str) -> Result<Self, WebhookError> {
        let (url, format) = match text.strip_prefix("slack+") {
            Some(url) => (url, Format::Slack),
            None => (text, Format::Json),
        };
        let faulty = || WebhookError::Url(shown(text));
        let parsed: http::Uri = url.parse().map_err(|_| faulty())?;
        let known = matches!(parsed.scheme_str(), Some("http" | "https"));
        if !known || parsed.host().is_none_or(str::is_empty) {
            return Err(faulty());
        }
        Ok(Self {
            url: url.to_owned(),
            format,
            secret: None,
        })
    }
}

/// An address that is none, as it may be shown: without its path and without who logs in.
fn shown(text: &str) -> String {
    match text.split_once("://") {
        Some((scheme, rest)) => {
            let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
            let host = authority.rsplit('@').next().unwrap_or_default();
            format!("{scheme}://{host}/…")
        }
        None => "an address without ://".to_owned(),
    }
}

impl Webhook {
    /// How logs, metrics and the API name it: its scheme, host, and a mark of the whole address. The address itself may
    /// hold a secret, as Slack's do.
    pub fn name(&self) -> String {
        let uri = self.url.parse::<http::Uri>().unwrap_or_default();
        let digest = hotswap_package::digest_of(self.url.as_bytes());
        let mark: String = digest.hex().chars().take(8).collect();
        format!(
            "{}://{}#{mark}",
            uri.scheme_str().unwrap_or("http"),
            uri.authority().map_or("", |authority| authority.host()),
        )
    }

    /// Checks a server's endpoints.
    ///
    /// # Errors
    /// The first fault.
    pub fn validate_all(webhooks: &[Self]) -> Result<(), WebhookError> {
        if webhooks.len() > WEBHOOKS_MAX {
            return Err(WebhookError::TooMany(webhooks.len()));
        }
        for (i, webhook) in webhooks.iter().enumerate() {
            let short = |secret: &String| secret.len() < SECRET_LEN_MIN;
            if webhook.secret.as_ref().is_some_and(short) {
                return Err(WebhookError::Secret);
            }
            if webhooks[..i].iter().any(|other| other.url == webhook.url) {
                return Err(WebhookError::Twice(webhook.name()));
            }
        }
        Ok(())
    }
}

/// All endpoints at work.
#[derive(Default)]
pub struct Notifier {
    endpoints: Vec<Arc<Endpoint>>,
}

/// What became of a dead letter that was sent once more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resent {
    /// For whom it is.
    pub endpoint: String,
    /// Why it was not taken, if it wasn't.
    pub failed: Option<String>,
}

impl Notifier {
    /// Tells each endpoint what happens from now on, and what it hasn't been told yet.
    pub fn start(
        webhooks: Vec<Webhook>,
        pauses: Pauses,
        parts: &NotifierParts,
        tasks: &TaskTracker,
        shutdown: &CancellationToken,
    ) -> Self {
        let endpoints: Vec<Arc<Endpoint>> = webhooks
            .into_iter()
            .map(|webhook| Arc::new(Endpoint::new(webhook, pauses, parts)))
            .collect();
        for endpoint in &endpoints {
            tasks.spawn(Arc::clone(endpoint).run(shutdown.clone()));
        }
        Self { endpoints }
    }

    /// How each endpoint fares.
    pub fn standings(&self) -> impl Iterator<Item = &Arc<Standing>> {
        self.endpoints.iter().map(|endpoint| endpoint.standing())
    }

    /// Sends dead letters once more, to each endpoint its own. One whose endpoint is none of this server's any longer
    /// stays.
    ///
    /// # Errors
    /// What became of one can't be noted: it may be there although it was taken.
    pub async fn resend(&self, letters: Vec<DeadLetter>) -> Result<Vec<Resent>, SightError> {
        let sendings = letters.into_iter().map(async |letter| {
            let endpoint = letter.endpoint.clone();
            let known = self
                .endpoints
                .iter()
                .find(|known| known.standing().name == endpoint);
            let failed = match known {
                Some(known) => known.resend(letter).await?.err(),
                None => Some("this server has no such webhook any longer".to_owned()),
            };
            Ok(Resent { endpoint, failed })
        });
        futures::future::try_join_all(sendings).await
    }
}

/// What endpoints work with.
pub struct NotifierParts {
    /// The log.
    pub store: Arc<dyn Store>,
    /// Where they stand in it.
    pub db: SightDb,
    /// What is committed.
    pub world: Arc<World>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_says_how_messages_are_worded_and_is_not_shown() {
        let slack: Webhook = "slack+https://hooks.example/services/T0/B0/secret"
            .parse()
            .unwrap();
        assert_eq!(slack.format, Format::Slack);
        assert!(
            slack.name().starts_with("https://hooks.example#"),
            "{}",
            slack.name()
        );
        assert!(!format!("{slack:?}").contains("secret"));
        let plain: Webhook = "http://127.0.0.1:9/x".parse().unwrap();
        assert_eq!(plain.format, Format::Json);
        for (bad, shown) in [
            ("", "without ://"),
            ("hooks.example/x", "without ://"),
            ("slack+", "without ://"),
            ("http://", "http:///…"),
            ("ftp://me:secret@x/y?secret", "ftp://x/…"),
        ] {
            let error = bad.parse::<Webhook>().unwrap_err().to_string();
            assert!(error.contains(shown) && !error.contains("secret"), "{error}");
        }
        let twice = Webhook::validate_all(&[plain.clone(), plain.clone()]).unwrap_err();
        assert!(matches!(twice, WebhookError::Twice(_)));
        let short = Webhook {
            secret: Some("short".to_owned()),
            ..plain
        };
        assert_eq!(Webhook::validate_all(&[short]), Err(WebhookError::Secret));
    }
}
