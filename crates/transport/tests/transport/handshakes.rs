use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::ArcSwap;
use hotswap_transport::{Clients, Fingerprint, Serial, certificates, peer_certificate, untrusted};
use tokio_rustls::rustls::{AlertDescription, CertificateError, Error};

use crate::support::{DAY, Fleet, Met, client, identity, meet, server};

type Revoked = Arc<ArcSwap<BTreeSet<Serial>>>;

fn fleet_only(fleet: &Fleet, required: bool) -> (Clients, Revoked) {
    let revoked = Revoked::default();
    let clients = Clients::Fleet {
        authority: fleet.authority.certificate().clone(),
        required,
        revoked: Arc::clone(&revoked),
    };
    (clients, revoked)
}

fn tls_error(error: &std::io::Error) -> &Error {
    error.get_ref().and_then(|held| held.downcast_ref()).unwrap()
}

/// The server names the cause, and the client hears of it.
fn assert_refused(met: &Met, cause: &CertificateError, alert: AlertDescription) {
    let server = met.server.as_ref().unwrap_err();
    match (tls_error(server), cause) {
        (Error::InvalidCertificate(CertificateError::ExpiredContext { .. }), CertificateError::Expired) => {}
        (Error::InvalidCertificate(found), cause) => assert_eq!(found, cause),
        (other, _) => panic!("{other:?}"),
    }
    let client = met.client.as_ref().unwrap_err();
    assert_eq!(tls_error(client), &Error::AlertReceived(alert));
}

#[tokio::test]
async fn a_node_is_known_by_its_certificate() {
    let fleet = Fleet::new();
    let (clients, _) = fleet_only(&fleet, true);
    let server = server(&identity(&fleet.server()), clients);
    let (node, issued) = fleet.node("edge-1", SystemTime::now());
    let met = meet(&server, &client(fleet.roots(), Some(node))).await;
    met.client.unwrap();
    let stream = met.server.unwrap();
    let shown = stream.get_ref().1.peer_certificates().unwrap();
    let peer = peer_certificate(&shown[0]).unwrap();
    assert_eq!(
        (peer.identity.node.as_str(), peer.serial),
        ("edge-1", issued.serial)
    );
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
}

#[tokio::test]
async fn a_client_without_a_certificate_is_let_in_only_where_none_is_required() {
    let fleet = Fleet::new();
    let issued = identity(&fleet.server());
    let nobody = client(fleet.roots(), None);
    meet(&server(&issued, Clients::Nobody), &nobody)
        .await
        .server
        .unwrap();
    let met = meet(&server(&issued, fleet_only(&fleet, false).0), &nobody).await;
    assert!(met.server.unwrap().get_ref().1.peer_certificates().is_none());
    let met = meet(&server(&issued, fleet_only(&fleet, true).0), &nobody).await;
    assert!(matches!(
        tls_error(&met.server.unwrap_err()),
        Error::NoCertificatesPresented
    ));
    assert_eq!(
        tls_error(&met.client.unwrap_err()),
        &Error::AlertReceived(AlertDescription::CertificateRequired)
    );
}

#[tokio::test]
async fn a_revoked_certificate_is_refused_from_its_next_handshake_on() {
    let fleet = Fleet::new();
    for required in [true, false] {
        let (clients, revoked) = fleet_only(&fleet, required);
        let server = server(&identity(&fleet.server()), clients);
        let (node, issued) = fleet.node("edge-1", SystemTime::now());
        // One configuration for all connections: a resumed session would get by.
        let client = client(fleet.roots(), Some(node));
        meet(&server, &client).await.client.unwrap();
        revoked.store(Arc::new(BTreeSet::from([issued.serial])));
        let met = meet(&server, &client).await;
        assert_refused(
            &met,
            &CertificateError::Revoked,
            AlertDescription::CertificateRevoked,
        );
    }
}

#[tokio::test]
async fn an_expired_certificate_is_refused_on_either_side() {
    let fleet = Fleet::new();
    let long_ago = SystemTime::now() - 3 * DAY;
    let (clients, _) = fleet_only(&fleet, false);
    let good = server(&identity(&fleet.server()), clients);
    let (node, _) = fleet.node("edge-1", long_ago);
    let met = meet(&good, &client(fleet.roots(), Some(node))).await;
    assert_refused(
        &met,
        &CertificateError::Expired,
        AlertDescription::CertificateExpired,
    );

    let names = ["server.test".to_owned()];
    let ended = fleet.authority.issue_server(&names, DAY, long_ago).unwrap();
    let met = meet(
        &server(&identity(&ended), Clients::Nobody),
        &client(fleet.roots(), None),
    )
    .await;
    let error = met.client.unwrap_err();
    let why = untrusted(&error).unwrap();
    assert!(!why.unknown_authority());
    assert!(
        matches!(why.cause, CertificateError::ExpiredContext { .. }),
        "{why}"
    );
}

#[tokio::test]
async fn certificates_of_another_fleet_are_refused_on_either_side() {
    let (fleet, other) = (Fleet::new(), Fleet::new());
    let (clients, _) = fleet_only(&fleet, false);
    let good = server(&identity(&fleet.server()), clients);
    let (stranger, _) = other.node("edge-1", SystemTime::now());
    let met = meet(&good, &client(fleet.roots(), Some(stranger))).await;
    assert_refused(
        &met,
        &CertificateError::UnknownIssuer,
        AlertDescription::UnknownCA,
    );

    let issued = fleet.server();
    let met = meet(
        &server(&identity(&issued), Clients::Nobody),
        &client(other.roots(), None),
    )
    .await;
    assert!(met.server.is_err());
    let error = met.client.unwrap_err();
    let why = untrusted(&error).unwrap();
    assert!(why.unknown_authority());
    let chain = certificates(&issued.chain_pem).unwrap();
    assert_eq!(why.fingerprint, Fingerprint::of(&chain[0]));
    assert_eq!(
        why.authority,
        Some(Fingerprint::of(fleet.authority.certificate()))
    );
    assert!(why.to_string().contains(&why.fingerprint.to_string()), "{why}");
}

#[tokio::test]
async fn a_server_s_certificate_does_not_make_a_client() {
    let fleet = Fleet::new();
    let (clients, _) = fleet_only(&fleet, false);
    let issued = identity(&fleet.server());
    let met = meet(&server(&issued, clients), &client(fleet.roots(), Some(issued))).await;
    let error = met.server.unwrap_err();
    assert!(
        matches!(
            tls_error(&error),
            Error::InvalidCertificate(
                CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. }
            )
        ),
        "{error:?}"
    );
    // Nor the other way round: a node can't pose as a server.
    let (node, _) = fleet.node("server.test", SystemTime::now());
    let met = meet(&server(&node, Clients::Nobody), &client(fleet.roots(), None)).await;
    assert!(untrusted(&met.client.unwrap_err()).is_some());
}

#[tokio::test]
async fn another_name_than_the_certificate_s_is_refused() {
    let fleet = Fleet::new();
    let names = ["other.test".to_owned(), "10.0.0.1".to_owned()];
    let issued = fleet
        .authority
        .issue_server(&names, DAY, SystemTime::now())
        .unwrap();
    let met = meet(
        &server(&identity(&issued), Clients::Nobody),
        &client(fleet.roots(), None),
    )
    .await;
    let error = met.client.unwrap_err();
    let said = untrusted(&error).unwrap().to_string();
    assert!(said.contains("other.test"), "{said}");
}
