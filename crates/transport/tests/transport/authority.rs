use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, SystemTime};

use hotswap_transport::{
    Authority, AuthorityError, CERTIFICATE_FILE, Identity, IdentityError, InvalidCertificate, InvalidRequest,
    REQUEST_BYTES_MAX, certificates, peer_certificate, request,
};

use crate::support::{DAY, Fleet, node};

#[test]
fn a_node_s_certificate_says_who_it_is_and_nothing_that_the_request_wished() {
    let fleet = Fleet::new();
    let request = request().unwrap();
    let now = SystemTime::now();
    let issued = fleet
        .authority
        .issue_node(&request.csr_der, &node("edge/1"), DAY, now)
        .unwrap();
    assert!(issued.key_pem.is_none());

    let chain = certificates(&issued.chain_pem).unwrap();
    assert_eq!(chain.len(), 2);
    assert_eq!(&chain[1], fleet.authority.certificate());
    let peer = peer_certificate(&chain[0]).unwrap();
    assert_eq!(peer.identity, node("edge/1"));
    assert_eq!(peer.serial, issued.serial);
    assert_eq!(peer.not_after, issued.not_after);
    // Certificates count whole seconds.
    let lifetime = issued.not_after.duration_since(now).unwrap();
    assert!(
        lifetime <= DAY && lifetime > DAY - Duration::from_secs(2),
        "{lifetime:?}"
    );

    let again = fleet
        .authority
        .issue_node(&request.csr_der, &node("edge/1"), DAY, now)
        .unwrap();
    assert_ne!(again.serial, issued.serial);
    // The names of a server and the authority's own certificate speak for no node.
    let server = certificates(&fleet.server().chain_pem).unwrap();
    for certificate in &server {
        assert_eq!(peer_certificate(certificate), Err(InvalidCertificate::NotANode));
    }
}

#[test]
fn a_request_that_its_key_did_not_sign_is_refused() {
    let fleet = Fleet::new();
    let issue = |csr: &[u8]| {
        fleet
            .authority
            .issue_node(csr, &node("n"), DAY, SystemTime::now())
    };
    let refused = |csr: &[u8]| match issue(csr) {
        Err(AuthorityError::Request(why)) => why,
        other => panic!("{other:?}"),
    };
    let good = request().unwrap().csr_der;
    issue(&good).unwrap();

    // The last byte is the signature's, so it is still a signature, of something else.
    let mut forged = good.clone();
    *forged.last_mut().unwrap() ^= 1;
    assert_eq!(refused(&forged), InvalidRequest::Signature);
    // Another's key in one's own request: the point is the longest part of it.
    let other = request().unwrap().csr_der;
    let point = |csr: &[u8]| csr.windows(2).position(|bytes| bytes == [0x42, 0x00]).unwrap() + 2;
    let mut stolen = good.clone();
    let (to, from) = (point(&good), point(&other));
    stolen[to..to + 65].copy_from_slice(&other[from..from + 65]);
    assert_eq!(refused(&stolen), InvalidRequest::Signature);

    assert_eq!(refused(&good[..good.len() - 1]), InvalidRequest::Malformed);
    assert_eq!(refused(b""), InvalidRequest::Malformed);
    assert_eq!(refused(&vec![0; REQUEST_BYTES_MAX + 1]), InvalidRequest::Size);
}

#[test]
fn a_key_of_another_kind_is_refused() {
    let fleet = Fleet::new();
    for algorithm in [&rcgen::PKCS_ECDSA_P384_SHA384, &rcgen::PKCS_ED25519] {
        let key = rcgen::KeyPair::generate_for(algorithm).unwrap();
        let csr = rcgen::CertificateParams::default()
            .serialize_request(&key)
            .unwrap();
        let refused = fleet
            .authority
            .issue_node(csr.der(), &node("n"), DAY, SystemTime::now());
        assert!(
            matches!(refused, Err(AuthorityError::Request(InvalidRequest::Key))),
            "{refused:?}"
        );
    }
}

