//! What is true on a node, whatever it says.

use std::collections::BTreeSet;

use crate::ids::{Digest, ModuleName, NodeId};
use crate::reconcile::{Entry, KeptVeto};
use crate::spec::{ModuleSpec, WEIGHT_ALL};

use super::{Check, Invariant, Violation};

/// Who is really where a module acts, for kinds that act from one place, such as the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InPlace {
    /// The kind has no such place, or somebody is being put there.
    Unknown,
    /// Nobody.
    Nobody,
    /// This release.
    Release(Digest),
}

/// The ground truth of one module on a node.
#[derive(Clone, Copy, Debug)]
pub struct NodeTruth<'a> {
    /// The node.
    pub node: &'a NodeId,
    /// The module.
    pub module: &'a ModuleName,
    /// Who really gets requests.
    pub routes: &'a [(Digest, u8)],
    /// What is really loaded.
    pub loaded: &'a BTreeSet<Digest>,
    /// What of it is ill.
    pub ill: &'a BTreeSet<Digest>,
    /// Who is where it acts.
    pub place: InPlace,
    /// What is verified in the node's cache.
    pub verified: &'a BTreeSet<Digest>,
    /// What a boot would find.
    pub durable: Option<&'a Entry>,
    /// What the machine wants a boot to find; it is durable once it is equal.
    pub intended: Option<&'a Entry>,
    /// The node's vetoes, of all modules, by its machine.
    pub vetoes: &'a [KeptVeto],
    /// What it accepted.
    pub spec: Option<&'a ModuleSpec>,
}

impl NodeTruth<'_> {
    fn fail(&self, invariant: Invariant, what: &str) -> Check {
        Err(Violation::new(
            invariant,
            format!("{} on {}: {what}", self.module, self.node),
        ))
    }

    fn serves(&self, digest: &Digest) -> bool {
        self.routes.iter().any(|(served, _)| served == digest)
    }
}

/// All of them that look at one moment.
///
/// # Errors
/// The first that doesn't hold.
pub fn check(truth: &NodeTruth<'_>) -> Check {
    a1_serves(truth)?;
    a2_atomic(truth)?;
    a3_left(truth)?;
    a4_verified(truth)?;
    a8_veto_holds(truth)?;
    a9_in_place(truth)
}

/// **A1** A node whose durable releases are loaded serves, with or without a server.
pub fn a1_serves(truth: &NodeTruth<'_>) -> Check {
    let durable = truth.durable.filter(|durable| truth.intended == Some(*durable));
    let Some(entry) = durable.filter(|entry| !entry.serving.is_empty()) else {
        return Ok(());
    };
    let ready = |digest: &Digest| truth.loaded.contains(digest) && !truth.ill.contains(digest);
    let left = |digest: &Digest| truth.vetoes.iter().any(|kept| kept.veto.release.id() == *digest);
    let told_nothing = truth.spec.is_none_or(|spec| spec.routes.is_empty());
    let all = entry
        .serving
        .iter()
        .all(|share| ready(&share.release.id()) && !left(&share.release.id()));
    if truth.routes.is_empty() && all && !told_nothing {
        return truth.fail(
            Invariant::A1Serves,
            "all that it is to serve is loaded, and nobody serves",
        );
    }
    Ok(())
}

/// **A2** At every crash point exactly one release, or one stated mix of two, is active, and complete.
pub fn a2_atomic(truth: &NodeTruth<'_>) -> Check {
    let sum = |weights: &mut dyn Iterator<Item = u8>| weights.map(u32::from).sum::<u32>();
    let active = sum(&mut truth.routes.iter().map(|&(_, weight)| weight));
    if !truth.routes.is_empty() && active != u32::from(WEIGHT_ALL) {
        return truth.fail(
            Invariant::A2Atomic,
            &format!("{active} % of its requests have a release"),
        );
    }
    if let Some((digest, _)) = truth
        .routes
        .iter()
        .find(|(digest, _)| !truth.loaded.contains(digest))
    {
        return truth.fail(
            Invariant::A2Atomic,
            &format!("{digest:?} gets requests and is not loaded"),
        );
    }
    let Some(entry) = truth.durable else { return Ok(()) };
    let after_crash = sum(&mut entry.serving.iter().map(|share| share.weight));
    if !entry.serving.is_empty() && after_crash != u32::from(WEIGHT_ALL) {
        return truth.fail(
            Invariant::A2Atomic,
            &format!("after a crash {after_crash} % would have a release"),
        );
    }
    let incomplete = entry
        .serving
        .iter()
        .find(|share| !truth.verified.contains(&share.release.id()));
    match incomplete {
        Some(share) => truth.fail(
            Invariant::A2Atomic,
            &format!("after a crash {} would be incomplete", share.release),
        ),
        None => Ok(()),
    }
}

