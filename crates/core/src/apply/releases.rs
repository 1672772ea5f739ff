//! Releases, and what keeps nodes from taking them.

use crate::event::Event;
use crate::ids::{ModuleName, ReleaseRef};
use crate::release::{ReleaseHold, Yank};
use crate::state::State;
use crate::time::Now;

/// Lets nothing take a release, for good where it is revoked: then a later hold changes nothing of that.
fn hold(state: &mut State, module: &ModuleName, release: &ReleaseRef, reason: &str, now: Now, revoked: bool) {
    let holds = &mut state.modules.entry(module.clone()).or_default().holds;
    if !revoked && holds.get(&release.digest).is_some_and(|hold| hold.revoked) {
        return;
    }
    let hold = ReleaseHold {
        release: release.clone(),
        reason: reason.to_owned(),
        since: now.wall,
        revoked,
    };
    holds.insert(release.digest, hold);
}

pub(super) fn releases(state: &mut State, event: &Event, now: Now) {
    match event {
        Event::ReleasePushed {
            module,
            version,
            release,
        } => {
            let module = state.modules.entry(module.clone()).or_default();
            module.releases.insert(version.clone(), release.clone());
        }
        Event::ReleaseHeld {
            module,
            release,
            reason,
        } => hold(state, module, release, reason, now, false),
        Event::ReleaseRevoked {
            module,
            release,
            reason,
            ..
        } => hold(state, module, release, reason, now, true),
        Event::MinimumVersionSet { module, version, .. } => {
            if let Some(module) = state.modules.get_mut(module) {
                module.minimum.clone_from(version);
            }
        }
        Event::ReleaseHoldLifted { module, digest, .. } => {
            if let Some(module) = state.modules.get_mut(module) {
                module.holds.remove(digest);
            }
        }
        Event::ReleaseYanked {
            module,
            version,
            reason,
            by,
        } => {
            let yank = Yank {
                by: by.clone(),
                reason: reason.clone(),
                since: now.wall,
            };
            let module = state.modules.entry(module.clone()).or_default();
            module.yanks.insert(version.clone(), yank);
        }
        Event::ReleaseUnyanked { module, version, .. } => {
            if let Some(module) = state.modules.get_mut(module) {
                module.yanks.remove(version);
            }
        }
        _ => unreachable!("only release events come here"),
    }
}
