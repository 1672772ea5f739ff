//! What it costs to know whom one deals with: signatures of releases, logins, tokens.

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Result, anyhow};
use hotswap_server::AccessConfig;
use hotswap_server::access::{Access, Source};
use hotswap_server::store::SqliteStore;
use hotswap_trust::{Authority, SigningIdentity, TrustPolicy, UnixSeconds, verify};
use secrecy::{ExposeSecret as _, SecretString};

use super::Setting;
use crate::load::median;
use crate::modules;
use crate::report::{Figure, Report};

const PASSWORD: &str = "Bench-of-one-run-1!";

pub(super) async fn measure(setting: &Setting, report: &mut Report) -> Result<()> {
    report.section("Signatures, logins and tokens");
    signatures(setting, report)?;
    tokens(setting, report).await
}

/// A release is verified when it is pushed, before it is deployed, and by each node before it compiles it: never by a
/// request of users.
fn signatures(setting: &Setting, report: &mut Report) -> Result<()> {
    let now = UnixSeconds(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs());
    let authority = Authority::new("Bench root", now)?;
    let signer = authority.issue_signer("Bench signer")?;
    let identity = SigningIdentity::new(signer.key.as_bytes(), signer.certificate.as_bytes(), None)?;
    let policy =
        TrustPolicy::of_roots(authority.root().certificate.as_bytes()).map_err(|error| anyhow!(error))?;
    let package = modules::package(&setting.root, modules::MODULE, modules::VERSION)?;
    let signature = identity.sign(&package.digest, now)?;
    let times = setting.pick(200, 2_000);
    let mut took = Vec::new();
    for _ in 0..times {
        let began = Instant::now();
        let digest = hotswap_package::digest_of(&package.file);
        let verdict = verify(&digest, &package.manifest.name, &signature, &policy, now);
        black_box(verdict.map_err(|error| anyhow!(error.to_string()))?);
        took.push(began.elapsed().as_secs_f64() * 1e6);
    }
    report.add(Figure::new(
        format!(
            "a {} kB package: digest, signature and chain, median",
            package.file.len() / 1_000
        ),
        median(&took),
        "µs",
    ));
    Ok(())
}

async fn tokens(setting: &Setting, report: &mut Report) -> Result<()> {
    let dir = setting.dir.join("access");
    std::fs::create_dir_all(&dir)?;
    let store = Arc::new(SqliteStore::open(&dir)?);
    let config = AccessConfig {
        admin_password: Some(PASSWORD.into()),
        ..AccessConfig::default()
    };
    let (access, _, _noted) = Access::start(store, config, "bench".to_owned()).await?;
    let (mut took, mut token) = (Vec::new(), SecretString::default());
    for _ in 0..setting.pick(3, 10) {
        let began = Instant::now();
        let issued = access.login("admin", PASSWORD.into(), &Source::default()).await?;
        took.push(began.elapsed().as_secs_f64() * 1e3);
        token = issued.token;
    }
    report.add(Figure::new("a login (argon2id), median", median(&took), "ms"));
    let times = setting.pick(2_000_u32, 20_000);
    let began = Instant::now();
    for _ in 0..times {
        black_box(access.authenticate(token.expose_secret())?);
    }
    let us = began.elapsed().as_secs_f64() * 1e6 / f64::from(times);
    report.add(Figure::new(
        "a token of a request: signature and session",
        us,
        "µs",
    ));
    Ok(())
}
