//! Operators: each keeps deploying new versions of one module, and now and then aborts, pauses or undoes.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use hotswap_package::Package;
use serde_json::{Value, json};

use crate::acks::{Command, Makes};
use crate::policy::ENVIRONMENTS;
use crate::rng::Rng;
use crate::run::Run;

/// How often a deployment is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Every deployment ends within this time, whatever is broken meanwhile: its deadlines and expiries, three times.
const DEPLOYMENT_MAX: Duration = Duration::from_secs(300);

/// A module that is deployed over and over: the example's manifests and artifacts, under ever new versions.
#[derive(Debug)]
pub(crate) struct Module {
    pub(crate) name: &'static str,
    /// A request that every release answers with 200.
    pub(crate) path: &'static str,
    /// Beginning of its versions, its manifest, its artifact.
    bases: &'static [(&'static str, &'static str, &'static [u8])],
}

macro_rules! base {
    ($name:literal, $version:literal) => {
        (
            $version,
            include_str!(concat!("../../../modules/", $name, "/", $version, "/module.toml")),
            include_bytes!(concat!(
                "../../../modules/",
                $name,
                "/",
                $version,
                "/",
                $name,
                ".wasm"
            )),
        )
    };
}

/// What is deployed.
pub(crate) static MODULES: [Module; 2] = [
    Module {
        name: "payment-processor",
        path: "/payments/health",
        bases: &[
            base!("payment-processor", "2.0.0"),
            base!("payment-processor", "2.1.0"),
            base!("payment-processor", "2.2.0"),
        ],
    },
    Module {
        name: "order-management",
        path: "/orders/health",
        bases: &[base!("order-management", "3.0.0")],
    },
];

impl Module {
    /// Its n-th release.
    fn release(&self, number: usize) -> Result<(String, Package)> {
        let (base, manifest, artifact) = self.bases[number % self.bases.len()];
        let version = format!("9.{number}.0");
        let manifest = manifest.replacen(
            &format!("version = \"{base}\""),
            &format!("version = \"{version}\""),
            1,
        );
        let package =
            Package::assemble(manifest.as_bytes(), artifact).context("the examples are packages")?;
        if package.manifest.version.to_string() != version {
            bail!("the manifest of {} {base} has another form", self.name);
        }
        Ok((version, package))
    }
}

/// Whether a deployment has ended.
pub(crate) fn has_ended(status: &Value) -> bool {
    !matches!(
        status.as_str(),
        Some("Running" | "PendingApproval" | "Paused") | None
    )
}

/// One operator.
pub(crate) struct Operator<'a> {
    run: &'a Run,
    module: &'static Module,
    rng: Rng,
    released: usize,
    commands: usize,
}

/// What the operator does to a deployment besides watching it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Whim {
    None,
    Abort,
    Pause,
    Undo,
}

impl<'a> Operator<'a> {
    pub(crate) fn new(run: &'a Run, module: &'static Module, seed: u64) -> Self {
        Self {
            run,
            module,
            rng: Rng::new(seed, module.name),
            released: 0,
            commands: 0,
        }
    }

    /// Deploys until faults are over. What the run can't do is a violation.
    pub(crate) fn work(&mut self) {
        while !self.run.are_faults_over() {
            let (target, _, _) = *self.rng.pick(&[
                ENVIRONMENTS[3],
                ENVIRONMENTS[3],
                ENVIRONMENTS[3],
                ENVIRONMENTS[2],
                ENVIRONMENTS[1],
            ]);
            let whim = *self.rng.pick(&[
                Whim::None,
                Whim::None,
                Whim::None,
                Whim::None,
                Whim::Abort,
                Whim::Pause,
                Whim::Undo,
            ]);
            if let Err(error) = self.deploy(target, whim) {
                self.run
                    .violation(&format!("{} could not be deployed: {error:#}", self.module.name));
                std::thread::sleep(LOOK_EVERY);
            }
            self.run.now_running(self.module.name, None);
        }
    }

    /// The first release, everywhere.
    pub(crate) fn begin(&mut self) -> Result<()> {
        let status = self.deploy("Production", Whim::None)?;
        if status != "Succeeded" {
            bail!("the first release of {} ended as {status}", self.module.name);
        }
        Ok(())
    }

    fn key(&mut self) -> String {
        self.commands += 1;
        format!("{}-{}", self.module.name, self.commands)
    }

