//! Withdrawing versions, and offering them again.

use super::Reply;
use super::command::Accepted;
use crate::command::Refusal;
use crate::event::Event;
use crate::ids::ModuleName;
use crate::state::State;

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
