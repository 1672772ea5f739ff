//! What makes bytes a component that this host can serve from.

use wasmtime::Engine;
use wasmtime::component::{Component, Linker};
use wasmtime_wasi_http::p2::bindings::ProxyPre;

use super::guest::Guest;
use crate::kind::PrepareError;

/// The interface that requests are handed to; any 0.2 release of it.
const HANDLER: &str = "wasi:http/incoming-handler@0.2";
/// What the host links, any 0.2 release of it. Linked is not granted: a guest finds no file, variable or network.
const LINKED: [&str; 7] = [
    "wasi:cli/",
    "wasi:clocks/",
    "wasi:filesystem/",
    "wasi:http/",
    "wasi:io/",
    "wasi:random/",
    "wasi:sockets/",
];
const WASM_PAGE_BYTES: u64 = 65_536;

/// Refuses what is no component by its first bytes.
pub(super) fn check_format(content: &[u8]) -> Result<(), PrepareError> {
    match hotswap_package::Kind::Wasm.artifact_problem(content) {
        Some(problem) => Err(PrepareError::WrongFormat(problem)),
        None => Ok(()),
    }
}

/// Everything that guests may import.
pub(super) fn linker(engine: &Engine) -> wasmtime::Result<Linker<Guest>> {
    let mut linker = Linker::new(engine);
    wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
    wasmtime_wasi_http::p2::add_only_http_to_linker_async(&mut linker)?;
    Ok(linker)
}

/// Links a component, or names what is missing.
pub(super) fn link(linker: &Linker<Guest>, component: &Component) -> Result<ProxyPre<Guest>, PrepareError> {
    let engine = component.engine();
    let component_type = component.component_type();
    let exports: Vec<String> = component_type
        .exports(engine)
        .map(|(name, _)| name.to_owned())
        .collect();
    if !exports.iter().any(|name| name.starts_with(HANDLER)) {
        return Err(PrepareError::MissingExport {
            wanted: HANDLER,
            exports,
        });
    }
    let known = |name: &str| LINKED.iter().any(|prefix| name.starts_with(prefix)) && name.contains("@0.2.");
    if let Some((import, _)) = component_type.imports(engine).find(|(name, _)| !known(name)) {
        return Err(PrepareError::UnknownImport {
            import: import.to_owned(),
            detail: String::new(),
        });
    }
    let pre = linker
        .instantiate_pre(component)
        .map_err(|error| PrepareError::UnknownImport {
            import: "something".to_owned(),
            detail: format!(": {error:#}"),
        })?;
    ProxyPre::new(pre).map_err(|error| PrepareError::Invalid(format!("{error:#}")))
}

/// Refuses a component whose memory could never start within its limit.
pub(super) fn check_memory(component: &Component, memory_bytes_max: u64) -> Result<(), PrepareError> {
    let first = component
        .resources_required()
        .and_then(|resources| resources.max_initial_memory_size)
        .unwrap_or(0)
        .saturating_mul(WASM_PAGE_BYTES);
    if first > memory_bytes_max {
        return Err(PrepareError::OverLimit(format!(
            "its memory begins with {first} bytes, and its limit is {memory_bytes_max}"
        )));
    }
    Ok(())
}
