//! How often somebody may call: so many requests of a group in a minute, each user for itself, and whoever has no
//! token by address.
//!
//! A window begins with the first request and lasts a minute. Each request counts for everything, and for its own
//! group where it has one; the headers tell of whichever has less left.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::http::{HeaderName, HeaderValue, Method, StatusCode, header};
use axum::response::Response;
use parking_lot::{Mutex, RwLock};

use super::ApiError;
use crate::places::network;

/// How long a window lasts.
const WINDOW: Duration = Duration::from_secs(60);
/// Windows at once. Where more begin, those that have ended go first, then all: a flood of addresses fills no memory.
const WINDOWS_MAX: usize = 100_000;

const LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit");
const REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
const RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");

/// How many requests somebody may send in a minute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimits {
    /// Of any kind.
    pub all: u32,
    /// Deployments created, paused, resumed, skipped or promoted. Aborts and rollbacks are never counted here.
    pub deployments: u32,
    /// Reads of environments.
    pub clusters: u32,
    /// Of approvals.
    pub approvals: u32,
    /// Logins, by address.
    pub login: u32,
    /// Whether requests from this machine itself are not counted.
    pub loopback_is_free: bool,
}

impl Default for RateLimits {
    fn default() -> Self {
        Self {
            all: 1_000,
            deployments: 10,
            clusters: 60,
            approvals: 30,
            login: 5,
            loopback_is_free: false,
        }
    }
}

/// What a request counts for, besides everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Group {
    All,
    Deployments,
    Clusters,
    Approvals,
    Login,
}

impl Group {
    /// By the route, as the router writes it.
    pub(super) fn of(method: &Method, path: Option<&str>) -> Self {
        let Some(path) = path.and_then(|path| path.strip_prefix(super::BASE)) else {
            return Self::All;
        };
        let written = !matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS);
        match path.split('/').nth(1) {
            // What stops or undoes is always let through.
            Some("deployments") if written && !path.ends_with("/abort") && !path.ends_with("/rollback") => {
                Self::Deployments
            }
            Some("clusters") => Self::Clusters,
            Some("approvals") => Self::Approvals,
            Some("authentication") if path.ends_with("/login") => Self::Login,
            _ => Self::All,
        }
    }

    fn limit(self, limits: &RateLimits) -> u32 {
        match self {
            Self::All => limits.all,
            Self::Deployments => limits.deployments,
            Self::Clusters => limits.clusters,
            Self::Approvals => limits.approvals,
            Self::Login => limits.login,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::All => "requests",
            Self::Deployments => "changes of deployments",
            Self::Clusters => "reads of clusters",
            Self::Approvals => "requests about approvals",
            Self::Login => "logins",
        }
    }
}

/// Whose requests are counted together.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Who {
    User(String),
    Address(Option<IpAddr>),
}

#[derive(Clone, Copy, Debug)]
struct Window {
    began: Instant,
    used: u32,
}

/// Counts.
#[derive(Debug)]
pub(super) struct Limiter {
    limits: Arc<RwLock<RateLimits>>,
    windows: Mutex<HashMap<(Group, Who), Window>>,
}

/// What a request's count came to.
#[derive(Debug)]
pub(super) struct Count {
    limit: u32,
    remaining: u32,
    /// In s from now.
    reset_s: u64,
    pub(super) refused: Option<Refused>,
}

/// One request too many.
#[derive(Clone, Copy, Debug)]
pub(super) struct Refused {
    group: Group,
    limit: u32,
    reset_s: u64,
    /// Whether it is the first one in its window.
    pub(super) first: bool,
}

impl Refused {
    pub(super) fn error(&self) -> ApiError {
        let error = format!(
            "more than {} {} in a minute; try again in {} s",
            self.limit,
            self.group.name(),
            self.reset_s
        );
        ApiError::new(StatusCode::TOO_MANY_REQUESTS, "rate_limited", error).retry_after(self.reset_s)
    }
}

impl Limiter {
    /// By limits that may change while it counts.
    pub(super) fn new(limits: Arc<RwLock<RateLimits>>) -> Self {
        Self {
            limits,
            windows: Mutex::default(),
        }
    }

    /// Counts a request of a user, or of an address.
    pub(super) fn count(&self, group: Group, user: Option<&str>, address: Option<IpAddr>) -> Count {
        self.count_at(Instant::now(), group, user, address)
    }

    fn count_at(&self, now: Instant, group: Group, user: Option<&str>, address: Option<IpAddr>) -> Count {
        let limits = *self.limits.read();
        let address = address.map(|address| address.to_canonical());
        if limits.loopback_is_free && address.is_some_and(|address| address.is_loopback()) {
            let limit = group.limit(&limits);
            return Count {
                limit,
                remaining: limit,
                reset_s: WINDOW.as_secs(),
                refused: None,
            };
        }
        let who = user.map_or(Who::Address(address.map(network)), |user| {
            Who::User(user.to_owned())
        });
        let mut windows = self.windows.lock();
        make_room(&mut windows, now);
        let all = take(&mut windows, (Group::All, who.clone()), limits.all, now);
        if group == Group::All || all.refused.is_some() {
            return all;
        }
        let own = take(&mut windows, (group, who), group.limit(&limits), now);
        if own.refused.is_some() || own.remaining <= all.remaining {
            own
        } else {
            all
        }
    }
}

fn make_room(windows: &mut HashMap<(Group, Who), Window>, now: Instant) {
    if windows.len() < WINDOWS_MAX {
        return;
    }
    windows.retain(|_, window| now.duration_since(window.began) < WINDOW);
    if windows.len() >= WINDOWS_MAX {
        windows.clear();
    }
}

