//! What one strategy does in one environment, as State holds it.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::analysis::{Block, Control, Judge, JudgePolicy};
use crate::attribution::Attribution;
use crate::event::{Folded, RolloutKey};
use crate::ids::{DeploymentId, EnvName, Incarnation, ModuleName, NodeId, ReleaseRef, RolloutId};
use crate::ordered::each_in_order;
use crate::policy::RolloutPolicy;
use crate::release::Kind;
use crate::spec::WEIGHT_ALL;
use crate::time::{CoreTime, Millis, WallTime};

/// Everything that a rollout may do, frozen when it starts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RolloutPlan {
    /// Its identity.
    pub id: RolloutId,
    /// The deployment it belongs to.
    pub deployment: DeploymentId,
    /// The module.
    pub module: ModuleName,
    /// Where.
    pub environment: EnvName,
    /// What the module is.
    pub kind: Kind,
    /// The release that is rolled out; `None` unloads.
    pub candidate: Option<ReleaseRef>,
    /// The stable release when it started: what it goes back to.
    pub base: Option<ReleaseRef>,
    /// The strategy's name, for people.
    pub strategy: String,
    /// Limits and times.
    pub policy: RolloutPolicy,
    /// Seed of its draws.
    pub seed: u64,
    /// The roster, in the drawn order: cohorts are its prefixes.
    pub order: Vec<NodeId>,
    /// What it does, in order.
    pub steps: Vec<Step>,
    /// Whether Validation belongs to it.
    pub validates: bool,
    /// Whether it is on its way back from the start: an operator's rollback or an unloading.
    pub reverse: bool,
}

impl RolloutPlan {
    /// Where it is found.
    pub fn key(&self) -> RolloutKey {
        RolloutKey {
            environment: self.environment.clone(),
            module: self.module.clone(),
            rollout: self.id,
        }
    }
}

/// One step of a rollout.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// How many nodes of the order the cohort has with this step.
    pub upto: u32,
    /// The candidate's share of the requests on the cohort's nodes, in %.
    pub weight: u8,
    /// Whether the candidate is only held in preview.
    pub preview: bool,
    /// What must be met before the next step.
    pub gate: Gate,
}

/// What must be met before the next step. All gates need the cohort ready, healthy and settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Gate {
    /// Nothing more.
    Settled,
    /// Smoke checks passed on every node of the cohort.
    Smoke,
    /// The soak.
    Soak,
    /// The judge's pass.
    Judge,
    /// The soak, without the judge's fail.
    JudgedSoak,
}

impl Gate {
    /// Whether nodes close intervals of evidence for it.
    pub fn is_judged(self) -> bool {
        matches!(self, Self::Judge | Self::JudgedSoak)
    }

    /// Whether soak time is counted for it.
    pub fn soaks(self) -> bool {
        matches!(self, Self::Soak | Self::Judge | Self::JudgedSoak)
    }
}

/// By what a step passed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "by", rename_all = "camelCase")]
pub enum StepPass {
    /// Its gate was met.
    Gate {
        /// How, for people: for judged steps the verdict.
        detail: String,
    },
    /// A person's word.
    Override {
        /// Whose.
        who: String,
    },
    /// The longest soak ended without a verdict, and the policy says to go on.
    Inconclusive {
        /// What was missing.
        detail: String,
    },
    /// All of its cohort moved away.
    Empty,
}

/// Why a node counts as failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "why", rename_all = "camelCase")]
pub enum Exclusion {
    /// It left the candidate by itself.
    Veto {
        /// What it said.
        reason: String,
    },
    /// Smoke checks failed on it.
    Smoke {
        /// Which, and how.
        failures: Vec<String>,
    },
    /// It was not ready by the step's deadline.
    NotReady {
        /// How far it was.
        detail: String,
    },
    /// It was silent for too long.
    Silent {
        /// For how long.
        silent_for: Millis,
    },
}

impl std::fmt::Display for Exclusion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Veto { reason } => write!(f, "left the release by itself: {reason}"),
            Self::Smoke { failures } => write!(f, "smoke checks failed: {}", failures.join("; ")),
            Self::NotReady { detail } => write!(f, "not ready by the step's deadline: {detail}"),
            Self::Silent { silent_for } => write!(f, "silent for {silent_for}"),
        }
    }
}

/// Why a node doesn't count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Excuse {
    /// It was unhealthy or away before the rollout touched it.
    UnavailableBefore,
    /// It belongs to another environment now.
    Moved,
    /// It was removed from the fleet.
    Removed,
    /// An operator took its traffic away.
    Drained,
}

impl Excuse {
    /// Whether the node is no part of the environment's service any more, so that its absence is no lack.
    pub fn is_gone(self) -> bool {
        matches!(self, Self::Moved | Self::Removed | Self::Drained)
    }
}

