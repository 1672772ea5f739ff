//! A long past, and what it costs.
//!
//! `history make DIR COUNT` writes a store with so many finished deployments, by the events that the server itself
//! writes. `history measure URL` asks a server that runs on it: how long lists, single deployments, health and metrics
//! take, and creations at 500 a second.

use std::collections::BTreeMap;
use std::error::Error;
use std::time::{Duration, Instant};

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

type Outcome<T> = Result<T, Box<dyn Error>>;

#[tokio::main]
async fn main() -> Outcome<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args.as_slice() {
        ["make", dir, count] => make(dir, count.parse()?).await,
        ["measure", url] => measure(url).await,
        _ => Err("usage: history make DIR COUNT | history measure URL".into()),
    }
}

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

    async fn commit(&mut self, store: &SqliteStore) -> Outcome<()> {
        let epoch = self.batch.epoch;
        let batch = std::mem::take(&mut self.batch);
        store.commit(batch).await?;
        self.batch.epoch = epoch;
        self.batch.epoch_after = epoch;
        Ok(())
    }
}

async fn make(dir: &str, count: u64) -> Outcome<()> {
    std::fs::create_dir_all(dir)?;
    let store = SqliteStore::open(dir.as_ref())?;
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
                    },
                },
                None,
            );
        }
    }
    let began = Instant::now();
    for number in 0..count {
        deployment(&mut log, &environment, number)?;
        if (number + 1) % BATCH == 0 {
            log.commit(&store).await?;
        }
    }
    log.commit(&store).await?;
    store.keep_snapshot(log.state.clone()).await?;
    println!(
        "{count} deployments, {} events in {:.1} s",
        log.state.seq,
        began.elapsed().as_secs_f64()
    );
    Ok(())
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
fn deployment(log: &mut Log, environment: &Environment, number: u64) -> Outcome<()> {
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

/// Requests of each kind.
const ASKED: usize = 1_000;
/// Creations a second, and for how long.
const CREATES_PER_SECOND: u32 = 500;
const CREATES_SECONDS: u32 = 10;

async fn measure(url: &str) -> Outcome<()> {
    let http = reqwest::Client::new();
    let page: Vec<serde_json::Value> = http
        .get(format!("{url}/api/v1/deployments?limit=1000"))
        .send()
        .await?
        .json()
        .await?;
    let id = page
        .last()
        .and_then(|row| row["executionId"].as_str())
        .ok_or("no deployments")?;
    let module = page[0]["moduleName"].as_str().ok_or("no module")?;
    for (name, path) in [
        ("health", "/health".to_owned()),
        ("get one, long ended", format!("/api/v1/deployments/{id}")),
        ("list, newest 100", "/api/v1/deployments".to_owned()),
        ("list, newest 1000", "/api/v1/deployments?limit=1000".to_owned()),
        (
            "list of a module, 100",
            format!("/api/v1/deployments?module={module}"),
        ),
        (
            "list from the middle, 100",
            "/api/v1/deployments?cursor=F4240".to_owned(),
        ),
        (
            "list of a status, 100",
            "/api/v1/deployments?status=Failed".to_owned(),
        ),
        ("why, one long ended", format!("/api/v1/deployments/{id}/why")),
        (
            "cluster metrics",
            "/api/v1/clusters/Development/metrics".to_owned(),
        ),
        ("cluster", "/api/v1/clusters/Development".to_owned()),
    ] {
        let mut took = Vec::new();
        for _ in 0..ASKED {
            let began = Instant::now();
            let response = http.get(format!("{url}{path}")).send().await?;
            let status = response.status();
            response.bytes().await?;
            took.push(began.elapsed());
            if !status.is_success() {
                return Err(format!("{path} answered {status}").into());
            }
        }
        told(name, took);
    }
    create(&http, url, module).await
}

/// Creations at a fixed rate, each timed from when it was due: waiting counts.
async fn create(http: &reqwest::Client, url: &str, module: &str) -> Outcome<()> {
    let body = serde_json::json!({
        "moduleName": module, "version": "1.0.0", "targetEnvironment": "Development",
        "requesterEmail": "bench@example.com", "allowDowngrade": true,
    });
    let began = Instant::now();
    let mut calls = Vec::new();
    for number in 0..CREATES_PER_SECOND * CREATES_SECONDS {
        let due = began + Duration::from_secs(1) * number / CREATES_PER_SECOND;
        tokio::time::sleep_until(due.into()).await;
        let request = http.post(format!("{url}/api/v1/deployments")).json(&body);
        calls.push(tokio::spawn(async move {
            let status = request.send().await.map(|response| response.status());
            (due.elapsed(), status)
        }));
    }
    let (mut took, mut refused) = (Vec::new(), 0);
    for call in calls {
        let (time, status) = call.await?;
        if status?.as_u16() == 202 {
            took.push(time);
        } else {
            refused += 1;
        }
    }
    told(&format!("create, {CREATES_PER_SECOND} a second"), took);
    println!("{refused} of them were refused");
    Ok(())
}

fn told(name: &str, mut took: Vec<Duration>) {
    took.sort_unstable();
    let at = |share: f64| {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "an index below the length"
        )]
        let place = (took.len() as f64 * share) as usize;
        let found = took.get(place.min(took.len().saturating_sub(1)));
        found.map_or(f64::NAN, |time| time.as_secs_f64() * 1e3)
    };
    println!(
        "{name:<28} p50 {:>8.2} ms   p99 {:>8.2} ms   max {:>8.2} ms   ({})",
        at(0.5),
        at(0.99),
        at(1.0),
        took.len()
    );
}
