//! What is read from certificates: serial numbers, fingerprints, ends.

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::{self, PemObject as _};
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer as _;

/// Bytes of a serial number (RFC 5280, 4.1.2.2).
const SERIAL_BYTES_MAX: usize = 20;

/// A certificate's serial number, unique among those of its authority. Its text is hexadecimal.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Serial(Vec<u8>);

impl Serial {
    /// From the number's bytes, the greatest first. Zeros before the number don't count.
    ///
    /// # Errors
    /// More than 20 bytes, or none.
    pub fn new(bytes: &[u8]) -> Result<Self, InvalidSerial> {
        let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
        let significant = &bytes[zeros..];
        if significant.is_empty() || significant.len() > SERIAL_BYTES_MAX {
            return Err(InvalidSerial);
        }
        Ok(Self(significant.to_vec()))
    }

    /// The number's bytes, the greatest first.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Serial({self})")
    }
}

impl FromStr for Serial {
    type Err = InvalidSerial;

    fn from_str(text: &str) -> Result<Self, InvalidSerial> {
        if text.len() > 2 * (SERIAL_BYTES_MAX + 1) || !text.len().is_multiple_of(2) {
            return Err(InvalidSerial);
        }
        let digits = text.as_bytes().chunks_exact(2);
        let bytes = digits.map(|pair| {
            let nibble = |digit: u8| char::from(digit).to_digit(16);
            let byte = nibble(pair[0])? << 4 | nibble(pair[1])?;
            u8::try_from(byte).ok()
        });
        let bytes: Option<Vec<u8>> = bytes.collect();
        Self::new(&bytes.ok_or(InvalidSerial)?)
    }
}

/// What is no serial number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a serial number: 1 to 20 bytes in hexadecimal are one")]
pub struct InvalidSerial;

/// A certificate's SHA-256, in the notation of `openssl x509 -fingerprint -sha256`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// Of a certificate.
    pub fn of(certificate: &CertificateDer<'_>) -> Self {
        let digest = ring::digest::digest(&ring::digest::SHA256, certificate);
        let mut bytes = [0; 32];
        bytes.copy_from_slice(digest.as_ref());
        Self(bytes)
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, byte) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { ":" };
            write!(f, "{separator}{byte:02X}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fingerprint({self})")
    }
}

/// A certificate that can't be read or that says something else than it should.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidCertificate {
    /// Not X.509.
    #[error("not an X.509 certificate")]
    Malformed,
    /// A serial number that no certificate may have.
    #[error("its serial number is malformed")]
    Serial,
    /// Its end can't be said.
    #[error("its end is malformed")]
    End,
    /// It speaks for no node, or for more than one.
    #[error("it doesn't name exactly one node")]
    NotANode,
}

/// All certificates of a PEM text.
///
/// # Errors
/// Something that begins as a certificate and isn't one.
pub fn certificates(text: &str) -> Result<Vec<CertificateDer<'static>>, pem::Error> {
    CertificateDer::pem_slice_iter(text.as_bytes()).collect()
}

pub(crate) fn parse<'a>(der: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, InvalidCertificate> {
    match X509Certificate::from_der(der) {
        Ok(([], certificate)) => Ok(certificate),
        _ => Err(InvalidCertificate::Malformed),
    }
}

pub(crate) fn serial(certificate: &X509Certificate<'_>) -> Result<Serial, InvalidCertificate> {
    Serial::new(certificate.raw_serial()).map_err(|InvalidSerial| InvalidCertificate::Serial)
}

pub(crate) fn end_of(certificate: &X509Certificate<'_>) -> Result<SystemTime, InvalidCertificate> {
    let seconds = u64::try_from(certificate.validity().not_after.timestamp());
    let seconds = seconds.map_err(|_| InvalidCertificate::End)?;
    UNIX_EPOCH
        .checked_add(Duration::from_secs(seconds))
        .ok_or(InvalidCertificate::End)
}

/// Until when a certificate holds.
///
/// # Errors
/// It can't be read.
pub fn not_after(certificate: &CertificateDer<'_>) -> Result<SystemTime, InvalidCertificate> {
    end_of(&parse(certificate)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_serial_number_is_read_as_it_is_written() {
        let serial = Serial::new(&[0, 0, 0x7f, 1]).unwrap();
        assert_eq!(serial.to_string(), "7f01");
        assert_eq!("7f01".parse(), Ok(serial.clone()));
        assert_eq!("007F01".parse(), Ok(serial));
        for wrong in ["", "0", "00", "7f0", "0x7f", "+1", "zz", &"ab".repeat(21)] {
            assert_eq!(wrong.parse::<Serial>(), Err(InvalidSerial), "{wrong}");
        }
    }
}
