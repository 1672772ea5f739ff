//! The runtimes of a node, by kind.

use std::collections::BTreeMap;
use std::sync::Arc;

use hotswap_package::Kind;

use crate::kind::Runtime;
use crate::wasm::WasmHost;

/// One runtime of each kind that runs here. Cheap to clone.
#[derive(Clone, Default)]
pub struct Runtimes(BTreeMap<Kind, Arc<dyn Runtime>>);

impl Runtimes {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a runtime in place of one of the same kind.
    #[must_use]
    pub fn with(mut self, runtime: Arc<dyn Runtime>) -> Self {
        self.0.insert(runtime.kind(), runtime);
        self
    }

    /// The runtime of a kind, if there is one.
    pub fn get(&self, kind: Kind) -> Option<&Arc<dyn Runtime>> {
        self.0.get(&kind)
    }

    /// All of them.
    pub fn all(&self) -> impl Iterator<Item = &Arc<dyn Runtime>> {
        self.0.values()
    }

    /// Another process may take the node over from here on, see [`Runtime::release`].
    pub async fn release(&self) {
        for runtime in self.0.values() {
            runtime.release().await;
        }
    }

    /// The kinds that run here.
    pub fn kinds(&self) -> impl Iterator<Item = Kind> {
        self.0.keys().copied()
    }
}

impl std::fmt::Debug for Runtimes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl<R: Runtime> From<Arc<R>> for Runtimes {
    fn from(runtime: Arc<R>) -> Self {
        Self::new().with(runtime)
    }
}

impl From<Arc<dyn Runtime>> for Runtimes {
    fn from(runtime: Arc<dyn Runtime>) -> Self {
        Self::new().with(runtime)
    }
}

impl From<&Arc<WasmHost>> for Runtimes {
    fn from(host: &Arc<WasmHost>) -> Self {
        Arc::clone(host).into()
    }
}
