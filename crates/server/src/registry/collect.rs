//! Packages that nothing needs any more are removed: never one that runs somewhere, that somebody may return to, or that
//! a deployment is under way with.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use hotswap_core::ids::{Digest, ModuleName, ReleaseRef};
use hotswap_core::state::State;
use hotswap_core::time::{Millis, WallTime};
use tokio_util::sync::CancellationToken;

use super::Registry;
use crate::driver::World;

/// How long a package lies at least that no release has: whoever pushed it may be about to say so.
const GRACE: Duration = Duration::from_hours(24);
/// How often it is looked for packages that nothing needs.
const PAUSE: Duration = Duration::from_hours(1);

/// Why a package is not needed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unneeded {
    /// No release has it.
    NoRelease,
    /// This release has it, and nothing runs it, or may return to it.
    Old(ModuleName, semver::Version),
}

/// A package that is not needed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Collectable {
    /// Its name.
    pub digest: Digest,
    /// Its bytes, with its signature's.
    pub size: u64,
    /// Why.
    pub why: Unneeded,
}

/// Looks for packages that nothing needs, and removes them.
pub struct Collector {
    registry: Arc<Registry>,
    world: Arc<World>,
    /// How long a release's package is kept that nothing needs; `None`: for ever.
    kept: Option<Millis>,
    packages: AtomicU64,
    bytes: AtomicU64,
}

impl std::fmt::Debug for Collector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Collector")
            .field("kept", &self.kept)
            .finish_non_exhaustive()
    }
}

impl Collector {
    /// Of a registry whose releases are in the world's State.
    pub fn new(registry: Arc<Registry>, world: Arc<World>, kept: Option<Millis>) -> Self {
        Self {
            registry,
            world,
            kept,
            packages: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
        }
    }

    /// Packages and bytes removed since the start.
    pub fn counts(&self) -> (u64, u64) {
        (
            self.packages.load(Ordering::Relaxed),
            self.bytes.load(Ordering::Relaxed),
        )
    }

    /// What could be removed now. Nothing is.
    ///
    /// # Errors
    /// What the file system says.
    pub async fn look(&self) -> io::Result<Vec<Collectable>> {
        let artifacts = self.registry.artifacts.clone();
        let files = tokio::task::spawn_blocking(move || files(&artifacts))
            .await
            .map_err(io::Error::other)??;
        let now = self.world.now().wall;
        let state = self.world.state();
        let (needed, releases) = (needed(&state), releases(&state));
        let collectable = |(digest, file): (Digest, Found)| {
            let why = unneeded(&digest, &file, (&needed, &releases), (self.kept, now))?;
            Some(Collectable {
                digest,
                size: file.size,
                why,
            })
        };
        Ok(files.into_iter().filter_map(collectable).collect())
    }

    /// Removes them. What a deployment asks for in the meantime stays.
    ///
    /// # Errors
    /// What the file system says; what was removed until then is gone.
    pub async fn collect(&self) -> io::Result<Vec<Collectable>> {
        self.remove(self.look().await?).await
    }

    /// Removes what was found, unless a deployment has asked for it since.
    ///
    /// # Errors
    /// What the file system says; what was removed until then is gone.
    pub async fn remove(&self, found: Vec<Collectable>) -> io::Result<Vec<Collectable>> {
        let mut removed = Vec::new();
        for found in found {
            if needed(&self.world.state()).contains(&found.digest) {
                continue;
            }
            self.registry.remove(&found.digest).await?;
            self.packages.fetch_add(1, Ordering::Relaxed);
            self.bytes.fetch_add(found.size, Ordering::Relaxed);
            tracing::info!(release = %found.digest, size = found.size, why = ?found.why, "a package that nothing needs was removed");
            removed.push(found);
        }
        Ok(removed)
    }

    /// Removes them from time to time.
    pub(crate) async fn keep(self: Arc<Self>, shutdown: CancellationToken) {
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(PAUSE) => {}
            }
            if let Err(error) = self.collect().await {
                tracing::warn!(%error, "packages that nothing needs could not be removed");
            }
        }
    }
}

/// A package's file.
struct Found {
    size: u64,
    /// How long ago it was written.
    age: Duration,
}

