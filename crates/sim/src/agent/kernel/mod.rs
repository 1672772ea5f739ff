//! The kernel's side of a node, as `runtime::kernel` deals with it: one place for each module, who comes to it and how
//! that ends.

mod state;

use hotswap_core::ids::{Digest, ModuleName};
use hotswap_core::invariants::{Check, InPlace, node};
use hotswap_core::mutants::{Mutant, is_on};
use hotswap_core::reconcile::NodeInput;

use super::{Agent, Around, Later};
use crate::faults::Fault;
use crate::marks::Mark;
use crate::scenario::Behaviour;
pub(super) use state::Kernel;
use state::{Attempt, Turn};

/// How long a version must have been in its place until its load counts as over, in ms: no longer than a node settles,
/// as in the real one.
const STOOD_AFTER: u64 = 80;
/// Deadlines that a load which hangs is waited for: a wait and its reversal, for itself and for the former version.
const PATIENCE: u64 = 4;
/// How long a watchdog that nobody speaks to waits, in ms.
const WATCHDOG: (u64, u64) = (300, 3_000);

/// How a load goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Goes {
    /// As it should.
    Well,
    /// The transition is not over at its deadline, and is reversed; or its reversal isn't over either.
    Stalls { reverses: bool },
    /// It takes the machine down, at once or, where it hangs, by the watchdog.
    Down { hangs: bool },
}

/// How a turn ended.
#[derive(Clone, Debug)]
pub struct Engaged {
    turn: Turn,
    end: End,
}

#[derive(Clone, Debug)]
enum End {
    /// It was in its place.
    Found,
    /// It is in its place.
    Put,
    /// It was not tried.
    Refused(String),
    /// It was tried and taken back, or could not be.
    Failed { trouble: String, is_stuck: bool },
    /// Nobody waits for it any more, and the watchdog will bite.
    Hangs(String),
}

impl Agent {
    /// Who is really in a module's place, for kinds that have one. While somebody is being put there nobody asks.
    pub(super) fn in_place(&self, module: &ModuleName) -> InPlace {
        if self.kernel.entering().any(|turn| turn.module == *module) {
            return InPlace::Unknown;
        }
        match self.kernel.places.get(module).map(|place| place.active) {
            None => InPlace::Unknown,
            Some(None) => InPlace::Nobody,
            Some(Some(active)) => InPlace::Release(active),
        }
    }

    /// Whether a release does what its module is for, as far as it has to be in a place for that.
    pub(super) fn acts(&self, module: &ModuleName, release: &Digest) -> bool {
        let place = self.kernel.places.get(module);
        place.is_none_or(|place| place.active == Some(*release))
    }

    /// Whether a release is on its way to where it acts.
    pub(super) fn enters(&self, module: &ModuleName, release: &Digest) -> bool {
        self.kernel.is_entering(module, release)
    }

    /// Who is called, of a module that is loaded into the kernel, or was.
    pub(super) fn called(&self, module: &ModuleName) -> Option<Option<Digest>> {
        self.kernel.places.get(module).map(|place| place.active)
    }

    /// Whether its kernel is at work on a load.
    pub fn is_loading(&self) -> bool {
        self.kernel.turn.is_some() || !self.kernel.hung.is_empty()
    }

    /// Whether a module is loaded into its kernel, or was.
    pub fn is_in_kernel(&self, module: &ModuleName) -> bool {
        self.kernel.places.contains_key(module)
    }

    /// Whether anything was ever loaded into its kernel.
    pub fn has_places(&self) -> bool {
        !self.kernel.places.is_empty()
    }

    /// The machine goes down with all that is in its kernel.
    pub fn goes_down(&mut self) {
        self.kernel.goes_down();
    }

    /// It has stopped in order: nothing that happens from here on is a load's doing.
    pub fn stops(&mut self) {
        self.kernel.forgets_attempts(None);
    }

