//! What a node keeps of who it is: its certificate with its key, and the authority that it knows its servers by.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use hotswap_transport::{Request, certificates, peer_certificate, request, request_with, write_secret};
use zeroize::Zeroizing;

/// The node's certificate and its key, in the data folder.
pub const NODE_CERTIFICATE_FILE: &str = "node.pem";
/// The authority's certificate.
const AUTHORITY_FILE: &str = "authority.pem";
/// The key of a join that is under way: a try whose answer was lost is repeated by it.
const JOINING_FILE: &str = "joining.key";

/// Why what a node keeps of who it is can't be used.
#[derive(Debug, thiserror::Error)]
pub enum CredentialError {
    /// A file.
    #[error("{} can't be used: {source}{}", path.display(), crate::disk::hint(source))]
    File {
        /// Which.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A file that holds something else.
    #[error("{} is not what this agent wrote ({why}); remove it, and let the node join again with a new join token", path.display())]
    Damaged {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// Another node's folder.
    #[error("{} is the certificate of node {found}, not of {wanted}; every node needs a data folder of its own", path.display())]
    OtherNode {
        /// The file.
        path: PathBuf,
        /// Whose it is.
        found: String,
        /// Who this is.
        wanted: String,
    },
    /// Nothing to prove who this is, and nothing to join by.
    #[error(
        "this node has no certificate in {} and no join token: make one (hotswap node token create --env {environment}), \
         and give it by --join-token-file FILE or HOTSWAP_JOIN_TOKEN",
        folder.display()
    )]
    Nothing {
        /// The data folder.
        folder: PathBuf,
        /// Where the node wants to be.
        environment: String,
    },
    /// The join token.
    #[error("{what}: {why}")]
    Token {
        /// Where it was given.
        what: String,
        /// What is wrong.
        why: String,
    },
    /// The given authority.
    #[error("--ca: {0}")]
    Authority(String),
    /// TLS.
    #[error("TLS can't be set up: {0}")]
    Tls(String),
}

/// The files, in the node's data folder.
#[derive(Debug)]
pub(super) struct Files {
    folder: PathBuf,
}

/// A certificate with its key and the authority, as they are kept.
pub(super) struct Kept {
    /// Key and chain in PEM.
    pub(super) node_pem: Zeroizing<String>,
    /// In PEM.
    pub(super) authority_pem: String,
}

impl Files {
    pub(super) fn new(folder: &Path) -> Self {
        Self {
            folder: folder.to_owned(),
        }
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// What is kept, if this node has joined.
    pub(super) fn read(&self, node: &str) -> Result<Option<Kept>, CredentialError> {
        let path = self.folder.join(NODE_CERTIFICATE_FILE);
        let Some(node_pem) = read(&path)? else {
            return Ok(None);
        };
        let damaged = |why: &str| CredentialError::Damaged {
            path: path.clone(),
            why: why.to_owned(),
        };
        let chain = certificates(&node_pem).map_err(|error| damaged(&error.to_string()))?;
        let first = chain.first().ok_or_else(|| damaged("no certificate is in it"))?;
        let found = peer_certificate(first)
            .map_err(|error| damaged(&error.to_string()))?
            .identity
            .node;
        if found != node {
            return Err(CredentialError::OtherNode {
                path,
                found,
                wanted: node.to_owned(),
            });
        }
        let authority = self.folder.join(AUTHORITY_FILE);
        let authority_pem = read(&authority)?.ok_or_else(|| CredentialError::Damaged {
            path: authority,
            why: "it is missing".to_owned(),
        })?;
        let authority_pem = authority_pem.as_str().to_owned();
        Ok(Some(Kept {
            node_pem,
            authority_pem,
        }))
    }

    /// Keeps a certificate, durably, instead of the former one.
    pub(super) fn write(&self, kept: &Kept) -> Result<(), CredentialError> {
        let authority = self.folder.join(AUTHORITY_FILE);
        write_secret(&authority, &kept.authority_pem).map_err(unusable(&authority))?;
        let node = self.folder.join(NODE_CERTIFICATE_FILE);
        write_secret(&node, &kept.node_pem).map_err(unusable(&node))?;
        let joining = self.folder.join(JOINING_FILE);
        match fs::remove_file(&joining) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(unusable(&joining)(error)),
            _ => Ok(()),
        }
    }

    /// The request of a join: by the key of a try before, if there was one. The key is durable before it is shown.
    pub(super) fn joining(&self) -> Result<Request, CredentialError> {
        let path = self.folder.join(JOINING_FILE);
        if let Some(key) = read(&path)?
            && let Ok(again) = request_with(&key)
        {
            return Ok(again);
        }
        let new = request().map_err(|error| CredentialError::Tls(error.to_string()))?;
        write_secret(&path, &new.key_pem).map_err(unusable(&path))?;
        Ok(new)
    }
}

fn read(path: &Path) -> Result<Option<Zeroizing<String>>, CredentialError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(Zeroizing::new(text))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(unusable(path)(error)),
    }
}

fn unusable(path: &Path) -> impl FnOnce(io::Error) -> CredentialError + use<> {
    let path = path.to_owned();
    move |source| CredentialError::File { path, source }
}
