//! What nodes say now. Never logged: full reports rebuild it, and after a start every node is unknown
//! until its first one.

use std::collections::{BTreeMap, BTreeSet};

use crate::analysis::Block;
use crate::event::{Folded, RolloutKey};
use crate::ids::{Digest, Incarnation, ModuleName, NodeId, RolloutId};
use crate::mutants::{Mutant, is_on};
use crate::ordered::each_in_order;
use crate::report::{
    Hello, Interval, ModuleStatus, NodeHealth, NodeReport, ReleaseLoad, ReleaseStatus, Veto,
};
use crate::rollout::Rollout;
use crate::spec::Generation;
use crate::state::State;
use crate::time::{CoreTime, Millis, Now, WallTime};

/// A node without a report for this long counts as failed (DESIGN: heartbeats come every 30 s by default).
pub const HEARTBEAT_TIMEOUT_DEFAULT: Millis = Millis::from_secs(120);

/// Everything that nodes said since this process started to listen.
#[derive(Clone, Debug)]
pub struct Observations {
    /// When it started to listen.
    started: CoreTime,
    heartbeat_timeout: Millis,
    nodes: BTreeMap<NodeId, NodeObs>,
    /// Nodes whose first or changed description is not in State yet.
    undescribed: BTreeSet<NodeId>,
    /// Nodes with vetoes that State may not know yet.
    vetoing: BTreeSet<NodeId>,
    /// Evidence that is not in the log yet.
    pending: BTreeMap<RolloutId, Pending>,
}

/// What one node said.
#[derive(Clone, Debug)]
pub struct NodeObs {
    /// Whether its session stands.
    pub connected: bool,
    /// Since when it is known: its first full report of this session. `None`: not now.
    pub known_since: Option<CoreTime>,
    /// Since when it is silent, if it is not known.
    pub silent_since: CoreTime,
    /// When its last report came, by core time.
    pub last_report: CoreTime,
    /// And by wall time.
    pub last_report_wall: WallTime,
    /// The run of its process.
    pub incarnation: Incarnation,
    /// The last report of that run.
    pub seq: u64,
    /// Who it says it is.
    pub hello: Option<Hello>,
    /// The newest spec that it ever accepted.
    pub highest: Generation,
    /// What it runs.
    pub modules: BTreeMap<ModuleName, ModuleObs>,
    /// What it left by itself and was not acknowledged yet.
    pub vetoes: BTreeSet<Veto>,
    /// Its machine's health.
    pub health: Option<NodeHealth>,
    /// What requests to its releases came to.
    pub loads: Vec<ReleaseLoad>,
}

/// What a node said of one module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModuleObs {
    /// Its words.
    pub status: ModuleStatus,
    /// Since when it routes and previews as it does, under the rollout that it names.
    pub content_since: CoreTime,
    /// Since when each ready release is.
    pub ready_since: BTreeMap<Digest, CoreTime>,
}

/// Evidence of one rollout that is not in the log yet.
#[derive(Clone, Debug, Default)]
pub struct Pending {
    /// By step.
    pub blocks: BTreeMap<u32, Block>,
    /// The last interval of each node in it, by the node's place.
    pub last: BTreeMap<u32, (Incarnation, u32)>,
}

/// Whether a node can be counted on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// It reports.
    Known {
        /// Since when.
        since: CoreTime,
    },
    /// It does not report now; for how long.
    Silent {
        /// For how long.
        silent_for: Millis,
    },
}

/// A node as it is seen at a moment.
#[derive(Clone, Copy, Debug)]
pub struct Seen<'a> {
    /// Whether it can be counted on.
    pub presence: Presence,
    /// What it said, if it ever said anything.
    pub node: Option<&'a NodeObs>,
}

impl<'a> Seen<'a> {
    /// What it runs of a module, if it is known.
    pub fn module(&self, module: &ModuleName) -> Option<&'a ModuleObs> {
        match self.presence {
            Presence::Known { .. } => self.node?.modules.get(module),
            Presence::Silent { .. } => None,
        }
    }
}

