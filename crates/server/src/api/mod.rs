//! The REST API: the contract's fixed part, and ours.

mod approvals;
mod body;
mod call;
mod clusters;
mod commands;
mod context;
mod control;
mod create;
mod deployments;
mod error;
mod health;
mod insight;
mod listen;
mod modules;
mod nodes;
mod params;
mod push;

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::get;
use hotswap_core::time::Millis;
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::driver::{Driver, World};
use crate::registry::Registry;
use crate::series::Series;
use crate::store::Store;

pub use error::{ApiError, ErrorBody};
pub use listen::{Listening, serve};

/// Where the API lies.
pub const BASE: &str = "/api/v1";

/// What handlers work with.
pub struct Api {
    /// Takes commands.
    pub driver: Driver,
    /// Keeps what State no longer holds.
    pub store: Arc<dyn Store>,
    /// Keeps packages.
    pub registry: Arc<Registry>,
    /// Environments' measurements over time.
    pub series: Arc<Series>,
    /// A node without a report for this long counts as failed.
    pub heartbeat_timeout: Millis,
}

impl Api {
    fn world(&self) -> &World {
        self.driver.world()
    }
}

type Shared = State<Arc<Api>>;

/// The document's head; its paths come from the handlers.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "Hotswap",
        description = "Rolls new versions of hot-swappable modules out to fleets of nodes, under live traffic, and takes them back when the numbers say so."
    ),
    components(schemas(ErrorBody)),
    tags(
        (name = "deployments", description = "Runs of the pipeline for a release, up to a target environment."),
        (name = "approvals", description = "Deployments that wait for a person."),
        (name = "clusters", description = "Environments and their nodes."),
        (name = "modules", description = "Modules and their releases."),
        (name = "health", description = "The server itself."),
    )
)]
struct Document;

/// All routes, with the document that describes them.
pub fn router(api: Arc<Api>) -> Router {
    let v1 = OpenApiRouter::new()
        .routes(routes!(create::create, deployments::list))
        .routes(routes!(deployments::get))
        .routes(routes!(control::rollback))
        .routes(routes!(control::abort))
        .routes(routes!(control::pause))
        .routes(routes!(control::resume))
        .routes(routes!(control::skip))
        .routes(routes!(control::promote))
        .routes(routes!(insight::why))
        .routes(routes!(insight::analysis))
        .routes(routes!(approvals::pending))
        .routes(routes!(approvals::get))
        .routes(routes!(approvals::approve))
        .routes(routes!(approvals::reject))
        .routes(routes!(clusters::list))
        .routes(routes!(clusters::get))
        .routes(routes!(clusters::metrics))
        .routes(routes!(push::push, modules::list))
        .routes(routes!(modules::get))
        .routes(routes!(nodes::list))
        .routes(routes!(nodes::get));
    let (router, document) = OpenApiRouter::with_openapi(Document::openapi())
        .nest(BASE, v1)
        .routes(routes!(health::health))
        .routes(routes!(health::live))
        .routes(routes!(health::ready))
        .split_for_parts();
    let document: Arc<str> = document.to_json().expect("the document is plain data").into();
    router
        .route("/openapi.json", get(move || async move { described(&document) }))
        .fallback(error::unknown_route)
        .method_not_allowed_fallback(error::method_not_allowed)
        .layer(axum::middleware::from_fn(context::in_context))
        .with_state(api)
}

fn described(document: &str) -> impl IntoResponse + use<> {
    ([(CONTENT_TYPE, "application/json")], document.to_owned())
}
