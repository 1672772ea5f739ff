//! An authority in a folder of its own, and both ends of a connection.

use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use hotswap_transport::{
    Authority, Clients, Identity, Issued, NodeIdentity, Roots, client_config, request, server_config,
};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConfig, ServerConfig};
use tokio_rustls::{TlsAcceptor, TlsConnector};

/// Longer than any certificate here needs.
pub(crate) const DAY: Duration = Duration::from_secs(86_400);

/// An authority, and the folder that it is in.
pub(crate) struct Fleet {
    pub(crate) folder: TempDir,
    pub(crate) authority: Authority,
}

impl Fleet {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::open_or_create(&folder.path().join("ca"), SystemTime::now()).unwrap();
        Self { folder, authority }
    }

    /// Issues for `server.test`.
    pub(crate) fn server(&self) -> Issued {
        self.authority
            .issue_server(&["server.test".to_owned()], DAY, SystemTime::now())
            .unwrap()
    }

    /// A node's identity, issued at this time for a day.
    pub(crate) fn node(&self, name: &str, now: SystemTime) -> (Arc<Identity>, Issued) {
        let request = request().unwrap();
        let who = node(name);
        let issued = self
            .authority
            .issue_node(&request.csr_der, &who, DAY, now)
            .unwrap();
        let identity = Identity::from_pem(&issued.chain_pem, &request.key_pem).unwrap();
        (Arc::new(identity), issued)
    }

    pub(crate) fn roots(&self) -> Roots {
        Roots::Pem(self.authority.certificate_pem().to_owned())
    }
}

pub(crate) fn node(name: &str) -> NodeIdentity {
    NodeIdentity {
        node: name.to_owned(),
        environment: "prod".to_owned(),
    }
}

pub(crate) fn identity(issued: &Issued) -> Arc<Identity> {
    let key = issued.key_pem.as_ref().unwrap();
    Arc::new(Identity::from_pem(&issued.chain_pem, key).unwrap())
}

pub(crate) fn server(identity: &Arc<Identity>, clients: Clients) -> Arc<ServerConfig> {
    Arc::new(server_config(Arc::clone(identity), clients, &[b"h2"]).unwrap())
}

pub(crate) fn client(roots: Roots, identity: Option<Arc<Identity>>) -> Arc<ClientConfig> {
    Arc::new(client_config(roots, identity, &[b"h2"]).unwrap())
}

/// What came of a connection on either side.
#[derive(Debug)]
pub(crate) struct Met {
    pub(crate) client: io::Result<Box<TlsStream<DuplexStream>>>,
    pub(crate) server: io::Result<tokio_rustls::server::TlsStream<DuplexStream>>,
}

/// One handshake, and one byte each way: in TLS 1.3 a client learns only by the first answer that it was refused.
pub(crate) async fn meet(server: &Arc<ServerConfig>, client: &Arc<ClientConfig>) -> Met {
    let (near, far) = tokio::io::duplex(16 << 10);
    let (acceptor, connector) = (
        TlsAcceptor::from(Arc::clone(server)),
        TlsConnector::from(Arc::clone(client)),
    );
    let serve = async move {
        let mut stream = acceptor.accept(far).await?;
        echo(&mut stream).await?;
        Ok(stream)
    };
    let ask = async move {
        let name = ServerName::try_from("server.test").unwrap();
        let mut stream = connector.connect(name, near).await?;
        ask(&mut stream).await?;
        Ok(Box::new(stream))
    };
    let (server, client) = tokio::join!(serve, ask);
    Met { client, server }
}

/// Sends back one byte.
pub(crate) async fn echo(stream: &mut tokio_rustls::server::TlsStream<DuplexStream>) -> io::Result<()> {
    let byte = stream.read_u8().await?;
    stream.write_u8(byte).await?;
    stream.flush().await
}

/// Sends one byte and hears it back.
pub(crate) async fn ask(stream: &mut TlsStream<DuplexStream>) -> io::Result<()> {
    stream.write_u8(7).await?;
    stream.flush().await?;
    assert_eq!(stream.read_u8().await?, 7);
    Ok(())
}
