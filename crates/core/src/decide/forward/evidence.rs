//! What the judge is shown, and how long a step has soaked.

use super::Engine;
use crate::event::Event;
use crate::observe::{Pending, Presence};
use crate::rollout::Phase;
use crate::time::{CoreTime, Millis};

impl Engine<'_> {
    /// Evidence or soak that is due to be recorded.
    pub(super) fn evidence(&self) -> Option<Event> {
        let Phase::Forward {
            step,
            began: Some(_),
            soaked_at,
            ..
        } = self.rollout.phase
        else {
            return None;
        };
        let pending = self.obs.pending(self.rollout.plan.id);
        let interval = self.rollout.plan.policy.interval;
        // As soon as everyone's interval is there; for those whose is late, a little longer than an interval lasts.
        let patience = match pending {
            Some(pending) if self.is_complete(pending) => Millis(0),
            Some(_) => interval + Millis(interval.0 / 4),
            None => interval,
        };
        if !self.gate(step).soaks() || self.now.core.since(soaked_at) < patience {
            return None;
        }
        let (block, late) = pending.map_or((None, Vec::new()), |pending| pending.split(step));
        let folded = pending
            .map(|pending| pending.folded(self.rollout))
            .unwrap_or_default();
        let soak = self.soak_since(soaked_at);
        if pending.is_none() && soak == Millis(0) {
            return None;
        }
        Some(Event::EvidenceRecorded {
            key: self.rollout.key(),
            step,
            soak,
            block,
            late,
            folded,
        })
    }

    /// Whether every node that counts has an interval in it.
    fn is_complete(&self, pending: &Pending) -> bool {
        let mut counting = self.rollout.places_of(self.rollout.counting()).peekable();
        let has = |(_, place): (_, Option<u32>)| place.is_some_and(|place| pending.last.contains_key(&place));
        counting.peek().is_some() && counting.all(has)
    }

    /// Soak counts only time in which everyone who counts reported and did what the step wants.
    fn soak_since(&self, soaked_at: CoreTime) -> Millis {
        let mut from = soaked_at;
        let mut anyone = false;
        let counting = self.obs.seen_in_order(self.rollout.counting(), self.now.core);
        for (_, seen) in counting {
            let Presence::Known { since } = seen.presence else {
                return Millis(0);
            };
            let Some(module) = seen.module(&self.rollout.plan.module) else {
                return Millis(0);
            };
            if module.status.rollout != self.rollout.plan.id {
                return Millis(0);
            }
            from = from.max(since).max(module.content_since);
            anyone = true;
        }
        if anyone {
            self.now.core.since(from)
        } else {
            Millis(0)
        }
    }
}
