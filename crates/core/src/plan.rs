//! What a deployment would do, without doing it.
//!
//! Nothing here decides: the command, the skipping of stages, the draw of the roster, the steps and who joins them are
//! asked of the functions that decide them, on a copy of State that is folded forward. What only time can tell (health,
//! verdicts) is taken to turn out well.

use serde::Serialize;

use crate::analysis::{ArmCounts, Block, Control, Histogram, Judge, JudgePolicy, Outcome};
use crate::apply::apply;
use crate::capability;
use crate::command::{Command, DeployRequest, Refusal};
use crate::decide::{self, Input, decide};
use crate::event::{Event, Logged};
use crate::ids::{DeploymentId, EnvName, NodeId, ReleaseRef, RolloutId};
use crate::observe::{Observations, Presence};
use crate::release::Kind;
use crate::rollout::{Gate, Phase, Rollout, RolloutPlan, Step, StepPass};
use crate::spec::WEIGHT_ALL;
use crate::stage::{Deployment, StageKind, StageStatus};
use crate::state::State;
use crate::time::{Millis, Now};

/// Requests beyond which no estimate of the judge's need is given.
const REQUESTS_MAX: u64 = 100_000_000;

/// Intervals that the requests are taken to come in: the judge learns from one for the next.
const INTERVALS: u64 = 20;

/// What a deployment would do.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Plan {
    /// The release.
    pub release: ReleaseRef,
    /// What it is.
    pub kind: Kind,
    /// The seed of its draws: a deployment with the same seed, made while nothing else begins, draws the same.
    pub seed: u64,
    /// Whether a person must approve it before anything else.
    pub approval: bool,
    /// Its environments, in order, up to the first that it would fail in.
    pub environments: Vec<EnvironmentPlan>,
}

/// What would happen in one environment.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct EnvironmentPlan {
    /// The environment.
    pub environment: EnvName,
    /// The strategy's name.
    pub strategy: String,
    /// What would happen.
    pub action: Action,
    /// Who has the lock now: it would wait for it.
    pub behind: Option<DeploymentId>,
    /// What would hold or delay it as things are, for people.
    pub waits: Vec<String>,
    /// Nodes of its roster that could not run the release, and why.
    pub unable: Vec<(NodeId, String)>,
    /// Nodes that are left out, and why.
    pub left_out: Vec<(NodeId, String)>,
    /// Nodes that fetch, verify and compile the release while others run it.
    pub prefetch: u32,
}

/// What would happen in an environment.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "type", rename_all = "camelCase")]
pub enum Action {
    /// Nothing, for this reason.
    Skip {
        /// Why.
        reason: String,
    },
    /// The deployment would fail, for this reason.
    Fail {
        /// Why.
        reason: String,
    },
    /// A rollout.
    RollOut {
        /// What would be gone back to.
        base: Option<ReleaseRef>,
        /// Its steps, in order.
        steps: Vec<StepPlan>,
    },
}

/// A step of a rollout.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct StepPlan {
    /// The step.
    pub step: Step,
    /// Nodes that would join with it.
    pub joins: Vec<NodeId>,
    /// Its shortest time: settling and soak.
    pub at_least: Millis,
    /// What the judge needs, where it judges.
    pub judged: Option<JudgeNeed>,
}

/// What the judge needs for a pass, if the candidate is as good as the stable release.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct JudgeNeed {
    /// About so many requests to the candidate, or probes where there is nothing to compare with; absent where no
    /// number would do.
    pub requests: Option<u64>,
    /// Whether these are probes, which nodes send by themselves.
    pub probes: bool,
    /// Requests a second that the candidate would get at today's traffic.
    pub per_second: f64,
    /// How long that takes; absent without traffic.
    pub takes: Option<Millis>,
}

