use std::sync::Arc;

use hotswap_transport::{Clients, Identity, Serial, certificates};
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::io::DuplexStream;
use tokio_rustls::client::TlsStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};
use x509_parser::prelude::FromDer as _;

use crate::support::{Fleet, ask, client, echo, identity, meet, server};

/// Requests on the connection that is open before, and new connections, around each exchange.
const REQUESTS: usize = 20;

fn shown(stream: &TlsStream<DuplexStream>) -> Serial {
    let shown: &CertificateDer<'_> = &stream.get_ref().1.peer_certificates().unwrap()[0];
    let (_, certificate) = x509_parser::certificate::X509Certificate::from_der(shown).unwrap();
    Serial::new(certificate.raw_serial()).unwrap()
}

fn replace(identity: &Identity, with: &hotswap_transport::Issued) {
    identity
        .replace(&with.chain_pem, with.key_pem.as_ref().unwrap())
        .unwrap();
}

#[tokio::test]
async fn a_server_s_certificate_is_exchanged_while_a_connection_goes_on() {
    let fleet = Fleet::new();
    let first = fleet.server();
    let identity = identity(&first);
    let server = server(&identity, Clients::Nobody);
    let (near, far) = tokio::io::duplex(16 << 10);
    let (acceptor, connector) = (
        TlsAcceptor::from(Arc::clone(&server)),
        TlsConnector::from(client(fleet.roots(), None)),
    );
    let serve = tokio::spawn(async move {
        let mut stream = acceptor.accept(far).await.unwrap();
        while echo(&mut stream).await.is_ok() {}
    });
    let name = ServerName::try_from("server.test").unwrap();
    let mut open = connector.connect(name, near).await.unwrap();
    assert_eq!(shown(&open), first.serial);

    for _ in 0..3 {
        let next = fleet.server();
        replace(&identity, &next);
        for _ in 0..REQUESTS {
            ask(&mut open).await.unwrap();
            // A client that resumed a session would be shown no certificate.
            let met = meet(&server, &client(fleet.roots(), None)).await;
            assert_eq!(shown(&met.client.unwrap()), next.serial);
        }
    }
    assert_eq!(
        shown(&open),
        first.serial,
        "the connection is the one from before"
    );
    drop(open);
    serve.await.unwrap();
}

#[tokio::test]
async fn a_node_s_next_connection_shows_its_next_certificate() {
    let fleet = Fleet::new();
    let clients = Clients::Fleet {
        authority: fleet.authority.certificate().clone(),
        required: true,
        revoked: Arc::default(),
    };
    let server = server(&identity(&fleet.server()), clients);
    let request = hotswap_transport::request().unwrap();
    let issue = || {
        let now = std::time::SystemTime::now();
        let who = crate::support::node("edge-1");
        fleet
            .authority
            .issue_node(&request.csr_der, &who, crate::support::DAY, now)
            .unwrap()
    };
    let first = issue();
    let node = Arc::new(Identity::from_pem(&first.chain_pem, &request.key_pem).unwrap());
    let client = client(fleet.roots(), Some(Arc::clone(&node)));
    for issued in [first, issue(), issue()] {
        node.replace(&issued.chain_pem, &request.key_pem).unwrap();
        let met = meet(&server, &client).await;
        met.client.unwrap();
        let stream = met.server.unwrap();
        let peer = hotswap_transport::peer_certificate(&stream.get_ref().1.peer_certificates().unwrap()[0]);
        assert_eq!(peer.unwrap().serial, issued.serial);
    }
    assert_eq!(certificates(&fleet.server().chain_pem).unwrap().len(), 2);
}
