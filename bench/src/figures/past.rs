//! A long past: a store with many finished deployments, by the events that the server itself writes.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Result;
use hotswap_core::apply::apply;
use hotswap_core::command::DeployRequest;
use hotswap_core::event::{Event, Logged, RolloutKey};
use hotswap_core::ids::{DeploymentId, Digest, FleetId, ReleaseRef, RolloutId};
use hotswap_core::policy::{Approvers, Environment};
use hotswap_core::release::{Kind, Release};
use hotswap_core::rollout::{Gate, RolloutPlan, Step, StepPass};
use hotswap_core::stage::{DeploymentStatus, StageStatus};
use hotswap_core::state::State;
use hotswap_core::time::{CoreTime, WallTime};
use hotswap_server::store::{Batch, Entry, SqliteStore, Store as _};
use uuid::Uuid;

/// Deployments of one transaction.
const BATCH: u64 = 500;
/// Wall time of the first one: 2026-01-01.
const BEGAN_MS: u64 = 1_767_225_600_000;
/// Time between two of them.
const APART_MS: u64 = 60_000;
/// Modules and versions that they are of.
const MODULES: u64 = 20;
const VERSIONS: u64 = 50;

struct Log {
    state: State,
    batch: Batch,
    clock: u64,
}

impl Log {
    fn add(&mut self, event: Event, deployment: Option<DeploymentId>) {
        self.clock += 10;
        let logged = Logged {
            seq: self.state.seq + 1,
            epoch: self.batch.epoch,
            at: CoreTime(self.clock),
            wall: WallTime(BEGAN_MS + self.clock),
            event,
        };
        apply(&mut self.state, &logged);
        let finished = matches!(logged.event, Event::DeploymentFinished { .. });
        let record = deployment
            .filter(|_| finished)
            .and_then(|id| self.state.deployment(&id));
        self.batch.deployments.extend(record.cloned());
        self.batch.events.push(Entry { logged, deployment });
    }

    async fn commit(&mut self, store: &SqliteStore) -> Result<()> {
        let epoch = self.batch.epoch;
        let batch = std::mem::take(&mut self.batch);
        store.commit(batch).await?;
        self.batch.epoch = epoch;
        self.batch.epoch_after = epoch;
        Ok(())
    }
}

/// Makes a store with so many past deployments; gives the events that they took.
pub(super) async fn make(dir: &Path, count: u64) -> Result<u64> {
    std::fs::create_dir_all(dir)?;
    let store = SqliteStore::open(dir)?;
    let epoch = store.lead().await?.epoch;
    let mut log = Log {
        state: State::default(),
        batch: Batch {
            epoch,
            epoch_after: epoch,
            ..Batch::default()
        },
        clock: 0,
    };
    let environments = Environment::defaults();
    let environment = environments[0].clone();
    log.add(
        Event::FleetCreated {
            fleet: FleetId(Uuid::new_v4()),
        },
        None,
    );
    log.add(Event::EpochStarted { epoch }, None);
    log.add(Event::EnvironmentsConfigured { environments }, None);
    let node = "dev-1".parse()?;
    log.add(
        Event::NodeRegistered {
            node,
            environment: environment.name.clone(),
            hostname: "dev-1".to_owned(),
            labels: BTreeMap::new(),
        },
        None,
    );
    for module in 0..MODULES {
        for version in 0..VERSIONS {
            let release = release(module, version);
            log.add(
                Event::ReleasePushed {
                    module: format!("module-{module:02}").parse()?,
                    version: release.version,
                    release: Release {
                        digest: release.digest,
                        kind: Kind::Wasm,
                        size: 33_000,
                        pushed_at: WallTime(BEGAN_MS),
                        pushed_by: "author".to_owned(),
                        signed_by: None,
                        needs: Vec::new(),
                    },
                },
                None,
            );
        }
    }
    for number in 0..count {
        deployment(&mut log, &environment, number)?;
        if (number + 1) % BATCH == 0 {
            log.commit(&store).await?;
        }
    }
    log.commit(&store).await?;
    store.keep_snapshot(log.state.clone()).await?;
    Ok(log.state.seq)
}

