//! The one path from a signer to a root, found by what certificates say of themselves. Whether it is true is webpki's
//! to judge; this finds it, and says what is missing.

use crate::certificate::Certificate;
use crate::envelope::Envelope;
use crate::error::{Check, TrustError};

/// From the signer's issuer up to the root.
pub(crate) struct Path<'a> {
    pub(crate) intermediates: Vec<&'a Certificate>,
    pub(crate) root: &'a Certificate,
}

impl<'a> Path<'a> {
    pub(crate) fn find(envelope: &'a Envelope, roots: &'a [Certificate]) -> Result<Self, TrustError> {
        let mut left: Vec<&Certificate> = envelope.others.iter().collect();
        let mut intermediates = Vec::new();
        let mut current = &envelope.signer;
        // Each turn takes one certificate out of `left`.
        let root = loop {
            if let Some(root) = roots.iter().find(|root| current.names_as_issuer(root)) {
                break root;
            }
            if current.is_self_issued() {
                return Err(ends_at(current, std::ptr::eq(current, &envelope.signer)));
            }
            let Some(place) = left.iter().position(|other| current.names_as_issuer(other)) else {
                return Err(missing(current, roots));
            };
            current = left.remove(place);
            intermediates.push(current);
        };
        // What nothing covers could be changed by anybody. The root itself may come along: it is compared.
        match left.into_iter().find(|other| *other != root) {
            None => Ok(Self { intermediates, root }),
            Some(unused) => Err(TrustError::new(
                Check::UnusedCertificate,
                "is in the signature and has no part in the signer's chain",
                "send the signer's certificate and the intermediate ones between it and the root, nothing else",
            )
            .of(unused.subject())),
        }
    }
}

fn ends_at(last: &Certificate, is_signer: bool) -> TrustError {
    if is_signer {
        TrustError::new(
            Check::SelfSigned,
            "is signed by itself: nobody vouches for it",
            "sign with a certificate that a trusted root issued; `hotswap trust init` makes both",
        )
        .of(last.subject())
    } else {
        TrustError::new(
            Check::UnknownRoot,
            "ends the chain, and is none of the roots that are trusted here",
            "add it to the roots of the trust file if it is to be trusted, or sign with another certificate",
        )
        .of(last.subject())
    }
}

fn missing(current: &Certificate, roots: &[Certificate]) -> TrustError {
    let issuer = &current.x509.tbs_certificate.issuer;
    if roots
        .iter()
        .any(|root| root.x509.tbs_certificate.subject == *issuer)
    {
        return TrustError::new(
            Check::UnknownRoot,
            format!("was issued by another key than that of the trusted root of the same name, \"{issuer}\""),
            "sign with a certificate of the trusted root, or add the other root to the trust file",
        )
        .of(current.subject());
    }
    TrustError::new(
        Check::IssuerMissing,
        format!("was issued by \"{issuer}\", which is neither in the signature nor a trusted root"),
        "if it is an intermediate certificate, sign with it (`--chain`, openssl: -certfile); if it is a root, add it \
         to the trust file",
    )
    .of(current.subject())
}