    /// Sends a release to its place, unless it is there. That goes on beside everything else.
    pub(super) fn engage(&mut self, module: &ModuleName, release: Digest, around: &mut Around<'_>) -> Check {
        let live = self.live.get(module);
        let Some(&load) = live.and_then(|live| live.load_of.get(&release)) else {
            return Ok(());
        };
        let is_well = live.is_none_or(|live| !live.ill.contains(&release));
        let is_at_work = self.kernel.is_at_work(module);
        let place = self.kernel.places.entry(module.clone()).or_default();
        if place.by == Some(load) && is_well && !is_at_work {
            return Ok(());
        }
        self.kernel.untold.push((module.clone(), release));
        self.kernel.waiting.push_back(Turn {
            module: module.clone(),
            release,
            load,
        });
        self.next_turn(around)
    }

    /// Tells the machine who is on the way.
    pub(super) fn tells_of_entering(&mut self, around: &mut Around<'_>) -> Check {
        for (module, digest) in std::mem::take(&mut self.kernel.untold) {
            self.input(NodeInput::Entering { module, digest }, around)?;
        }
        Ok(())
    }

    fn next_turn(&mut self, around: &mut Around<'_>) -> Check {
        // Whoever stops closes all that waits.
        while self.kernel.turn.is_none()
            && !self.stopping
            && let Some(turn) = self.kernel.waiting.pop_front()
        {
            let live = self.live.get(&turn.module);
            let is_closed = live.is_none_or(|live| live.load_of.get(&turn.release) != Some(&turn.load));
            if !is_closed {
                self.put(turn, around)?;
            }
        }
        Ok(())
    }

    /// Puts a release in its place; how that ends is heard later.
    fn put(&mut self, turn: Turn, around: &mut Around<'_>) -> Check {
        let (module, release) = (&turn.module, turn.release);
        let place = self.kernel.places.entry(module.clone()).or_default();
        let record = self.kernel.records.entry(module.clone()).or_default();
        let (lasts, end) = if self.kernel.hung.iter().any(|hung| hung.module == *module) {
            // It waits for who hangs there, until the watchdog bites.
            self.kernel.turn = Some(turn);
            return Ok(());
        } else if place.active == Some(release) {
            (1, End::Found)
        } else if let Some(refusal) = record.refuses(&release) {
            around.marks.hit(Mark::LoadRefused);
            (1, End::Refused(refusal))
        } else if place.stuck.contains(&release) {
            (1, End::Refused("it is loaded already".to_owned()))
        } else {
            node::a10_not_again(&self.id, module, &release, &self.kernel.went_down)?;
            self.kernel.newest += 1;
            record.attempt = Some(Attempt {
                release,
                number: self.kernel.newest,
                is_loaded: false,
            });
            match self.begins(module, &release, around) {
                Some(how) => how,
                None => {
                    around.later.push((1, Later::GoesDown));
                    self.kernel.turn = Some(turn);
                    return Ok(());
                }
            }
        };
        self.kernel.turn = Some(turn.clone());
        around.later.push((lasts, Later::Engaged(Engaged { turn, end })));
        Ok(())
    }

    /// How long a load takes and how it ends; `None`: with the machine.
    fn begins(&self, module: &ModuleName, release: &Digest, around: &mut Around<'_>) -> Option<(u64, End)> {
        let deadline = around.machines.range(300, 3_000);
        match self.goes(module, release, around) {
            Goes::Well => Some((around.machines.range(1, 15), End::Put)),
            Goes::Stalls { reverses } => {
                let (mark, lasts, how) = if reverses {
                    let lasts = deadline + around.machines.range(1, deadline);
                    (Mark::StallReversed, lasts, "it was reversed")
                } else {
                    (Mark::StallStuck, 3 * deadline, "its reversal stalls too")
                };
                around.marks.hit(mark);
                let end = End::Failed {
                    trouble: format!("its transition was not over after {deadline} ms; {how}"),
                    is_stuck: !reverses,
                };
                Some((lasts, end))
            }
            Goes::Down { hangs: false } => None,
            Goes::Down { hangs: true } => {
                around.marks.hit(Mark::WatchdogRebooted);
                let patience = PATIENCE * deadline;
                let bites = patience + around.machines.range(WATCHDOG.0, WATCHDOG.1);
                around.later.push((bites, Later::GoesDown));
                let trouble = format!("the kernel has been loading for more than {patience} ms");
                Some((patience, End::Hangs(trouble)))
            }
        }
    }

