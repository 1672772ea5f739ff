//! Giving certificates to nodes.

use std::net::IpAddr;

use hotswap_core::ids::{EnvName, NodeId};
use hotswap_core::time::{Millis, WallTime};
use hotswap_transport::{AuthorityError, KeyId, NodeIdentity, Serial};
use uuid::Uuid;

use super::changes::Turn;
use super::model::{EnrolmentChange, JoinToken, NodeCertificate, Origin};
use super::peer::NodePeer;
use super::refusal::Refusal;
use super::{CERTIFICATES_PER_NODE_MAX, Enrolment, count, renew_in, system_time, wall_time};
use crate::access::{TokenDigest, fits};
use crate::audit::{AuditEntry, AuditKind};
use crate::clock::wall_now;
use crate::views::time::rfc3339;

/// A certificate for a node.
#[derive(Debug)]
pub struct Grant {
    /// It and its authority's, in PEM.
    pub chain: String,
    /// When it is to be renewed, from now.
    pub renew_in: Millis,
}

/// What a certificate is given for.
enum Given {
    /// A join token.
    Against(Uuid),
    /// The certificate that the connection stands on.
    Renewing(Serial),
}

struct Granted {
    serial: Serial,
    expires: WallTime,
    grant: Grant,
}

impl Enrolment {
    /// A certificate against a join token. A node that lost the answer may ask again by the same key, which counts once.
    ///
    /// # Errors
    /// Why it is not let in.
    pub async fn join(
        &self,
        token: &str,
        node: &str,
        request: &[u8],
        from: Option<IpAddr>,
    ) -> Result<Grant, Refusal> {
        let turn = self.changes.turn().await;
        let now = wall_now();
        let mut token = self.known_token(token).ok_or(Refusal::TokenUnknown)?;
        let node: NodeId = node.parse()?;
        let key = KeyId::of_request(request)?;
        if let Some(pattern) = token
            .nodes
            .clone()
            .filter(|pattern| !fits(pattern, node.as_str()))
        {
            return Err(Refusal::TokenForOthers { pattern, node });
        }
        if token.barred.contains(&node) {
            return Err(Refusal::TokenBarred { node });
        }
        let live = self.credentials.live(&node, now);
        let repeated = live.iter().any(|of| of.key == key && of.token == Some(token.id));
        if !repeated {
            if token.expires <= now {
                return Err(Refusal::TokenExpired);
            }
            if token.uses >= token.uses_max {
                let uses_max = token.uses_max;
                return Err(Refusal::TokenUsedUp { uses_max });
            }
        }
        self.is_free(&node, &token, &live, &key)?;
        let mut changes = Vec::new();
        if !repeated {
            token.uses += 1;
            changes.push(EnrolmentChange::PutToken(Box::new(token.clone())));
        }
        let said = AuditEntry::done(now, AuditKind::Node, "join");
        let said = AuditEntry {
            address: from,
            ..said
        };
        let granted = self
            .grant(
                turn,
                (node, token.environment.clone()),
                (request, key),
                Given::Against(token.id),
                (changes, said),
                now,
            )
            .await?;
        count(&self.counts.joins);
        Ok(granted.grant)
    }

    /// The token, where its secret is right.
    fn known_token(&self, text: &str) -> Option<JoinToken> {
        let given: hotswap_transport::JoinToken = text.parse().ok()?;
        let id: Uuid = given.id.parse().ok()?;
        let known = self.credentials.token(&id)?;
        (known.digest == TokenDigest::of(&given.secret)).then_some(known)
    }

    /// Whether the name may be the asker's.
    fn is_free(
        &self,
        node: &NodeId,
        token: &JoinToken,
        live: &[NodeCertificate],
        key: &KeyId,
    ) -> Result<(), Refusal> {
        let environment = self
            .world
            .state()
            .nodes
            .get(node)
            .map(|node| node.environment.clone());
        if let Some(environment) = environment.filter(|environment| *environment != token.environment) {
            return Err(Refusal::NodeElsewhere {
                node: node.clone(),
                environment,
                token: token.environment.clone(),
            });
        }
        if live.iter().any(|of| of.key != *key) {
            return Err(Refusal::NameTaken { node: node.clone() });
        }
        has_room(node, live)
    }

