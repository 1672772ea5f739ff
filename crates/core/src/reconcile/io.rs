//! What a node's machine is told, and what it wants done.

use crate::ids::{Digest, FleetId, ModuleName, ReleaseRef, RolloutId};
use crate::report::SmokeOutcome;
use crate::spec::{Generation, NodeSpec, Observe, SmokeRun};
use crate::values::Values;

use super::Ledger;

/// Something that happened on a node.
#[derive(Clone, Debug, PartialEq)]
pub enum NodeInput {
    /// The server sent a spec.
    Spec(NodeSpec),
    /// A ledger is durable: synced, renamed, its folder synced.
    LedgerWritten {
        /// Its `version`.
        version: u64,
    },
    /// [`Action::Prepare`] ended.
    Prepared {
        /// The module.
        module: ModuleName,
        /// What it was prepared for.
        digest: Digest,
        /// Verified and compiled, or why not.
        result: Result<(), String>,
    },
    /// [`Action::Load`] ended.
    Loaded {
        /// The module.
        module: ModuleName,
        /// The release, by its id as everywhere here.
        digest: Digest,
        /// Warm and healthy, or why not.
        result: Result<(), String>,
    },
    /// A loaded release that was just routed to is not at work yet: putting it where it acts takes a while, as a kernel
    /// module's load does. The next [`NodeInput::Health`] of it says how that ended. Until then the module's routes stay
    /// as they are, and the release is not taken to be healthy for any time.
    Entering {
        /// The module.
        module: ModuleName,
        /// The release.
        digest: Digest,
    },
    /// A loaded release's own health. Saying the same again is free.
    Health {
        /// The module.
        module: ModuleName,
        /// The release.
        digest: Digest,
        /// Healthy, or what is wrong: it is not ready, trapped, crash-loops, or errs grossly.
        result: Result<(), String>,
    },
    /// [`Action::RunSmoke`] ended.
    Smoke {
        /// The module.
        module: ModuleName,
        /// How.
        outcome: SmokeOutcome,
    },
    /// The server knows a veto for good.
    Acked {
        /// The module.
        module: ModuleName,
        /// The rollout under which it was tried.
        rollout: RolloutId,
        /// The release that was left.
        release: ReleaseRef,
    },
    /// Time passed; due when `wake_at` says so.
    Tick,
    /// The agent was asked to stop. Nothing but the last [`Action::WriteLedger`] comes after it.
    Shutdown,
}

/// Something to do. Carried out in order; none waits for another's answer.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Make this ledger durable and say so with [`NodeInput::LedgerWritten`]. At most one is under way; where it
    /// can't be written the agent tries again until it can, and the node goes on serving what it serves.
    WriteLedger(Ledger),
    /// Fetch, verify and compile a package. Where that was done before, it costs nothing.
    Prepare {
        /// The module.
        module: ModuleName,
        /// What it is prepared for: a release's id.
        digest: Digest,
        /// The package.
        package: Digest,
    },
    /// Load and warm a prepared release; it gets no requests yet.
    Load {
        /// The module.
        module: ModuleName,
        /// The release.
        release: ReleaseRef,
        /// What it is given; `None` where this node doesn't know the values of its configuration.
        values: Option<Values>,
    },
    /// Share a module's requests out from now on, in one store. All named releases are loaded.
    Route {
        /// The module.
        module: ModuleName,
        /// Weights in %, their sum is 100; empty: nobody serves.
        routes: Vec<(Digest, u8)>,
    },
    /// Make a loaded release reachable for smoke checks, or none.
    Preview {
        /// The module.
        module: ModuleName,
        /// Which.
        digest: Option<Digest>,
    },
    /// Drain and drop a release. It gets no requests and is no preview.
    Unload {
        /// The module.
        module: ModuleName,
        /// Which.
        digest: Digest,
    },
    /// Run a release's smoke checks once.
    RunSmoke {
        /// The module.
        module: ModuleName,
        /// Which run.
        run: SmokeRun,
    },
    /// Count these arms apart from now on, or none. What was counted for others is closed first.
    Observe {
        /// The module.
        module: ModuleName,
        /// Which arms.
        observe: Option<Observe>,
    },
    /// A spec was refused; people must know.
    Alarm(Alarm),
}

/// Why a spec was refused. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Alarm {
    /// It is another fleet's.
    #[error("refused a spec of fleet {theirs}: this node belongs to {ours}")]
    ForeignFleet {
        /// This node's fleet.
        ours: FleetId,
        /// The spec's.
        theirs: FleetId,
    },
    /// It is as old as the accepted one but says something else.
    #[error(
        "refused a spec with the generation {}/{} of the accepted one and other content",
        .generation.epoch, .generation.seq
    )]
    Conflict {
        /// Its age.
        generation: Generation,
    },
    /// It contradicts itself.
    #[error("refused a faulty spec of generation {}/{}: {fault}", .generation.epoch, .generation.seq)]
    Faulty {
        /// Its age.
        generation: Generation,
        /// How.
        fault: String,
    },
}
