//! Places for connections, of which no client has more than its share.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// So many places, so many of them for one client at most. Cheap to clone; the clones are one.
///
/// Who fills its share is refused at once, and leaves the others theirs. This machine's own programs share one address,
/// and have no share but the whole.
#[derive(Clone, Debug)]
pub(crate) struct Places {
    free: Arc<Semaphore>,
    share: u32,
    held: Arc<Mutex<HashMap<IpAddr, u32>>>,
}

/// A place, given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    _place: OwnedSemaphorePermit,
    of: Option<(IpAddr, Places)>,
}

impl Places {
    /// `all` places, a `share` of them for one client.
    pub(crate) fn new(all: usize, share: u32) -> Self {
        Self {
            free: Arc::new(Semaphore::new(all)),
            share,
            held: Arc::default(),
        }
    }

    /// Waits until one is free. It is nobody's yet.
    pub(crate) async fn free(&self) -> OwnedSemaphorePermit {
        let free = Arc::clone(&self.free).acquire_owned().await;
        free.expect("the semaphore is never closed")
    }

    /// One that is free now, if any is. It is nobody's yet.
    pub(crate) fn try_free(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.free).try_acquire_owned().ok()
    }

    /// Gives a free one to whoever calls from an address; `None` if it has its share.
    pub(crate) fn give(&self, place: OwnedSemaphorePermit, address: IpAddr) -> Option<Place> {
        let address = network(address);
        if address.is_loopback() {
            return Some(Place {
                _place: place,
                of: None,
            });
        }
        let mut held = self.held.lock();
        let count = held.entry(address).or_insert(0);
        if *count >= self.share {
            return None;
        }
        *count += 1;
        drop(held);
        Some(Place {
            _place: place,
            of: Some((address, self.clone())),
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Some((address, places)) = &self.of else {
            return;
        };
        if let Entry::Occupied(mut count) = places.held.lock().entry(*address) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }
}

/// The address by which a client is known. An IPv6 host has a whole network to itself: its addresses count together.
pub(crate) fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) if !address.is_loopback() => {
            let [a, b, c, d, ..] = address.segments();
            IpAddr::V6([a, b, c, d, 0, 0, 0, 0].into())
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(places: &Places, address: &str) -> Option<Place> {
        places.give(places.try_free()?, address.parse().expect("an address"))
    }

    #[test]
    fn a_client_that_has_its_share_leaves_the_others_theirs() {
        let places = Places::new(5, 2);
        let first = [take(&places, "192.0.2.1"), take(&places, "::ffff:192.0.2.1")];
        assert!(first.iter().all(Option::is_some));
        assert!(take(&places, "192.0.2.1").is_none());
        let others = [take(&places, "2001:db8::1"), take(&places, "2001:db8::2")];
        assert!(others.iter().all(Option::is_some));
        assert!(take(&places, "2001:db8::3").is_none(), "one network");
        assert!(take(&places, "2001:db8:0:1::1").is_some(), "another");

        drop(first);
        assert!(
            take(&places, "192.0.2.1").is_some(),
            "what is given back can be had"
        );
        drop(others);
        assert!(places.held.lock().is_empty(), "nobody is remembered who has gone");
    }

    #[test]
    fn this_machines_programs_share_the_whole() {
        let places = Places::new(3, 1);
        let held = ["127.0.0.1", "::1", "127.0.0.1"].map(|address| take(&places, address));
        assert!(held.iter().all(Option::is_some));
        assert!(take(&places, "192.0.2.1").is_none(), "none is left");
    }
}
