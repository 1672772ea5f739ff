//! The whole node: which spec holds, what is durable, and which modules to look at.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::ids::{Digest, ModuleName, NodeId, ReleaseRef, RolloutId};
use crate::mutants::{Mutant, is_on};
use crate::report::{ModuleStatus, REASON_LEN_MAX, Veto, account, beginning};
use crate::spec::{Generation, NodeSpec};
use crate::time::CoreTime;

use super::ledger::{KeptVeto, Ledger};
use super::slot::{Look, Slot};
use super::target::{fault, leave};
use super::{Action, Alarm, NodeInput};

/// Boots in a row on trial, without an orderly shutdown before, after which the node leaves the release.
pub const BOOTS_ON_TRIAL_MAX: u32 = 3;
/// Most vetoes that a node keeps; the oldest go first, those that the server knows before all others.
pub const VETOES_KEPT_MAX: usize = 1_024;

/// A node's machine. See the module for what holds at every step.
#[derive(Debug)]
pub struct Reconciler {
    node: NodeId,
    ledger: Ledger,
    /// The newest version that was asked to be written.
    asked: u64,
    /// The newest version that is durable, and the age of the spec in it.
    durable: u64,
    durable_highest: Generation,
    asked_highest: Generation,
    slots: BTreeMap<ModuleName, Slot>,
    statuses: BTreeMap<ModuleName, ModuleStatus>,
    changed: BTreeSet<ModuleName>,
    /// Vetoes that are not durable yet, with the version that makes them so.
    fresh_vetoes: Vec<(u64, Veto)>,
    stopping: bool,
}

impl Reconciler {
    /// Starts from what is durable (`Ledger::default()` on a new node): serves what was served, also without a
    /// server, and goes on towards the accepted spec.
    pub fn boot(node: NodeId, ledger: Ledger, now: CoreTime) -> (Self, Vec<Action>) {
        let version = ledger.version;
        let highest = ledger.highest();
        let mut machine = Self {
            node,
            asked: version,
            durable: version,
            durable_highest: highest,
            asked_highest: highest,
            ledger,
            slots: BTreeMap::new(),
            statuses: BTreeMap::new(),
            changed: BTreeSet::new(),
            fresh_vetoes: Vec::new(),
            stopping: false,
        };
        let mut out = Vec::new();
        let orderly = std::mem::take(&mut machine.ledger.orderly);
        if orderly {
            machine.ledger.version += 1;
        }
        let entries = machine.ledger.modules.keys();
        let named = machine.ledger.spec.iter().flat_map(|spec| spec.modules.keys());
        let modules: BTreeSet<ModuleName> = entries.chain(named).cloned().collect();
        for module in &modules {
            machine.count_boot(module, orderly);
        }
        for module in modules {
            machine.look(&module, now, &mut out);
        }
        machine.flush(&mut out);
        (machine, out)
    }

    /// Takes one input; returns what to do, in order.
    pub fn step(&mut self, input: NodeInput, now: CoreTime) -> Vec<Action> {
        let mut out = Vec::new();
        match input {
            NodeInput::LedgerWritten { version } => self.written(version, now, &mut out),
            _ if self.stopping => {}
            NodeInput::Spec(spec) => self.spec(spec, now, &mut out),
            NodeInput::Prepared {
                module,
                digest,
                result,
            } => {
                self.tell(&module, now, &mut out, |slot| {
                    slot.prepared(&digest, result.map_err(|reason| account(&reason)), now)
                });
            }
            NodeInput::Loaded {
                module,
                digest,
                result,
            } => {
                self.tell(&module, now, &mut out, |slot| {
                    slot.loaded(&digest, result.map_err(|reason| account(&reason)), now)
                });
            }
            NodeInput::Entering { module, digest } => {
                self.tell(&module, now, &mut out, |slot| slot.entering(&digest));
            }
            NodeInput::Health {
                module,
                digest,
                result,
            } => self.health(&module, &digest, shorten(result), now, &mut out),
            NodeInput::Smoke { module, outcome } => {
                self.tell(&module, now, &mut out, |slot| slot.smoked(outcome));
            }
            NodeInput::Acked {
                module,
                rollout,
                release,
            } => self.acked(&module, rollout, &release),
            NodeInput::Tick => {
                let due = self
                    .slots
                    .iter()
                    .filter(|(_, slot)| slot.wake_at.is_some_and(|at| at <= now));
                let due: Vec<ModuleName> = due.map(|(module, _)| module.clone()).collect();
                for module in due {
                    self.look(&module, now, &mut out);
                }
            }
            NodeInput::Shutdown => {
                self.stopping = true;
                self.ledger.orderly = true;
                self.ledger.version += 1;
            }
        }
        self.flush(&mut out);
        out
    }

    /// Who this is.
    pub fn node(&self) -> &NodeId {
        &self.node
    }

    /// What the node runs, by module.
    pub fn statuses(&self) -> &BTreeMap<ModuleName, ModuleStatus> {
        &self.statuses
    }

