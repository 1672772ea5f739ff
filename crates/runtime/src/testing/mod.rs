//! A component for tests, made from text in some 20 ms and without a toolchain.
//!
//! It does what the first letter of a request's path says: `/ok` answers, `/trap` traps, `/loop` never ends, `/memory`
//! grows until it is stopped, `/wait` answers after 200 ms, `/stream` writes 64 times 4 KiB and `/break` traps after
//! some of them, `/none` ends without an answer, `/unfinished` without its answer's end, `/error` answers 500,
//! `/count` answers how many requests its instance has had, in one letter from `a`.

pub mod hostile;
pub mod namespace;
pub mod process;

use std::sync::Arc;

use bytes::Bytes;
use hotswap_core::ids::Digest;
use hotswap_package::{Isolation, Kind, Limits, Manifest, Route};
use sha2::{Digest as _, Sha256};
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

use crate::kind::Artifact;

const WIT: &str = include_str!("module.wit");
const WAT: &str = include_str!("module.wat");

/// The component; `/ok` answers with `text`, at most 1,000 bytes.
///
/// # Panics
/// If the text is too long, or needs escaping in WAT.
pub fn component(text: &str) -> Vec<u8> {
    assert!(
        text.len() <= 1_000 && !text.contains(['"', '\\']),
        "the text doesn't fit"
    );
    let wat = WAT
        .replace("@TEXT@", text)
        .replace("@LENGTH@", &text.len().to_string());
    encode(&wat, WIT)
}

/// A component of a core module and its world, both in text.
///
/// # Panics
/// If they don't fit.
pub fn encode(wat: &str, wit: &str) -> Vec<u8> {
    let mut module = wat::parse_str(wat).expect("the module's text is valid");
    let mut resolve = Resolve::default();
    let package = resolve
        .push_str("module.wit", wit)
        .expect("the world's text is valid");
    let world = resolve
        .select_world(&[package], None)
        .expect("there is one world");
    embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8)
        .expect("the module fits the world");
    let encoder = ComponentEncoder::default().validate(true).module(&module);
    let mut encoder = encoder.expect("the module has its world");
    encoder.encode().expect("a component can be made")
}

/// A release of a module called `name` from this content, with a route for everything.
///
/// # Panics
/// If name or version are not valid.
pub fn artifact(
    name: &str,
    version: &str,
    content: impl Into<Bytes>,
    change: impl FnOnce(&mut Manifest),
) -> Artifact {
    let content = content.into();
    let mut manifest = Manifest {
        name: name.parse().expect("a valid name"),
        version: version.parse().expect("a valid version"),
        kind: Kind::Wasm,
        entry: "module.wasm".to_owned(),
        description: String::new(),
        isolation: Isolation::Reuse,
        drain_deadline: hotswap_package::HumanDuration::secs(5),
        routes: vec![Route {
            host: None,
            prefix: "/".to_owned(),
        }],
        limits: Limits::default(),
        smoke: Vec::new(),
        capabilities: hotswap_package::Capabilities::default(),
        health: hotswap_package::Health::default(),
        process: None,
        ebpf: None,
        kernel: None,
    };
    change(&mut manifest);
    let mut identity = Sha256::new();
    identity.update(name);
    identity.update(version);
    identity.update(&content);
    Artifact {
        digest: Digest(identity.finalize().into()),
        manifest: Arc::new(manifest),
        content,
    }
}
