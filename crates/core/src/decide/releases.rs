//! Releases are pushed, revoked, bound from below, withdrawn, and offered again.

use super::Reply;
use super::command::Accepted;
use crate::command::Refusal;
use crate::event::Event;
use crate::ids::{ModuleName, ReleaseRef};
use crate::release::{RELEASES_PER_MODULE_MAX, Release};
use crate::state::State;

pub(super) fn push(
    state: &State,
    module: ModuleName,
    version: semver::Version,
    release: Release,
) -> Result<Accepted, Refusal> {
    if let Some(known) = state.modules.get(&module) {
        if let Some(existing) = known.releases.get(&version) {
            if existing.digest == release.digest {
                return Ok((Vec::new(), Reply::default()));
            }
            let (existing, pushed) = (existing.digest, release.digest);
            return Err(Refusal::ReleaseConflict {
                module,
                version,
                existing,
                pushed,
            });
        }
        if known.releases.len() >= RELEASES_PER_MODULE_MAX {
            return Err(Refusal::Limit(format!(
                "{module} has {RELEASES_PER_MODULE_MAX} versions, the most there may be"
            )));
        }
        if let Some(other) = known.releases.values().find(|other| other.kind != release.kind) {
            return Err(Refusal::NotNow(format!(
                "{module} is of the kind {}; a release of the kind {} needs another name",
                other.kind.name(),
                release.kind.name()
            )));
        }
    }
    Ok((
        vec![Event::ReleasePushed {
            module,
            version,
            release,
        }],
        Reply::default(),
    ))
}

pub(super) fn revoke(
    state: &State,
    module: ModuleName,
    version: semver::Version,
    reason: String,
    by: String,
) -> Result<Accepted, Refusal> {
    let digest = state.release(&module, &version)?.digest;
    // Asked for again, it is done already.
    if state.hold(&module, &digest).is_some_and(|hold| hold.revoked) {
        return Ok((Vec::new(), Reply::default()));
    }
    let release = ReleaseRef {
        version,
        digest,
        config: 0,
    };
    let revoked = Event::ReleaseRevoked {
        module,
        release,
        reason,
        by,
    };
    Ok((vec![revoked], Reply::default()))
}

pub(super) fn set_minimum(
    state: &State,
    module: ModuleName,
    version: Option<semver::Version>,
    by: String,
) -> Result<Accepted, Refusal> {
    let known = state.modules.get(&module).ok_or_else(|| Refusal::UnknownModule {
        module: module.clone(),
        known: state.modules.keys().map(ToString::to_string).collect(),
    })?;
    if known.minimum == version {
        return Ok((Vec::new(), Reply::default()));
    }
    Ok((
        vec![Event::MinimumVersionSet { module, version, by }],
        Reply::default(),
    ))
}

pub(super) fn yank(
    state: &State,
    module: ModuleName,
    version: semver::Version,
    reason: String,
    by: String,
) -> Result<Accepted, Refusal> {
    state.release(&module, &version)?;
    if let Some(yank) = state.yank(&module, &version) {
        return Err(Refusal::NotNow(format!(
            "{module} {version} was withdrawn by {} already: {}",
            yank.by, yank.reason
        )));
    }
    let event = Event::ReleaseYanked {
        module,
        version,
        reason,
        by,
    };
    Ok((vec![event], Reply::default()))
}

pub(super) fn unyank(
    state: &State,
    module: ModuleName,
    version: semver::Version,
    by: String,
) -> Result<Accepted, Refusal> {
    state.release(&module, &version)?;
    if state.yank(&module, &version).is_none() {
        return Err(Refusal::NotNow(format!("{module} {version} is not withdrawn")));
    }
    Ok((
        vec![Event::ReleaseUnyanked { module, version, by }],
        Reply::default(),
    ))
}
