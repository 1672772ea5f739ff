//! A module's releases on this node, and who gets its requests.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use hotswap_core::ids::{Digest, ModuleName};

use super::release::Release;

/// The active releases of a module with their weights, and its preview. Each changes by one atomic store.
pub struct Slot {
    module: ModuleName,
    active: ArcSwapOption<Active>,
    preview: ArcSwapOption<Release>,
}

/// Releases with the running sums of their weights; the last is the sum of all.
struct Active {
    releases: Vec<(u32, Arc<Release>)>,
    sum: u32,
}

impl Slot {
    pub(super) fn new(module: ModuleName) -> Self {
        Self {
            module,
            active: ArcSwapOption::empty(),
            preview: ArcSwapOption::empty(),
        }
    }

    /// The module.
    pub fn module(&self) -> &ModuleName {
        &self.module
    }

    /// Shares the module's requests out from now on, drawn for each by weight; releases of weight 0 get none, and an
    /// empty list leaves nobody to serve. Returns the releases that got requests before and don't any more; they are
    /// still open, and the caller closes them or keeps them as standby.
    pub fn set_active(&self, weighted: impl IntoIterator<Item = (Arc<Release>, u8)>) -> Vec<Arc<Release>> {
        let mut sum = 0;
        let mut releases = Vec::new();
        for (release, weight) in weighted {
            if weight > 0 {
                sum += u32::from(weight);
                releases.push((sum, release));
            }
        }
        let stays = |release: &Arc<Release>| releases.iter().any(|(_, next)| Arc::ptr_eq(next, release));
        let next = (sum > 0).then(|| {
            Arc::new(Active {
                releases: releases.clone(),
                sum,
            })
        });
        let former = self.active.swap(next);
        let former = former.iter().flat_map(|active| &active.releases);
        former
            .map(|(_, release)| release)
            .filter(|release| !stays(release))
            .cloned()
            .collect()
    }

    /// Makes a release reachable by [`Ingress::preview`](super::Ingress::preview), or none.
    pub fn set_preview(&self, release: Option<Arc<Release>>) {
        self.preview.store(release);
    }

    /// The preview.
    pub fn preview(&self) -> Option<Arc<Release>> {
        self.preview.load_full()
    }

    /// Who really gets requests now, with their weights.
    pub fn routes(&self) -> Vec<(Digest, u8)> {
        let active = self.active.load();
        let Some(active) = active.as_deref() else {
            return Vec::new();
        };
        let mut before = 0;
        active
            .releases
            .iter()
            .map(|(sum, release)| {
                let weight = u8::try_from(sum - before).expect("each weight was a u8");
                before = *sum;
                (release.digest(), weight)
            })
            .collect()
    }

    /// The release for one request.
    pub(super) fn draw(&self) -> Option<Arc<Release>> {
        let active = self.active.load();
        let active = active.as_deref()?;
        let at = match active.releases.as_slice() {
            [(_, only)] => return Some(Arc::clone(only)),
            _ => fastrand::u32(..active.sum),
        };
        let drawn = active.releases.iter().find(|(sum, _)| at < *sum);
        drawn.map(|(_, release)| Arc::clone(release))
    }
}
