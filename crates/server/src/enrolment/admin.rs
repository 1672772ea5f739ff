//! Managing join tokens, and revoking nodes.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::time::Duration;

use hotswap_core::ids::{EnvName, NodeId};
use hotswap_transport::AuthorityPin;
use secrecy::{ExposeSecret as _, SecretString};
use uuid::Uuid;

use super::Enrolment;
use super::model::{EnrolmentChange, JoinToken, NodeCertificate};
use crate::access::{AccessError, Actor, Once, Source, TokenDigest, entry, random_text};
use crate::audit::AuditKind;
use crate::clock::{millis, wall_now};

/// Most join tokens at once, expired ones included until they are forgotten.
pub const JOIN_TOKENS_MAX: usize = 1_000;
/// Most nodes that one token may let in.
pub const JOIN_TOKEN_USES_MAX: u32 = 10_000;
/// How long a join token lasts unless the request says otherwise.
pub const JOIN_TOKEN_LIFETIME_DEFAULT: Duration = Duration::from_secs(3_600);
/// How long it may last.
pub const JOIN_TOKEN_LIFETIME_MAX: Duration = Duration::from_secs(30 * 86_400);
/// Longest pattern of nodes' names, in characters.
const PATTERN_LEN_MAX: usize = 253;

/// A join token to be made.
#[derive(Clone, Debug)]
pub struct NewJoinToken {
    /// Where its nodes belong.
    pub environment: EnvName,
    /// Only nodes of such a name; a `*` stands for any characters.
    pub nodes: Option<String>,
    /// How many nodes may join by it.
    pub uses_max: u32,
    /// How long it lasts.
    pub lifetime: Duration,
}

/// A join token that was made: the only time that it is told.
#[derive(Debug)]
pub struct IssuedJoinToken {
    /// The token.
    pub token: SecretString,
    /// What is kept of it.
    pub record: JoinToken,
}

/// A pattern of nodes' names, or what is wrong with it.
///
/// # Errors
/// A character that no node's name has.
pub fn check_pattern(pattern: &str) -> Result<(), String> {
    let known = |b: u8| b.is_ascii_alphanumeric() || b".-_*".contains(&b);
    if (1..=PATTERN_LEN_MAX).contains(&pattern.len()) && pattern.bytes().all(known) {
        Ok(())
    } else {
        Err(format!(
            "must be 1 to {PATTERN_LEN_MAX} of letters, digits, '.', -, _ and *, such as web-*"
        ))
    }
}

impl Enrolment {
    /// Join tokens, newest first.
    pub fn tokens(&self) -> Vec<JoinToken> {
        let mut tokens = self.credentials.tokens();
        tokens.sort_by_key(|token| std::cmp::Reverse((token.created, token.id)));
        tokens
    }

    /// Makes a join token.
    ///
    /// # Errors
    /// There are too many.
    pub async fn create_token(
        &self,
        actor: &Actor,
        new: NewJoinToken,
        from: &Source,
        once: Option<Once<JoinToken>>,
    ) -> Result<IssuedJoinToken, AccessError> {
        let turn = self.changes.turn().await;
        if self.credentials.tokens().len() >= JOIN_TOKENS_MAX {
            return Err(AccessError::Conflict(format!(
                "there are {JOIN_TOKENS_MAX} join tokens, the most there may be; revoke some"
            )));
        }
        let now = wall_now();
        let secret = random_text();
        let record = JoinToken {
            id: Uuid::new_v4(),
            digest: TokenDigest::of(secret.expose_secret()),
            environment: new.environment,
            nodes: new.nodes,
            barred: BTreeSet::new(),
            uses_max: new.uses_max,
            uses: 0,
            by: actor.subject.clone(),
            created: now,
            expires: now + millis(new.lifetime),
        };
        let token = hotswap_transport::JoinToken {
            id: record.id.simple().to_string(),
            secret: secret.expose_secret().to_owned().into(),
            authority: AuthorityPin::of(self.authority.certificate()),
        };
        let said = entry(now, AuditKind::Token, "createJoinToken", Some(actor), from).detail(format!(
            "{} for {}, nodes {}, {} uses",
            record.id,
            record.environment,
            record.nodes.as_deref().unwrap_or("*"),
            record.uses_max
        ));
        let mut changes = vec![EnrolmentChange::PutToken(Box::new(record.clone()))];
        changes.extend(once.map(|once| EnrolmentChange::PutAnswer(once(&record))));
        self.changes.make(turn, changes, vec![said]).await?;
        let token = token.text().as_str().into();
        Ok(IssuedJoinToken { token, record })
    }

    /// Revokes a join token. Nodes that joined by it stay.
    ///
    /// # Errors
    /// There is none.
    pub async fn revoke_token(&self, actor: &Actor, id: Uuid, from: &Source) -> Result<(), AccessError> {
        let turn = self.changes.turn().await;
        let token = self.credentials.token(&id);
        let token = token.ok_or_else(|| AccessError::NotFound(format!("there is no join token {id}")))?;
        let said = entry(wall_now(), AuditKind::Token, "revokeJoinToken", Some(actor), from).detail(format!(
            "{id} for {}, used {} times",
            token.environment, token.uses
        ));
        self.changes
            .make(turn, vec![EnrolmentChange::EndToken(id)], vec![said])
            .await?;
        Ok(())
    }

    /// Revokes every certificate of a node: its sessions end at once, and it is let in by none of them again, nor by a
    /// join token that there is. Returns those that held until now.
    ///
    /// # Errors
    /// There is no such node, and no certificate of it.
    pub async fn revoke_node(
        &self,
        actor: &Actor,
        node: &NodeId,
        from: &Source,
        once: Option<Once<Vec<NodeCertificate>>>,
    ) -> Result<Vec<NodeCertificate>, AccessError> {
        let turn = self.changes.turn().await;
        let now = wall_now();
        let known = self.world.state().nodes.contains_key(node);
        if !known && self.credentials.newest(node).is_none() {
            return Err(AccessError::NotFound(format!(
                "node {node} is unknown, and no certificate was issued for it"
            )));
        }
        let held = self.credentials.live(node, now);
        let serials: Vec<String> = held.iter().map(|of| of.serial.to_string()).collect();
        let said = entry(now, AuditKind::Node, "revoke", Some(actor), from)
            .detail(format!("{node}: certificates {}", serials.join(", ")));
        let mut changes = vec![EnrolmentChange::Revoke(node.clone(), now)];
        changes.extend(self.barring(node));
        changes.extend(once.map(|once| EnrolmentChange::PutAnswer(once(&held))));
        self.changes.make(turn, changes, vec![said]).await?;
        self.counts.revocations.fetch_add(1, Ordering::Relaxed);
        tracing::warn!(%node, by = actor.subject, "a node's certificates are revoked");
        Ok(held)
    }

    /// Every join token, told to let a node in no more: a copy of one may be on it. By which tokens there are and not by
    /// their times, which a clock may have got wrong.
    fn barring(&self, node: &NodeId) -> Vec<EnrolmentChange> {
        let mut tokens = self.credentials.tokens();
        tokens.retain_mut(|token| token.barred.insert(node.clone()));
        let put = |token| EnrolmentChange::PutToken(Box::new(token));
        tokens.into_iter().map(put).collect()
    }
}