#[test]
fn an_authority_is_the_same_after_a_restart_and_its_key_is_its_owner_s() {
    let fleet = Fleet::new();
    let folder = fleet.folder.path().join("ca");
    let mode = |file: &str| std::fs::metadata(folder.join(file)).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode("authority.key"), 0o600);
    assert_eq!(mode(CERTIFICATE_FILE), 0o644);

    let again = Authority::open_or_create(&folder, SystemTime::now()).unwrap();
    assert_eq!(again.certificate(), fleet.authority.certificate());
    let names = std::fs::read_dir(&folder).unwrap().count();
    assert_eq!(names, 2, "nothing else is left there");
}

#[test]
fn half_an_authority_is_not_taken_for_a_new_one() {
    let fleet = Fleet::new();
    let folder = fleet.folder.path().join("ca");
    let open = || Authority::open_or_create(&folder, SystemTime::now());
    let key = std::fs::read(folder.join("authority.key")).unwrap();

    // The key is written first, so a crash leaves it alone: the certificate is made anew, of the same key.
    std::fs::remove_file(folder.join(CERTIFICATE_FILE)).unwrap();
    let mended = open().unwrap();
    assert_eq!(std::fs::read(folder.join("authority.key")).unwrap(), key);
    assert_ne!(mended.certificate(), fleet.authority.certificate());

    std::fs::remove_file(folder.join("authority.key")).unwrap();
    assert!(matches!(open(), Err(AuthorityError::KeyMissing { .. })));
    let other = Fleet::new();
    std::fs::copy(
        other.folder.path().join("ca/authority.key"),
        folder.join("authority.key"),
    )
    .unwrap();
    assert!(matches!(open(), Err(AuthorityError::Mismatch { .. })));
    std::fs::write(folder.join("authority.key"), "no key").unwrap();
    assert!(matches!(
        open(),
        Err(AuthorityError::Malformed { what: "key", .. })
    ));
    let leaf = certificates(&other.server().chain_pem).unwrap().remove(0);
    assert!(!leaf.is_empty());
    std::fs::write(folder.join("authority.key"), &key).unwrap();
    std::fs::write(folder.join(CERTIFICATE_FILE), other.server().chain_pem).unwrap();
    assert!(matches!(
        open(),
        Err(AuthorityError::Malformed {
            what: "certificate",
            ..
        })
    ));
}

#[test]
fn nothing_outlives_its_authority() {
    let fleet = Fleet::new();
    let end = fleet.authority.not_after();
    let names = ["127.0.0.1".to_owned(), "::1".to_owned(), "api.test".to_owned()];
    let issue = |now| fleet.authority.issue_server(&names, 2 * DAY, now);
    assert_eq!(issue(end - DAY).unwrap().not_after, end);
    assert!(matches!(issue(end), Err(AuthorityError::Ended)));
}

#[test]
fn a_server_is_named_by_hosts_and_addresses_only() {
    let fleet = Fleet::new();
    let issue = |names: &[&str]| {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        fleet.authority.issue_server(&names, DAY, SystemTime::now())
    };
    assert!(matches!(issue(&[]), Err(AuthorityError::NoNames)));
    for wrong in ["", "a b", "https://a", "a:80", "größe.test"] {
        assert!(
            matches!(issue(&["good.test", wrong]), Err(AuthorityError::Name { .. })),
            "{wrong}"
        );
    }
}

#[test]
fn a_broken_pair_is_refused_and_the_old_one_stays() {
    let fleet = Fleet::new();
    let (good, other) = (fleet.server(), fleet.server());
    let (key, others_key) = (good.key_pem.as_ref().unwrap(), other.key_pem.as_ref().unwrap());
    let identity = Identity::from_pem(&good.chain_pem, key).unwrap();
    let refused = |chain: &str, key: &str| identity.replace(chain, key).unwrap_err();
    assert!(matches!(
        refused(&good.chain_pem, others_key),
        IdentityError::Mismatch
    ));
    assert!(matches!(refused("", key), IdentityError::NoCertificate));
    assert!(matches!(refused(&good.chain_pem, ""), IdentityError::Key(_)));
    let half = &good.chain_pem[..good.chain_pem.len() / 4];
    assert!(matches!(
        refused(half, key),
        IdentityError::Chain(_) | IdentityError::NoCertificate
    ));
    assert_eq!(identity.serial(), good.serial);
    identity.replace(&other.chain_pem, others_key).unwrap();
    assert_eq!(identity.serial(), other.serial);
    assert_eq!(identity.not_after(), other.not_after);
}
