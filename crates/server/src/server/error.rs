//! Why a server did not start.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use hotswap_telemetry::metrics::MetricsOtlpError;
use hotswap_telemetry::otlp::OtlpError;
use hotswap_transport::{AuthorityError, ConfigError, IdentityError};
use hotswap_trust::PolicyError;

use crate::access::AccessError;
use crate::driver::DriverError;
use crate::enrolment::NODE_CERTIFICATE_LIFETIMES;
use crate::notify::WebhookError;
use crate::sight::SightError;
use crate::store::StoreError;
use crate::tls::{CertificateError, PlainBeyondLoopback};

/// Why a server did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address can't be listened on.
    #[error("failed to listen on {addr} for {what}: {}", explain(source, addr))]
    Listen {
        /// What for.
        what: &'static str,
        /// Where.
        addr: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
    /// Plain HTTP where others can listen.
    #[error(transparent)]
    Plain(#[from] PlainBeyondLoopback),
    /// The API's certificate.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// TLS of the API.
    #[error("failed to set up TLS for the API")]
    Tls(#[from] ConfigError),
    /// The store can't be opened.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The package store can't be opened.
    #[error("failed to open the package store in {}", path.display())]
    Registry {
        /// The data directory.
        path: std::path::PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The trust file can't be used.
    #[error("failed to read who is trusted")]
    Trust(#[from] PolicyError),
    /// The file of measurements can't be opened.
    #[error("failed to open the file of measurements in the data directory")]
    Sight(#[from] SightError),
    /// A webhook.
    #[error(transparent)]
    Webhook(#[from] WebhookError),
    /// The export of traces.
    #[error(transparent)]
    Otlp(#[from] OtlpError),
    /// The export of metrics.
    #[error(transparent)]
    OtlpMetrics(#[from] MetricsOtlpError),
    /// The log can't be recovered.
    #[error(transparent)]
    Driver(#[from] DriverError),
    /// The fleet's authority.
    #[error("the fleet's authority can't be used")]
    Authority(#[from] AuthorityError),
    /// The server's certificate for agents.
    #[error("the server's certificate for agents can't be used")]
    AgentsCertificate(#[from] IdentityError),
    /// Plain agents from elsewhere.
    #[error(
        "agents without TLS are taken on this machine alone, and {addr} is reached from elsewhere; leave --plain-agents \
         out, or give a loopback address"
    )]
    PlainAgents {
        /// Where agents connect.
        addr: SocketAddr,
    },
    /// A lifetime that can't be.
    #[error(
        "nodes' certificates can't hold for {given:?}; give a time between {:?} and {:?}",
        NODE_CERTIFICATE_LIFETIMES.0, NODE_CERTIFICATE_LIFETIMES.1
    )]
    CertificateLifetime {
        /// What was given.
        given: Duration,
    },
    /// Nobody could log in.
    #[error("users and keys could not be made ready: {0}")]
    Access(#[from] AccessError),
}

fn explain(error: &io::Error, addr: &SocketAddr) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            format!(
                "port {} is in use; stop what uses it, or give another port",
                addr.port()
            )
        }
        io::ErrorKind::AddrNotAvailable => {
            "this machine has no such address; give one that it has".to_owned()
        }
        io::ErrorKind::PermissionDenied => {
            format!("port {} needs more rights; give one above 1023", addr.port())
        }
        _ => error.to_string(),
    }
}