    /// The modules whose status changed since this was asked last, for a delta: those without a status are gone.
    pub fn take_changed(&mut self) -> BTreeSet<ModuleName> {
        std::mem::take(&mut self.changed)
    }

    /// Durable vetoes that the server doesn't know for good.
    pub fn vetoes(&self) -> impl Iterator<Item = &Veto> {
        let kept = self
            .ledger
            .vetoes
            .iter()
            .filter(|kept| !kept.acked)
            .map(|kept| &kept.veto);
        kept.filter(|veto| !self.fresh_vetoes.iter().any(|(_, fresh)| fresh == *veto))
    }

    /// The newest spec that was accepted for good: durably.
    pub fn highest(&self) -> Generation {
        self.durable_highest
    }

    /// When [`NodeInput::Tick`] is due: never, once the agent was asked to stop.
    pub fn wake_at(&self) -> Option<CoreTime> {
        if self.stopping {
            return None;
        }
        self.slots.values().filter_map(|slot| slot.wake_at).min()
    }

    /// What is to be durable, of which the last written part is.
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// A boot on trial counts, unless the node was asked to stop before it. One too many is a veto.
    fn count_boot(&mut self, module: &ModuleName, orderly: bool) {
        let Some(trial) = self
            .ledger
            .modules
            .get_mut(module)
            .and_then(|entry| entry.trial.as_mut())
        else {
            return;
        };
        if !orderly {
            trial.boots += 1;
            self.ledger.version += 1;
        }
        let boots = trial.boots;
        self.slots.entry(module.clone()).or_default().entry_version = self.ledger.version;
        if boots >= BOOTS_ON_TRIAL_MAX {
            self.veto(
                module,
                format!("{boots} boots in a row ended while it was on trial"),
            );
        }
    }

    fn spec(&mut self, spec: NodeSpec, now: CoreTime, out: &mut Vec<Action>) {
        match self.judge(&spec) {
            Ok(true) => {}
            Ok(false) => return,
            Err(alarm) => {
                out.push(Action::Alarm(alarm));
                return;
            }
        }
        self.ledger.fleet = Some(spec.fleet);
        self.ledger.version += 1;
        let after = Arc::new(spec);
        let before = self.ledger.spec.replace(Arc::clone(&after));
        let before = before.as_ref().map(|spec| &spec.modules);
        self.ledger.vetoes.retain(|kept| {
            let newer = |rollout| rollout > kept.veto.rollout;
            !(kept.acked
                && after
                    .modules
                    .get(&kept.veto.module)
                    .is_some_and(|module| newer(module.rollout)))
        });
        // A server that still asks for what was left has forgotten it, say with the node's removal: it is told again.
        for kept in &mut self.ledger.vetoes {
            let asked = after.modules.get(&kept.veto.module).is_some_and(|module| {
                module.rollout == kept.veto.rollout && module.releases.contains(&kept.veto.release)
            });
            kept.acked &= !asked;
        }
        let names: BTreeSet<&ModuleName> = after
            .modules
            .keys()
            .chain(before.into_iter().flat_map(BTreeMap::keys))
            .collect();
        for name in names {
            if before.and_then(|modules| modules.get(name)) != after.modules.get(name) {
                self.look(name, now, out);
            }
        }
    }

    /// Whether a spec is new (`true`) or too old or known already (`false`).
    fn judge(&self, spec: &NodeSpec) -> Result<bool, Alarm> {
        let generation = spec.generation;
        if let Some(ours) = self.ledger.fleet.filter(|ours| *ours != spec.fleet) {
            return Err(Alarm::ForeignFleet {
                ours,
                theirs: spec.fleet,
            });
        }
        if let Some(known) = &self.ledger.spec {
            if generation < known.generation && !is_on(Mutant::OlderSpecTaken) {
                return Ok(false);
            }
            if generation == known.generation {
                return if known.modules == spec.modules {
                    Ok(false)
                } else {
                    Err(Alarm::Conflict { generation })
                };
            }
        }
        match fault(spec) {
            Some(fault) => Err(Alarm::Faulty { generation, fault }),
            None => Ok(true),
        }
    }

    fn written(&mut self, version: u64, now: CoreTime, out: &mut Vec<Action>) {
        if version <= self.durable || version > self.asked {
            return;
        }
        let before = std::mem::replace(&mut self.durable, version);
        if version == self.asked {
            self.durable_highest = self.asked_highest;
        }
        self.fresh_vetoes.retain(|(at, _)| *at > version);
        if self.stopping {
            return;
        }
        let waited = |slot: &Slot| slot.entry_version > before && slot.entry_version <= version;
        let modules = self
            .slots
            .iter()
            .filter(|(_, slot)| waited(slot))
            .map(|(module, _)| module.clone());
        for module in modules.collect::<Vec<_>>() {
            self.look(&module, now, out);
        }
    }

    fn tell(
        &mut self,
        module: &ModuleName,
        now: CoreTime,
        out: &mut Vec<Action>,
        with: impl FnOnce(&mut Slot) -> bool,
    ) {
        if self.slots.get_mut(module).is_some_and(with) {
            self.look(module, now, out);
        }
    }

