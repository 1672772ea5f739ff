//! Modules and their releases as the API shows them.

use hotswap_core::ids::ModuleName;
use hotswap_core::release::Release;
use hotswap_core::state::{Module, State};
use serde::Serialize;
use utoipa::ToSchema;

use super::time::rfc3339;

/// A module with its versions.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ModuleView {
    /// Its name.
    #[schema(example = "payment-processor")]
    pub module_name: String,
    /// Its versions, newest first.
    pub versions: Vec<ReleaseView>,
    /// The oldest version that deployments take, if there is one.
    pub minimum_version: Option<String>,
    /// Where which version is stable.
    pub environments: Vec<StableView>,
}

/// A release.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReleaseView {
    /// Its version.
    #[schema(example = "2.1.0")]
    pub version: String,
    /// Digest of its package.
    pub digest: String,
    /// Bytes of its package.
    pub size: u64,
    /// wasm, process, ebpf or kernel.
    pub kind: &'static str,
    /// When it was pushed.
    #[schema(format = "date-time")]
    pub pushed_at: String,
    /// Who pushed it.
    pub pushed_by: String,
    /// Whose signature it had when it was pushed.
    pub signed_by: Option<String>,
    /// Why no promotion takes it, if none does.
    pub hold_reason: Option<String>,
    /// Whether that is for good.
    pub revoked: bool,
    /// Why it is withdrawn, if it is: it can't be deployed, and what runs it keeps it.
    pub yank_reason: Option<String>,
}

/// What an environment runs of a module.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct StableView {
    /// The environment.
    pub environment: String,
    /// The version that is stable there.
    pub version: String,
}

/// A pushed release.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct PushedView {
    /// Its module.
    #[schema(example = "payment-processor")]
    pub module_name: String,
    /// Its version.
    #[schema(example = "2.1.0")]
    pub version: String,
    /// Digest of its package.
    pub digest: String,
    /// Bytes of its package.
    pub size: u64,
    /// wasm, process, ebpf or kernel.
    pub kind: &'static str,
    /// Whose signature it has; none where unsigned packages are accepted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signed_by: Option<String>,
}

/// A module with its versions.
pub fn view(name: &ModuleName, module: &Module, state: &State) -> ModuleView {
    let stable = state.environments.iter().filter_map(|environment| {
        let stable = state.env_module(&environment.name, name)?.stable.as_ref()?;
        Some(StableView {
            environment: environment.name.to_string(),
            version: stable.release.version.to_string(),
        })
    });
    ModuleView {
        module_name: name.to_string(),
        minimum_version: module.minimum.as_ref().map(ToString::to_string),
        versions: versions(module).collect(),
        environments: stable.collect(),
    }
}

/// A module's versions, newest first.
pub fn versions(module: &Module) -> impl Iterator<Item = ReleaseView> {
    let newest_first = module.releases.iter().rev();
    newest_first.map(|(version, release)| release_view(module, version, release))
}

/// One version of a module.
pub fn release_view(module: &Module, version: &semver::Version, release: &Release) -> ReleaseView {
    ReleaseView {
        version: version.to_string(),
        digest: release.digest.to_string(),
        size: release.size,
        kind: release.kind.name(),
        pushed_at: rfc3339(release.pushed_at),
        pushed_by: release.pushed_by.clone(),
        signed_by: release.signed_by.clone(),
        revoked: module.holds.get(&release.digest).is_some_and(|hold| hold.revoked),
        hold_reason: module.holds.get(&release.digest).map(|hold| hold.reason.clone()),
        yank_reason: module.yanks.get(version).map(|yank| yank.reason.clone()),
    }
}

/// The core's word for a manifest's kind.
pub fn kind(kind: hotswap_package::Kind) -> hotswap_core::release::Kind {
    use hotswap_core::release::Kind;
    match kind {
        hotswap_package::Kind::Wasm => Kind::Wasm,
        hotswap_package::Kind::Process => Kind::Process,
        hotswap_package::Kind::Ebpf => Kind::Ebpf,
        hotswap_package::Kind::Kernel => Kind::Kernel,
    }
}
