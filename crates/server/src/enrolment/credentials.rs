//! Join tokens and nodes' certificates in memory: nobody is let in by a query.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use arc_swap::ArcSwap;
use hotswap_core::ids::NodeId;
use hotswap_core::time::WallTime;
use hotswap_transport::Serial;
use parking_lot::RwLock;
use tokio::sync::watch;
use uuid::Uuid;

use super::model::{EnrolmentChange, EnrolmentRecords, JoinToken, NodeCertificate, Origin};
use super::refusal::Refusal;

/// What is known of join tokens, certificates and revocations.
#[derive(Debug)]
pub struct Credentials {
    known: RwLock<Known>,
    /// For handshakes: the serials that are refused.
    revoked: Arc<ArcSwap<BTreeSet<Serial>>>,
    /// How often something was revoked: open sessions look again.
    revocations: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Known {
    tokens: HashMap<Uuid, JoinToken>,
    certificates: HashMap<Serial, NodeCertificate>,
    by_node: BTreeMap<NodeId, BTreeSet<Serial>>,
    revocations: BTreeMap<NodeId, WallTime>,
}

impl Credentials {
    /// Of what is kept.
    pub fn new(records: EnrolmentRecords) -> Self {
        let mut known = Known::default();
        for token in records.tokens {
            known.tokens.insert(token.id, token);
        }
        known.revocations.extend(records.revocations);
        for certificate in records.certificates {
            known.keep(certificate);
        }
        let revoked = Arc::new(ArcSwap::from_pointee(known.revoked_serials()));
        Self {
            known: RwLock::new(known),
            revoked,
            revocations: watch::Sender::new(0),
        }
    }

    /// The serials that handshakes refuse.
    pub(super) fn revoked(&self) -> Arc<ArcSwap<BTreeSet<Serial>>> {
        Arc::clone(&self.revoked)
    }

    /// Wakes whoever looks after an open session each time something is revoked.
    pub(super) fn watch(&self) -> watch::Receiver<u64> {
        self.revocations.subscribe()
    }

    /// All of a node's certificates are refused from now on. Durable already.
    pub fn revoke(&self, node: &NodeId, at: WallTime) {
        self.apply([EnrolmentChange::Revoke(node.clone(), at)]);
    }

    /// Takes up what is durable.
    pub fn apply(&self, changes: impl IntoIterator<Item = EnrolmentChange>) {
        let mut known = self.known.write();
        let mut look_again = false;
        for change in changes {
            // What comes may be revoked already.
            look_again |= !matches!(
                change,
                EnrolmentChange::PutToken(_) | EnrolmentChange::EndToken(_) | EnrolmentChange::PutAnswer(_)
            );
            known.apply(change);
        }
        if look_again {
            self.revoked.store(Arc::new(known.revoked_serials()));
            drop(known);
            self.revocations.send_modify(|count| *count += 1);
        }
    }

    /// Whether a certificate that the handshake took is still taken.
    ///
    /// # Errors
    /// It was revoked: by its number, or, where this log doesn't know it, by its node's name.
    pub(super) fn stands(&self, node: &NodeId, serial: &Serial) -> Result<(), Refusal> {
        let known = self.known.read();
        let revoked = match known.certificates.get(serial) {
            Some(certificate) => certificate.revoked.is_some(),
            None => known.revocations.contains_key(node),
        };
        if revoked { Err(Refusal::Revoked) } else { Ok(()) }
    }

    pub(super) fn token(&self, id: &Uuid) -> Option<JoinToken> {
        self.known.read().tokens.get(id).cloned()
    }

    pub(super) fn tokens(&self) -> Vec<JoinToken> {
        self.known.read().tokens.values().cloned().collect()
    }

    pub(super) fn certificate(&self, serial: &Serial) -> Option<NodeCertificate> {
        self.known.read().certificates.get(serial).cloned()
    }

    /// When the newest certificate of all was issued.
    pub(super) fn newest_issued(&self) -> Option<WallTime> {
        let known = self.known.read();
        known
            .certificates
            .values()
            .map(|certificate| certificate.issued)
            .max()
    }

    /// When a node's certificates were last revoked.
    pub(super) fn revocation(&self, node: &NodeId) -> Option<WallTime> {
        self.known.read().revocations.get(node).copied()
    }

    /// A node's certificates that hold, the newest last.
    pub fn live(&self, node: &NodeId, now: WallTime) -> Vec<NodeCertificate> {
        let known = self.known.read();
        let mut live: Vec<_> = known.of(node).filter(|of| of.is_live(now)).cloned().collect();
        live.sort_by_key(|certificate| (certificate.expires, certificate.issued));
        live
    }

    /// A node's certificate that holds longest, or else the one that was revoked or has expired last.
    pub fn newest(&self, node: &NodeId) -> Option<NodeCertificate> {
        let known = self.known.read();
        let newest = known
            .of(node)
            .max_by_key(|of| (of.revoked.is_none(), of.expires, of.issued));
        newest.cloned()
    }

