//! Logging in, staying in, and out again.

use hotswap_core::time::{Millis, WallTime};
use secrecy::{ExposeSecret as _, SecretString};
use uuid::Uuid;

use super::model::{Attempt, Session, User};
use super::secret::{TokenDigest, random_text};
use super::{Access, AccessError, Actor, Source, entry, password};
use crate::audit::{AuditEntry, AuditKind};
use crate::clock::{millis, wall_now};
use crate::store::AccessChange;

/// Sessions of one user; the one used longest ago ends for the next.
const SESSIONS_PER_USER_MAX: usize = 32;
/// A refresh token that was used may be used again for so long: its answer may have got lost.
const REFRESH_GRACE: Millis = Millis::from_secs(60);
/// What refresh tokens begin with.
const REFRESH_PREFIX: &str = "hsr_";

/// What a login brings.
#[derive(Debug)]
pub struct Issued {
    /// The access token.
    pub token: SecretString,
    /// When that expires.
    pub expires: WallTime,
    /// What brings the next one.
    pub refresh: SecretString,
    /// Who it is.
    pub user: User,
}

impl Access {
    /// Logs a user in.
    ///
    /// # Errors
    /// [`AccessError::BadCredentials`] whatever was wrong, after the same work.
    pub async fn login(
        &self,
        username: &str,
        password: SecretString,
        from: &Source,
    ) -> Result<Issued, AccessError> {
        let username = username.to_lowercase();
        let kept = self
            .people
            .read()
            .user(&username)
            .map(|user| user.password.clone());
        let right = self.passwords.check(password, kept.as_ref()).await?;
        let _change = self.changing.lock().await;
        let now = wall_now();
        let user = self.people.read().user(&username).cloned();
        let Some(mut user) = user else {
            // An unknown name may be a password in the wrong field: it is not written down.
            let failed = entry(now, AuditKind::Login, "login", None, from).outcome("unknownUser");
            self.change(Vec::new(), vec![failed]).await?;
            return Err(AccessError::BadCredentials);
        };
        // The password may have been changed while it was checked.
        let right = right && kept.as_ref() == Some(&user.password);
        let attempt = user.attempt(right, now);
        let outcome = match attempt {
            Attempt::Good => "done",
            Attempt::Wrong => "wrongPassword",
            Attempt::WrongAndLocked => "wrongPasswordLocked",
            Attempt::Locked => "locked",
            Attempt::Disabled => "disabled",
        };
        let said = entry(now, AuditKind::Login, "login", None, from)
            .by(&user.username)
            .outcome(outcome);
        let mut changes = vec![AccessChange::PutUser(Box::new(user.clone()))];
        if attempt != Attempt::Good {
            self.change(changes, vec![said]).await?;
            return Err(AccessError::BadCredentials);
        }
        let (session, refresh) = self.new_session(&user, now);
        changes.extend(self.sessions_in_the_way(&user, now).map(AccessChange::EndSession));
        let issued = self.issue(user, &session, refresh, now)?;
        changes.push(AccessChange::PutSession(session));
        self.change(changes, vec![said]).await?;
        Ok(issued)
    }

    fn new_session(&self, user: &User, now: WallTime) -> (Session, SecretString) {
        let id = Uuid::new_v4();
        let refresh = refresh_token(id);
        let session = Session {
            id,
            user: user.id,
            created: now,
            expires: now + millis(self.config.session_lifetime),
            refresh: TokenDigest::of(refresh.expose_secret()),
            former: None,
        };
        (session, refresh)
    }

    /// Those that have expired, and the one that makes room.
    fn sessions_in_the_way(&self, user: &User, now: WallTime) -> impl Iterator<Item = Uuid> + use<> {
        let people = self.people.read();
        let mut sessions: Vec<(WallTime, Uuid)> = people
            .sessions()
            .filter(|session| session.user == user.id)
            .map(|session| (session.expires, session.id))
            .collect();
        sessions.sort_unstable();
        let surplus = (sessions.len() + 1).saturating_sub(SESSIONS_PER_USER_MAX);
        let ends = move |(place, (expires, id)): (usize, (WallTime, Uuid))| {
            (expires <= now || place < surplus).then_some(id)
        };
        sessions.into_iter().enumerate().filter_map(ends)
    }

    fn issue(
        &self,
        user: User,
        session: &Session,
        refresh: SecretString,
        now: WallTime,
    ) -> Result<Issued, AccessError> {
        let expires = now + millis(self.config.access_lifetime);
        let token = self.keys.read().issue(&user.username, session.id, now, expires)?;
        Ok(Issued {
            token,
            expires,
            refresh,
            user,
        })
    }

