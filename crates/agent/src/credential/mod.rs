//! Who a node is, to its server: a certificate that it got against a join token, and renews before it expires. Its key
//! never leaves the node.

mod connector;
mod files;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwapOption;
use hotswap_core::causes::with_causes;
use hotswap_transport::{
    AuthorityPin, FLEET_ALPN, Identity, JoinToken, Refusal, Roots, certificates, client_config,
    pinned_client_config, refusal, request,
};
use hotswap_wire::pb::agent_service_client::AgentServiceClient;
use hotswap_wire::{REFUSAL_KEY, pb};
use tokio::time::timeout;
use tonic::transport::Channel;
use zeroize::Zeroizing;

pub(crate) use connector::{CONNECT_TIME_MAX, ServerLine};
pub use files::{CredentialError, NODE_CERTIFICATE_FILE};

use crate::config::{AgentConfig, ConfigError};
use files::{Files, Kept};

/// What a client speaks.
type ClientConfig = hotswap_transport::ClientConfig;

/// The shortest and the longest wait before a renewal that failed is tried again.
const RENEW_AGAIN: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(600));

/// Where a node's join token comes from.
#[derive(Clone, Debug)]
pub enum JoinSource {
    /// A file, read at every try: a token that was refused is replaced by replacing the file.
    File(PathBuf),
    /// The token itself, as from a variable.
    Token(JoinToken),
}

/// Who this node is, to its server.
pub(crate) struct Credential {
    node: String,
    server: http::Uri,
    files: Files,
    join: Option<JoinSource>,
    /// The authority's certificate, where it was given as a file: instead of the one that the node was told.
    authority: Option<String>,
    held: ArcSwapOption<Held>,
    /// Whether the server said that the certificate is not taken any more.
    refused: AtomicBool,
}

/// A certificate in force.
struct Held {
    identity: Arc<Identity>,
    config: Arc<ClientConfig>,
    authority_pem: String,
}

impl std::fmt::Debug for Credential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credential")
            .field("node", &self.node)
            .finish_non_exhaustive()
    }
}

impl Credential {
    /// What the node keeps, or has to join by. `None`: its server takes it without TLS. The data folder is this agent's.
    ///
    /// # Errors
    /// Files that can't be used; or neither a certificate nor a token.
    pub(crate) fn open(config: &AgentConfig) -> Result<Option<Arc<Self>>, CredentialError> {
        let server = config
            .server_uri()
            .map_err(|error: ConfigError| CredentialError::Tls(error.to_string()))?;
        if server.scheme_str() == Some("http") {
            return Ok(None);
        }
        let authority = config.ca.as_ref().map(|path| {
            std::fs::read_to_string(path).map_err(|error| {
                CredentialError::Authority(format!("{} can't be read: {error}", path.display()))
            })
        });
        let credential = Self {
            node: config.node.to_string(),
            server,
            files: Files::new(&config.data_dir),
            join: config.join.clone(),
            authority: authority.transpose()?,
            held: ArcSwapOption::empty(),
            refused: AtomicBool::new(false),
        };
        match credential.files.read(&credential.node)? {
            Some(kept) => credential.hold(&kept)?,
            None if credential.join.is_none() => {
                return Err(CredentialError::Nothing {
                    folder: credential.files.folder().to_owned(),
                    environment: config.environment.to_string(),
                });
            }
            None => {}
        }
        Ok(Some(Arc::new(credential)))
    }

    /// When the certificate expires, if there is one.
    pub(crate) fn not_after(&self) -> Option<SystemTime> {
        Some(self.held.load().as_ref()?.identity.not_after())
    }

    fn client_config(&self) -> Option<Arc<ClientConfig>> {
        Some(Arc::clone(&self.held.load().as_ref()?.config))
    }

