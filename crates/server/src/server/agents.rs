//! Serving agents.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::StartError;
use crate::api::Listening;
use crate::config::ServerConfig;
use crate::driver::World;
use crate::enrolment::NODE_CERTIFICATE_LIFETIMES;
use crate::fleet::{self, Door, Fleet};

/// An agent that says nothing is asked this often whether it is there, and given up after as long again.
const AGENT_PING_INTERVAL: Duration = Duration::from_secs(20);
/// How long agents' sessions may take to end at a shutdown.
const AGENTS_DEADLINE: Duration = Duration::from_secs(3);

/// What is asked of agents' connections, judged before anything is opened.
pub(super) fn check(config: &ServerConfig) -> Result<(), StartError> {
    let given = config.node_certificate_lifetime;
    let (shortest, longest) = NODE_CERTIFICATE_LIFETIMES;
    if !(shortest..=longest).contains(&given) {
        return Err(StartError::CertificateLifetime { given });
    }
    if config.plain_agents {
        if !config.agents.ip().is_loopback() {
            return Err(StartError::PlainAgents { addr: config.agents });
        }
        tracing::warn!(
            "AGENTS CONNECT WITHOUT TLS (--plain-agents): whoever runs a program on this machine can speak for any node"
        );
    }
    Ok(())
}

/// Serves agents until the shutdown.
pub(super) async fn serve(
    (listening, door): (Listening, Door),
    fleet: Arc<Fleet>,
    world: Arc<World>,
    shutdown: CancellationToken,
) {
    let service = tonic::transport::Server::builder()
        .http2_keepalive_interval(Some(AGENT_PING_INTERVAL))
        .http2_keepalive_timeout(Some(AGENT_PING_INTERVAL))
        .add_service(Arc::clone(&fleet).into_service());
    let incoming = fleet::incoming(
        listening,
        door,
        move |address, error| fleet.handshake_failed(address, error),
        shutdown.clone(),
    );
    let served = service.serve_with_incoming_shutdown(incoming, shutdown.clone().cancelled_owned());
    // Sessions never end by themselves: after the deadline they are cut.
    let ended = tokio::select! {
        ended = served => ended,
        () = async { shutdown.cancelled().await; tokio::time::sleep(AGENTS_DEADLINE).await } => Ok(()),
    };
    world.set_accepts_agents(false);
    if let Err(error) = ended {
        tracing::error!(error = &error as &dyn std::error::Error, "serving agents failed");
    }
}