/// **A3** A candidate that is ill on trial is left while what to return to is loaded.
pub fn a3_left(truth: &NodeTruth<'_>) -> Check {
    let Some(spec) = truth.spec.filter(|spec| spec.trial) else {
        return Ok(());
    };
    let Some(primary) = spec.primary() else {
        return Ok(());
    };
    let committed = truth.durable.and_then(|entry| entry.committed.as_ref());
    let base = committed.filter(|committed| committed.id() != primary.id());
    if truth.serves(&primary.id())
        && truth.ill.contains(&primary.id())
        && base.is_some_and(|base| truth.loaded.contains(&base.id()))
    {
        return truth.fail(
            Invariant::A3Left,
            &format!("{primary} is ill on trial and still serves"),
        );
    }
    Ok(())
}

/// **A4** Nothing is loaded that this node did not verify.
pub fn a4_verified(truth: &NodeTruth<'_>) -> Check {
    match truth
        .loaded
        .iter()
        .find(|digest| !truth.verified.contains(digest))
    {
        Some(digest) => truth.fail(
            Invariant::A4Verified,
            &format!("{digest:?} is loaded and was not verified"),
        ),
        None => Ok(()),
    }
}

/// **A2** (before the switch) Who newly gets requests is committed, or a base, or on trial by what a boot would find: so
/// a node that dies of a release knows it afterwards.
pub fn a2_recorded(before: &[(Digest, u8)], truth: &NodeTruth<'_>) -> Check {
    let recorded = |digest: &Digest| {
        truth.durable.is_some_and(|entry| {
            let serving = entry.serving.iter().map(|share| &share.release);
            let trial = entry.trial.iter().map(|trial| &trial.release);
            let mut named = serving.chain(trial).chain(&entry.committed);
            named.any(|release| release.id() == *digest)
        })
    };
    let base = |digest: &Digest| {
        let standby = truth
            .spec
            .into_iter()
            .flat_map(|spec| spec.releases.iter().skip(1));
        let left_for = truth.vetoes.iter().filter_map(|kept| kept.veto.base.as_ref());
        standby.chain(left_for).any(|release| release.id() == *digest)
    };
    let fresh = truth.routes.iter().map(|(digest, _)| digest);
    let mut fresh = fresh.filter(|digest| !before.iter().any(|(served, _)| served == *digest));
    match fresh.find(|digest| !recorded(digest) && !base(digest)) {
        Some(digest) => truth.fail(
            Invariant::A2Atomic,
            &format!("{digest:?} gets requests and no boot would know of it"),
        ),
        None => Ok(()),
    }
}

/// **A7** Who served goes on being served: routes become empty only where the spec asks for it, or where what is left
/// by a veto had nothing before it.
pub fn a7_answered(before: &[(Digest, u8)], truth: &NodeTruth<'_>) -> Check {
    if before.is_empty() || !truth.routes.is_empty() {
        return Ok(());
    }
    let asked = truth.spec.is_none_or(|spec| spec.routes.is_empty());
    let left = truth
        .vetoes
        .iter()
        .any(|kept| kept.veto.module == *truth.module && kept.veto.base.is_none());
    if asked || left {
        return Ok(());
    }
    truth.fail(Invariant::A7Answered, "nobody serves any more")
}

/// **A8** What was left by a veto gets no requests while its rollout lasts (unless what it is left for isn't loaded).
pub fn a8_veto_holds(truth: &NodeTruth<'_>) -> Check {
    let Some(spec) = truth.spec else { return Ok(()) };
    for kept in truth.vetoes {
        let veto = &kept.veto;
        if veto.module != *truth.module || veto.rollout != spec.rollout || !truth.serves(&veto.release.id()) {
            continue;
        }
        if veto
            .base
            .as_ref()
            .is_none_or(|base| truth.loaded.contains(&base.id()))
        {
            return truth.fail(
                Invariant::A8VetoHolds,
                &format!("{} was left and serves again", veto.release),
            );
        }
    }
    Ok(())
}

/// **A9** Where a kind acts from one place, who serves and is not known to be ill is there: a release whose load stalled
/// or was taken back is never taken for one that works.
pub fn a9_in_place(truth: &NodeTruth<'_>) -> Check {
    let is_there = |digest: &Digest| match truth.place {
        InPlace::Unknown => true,
        InPlace::Nobody => false,
        InPlace::Release(there) => there == *digest,
    };
    let well = truth
        .routes
        .iter()
        .filter(|(digest, _)| !truth.ill.contains(digest));
    match well.map(|(digest, _)| digest).find(|digest| !is_there(digest)) {
        Some(digest) => truth.fail(
            Invariant::A9InPlace,
            &format!(
                "{digest:?} serves and counts as healthy, and {:?} is in its place",
                truth.place
            ),
        ),
        None => Ok(()),
    }
}

/// **A10** A release with which a node went down while it was being put in its place, or had just been, and that had never
/// stood there, is not put there again: no node reboots for ever.
pub fn a10_not_again(
    node: &NodeId,
    module: &ModuleName,
    release: &Digest,
    went_down: &BTreeSet<Digest>,
) -> Check {
    if went_down.contains(release) {
        return Err(Violation::new(
            Invariant::A10NotAgain,
            format!("{node} went down with {release:?} of {module} and loads it again"),
        ));
    }
    Ok(())
}
