//! The messages that have no place in the core: they are about the session, not about what runs.

use hotswap_core::ids::{Digest, FleetId, ModuleName, ReleaseRef, RolloutId};
use hotswap_core::spec::NodeSpec;
use hotswap_core::time::Millis;

/// What the server says in a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServerMessage {
    /// What to run from now on.
    Spec(NodeSpec),
    /// What need not be sent again.
    Ack(Ack),
    /// How to report. The first message of a session.
    Settings(Settings),
}

/// What the server has taken over for good.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Ack {
    /// Every report of this incarnation up to this one was taken over, or dropped on purpose.
    pub seq: u64,
    /// Vetoes that its State knows.
    pub vetoes: Vec<AckedVeto>,
    /// Intervals that its State folded, or that no rollout is waiting for any more.
    pub intervals: Vec<AckedInterval>,
}

/// A veto that the server knows.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct AckedVeto {
    /// The module.
    pub module: ModuleName,
    /// The rollout under which it was tried.
    pub rollout: RolloutId,
    /// The release that was left.
    pub release: ReleaseRef,
}

/// Intervals that the server needs no more, up to one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct AckedInterval {
    /// The module.
    pub module: ModuleName,
    /// The rollout that is judged.
    pub rollout: RolloutId,
    /// This one and all before it.
    pub number: u32,
}

/// How an agent is to report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Whose server this is.
    pub fleet: FleetId,
    /// How often the agent is to report at least.
    pub heartbeat: Millis,
    /// When the connection's certificate is to be renewed, from now; `None` where it has none.
    pub renew_in: Option<Millis>,
}

/// Which bytes an agent asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FetchRequest {
    /// The package.
    pub digest: Digest,
    /// From which byte on.
    pub offset: u64,
    /// The package's signature, in one chunk, instead of the package.
    pub signature: bool,
}