/// What a request would do now.
///
/// # Errors
/// Why it would be refused.
pub fn plan(state: &State, obs: &Observations, request: DeployRequest, now: Now) -> Result<Plan, Refusal> {
    let (id, seed) = (request.id, request.seed);
    let decision = decide(
        state,
        obs,
        Input::Command(Box::new(Command::Deploy(Box::new(request)))),
        now,
    );
    if let Some(Err(refusal)) = decision.reply {
        return Err(refusal);
    }
    let mut ahead = Ahead {
        state: state.clone(),
        obs,
        now,
    };
    ahead.fold(decision.events);
    let deployment = ahead.state.deployments[&id].clone();
    let release = deployment
        .release
        .clone()
        .expect("a deployment that isn't a way back has a release");
    let kind = state
        .release(&deployment.module, &release.version)
        .map_or(Kind::Wasm, |release| release.kind);
    let mut environments = Vec::new();
    for (place, stage) in (0..).zip(&deployment.stages) {
        let StageKind::Deploy(environment) = &stage.kind else {
            continue;
        };
        let planned = ahead.environment(&deployment, place, environment, &release);
        let fails = matches!(planned.action, Action::Fail { .. });
        environments.push(planned);
        if fails {
            break;
        }
    }
    let approval = deployment.stage_index(&StageKind::Approval).is_some();
    Ok(Plan {
        release,
        kind,
        seed,
        approval,
        environments,
    })
}

/// A copy of State that runs ahead.
struct Ahead<'a> {
    state: State,
    obs: &'a Observations,
    now: Now,
}