    /// Another certificate for a node that has one, for whatever environment it belongs to by now.
    ///
    /// # Errors
    /// It renews without end, or its request is none.
    pub async fn renew(
        &self,
        peer: &NodePeer,
        request: &[u8],
        from: Option<IpAddr>,
    ) -> Result<Grant, Refusal> {
        let turn = self.changes.turn().await;
        // Once more under the lock: a revocation may have come first.
        self.check(peer)?;
        let now = wall_now();
        let node = peer.node().clone();
        has_room(&node, &self.credentials.live(&node, now))?;
        let key = KeyId::of_request(request)?;
        let known = self
            .world
            .state()
            .nodes
            .get(&node)
            .map(|node| node.environment.clone());
        let environment = known.unwrap_or_else(|| peer.environment().clone());
        let said = AuditEntry::done(now, AuditKind::Node, "renew");
        let said = AuditEntry {
            address: from,
            ..said
        };
        let granted = self
            .grant(
                turn,
                (node, environment),
                (request, key),
                Given::Renewing(peer.serial()),
                (Vec::new(), said),
                now,
            )
            .await?;
        peer.extend(granted.serial, granted.expires);
        count(&self.counts.renewals);
        Ok(granted.grant)
    }

    /// Issues, makes it durable with what else changes, and only then gives it out.
    async fn grant(
        &self,
        turn: Turn,
        (node, environment): (NodeId, EnvName),
        (request, key): (&[u8], KeyId),
        given: Given,
        (mut changes, said): (Vec<EnrolmentChange>, AuditEntry),
        now: WallTime,
    ) -> Result<Granted, Refusal> {
        let (token, origin) = match given {
            Given::Against(token) => {
                let knowing = self.credentials.revocation(&node);
                (Some(token), Origin::Join { knowing })
            }
            Given::Renewing(former) => (None, Origin::Renewal(former)),
        };
        let who = NodeIdentity {
            node: node.to_string(),
            environment: environment.to_string(),
        };
        let issued = self
            .authority
            .issue_node(request, &who, self.lifetime, system_time(now))
            .map_err(|error| match error {
                AuthorityError::Request(invalid) => Refusal::Request(invalid),
                error => {
                    tracing::error!(%node, error = &error as &dyn std::error::Error, "no certificate could be issued");
                    Refusal::Failed("issue a certificate")
                }
            })?;
        let expires = wall_time(issued.not_after);
        let certificate = NodeCertificate {
            serial: issued.serial.clone(),
            node,
            environment,
            key,
            token,
            issued: now,
            expires,
            revoked: None,
        };
        let by = token
            .map(|token| format!(", by the join token {token}"))
            .unwrap_or_default();
        let said = said.detail(format!(
            "{} of {}: certificate {} until {}{by}",
            certificate.node,
            certificate.environment,
            certificate.serial,
            rfc3339(expires)
        ));
        let renew_in = renew_in(&certificate, now);
        changes.push(EnrolmentChange::PutCertificate(Box::new(certificate), origin));
        self.changes.make(turn, changes, vec![said]).await?;
        let chain = issued.chain_pem;
        Ok(Granted {
            serial: issued.serial,
            expires,
            grant: Grant { chain, renew_in },
        })
    }

    /// Takes note of a certificate that this log doesn't know: it was issued after the backup that was restored. Returns
    /// when it is to be renewed.
    ///
    /// # Errors
    /// The store failed.
    pub async fn seen(&self, peer: &NodePeer) -> Result<Millis, Refusal> {
        let known = |now| {
            let known = self.credentials.certificate(&peer.serial());
            known.map(|known| renew_in(&known, now))
        };
        if let Some(renew_in) = known(wall_now()) {
            return Ok(renew_in);
        }
        let turn = self.changes.turn().await;
        let now = wall_now();
        // Once more under the lock: a revocation, or another session of the node, may have come first.
        self.check(peer)?;
        if let Some(renew_in) = known(now) {
            return Ok(renew_in);
        }
        let certificate = NodeCertificate {
            serial: peer.serial(),
            node: peer.node().clone(),
            environment: peer.environment().clone(),
            key: peer.key().clone(),
            token: None,
            issued: now,
            expires: peer.valid_until(),
            revoked: None,
        };
        let renew_in = renew_in(&certificate, now);
        let said = AuditEntry::done(now, AuditKind::Node, "seeCertificate").detail(format!(
            "{}: certificate {} is of this fleet's authority and not in its records",
            certificate.node, certificate.serial
        ));
        let changes = vec![EnrolmentChange::PutCertificate(
            Box::new(certificate),
            Origin::Unrecorded,
        )];
        self.changes.make(turn, changes, vec![said]).await?;
        Ok(renew_in)
    }
}

fn has_room(node: &NodeId, live: &[NodeCertificate]) -> Result<(), Refusal> {
    if live.len() >= CERTIFICATES_PER_NODE_MAX {
        return Err(Refusal::TooMany { node: node.clone() });
    }
    Ok(())
}