    fn command(&mut self, path: &str, body: &Value, makes: Makes) -> Result<(u16, Value)> {
        let key = self.key();
        let run = self.run;
        run.acks.command(
            Command {
                path: path.to_owned(),
                content_type: "application/json",
                body: body.to_string().into_bytes(),
                key,
                makes,
            },
            || run.is_over(),
        )
    }

    /// One deployment, from its release to its end.
    fn deploy(&mut self, target: &str, whim: Whim) -> Result<String> {
        let (version, package) = self.module.release(self.released)?;
        self.released += 1;
        let key = self.key();
        let run = self.run;
        let (module, makes) = (
            self.module.name,
            Makes::Release {
                module: self.module.name,
                version: version.clone(),
            },
        );
        let (status, answer) = run.acks.command(
            Command {
                path: "/api/v1/modules".to_owned(),
                content_type: "application/octet-stream",
                body: package.file.to_vec(),
                key,
                makes,
            },
            || run.is_over(),
        )?;
        if !(200..300).contains(&status) {
            bail!("{module} {version} was not taken: {status} {answer}");
        }
        let description = format!("{module}-{}", self.commands + 1);
        let (status, answer) = self.command(
            "/api/v1/deployments",
            &json!({
                "moduleName": module, "version": version, "targetEnvironment": target,
                "requesterEmail": "chaos@example.com", "description": description,
            }),
            Makes::Deployment,
        )?;
        let id = answer["executionId"].as_str().unwrap_or_default().to_owned();
        if status != 202 || id.is_empty() {
            bail!("the deployment of {module} {version} was refused: {status} {answer}");
        }
        run.say(&format!("{module} {version} to {target}: {id}, {whim:?}"));
        let mut whim_at =
            (matches!(whim, Whim::Abort | Whim::Pause)).then(|| Instant::now() + self.rng.ms(500, 9_000));
        let end = self.follow(&id, |operator| {
            if whim_at.is_none_or(|at| Instant::now() < at) {
                return Ok(());
            }
            whim_at = None;
            let verb = if whim == Whim::Abort { "abort" } else { "pause" };
            // It may have ended meanwhile: then it is refused, and that is an answer too.
            operator.command(
                &format!("/api/v1/deployments/{id}/{verb}"),
                &json!({}),
                Makes::Nothing,
            )?;
            if whim == Whim::Pause && operator.rng.percent(60) {
                let pause = operator.rng.ms(200, 2_000);
                std::thread::sleep(pause);
                operator.command(
                    &format!("/api/v1/deployments/{id}/resume"),
                    &json!({}),
                    Makes::Nothing,
                )?;
            }
            Ok(())
        })?;
        run.tally.deployment_ended(&end);
        if whim == Whim::Undo && end == "Succeeded" && !run.are_faults_over() {
            let path = format!("/api/v1/deployments/{id}/rollback");
            let (status, answer) = self.command(&path, &json!({}), Makes::Rollback)?;
            match answer["rollbackId"].as_str() {
                Some(rollback) => {
                    let end = self.follow(rollback, |_| Ok(()))?;
                    run.tally.deployment_ended(&format!("{end} (rollback)"));
                }
                None => bail!("the rollback of {id} was refused: {status} {answer}"),
            }
        }
        Ok(end)
    }

    /// Watches a deployment until it ends; says how.
    fn follow(&mut self, id: &str, mut also: impl FnMut(&mut Self) -> Result<()>) -> Result<String> {
        let path = format!("/api/v1/deployments/{id}");
        let end = Instant::now() + DEPLOYMENT_MAX;
        let mut message = String::new();
        while Instant::now() < end && !self.run.is_over() {
            // The server may be away: that is what this is about.
            if let Ok(seen) = self.run.acks.get(&path) {
                if has_ended(&seen["status"]) {
                    let status = seen["status"].as_str().unwrap_or_default();
                    self.run
                        .say(&format!("{id} ended: {status}: {}", seen["message"]));
                    return Ok(status.to_owned());
                }
                let running = seen["stages"].as_array().into_iter().flatten();
                let running = running.into_iter().find(|stage| stage["status"] == "Running");
                let strategy = running.and_then(|stage| {
                    let name = stage["strategy"].as_str()?;
                    ENVIRONMENTS.iter().map(|it| it.2).find(|known| *known == name)
                });
                self.run.now_running(self.module.name, strategy);
                message = running.map_or_else(String::new, |stage| stage.to_string());
            }
            also(self)?;
            std::thread::sleep(LOOK_EVERY);
        }
        bail!("deployment {id} has not ended after {DEPLOYMENT_MAX:?}: {message}")
    }
}
