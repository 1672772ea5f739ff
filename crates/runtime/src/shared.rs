//! What several hold together.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// Values by key, each there for as long as somebody holds it.
#[derive(Debug)]
pub(crate) struct Shared<K, V>(Mutex<BTreeMap<K, Weak<V>>>);

impl<K: Ord, V> Shared<K, V> {
    /// The one that somebody holds, or a new one. Others wait while it is made.
    pub(crate) fn get_or_make<E>(&self, key: K, make: impl FnOnce() -> Result<V, E>) -> Result<Arc<V>, E> {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        held.retain(|_, value| value.strong_count() > 0);
        if let Some(known) = held.get(&key).and_then(Weak::upgrade) {
            return Ok(known);
        }
        let new = Arc::new(make()?);
        held.insert(key, Arc::downgrade(&new));
        Ok(new)
    }

    /// All that somebody holds.
    pub(crate) fn all(&self) -> Vec<Arc<V>> {
        let held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        held.values().filter_map(Weak::upgrade).collect()
    }
}

impl<K, V> Default for Shared<K, V> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}