fn files(artifacts: &Path) -> io::Result<BTreeMap<Digest, Found>> {
    let mut found = BTreeMap::new();
    for folder in std::fs::read_dir(artifacts)? {
        let folder = folder?;
        if !folder.file_type()?.is_dir() {
            continue;
        }
        for file in std::fs::read_dir(folder.path())? {
            let file = file?;
            let Some(digest) = file.file_name().to_str().and_then(|name| name.parse().ok()) else {
                continue;
            };
            let about = file.metadata()?;
            let written = about.modified().unwrap_or_else(|_| SystemTime::now());
            let signature = file.path().with_extension(hotswap_trust::SIGNATURE_EXTENSION);
            let signature = signature.metadata().map_or(0, |about| about.len());
            found.insert(
                digest,
                Found {
                    size: about.len() + signature,
                    age: written.elapsed().unwrap_or_default(),
                },
            );
        }
    }
    Ok(found)
}

/// Which release has a package, and since when.
type Releases<'a> = BTreeMap<Digest, (&'a ModuleName, &'a semver::Version, WallTime)>;

fn releases(state: &State) -> Releases<'_> {
    let all = state.modules.iter().flat_map(|(name, module)| {
        module
            .releases
            .iter()
            .map(move |(version, release)| (release.digest, (name, version, release.pushed_at)))
    });
    all.collect()
}

fn unneeded(
    digest: &Digest,
    file: &Found,
    (needed, releases): (&BTreeSet<Digest>, &Releases<'_>),
    (kept, now): (Option<Millis>, WallTime),
) -> Option<Unneeded> {
    if file.age < GRACE || needed.contains(digest) {
        return None;
    }
    let Some((module, version, pushed)) = releases.get(digest) else {
        return Some(Unneeded::NoRelease);
    };
    let kept = kept?;
    let is_old = now.since(*pushed) >= kept && file.age >= Duration::from_millis(kept.0);
    is_old.then(|| Unneeded::Old((*module).clone(), (*version).clone()))
}

/// What must stay: whatever an environment runs, holds ready or may go back to, what a rollout or a deployment is under
/// way with, and each module's newest version.
pub fn needed(state: &State) -> BTreeSet<Digest> {
    let mut needed = BTreeSet::new();
    let mut take = |release: &ReleaseRef| {
        needed.insert(release.digest);
    };
    for here in state.envs.values().flat_map(|env| env.modules.values()) {
        here.stable.iter().for_each(|stable| take(&stable.release));
        here.standby.iter().for_each(&mut take);
        here.successes.iter().for_each(|success| take(&success.release));
        for exception in here.exceptions.values() {
            take(&exception.release);
            exception.base.iter().for_each(&mut take);
        }
        for rollout in here.rollout.iter() {
            rollout.plan.candidate.iter().for_each(&mut take);
            rollout.plan.base.iter().for_each(&mut take);
        }
    }
    for deployment in state.deployments.values() {
        deployment.release.iter().for_each(&mut take);
    }
    let newest = state
        .modules
        .values()
        .filter_map(|module| module.releases.values().next_back());
    needed.extend(newest.map(|release| release.digest));
    needed
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: u64 = 24 * 3_600 * 1_000;

    fn found(days: u64) -> Found {
        Found {
            size: 1,
            age: Duration::from_millis(days * DAY),
        }
    }

    #[test]
    fn what_is_needed_or_young_stays() {
        let (module, version): (ModuleName, semver::Version) =
            ("shop".parse().unwrap(), "1.0.0".parse().unwrap());
        let digest = Digest([1; 32]);
        let pushed = WallTime(100 * DAY);
        let releases = Releases::from([(digest, (&module, &version, pushed))]);
        let none = BTreeSet::new();
        let at = |days: u64| WallTime((100 + days) * DAY);
        let kept = Some(Millis(30 * DAY));
        let ask = |file: u64, needed: &BTreeSet<Digest>, kept, days| {
            unneeded(&digest, &found(file), (needed, &releases), (kept, at(days)))
        };
        let old = Unneeded::Old(module.clone(), version.clone());
        assert_eq!(ask(31, &none, kept, 31), Some(old));
        assert_eq!(ask(31, &BTreeSet::from([digest]), kept, 31), None, "it is needed");
        assert_eq!(ask(31, &none, None, 31), None, "releases are kept for ever");
        assert_eq!(ask(31, &none, kept, 29), None, "it was pushed lately");
        assert_eq!(ask(2, &none, kept, 31), None, "it was pushed again lately");
        let orphan = |days| unneeded(&Digest([2; 32]), &found(days), (&none, &releases), (None, at(31)));
        assert_eq!((orphan(0), orphan(1)), (None, Some(Unneeded::NoRelease)));
    }
}
