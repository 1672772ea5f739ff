//! One loaded release.

use std::sync::Arc;
use std::time::Duration;

use hotswap_core::ids::Digest;
use hotswap_package::Manifest;
use http::Request;
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::proxy;
use super::start::{Running, Starter};
use super::state::Serving;
use super::supervise::supervise;
use crate::body::Body;
use crate::kind::{BoxFuture, Closed, Instance, Readiness, ResponseFuture, StartError, Usage};

/// A release whose process is ready. Dropping it without closing it ends the process in the background.
#[derive(Debug)]
pub(super) struct ProcessInstance {
    serving: Arc<Serving>,
    stop: CancellationToken,
    stopped: watch::Receiver<bool>,
    _stops: DropGuard,
}

impl ProcessInstance {
    /// Starts a release's process and waits until it is ready.
    pub(super) async fn start(starter: Starter) -> Result<Self, StartError> {
        let starter = Arc::new(starter);
        let running: Running = starter.start().await?;
        let (stop, (tell, stopped)) = (CancellationToken::new(), watch::channel(false));
        let serving = Arc::clone(&starter.serving);
        tokio::spawn(supervise(starter, running, stop.clone(), tell));
        Ok(Self {
            serving,
            _stops: stop.clone().drop_guard(),
            stop,
            stopped,
        })
    }
}

impl Instance for ProcessInstance {
    fn digest(&self) -> Digest {
        self.serving.digest
    }

    fn label(&self) -> &str {
        &self.serving.log.version
    }

    fn manifest(&self) -> &Manifest {
        &self.serving.manifest
    }

    fn handle(&self, request: Request<Body>) -> ResponseFuture {
        Box::pin(proxy::serve(Arc::clone(&self.serving), request))
    }

    fn readiness(&self) -> Readiness {
        self.serving.readiness()
    }

    fn usage(&self) -> Usage {
        self.serving.usage()
    }

    fn close(&self, deadline: Duration) -> BoxFuture<'static, Closed> {
        let (serving, stop, mut stopped) =
            (Arc::clone(&self.serving), self.stop.clone(), self.stopped.clone());
        serving.places.close();
        Box::pin(async move {
            let closed = serving.places.drain(deadline).await;
            // Only now: what waits for its next request would look to the process like a client that stays.
            serving.pool.clear();
            stop.cancel();
            // Its task ends with the process, and tells nothing only if it panicked.
            let _ = stopped.wait_for(|stopped| *stopped).await;
            closed
        })
    }
}

impl Drop for ProcessInstance {
    fn drop(&mut self) {
        self.serving.places.close();
    }
}