impl Observations {
    /// Nothing said yet.
    pub fn new(now: Now) -> Self {
        Self {
            started: now.core,
            heartbeat_timeout: HEARTBEAT_TIMEOUT_DEFAULT,
            nodes: BTreeMap::new(),
            undescribed: BTreeSet::new(),
            vetoing: BTreeSet::new(),
            pending: BTreeMap::new(),
        }
    }

    /// Counts a node as failed after this long without a report; default 2 min.
    #[must_use]
    pub fn with_heartbeat_timeout(mut self, timeout: Millis) -> Self {
        self.heartbeat_timeout = timeout;
        self
    }

    /// What a node said, if it said anything.
    pub fn node(&self, node: &NodeId) -> Option<&NodeObs> {
        self.nodes.get(node)
    }

    /// All nodes that said anything.
    pub fn nodes(&self) -> impl Iterator<Item = (&NodeId, &NodeObs)> {
        self.nodes.iter()
    }

    /// When this process started to listen.
    pub fn started(&self) -> CoreTime {
        self.started
    }

    /// Nodes whose description differs from State's.
    pub fn undescribed(&self) -> impl Iterator<Item = (&NodeId, &Hello)> {
        self.undescribed
            .iter()
            .filter_map(|node| Some((node, self.nodes.get(node)?.hello.as_ref()?)))
    }

    /// Nodes with vetoes that State may not know yet.
    pub fn vetoing(&self) -> impl Iterator<Item = (&NodeId, &Veto)> {
        self.vetoing
            .iter()
            .filter_map(|node| Some((node, self.nodes.get(node)?)))
            .flat_map(|(node, obs)| obs.vetoes.iter().map(move |veto| (node, veto)))
    }

    /// Evidence of a rollout that is not in the log yet.
    pub fn pending(&self, rollout: RolloutId) -> Option<&Pending> {
        self.pending
            .get(&rollout)
            .filter(|pending| !pending.last.is_empty())
    }

    /// Whether a node can be counted on.
    pub fn presence(&self, node: &NodeId, now: CoreTime) -> Presence {
        self.seen(node, now).presence
    }

    /// What a node runs of a module, if the node is known.
    pub fn module(&self, node: &NodeId, module: &ModuleName, now: CoreTime) -> Option<&ModuleObs> {
        self.seen(node, now).module(module)
    }

