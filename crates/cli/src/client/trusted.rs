//! Whom a client trusts to be the server.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use hotswap_transport::rustls::ClientConfig;
use hotswap_transport::{Roots, client_config};

use hotswap_core::causes::with_causes;

use super::ApiError;
use crate::problem::Problem;

/// Says that the system's authorities are trusted, and none that is remembered.
const SYSTEM: &str = "system";
/// Bytes of a file of authorities.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// What is spoken inside.
const PROTOCOLS: [&[u8]; 1] = [b"http/1.1"];

/// Whom a client trusts to be the server.
#[derive(Clone, Debug, Default)]
pub(crate) struct Authorities {
    /// What the user said just now.
    said: Option<Said>,
    /// In PEM, by the server's address.
    remembered: BTreeMap<String, String>,
}

#[derive(Clone, Debug)]
enum Said {
    System,
    Pem { file: PathBuf, text: String },
}

impl Authorities {
    /// What `--ca` or the variable says, `system` or a file in PEM, before what is remembered by the server's address.
    ///
    /// # Errors
    /// A file that can't be read.
    pub(crate) fn new(said: Option<&Path>, remembered: BTreeMap<String, String>) -> Result<Self, Problem> {
        let said = match said {
            None => None,
            Some(file) if file == Path::new(SYSTEM) => Some(Said::System),
            Some(file) => Some(Said::Pem {
                file: file.to_owned(),
                text: read(file)?,
            }),
        };
        Ok(Self { said, remembered })
    }

    /// What is to be remembered of what the user said: `None`, nothing was said; `Some(None)`, the system's.
    pub(crate) fn said(&self) -> Option<Option<&str>> {
        self.said.as_ref().map(|said| match said {
            Said::System => None,
            Said::Pem { text, .. } => Some(text.as_str()),
        })
    }

    /// For a server that speaks without TLS.
    pub(super) fn unneeded() -> Result<ClientConfig, ApiError> {
        client_config(Roots::Nobody, None, &[]).map_err(|error| ApiError::Authorities {
            which: "TLS".to_owned(),
            why: with_causes(&error),
        })
    }

    /// For the server at this address.
    pub(super) fn tls(&self, address: &str) -> Result<ClientConfig, ApiError> {
        let (roots, which) = match (&self.said, self.remembered.get(address)) {
            (Some(Said::Pem { file, text }), _) => (Roots::Pem(text.clone()), file.display().to_string()),
            (None, Some(text)) => (
                Roots::Pem(text.clone()),
                format!("what is remembered for {address}"),
            ),
            (Some(Said::System), _) | (None, None) => (Roots::System, "the system's authorities".to_owned()),
        };
        let config = client_config(roots, None, &PROTOCOLS);
        config.map_err(|error| ApiError::Authorities {
            which,
            why: with_causes(&error),
        })
    }
}

fn read(file: &Path) -> Result<String, Problem> {
    let shown = file.display();
    let wrong = |why: String| {
        Problem::usage(format!("{shown} can't be read: {why}"))
            .next("--ca names a file in PEM with the certificate of the server's authority, or says system")
    };
    let mut text = String::new();
    let opened = File::open(file).map_err(|error| wrong(error.to_string()))?;
    let read = opened.take(FILE_BYTES_MAX + 1).read_to_string(&mut text);
    read.map_err(|error| wrong(error.to_string()))?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(wrong(format!("it has more than {FILE_BYTES_MAX} bytes")));
    }
    Ok(text)
}