    /// Puts a certificate in force, from the next handshake on.
    fn hold(&self, kept: &Kept) -> Result<(), CredentialError> {
        let tls = |error: String| CredentialError::Tls(error);
        if let Some(held) = self.held.load_full()
            && held.authority_pem == kept.authority_pem
        {
            let replaced = held.identity.replace(&kept.node_pem, &kept.node_pem);
            return replaced.map_err(|error| tls(error.to_string()));
        }
        let identity =
            Identity::from_pem(&kept.node_pem, &kept.node_pem).map_err(|error| tls(error.to_string()))?;
        let identity = Arc::new(identity);
        let roots = self
            .authority
            .clone()
            .unwrap_or_else(|| kept.authority_pem.clone());
        let config = client_config(Roots::Pem(roots), Some(Arc::clone(&identity)), FLEET_ALPN);
        let config = config.map_err(|error| tls(with_causes(&error)))?;
        self.held.store(Some(Arc::new(Held {
            identity,
            config: Arc::new(config),
            authority_pem: kept.authority_pem.clone(),
        })));
        Ok(())
    }

    /// Makes sure that there is a certificate that may be taken: joins where there is none, or no more. Returns whether it
    /// did: what stands on another certificate is of no use then.
    ///
    /// # Errors
    /// Why there is none, and what to do.
    pub(crate) async fn ready(&self) -> Result<bool, String> {
        let why = match self.not_after() {
            None => None,
            Some(end) if end <= SystemTime::now() => Some("this node's certificate has expired"),
            Some(_) if self.refused.load(Ordering::Relaxed) => {
                Some("this node's certificate is not taken any more")
            }
            Some(_) => return Ok(false),
        };
        // The next try is by the certificate again, unless it has expired: the server may have been wrong about it.
        self.refused.store(false, Ordering::Relaxed);
        match &self.join {
            Some(source) => {
                let joined = self.join(source).await;
                joined.map_err(|error| {
                    why.map_or_else(|| error.clone(), |why| format!("{why}, and {error}"))
                })?;
                Ok(true)
            }
            None => Err(format!(
                "{}; make it a join token (hotswap node token create), and start the agent with --join-token-file FILE \
                 or HOTSWAP_JOIN_TOKEN",
                why.unwrap_or("this node has no certificate")
            )),
        }
    }

    /// Gets the first certificate, or one instead of one that is not taken any more.
    async fn join(&self, source: &JoinSource) -> Result<(), String> {
        let token = source.read().map_err(|error| error.to_string())?;
        let config = match &self.authority {
            Some(pem) => {
                let pinned = certificates(pem).map_err(|error| format!("--ca: {error}"))?;
                if !pinned
                    .iter()
                    .any(|certificate| AuthorityPin::of(certificate) == token.authority)
                {
                    return Err(
                        "--ca names another authority than the join token: they are of two fleets".to_owned(),
                    );
                }
                client_config(Roots::Pem(pem.clone()), None, FLEET_ALPN)
            }
            None => pinned_client_config(token.authority, FLEET_ALPN),
        };
        let config = config.map_err(|error| with_causes(&error))?;
        let files = Files::new(self.files.folder());
        let joining = blocking(move || files.joining())
            .await
            .map_err(|error| error.to_string())?;
        let channel = connector::anonymous(self.server.clone(), Arc::new(config));
        let request = pb::JoinRequest {
            token: token.text().as_str().to_owned(),
            node: self.node.clone(),
            request: joining.csr_der,
        };
        let mut client = AgentServiceClient::new(channel);
        let granted = timeout(CONNECT_TIME_MAX, client.join(request))
            .await
            .map_err(|_| format!("the server did not answer within {CONNECT_TIME_MAX:?}"))?
            .map_err(|status| format!("it could not join: {}", self.told(&status)))?
            .into_inner();
        let shown = certificates(&granted.authority).unwrap_or_default();
        if !shown
            .iter()
            .any(|certificate| AuthorityPin::of(certificate) == token.authority)
        {
            return Err("the server told another authority than the join token".to_owned());
        }
        self.take(&joining.key_pem, granted).await?;
        tracing::info!(node = self.node, "joined: this node has a certificate of its own");
        Ok(())
    }

