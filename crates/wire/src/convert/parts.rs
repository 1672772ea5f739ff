//! The pieces that several messages are made of.

use std::collections::BTreeSet;

use hotswap_core::ids::{Digest, FleetId, ModuleName, ReleaseRef, RolloutId};
use hotswap_core::report::{self, ACCOUNT_LEN_MAX, REASON_LEN_MAX};
use hotswap_core::spec::{Generation, SmokeRun, SmokeVia, WEIGHT_ALL};

use super::TEXT_LEN_MAX;
use crate::malformed::{At as _, Fault, Malformed};
use crate::pb;

pub(super) fn digest_out(digest: &Digest) -> Vec<u8> {
    digest.0.to_vec()
}

pub(super) fn digest_in(bytes: &[u8]) -> Result<Digest, Fault> {
    let is = bytes.len();
    bytes
        .try_into()
        .map(Digest)
        .map_err(|_| Fault::Length { is, expected: 32 })
}

pub(super) fn digest_opt_in(bytes: Option<Vec<u8>>) -> Result<Option<Digest>, Fault> {
    bytes.map(|bytes| digest_in(&bytes)).transpose()
}

pub(super) fn fleet_in(bytes: &[u8]) -> Result<FleetId, Fault> {
    let is = bytes.len();
    uuid::Uuid::from_slice(bytes)
        .map(FleetId)
        .map_err(|_| Fault::Length { is, expected: 16 })
}

pub(super) fn module_in(name: &str) -> Result<ModuleName, Fault> {
    name.parse().map_err(Fault::invalid)
}

/// A text within its limit.
pub(super) fn text_in(text: String) -> Result<String, Fault> {
    within(text, TEXT_LEN_MAX)
}

fn within(text: String, max: usize) -> Result<String, Fault> {
    match text.chars().count() {
        is if is > max => Err(Fault::TooMany { is, max }),
        _ => Ok(text),
    }
}

/// A reason, shortened to what the other side takes.
pub(super) fn reason_out(reason: &str) -> String {
    report::beginning(reason, REASON_LEN_MAX).to_owned()
}

/// Why a release can't be loaded, shortened to what the other side takes.
pub(super) fn account_out(account: &str) -> String {
    report::account(account)
}

pub(super) fn account_in(account: String) -> Result<String, Fault> {
    within(account, ACCOUNT_LEN_MAX)
}

pub(super) fn reason_in(reason: String) -> Result<String, Fault> {
    within(reason, REASON_LEN_MAX)
}

/// Converts every element, naming the one at fault.
pub(super) fn list_in<P, T, E>(
    field: &str,
    list: Vec<P>,
    max: usize,
    convert: impl Fn(P) -> Result<T, E>,
) -> Result<Vec<T>, Malformed>
where
    Result<T, E>: crate::malformed::At<T>,
{
    if list.len() > max {
        return Err(Fault::TooMany { is: list.len(), max }.at(field));
    }
    list.into_iter()
        .enumerate()
        .map(|(index, item)| convert(item).at_index(field, index))
        .collect()
}

/// A field that has to be there.
pub(super) fn required<P, T>(
    field: &str,
    value: Option<P>,
    convert: impl FnOnce(P) -> Result<T, Malformed>,
) -> Result<T, Malformed> {
    value
        .ok_or_else(|| Fault::Missing.at(field))
        .and_then(|value| convert(value).at(field))
}

/// A field that may be there.
pub(super) fn optional<P, T>(
    field: &str,
    value: Option<P>,
    convert: impl FnOnce(P) -> Result<T, Malformed>,
) -> Result<Option<T>, Malformed> {
    value.map(|value| convert(value).at(field)).transpose()
}

pub(super) fn release_out(release: &ReleaseRef) -> pb::ReleaseRef {
    pb::ReleaseRef {
        version: release.version.to_string(),
        digest: digest_out(&release.digest),
        config: release.config,
    }
}

pub(super) fn release_in(release: pb::ReleaseRef) -> Result<ReleaseRef, Malformed> {
    let version = text_in(release.version)
        .and_then(|text| semver::Version::parse(&text).map_err(Fault::invalid))
        .at("version")?;
    Ok(ReleaseRef {
        version,
        digest: digest_in(&release.digest).at("digest")?,
        config: release.config,
    })
}

pub(super) fn generation_out(generation: Generation) -> pb::Generation {
    pb::Generation {
        epoch: generation.epoch,
        seq: generation.seq,
    }
}

/// Not set is the lowest, as it is encoded.
pub(super) fn generation_in(generation: Option<pb::Generation>) -> Generation {
    generation
        .map(|pb::Generation { epoch, seq }| Generation { epoch, seq })
        .unwrap_or_default()
}

pub(super) fn routes_out(routes: &[(Digest, u8)]) -> Vec<pb::Route> {
    routes
        .iter()
        .map(|(digest, weight)| pb::Route {
            digest: digest_out(digest),
            weight: u32::from(*weight),
        })
        .collect()
}

/// Routes with weights of 0–100 each, each release once, all together 100; or none.
pub(super) fn routes_in(field: &str, routes: Vec<pb::Route>) -> Result<Vec<(Digest, u8)>, Malformed> {
    let routes = list_in(field, routes, super::RELEASES_MAX, |route: pb::Route| {
        let digest = digest_in(&route.digest).at("digest")?;
        let weight = u8::try_from(route.weight)
            .ok()
            .filter(|weight| *weight <= WEIGHT_ALL)
            .ok_or_else(|| {
                Fault::Invalid(format!("{} is not 0 to {WEIGHT_ALL}", route.weight)).at("weight")
            })?;
        Ok::<_, Malformed>((digest, weight))
    })?;
    let mut seen = BTreeSet::new();
    if let Some((twice, _)) = routes.iter().find(|(digest, _)| !seen.insert(*digest)) {
        return Err(Fault::Twice(twice.to_string()).at(field));
    }
    let sum: u32 = routes.iter().map(|(_, weight)| u32::from(*weight)).sum();
    if !routes.is_empty() && sum != u32::from(WEIGHT_ALL) {
        return Err(Fault::Invalid(format!("weights sum to {sum}, not {WEIGHT_ALL}")).at(field));
    }
    Ok(routes)
}

pub(super) fn smoke_run_out(run: &SmokeRun) -> pb::SmokeRun {
    let via = match run.via {
        SmokeVia::Preview => pb::SmokeVia::Preview,
        SmokeVia::Ingress => pb::SmokeVia::Ingress,
    };
    pb::SmokeRun {
        rollout: run.rollout.0,
        step: run.step,
        digest: digest_out(&run.digest),
        via: via.into(),
    }
}

pub(super) fn smoke_run_in(run: &pb::SmokeRun) -> Result<SmokeRun, Malformed> {
    let via = match run.via() {
        pb::SmokeVia::Preview => SmokeVia::Preview,
        pb::SmokeVia::Ingress => SmokeVia::Ingress,
        pb::SmokeVia::Unspecified => return Err(Fault::Missing.at("via")),
    };
    Ok(SmokeRun {
        rollout: RolloutId(run.rollout),
        step: run.step,
        digest: digest_in(&run.digest).at("digest")?,
        via,
    })
}