impl Ahead<'_> {
    fn fold(&mut self, events: Vec<Event>) {
        for event in events {
            let logged = Logged {
                seq: self.state.seq + 1,
                epoch: self.state.epoch,
                at: self.now.core,
                wall: self.now.wall,
                event,
            };
            apply(&mut self.state, &logged);
        }
    }

    fn environment(
        &mut self,
        deployment: &Deployment,
        place: u32,
        name: &EnvName,
        release: &ReleaseRef,
    ) -> EnvironmentPlan {
        let mut planned = EnvironmentPlan {
            environment: name.clone(),
            strategy: String::new(),
            action: Action::Skip {
                reason: "nothing would change".to_owned(),
            },
            behind: decide::blocker(&self.state, deployment, name),
            waits: Vec::new(),
            unable: Vec::new(),
            left_out: Vec::new(),
            prefetch: 0,
        };
        let Ok(mut environment) = self.state.environment(name).cloned() else {
            return planned;
        };
        environment.strategy.name().clone_into(&mut planned.strategy);
        if let Some(behind) = planned.behind.take() {
            planned.waits.push(format!("queued behind deployment {behind}"));
            planned.behind = Some(behind);
            // What comes once the lock is free: as if its holder's rollout were gone.
            self.free(name, deployment);
        }
        let id = RolloutId(self.state.rollouts + 1);
        if let Some(frozen) = decide::frozen_now(&environment, self.now) {
            planned
                .waits
                .push(format!("frozen by {:?}: {}", frozen.window, frozen.reason));
            // What comes once the freeze is over.
            environment.freezes.clear();
        }
        let events = decide::with_lock(
            &self.state,
            deployment,
            place,
            &environment,
            release,
            id,
            self.now,
        );
        for event in &events {
            match event {
                Event::StageFinished { status, message, .. } => {
                    let reason = message.clone();
                    planned.action = match status {
                        StageStatus::Failed => Action::Fail { reason },
                        _ => Action::Skip { reason },
                    };
                }
                Event::RolloutStarted { plan } => self.roll_out(plan, &mut planned),
                _ => {}
            }
        }
        planned
    }

    fn free(&mut self, name: &EnvName, deployment: &Deployment) {
        let module = self
            .state
            .envs
            .get_mut(name)
            .and_then(|env| env.modules.get_mut(&deployment.module));
        if let Some(module) = module {
            module.rollout = None;
        }
    }

    fn roll_out(&mut self, plan: &RolloutPlan, planned: &mut EnvironmentPlan) {
        planned.unable = self.unable(plan);
        let drained = self.state.envs.get(&plan.environment).into_iter();
        planned.left_out = drained
            .flat_map(|env| &env.nodes)
            .filter(|node| {
                self.state
                    .nodes
                    .get(*node)
                    .is_some_and(crate::state::Node::is_drained)
            })
            .map(|node| (node.clone(), "is drained".to_owned()))
            .collect();
        let next = crate::desired::next_environment(&self.state, &plan.environment)
            .filter(|_| !plan.validates)
            .and_then(|next| self.state.envs.get(next))
            .map_or(0, |env| env.nodes.len());
        self.fold(vec![Event::RolloutStarted {
            plan: Box::new(plan.clone()),
        }]);
        let key = plan.key();
        let mut steps = Vec::new();
        for (place, step) in (0..).zip(&plan.steps) {
            let (joins, excused) = self.step(plan, place, step, &mut planned.waits);
            planned.left_out.extend(excused);
            let cohort: Vec<NodeId> = self.rollout(plan).cohort.iter().cloned().collect();
            steps.push(StepPlan {
                step: step.clone(),
                joins,
                at_least: at_least(plan, step),
                judged: self.judged(plan, step, &cohort),
            });
            self.fold(vec![Event::StepCompleted {
                key: key.clone(),
                step: place,
                pass: StepPass::Empty,
            }]);
        }
        let first = steps.first().map_or(0, |step| step.joins.len());
        planned.prefetch = u32::try_from(plan.order.len().saturating_sub(first) + next).unwrap_or(u32::MAX);
        planned.action = Action::RollOut {
            base: plan.base.clone(),
            steps,
        };
        self.fold(vec![
            Event::StableSet {
                key: key.clone(),
                deployment: plan.deployment,
                release: plan.candidate.clone(),
            },
            Event::RolloutEnded {
                key,
                kept: true,
                missing: Vec::new(),
            },
        ]);
    }

    fn rollout(&self, plan: &RolloutPlan) -> &Rollout {
        self.state
            .env_module(&plan.environment, &plan.module)
            .and_then(|module| module.rollout.as_deref())
            .expect("it was started above")
    }

    /// Begins a step as the engine would, and tells who joins; where the engine would wait, what for, and who would
    /// join then.
    fn step(
        &mut self,
        plan: &RolloutPlan,
        place: u32,
        step: &Step,
        waits: &mut Vec<String>,
    ) -> (Vec<NodeId>, Vec<(NodeId, String)>) {
        debug_assert!(matches!(
            self.rollout(plan).phase,
            Phase::Forward { began: None, .. }
        ));
        let moved = decide::rollout_move(&self.state, self.obs, self.rollout(plan), self.now);
        let mut joins = None;
        let mut excused = Vec::new();
        let mut events = Vec::new();
        match moved {
            Ok(moves) => {
                for event in moves {
                    match event {
                        Event::StepStarted { joins: nodes, .. } => joins = Some(nodes),
                        Event::NodeExcused { ref node, reason, .. } => {
                            excused.push((node.clone(), reason.to_string()));
                            events.push(event);
                        }
                        Event::RolloutHeld { reason, .. } => note(waits, format!("held: {reason}")),
                        Event::BackStarted { reason, .. } => note(waits, format!("would go back: {reason}")),
                        _ => {}
                    }
                }
            }
            Err(wait) => note(waits, wait.to_string()),
        }
        let joins = joins.unwrap_or_else(|| {
            let rollout = self.rollout(plan);
            let prefix = rollout.plan.order.iter().take(step.upto as usize);
            let gone = |node: &NodeId| excused.iter().any(|(excused, _)| excused == node);
            let joins = prefix.filter(|node| !rollout.cohort.contains(*node) && !gone(node));
            joins.cloned().collect()
        });
        events.push(Event::StepStarted {
            key: plan.key(),
            step: place,
            joins: joins.clone(),
        });
        self.fold(events);
        (joins, excused)
    }

    /// Nodes whose report doesn't name what the release needs.
    fn unable(&self, plan: &RolloutPlan) -> Vec<(NodeId, String)> {
        let release = plan
            .candidate
            .as_ref()
            .and_then(|candidate| self.state.release(&plan.module, &candidate.version).ok());
        let Some(release) = release else {
            return Vec::new();
        };
        let lack = |node: &NodeId| Some((node.clone(), capability::lack(self.obs, node, release)?));
        plan.order.iter().filter_map(lack).collect()
    }

    fn judged(&self, plan: &RolloutPlan, step: &Step, cohort: &[NodeId]) -> Option<JudgeNeed> {
        if step.gate != Gate::Judge {
            return None;
        }
        let rate = |node: &NodeId| match self.obs.presence(node, self.now.core) {
            Presence::Known { .. } => self
                .obs
                .node(node)?
                .health
                .map(|health| health.requests_per_second),
            Presence::Silent { .. } => None,
        };
        let all: f64 = cohort.iter().filter_map(rate).sum();
        let control = plan.base.is_some();
        let policy = JudgePolicy {
            control: if control {
                Control::SideBySide
            } else {
                Control::Absent
            },
            ..plan.policy.judge.clone()
        };
        if !control {
            let per_second = cohort.len() as f64 * f64::from(plan.policy.probes_per_interval)
                / (plan.policy.interval.0.max(1) as f64 / 1e3);
            return Some(need(Some(policy.no_control_probes), true, per_second));
        }
        let share = f64::from(step.weight) / f64::from(WEIGHT_ALL);
        Some(need(requests_needed(&policy, share), false, all * share))
    }
}