impl std::fmt::Display for Excuse {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::UnavailableBefore => "was unavailable before the rollout reached it",
            Self::Moved => "was moved to another environment",
            Self::Removed => "was removed",
            Self::Drained => "was drained",
        })
    }
}

/// What a held rollout waits for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "for", rename_all = "camelCase")]
pub enum HoldReason {
    /// Enough healthy nodes; it goes on by itself when there are.
    TooFewHealthy {
        /// Nodes that are not available.
        unavailable: u32,
        /// How many may be.
        allowed: u32,
    },
    /// A person, since the longest soak ended without a verdict.
    Inconclusive {
        /// What was missing.
        detail: String,
    },
}

impl std::fmt::Display for HoldReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::TooFewHealthy { unavailable, allowed } => {
                write!(f, "{unavailable} nodes are unavailable and {allowed} may be")
            }
            Self::Inconclusive { detail } => write!(f, "the longest soak ended without a verdict: {detail}"),
        }
    }
}

/// Why a rollout goes back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "why", rename_all = "camelCase")]
pub enum BackReason {
    /// More nodes failed than may.
    Excluded {
        /// Who and why, the first few.
        detail: String,
        /// Whether the release is to blame (a veto or smoke failure), not the infrastructure.
        blames_release: bool,
    },
    /// The judge showed harm.
    Verdict {
        /// The verdict with its evidence.
        detail: String,
        /// Where the harm is.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        attribution: Option<Box<Attribution>>,
    },
    /// Validation failed in the target.
    Validation {
        /// What failed.
        detail: String,
    },
    /// A person aborted the deployment.
    Aborted {
        /// Who.
        by: String,
    },
    /// A hold or a pause expired.
    Expired {
        /// Of what.
        detail: String,
    },
    /// The longest soak ended without a verdict, and the policy says to go back.
    Inconclusive {
        /// What was missing.
        detail: String,
    },
    /// The release was held while it was rolled out.
    ReleaseHeld {
        /// Why.
        detail: String,
    },
    /// A later deployment or an operator's rollback took its place.
    Superseded {
        /// Which.
        by: DeploymentId,
    },
    /// It was a way back from the start.
    Requested {
        /// Who asked.
        by: String,
    },
}

impl BackReason {
    /// Whether the release is held after it: harm was shown, not merely bad luck.
    pub fn holds_release(&self) -> bool {
        match self {
            Self::Excluded { blames_release, .. } => *blames_release,
            Self::Verdict { .. } | Self::Validation { .. } => true,
            _ => false,
        }
    }
}

impl std::fmt::Display for BackReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Excluded { detail, .. } => write!(f, "too many nodes failed: {detail}"),
            Self::Verdict { detail, .. } => write!(f, "the judge says {detail}"),
            Self::Validation { detail } => write!(f, "validation failed: {detail}"),
            Self::Aborted { by } => write!(f, "aborted by {by}"),
            Self::Expired { detail } => write!(f, "{detail}"),
            Self::Inconclusive { detail } => write!(f, "no verdict within the longest soak: {detail}"),
            Self::ReleaseHeld { detail } => write!(f, "the release was put on hold: {detail}"),
            Self::Superseded { by } => write!(f, "superseded by deployment {by}"),
            Self::Requested { by } => write!(f, "requested by {by}"),
        }
    }
}

/// Where a rollout is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "phase", rename_all = "camelCase")]
pub enum Phase {
    /// On its way through the steps.
    Forward {
        /// The step that runs, or, before it began, comes next.
        step: u32,
        /// When that began; `None` before.
        began: Option<CoreTime>,
        /// Soak of that step so far.
        soak: Millis,
        /// Until when soak was counted.
        soaked_at: CoreTime,
    },
    /// All steps are done; Validation runs.
    Validating {
        /// Since when.
        began: CoreTime,
    },
    /// On its way back. It never turns again.
    Back {
        /// Since when.
        began: CoreTime,
        /// Why.
        reason: BackReason,
    },
}

/// A hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hold {
    /// What it waits for.
    pub reason: HoldReason,
    /// When it gives up and goes back.
    pub until: WallTime,
}

/// What the cohort's nodes are told, set when a step starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Effect {
    /// The step that set it.
    pub step: u32,
    /// The candidate's share of the requests, in %.
    pub weight: u8,
    /// Whether the candidate is only held in preview.
    pub preview: bool,
    /// Its gate.
    pub gate: Gate,
}

