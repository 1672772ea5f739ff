//! How access is configured.

use std::time::Duration;

use secrecy::SecretString;

/// How users log in, and how long what they get lasts.
#[derive(Clone, Debug)]
pub struct AccessConfig {
    /// Whether this is the demo: it has accounts with known passwords.
    pub demo: bool,
    /// The first admin's password; `None` makes a one-time password. Only the first start looks at it.
    pub admin_password: Option<SecretString>,
    /// How long an access token lasts.
    pub access_lifetime: Duration,
    /// How long a session lasts without being used, and the refresh token with it.
    pub session_lifetime: Duration,
    /// How long a signing key signs.
    pub key_lifetime: Duration,
}

impl Default for AccessConfig {
    fn default() -> Self {
        Self {
            demo: false,
            admin_password: None,
            access_lifetime: Duration::from_secs(15 * 60),
            session_lifetime: Duration::from_secs(7 * 24 * 3_600),
            key_lifetime: Duration::from_secs(30 * 24 * 3_600),
        }
    }
}
