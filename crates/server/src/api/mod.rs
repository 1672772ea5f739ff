//! The REST API: the contract's fixed part, and ours.

mod approvals;
mod audit;
mod authentication;
mod body;
mod call;
mod clusters;
mod collect;
mod commands;
mod console;
mod context;
mod control;
mod create;
mod deployments;
mod download;
mod error;
mod etag;
mod events;
mod fleet;
mod guard;
mod handshake;
mod headers;
mod health;
mod insight;
mod join_tokens;
mod limits;
mod listen;
mod metrics;
mod modules;
mod node_commands;
mod nodes;
mod params;
mod plan;
mod push;
mod push_body;
mod releases;
mod stall;
mod swagger;
mod tokens;
mod undeploy;
mod users;
mod values;
mod versions;
mod webhooks;

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::HeaderMap;
use axum::middleware::Next;
use axum::routing::get;
use hotswap_core::time::Millis;
use hotswap_trust::Gate;
use parking_lot::RwLock;
use serde_json::{Value, json};
use utoipa::OpenApi;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{ContentBuilder, Ref, ResponseBuilder};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::access::Access;
use crate::driver::{Driver, World};
use crate::enrolment::Enrolment;
use crate::feed::Feed;
use crate::notify::Notifier;
use crate::registry::{Collector, Registry};
use crate::sight::{Metrics, Series, SightDb};
use crate::store::Store;

use guard::Guard;
use limits::Limiter;

pub use error::{ApiError, ErrorBody};
pub use guard::Peer;
pub use handshake::Handshakes;
pub use headers::Origins;
pub use limits::RateLimits;
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
    /// Removes packages that nothing needs.
    pub collector: Arc<Collector>,
    /// How far others were told, and what was given up on.
    pub sight: SightDb,
    /// Measurements over time.
    pub series: Arc<Series>,
    /// Who must have signed what is pushed.
    pub gate: Gate,
    /// Tells others what happens.
    pub notifier: Notifier,
    /// What a scrape shows.
    pub metrics: Arc<Metrics>,
    /// Live events.
    pub feed: Arc<Feed>,
    /// A node without a report for this long counts as failed.
    pub heartbeat_timeout: Millis,
    /// Who may do what.
    pub access: Arc<Access>,
    /// Which nodes are let in.
    pub enrolment: Arc<Enrolment>,
    /// How often.
    pub rate_limits: Arc<RwLock<RateLimits>>,
    /// Origins whose pages may read answers.
    pub cors_origins: Origins,
    /// Held while something is made that is no command and has an `Idempotency-Key`.
    pub making: tokio::sync::Mutex<()>,
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
        (name = "events", description = "What happens, as it becomes durable."),
        (name = "nodes", description = "The machines that run modules."),
        (name = "modules", description = "Modules and their releases."),
        (name = "authentication", description = "Logging in and out."),
        (name = "users", description = "Users, API tokens and signing keys."),
        (name = "audit", description = "What was done, and by whom."),
        (name = "webhooks", description = "Who is told what happens to deployments."),
        (name = "health", description = "The server itself."),
    ),
    modifiers(&Bearer)
)]
struct Document;

/// The scheme that operations name their role under.
struct Bearer;