    /// When the first of the nodes has no certificate any more, unless it is renewed; and how many nodes have one.
    pub fn nearest_expiry(&self, now: WallTime) -> (Option<WallTime>, usize) {
        let known = self.known.read();
        let newest = known.by_node.values().filter_map(|serials| {
            let of = serials.iter().filter_map(|serial| known.certificates.get(serial));
            of.filter(|of| of.is_live(now)).map(|of| of.expires).max()
        });
        newest.fold(
            (None, 0),
            |(nearest, count): (Option<WallTime>, usize), expires| {
                (
                    Some(nearest.map_or(expires, |nearest| nearest.min(expires))),
                    count + 1,
                )
            },
        )
    }
}

impl Known {
    fn of(&self, node: &NodeId) -> impl Iterator<Item = &NodeCertificate> {
        let serials = self.by_node.get(node).into_iter().flatten();
        serials.filter_map(|serial| self.certificates.get(serial))
    }

    /// A removal, which takes no turns with other changes, may have come here first. The store looks by the same rules.
    fn put(&mut self, mut certificate: NodeCertificate, origin: &Origin) {
        let revoked = self.revocations.get(&certificate.node).copied();
        let since = match origin {
            Origin::Join { knowing } => revoked.filter(|at| Some(*at) != *knowing),
            Origin::Renewal(of) => match self.certificates.get(of) {
                Some(of) => of.revoked,
                None => revoked,
            },
            Origin::Unrecorded => revoked,
        };
        certificate.revoked = certificate.revoked.or(since);
        self.keep(certificate);
    }

    fn keep(&mut self, certificate: NodeCertificate) {
        self.by_node
            .entry(certificate.node.clone())
            .or_default()
            .insert(certificate.serial.clone());
        self.certificates.insert(certificate.serial.clone(), certificate);
    }

    fn apply(&mut self, change: EnrolmentChange) {
        match change {
            EnrolmentChange::PutToken(token) => drop(self.tokens.insert(token.id, *token)),
            EnrolmentChange::EndToken(id) => drop(self.tokens.remove(&id)),
            EnrolmentChange::PutCertificate(certificate, origin) => self.put(*certificate, &origin),
            EnrolmentChange::Revoke(node, at) => {
                for serial in self.by_node.get(&node).into_iter().flatten() {
                    if let Some(certificate) = self.certificates.get_mut(serial) {
                        certificate.revoked.get_or_insert(at);
                    }
                }
                let newest = self.revocations.entry(node).or_insert(at);
                *newest = at.max(*newest);
            }
            EnrolmentChange::Forget(expired, revoked) => {
                self.certificates.retain(|_, of| of.expires >= expired);
                let certificates = &self.certificates;
                self.by_node.retain(|_, serials| {
                    serials.retain(|serial| certificates.contains_key(serial));
                    !serials.is_empty()
                });
                self.revocations.retain(|_, at| *at >= revoked);
            }
            EnrolmentChange::PutAnswer(_) => {}
        }
    }

    fn revoked_serials(&self) -> BTreeSet<Serial> {
        let revoked = self.certificates.values().filter(|of| of.revoked.is_some());
        revoked.map(|of| of.serial.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use hotswap_core::time::Millis;
    use hotswap_transport::KeyId;

    use super::*;
    use crate::store::{EnrolmentStore as _, SqliteStore};

    const NOW: WallTime = WallTime(1_000_000);

    fn node() -> NodeId {
        "node-1".parse().unwrap()
    }

    fn joined(serial: &str, knowing: Option<WallTime>) -> EnrolmentChange {
        let certificate = NodeCertificate {
            serial: serial.parse().unwrap(),
            node: node(),
            environment: "QA".parse().unwrap(),
            key: KeyId::known("a key"),
            token: None,
            issued: NOW,
            expires: NOW + Millis(60_000),
            revoked: None,
        };
        EnrolmentChange::PutCertificate(Box::new(certificate), Origin::Join { knowing })
    }

    /// Which certificates stand after these changes: in memory, and after another start.
    async fn standing(changes: Vec<EnrolmentChange>) -> [Vec<String>; 2] {
        let dir = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(dir.path()).unwrap();
        let first = Credentials::new(EnrolmentRecords::default());
        store.change_enrolment(changes.clone(), Vec::new()).await.unwrap();
        first.apply(changes);
        let again = Credentials::new(store.load_enrolment().await.unwrap());
        [first, again].map(|credentials| {
            let live = credentials.live(&node(), NOW);
            let mut live: Vec<_> = live.iter().map(|of| of.serial.to_string()).collect();
            live.sort();
            live
        })
    }

    #[tokio::test]
    async fn a_clock_that_was_ahead_at_a_revocation_revokes_nothing_that_comes_after_it() {
        let ahead = NOW + Millis(600_000);
        let changes = vec![
            joined("01", None),
            EnrolmentChange::Revoke(node(), ahead),
            joined("02", Some(ahead)),
        ];
        assert_eq!(standing(changes).await, [["02"], ["02"]]);
    }

    #[tokio::test]
    async fn a_revocation_that_overtakes_a_join_revokes_it_whatever_the_clock_said() {
        for at in [NOW, WallTime(NOW.0 - 600_000), NOW + Millis(600_000)] {
            let changes = vec![EnrolmentChange::Revoke(node(), at), joined("01", None)];
            assert_eq!(standing(changes).await, [[""; 0], [""; 0]], "{at:?}");
        }
    }
}