    fn health(
        &mut self,
        module: &ModuleName,
        digest: &Digest,
        result: Result<(), String>,
        now: CoreTime,
        out: &mut Vec<Action>,
    ) {
        let bad = result.as_ref().err().cloned();
        if !self
            .slots
            .get_mut(module)
            .is_some_and(|slot| slot.health(digest, result, now))
        {
            return;
        }
        if let Some(reason) = bad.filter(|_| self.is_left_when_bad(module, digest)) {
            self.veto(module, reason);
        }
        self.look(module, now, out);
    }

    /// Whether the node itself may leave a release: it tries it, and the spec doesn't take it for the base of another.
    fn is_left_when_bad(&self, module: &ModuleName, digest: &Digest) -> bool {
        let trial = self
            .ledger
            .modules
            .get(module)
            .and_then(|entry| entry.trial.as_ref());
        let Some(trial) = trial.filter(|trial| trial.release.id() == *digest) else {
            return false;
        };
        let spec = self
            .ledger
            .spec
            .as_ref()
            .and_then(|spec| spec.modules.get(module));
        spec.is_none_or(|spec| {
            spec.primary() == Some(&trial.release) || !spec.releases.contains(&trial.release)
        })
    }

    /// Leaves the release on trial for its base, for good under this rollout.
    fn veto(&mut self, module: &ModuleName, reason: String) {
        let Some(entry) = self.ledger.modules.get_mut(module) else {
            return;
        };
        let Some(trial) = entry.trial.take() else { return };
        let spec = self
            .ledger
            .spec
            .as_ref()
            .and_then(|spec| spec.modules.get(module));
        let asked_again = spec
            .filter(|spec| spec.primary() == Some(&trial.release))
            .map(|spec| spec.rollout);
        let base = entry.base(&trial.release.id());
        let serving = std::mem::take(&mut entry.serving);
        entry.serving = leave(serving, &trial.release.id(), base.as_ref());
        let rollout = asked_again.unwrap_or(trial.rollout);
        let veto = Veto {
            module: module.clone(),
            rollout,
            release: trial.release,
            base,
            reason,
        };
        self.ledger.version += 1;
        self.slots.entry(module.clone()).or_default().entry_version = self.ledger.version;
        self.fresh_vetoes.push((self.ledger.version, veto.clone()));
        let vetoes = &mut self.ledger.vetoes;
        if vetoes.len() >= VETOES_KEPT_MAX {
            let oldest = vetoes.iter().position(|kept| kept.acked).unwrap_or(0);
            vetoes.remove(oldest);
        }
        vetoes.push(KeptVeto { veto, acked: false });
    }

    fn acked(&mut self, module: &ModuleName, rollout: RolloutId, release: &ReleaseRef) {
        let spec = self
            .ledger
            .spec
            .as_ref()
            .and_then(|spec| spec.modules.get(module));
        let over = spec.is_some_and(|spec| spec.rollout > rollout);
        let named =
            |veto: &Veto| veto.module == *module && veto.rollout == rollout && veto.release == *release;
        let Some(place) = self
            .ledger
            .vetoes
            .iter()
            .position(|kept| !kept.acked && named(&kept.veto))
        else {
            return;
        };
        self.ledger.version += 1;
        if over {
            self.ledger.vetoes.remove(place);
        } else {
            self.ledger.vetoes[place].acked = true;
        }
    }

    fn look(&mut self, module: &ModuleName, now: CoreTime, out: &mut Vec<Action>) {
        let ledger = &mut self.ledger;
        let spec = ledger.spec.as_ref().and_then(|spec| spec.modules.get(module));
        let mut entry = ledger.modules.remove(module).unwrap_or_default();
        let slot = self.slots.entry(module.clone()).or_default();
        let look = Look {
            module,
            spec,
            entry: &mut entry,
            vetoes: &ledger.vetoes,
            version: &mut ledger.version,
            durable: self.durable,
            now,
            out,
        };
        slot.reconcile(look);
        let gone = spec.is_none() && slot.is_empty() && entry.is_empty();
        let status = (!gone).then(|| slot.status(&entry, now));
        if self.statuses.get(module) != status.as_ref() {
            self.changed.insert(module.clone());
        }
        match status {
            Some(status) => self.statuses.insert(module.clone(), status),
            None => self.statuses.remove(module),
        };
        if gone {
            self.slots.remove(module);
        }
        if !entry.is_empty() {
            ledger.modules.insert(module.clone(), entry);
        }
    }

    /// Asks for the ledger to be written when it changed and no writing is under way.
    fn flush(&mut self, out: &mut Vec<Action>) {
        if self.ledger.version > self.asked && self.asked == self.durable {
            self.asked = self.ledger.version;
            self.asked_highest = self.ledger.highest();
            out.insert(0, Action::WriteLedger(self.ledger.clone()));
        }
    }
}

fn shorten(result: Result<(), String>) -> Result<(), String> {
    result.map_err(|reason| beginning(&reason, REASON_LEN_MAX).to_owned())
}