    /// Only who is on trial does harm here: a node whose way back stalls is ill until somebody starts it again.
    fn goes(&self, module: &ModuleName, release: &Digest, around: &mut Around<'_>) -> Goes {
        let ledger = self.machine.as_ref().map(|machine| machine.ledger());
        let entry = ledger.and_then(|ledger| ledger.modules.get(module));
        let trial = entry.and_then(|entry| entry.trial.as_ref());
        let has_stood = self.kernel.stood.contains(release);
        if !around.wild || has_stood || trial.is_none_or(|trial| trial.release.id() != *release) {
            return Goes::Well;
        }
        let faults = around.scenario.faults;
        match around.behaviour(release) {
            Behaviour::Stalls { one_in, reverses } if around.hit(release, one_in) => {
                Goes::Stalls { reverses }
            }
            Behaviour::TakesDown { one_in, hangs } if around.hit(release, one_in) => Goes::Down { hangs },
            _ if faults.has(Fault::Stall) && around.machines.chance(80) => {
                around.injected.count(Fault::Stall);
                Goes::Stalls {
                    reverses: around.machines.chance(700),
                }
            }
            _ if faults.has(Fault::LoadReboot) && around.machines.chance(80) => {
                around.injected.count(Fault::LoadReboot);
                Goes::Down {
                    hangs: around.machines.chance(300),
                }
            }
            _ => Goes::Well,
        }
    }

    /// A turn is over.
    ///
    /// # Errors
    /// An invariant that doesn't hold.
    pub(super) fn engaged(&mut self, engaged: Engaged, around: &mut Around<'_>) -> Check {
        let Engaged { turn, end } = engaged;
        let Turn {
            module,
            release,
            load,
        } = turn.clone();
        self.kernel.turn = None;
        let mut displaced = None;
        let place = self.kernel.places.entry(module.clone()).or_default();
        let record = self.kernel.records.entry(module.clone()).or_default();
        let result = match end {
            End::Found => {
                place.by = Some(load);
                around.marks.hit(Mark::FoundInPlace);
                Ok(())
            }
            End::Put => {
                displaced = place.active.filter(|former| *former != release);
                (place.active, place.by) = (Some(release), Some(load));
                if let Some(attempt) = &mut record.attempt {
                    attempt.is_loaded = true;
                }
                Ok(())
            }
            End::Refused(trouble) => Err(trouble),
            // Whoever was there before is there again.
            End::Failed { trouble, is_stuck } => {
                record.attempt = None;
                if is_stuck {
                    place.stuck.insert(release);
                }
                Err(trouble)
            }
            End::Hangs(trouble) => {
                self.kernel.hung.push(turn);
                Err(trouble)
            }
        };
        if result.is_ok() {
            // Whoever watched it may be gone.
            around
                .later
                .push((STOOD_AFTER, Later::Stood(module.clone(), release)));
        }
        if !self.kernel.is_at_work(&module) {
            let place = self.kernel.places.entry(module.clone()).or_default();
            for (release, load) in std::mem::take(&mut place.dismissed) {
                self.kernel.dismisses(&module, release, load);
            }
        }
        // Whatever was wrong with who was there before was so in that place.
        if let Some(former) = displaced
            && let Some(live) = self.live.get_mut(&module)
            && live.ill.remove(&former)
        {
            let health = NodeInput::Health {
                module: module.clone(),
                digest: former,
                result: Ok(()),
            };
            self.input(health, around)?;
        }
        self.entered(module, release, result, around)?;
        self.next_turn(around)
    }

    fn entered(
        &mut self,
        module: ModuleName,
        release: Digest,
        result: Result<(), String>,
        around: &mut Around<'_>,
    ) -> Check {
        let Some(live) = self.live.get_mut(&module) else {
            return Ok(());
        };
        if !live.loaded.contains(&release) {
            return Ok(());
        }
        let result = result.or_else(|trouble| {
            if is_on(Mutant::StallHealthy) {
                Ok(())
            } else {
                Err(trouble)
            }
        });
        if result.is_ok() {
            live.ill.remove(&release);
        } else {
            live.ill.insert(release);
        }
        let health = NodeInput::Health {
            module,
            digest: release,
            result,
        };
        self.input(health, around)
    }
}
