//! Why a node is not let in.

use hotswap_core::ids::{EnvName, NodeId};
use hotswap_wire::REFUSAL_KEY;
use tonic::metadata::AsciiMetadataValue;
use tonic::{Code, Status};

use super::CERTIFICATES_PER_NODE_MAX;
use crate::store::StoreError;

/// A session of a node whose certificate was revoked ends with this.
pub(crate) const REVOKED: &str = "this node's certificate was revoked; where it is to come back, make it a join token: \
                                  hotswap node token create";
/// A session of a node that did not renew ends with this.
pub(crate) const EXPIRED: &str = "this node's certificate has expired and was not renewed; it needs a new join token: \
                                  hotswap node token create";

/// Why a node is not let in, or not given what it asks for. Each has a code that stays.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// A connection without a certificate asks for what needs one.
    #[error(
        "this needs a node's certificate: the agent has to join first, with --join-token-file (hotswap node token create)"
    )]
    CertificateRequired,
    /// The certificate was revoked.
    #[error("{REVOKED}")]
    Revoked,
    /// The certificate has expired while the connection stood.
    #[error("{EXPIRED}")]
    Expired,
    /// A node speaks for another.
    #[error(
        "the certificate is of node {certified}, and the report says that it is of {claimed}: each node needs its own"
    )]
    OtherNode {
        /// Whose the certificate is.
        certified: String,
        /// Who is spoken for.
        claimed: NodeId,
    },
    /// A new node says that it belongs elsewhere than its certificate does.
    #[error(
        "the certificate is for {certified}, and the agent is configured for {claimed}: configure it for {certified}"
    )]
    OtherEnvironment {
        /// What the certificate is for.
        certified: String,
        /// What the agent says.
        claimed: EnvName,
    },
    /// The fleet takes plain connections only.
    #[error("this server takes agents without TLS (--plain-agents): nobody joins or renews here")]
    PlainAgents,
    /// What came is no token, or none that is known.
    #[error("the join token is unknown or was revoked; make another: hotswap node token create")]
    TokenUnknown,
    /// The token's time is over.
    #[error("the join token has expired; make another: hotswap node token create")]
    TokenExpired,
    /// The token was used as often as it may be.
    #[error(
        "the join token is used up ({uses_max} of {uses_max} uses); make another: hotswap node token create"
    )]
    TokenUsedUp {
        /// How often it may be.
        uses_max: u32,
    },
    /// The token is for other nodes.
    #[error("the join token is for nodes that are called {pattern}, not for {node}")]
    TokenForOthers {
        /// Which.
        pattern: String,
        /// Who asked.
        node: NodeId,
    },
    /// The node was revoked after the token was made.
    #[error(
        "node {node} was revoked after this join token was made; to let it in again, make another: hotswap node token create"
    )]
    TokenBarred {
        /// The node.
        node: NodeId,
    },
    /// A node of this name is in another environment.
    #[error(
        "node {node} belongs to {environment}, and the join token is for {token}; a token for {environment} lets it in"
    )]
    NodeElsewhere {
        /// The node.
        node: NodeId,
        /// Where it belongs.
        environment: EnvName,
        /// What the token is for.
        token: EnvName,
    },
    /// There is a node of this name with a certificate that holds.
    #[error(
        "node {node} has a certificate already, of another key; if this is the same machine without its data folder, \
         revoke the old one (hotswap node revoke {node}) and join again; else choose another name"
    )]
    NameTaken {
        /// The node.
        node: NodeId,
    },
    /// No name for a node.
    #[error("{0}")]
    Name(#[from] hotswap_core::ids::InvalidName),
    /// No request for a certificate.
    #[error("the request for a certificate is refused: {0}")]
    Request(#[from] hotswap_transport::InvalidRequest),
    /// It renews without end.
    #[error(
        "node {node} has {CERTIFICATES_PER_NODE_MAX} certificates that hold, the most there may be; renew when one has expired"
    )]
    TooMany {
        /// The node.
        node: NodeId,
    },
    /// A package that the node's spec doesn't name.
    #[error(
        "nothing tells node {node} to run {digest}: a node is given the packages that its spec names, and no others"
    )]
    NotNamed {
        /// The node.
        node: NodeId,
        /// The package.
        digest: hotswap_core::ids::Digest,
    },
    /// The server could not do it now.
    #[error("the server failed to {0}; its log says more")]
    Failed(&'static str),
}

impl Refusal {
    /// The code, for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::CertificateRequired => "certificate_required",
            Self::Revoked => "certificate_revoked",
            Self::Expired => "certificate_expired",
            Self::OtherNode { .. } => "other_node",
            Self::OtherEnvironment { .. } => "other_environment",
            Self::PlainAgents => "plain_agents",
            Self::TokenUnknown => "join_token_unknown",
            Self::TokenExpired => "join_token_expired",
            Self::TokenUsedUp { .. } => "join_token_used_up",
            Self::TokenForOthers { .. } => "join_token_for_others",
            Self::TokenBarred { .. } => "join_token_barred",
            Self::NodeElsewhere { .. } => "node_elsewhere",
            Self::NameTaken { .. } => "node_name_taken",
            Self::Name(_) => "invalid_node_name",
            Self::Request(_) => "invalid_certificate_request",
            Self::TooMany { .. } => "too_many_certificates",
            Self::NotNamed { .. } => "package_not_named",
            Self::Failed(_) => "internal",
        }
    }

    fn grpc(&self) -> Code {
        match self {
            Self::CertificateRequired
            | Self::Revoked
            | Self::Expired
            | Self::TokenUnknown
            | Self::TokenExpired
            | Self::TokenUsedUp { .. } => Code::Unauthenticated,
            Self::OtherNode { .. }
            | Self::OtherEnvironment { .. }
            | Self::TokenForOthers { .. }
            | Self::TokenBarred { .. }
            | Self::NodeElsewhere { .. }
            | Self::NotNamed { .. } => Code::PermissionDenied,
            Self::NameTaken { .. } => Code::AlreadyExists,
            Self::PlainAgents => Code::FailedPrecondition,
            Self::Name(_) | Self::Request(_) => Code::InvalidArgument,
            Self::TooMany { .. } => Code::ResourceExhausted,
            Self::Failed(_) => Code::Internal,
        }
    }

    /// The refusal that a session's end is, where it is one.
    pub(crate) fn of_ending(why: &str) -> Option<Self> {
        match why {
            REVOKED => Some(Self::Revoked),
            EXPIRED => Some(Self::Expired),
            _ => None,
        }
    }
}

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Self {
        let mut status = Self::new(refusal.grpc(), refusal.to_string());
        status
            .metadata_mut()
            .insert(REFUSAL_KEY, AsciiMetadataValue::from_static(refusal.code()));
        status
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        tracing::error!(
            error = &error as &dyn std::error::Error,
            "nodes' certificates can't be kept"
        );
        Self::Failed("keep what it did")
    }
}