impl utoipa::Modify for Bearer {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let description = "An access token of POST /authentication/login, or an API token of POST /tokens. Operations name the role \
             that they need: Viewer, Deployer or Admin, each with the rights of those before it.";
        let bearer = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .description(Some(description))
            .build();
        let components = document.components.get_or_insert_default();
        components.add_security_scheme("bearer", SecurityScheme::Http(bearer));
    }
}

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
        .routes(routes!(events::all))
        .routes(routes!(events::of_deployment))
        .routes(routes!(insight::why))
        .routes(routes!(insight::analysis))
        .routes(routes!(insight::replay))
        .routes(routes!(approvals::pending))
        .routes(routes!(approvals::get))
        .routes(routes!(approvals::approve))
        .routes(routes!(approvals::reject))
        .routes(routes!(clusters::list))
        .routes(routes!(clusters::get))
        .routes(routes!(clusters::metrics))
        .routes(routes!(push::push, modules::list))
        .routes(routes!(modules::get))
        .routes(routes!(releases::revoke))
        .routes(routes!(releases::set_minimum))
        .routes(routes!(fleet::get))
        .routes(routes!(fleet::adopt))
        .routes(routes!(authentication::login))
        .routes(routes!(authentication::refresh))
        .routes(routes!(authentication::logout))
        .routes(routes!(authentication::me))
        .routes(routes!(authentication::password))
        .routes(routes!(authentication::demo_credentials))
        .routes(routes!(users::create, users::list))
        .routes(routes!(users::get, users::change))
        .routes(routes!(users::reset_password))
        .routes(routes!(tokens::create, tokens::list))
        .routes(routes!(tokens::revoke))
        .routes(routes!(tokens::keys))
        .routes(routes!(tokens::rotate))
        .routes(routes!(audit::list))
        .routes(routes!(audit::verify))
        .routes(routes!(webhooks::list))
        .routes(routes!(webhooks::dead_letters))
        .routes(routes!(webhooks::resend))
        .routes(routes!(versions::versions))
        .routes(routes!(versions::version))
        .routes(routes!(versions::hold))
        .routes(routes!(versions::unhold))
        .routes(routes!(versions::yank))
        .routes(routes!(versions::unyank))
        .routes(routes!(values::get, values::set))
        .routes(routes!(undeploy::undeploy))
        .routes(routes!(collect::collectable))
        .routes(routes!(collect::collect))
        .routes(routes!(download::artifact))
        .routes(routes!(plan::plan))
        .routes(routes!(nodes::list))
        .routes(routes!(nodes::get, node_commands::remove))
        .routes(routes!(node_commands::labels))
        .routes(routes!(node_commands::drain))
        .routes(routes!(node_commands::undrain))
        .routes(routes!(node_commands::relocate))
        .routes(routes!(join_tokens::revoke_node))
        .routes(routes!(join_tokens::create, join_tokens::list))
        .routes(routes!(join_tokens::revoke));
    let (router, document) = OpenApiRouter::with_openapi(Document::openapi())
        .nest(BASE, v1)
        .routes(routes!(health::health))
        .routes(routes!(health::live))
        .routes(routes!(health::ready))
        .routes(routes!(authentication::jwks))
        .routes(routes!(metrics::scrape))
        .split_for_parts();
    let mut document = serde_json::to_value(describe(document)).expect("the document is plain data");
    say_what_the_guard_answers(&mut document);
    let guard = Arc::new(Guard::new(
        &document,
        Arc::clone(&api.access),
        Limiter::new(Arc::clone(&api.rate_limits)),
    ));
    let origins = api.cors_origins.clone();
    let document = Arc::new(document);
    router
        .route(
            "/openapi.json",
            get(move |headers: HeaderMap| async move { etag::json(&headers, &*document) }),
        )
        .merge(swagger::routes())
        .merge(console::routes())
        .fallback(error::unknown_route)
        .method_not_allowed_fallback(error::method_not_allowed)
        .layer(axum::middleware::from_fn(context::to_the_end))
        .layer(axum::middleware::from_fn_with_state(guard, guard::guarded))
        .layer(axum::middleware::from_fn_with_state(
            Arc::clone(&api),
            context::in_context,
        ))
        .layer(axum::middleware::from_fn(headers::secured))
        .layer(axum::middleware::from_fn(move |request: Request, next: Next| {
            headers::shared(origins.clone(), request, next)
        }))
        .with_state(api)
}

/// What the guard and the reading of bodies may answer belongs to every operation.
fn say_what_the_guard_answers(document: &mut Value) {
    let error = |description: &str| {
        json!({
            "description": description,
            "content": { "application/json": { "schema": { "$ref": "#/components/schemas/ErrorBody" } } },
        })
    };
    let paths = document["paths"].as_object_mut().into_iter().flatten();
    for (_, operations) in paths {
        for (method, operation) in operations.as_object_mut().into_iter().flatten() {
            let open = guard::need(operation) == guard::Need::Nobody;
            let (reads, has_body) = (method == "get", operation.get("requestBody").is_some());
            let Some(responses) = operation["responses"].as_object_mut() else {
                continue;
            };
            let mut say = |status: &str, description: &str| {
                responses.entry(status).or_insert_with(|| error(description));
            };
            say("400", "The request can't be read, or is not valid.");
            say("429", "Too many requests; Retry-After says when to come back.");
            if has_body {
                say("408", "The body took too long.");
                say("413", "The body is too large.");
                say("415", "The body is of another type than described.");
            }
            if !reads {
                say("422", "The Idempotency-Key was used for another request.");
                say(
                    "503",
                    "The server is busy, its disk is full, or it is shutting down; try again.",
                );
            }
            if !open {
                say("401", "No token, or one that is not taken.");
                say("403", "The token's role or scope does not reach.");
            }
        }
    }
}

/// What holds for every operation: whatever else is answered is an error's document.
fn describe(mut document: utoipa::openapi::OpenApi) -> utoipa::openapi::OpenApi {
    let error = || {
        let body = ContentBuilder::new()
            .schema(Some(Ref::from_schema_name("ErrorBody")))
            .build();
        ResponseBuilder::new()
            .description("What is wrong, and what to do.")
            .content("application/json", body)
            .build()
    };
    for (path, item) in &mut document.paths.paths {
        let operations = [
            ("get", &mut item.get),
            ("post", &mut item.post),
            ("put", &mut item.put),
            ("delete", &mut item.delete),
            ("patch", &mut item.patch),
        ];
        for (method, operation) in operations {
            let Some(operation) = operation else { continue };
            // Handlers of different resources have equal names; an operation's identity is its method and path.
            operation.operation_id = Some(operation_id(method, path));
            let responses = &mut operation.responses.responses;
            responses
                .entry("default".to_owned())
                .or_insert_with(|| error().into());
        }
    }
    document
}

/// `getDeploymentsIdWhy`, for `get` and `/api/v1/deployments/{id}/why`.
fn operation_id(method: &str, path: &str) -> String {
    let words = path
        .trim_start_matches(BASE)
        .split(|c: char| !c.is_ascii_alphanumeric());
    let capitalised = |word: &str| {
        let (first, rest) = word.split_at(1);
        first.to_ascii_uppercase() + rest
    };
    let words = words.filter(|word| !word.is_empty()).map(capitalised);
    std::iter::once(method.to_owned()).chain(words).collect()
}