    /// A node as it is seen now.
    pub fn seen(&self, node: &NodeId, now: CoreTime) -> Seen<'_> {
        self.see(self.nodes.get(node), now)
    }

    /// Nodes as they are seen now; they must be given in their order.
    pub fn seen_in_order<'a, 'n, I>(
        &'a self,
        nodes: I,
        now: CoreTime,
    ) -> impl Iterator<Item = (&'n NodeId, Seen<'a>)> + use<'a, 'n, I>
    where
        I: IntoIterator<Item = &'n NodeId>,
    {
        each_in_order(&self.nodes, nodes).map(move |(node, obs)| (node, self.see(obs, now)))
    }

    fn see<'a>(&self, node: Option<&'a NodeObs>, now: CoreTime) -> Seen<'a> {
        let silent_since = match node {
            None => self.started,
            Some(obs) => match obs.known_since {
                Some(since) if now.since(obs.last_report) < self.heartbeat_timeout => {
                    let presence = Presence::Known { since };
                    return Seen { presence, node };
                }
                Some(_) => obs.last_report,
                None => obs.silent_since,
            },
        };
        let presence = Presence::Silent {
            silent_for: now.since(silent_since),
        };
        Seen { presence, node }
    }

    /// A session of a node stands; what it runs is unknown until its full report.
    pub fn connected(&mut self, node: &NodeId, now: Now) {
        let obs = self.entry(node, now);
        obs.connected = true;
        if obs.known_since.take().is_some() {
            obs.silent_since = now.core;
        }
    }

    /// A node's session fell.
    pub fn disconnected(&mut self, node: &NodeId, now: Now) {
        let obs = self.entry(node, now);
        obs.connected = false;
        if obs.known_since.take().is_some() {
            obs.silent_since = now.core;
        }
    }

    fn entry(&mut self, node: &NodeId, now: Now) -> &mut NodeObs {
        let started = self.started;
        self.nodes.entry(node.clone()).or_insert_with(|| NodeObs {
            connected: false,
            known_since: None,
            silent_since: started,
            last_report: now.core,
            last_report_wall: now.wall,
            incarnation: Incarnation::default(),
            seq: 0,
            hello: None,
            highest: Generation::default(),
            modules: BTreeMap::new(),
            vetoes: BTreeSet::new(),
            health: None,
            loads: Vec::new(),
        })
    }

    /// Takes a report in. A delta before a full report, and a report older than one seen, say nothing.
    pub fn absorb(&mut self, state: &State, report: NodeReport, now: Now) {
        let node = report.node.clone();
        let heartbeat_timeout = self.heartbeat_timeout;
        let obs = self.entry(&node, now);
        let full = report.hello.is_some();
        let older = report.incarnation == obs.incarnation && report.seq <= obs.seq;
        if older || !(full || (obs.known_since.is_some() && report.incarnation == obs.incarnation)) {
            return;
        }
        // After a silence it is known anew, also where its session stood all the time.
        if obs.known_since.is_some() && now.core.since(obs.last_report) >= heartbeat_timeout {
            obs.known_since = Some(now.core);
        }
        obs.incarnation = report.incarnation;
        obs.seq = report.seq;
        obs.connected = true;
        obs.last_report = now.core;
        obs.last_report_wall = now.wall;
        obs.highest = obs.highest.max(report.highest);
        if full {
            obs.known_since.get_or_insert(now.core);
            obs.hello = report.hello;
            obs.modules
                .retain(|module, _| report.modules.contains_key(module));
        }
        for (module, status) in report.modules {
            match status {
                Some(status) => note_module(&mut obs.modules, module, status, now.core),
                None => {
                    obs.modules.remove(&module);
                }
            }
        }
        if report.health.is_some() {
            (obs.health, obs.loads) = (report.health, report.loads);
        }
        obs.vetoes = report.vetoes.into_iter().collect();
        let vetoing = !obs.vetoes.is_empty();
        let described = match (&obs.hello, state.nodes.get(&node)) {
            (Some(hello), Some(record)) => hello.hostname == record.hostname && hello.labels == record.labels,
            (None, _) => true,
            (Some(_), None) => false,
        };
        mark(&mut self.vetoing, &node, vetoing);
        mark(&mut self.undescribed, &node, !described);
        for interval in report.intervals {
            self.absorb_interval(state, &node, report.incarnation, &interval);
        }
    }

    /// Each interval counts once: in order, from a node that is in the cohort and still counts.
    fn absorb_interval(
        &mut self,
        state: &State,
        node: &NodeId,
        incarnation: Incarnation,
        interval: &Interval,
    ) {
        let Some(rollout) = rollout_for(state, node, interval) else {
            return;
        };
        let Some(place) = rollout.place(node) else { return };
        let pending = self.pending.entry(rollout.plan.id).or_default();
        let last = pending
            .last
            .get(&place)
            .copied()
            .unwrap_or_else(|| rollout.last_folded(place));
        let expected = if last.0 == incarnation { last.1 + 1 } else { 1 };
        if interval.number != expected && !is_on(Mutant::IntervalTwice) {
            return;
        }
        pending.last.insert(place, (incarnation, interval.number));
        pending
            .blocks
            .entry(interval.step)
            .or_default()
            .merge_node(place, &interval.block);
    }

    /// Forgets what State holds now. Called after events were applied.
    pub fn after_apply(&mut self, state: &State) {
        if !self.pending.is_empty() {
            let live: BTreeMap<RolloutId, &Rollout> = state
                .rollouts()
                .map(|rollout| (rollout.plan.id, rollout))
                .collect();
            self.pending.retain(|id, pending| {
                live.get(id).is_some_and(|rollout| {
                    pending
                        .last
                        .iter()
                        .any(|(&place, last)| rollout.last_folded(place) != *last)
                })
            });
        }
        let nodes = &self.nodes;
        self.undescribed.retain(|node| {
            let said = nodes.get(node).and_then(|obs| obs.hello.as_ref());
            let known = state.nodes.get(node);
            !matches!((said, known), (Some(hello), Some(record))
                if hello.hostname == record.hostname && hello.labels == record.labels)
        });
        self.vetoing.retain(|node| {
            let obs = nodes.get(node);
            obs.is_some_and(|obs| obs.vetoes.iter().any(|veto| !veto_known(state, node, veto)))
        });
    }

    /// Drops what is known of a node that was removed from the fleet.
    pub fn forget(&mut self, node: &NodeId) {
        self.nodes.remove(node);
        self.undescribed.remove(node);
        self.vetoing.remove(node);
    }
}

