//! Two clocks, both inputs. Core time never jumps; wall time is for people's deadlines.

use std::fmt;
use std::ops::{Add, Sub};

use serde::{Deserialize, Serialize};

macro_rules! instant_type {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Default)]
        #[serde(transparent)]
        pub struct $name(pub u64);

        impl $name {
            /// Time from `earlier` to this, zero if `earlier` is later.
            pub fn since(self, earlier: Self) -> Millis {
                Millis(self.0.saturating_sub(earlier.0))
            }
        }

        impl Add<Millis> for $name {
            type Output = Self;
            fn add(self, delay: Millis) -> Self {
                Self(self.0.saturating_add(delay.0))
            }
        }

        impl Sub<Millis> for $name {
            type Output = Self;
            fn sub(self, delay: Millis) -> Self {
                Self(self.0.saturating_sub(delay.0))
            }
        }
    };
}

instant_type!(
    /// Core time in ms: the last logged value plus the monotonic time since. Soaks and deadlines go by it.
    CoreTime
);
instant_type!(
    /// Wall time in ms since the Unix epoch, UTC. Holds, pauses, approvals and freezes go by it.
    WallTime
);

/// A duration in ms.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Default)]
#[serde(transparent)]
pub struct Millis(pub u64);

impl Millis {
    /// So many seconds.
    pub const fn from_secs(secs: u64) -> Self {
        Self(secs * 1_000)
    }
}

impl Add for Millis {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

impl fmt::Display for Millis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            ms if ms < 1_000 => write!(f, "{ms} ms"),
            ms if ms < 120_000 => write!(f, "{}.{} s", ms / 1_000, ms % 1_000 / 100),
            ms if ms < 7_200_000 => write!(f, "{} min", ms / 60_000),
            ms => write!(f, "{} h", ms / 3_600_000),
        }
    }
}

impl fmt::Debug for Millis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What time it is, by both clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct Now {
    /// Core time.
    pub core: CoreTime,
    /// Wall time.
    pub wall: WallTime,
}
