//! The core by itself: commands decided, events folded, and ticks while thousands of deployments wait.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::time::Instant;

use anyhow::{Result, ensure};
use hotswap_core::apply::apply;
use hotswap_core::command::{Command, DeployRequest};
use hotswap_core::decide::{Input, decide};
use hotswap_core::event::{Event, Logged};
use hotswap_core::ids::{DeploymentId, Digest};
use hotswap_core::observe::Observations;
use hotswap_core::policy::Environment;
use hotswap_core::release::{Kind, Release};
use hotswap_core::stage::StageStatus;
use hotswap_core::state::State;
use hotswap_core::time::{CoreTime, Now, WallTime};
use uuid::Uuid;

use super::Setting;
use crate::load::least;
use crate::report::{Figure, Report};

const NOW: Now = Now {
    core: CoreTime(1_000),
    wall: WallTime(1_000),
};
/// Modules that deployments wait for, and environments' nodes.
const MODULES: usize = 20;

pub(super) fn measure(setting: &Setting, report: &mut Report) -> Result<()> {
    report.section("The core by itself");
    let (few, many) = (1_000, setting.pick(4_000, 9_000));
    let mut core = Core::new()?;
    let began = Instant::now();
    core.deploy(few)?;
    let per_second = few as f64 / began.elapsed().as_secs_f64();
    report.add(Figure::new(
        "commands decided and folded a second",
        per_second,
        "/s",
    ));
    fold(setting, report, &core);
    core.wait_for_locks()?;
    let short = core.ticks(setting);
    report.add(Figure::new(
        format!("a tick while {few} deployments wait for a lock"),
        short,
        "ms",
    ));
    core.deploy(many - few)?;
    core.wait_for_locks()?;
    let long = core.ticks(setting);
    report.add(Figure::new(format!("a tick while {many} wait"), long, "ms"));
    let ratio = (short / few as f64) / (long / many as f64);
    report.add(Figure::ratio(
        "tick 1000/9000",
        format!("of a tick one deployment's share with {few}, of that with {many}"),
        ratio,
    ));
    Ok(())
}

/// Folds the log anew, as a start does.
fn fold(setting: &Setting, report: &mut Report, core: &Core) {
    let mut took = Vec::new();
    for _ in 0..setting.pick(3, 10) {
        let mut state = State::default();
        let began = Instant::now();
        for event in &core.log {
            apply(&mut state, event);
        }
        took.push(began.elapsed().as_secs_f64());
        black_box(&state);
    }
    report.add(Figure::new(
        "events folded a second",
        core.log.len() as f64 / least(&took),
        "/s",
    ));
}

struct Core {
    state: State,
    obs: Observations,
    log: Vec<Logged>,
    made: usize,
}

impl Core {
    fn new() -> Result<Self> {
        let mut core = Self {
            state: State::default(),
            obs: Observations::new(NOW),
            log: Vec::new(),
            made: 0,
        };
        core.happen(Event::EpochStarted { epoch: 1 });
        core.happen(Event::EnvironmentsConfigured {
            environments: Environment::defaults(),
        });
        // Without a word of their node, rollouts begin and wait.
        core.happen(Event::NodeRegistered {
            node: "node-1".parse()?,
            environment: "Development".parse()?,
            hostname: "node-1".to_owned(),
            labels: BTreeMap::new(),
        });
        for module in 0..MODULES {
            core.happen(Event::ReleasePushed {
                module: format!("module-{module:02}").parse()?,
                version: semver::Version::new(1, 0, 0),
                release: Release {
                    digest: Digest([u8::try_from(module)?; 32]),
                    kind: Kind::Wasm,
                    size: 33_000,
                    pushed_at: WallTime(1),
                    pushed_by: "author".to_owned(),
                    signed_by: None,
                    needs: Default::default(),
                },
            });
        }
        Ok(core)
    }

    fn happen(&mut self, event: Event) {
        let logged = Logged {
            seq: self.state.seq + 1,
            epoch: 1,
            at: NOW.core,
            wall: NOW.wall,
            event,
        };
        apply(&mut self.state, &logged);
        self.log.push(logged);
    }

    /// Asks for so many more.
    fn deploy(&mut self, count: usize) -> Result<()> {
        for _ in 0..count {
            let command = Command::Deploy(Box::new(DeployRequest {
                id: DeploymentId(Uuid::from_u128(self.made as u128 * 0x9e37_79b9_7f4a_7c15 + 1)),
                trace_id: "0123456789abcdef0123456789abcdef".to_owned(),
                seed: 7,
                module: format!("module-{:02}", self.made % MODULES).parse()?,
                version: semver::Version::new(1, 0, 0),
                target: "Development".parse()?,
                requester: "dora".to_owned(),
                requester_email: "dora@example.com".to_owned(),
                require_approval: false,
                description: String::new(),
                metadata: BTreeMap::new(),
                allow_downgrade: true,
                supersede: false,
            }));
            self.made += 1;
            let decision = decide(&self.state, &self.obs, Input::Command(Box::new(command)), NOW);
            ensure!(!decision.events.is_empty(), "refused: {:?}", decision.reply);
            for event in decision.events {
                self.happen(event);
            }
        }
        Ok(())
    }

    /// Passes every check, so that all of them wait for their environment; the first of each module has it.
    fn wait_for_locks(&mut self) -> Result<()> {
        let checks: Vec<(DeploymentId, u32, u32)> = self
            .state
            .deployments
            .values()
            .flat_map(|deployment| {
                let stages = (0_u32..).zip(&deployment.stages);
                let checks = stages
                    .filter(|(_, stage)| stage.kind.is_check() && stage.status != StageStatus::Succeeded);
                checks
                    .map(|(place, stage)| (deployment.id, place, stage.attempt + 1))
                    .collect::<Vec<_>>()
            })
            .collect();
        for (deployment, stage, attempt) in checks {
            self.happen(Event::StageStarted {
                deployment,
                stage,
                attempt,
            });
            self.happen(Event::StageFinished {
                deployment,
                stage,
                status: StageStatus::Succeeded,
                message: "passed".to_owned(),
                nodes_deployed: 0,
                nodes_failed: 0,
            });
        }
        for _ in 0..100 {
            let decision = decide(&self.state, &self.obs, Input::Tick, NOW);
            if decision.events.is_empty() {
                return Ok(());
            }
            for event in decision.events {
                self.happen(event);
            }
        }
        anyhow::bail!("the core did not come to rest")
    }

    /// What a tick takes when nothing moves, in ms.
    fn ticks(&self, setting: &Setting) -> f64 {
        let tick = || {
            let began = Instant::now();
            black_box(decide(&self.state, &self.obs, Input::Tick, NOW));
            began.elapsed().as_secs_f64() * 1e3
        };
        least(&(0..setting.pick(5, 30)).map(|_| tick()).collect::<Vec<_>>())
    }
}
