//! What a module is to look like: its spec, corrected by this node's vetoes.

use crate::ids::{Digest, ModuleName, ReleaseRef};
use crate::mutants::{Mutant, is_on};
use crate::spec::{MODULES_PER_NODE_MAX, ModuleSpec, NodeSpec, WEIGHT_ALL};

use super::ledger::{Entry, KeptVeto, Share};

/// A module as it is to be.
#[derive(Debug, Default)]
pub(super) struct Target {
    /// Releases to hold loaded.
    pub hold: Vec<ReleaseRef>,
    /// Who is to get requests.
    pub serving: Vec<Share>,
    /// Who is to be in preview.
    pub preview: Option<Digest>,
    /// The served release that this node has not committed.
    pub trial: Option<ReleaseRef>,
}

impl Target {
    pub(super) fn of(spec: Option<&ModuleSpec>, entry: &Entry, vetoes: &Vetoes<'_>) -> Self {
        let Some(spec) = spec else { return Self::default() };
        let mut serving: Vec<Share> = spec
            .routes
            .iter()
            .filter_map(|&(digest, weight)| {
                let release = spec
                    .releases
                    .iter()
                    .find(|release| release.id() == digest)?
                    .clone();
                Some(Share { release, weight })
            })
            .collect();
        let mut hold: Vec<ReleaseRef> = spec.releases.clone();
        for kept in vetoes.active(spec) {
            hold.retain(|release| release.id() != kept.veto.release.id());
            serving = leave(serving, &kept.veto.release.id(), kept.veto.base.as_ref());
        }
        let preview = spec
            .preview
            .filter(|digest| hold.iter().any(|release| release.id() == *digest));
        for share in &serving {
            push_unique(&mut hold, &share.release);
        }
        let trial = trial_of(spec, &serving, entry);
        Self {
            hold,
            serving,
            preview,
            trial,
        }
    }
}

/// The spec's first release where it is served, else whoever is; unless this node has committed it.
fn trial_of(spec: &ModuleSpec, serving: &[Share], entry: &Entry) -> Option<ReleaseRef> {
    let primary = spec.primary();
    let mut served = serving.iter().map(|share| &share.release);
    let tried = served
        .clone()
        .find(|release| primary == Some(release))
        .or_else(|| served.next())?;
    (entry.committed.as_ref() != Some(tried)).then(|| tried.clone())
}

/// Gives a release's share to its base, or, without one, to the first other.
pub(super) fn leave(mut serving: Vec<Share>, left: &Digest, base: Option<&ReleaseRef>) -> Vec<Share> {
    let Some(place) = serving.iter().position(|share| share.release.id() == *left) else {
        return serving;
    };
    let share = serving.remove(place);
    let heir = match base {
        Some(base) => serving.iter_mut().find(|other| other.release.id() == base.id()),
        None => serving.first_mut(),
    };
    match (heir, base) {
        (Some(heir), _) => heir.weight = heir.weight.saturating_add(share.weight),
        (None, Some(base)) => serving.insert(
            0,
            Share {
                release: base.clone(),
                weight: share.weight,
            },
        ),
        (None, None) => {}
    }
    serving
}

pub(super) fn push_unique(releases: &mut Vec<ReleaseRef>, release: &ReleaseRef) {
    if releases.iter().all(|known| known.digest != release.id()) {
        releases.push(release.clone());
    }
}

/// One module's vetoes.
#[derive(Clone, Copy)]
pub(super) struct Vetoes<'a> {
    pub all: &'a [KeptVeto],
    pub module: &'a ModuleName,
}

impl<'a> Vetoes<'a> {
    /// Those that win over this spec.
    pub(super) fn active(self, spec: &ModuleSpec) -> impl Iterator<Item = &'a KeptVeto> + use<'a> {
        let (module, rollout) = (self.module, spec.rollout);
        self.all
            .iter()
            .filter(move |kept| kept.veto.module == *module && kept.veto.rollout == rollout)
            .filter(|_| !is_on(Mutant::VetoIgnored))
    }
}

/// What a spec must hold to be acted on at all.
pub(super) fn fault(spec: &NodeSpec) -> Option<String> {
    if spec.modules.len() > MODULES_PER_NODE_MAX {
        return Some(format!(
            "{} modules, {MODULES_PER_NODE_MAX} are allowed",
            spec.modules.len()
        ));
    }
    spec.modules.iter().find_map(|(name, module)| {
        let held = |digest: &Digest| module.releases.iter().any(|release| release.id() == *digest);
        let sum: u32 = module.routes.iter().map(|&(_, weight)| u32::from(weight)).sum();
        let twice =
            |index: usize, digest: &Digest| module.routes[..index].iter().any(|(other, _)| other == digest);
        if !module.routes.is_empty() && sum != u32::from(WEIGHT_ALL) {
            Some(format!("{name}: weights sum to {sum}"))
        } else if module
            .routes
            .iter()
            .enumerate()
            .any(|(i, (digest, weight))| *weight == 0 || twice(i, digest))
        {
            Some(format!("{name}: a route is there twice or weighs nothing"))
        } else if !module.routes.iter().all(|(digest, _)| held(digest)) {
            Some(format!("{name}: routes to a release that it doesn't name"))
        } else if module.preview.is_some_and(|digest| !held(&digest)) {
            Some(format!("{name}: previews a release that it doesn't name"))
        } else {
            None
        }
    })
}