    /// Another certificate by the line of the one in force, with a new key. Returns when to renew again.
    pub(crate) async fn renew(self: Arc<Self>, channel: Channel) -> Duration {
        let renewed = async {
            let new = blocking(request).await.map_err(|error| error.to_string())?;
            let ask = pb::RenewRequest { request: new.csr_der };
            let mut client = AgentServiceClient::new(channel);
            let granted = timeout(CONNECT_TIME_MAX, client.renew(ask))
                .await
                .map_err(|_| format!("the server did not answer within {CONNECT_TIME_MAX:?}"))?
                .map_err(|status| self.told(&status))?
                .into_inner();
            let renew_in = Duration::from_millis(granted.renew_in_ms);
            self.take(&new.key_pem, granted).await?;
            Ok::<_, String>(renew_in)
        };
        match renewed.await {
            Ok(renew_in) => {
                tracing::info!(node = self.node, ?renew_in, "the certificate was renewed");
                renew_in.max(RENEW_AGAIN.0)
            }
            Err(why) => {
                let left = self
                    .not_after()
                    .and_then(|end| end.duration_since(SystemTime::now()).ok());
                let again = (left.unwrap_or_default() / 4).clamp(RENEW_AGAIN.0, RENEW_AGAIN.1);
                tracing::error!(node = self.node, why, next_try_in = ?again, "the certificate could not be renewed");
                again
            }
        }
    }

    /// Keeps what was granted, and puts it in force.
    async fn take(&self, key: &str, granted: pb::CertificateGrant) -> Result<(), String> {
        let kept = Kept {
            node_pem: Zeroizing::new(format!("{key}{}", granted.chain)),
            authority_pem: granted.authority,
        };
        self.hold(&kept).map_err(|error| error.to_string())?;
        let files = Files::new(self.files.folder());
        if let Err(error) = blocking(move || files.write(&kept)).await {
            // It is in force all the same; a restart goes on with the former one.
            tracing::error!(node = self.node, %error, "the new certificate could not be kept on disk");
        }
        Ok(())
    }

    /// What the server, or the way to it, said: with what to do where the certificate is the reason.
    pub(crate) fn told(&self, status: &tonic::Status) -> String {
        let code = status
            .metadata()
            .get(REFUSAL_KEY)
            .and_then(|code| code.to_str().ok());
        if matches!(code, Some("certificate_revoked" | "certificate_expired")) {
            self.refused.store(true, Ordering::Relaxed);
        }
        if let Some(code) = code {
            return format!("{} ({code})", status.message());
        }
        let Some(refusal) = std::error::Error::source(status).and_then(refusal) else {
            return crate::session::told(status);
        };
        let again = "make it a join token: hotswap node token create";
        match refusal {
            Refusal::Revoked => {
                self.refused.store(true, Ordering::Relaxed);
                format!(
                    "the server says that this node's certificate was revoked; where it is to come back, {again} (certificate_revoked)"
                )
            }
            Refusal::Expired => {
                self.refused.store(true, Ordering::Relaxed);
                format!(
                    "the server says that this node's certificate has expired; {again} (certificate_expired)"
                )
            }
            Refusal::OtherAuthority => format!(
                "the server does not know the authority of this node's certificate: the node joined another fleet; \
                 empty its data folder, and {again} (other_authority)"
            ),
            Refusal::Required | Refusal::Refused => format!(
                "the server does not take this node's certificate; its log says why (certificate_refused): {}",
                crate::session::told(status)
            ),
            Refusal::Untrusted => format!(
                "the server is not one of this node's fleet (other_authority): {}",
                crate::session::told(status)
            ),
        }
    }
}

impl JoinSource {
    /// The token, as it is given now.
    ///
    /// # Errors
    /// A file that can't be read, or something that is no token.
    pub fn read(&self) -> Result<JoinToken, CredentialError> {
        let path = match self {
            Self::Token(token) => return Ok(token.clone()),
            Self::File(path) => path,
        };
        let faulty = |why: String| CredentialError::Token {
            what: format!("the join token's file {}", path.display()),
            why,
        };
        let text = std::fs::read_to_string(path).map_err(|error| faulty(error.to_string()))?;
        Zeroizing::new(text)
            .trim()
            .parse()
            .map_err(|error: hotswap_transport::InvalidJoinToken| faulty(error.to_string()))
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(panic) => std::panic::resume_unwind(panic.into_panic()),
    }
}