    /// The next access token. The refresh token is used up with it; one that is used again later was stolen, or its
    /// successor was: the session ends.
    ///
    /// # Errors
    /// The token is not one, or its session has ended.
    pub async fn refresh(&self, token: &SecretString, from: &Source) -> Result<Issued, AccessError> {
        let ended = || AccessError::Unauthenticated("the session has ended; log in again".to_owned());
        let id = session_of(token.expose_secret()).ok_or_else(ended)?;
        let _change = self.changing.lock().await;
        let now = wall_now();
        let found = {
            let people = self.people.read();
            let session = people.session(id).filter(|session| now < session.expires);
            session.and_then(|session| Some((session.clone(), people.user_of(session.user)?.clone())))
        };
        let Some((mut session, user)) = found.filter(|(_, user)| !user.disabled) else {
            return Err(ended());
        };
        let digest = TokenDigest::of(token.expose_secret());
        let lately =
            |(former, used): &(TokenDigest, WallTime)| *former == digest && now < *used + REFRESH_GRACE;
        let said = entry(now, AuditKind::Login, "refresh", None, from).by(&user.username);
        if session.refresh == digest {
            session.former = Some((digest, now));
        } else if !session.former.as_ref().is_some_and(lately) {
            let reused = said
                .outcome("reused")
                .detail("a refresh token was used twice: its session has ended");
            self.change(vec![AccessChange::EndSession(id)], vec![reused])
                .await?;
            return Err(ended());
        }
        let refresh = refresh_token(id);
        session.refresh = TokenDigest::of(refresh.expose_secret());
        session.expires = now + millis(self.config.session_lifetime);
        let issued = self.issue(user, &session, refresh, now)?;
        self.change(vec![AccessChange::PutSession(session)], vec![said])
            .await?;
        Ok(issued)
    }

    /// Ends the session.
    ///
    /// # Errors
    /// An API token asks; it is revoked instead.
    pub async fn logout(&self, actor: &Actor, from: &Source) -> Result<(), AccessError> {
        let session = actor.person()?;
        let _change = self.changing.lock().await;
        let said = entry(wall_now(), AuditKind::Login, "logout", Some(actor), from);
        self.change(vec![AccessChange::EndSession(session)], vec![said])
            .await
    }

    /// The user behind an actor.
    ///
    /// # Errors
    /// It is gone.
    pub fn me(&self, actor: &Actor) -> Result<User, AccessError> {
        let people = self.people.read();
        let user = people.user_of(actor.user).cloned();
        user.ok_or_else(|| AccessError::Unauthenticated("the user is gone".to_owned()))
    }

    /// Changes one's own password; every other session of the user ends.
    ///
    /// # Errors
    /// The current one is wrong (which counts as a failed login), or the new one is not good enough.
    pub async fn change_password(
        &self,
        actor: &Actor,
        current: SecretString,
        new: SecretString,
        from: &Source,
    ) -> Result<(), AccessError> {
        let session = actor.person()?;
        let invalid = |fault: String| AccessError::Invalid(vec![format!("newPassword: {fault}")]);
        password::check_new(&new, &actor.subject).map_err(invalid)?;
        if new.expose_secret() == current.expose_secret() {
            return Err(invalid("must differ from the current one".to_owned()));
        }
        let kept = self.me(actor)?.password;
        let right = self.passwords.check(current, Some(&kept)).await?;
        let hash = self.passwords.hash(new).await?;
        let _change = self.changing.lock().await;
        let now = wall_now();
        let mut user = self.me(actor)?;
        let right = right && user.password == kept;
        let said = entry(now, AuditKind::Account, "changePassword", Some(actor), from);
        if user.attempt(right, now) != Attempt::Good {
            let changes = vec![AccessChange::PutUser(Box::new(user))];
            self.change(changes, vec![said.outcome("wrongPassword")]).await?;
            return Err(AccessError::BadCredentials);
        }
        user.password = hash;
        user.must_change = false;
        user.password_changed = now;
        let mut changes = self.end_sessions(&user, Some(session));
        changes.push(AccessChange::PutUser(Box::new(user)));
        self.change(changes, vec![said]).await
    }

    /// Ends a user's sessions, all but one.
    pub(super) fn end_sessions(&self, user: &User, but: Option<Uuid>) -> Vec<AccessChange> {
        let people = self.people.read();
        people
            .sessions()
            .filter(|session| session.user == user.id && Some(session.id) != but)
            .map(|session| AccessChange::EndSession(session.id))
            .collect()
    }

    /// An entry about something that is done now and is no command of the log. Durable when this returns.
    ///
    /// # Errors
    /// The store failed: it must not be done.
    pub async fn does(
        &self,
        actor: &Actor,
        from: &Source,
        (kind, action): (AuditKind, &str),
        detail: impl AsRef<str>,
    ) -> Result<(), AccessError> {
        let said = entry(wall_now(), kind, action, Some(actor), from).detail(detail);
        Ok(self.store.change_access(Vec::new(), vec![said]).await?)
    }

    /// An entry about a request that is not let through.
    pub fn denied(&self, actor: Option<&Actor>, from: &Source, action: &str, code: &str) {
        let said: AuditEntry = entry(wall_now(), AuditKind::Denial, action, actor, from).outcome(code);
        self.note(said);
    }
}

fn refresh_token(session: Uuid) -> SecretString {
    let random = random_text();
    format!("{REFRESH_PREFIX}{}_{}", session.simple(), random.expose_secret()).into()
}

/// The session that a refresh token names.
fn session_of(token: &str) -> Option<Uuid> {
    let (session, _) = token.strip_prefix(REFRESH_PREFIX)?.split_once('_')?;
    session.parse().ok()
}