fn release(module: u64, version: u64) -> ReleaseRef {
    let mut digest = [0; 32];
    digest[..8].copy_from_slice(&(module * VERSIONS + version + 1).to_be_bytes());
    ReleaseRef {
        version: semver::Version::new(1, version, 0),
        digest: Digest(digest),
        config: 0,
    }
}

/// All that a deployment to one environment with one node leaves in the log.
fn deployment(log: &mut Log, environment: &Environment, number: u64) -> Result<()> {
    log.clock = log.clock.max(number * APART_MS);
    let id = DeploymentId(Uuid::new_v4());
    let (module, version) = (number % MODULES, number / MODULES % VERSIONS);
    let release = release(module, version);
    let module: hotswap_core::ids::ModuleName = format!("module-{module:02}").parse()?;
    let request = DeployRequest {
        id,
        trace_id: Uuid::new_v4().simple().to_string(),
        seed: number,
        module: module.clone(),
        version: release.version.clone(),
        target: environment.name.clone(),
        requester: "dora".to_owned(),
        requester_email: "dora@example.com".to_owned(),
        require_approval: false,
        description: "nightly".to_owned(),
        metadata: BTreeMap::new(),
        allow_downgrade: true,
        supersede: false,
    };
    let rollout = RolloutId(log.state.rollouts + 1);
    let key = RolloutKey {
        environment: environment.name.clone(),
        module: module.clone(),
        rollout,
    };
    let stable = log.state.env_module(&environment.name, &module);
    let base = stable.and_then(|here| here.stable.as_ref().map(|stable| stable.release.clone()));
    let plan = RolloutPlan {
        id: rollout,
        deployment: id,
        module,
        environment: environment.name.clone(),
        kind: Kind::Wasm,
        candidate: Some(release.clone()),
        base,
        strategy: "Direct".to_owned(),
        policy: environment.policy.clone(),
        seed: number,
        order: vec!["dev-1".parse()?],
        steps: vec![Step {
            upto: 1,
            weight: 100,
            preview: false,
            gate: Gate::Settled,
        }],
        validates: true,
        reverse: false,
    };
    let started = |stage| Event::StageStarted {
        deployment: id,
        stage,
        attempt: 1,
    };
    let finished = |stage, message: &str| Event::StageFinished {
        deployment: id,
        stage,
        status: StageStatus::Succeeded,
        message: message.to_owned(),
        nodes_deployed: 1,
        nodes_failed: 0,
    };
    let mut events = vec![Event::DeploymentRequested {
        request: Box::new(request),
        release: release.clone(),
        approval: false,
        approvers: Approvers::default(),
    }];
    for stage in 0..3 {
        events.extend([started(stage), finished(stage, "passed")]);
    }
    events.extend([
        started(3),
        Event::RolloutStarted { plan: Box::new(plan) },
        Event::StepStarted {
            key: key.clone(),
            step: 0,
            joins: vec!["dev-1".parse()?],
        },
        Event::StepCompleted {
            key: key.clone(),
            step: 0,
            pass: StepPass::Gate {
                detail: "1 node healthy and settled".to_owned(),
            },
        },
        finished(3, "1 node runs the release"),
        Event::ValidationStarted { key: key.clone() },
        started(4),
        finished(4, "smoke checks passed through the ingress of 1 node"),
        Event::StableSet {
            key: key.clone(),
            deployment: id,
            release: Some(release),
        },
        Event::RolloutEnded {
            key,
            kept: true,
            missing: Vec::new(),
        },
        Event::DeploymentFinished {
            deployment: id,
            status: DeploymentStatus::Succeeded,
            message: "it is stable in Development".to_owned(),
        },
    ]);
    for event in events {
        log.add(event, Some(id));
    }
    Ok(())
}
