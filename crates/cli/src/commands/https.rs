//! How a server's API is spoken, as the configuration says.

use hotswap_config::sections::{Tls, TlsMode as Mode};
use hotswap_server::{TlsConfig, TlsMode};

use crate::problem::Problem;

/// How the API is spoken.
///
/// # Errors
/// Keys that contradict each other.
pub(super) fn config(tls: &Tls) -> Result<TlsConfig, Problem> {
    let mode = match (&tls.certificate, &tls.key, tls.mode) {
        (Some(_), Some(_), Mode::Off) => {
            return Err(
                Problem::usage("server.tls.mode is off, and server.tls.certificate is given")
                    .next("leave one of them out"),
            );
        }
        (Some(certificate), Some(key), _) => TlsMode::Files {
            certificate: certificate.clone(),
            key: key.clone(),
        },
        (Some(_), None, _) => {
            return Err(Problem::usage("server.tls.certificate is given without its key")
                .next("give it by --tls-key, by HOTSWAP_SERVER_TLS_KEY, or in hotswap.toml"));
        }
        (None, Some(_), _) => {
            return Err(
                Problem::usage("server.tls.key is given without its certificate").next(
                    "give it by --tls-certificate, by HOTSWAP_SERVER_TLS_CERTIFICATE, or in hotswap.toml",
                ),
            );
        }
        (None, None, Mode::On) => TlsMode::Own,
        (None, None, Mode::Auto) if !tls.insecure_http => TlsMode::Auto,
        (None, None, Mode::Auto | Mode::Off) => TlsMode::Off {
            beyond_loopback: tls.insecure_http,
        },
    };
    Ok(TlsConfig {
        mode,
        names: tls.names.clone(),
        ..TlsConfig::default()
    })
}