fn take(windows: &mut HashMap<(Group, Who), Window>, key: (Group, Who), limit: u32, now: Instant) -> Count {
    let group = key.0;
    let fresh = Window { began: now, used: 0 };
    let window = windows.entry(key).or_insert(fresh);
    if now.duration_since(window.began) >= WINDOW {
        *window = fresh;
    }
    let left = WINDOW.saturating_sub(now.duration_since(window.began));
    let reset_s = left.as_secs() + u64::from(left.subsec_nanos() > 0);
    let over = window.used >= limit;
    let first = window.used == limit;
    window.used = window.used.saturating_add(1);
    Count {
        limit,
        remaining: limit.saturating_sub(window.used),
        reset_s,
        refused: over.then_some(Refused {
            group,
            limit,
            reset_s,
            first,
        }),
    }
}

impl Count {
    /// Tells it in the answer's headers. `X-RateLimit-Reset` is in seconds since 1970.
    pub(super) fn tell(&self, response: &mut Response) {
        let headers = response.headers_mut();
        let reset = crate::clock::wall_now().0.div_ceil(1_000) + self.reset_s;
        headers.insert(LIMIT, self.limit.into());
        headers.insert(REMAINING, self.remaining.into());
        headers.insert(RESET, reset.into());
        if self.refused.is_some() {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(self.reset_s));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: Option<IpAddr> = Some(IpAddr::V4(std::net::Ipv4Addr::LOCALHOST));

    fn limiter(limits: RateLimits) -> Limiter {
        Limiter::new(Arc::new(RwLock::new(limits)))
    }

    #[test]
    fn so_many_and_no_more_until_the_minute_is_over() {
        let (limiter, start) = (limiter(RateLimits::default()), Instant::now());
        let create = |at: u64| {
            limiter.count_at(
                start + Duration::from_secs(at),
                Group::Deployments,
                Some("ada"),
                HERE,
            )
        };
        for used in 1..=10 {
            let count = create(used);
            assert!(count.refused.is_none());
            assert_eq!(
                (count.limit, count.remaining),
                (10, 10 - u32::try_from(used).unwrap())
            );
        }
        let over = create(30);
        let refused = over.refused.unwrap();
        assert_eq!(
            (over.remaining, over.reset_s, refused.first),
            (0, 31, true),
            "the window began at 1 s"
        );
        assert!(!create(59).refused.unwrap().first);
        assert!(create(61).refused.is_none());
    }

    #[test]
    fn each_user_and_each_address_counts_for_itself() {
        let (limiter, now) = (
            limiter(RateLimits {
                login: 1,
                ..RateLimits::default()
            }),
            Instant::now(),
        );
        let login = |address: &str| limiter.count_at(now, Group::Login, None, Some(address.parse().unwrap()));
        assert!(login("192.0.2.1").refused.is_none());
        assert!(login("192.0.2.1").refused.is_some());
        assert!(login("192.0.2.2").refused.is_none());
        assert!(login("::ffff:192.0.2.2").refused.is_some(), "the same one");
        assert!(login("2001:db8::1").refused.is_none());
        assert!(login("2001:db8::2").refused.is_some(), "of one network");
        assert!(
            limiter
                .count_at(now, Group::Login, Some("ada"), HERE)
                .refused
                .is_none()
        );
    }

    #[test]
    fn everything_counts_for_all() {
        let limits = RateLimits {
            all: 3,
            ..RateLimits::default()
        };
        let (limiter, now) = (limiter(limits), Instant::now());
        let count = |group| limiter.count_at(now, group, Some("ada"), HERE);
        assert_eq!(count(Group::Clusters).limit, 3, "it has less left");
        assert_eq!(count(Group::Deployments).remaining, 1);
        assert!(count(Group::All).refused.is_none());
        assert!(count(Group::Approvals).refused.is_some());
    }

    #[test]
    fn what_counts_for_what() {
        let post = |path| Group::of(&Method::POST, Some(path));
        let get = |path| Group::of(&Method::GET, Some(path));
        assert_eq!(post("/api/v1/deployments"), Group::Deployments);
        assert_eq!(post("/api/v1/deployments/{id}/pause"), Group::Deployments);
        assert_eq!(post("/api/v1/deployments/{id}/abort"), Group::All);
        assert_eq!(post("/api/v1/deployments/{id}/rollback"), Group::All);
        assert_eq!(get("/api/v1/deployments"), Group::All);
        assert_eq!(get("/api/v1/clusters/{environment}"), Group::Clusters);
        assert_eq!(
            post("/api/v1/approvals/deployments/{id}/approve"),
            Group::Approvals
        );
        assert_eq!(post("/api/v1/authentication/login"), Group::Login);
        assert_eq!(post("/api/v1/authentication/refresh"), Group::All);
        assert_eq!(Group::of(&Method::GET, None), Group::All);
    }

    #[test]
    fn this_machine_is_free_where_it_is_said() {
        let limits = RateLimits {
            login: 0,
            loopback_is_free: true,
            ..RateLimits::default()
        };
        let (limiter, now) = (limiter(limits), Instant::now());
        assert!(limiter.count_at(now, Group::Login, None, HERE).refused.is_none());
        let elsewhere = Some("192.0.2.1".parse().unwrap());
        assert!(
            limiter
                .count_at(now, Group::Login, None, elsewhere)
                .refused
                .is_some()
        );
    }

    #[test]
    fn a_flood_of_addresses_fills_no_memory() {
        let (limiter, now) = (limiter(RateLimits::default()), Instant::now());
        for i in 0..u32::try_from(WINDOWS_MAX).unwrap() + 10 {
            limiter.count_at(now, Group::All, None, Some(IpAddr::V4(i.into())));
        }
        assert!(limiter.windows.lock().len() <= WINDOWS_MAX);
    }
}
