//! A server that runs.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::SystemTime;

use hotswap_core::command::Command;
use hotswap_core::policy::Environment;
use hotswap_core::state::State;
use parking_lot::RwLock;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::access::FirstAdmin;
use crate::api::{Origins, RateLimits};
use crate::config::{Grant, Grants};
use crate::driver::{self, DriverError};
use crate::store::Answer;
use crate::tls::{ApiCertificate, CertificateError, refused};

/// A server that runs.
#[derive(Debug)]
pub struct RunningServer {
    pub(super) http: SocketAddr,
    pub(super) agents: SocketAddr,
    pub(super) first_admin: Option<FirstAdmin>,
    /// Ends the door for people and programs first, so that what is under way is still decided.
    pub(super) doors: CancellationToken,
    /// Ends the driver, and with it agents' sessions.
    pub(super) core: CancellationToken,
    pub(super) api: JoinHandle<()>,
    pub(super) commands: driver::Driver,
    pub(super) grants: Arc<Grants>,
    pub(super) limits: Arc<RwLock<RateLimits>>,
    pub(super) origins: Origins,
    pub(super) certificate: Option<Arc<ApiCertificate>>,
    pub(super) tasks: TaskTracker,
    pub(super) driver: JoinHandle<Result<(), DriverError>>,
}

impl RunningServer {
    /// Where HTTP is served.
    pub fn http_addr(&self) -> SocketAddr {
        self.http
    }

    /// The API's address as clients write it.
    pub fn url(&self) -> String {
        let scheme = if self.certificate.is_some() {
            "https"
        } else {
            "http"
        };
        format!("{scheme}://{}", self.http)
    }

    /// The certificate that the API shows, where it speaks TLS.
    pub fn certificate(&self) -> Option<&ApiCertificate> {
        self.certificate.as_deref()
    }

    /// Reads the files of the API's certificate anew, where it has such; they are looked at from time to time anyway.
    ///
    /// # Errors
    /// Another certificate that can't be used: it is told in the log, too, and the old one stays.
    pub async fn reload_certificate(&self) -> Result<(), CertificateError> {
        let Some(certificate) = self.certificate.clone() else {
            return Ok(());
        };
        let read = tokio::task::spawn_blocking(move || certificate.reload(SystemTime::now()));
        let read = read
            .await
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()));
        read.map(drop).inspect_err(refused)
    }

    /// Where agents connect.
    pub fn agents_addr(&self) -> SocketAddr {
        self.agents
    }

    /// The admin that this start made, where nobody could log in before.
    pub fn first_admin(&self) -> Option<&FirstAdmin> {
        self.first_admin.as_ref()
    }

    /// Takes up other environments, and what modules may ask for in them. Rollouts that run keep the rules that they
    /// began with.
    ///
    /// # Errors
    /// Why they were refused; everything stays as it was then.
    pub async fn configure(&self, environments: Vec<Environment>, grants: Vec<Grant>) -> Result<(), String> {
        let command = Command::Configure { environments };
        let answer: driver::Answerer = Box::new(|_: &State, outcome: driver::Outcome<'_>| Answer {
            status: if outcome.result.is_ok() { 200 } else { 400 },
            location: None,
            body: outcome.result.err().map(ToString::to_string).into(),
        });
        let answer = self
            .commands
            .submit(driver::Origin::default(), command, None, answer)
            .await
            .map_err(|error| error.to_string())?;
        if let Some(refusal) = answer.body.as_str() {
            return Err(refusal.to_owned());
        }
        self.grants.replace(grants);
        Ok(())
    }

    /// Counts requests by other limits, and answers pages of other origins, from the next request on.
    pub fn limit(&self, limits: RateLimits, origins: &[String]) {
        *self.limits.write() = limits;
        self.origins.replace(origins);
    }

    /// Returns when the server ends by itself, which it does only where the store failed. The process must end then:
    /// what is durable is not known, and the next start finds out. Safe to give up and call again.
    ///
    /// # Errors
    /// Why it ended.
    pub async fn ended(&mut self) -> Result<(), DriverError> {
        let ended = (&mut self.driver).await;
        self.doors.cancel();
        self.core.cancel();
        ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))
    }

    /// Ends in order: no more requests, then the sessions, then the driver with a snapshot.
    ///
    /// # Errors
    /// The store failed before.
    pub async fn shutdown(self) -> Result<(), DriverError> {
        self.doors.cancel();
        if let Err(error) = self.api.await {
            tracing::error!(%error, "serving the API panicked");
        }
        self.core.cancel();
        self.tasks.wait().await;
        self.driver
            .await
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))
    }
}