/// An unfinished rollout.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rollout {
    /// What was frozen at its start. Late joiners are appended to `plan.order`.
    pub plan: RolloutPlan,
    /// Where it is.
    pub phase: Phase,
    /// What its cohort is told now; `None` before the first step.
    pub effect: Option<Effect>,
    /// Its nodes that were given the candidate.
    pub cohort: BTreeSet<NodeId>,
    /// When those entered that came after the last step had begun: their time to become ready runs from there.
    #[serde(default)]
    pub entered: BTreeMap<NodeId, CoreTime>,
    /// Nodes that count as failed.
    pub excluded: BTreeMap<NodeId, Exclusion>,
    /// Nodes that don't count.
    pub excused: BTreeMap<NodeId, Excuse>,
    /// What it waits for, if it is held.
    pub held: Option<Hold>,
    /// Whether all gates are passed by a person's word.
    pub promoted: Option<String>,
    /// The judge's fold.
    pub judge: Judge,
    /// The last intervals folded, by place in the order.
    pub folded: Vec<(Incarnation, u32)>,
    /// All evidence of the running step, for people.
    pub evidence: Block,
    /// Each node's place in the order.
    places: BTreeMap<NodeId, u32>,
}

impl Rollout {
    /// A rollout that begins now.
    pub fn new(plan: RolloutPlan, at: CoreTime) -> Self {
        let control = match &plan.base {
            None => Control::Absent,
            Some(_) if plan.kind.routes() => Control::SideBySide,
            Some(_) => Control::BeforeAfter,
        };
        let judge = Judge::new(JudgePolicy {
            control,
            ..plan.policy.judge.clone()
        });
        let folded = vec![(Incarnation(0), 0); plan.order.len()];
        let places = (0..)
            .zip(&plan.order)
            .map(|(place, node)| (node.clone(), place))
            .collect();
        let phase = if plan.reverse {
            Phase::Back {
                began: at,
                reason: BackReason::Requested { by: String::new() },
            }
        } else {
            Phase::Forward {
                step: 0,
                began: None,
                soak: Millis(0),
                soaked_at: at,
            }
        };
        Self {
            plan,
            phase,
            effect: None,
            cohort: BTreeSet::new(),
            entered: BTreeMap::new(),
            excluded: BTreeMap::new(),
            excused: BTreeMap::new(),
            held: None,
            promoted: None,
            judge,
            folded,
            evidence: Block::default(),
            places,
        }
    }

    /// Where it is found.
    pub fn key(&self) -> RolloutKey {
        self.plan.key()
    }

    /// Whether it is on its way back.
    pub fn is_back(&self) -> bool {
        matches!(self.phase, Phase::Back { .. })
    }

    /// The release that nodes return to.
    pub fn base(&self) -> Option<&ReleaseRef> {
        self.plan.base.as_ref()
    }

    /// The last step's place.
    pub fn last_step(&self) -> u32 {
        u32::try_from(self.plan.steps.len())
            .expect("steps are bounded by STEPS_MAX")
            .saturating_sub(1)
    }

    /// The cohort's nodes that still count.
    pub fn counting(&self) -> impl Iterator<Item = &NodeId> {
        self.cohort
            .iter()
            .filter(|node| !self.excluded.contains_key(*node) && !self.excused.contains_key(*node))
    }

    /// The shares that a cohort node's requests have: candidate, stable.
    pub fn weights(&self) -> (u8, u8) {
        match self.effect {
            Some(Effect { preview: true, .. }) | None => (0, WEIGHT_ALL),
            Some(Effect { weight, .. }) if self.plan.base.is_some() => (weight, WEIGHT_ALL - weight),
            Some(_) => (WEIGHT_ALL, 0),
        }
    }

    /// A node's place in the order.
    pub fn place(&self, node: &NodeId) -> Option<u32> {
        self.places.get(node).copied()
    }

    /// Nodes' places in the order; they must be given in theirs.
    pub(crate) fn places_of<'a>(
        &'a self,
        nodes: impl IntoIterator<Item = &'a NodeId>,
    ) -> impl Iterator<Item = (&'a NodeId, Option<u32>)> {
        each_in_order(&self.places, nodes).map(|(node, place)| (node, place.copied()))
    }

    /// Everyone that has a place, in the order of names.
    pub(crate) fn placed(&self) -> impl Iterator<Item = &NodeId> {
        self.places.keys()
    }

    pub(crate) fn enter(&mut self, node: &NodeId) {
        if !self.places.contains_key(node) {
            let place = u32::try_from(self.plan.order.len()).expect("nodes are bounded by NODES_MAX");
            self.places.insert(node.clone(), place);
            self.plan.order.push(node.clone());
            self.folded.push(Default::default());
        }
        self.cohort.insert(node.clone());
    }

    /// The last interval of a node that was folded.
    pub fn last_folded(&self, place: u32) -> (Incarnation, u32) {
        self.folded.get(place as usize).copied().unwrap_or_default()
    }

    pub(crate) fn note_folded(&mut self, folded: &Folded) {
        for (word, bits) in folded.next.iter().enumerate() {
            for bit in (0..64).filter(|bit| bits & (1 << bit) != 0) {
                if let Some(last) = self.folded.get_mut(word * 64 + bit) {
                    last.1 += 1;
                }
            }
        }
        for &(place, incarnation, number) in &folded.jumps {
            if let Some(last) = self.folded.get_mut(place as usize) {
                *last = (incarnation, number);
            }
        }
    }
}