fn note(waits: &mut Vec<String>, text: String) {
    if !waits.contains(&text) {
        waits.push(text);
    }
}

fn need(requests: Option<u64>, probes: bool, per_second: f64) -> JudgeNeed {
    let seconds = requests.map(|requests| requests as f64 / per_second);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "finite, above 0, and a float's cast saturates"
    )]
    let takes = seconds
        .filter(|seconds| seconds.is_finite())
        .map(|seconds| Millis((seconds * 1e3).ceil() as u64));
    JudgeNeed {
        requests,
        probes,
        per_second,
        takes,
    }
}

fn at_least(plan: &RolloutPlan, step: &Step) -> Millis {
    let soak = if step.gate.soaks() {
        plan.policy.soak_min
    } else {
        Millis(0)
    };
    plan.policy.settle.max(soak)
}

/// About how many requests the candidate needs until the judge passes it, if both arms answer alike and without an
/// error: the judge itself is asked, with ever more of them.
pub fn requests_needed(policy: &JudgePolicy, share: f64) -> Option<u64> {
    let passes = |requests: u64| {
        let mut judge = Judge::new(policy.clone());
        judge.begin_step(0);
        (0..INTERVALS).for_each(|_| judge.fold(&flawless(requests.div_ceil(INTERVALS), share)));
        judge.outcome() == Outcome::Pass
    };
    let mut enough = policy.min_candidate_requests.max(1);
    while !passes(enough) {
        enough = enough.saturating_mul(2);
        if enough > REQUESTS_MAX {
            return None;
        }
    }
    let mut short = enough / 2;
    // Two digits: it is an estimate.
    while enough - short > (enough / 100).max(1) {
        let middle = short + (enough - short) / 2;
        if passes(middle) {
            enough = middle;
        } else {
            short = middle;
        }
    }
    Some(enough)
}

fn flawless(candidate: u64, share: f64) -> Block {
    /// Any latency would do: both arms have the same.
    const LATENCY_US: u64 = 5_000;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "both are bounded by REQUESTS_MAX and a share of at least 1 %"
    )]
    let control = (candidate as f64 * (1.0 - share) / share.max(0.01)).ceil() as u64;
    let arm = |requests| {
        let mut latency = Histogram::default();
        latency.record_many(LATENCY_US, requests);
        ArmCounts {
            requests,
            latency,
            ..ArmCounts::default()
        }
    };
    Block {
        candidate: arm(candidate),
        control: arm(control.max(1)),
        ..Block::default()
    }
}
