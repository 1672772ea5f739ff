//! Certificates that the API shows, and that are there for it.

use std::path::Path;
use std::time::{Duration, SystemTime};

use hotswap_agent::NODE_CERTIFICATE_FILE;
use hotswap_config::Loaded;
use hotswap_transport::rustls::pki_types::CertificateDer;
use hotswap_transport::{CERTIFICATE_FILE, Fingerprint, Identity, certificates, not_after, peer_certificate};

use super::Finding;

/// One that ends so soon wants another in its place.
const ENDS_SOON: Duration = Duration::from_secs(14 * 86_400);
/// An authority's takes longer to replace: everybody has to be told.
const AUTHORITY_ENDS_SOON: Duration = Duration::from_secs(180 * 86_400);

/// Those of the configuration, the fleet's own authority, and a node's.
pub(super) fn look(loaded: &Loaded) -> Vec<Finding> {
    let server = &loaded.config.server;
    let mut findings = Vec::new();
    if let (Some(certificate), Some(key)) = (&server.tls.certificate, &server.tls.key) {
        findings.push(configured(certificate, key));
    }
    let authority = server.data.join("ca").join(CERTIFICATE_FILE);
    if let Ok(text) = std::fs::read_to_string(&authority) {
        findings.push(of_fleet(&authority, &text));
    }
    if let Some(data) = super::data::of_agent(loaded)
        && let Ok(text) = std::fs::read_to_string(data.join(NODE_CERTIFICATE_FILE))
    {
        findings.push(of_node(&data.join(NODE_CERTIFICATE_FILE), &text));
    }
    findings
}

/// What a server shows.
pub(super) fn shown(url: &str, certificate: &CertificateDer<'_>) -> Finding {
    let what = "server's certificate";
    match not_after(certificate) {
        Ok(end) => ending(
            (what, &format!("{url}, SHA-256 {}", Fingerprint::of(certificate))),
            end,
            ENDS_SOON,
            "put another one in its place: the server reads it without a restart",
        ),
        Err(error) => Finding::fail(what, format!("{url}: {error}"), "give the server another one"),
    }
}

fn configured(certificate: &Path, key: &Path) -> Finding {
    let what = "API's certificate";
    let shown = certificate.display();
    let read = |path: &Path| {
        std::fs::read_to_string(path).map_err(|error| format!("{} can't be read: {error}", path.display()))
    };
    let identity = read(certificate).and_then(|chain| {
        let identity = Identity::from_pem(&chain, &read(key)?);
        identity.map_err(|error| format!("{shown} with {}: {error}", key.display()))
    });
    match identity {
        Ok(identity) => ending(
            (what, &format!("{shown}, SHA-256 {}", identity.fingerprint())),
            identity.not_after(),
            ENDS_SOON,
            "put another one in its place: a server that runs reads it without a restart",
        ),
        Err(found) => Finding::fail(what, found, "mend server.tls.certificate and server.tls.key"),
    }
}

fn of_fleet(file: &Path, text: &str) -> Finding {
    let what = "fleet's authority";
    let shown = file.display();
    let certificate = certificates(text).ok().and_then(|found| found.into_iter().next());
    let found = certificate.and_then(|found| Some((Fingerprint::of(&found), not_after(&found).ok()?)));
    match found {
        Some((fingerprint, end)) => ending(
            (what, &format!("{shown}, SHA-256 {fingerprint}")),
            end,
            AUTHORITY_ENDS_SOON,
            "plan another authority: every client and node has to trust it",
        ),
        None => Finding::fail(
            what,
            format!("{shown} holds no certificate"),
            "restore the folder ca from a backup",
        ),
    }
}

fn of_node(file: &Path, text: &str) -> Finding {
    let what = "node's certificate";
    let shown = file.display();
    let certificate = certificates(text).ok().and_then(|found| found.into_iter().next());
    let found = certificate.and_then(|found| Some((peer_certificate(&found).ok()?, not_after(&found).ok()?)));
    match found {
        Some((peer, end)) => ending(
            (what, &format!("{shown}, {}", peer.identity)),
            end,
            Duration::ZERO,
            "it needs a join token: hotswap node token create",
        ),
        None => Finding::fail(
            what,
            format!("{shown} holds no node's certificate"),
            "remove it, and let the node join again: hotswap node token create",
        ),
    }
}

fn ending((what, told): (&'static str, &str), end: SystemTime, soon: Duration, next: &str) -> Finding {
    let date = humantime::format_rfc3339_seconds(end);
    match end.duration_since(SystemTime::now()) {
        Err(_) => Finding::fail(what, format!("{told}, ended {date}"), next),
        Ok(left) if left < soon => Finding::warn(what, format!("{told}, ends {date}"), next),
        Ok(_) => Finding::ok(what, format!("{told}, ends {date}")),
    }
}
