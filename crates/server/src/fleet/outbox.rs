//! What waits to be sent to one node. It can't grow: the latest spec wins, and acknowledgements merge.

use std::collections::{BTreeMap, BTreeSet};

use hotswap_core::ids::{ModuleName, RolloutId};
use hotswap_core::spec::NodeSpec;
use hotswap_wire::{Ack, AckedInterval, AckedVeto, ServerMessage};
use parking_lot::Mutex;
use tokio::sync::Notify;

/// Acknowledged vetoes and intervals that wait, of each; a node that reads nothing loses older ones and asks again.
const ACKED_WAITING_MAX: usize = 1_024;

/// What waits to be sent to one node.
#[derive(Default)]
pub struct Outbox {
    waiting: Mutex<Waiting>,
    changed: Notify,
}

#[derive(Default)]
struct Waiting {
    spec: Option<NodeSpec>,
    seq: Option<u64>,
    vetoes: BTreeSet<AckedVeto>,
    intervals: BTreeMap<(ModuleName, RolloutId), u32>,
    closed: Option<&'static str>,
}

impl Outbox {
    /// A newer spec takes the place of one that was not sent yet.
    pub fn spec(&self, spec: NodeSpec) {
        self.change(|waiting| waiting.spec = Some(spec));
    }

    /// Acknowledges, together with what was not sent yet.
    pub fn ack(&self, ack: Ack) {
        self.change(|waiting| {
            waiting.seq = waiting.seq.max(Some(ack.seq));
            waiting.vetoes.extend(ack.vetoes);
            for AckedInterval {
                module,
                rollout,
                number,
            } in ack.intervals
            {
                let last = waiting.intervals.entry((module, rollout)).or_default();
                *last = (*last).max(number);
            }
            while waiting.vetoes.len() > ACKED_WAITING_MAX {
                waiting.vetoes.pop_first();
            }
            while waiting.intervals.len() > ACKED_WAITING_MAX {
                waiting.intervals.pop_first();
            }
        });
    }

    /// Ends the session, for a reason that the node is told: the first one.
    pub fn close(&self, why: &'static str) {
        self.change(|waiting| {
            waiting.closed.get_or_insert(why);
        });
    }

    fn change(&self, change: impl FnOnce(&mut Waiting)) {
        change(&mut self.waiting.lock());
        self.changed.notify_waiters();
    }

    /// The next message, once there is one.
    ///
    /// # Errors
    /// The session is to end, with the reason.
    pub async fn next(&self) -> Result<ServerMessage, &'static str> {
        loop {
            let changed = self.changed.notified();
            if let Some(next) = self.waiting.lock().take() {
                return next;
            }
            changed.await;
        }
    }

    /// Returns once the session is to end.
    pub async fn closed(&self) {
        loop {
            let changed = self.changed.notified();
            if self.waiting.lock().closed.is_some() {
                return;
            }
            changed.await;
        }
    }
}

impl Waiting {
    fn take(&mut self) -> Option<Result<ServerMessage, &'static str>> {
        if let Some(why) = self.closed {
            return Some(Err(why));
        }
        if let Some(spec) = self.spec.take() {
            return Some(Ok(ServerMessage::Spec(spec)));
        }
        let seq = self.seq.take()?;
        let vetoes = std::mem::take(&mut self.vetoes).into_iter().collect();
        let intervals = std::mem::take(&mut self.intervals)
            .into_iter()
            .map(|((module, rollout), number)| AckedInterval {
                module,
                rollout,
                number,
            })
            .collect();
        Some(Ok(ServerMessage::Ack(Ack {
            seq,
            vetoes,
            intervals,
        })))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ack(seq: u64, number: u32) -> Ack {
        let interval = AckedInterval {
            module: "pay".parse().unwrap(),
            rollout: RolloutId(1),
            number,
        };
        Ack {
            seq,
            vetoes: Vec::new(),
            intervals: vec![interval],
        }
    }

    #[tokio::test]
    async fn acknowledgements_merge_and_a_close_comes_first() {
        let outbox = Outbox::default();
        outbox.ack(ack(1, 3));
        outbox.ack(ack(2, 2));
        assert_eq!(outbox.next().await, Ok(ServerMessage::Ack(ack(2, 3))));
        outbox.ack(ack(3, 4));
        outbox.close("enough");
        outbox.close("and again");
        assert_eq!(outbox.next().await, Err("enough"));
        outbox.closed().await;
    }
}