fn mark(set: &mut BTreeSet<NodeId>, node: &NodeId, on: bool) {
    if on {
        set.insert(node.clone());
    } else {
        set.remove(node);
    }
}

fn note_module(
    modules: &mut BTreeMap<ModuleName, ModuleObs>,
    module: ModuleName,
    status: ModuleStatus,
    now: CoreTime,
) {
    let mut ready_since = BTreeMap::new();
    for (digest, release) in &status.releases {
        if let ReleaseStatus::Ready { healthy_for } = release {
            ready_since.insert(*digest, now - *healthy_for);
        }
    }
    let content_since = match modules.get(&module) {
        Some(before)
            if before.status.routes == status.routes
                && before.status.preview == status.preview
                && before.status.rollout == status.rollout =>
        {
            before.content_since
        }
        _ => now,
    };
    modules.insert(
        module,
        ModuleObs {
            status,
            content_since,
            ready_since,
        },
    );
}

fn rollout_for<'a>(state: &'a State, node: &NodeId, interval: &Interval) -> Option<&'a Rollout> {
    let environment = &state.nodes.get(node)?.environment;
    let rollout = state
        .env_module(environment, &interval.module)?
        .rollout
        .as_deref()?;
    let counts = rollout.plan.id == interval.rollout
        && rollout.cohort.contains(node)
        && !rollout.excluded.contains_key(node)
        && !rollout.excused.contains_key(node);
    counts.then_some(rollout)
}

/// Whether State knows a veto, or it says nothing any more: a later rollout put other content there.
/// Then it may be acknowledged.
pub fn veto_known(state: &State, node: &NodeId, veto: &Veto) -> bool {
    let Some(record) = state.nodes.get(node) else {
        return false;
    };
    let Some(module) = state.env_module(&record.environment, &veto.module) else {
        return true;
    };
    if let Some(known) = module.exceptions.get(node)
        && known.rollout == veto.rollout
    {
        // It says something new where the node left what it was given instead, too.
        return known.base.as_ref() != Some(&veto.release);
    }
    let on_trial = module.rollout.as_deref().is_some_and(|rollout| {
        rollout.plan.id == veto.rollout && !rollout.is_back() && rollout.cohort.contains(node)
    });
    let at_rest = module.rollout_of_stable == veto.rollout
        && module
            .stable
            .as_ref()
            .is_some_and(|stable| stable.release == veto.release);
    !(on_trial || at_rest)
}

impl Pending {
    /// Which intervals these are, against what a rollout has folded.
    pub fn folded(&self, rollout: &Rollout) -> Folded {
        let mut folded = Folded::default();
        for (&place, &(incarnation, number)) in &self.last {
            let (last_incarnation, last_number) = rollout.last_folded(place);
            if incarnation == last_incarnation && number == last_number + 1 {
                let word = place as usize / 64;
                if folded.next.len() <= word {
                    folded.next.resize(word + 1, 0);
                }
                folded.next[word] |= 1 << (place % 64);
            } else {
                folded.jumps.push((place, incarnation, number));
            }
        }
        folded
    }

    /// The key's evidence split in the running step's and what came late.
    pub fn split(&self, step: u32) -> (Option<Box<Block>>, Vec<(u32, Block)>) {
        let now = self.blocks.get(&step).cloned().map(Box::new);
        let late = self.blocks.iter().filter(|&(&at, _)| at != step);
        (now, late.map(|(&at, block)| (at, block.clone())).collect())
    }
}

/// The last interval of each node that is in the log, for acknowledging: `None` where the rollout is gone.
pub fn folded_up_to(state: &State, key: &RolloutKey, node: &NodeId) -> Option<(Incarnation, u32)> {
    let rollout = state
        .env_module(&key.environment, &key.module)?
        .rollout
        .as_deref()?;
    if rollout.plan.id != key.rollout {
        return None;
    }
    Some(rollout.last_folded(rollout.place(node)?))
}
