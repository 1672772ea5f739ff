//! HTTP in: finds the module that a request is for, draws one of its releases, hands the request over and meters
//! what comes back.
//!
//! The path of a request takes no lock and touches two immutable tables that are swapped whole: which module
//! ([`Ingress::set_routes`]), which release of it ([`Slot::set_active`]). A request that has begun finishes on the
//! release it began with; one that loses the race against a close comes back whole and goes to the new release.

mod config;
mod release;
mod router;
mod server;
mod slot;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use hotswap_core::ids::ModuleName;
use hotswap_package::Route;
use hotswap_runtime::{Body, Failure, Overflow};
use http::{HeaderName, Request, Response, StatusCode};

pub use config::IngressConfig;
pub use release::Release;
pub use server::{Patience, Stopped};
pub use slot::Slot;

use router::Table;

/// Tells a client which release answered.
pub(crate) const RELEASE_HEADER: HeaderName = HeaderName::from_static("x-hotswap-release");
/// How often a request is drawn anew when its release closes under it. Each time a whole drain had to fit between a
/// look at a table and the next step, so one is rare and three don't happen.
const DRAWS_MAX: usize = 8;

/// A node's ingress. Cheap to clone; the clones are one ingress.
#[derive(Clone)]
pub struct Ingress {
    inner: Arc<Inner>,
}

struct Inner {
    config: IngressConfig,
    table: ArcSwap<Table>,
    /// What the table is made of. Locked by changes only.
    modules: Mutex<BTreeMap<ModuleName, Module>>,
}

#[derive(Clone)]
struct Module {
    slot: Arc<Slot>,
    routes: Vec<Route>,
}

/// Why a request to a preview got no answer.
#[derive(Debug, thiserror::Error)]
pub enum PreviewError {
    /// The module has no preview on this node.
    #[error("the module has no preview release here")]
    None,
    /// The release failed.
    #[error(transparent)]
    Failed(#[from] Failure),
}

impl Ingress {
    /// An ingress without modules.
    pub fn new(config: IngressConfig) -> Self {
        Self {
            inner: Arc::new(Inner {
                config,
                table: ArcSwap::default(),
                modules: Mutex::default(),
            }),
        }
    }

    /// The slot of a module; made, without routes and releases, where there is none.
    pub fn slot(&self, module: &ModuleName) -> Arc<Slot> {
        let mut modules = self.inner.lock();
        let module = modules.entry(module.clone()).or_insert_with(|| Module {
            slot: Arc::new(Slot::new(module.clone())),
            routes: Vec::new(),
        });
        Arc::clone(&module.slot)
    }

    /// Which requests go to a module from now on. Where two modules claim the same route, the one whose name comes
    /// first has it.
    pub fn set_routes(&self, module: &ModuleName, routes: Vec<Route>) {
        let slot = self.slot(module);
        let mut modules = self.inner.lock();
        modules.insert(module.clone(), Module { slot, routes });
        self.inner.swap_table(&modules);
    }

    /// Takes a module's routes away and forgets its slot. Its releases are the caller's to close.
    pub fn remove(&self, module: &ModuleName) {
        let mut modules = self.inner.lock();
        modules.remove(module);
        self.inner.swap_table(&modules);
    }

    /// Sends a request to a module's preview release: by this call only, never by anything in a request. It is not
    /// metered; whoever probes knows what the right answer is and records it.
    ///
    /// # Errors
    /// If there is no preview, or why it gave no answer.
    pub async fn preview(
        &self,
        module: &ModuleName,
        request: Request<Body>,
    ) -> Result<Response<Body>, PreviewError> {
        let slot = self
            .inner
            .lock()
            .get(module)
            .map(|module| Arc::clone(&module.slot));
        let release = slot.and_then(|slot| slot.preview()).ok_or(PreviewError::None)?;
        Ok(release.instance().handle(request).await?)
    }

    /// Answers one request as the listener would.
    pub async fn handle(&self, request: Request<Body>) -> Response<Body> {
        self.inner.handle(request).await
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<ModuleName, Module>> {
        // The map is sound after every step, so a panic elsewhere doesn't spoil it.
        self.modules.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn swap_table(&self, modules: &BTreeMap<ModuleName, Module>) {
        let modules = modules.values().map(|module| (&module.slot, &*module.routes));
        self.table.store(Arc::new(Table::new(modules)));
    }

    /// Draws a release for a request, or says with what error it is answered.
    fn draw<B>(&self, request: &Request<B>) -> Result<Arc<Release>, Response<Body>> {
        let table = self.table.load();
        match table.find(request) {
            None => Err(error(StatusCode::NOT_FOUND, "no module serves this path")),
            Some(slot) => slot.draw().ok_or_else(|| {
                error(
                    StatusCode::SERVICE_UNAVAILABLE,
                    "the module has no active release here",
                )
            }),
        }
    }

    async fn handle(&self, request: Request<Body>) -> Response<Body> {
        match self.draw(&request) {
            Ok(release) => self.serve(release, request, None).await,
            Err(answer) => answer,
        }
    }

    /// Has a release serve a request; another one if it closes before the request begins.
    async fn serve(
        &self,
        mut release: Arc<Release>,
        mut request: Request<Body>,
        overflow: Option<&Overflow>,
    ) -> Response<Body> {
        for _ in 0..DRAWS_MAX {
            match release.serve(request, overflow).await {
                Ok(mut response) => {
                    if self.config.release_header {
                        response
                            .headers_mut()
                            .insert(RELEASE_HEADER, release.label().clone());
                    }
                    return response;
                }
                Err(given_back) => request = *given_back,
            }
            match self.draw(&request) {
                Ok(next) => release = next,
                Err(answer) => return answer,
            }
        }
        error(
            StatusCode::SERVICE_UNAVAILABLE,
            "the module's releases keep changing",
        )
    }
}

/// The ingress's own answer, where no module gives one.
fn error(status: StatusCode, message: &str) -> Response<Body> {
    let body = serde_json::json!({ "error": message }).to_string();
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    let json = http::HeaderValue::from_static("application/json");
    response.headers_mut().insert(http::header::CONTENT_TYPE, json);
    response
}
