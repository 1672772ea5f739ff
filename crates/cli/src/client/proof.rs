//! How a client proves who it is.

use std::time::{Duration, SystemTime};

use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use tokio::sync::Mutex;

use crate::credentials::{Keeper, Login};

/// A token that expires sooner than this is renewed before it is used.
const RENEWED_BEFORE: Duration = Duration::from_secs(20);

/// The answer to a login or a refresh.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct LoggedIn {
    pub(crate) token: SecretString,
    pub(crate) expires_at: String,
    pub(crate) refresh_token: SecretString,
    pub(crate) user: Account,
}

/// A user.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Account {
    pub(crate) username: String,
    pub(crate) email: String,
    pub(crate) full_name: String,
    pub(crate) roles: Vec<u8>,
    #[serde(default)]
    pub(crate) password_change_required: bool,
}

impl Account {
    /// The name of its highest role.
    pub(crate) fn role(&self) -> &'static str {
        match self.roles.iter().max() {
            Some(3) => "Admin",
            Some(2) => "Deployer",
            Some(1) => "Viewer",
            _ => "no role",
        }
    }
}

impl LoggedIn {
    /// As it is kept.
    pub(crate) fn login(&self) -> Login {
        Login {
            username: self.user.username.clone(),
            email: self.user.email.clone(),
            token: self.token.clone(),
            expires_at: self.expires_at.clone(),
            refresh_token: self.refresh_token.clone(),
        }
    }
}

/// What requests are sent with.
#[derive(Debug)]
pub(crate) enum Proof {
    /// Nothing.
    Nobody,
    /// A token that was given; nothing brings the next one.
    Token(SecretString),
    /// A login, renewed as it goes.
    Login {
        /// The tokens now.
        login: Mutex<Login>,
        /// Where they are kept for the next command, if they are.
        keeper: Option<Keeper>,
    },
}

impl Proof {
    /// A login that is kept nowhere.
    pub(crate) fn of(logged_in: &LoggedIn) -> Self {
        Self::Login {
            login: Mutex::new(logged_in.login()),
            keeper: None,
        }
    }

    /// The token to send, and whether it should be renewed first.
    pub(super) async fn token(&self) -> (Option<SecretString>, bool) {
        match self {
            Self::Nobody => (None, false),
            Self::Token(token) => (Some(token.clone()), false),
            Self::Login { login, .. } => {
                let login = login.lock().await;
                (Some(login.token.clone()), expires_soon(&login.expires_at))
            }
        }
    }
}

pub(super) fn expires_soon(expires_at: &str) -> bool {
    let expires = humantime::parse_rfc3339_weak(expires_at);
    expires.is_ok_and(|expires| expires < SystemTime::now() + RENEWED_BEFORE)
}

/// The body of a refresh.
pub(super) fn refresh_body(token: &SecretString) -> serde_json::Value {
    serde_json::json!({ "refreshToken": token.expose_secret() })
}
